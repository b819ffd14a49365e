//! The socket of a connection and its buffers. Invariant: an idle connection keeps no buffers.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::h1::Codec;
use bytes::{Buf as _, BytesMut};
use tokio::io::AsyncWrite as _;

use crate::net::socket::Socket;

/// Bytes of one read of a head.
const HEAD_BYTES: usize = 4 << 10;
/// Bytes of one read of a body.
const BODY_BYTES: usize = 16 << 10;
/// A buffer with less room than this is enlarged.
const ROOM_BYTES_MIN: usize = 1 << 10;
/// Most bytes of later requests that are read while one is served.
const AHEAD_BYTES_MAX: usize = 32 << 10;
/// Most bytes that an idle buffer may keep.
const KEPT_BYTES_MAX: usize = HEAD_BYTES;

/// The connection of an upgrade request, taken from the server.
#[derive(Debug)]
pub struct Taken {
    /// The socket.
    pub io: Socket,
    /// Bytes that were read behind the head.
    pub rest: BytesMut,
}

/// Where an application finds the connection, among the extensions of the request.
#[derive(Debug, Clone)]
pub struct Slot(Rc<RefCell<Option<Taken>>>);

impl Slot {
    pub(super) fn new(taken: Taken) -> Self {
        Self(Rc::new(RefCell::new(Some(taken))))
    }

    /// Takes the connection. The server does not use it any more.
    #[must_use]
    pub fn take(&self) -> Option<Taken> {
        self.0.borrow_mut().take()
    }
}

/// A connection and its buffers.
pub(super) struct BufferedSocket {
    /// `None` once the connection was taken over as a WebSocket.
    pub(super) io: Option<Socket>,
    /// Bytes that were read and not used.
    pub(super) read: BytesMut,
    /// Bytes that are to be written.
    pub(super) out: BytesMut,
    /// Parses requests and encodes answers.
    pub(super) codec: Codec,
    /// The client sends nothing more.
    pub(super) ended: bool,
    /// Number of the present request, so that a body which outlives its request reads nothing.
    pub(super) request: u64,
    /// The body of the present request has not ended.
    pub(super) body: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) waits: bool,
}

impl BufferedSocket {
    pub(super) fn new(io: Socket, codec: Codec) -> Self {
        let (read, out) = (BytesMut::new(), BytesMut::new());
        Self { io: Some(io), read, out, codec, ended: false, request: 0, body: false, waits: false }
    }

    fn io(&mut self) -> io::Result<&mut Socket> {
        self.io.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Reads once; 0 at the end.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = self.io.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        if self.read.capacity().saturating_sub(self.read.len()) < ROOM_BYTES_MIN {
            // Thousands of connections may be idle: no memory is reserved before bytes are there.
            ready!(io.poll_read_ready(cx))?;
            self.read.reserve(if self.body || !self.read.is_empty() { BODY_BYTES } else { HEAD_BYTES });
        }
        let count = ready!(tokio_util::io::poll_read_buf(Pin::new(io), cx, &mut self.read))?;
        self.ended |= count == 0;
        Poll::Ready(Ok(count))
    }

    /// Writes everything that waits.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.io.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        // TLS keeps what the connection did not take.
        Pin::new(io).poll_flush(cx)
    }

    /// Watches the client while its request is served: ready when the connection broke. A client that only ends its
    /// side may still wait for the answer.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Bytes of the body are left to the reader of the body.
        while !self.body && !self.ended && self.read.len() < AHEAD_BYTES_MAX {
            match self.fill(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    /// Frees buffers that hold nothing and are larger than `kept_bytes_max`.
    pub(super) fn relax(&mut self, kept_bytes_max: usize) {
        for buffer in [&mut self.read, &mut self.out] {
            if buffer.is_empty() && buffer.capacity() > kept_bytes_max {
                *buffer = BytesMut::new();
            }
        }
    }

    /// Frees buffers between two requests.
    pub(super) fn settle(&mut self) {
        self.relax(KEPT_BYTES_MAX);
    }

    /// Whether unused bytes are left, or more of a body will come.
    pub(super) fn has_more(&self) -> bool {
        self.body || !self.read.is_empty()
    }

    /// Says to a client over TLS that the connection ends now.
    pub(super) fn say_end(&mut self, cx: &mut Context<'_>) {
        if let Some(io) = &mut self.io {
            io.say_end(cx);
        }
    }

    /// Ends the writing side.
    pub(super) fn shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.io()?;
        Pin::new(io).poll_shutdown(cx)
    }
}
