//! A WebSocket for an owner that lives on another thread or node: an actor hands on what comes and writes what it
//! is told to. A [`Write`] is answered when what was written before has left: the owner keeps at most one on its way
//! and gathers the rest.

use actix::dev::ToEnvelope;
use actix::prelude::{Actor, ActorContext, AsyncContext, Context, Handler, Message, Recipient, StreamHandler};
use actix::{ActorFutureExt as _, ResponseFuture, WrapFuture as _};
use actix_web::{Error, HttpRequest, HttpResponse};

use super::reader::{self, InboundFrame, code};
use super::writer::{Frame, FrameWriter};
use crate::base::actors::{Actors, Belongs, Hold, Kind, Owned, must_tell};

/// What a connection hands to its owner.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Received {
    /// The number that the owner gave the connection.
    pub conn: u64,
    /// What came.
    pub what: Inbound,
}

/// What can come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// A whole message.
    Frame(Frame),
    /// Nothing more will come, and nothing can be written.
    Closed,
}

/// What the owner wants of the connection. Answered when it has left.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub enum Write {
    /// Write these, in order.
    Frames(Vec<Frame>),
    /// Say farewell with this code and end.
    Close(u16),
}

/// The end of a connection that is written to. Its owner has it: when it is dropped, the connection says farewell
/// and ends.
#[derive(Debug)]
pub struct Writer {
    to: Recipient<Write>,
    _hold: Hold,
}

impl Writer {
    /// Of an actor that is, or stands in for, a connection.
    #[must_use]
    pub fn new<A: Belongs + Handler<Write>>(conn: Owned<A>) -> Self
    where
        Context<A>: ToEnvelope<A, Write>,
    {
        Self { to: conn.addr().clone().recipient(), _hold: conn.into_hold() }
    }

    /// Where it takes what is to be written.
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

struct Conn {
    to: Recipient<Received>,
    conn: u64,
    sink: FrameWriter,
}

impl Conn {
    /// Hands something on; while the owner is busy nothing more is read.
    fn hand(&self, what: Inbound, ctx: &mut Context<Self>) {
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
        // Behind what its owner has had to say. It ends when its peer has said farewell too, or takes too long.
        must_tell(&ctx.address(), Write::Close(code::AWAY));
    }
}

impl StreamHandler<InboundFrame> for Conn {
    fn handle(&mut self, came: InboundFrame, ctx: &mut Self::Context) {
        match came {
            InboundFrame::Frame(frame) => self.hand(Inbound::Frame(frame), ctx),
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
