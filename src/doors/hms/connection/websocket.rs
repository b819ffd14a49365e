//! Frames in the binary messages of a WebSocket, for docks and clients behind HTTP proxies. Where messages begin and end
//! means nothing: they are bytes of one stream.

use std::sync::Arc;

use actix::fut::wrap_future;
use actix::prelude::{Actor, ActorContext, AsyncContext, Context, Handler};
use actix::{ActorFutureExt as _, WrapFuture as _};
use actix_web::{Error, HttpRequest, HttpResponse};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::oneshot;

use super::super::admit::Shown;
use super::super::context::DoorContext;
use super::start_on;
use crate::base::actors::{Belongs, Kind, start_with_its_stream};
use crate::bus::security::credentials::secret::Secret;
use crate::net::http_credential::authorization;
use crate::net::peer::Peer;
use crate::net::websocket::connection::{Inbound, Received, Write, Writer, start};
use crate::net::websocket::reader::code;
use crate::net::websocket::writer::Frame;

/// Bytes on their way between the WebSocket and the session.
const WAY_BYTES: usize = 64 * 1024;

/// The actor between a WebSocket and the session of its peer.
struct Bridge {
    /// Towards the session.
    to_session: Option<WriteHalf<DuplexStream>>,
    /// The WebSocket. It ends with this.
    socket: Option<Writer>,
}

/// Answers an upgrade request.
///
/// # Errors
/// The request is not a proper upgrade.
pub(in crate::doors::hms) fn upgrade(
    context: &Arc<DoorContext>,
    request: &HttpRequest,
    peer: Peer,
) -> Result<HttpResponse, Error> {
    let actors = context.services.bus.metrics().actors.clone();
    let (near, far) = duplex(WAY_BYTES);
    let (from_session, to_session) = split(far);
    let shown = authorization(request.headers()).map(|value| String::from_utf8_lossy(value).into_owned());
    let shown = Shown { authorization: shown.map(Secret::new), token: None };
    let mut answer = None;
    start_with_its_stream(&actors, |ctx: &mut Context<Bridge>| {
        let upgraded = start(request, context.settings.message_bytes_max, ctx.address().recipient(), 0, &actors);
        let (socket, answered) =
            upgraded.map_or_else(|error| (None, Err(error)), |(to, answer)| (Some(to), Ok(answer)));
        match &socket {
            Some(socket) => {
                let out = wrap_future::<_, Bridge>(forward(from_session, socket.to().clone()));
                ctx.spawn(out.map(|(), _, ctx: &mut Context<Bridge>| ctx.stop()));
            }
            None => ctx.stop(),
        }
        answer = Some(answered);
        Bridge { to_session: Some(to_session), socket }
    });
    let answer = answer.unwrap_or_else(|| Ok(HttpResponse::InternalServerError().finish()))?;
    // Whoever waits for the end of the connection waits for the WebSocket.
    let (ended, _) = oneshot::channel();
    start_on(context, (near, BytesMut::new()), (peer, shown), ended);
    Ok(answer)
}

/// Sends what the session says, until it ends.
async fn forward(mut from_session: ReadHalf<DuplexStream>, socket: actix::Recipient<Write>) {
    loop {
        let mut bytes = BytesMut::with_capacity(WAY_BYTES);
        match from_session.read_buf(&mut bytes).await {
            Ok(count) if count > 0 => {}
            _ => return,
        }
        // The answer comes when the bytes have left: a slow peer slows its session, and nothing piles up.
        if socket.send(Write::Frames(vec![Frame::Binary(bytes.freeze())])).await.is_err() {
            return;
        }
    }
}

impl Actor for Bridge {
    type Context = Context<Self>;
}

impl Belongs for Bridge {
    const KIND: Kind = Kind::HmsWebSocket;
}

impl Handler<Received> for Bridge {
    type Result = ();

    fn handle(&mut self, received: Received, ctx: &mut Self::Context) {
        match received.what {
            Inbound::Frame(Frame::Binary(bytes)) => {
                let Some(mut to_session) = self.to_session.take() else { return };
                let written = async move {
                    let written = to_session.write_all(&bytes).await;
                    written.map(|()| to_session)
                };
                // Nothing more is read meanwhile.
                ctx.wait(written.into_actor(self).map(
                    |written, act: &mut Self, ctx: &mut Context<Self>| match written {
                        Ok(to_session) => act.to_session = Some(to_session),
                        Err(_) => ctx.stop(),
                    },
                ));
            }
            Inbound::Frame(Frame::Text(_)) => {
                if let Some(socket) = &self.socket {
                    crate::base::actors::must_tell(socket.to(), Write::Close(code::UNSUPPORTED));
                }
                ctx.stop();
            }
            Inbound::Closed => ctx.stop(),
        }
    }
}
