//! A WebSocket whose owner lives on another thread or node: an actor that forwards inbound messages and writes what its
//! owner sends. A [`Write`] is answered when everything before it has left. The owner keeps at most one write on its
//! way and collects the rest.

use actix::dev::ToEnvelope;
use actix::prelude::{Actor, ActorContext, AsyncContext, Context, Handler, Message, Recipient, StreamHandler};
use actix::{ActorFutureExt as _, ResponseFuture, WrapFuture as _};
use actix_web::{Error, HttpRequest, HttpResponse};

use super::reader::{self, InboundFrame, code};
use super::writer::{Frame, FrameWriter};
use crate::base::actors::{Actors, Belongs, Hold, Kind, Owned, must_tell};

/// A message of the connection to its owner.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Received {
    /// The number that the owner gave the connection.
    pub conn: u64,
    /// The message.
    pub what: Inbound,
}

/// What a connection forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// A whole message.
    Frame(Frame),
    /// The connection has ended.
    Closed,
}

/// A message of the owner to the connection. Answered when its bytes have left.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub enum Write {
    /// Write these frames, in order.
    Frames(Vec<Frame>),
    /// Send a close frame with this code and end.
    Close(u16),
}

/// The writing end of a connection, for its owner. When this is dropped, the connection sends a close frame and ends.
#[derive(Debug)]
pub struct Writer {
    /// The actor of the connection.
    to: Recipient<Write>,
    /// Keeps the actor alive.
    _hold: Hold,
}

impl Writer {
    /// The writing end of an actor that is a connection, or stands in for one.
    #[must_use]
    pub fn new<A: Belongs + Handler<Write>>(conn: Owned<A>) -> Self
    where
        Context<A>: ToEnvelope<A, Write>,
    {
        Self { to: conn.addr().clone().recipient(), _hold: conn.into_hold() }
    }

    /// Where writes go.
    #[must_use]
    pub const fn to(&self) -> &Recipient<Write> {
        &self.to
    }
}

/// Answers an upgrade request. Messages of at most `message_bytes_max` go to `to`, marked with `conn`.
///
/// # Errors
/// The request is not a proper upgrade.
pub fn start(
    request: &HttpRequest,
    message_bytes_max: usize,
    to: Recipient<Received>,
    conn: u64,
    actors: &Actors,
) -> Result<(Writer, HttpResponse), Error> {
    let (reader, sink, response) = reader::open(request, message_bytes_max, &[])?;
    let conn = Owned::create(actors, |ctx| {
        ctx.add_stream(reader);
        Conn { to, conn, sink }
    });
    Ok((Writer::new(conn), response))
}

/// The actor of a connection.
struct Conn {
    /// The owner.
    to: Recipient<Received>,
    /// The number that the owner gave the connection.
    conn: u64,
    /// What is to be written.
    sink: FrameWriter,
}

impl Conn {
    /// Forwards a message. While the mailbox of the owner is full, nothing more is read.
    fn forward(&self, what: Inbound, ctx: &mut Context<Self>) {
        let received = Received { conn: self.conn, what };
        match self.to.try_send(received) {
            Ok(()) => {}
            Err(actix::dev::SendError::Full(received)) => {
                let sent = self.to.send(received).into_actor(self).map(|sent, _, ctx: &mut Context<Self>| {
                    if sent.is_err() {
                        ctx.stop();
                    }
                });
                ctx.wait(sent);
            }
            Err(actix::dev::SendError::Closed(_)) => ctx.stop(),
        }
    }
}

impl Actor for Conn {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        must_tell(&self.to, Received { conn: self.conn, what: Inbound::Closed });
    }
}

impl Belongs for Conn {
    const KIND: Kind = Kind::WebSocket;

    fn released(&mut self, ctx: &mut Context<Self>) {
        // Behind what the owner has sent. The actor ends when the peer has closed too, or takes too long.
        must_tell(&ctx.address(), Write::Close(code::AWAY));
    }
}

impl StreamHandler<InboundFrame> for Conn {
    fn handle(&mut self, frame: InboundFrame, ctx: &mut Self::Context) {
        match frame {
            InboundFrame::Frame(frame) => self.forward(Inbound::Frame(frame), ctx),
            InboundFrame::Sign => {}
            InboundFrame::Closed => ctx.stop(),
        }
    }
}

impl Handler<Write> for Conn {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, write: Write, _: &mut Self::Context) -> Self::Result {
        match write {
            Write::Frames(frames) => frames.iter().for_each(|frame| self.sink.frame(frame)),
            Write::Close(code) => self.sink.close(code),
        }
        let sink = self.sink.clone();
        Box::pin(async move { sink.drained().await })
    }
}
