//! Moves bytes between the socket and the actor of a connection.
//!
//! The pump lives in the context of the actor and owns the socket. An idle connection keeps no buffer. Invariant: nothing
//! is read while what was read before cannot be handled, and what is read is bounded by the parser.

use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use actix::ActorFuture;
use actix::prelude::{ActorContext, AsyncContext, Context};
use bytes::BytesMut;
use tokio::io::AsyncWrite as _;
use tokio::sync::oneshot;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::Connection;
use crate::base::actors::start_with_its_stream;
use crate::base::clock;
use crate::doors::nats::context::DoorContext;
use crate::doors::nats::outbox::Taken;
use crate::doors::nats::settings::Settings;
use crate::doors::nats::wire::operation::ClientOp;
use crate::doors::nats::wire::parser::{Limits, Parser};
use crate::net::listener::tcp;

/// Bytes of the first read, and of the largest.
const READ_BYTES: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;
/// Reads and writes without giving the thread to others.
const ROUNDS_MAX: usize = 16;

/// Moves the bytes of one connection.
struct Pump {
    connection: tcp::Connection,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    parser: Parser,
    /// What was read and not handled.
    read: BytesMut,
    /// Bytes of the next read: more while the client fills them.
    read_bytes: usize,
    /// What is being written, and how much of it was.
    out: BytesMut,
    written: usize,
}

/// Starts the actor of a connection, which ends when the connection does. `ended` is dropped then.
pub(in crate::doors::nats) fn start(
    context: &Arc<DoorContext>,
    connection: tcp::Connection,
    ended: oneshot::Sender<Infallible>,
) {
    start_with_its_stream(&context.services.bus.metrics().actors, |ctx: &mut Context<Connection>| {
        let actor = Connection::new(context, &connection, ended);
        ctx.spawn(Pump::new(connection, &context.settings));
        actor
    });
}

/// Whether something has moved.
type Moved = bool;

/// The connection is over.
struct Over;

impl Pump {
    fn new(mut connection: tcp::Connection, settings: &Settings) -> Self {
        let limits = Limits { control_line: settings.control_line_bytes_max, payload: settings.message_bytes_max };
        let read = std::mem::take(&mut connection.read);
        let stopping = Box::pin(connection.stopping.clone().cancelled_owned());
        let (out, written) = (BytesMut::new(), 0);
        Self { connection, stopping, parser: Parser::new(limits), read, read_bytes: READ_BYTES, out, written }
    }

    /// Handles what was read, as far as that is possible now.
    fn handle(&mut self, act: &mut Connection, ctx: &mut Context<Connection>, task: &mut Task<'_>) -> Moved {
        let mut moved = false;
        while act.is_listening() && !self.read.is_empty() {
            match self.parser.next(&mut self.read) {
                Ok(Some(operation)) => {
                    let connects = matches!(operation, ClientOp::Connect(_));
                    act.operation(operation, ctx, task);
                    if connects {
                        self.parser.allow_headers(act.connect.headers);
                    }
                    moved = true;
                }
                Ok(None) => break,
                Err(error) => act.refuse(&error, ctx),
            }
        }
        moved
    }

    /// Reads once.
    fn receive(&mut self, act: &mut Connection, task: &mut Task<'_>) -> Poll<Result<(), Over>> {
        if self.read.is_empty() {
            // An idle connection needs no buffer.
            if self.connection.socket.poll_read_ready(task).is_pending() {
                self.read = BytesMut::new();
                self.read_bytes = READ_BYTES;
                return Poll::Pending;
            }
        }
        // The parser says how much is missing. No more is reserved than has come already, so that whoever announces
        // much and sends little holds little.
        let wanted = self.parser.missing().min(self.read.len().max(self.read_bytes)).max(self.read_bytes);
        self.read.reserve(wanted);
        let read = ready!(poll_read_buf(Pin::new(&mut self.connection.socket), task, &mut self.read));
        let Some(count) = read.ok().filter(|count| *count > 0) else { return Poll::Ready(Err(Over)) };
        if count >= self.read_bytes {
            self.read_bytes = self.read_bytes.saturating_mul(2).min(READ_BYTES_MAX);
        }
        act.last_heard = clock::now();
        Poll::Ready(Ok(()))
    }

    /// Writes what waits. `Ok(false)`: nothing waits, or the socket takes nothing now.
    fn send(
        &mut self,
        act: &mut Connection,
        ctx: &mut Context<Connection>,
        task: &mut Task<'_>,
    ) -> Result<Moved, Over> {
        let mut moved = false;
        if !act.is_ending() && act.outbox.is_slow() {
            act.end_slow(ctx);
            return Err(Over);
        }
        loop {
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                match act.outbox.take(&mut self.out, task) {
                    Taken::Bytes => {}
                    Taken::Nothing => break,
                    Taken::Slow if act.is_ending() => return Err(Over),
                    Taken::Slow => {
                        act.end_slow(ctx);
                        return Err(Over);
                    }
                }
            }
            let rest = self.out.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.connection.socket).poll_write(task, rest) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.written = self.written.saturating_add(count);
                    act.write_moves();
                    moved = true;
                }
                Poll::Ready(_) => return Err(Over),
                Poll::Pending => {
                    act.write_blocks(ctx);
                    return Ok(moved);
                }
            }
        }
        if self.out.capacity() > READ_BYTES_MAX || !moved && self.read.is_empty() {
            self.out = BytesMut::new();
        }
        match Pin::new(&mut self.connection.socket).poll_flush(task) {
            Poll::Ready(Err(_)) => Err(Over),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(moved),
        }
    }

    /// Says that nothing more follows, behind all that was written.
    fn shut_down(&mut self, task: &mut Task<'_>) -> Poll<()> {
        Pin::new(&mut self.connection.socket).poll_shutdown(task).map(drop)
    }

    /// One round. `Ok(false)`: everything waits for somebody else.
    fn round(
        &mut self,
        act: &mut Connection,
        ctx: &mut Context<Connection>,
        task: &mut Task<'_>,
    ) -> Result<Moved, Over> {
        let mut moved = act.progress(ctx, task);
        moved |= self.handle(act, ctx, task);
        // What was handled may have been all that kept the client from being read.
        if act.is_listening() && !act.is_ending() {
            match self.receive(act, task) {
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(Over)) => return Err(Over),
                Poll::Pending => {}
            }
        }
        act.flush();
        moved |= self.send(act, ctx, task)?;
        if act.is_ending()
            && self.written == self.out.len()
            && act.outbox.waiting() == 0
            && self.shut_down(task).is_ready()
        {
            return Err(Over);
        }
        Ok(moved)
    }
}

impl ActorFuture<Connection> for Pump {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        act: &mut Connection,
        ctx: &mut Context<Connection>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        let pump = self.get_mut();
        if !act.lame && pump.stopping.as_mut().poll(task).is_ready() {
            act.lame_duck(ctx);
        }
        for _ in 0..ROUNDS_MAX {
            match pump.round(act, ctx, task) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(Over) => {
                    act.leave();
                    ctx.stop();
                    return Poll::Ready(());
                }
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }
}
