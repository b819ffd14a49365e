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

/// Whether clients start the handshake of TLS before the server has said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFirst {
    /// Never: the server greets at once.
    Never,
    /// A client that does so within this time gets no greeting in clear.
    Within(Duration),
    /// Always: the server greets nobody in clear where it speaks TLS.
    Always,
}

/// The greeting of a protocol.
#[derive(Clone)]
pub struct Greeting {
    /// Makes the greeting of one connection.
    pub make: Arc<dyn Fn(&Peer) -> Bytes + Send + Sync>,
    /// Whether clients may start the handshake of TLS before that.
    pub handshake: HandshakeFirst,
    /// The last word to a client that speaks no TLS where TLS is needed.
    pub plaintext_refusal: &'static [u8],
}

impl fmt::Debug for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greeting").field("handshake", &self.handshake).finish_non_exhaustive()
    }
}

impl Greeting {
    /// Greets the client. Returns the greeting; empty when the handshake of TLS comes before it. `read` has what was read
    /// of the client already.
    ///
    /// # Errors
    /// The connection broke, or the client does not read.
    pub(super) async fn greet(
        &self,
        (tcp, read): (&mut TcpStream, &[u8]),
        peer: &Peer,
        tls: bool,
    ) -> io::Result<Bytes> {
        if tls && self.handshake_begins(tcp, read).await? {
            return Ok(Bytes::new());
        }
        let greeting = (self.make)(peer);
        let written = tokio::time::timeout(WRITE_TIME_MAX, tcp.write_all(&greeting)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(greeting)
    }

    async fn handshake_begins(&self, tcp: &TcpStream, read: &[u8]) -> io::Result<bool> {
        let wait = match self.handshake {
            HandshakeFirst::Never => return Ok(false),
            HandshakeFirst::Always => return Ok(true),
            HandshakeFirst::Within(wait) => wait,
        };
        if let Some(first) = read.first() {
            return Ok(*first == HANDSHAKE_RECORD);
        }
        let mut first = [0];
        match tokio::time::timeout(wait, tcp.peek(&mut first)).await {
            Ok(Ok(0) | Err(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(_)) => Ok(first == [HANDSHAKE_RECORD]),
            Err(_) => Ok(false),
        }
    }
}
