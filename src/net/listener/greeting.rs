//! What the server of a protocol says first, before anybody knows whether the connection will be secure.
//!
//! NATS begins so: the server says in clear what it is, and the client then starts the handshake of TLS or goes on in
//! clear. A client may also be configured to start the handshake at once.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;

use crate::net::peer::Peer;

/// The first byte of a TLS connection: a record of the handshake.
const HANDSHAKE_RECORD: u8 = 0x16;
/// How long a client may take to read the greeting.
const WRITE_TIME_MAX: Duration = Duration::from_secs(5);

/// The greeting of a protocol.
#[derive(Clone)]
pub struct Greeting {
    /// Makes the greeting of one connection.
    pub make: Arc<dyn Fn(&Peer) -> Bytes + Send + Sync>,
    /// How long the server waits for a client that starts the handshake of TLS at once, and then gets no greeting in
    /// clear. `None`: the server greets without waiting.
    pub wait_for_handshake: Option<Duration>,
    /// The last word to a client that speaks no TLS where TLS is needed.
    pub plaintext_refusal: &'static [u8],
}

impl fmt::Debug for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greeting").field("wait_for_handshake", &self.wait_for_handshake).finish_non_exhaustive()
    }
}

impl Greeting {
    /// Greets the client. Returns the greeting; empty when the client starts the handshake of TLS before it.
    ///
    /// # Errors
    /// The connection broke, or the client does not read.
    pub(super) async fn greet(&self, tcp: &mut TcpStream, peer: &Peer, tls: bool) -> io::Result<Bytes> {
        if tls && self.handshake_begins(tcp).await? {
            return Ok(Bytes::new());
        }
        let greeting = (self.make)(peer);
        let written = tokio::time::timeout(WRITE_TIME_MAX, tcp.write_all(&greeting)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(greeting)
    }

    async fn handshake_begins(&self, tcp: &TcpStream) -> io::Result<bool> {
        let Some(wait) = self.wait_for_handshake else { return Ok(false) };
        let mut first = [0];
        match tokio::time::timeout(wait, tcp.peek(&mut first)).await {
            Ok(Ok(0) | Err(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(_)) => Ok(first == [HANDSHAKE_RECORD]),
            Err(_) => Ok(false),
        }
    }
}
