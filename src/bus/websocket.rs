//! The WebSocket transport that doors share: an upgrade request in, messages and a way to write out.
//!
//! The only file that names `actix-web-actors`, so that it can be replaced without touching a door. The
//! context of a connection is polled only when its socket takes more, so a [`Write`] is answered when what was
//! written before has left: the writer keeps at most one on its way and gathers the rest.

use actix::prelude::{Actor, ActorContext, AsyncContext, Handler, Message, Recipient, StreamHandler};
use actix::{ActorFutureExt as _, WrapFuture as _};
use actix_web::{Error, HttpRequest, HttpResponse, web};
use actix_web_actors::ws::{self, CloseCode, CloseReason, WebsocketContext};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::wsguard::{Guarded, Why};

/// One message, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Valid UTF-8.
    Text(ByteString),
    /// Any bytes.
    Binary(Bytes),
}

impl Frame {
    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

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

/// What the owner wants of the connection. Answered when there is room for more.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub enum Write {
    /// Write these, in order.
    Frames(Vec<Frame>),
    /// Say farewell with this code and end.
    Close(u16),
}

/// The end of a connection that is written to.
pub type Writer = Recipient<Write>;

/// Answers an upgrade request. Messages of at most `message_bytes_max` go to `to`, marked with `conn`.
///
/// # Errors
/// The request is not a proper upgrade.
pub fn start(
    request: &HttpRequest,
    payload: web::Payload,
    message_bytes_max: usize,
    to: Recipient<Received>,
    conn: u64,
) -> Result<(Writer, HttpResponse), Error> {
    let (payload, why) = Guarded::new(payload, message_bytes_max);
    let actor = Conn { to, conn, why, parts: None, told: false };
    let builder = ws::WsResponseBuilder::new(actor, request, payload).frame_size(message_bytes_max);
    let (addr, response) = builder.start_with_addr()?;
    Ok((addr.recipient(), response))
}

struct Conn {
    to: Recipient<Received>,
    conn: u64,
    why: Why,
    /// The fragments so far, and whether they are text.
    parts: Option<(bool, BytesMut)>,
    told: bool,
}

impl Conn {
    /// Hands something on; while the owner is busy nothing more is read.
    fn hand(&mut self, what: Inbound, ctx: &mut WebsocketContext<Self>) {
        let received = Received { conn: self.conn, what };
        if let Err(actix::dev::SendError::Full(received)) = self.to.try_send(received) {
            let sent = self.to.send(received).into_actor(self).map(|sent, _, ctx: &mut WebsocketContext<Self>| {
                if sent.is_err() {
                    ctx.stop();
                }
            });
            ctx.wait(sent);
        }
    }

    fn fail(&mut self, code: CloseCode, ctx: &mut WebsocketContext<Self>) {
        ctx.close(Some(CloseReason { code, description: None }));
        ctx.stop();
    }

    fn part(&mut self, item: ws::Message, ctx: &mut WebsocketContext<Self>) {
        use actix_http::ws::Item;
        let ws::Message::Continuation(item) = item else { return };
        match item {
            Item::FirstText(part) => self.parts = Some((true, BytesMut::from(part.as_ref()))),
            Item::FirstBinary(part) => self.parts = Some((false, BytesMut::from(part.as_ref()))),
            Item::Continue(part) => {
                if let Some((_, parts)) = &mut self.parts {
                    parts.extend_from_slice(&part);
                }
            }
            Item::Last(part) => {
                let Some((text, mut parts)) = self.parts.take() else { return };
                parts.extend_from_slice(&part);
                let whole = parts.freeze();
                let frame = if text {
                    match ByteString::try_from(whole) {
                        Ok(text) => Frame::Text(text),
                        Err(_) => return self.fail(CloseCode::Invalid, ctx),
                    }
                } else {
                    Frame::Binary(whole)
                };
                self.hand(Inbound::Frame(frame), ctx);
            }
        }
    }
}

impl Actor for Conn {
    type Context = WebsocketContext<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        if !std::mem::replace(&mut self.told, true) {
            // Its owner may be gone as well, or so busy that it will look by itself.
            let to = self.to.clone();
            let closed = Received { conn: self.conn, what: Inbound::Closed };
            actix_web::rt::spawn(async move { to.send(closed).await.unwrap_or(()) });
        }
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Conn {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, ctx: &mut Self::Context) {
        match message {
            Ok(ws::Message::Text(text)) => self.hand(Inbound::Frame(Frame::Text(text)), ctx),
            Ok(ws::Message::Binary(bytes)) => self.hand(Inbound::Frame(Frame::Binary(bytes)), ctx),
            Ok(ws::Message::Ping(bytes)) => ctx.pong(&bytes),
            Ok(ws::Message::Pong(_) | ws::Message::Nop) => {}
            Ok(ws::Message::Close(reason)) => {
                ctx.close(reason);
                ctx.stop();
            }
            Ok(item @ ws::Message::Continuation(_)) => self.part(item, ctx),
            Err(_) if self.why.too_big() => self.fail(CloseCode::Size, ctx),
            // What is not UTF-8 comes as an I/O error, as does a connection that breaks.
            Err(ws::ProtocolError::Io(_)) => self.fail(CloseCode::Invalid, ctx),
            Err(ws::ProtocolError::Overflow) => self.fail(CloseCode::Size, ctx),
            Err(_) => self.fail(CloseCode::Protocol, ctx),
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Write> for Conn {
    type Result = ();

    fn handle(&mut self, write: Write, ctx: &mut Self::Context) {
        match write {
            Write::Frames(frames) => {
                for frame in frames {
                    match frame {
                        Frame::Text(text) => ctx.text(text),
                        Frame::Binary(bytes) => ctx.binary(bytes),
                    }
                }
            }
            Write::Close(code) => {
                ctx.close(Some(CloseReason { code: code.into(), description: None }));
                ctx.stop();
            }
        }
    }
}
