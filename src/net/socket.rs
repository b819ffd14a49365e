//! The byte stream of a connection: TCP, or a layer over TCP such as TLS.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The requirements of a layer over TCP.
trait Layer: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Layer for S {}

/// A connection of a client. Plain TCP is called without indirection.
pub struct Socket(Stream);

/// The two kinds of streams.
enum Stream {
    Tcp(TcpStream),
    Layered(Box<dyn Layer>),
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.tcp()).finish()
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self(Stream::Tcp(stream))
    }
}

impl Socket {
    /// A connection over a stream that is not TCP itself.
    pub fn layered(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Self {
        Self(Stream::Layered(Box::new(stream)))
    }

    /// The TCP stream, when there is no layer over it.
    #[must_use]
    pub const fn tcp(&self) -> Option<&TcpStream> {
        match &self.0 {
            Stream::Tcp(stream) => Some(stream),
            Stream::Layered(_) => None,
        }
    }

    /// Waits until a read may find something, so that an idle connection needs no buffer. A layer cannot tell, and is
    /// always ready.
    ///
    /// # Errors
    /// The connection broke.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Stream::Tcp(stream) => stream.poll_read_ready(cx),
            Stream::Layered(_) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Layered(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Layered(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Layered(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Layered(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
