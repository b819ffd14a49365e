//! The socket of a connection and its buffers. What is idle keeps none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::h1::Codec;
use bytes::{Buf as _, BytesMut};
use tokio::io::AsyncWrite as _;

use crate::net::socket::Socket;

/// How much is read at a time, bytes: of a head, and of a body.
const HEAD_BYTES: usize = 4 << 10;
const BODY_BYTES: usize = 16 << 10;
/// A buffer with less room than this gets more.
const ROOM_BYTES_MIN: usize = 1 << 10;
/// Most bytes of later requests that are read while one is served.
const AHEAD_BYTES_MAX: usize = 32 << 10;
/// What an idle buffer may keep, bytes.
const KEPT_BYTES_MAX: usize = HEAD_BYTES;

/// The connection of an upgrade request, and what was read behind its head.
#[derive(Debug)]
pub struct Taken {
    /// The socket.
    pub io: Socket,
    /// Read already.
    pub rest: BytesMut,
}

/// Where an application finds it, among the extensions of the request.
#[derive(Debug, Clone)]
pub struct Slot(Rc<RefCell<Option<Taken>>>);

impl Slot {
    pub(super) fn new(taken: Taken) -> Self {
        Self(Rc::new(RefCell::new(Some(taken))))
    }

    /// Takes the connection; from now on it is not the server's any more.
    #[must_use]
    pub fn take(&self) -> Option<Taken> {
        self.0.borrow_mut().take()
    }
}

/// A connection and what is known of it.
pub(super) struct BufferedSocket {
    /// `None`: taken over as a WebSocket.
    pub(super) io: Option<Socket>,
    /// Was read and has not been used.
    pub(super) read: BytesMut,
    /// Is to be written.
    pub(super) out: BytesMut,
    pub(super) codec: Codec,
    /// The client sends nothing more.
    pub(super) ended: bool,
    /// The number of the request in hand.
    pub(super) request: u64,
    /// There is more of its body.
    pub(super) body: bool,
    /// The client waits for a word before it sends the body.
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
            // Thousands of connections are idle at a time: nothing is reserved before something is there.
            ready!(io.poll_read_ready(cx))?;
            self.read.reserve(if self.body || !self.read.is_empty() { BODY_BYTES } else { HEAD_BYTES });
        }
        let count = ready!(tokio_util::io::poll_read_buf(Pin::new(io), cx, &mut self.read))?;
        self.ended |= count == 0;
        Poll::Ready(Ok(count))
    }

    /// Writes what waits, all of it.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.io.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Looks whether the client is still there while a request of it is served: ready when its connection broke.
    /// That it sends nothing more is noted and is no reason to end: it may wait for its answer.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What comes belongs to the body, and to whoever reads that.
        while !self.body && !self.ended && self.read.len() < AHEAD_BYTES_MAX {
            match self.fill(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    /// Gives back the memory of buffers that hold nothing; a small one may stay where it is used again at once.
    pub(super) fn relax(&mut self, kept_bytes_max: usize) {
        for buffer in [&mut self.read, &mut self.out] {
            if buffer.is_empty() && buffer.capacity() > kept_bytes_max {
                *buffer = BytesMut::new();
            }
        }
    }

    /// The same between two requests.
    pub(super) fn settle(&mut self) {
        self.relax(KEPT_BYTES_MAX);
    }

    /// Whether the client has sent something that nobody has taken, or is to send more of a body.
    pub(super) fn has_more(&self) -> bool {
        self.body || !self.read.is_empty()
    }

    /// Says that nothing more will be written.
    pub(super) fn shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.io()?;
        Pin::new(io).poll_shutdown(cx)
    }
}
