//! The byte stream of a connection: TCP, or TLS over TCP.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tls::stream::TlsStream;

/// A connection of a client.
pub struct Socket(Stream);

/// The kinds of streams.
enum Stream {
    Tcp(TcpStream),
    /// In a box, because the state of TLS is much larger than a connection without it.
    Tls(Box<TlsStream>),
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tcp, tls) = match &self.0 {
            Stream::Tcp(stream) => (stream, false),
            Stream::Tls(stream) => (stream.tcp(), true),
        };
        f.debug_struct("Socket").field("tcp", tcp).field("tls", &tls).finish()
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self(Stream::Tcp(stream))
    }
}

impl From<TlsStream> for Socket {
    fn from(stream: TlsStream) -> Self {
        Self(Stream::Tls(Box::new(stream)))
    }
}

impl Socket {
    /// The certificate that the client has shown in the TLS handshake, which has verified it, in DER.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<Arc<[u8]>> {
        match &self.0 {
            Stream::Tls(stream) => stream.peer_certificate(),
            Stream::Tcp(_) => None,
        }
    }

    /// Waits until a read may find something, so that an idle connection needs no buffer.
    ///
    /// # Errors
    /// The connection broke.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Stream::Tcp(stream) => stream.poll_read_ready(cx),
            Stream::Tls(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Says over TLS that nothing more follows, as far as the connection takes that at once. Without TLS the end of the
    /// connection says so.
    pub fn say_end(&mut self, cx: &mut Context<'_>) {
        if let Stream::Tls(stream) = &mut self.0 {
            stream.say_end(cx);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
