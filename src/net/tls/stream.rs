//! A TLS connection over TCP. Invariant: an idle connection keeps nothing but its session, and the 4 KiB in which rustls
//! collects the next record.

use std::io::{self, BufRead as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::rt::net::TcpStream;
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server;

/// A TCP connection of which some bytes were read already.
pub(super) struct Prefixed {
    /// The bytes that come before those of the connection.
    read: BytesMut,
    tcp: TcpStream,
}

impl Prefixed {
    pub(super) const fn new(read: BytesMut, tcp: TcpStream) -> Self {
        Self { read, tcp }
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() { self.tcp.poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
        }
        let count = self.read.len().min(buf.remaining());
        buf.put_slice(self.read.get(..count).unwrap_or_default());
        self.read.advance(count);
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// A TLS connection.
pub(in crate::net) struct TlsStream(Box<server::TlsStream<Prefixed>>);

impl TlsStream {
    pub(super) fn new(stream: server::TlsStream<Prefixed>) -> Self {
        Self(Box::new(stream))
    }

    /// The TCP connection below.
    pub(in crate::net) fn tcp(&self) -> &TcpStream {
        &self.0.get_ref().0.tcp
    }

    /// The certificate of the client, in DER, if the client has shown one. The handshake has verified it.
    pub(in crate::net) fn peer_certificate(&self) -> Option<Arc<[u8]>> {
        let certificates = self.0.get_ref().1.peer_certificates()?;
        certificates.first().map(|certificate| Arc::from(certificate.as_ref()))
    }

    /// Waits until a read may find something: bytes that are decrypted already, or bytes of the connection.
    pub(in crate::net) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (io, session) = self.0.get_mut();
        match session.reader().fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => io.poll_read_ready(cx),
            // The read itself returns the bytes, the end or the error.
            Ok(_) | Err(_) => Poll::Ready(Ok(())),
        }
    }

    /// Says that nothing more follows, as far as the connection takes that at once. Without this word a client could not
    /// tell the end from a connection that somebody has cut.
    pub(in crate::net) fn say_end(&mut self, cx: &mut Context<'_>) {
        let (io, session) = self.0.get_mut();
        session.send_close_notify();
        let mut record = Vec::new();
        while session.wants_write() && session.write_tls(&mut record).is_ok_and(|count| count > 0) {}
        // A client that does not take these few bytes is not going to miss them.
        drop(Pin::new(io).poll_write(cx, &record));
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = &mut *self.0;
        let read = Pin::new(&mut *stream).poll_read(cx, buf);
        // The session answers some records by itself, as the wish for other keys or to renegotiate. What was read stays
        // read, whatever becomes of the answer.
        if stream.get_ref().1.wants_write() {
            drop(Pin::new(stream).poll_flush(cx));
        }
        read
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}
