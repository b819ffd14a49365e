//! Connections of a protocol that is not HTTP.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_server::{Server, ServerBuilder};
use actix_service::fn_service;
use actix_web::rt::net::TcpStream;
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use super::admission::{Admitted, Arrival, Rejected};
use super::limits::{ConnectionSlot, ListenerLimits, TurnedAway};
use crate::net::peer::Peer;
use crate::net::socket::Socket;

/// How long a client may take to read that there are too many connections.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(2);

/// A connection that was let in. Its slot in the bound of the listener is given back when this is dropped.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: Socket,
    /// Bytes that were read behind a PROXY header; they come before those of the socket.
    pub read: BytesMut,
    /// The other end.
    pub peer: Peer,
    /// What was said to the client already, in a protocol in which the server begins; empty when the client has started
    /// the handshake of TLS before that.
    pub greeting: Bytes,
    /// Cancelled when the node stops: the connection has to end.
    pub stopping: CancellationToken,
    /// The slot.
    _slot: ConnectionSlot,
}

/// Serves a listener until it is stopped.
///
/// # Errors
/// The socket cannot be used.
pub(super) fn listen<F: Future<Output = ()> + 'static>(
    builder: ServerBuilder,
    socket: TcpListener,
    (limits, refusal): (Arc<ListenerLimits>, &'static [u8]),
    stopping: CancellationToken,
    serve: impl Fn(Connection) -> F + Send + Clone + 'static,
) -> io::Result<Server> {
    let name = limits.settings.name;
    let build = move || {
        let (limits, stopping, serve) = (Arc::clone(&limits), stopping.clone(), serve.clone());
        fn_service(move |stream: TcpStream| {
            let (limits, stopping, serve) = (Arc::clone(&limits), stopping.clone(), serve.clone());
            async move {
                // In a box, which goes when it is done: the handshake is larger than all that an idle connection needs.
                if let Some(connection) = Box::pin(admit(stream, &limits, refusal, stopping)).await {
                    serve(connection).await;
                }
                Ok::<_, Infallible>(())
            }
        })
    };
    Ok(builder.listen(name, socket, build)?.run())
}

/// The steps before the protocol.
async fn admit(
    stream: TcpStream,
    limits: &Arc<ListenerLimits>,
    refusal: &'static [u8],
    stopping: CancellationToken,
) -> Option<Connection> {
    let arrival = Arrival::new(stream, limits)?;
    match ConnectionSlot::take(limits, false) {
        Some(Ok(slot)) => match arrival.enter(limits, &stopping).await {
            Ok(Admitted { socket, read, peer, greeting }) => {
                Some(Connection { socket, read, peer, greeting, stopping, _slot: slot })
            }
            Err(Rejected::Plaintext(socket, ..)) => {
                let last = limits.settings.greeting.as_ref().map_or(&b""[..], |greeting| greeting.plaintext_refusal);
                refuse(socket, last).await;
                None
            }
            Err(Rejected::Close) => None,
        },
        full => {
            limits.count(TurnedAway::Connections);
            let _slot = full?.err()?;
            let first = &limits.settings.greeting;
            let admitted = match (limits.tls(), first) {
                // The last word comes behind the first one, where the server begins.
                (None, None) => arrival.unchecked(),
                _ => arrival.enter(limits, &stopping).await.ok()?,
            };
            refuse(admitted.socket, refusal).await;
            None
        }
    }
}

/// Says why the connection ends.
async fn refuse(mut socket: Socket, refusal: &[u8]) {
    let refuse = async {
        socket.write_all(refusal).await?;
        socket.shutdown().await
    };
    // A client that does not read has had its chance.
    tokio::time::timeout(REFUSAL_TIME_MAX, refuse).await.ok();
}
