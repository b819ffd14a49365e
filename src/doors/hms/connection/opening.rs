//! Frames or HTTP: the first byte of a connection says it.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::super::context::DoorContext;
use super::super::http::{self, head};
use super::super::outbox::Outbox;
use super::super::wire::opening::Opening;
use super::super::wire::texts::SWITCHING_PROTOCOLS;
use super::super::{admit::Shown, http::Request};
use super::session::{Session, Setup};
use super::signals::Signals;
use super::stream;
use crate::net::listener::tcp;
use crate::net::peer::Peer;

/// Longest time that the head of a request may take.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// Serves a connection until it ends.
pub(super) async fn serve(context: Arc<DoorContext>, connection: tcp::Connection, signals: Signals) {
    // The slot of the connection stays in `connection` to the end of this function.
    let tcp::Connection { socket, read, peer, stopping, .. } = connection;
    let ends = stopping.clone();
    let served = open((socket, read), (context, peer, stopping), signals);
    ends.run_until_cancelled(Box::pin(served)).await;
}

/// Serves a stream of bytes, of which some were read already.
async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    (mut stream, mut read): (S, BytesMut),
    (context, peer, stopping): (Arc<DoorContext>, Peer, CancellationToken),
    signals: Signals,
) {
    let open = context.services.bus.authority().is_open_to(peer.local);
    let first = async {
        while read.is_empty() {
            match stream.read_buf(&mut read).await {
                Ok(count) if count > 0 => {}
                _ => return None,
            }
        }
        read.first().copied()
    };
    let first = match open {
        // A client that needs no credential may say nothing for as long as it wants.
        true => first.await,
        false => tokio::time::timeout(context.settings.auth_timeout, first).await.ok().flatten(),
    };
    let outbox = Arc::new(Outbox::new(context.settings.queue_bytes_max));
    let mut shown = Shown::default();
    match first.map(Opening::of) {
        Some(Opening::Raw) => {}
        Some(Opening::Http) => {
            let head = tokio::time::timeout(HEAD_TIME_MAX, head::read(&mut stream, &mut read)).await;
            match head {
                Ok(Ok(head)) if head.method == "CONNECT" => {
                    outbox.say(|out| {
                        out.extend_from_slice(SWITCHING_PROTOCOLS.as_bytes());
                        Ok::<_, std::convert::Infallible>(())
                    });
                    shown.authorization = head.authorization;
                }
                Ok(Ok(head)) => return http::serve(&context, &peer, Request { head, stream, read }).await,
                Ok(Err(error)) => return http::refuse(&mut stream, &error).await,
                Err(_) => return,
            }
        }
        Some(Opening::Foreign) | None => return,
    }
    let setup = Setup { context, peer, shown, outbox, signals };
    stream::run(stream, read, Session::new(setup), stopping).await;
}
