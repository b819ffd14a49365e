//! The actor of one session. It connects the state machines [`Engine`] and [`Session`], which are pure, to time, to
//! the transports and to the bus.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::{Actor, ActorContext, AsyncContext, Context, Handler, Message, MessageResult};
use actix::{ActorFutureExt as _, WrapFuture as _};
use bytestring::ByteString;
use tokio::sync::oneshot;

use super::arrivals::Arrival;
use super::protocol::Engine;
use super::steps::{Polled, RequestError, Step, Timing};
use super::table::SessionSlot;
use crate::base::actors::{Belongs, Kind, hint, must_tell};
use crate::base::clock;
use crate::bus::client::clients::ClientMessage;
use crate::bus::subscribe::streams::Turn;
use crate::doors::socketio::session::{Application, Disconnect, Handshake, Out, Session};
use crate::net::websocket::connection::{Inbound, Received, Write, Writer};
use crate::net::websocket::reader::code;
use crate::net::websocket::writer::{Frame, ROOM_BYTES};

/// Messages that may wait in the mailbox of a session: more than the requests that the client may receive and send at
/// a time.
const MAILBOX: usize = 4096;
/// How long a session may send nothing after the handshake.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Bounds that all sessions of a door share.
#[derive(Debug, Clone, Copy)]
pub(in crate::doors::socketio) struct Bounds {
    pub(in crate::doors::socketio) timing: Timing,
    /// Longest time from the handshake to the first CONNECT.
    pub(in crate::doors::socketio) connect_timeout: Duration,
    /// Most bytes that may wait for a client.
    pub(in crate::doors::socketio) queue_bytes_max: usize,
}

/// A GET. The answer comes when the session has packets for the client, or when a ping is due.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(in crate::doors::socketio) struct Poll(
    pub(in crate::doors::socketio) oneshot::Sender<Result<String, RequestError>>,
);

/// The client closed the connection of the pending GET.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(in crate::doors::socketio) struct PollAborted;

/// A POST begins, under a number of its own. The POST is aborted when the other end of the channel sends a reason or
/// is dropped.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub(in crate::doors::socketio) struct PostStart(
    pub(in crate::doors::socketio) u64,
    pub(in crate::doors::socketio) oneshot::Receiver<&'static str>,
);

/// The body of the POST with that number. `None` means that the body is not text.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub(in crate::doors::socketio) struct PostBody(
    pub(in crate::doors::socketio) u64,
    pub(in crate::doors::socketio) Option<ByteString>,
);

/// A WebSocket for this session: the first transport of the session, or an upgrade from polling.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(in crate::doors::socketio) struct Attach {
    pub(in crate::doors::socketio) conn: u64,
    pub(in crate::doors::socketio) writer: Writer,
    /// A frame to write before all others: the handshake of a session that begins with the WebSocket.
    pub(in crate::doors::socketio) open: Option<ByteString>,
}

/// Calls a function when a request is dropped because its client disconnected.
pub(in crate::doors::socketio) struct OnDisconnect<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDisconnect<F> {
    pub(in crate::doors::socketio) const fn new(notify: F) -> Self {
        Self(Some(notify))
    }

    pub(in crate::doors::socketio) fn disarm(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for OnDisconnect<F> {
    fn drop(&mut self) {
        if let Some(notify) = self.0.take() {
            notify();
        }
    }
}

/// The end of a write to a WebSocket. `delivered` is false when the WebSocket has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Written {
    conn: u64,
    delivered: bool,
}

/// Asks the actor to send all queued packets in one write.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Flush;

/// The actor of one session.
pub(in crate::doors::socketio) struct SessionActor {
    /// The state of Engine.IO.
    engine: Engine,
    /// The state of Socket.IO.
    session: Session,
    /// More unread bytes than this mean that the client does not read.
    queue_bytes_max: usize,
    /// When the session ends unless the client has joined a namespace. The second deadline applies once the client
    /// has sent something.
    join_by: Instant,
    join_by_when_active: Instant,
    /// Counts the session as arriving until the client joins a namespace.
    arrival: Option<Arrival>,
    /// The pending poll, answered by [`Step::Answer`].
    poll: Option<oneshot::Sender<Result<String, RequestError>>>,
    /// The WebSockets of the session by number: two during an upgrade. The session owns them.
    writers: Vec<(u64, Writer)>,
    /// When the earliest timer fires, so that no second timer is set for a later time.
    timer_at: Option<Instant>,
    /// Whether the session is over, so that nothing else reaches the application.
    ended: bool,
    /// Messages that wait until the application has finished an earlier message.
    backlog: VecDeque<Frame>,
    /// Whether the application is busy with a message: later messages wait in `backlog`.
    waiting: bool,
    /// Whether a [`Flush`] is in the mailbox, so that one flush serves many messages.
    flush_queued: bool,
    /// The turn of the stream that sent last. The next stream sends once little of that waits for the client.
    turn: Option<Turn>,
    /// Removes the session from the table of the door when the actor ends.
    _table_slot: SessionSlot<Self>,
}

impl SessionActor {
    /// Creates a session that begins with polling, or with the WebSocket `conn`.
    pub(in crate::doors::socketio) fn new(
        bounds: Bounds,
        conn: Option<u64>,
        application: Arc<dyn Application>,
        handshake: Handshake,
        (table_slot, arrival): (SessionSlot<Self>, Arrival),
    ) -> Self {
        let now = clock::now();
        let join_by_when_active = now + bounds.connect_timeout;
        Self {
            engine: Engine::new(bounds.timing, conn, now),
            session: Session::new(application, handshake),
            queue_bytes_max: bounds.queue_bytes_max,
            join_by: join_by_when_active.min(now + SILENCE_MAX),
            join_by_when_active,
            arrival: Some(arrival),
            poll: None,
            writers: Vec::new(),
            timer_at: None,
            ended: false,
            backlog: VecDeque::new(),
            waiting: false,
            flush_queued: false,
            turn: None,
            _table_slot: table_slot,
        }
    }

    /// Notes that the client sent something, which extends the time to join a namespace.
    fn client_sent(&mut self) {
        self.join_by = self.join_by_when_active;
    }

    /// Takes the steps that the engine asks for.
    fn run_steps(&mut self, ctx: &mut Context<Self>) {
        loop {
            let steps = self.engine.take();
            if steps.is_empty() {
                break;
            }
            for step in steps {
                self.step(step, ctx);
            }
        }
        if self.session.is_joined() || self.ended {
            self.arrival = None;
        }
        if self.engine.waiting_bytes() < ROOM_BYTES {
            self.turn = None;
        }
        self.arm(ctx);
    }

    fn step(&mut self, step: Step, ctx: &mut Context<Self>) {
        match step {
            Step::Answer(payload) => self.answer(Ok(payload)),
            Step::Write(conn, frames) => self.write(conn, Write::Frames(frames), ctx),
            Step::Shut(conn, code) => {
                self.write(conn, Write::Close(code), ctx);
                self.writers.retain(|(other, _)| *other != conn);
            }
            Step::Message(frame) if self.waiting || !self.backlog.is_empty() => self.backlog.push_back(frame),
            Step::Message(frame) => self.message(frame, ctx),
            Step::Closed(reason) => self.closed(reason, ctx),
        }
    }

    /// Handles waiting messages until one of them has to wait for the application.
    fn process_backlog(&mut self, ctx: &mut Context<Self>) {
        while !self.waiting && !self.ended {
            let Some(frame) = self.backlog.pop_front() else { return };
            self.message(frame, ctx);
        }
    }

    fn message(&mut self, frame: Frame, ctx: &mut Context<Self>) {
        if self.ended {
            return;
        }
        match self.session.message(frame) {
            Ok(out) => self.apply(out, ctx),
            Err(malformed) => self.engine.close(malformed.0, code::NORMAL, clock::now()),
        }
    }

    fn closed(&mut self, reason: &'static str, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        tracing::debug!(reason, "a Socket.IO session ended");
        self.session.end();
        match self.engine.linger() {
            Duration::ZERO => ctx.stop(),
            linger => drop(ctx.run_later(linger, |_, ctx| ctx.stop())),
        }
    }

    fn answer(&mut self, answer: Result<String, RequestError>) {
        if let Some(poll) = self.poll.take() {
            // The client may have disconnected and does not need the answer then.
            hint(poll, answer);
        }
    }

    fn write(&mut self, conn: u64, write: Write, ctx: &mut Context<Self>) {
        let Some((_, writer)) = self.writers.iter().find(|(other, _)| *other == conn) else { return };
        // This future does not belong to the actor, so the last frames are sent even when the actor stops.
        let (request, session) = (writer.to().send(write), ctx.address());
        actix_web::rt::spawn(async move {
            let delivered = request.await.is_ok();
            must_tell(&session, Written { conn, delivered });
        });
    }

    fn apply(&mut self, mut out: Out, ctx: &mut Context<Self>) {
        if out.disconnect == Some(Disconnect::Kick) {
            self.session.kick(&mut out);
        }
        // The bytes that wait already show whether the client reads. One large message does not show that.
        let unread = self.engine.unread_bytes() > self.queue_bytes_max;
        if unread && out.frames.iter().map(Frame::len).sum::<usize>() > out.paced {
            self.engine.close("client does not read", code::NORMAL, clock::now());
        }
        self.turn = out.turn.take().or_else(|| self.turn.take());
        if !out.frames.is_empty() {
            self.engine.queue(out.frames, out.paced);
            // The flush is queued behind all waiting messages, so that their packets leave in one write.
            if !std::mem::replace(&mut self.flush_queued, true) {
                ctx.notify(Flush);
            }
        }
        if let Some(Disconnect::Drop(reason, code)) = out.disconnect {
            self.engine.close(reason, code, clock::now());
        }
        if let Some(wait) = out.wait {
            // The actor handles no other message until the application is done.
            self.engine.flush();
            self.waiting = true;
            let waited = wait.into_actor(self).map(|result, act: &mut Self, ctx| {
                act.waiting = false;
                if !act.ended {
                    let out = act.session.wait_ended(result);
                    act.apply(out, ctx);
                }
                act.process_backlog(ctx);
                act.run_steps(ctx);
            });
            ctx.wait(waited);
        }
    }

    fn deliver(&mut self, message: ClientMessage, ctx: &mut Context<Self>) {
        if self.ended {
            return;
        }
        let out = self.session.client_message(message);
        self.apply(out, ctx);
        self.run_steps(ctx);
    }

    /// Sets a timer for the next deadline, unless an earlier timer is set.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        if self.ended {
            return;
        }
        let mut next = self.engine.next_deadline();
        if !self.session.is_joined() {
            next = next.min(self.join_by);
        }
        if self.timer_at.is_some_and(|timer_at| timer_at <= next) {
            return;
        }
        self.timer_at = Some(next);
        ctx.run_later(next.saturating_duration_since(clock::now()), move |act, ctx| {
            if act.timer_at == Some(next) {
                act.timer_at = None;
            }
            let now = clock::now();
            if !act.session.is_joined() && now >= act.join_by {
                act.engine.close("no CONNECT in time", code::NORMAL, now);
            }
            act.engine.tick(now);
            act.run_steps(ctx);
        });
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.arm(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        if !self.ended {
            self.session.end();
        }
    }
}

impl Belongs for SessionActor {
    const KIND: Kind = Kind::Session;
}

impl Handler<Poll> for SessionActor {
    type Result = ();

    fn handle(&mut self, Poll(answer): Poll, ctx: &mut Self::Context) {
        let polled = self.engine.poll(clock::now());
        // The steps of an overlap answer the poll that was pending before.
        self.run_steps(ctx);
        let answered = match polled {
            Polled::Now(payload) => answer.send(Ok(payload)),
            Polled::Refused(error) => answer.send(Err(error)),
            Polled::Later => {
                self.poll = Some(answer);
                return;
            }
        };
        if answered.is_err() {
            self.engine.poll_aborted();
        }
        if self.engine.is_over() && self.ended {
            ctx.stop();
        }
    }
}

impl Handler<PollAborted> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: PollAborted, ctx: &mut Self::Context) {
        self.engine.poll_aborted();
        self.run_steps(ctx);
    }
}

impl Handler<PostStart> for SessionActor {
    type Result = MessageResult<PostStart>;

    fn handle(&mut self, PostStart(post, aborted): PostStart, ctx: &mut Self::Context) -> Self::Result {
        self.client_sent();
        let begun = self.engine.post_start(post);
        if begun.is_ok() {
            // The session does not wait forever for a POST whose handler is gone.
            ctx.spawn(aborted.into_actor(self).map(move |reason, act: &mut Self, ctx| {
                act.engine.post_aborted(post, reason.unwrap_or("data request connection closed prematurely"));
                act.run_steps(ctx);
            }));
        }
        self.run_steps(ctx);
        MessageResult(begun)
    }
}

impl Handler<PostBody> for SessionActor {
    type Result = MessageResult<PostBody>;

    fn handle(&mut self, PostBody(post, body): PostBody, ctx: &mut Self::Context) -> Self::Result {
        let taken = self.engine.post(post, body.as_ref(), clock::now());
        self.run_steps(ctx);
        MessageResult(taken)
    }
}

impl Handler<Attach> for SessionActor {
    type Result = ();

    fn handle(&mut self, Attach { conn, writer, open }: Attach, ctx: &mut Self::Context) {
        self.writers.push((conn, writer));
        match open {
            Some(open) => self.engine.send([Frame::Text(open)]),
            None => self.engine.attach(conn, clock::now()),
        }
        self.run_steps(ctx);
    }
}

impl Handler<Flush> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        self.flush_queued = false;
        self.engine.flush();
        self.run_steps(ctx);
    }
}

impl Handler<Written> for SessionActor {
    type Result = ();

    fn handle(&mut self, Written { conn, delivered }: Written, ctx: &mut Self::Context) {
        if delivered {
            self.engine.written(conn);
        } else {
            self.engine.conn_closed(conn);
            self.writers.retain(|(other, _)| *other != conn);
        }
        self.run_steps(ctx);
    }
}

impl Handler<Received> for SessionActor {
    type Result = ();

    fn handle(&mut self, Received { conn, what }: Received, ctx: &mut Self::Context) {
        match what {
            Inbound::Frame(frame) => {
                self.client_sent();
                self.engine.frame(conn, frame, clock::now());
            }
            Inbound::Closed => {
                self.engine.conn_closed(conn);
                self.writers.retain(|(other, _)| *other != conn);
            }
        }
        self.run_steps(ctx);
    }
}

impl Handler<ClientMessage> for SessionActor {
    type Result = ();

    fn handle(&mut self, message: ClientMessage, ctx: &mut Self::Context) {
        self.deliver(message, ctx);
    }
}
