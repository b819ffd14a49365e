//! A WebSocket: what comes is a stream, what goes is written to a sink.
//!
//! Both ends live on the thread of the connection, so there is no lock, and one poll of the stream reads and writes:
//! everything that waits leaves in one write, and what waits is known in bytes. Pings are answered and faults of the
//! protocol end the connection here; who owns it sees messages.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::ws::{Codec, Frame as Part, Item};
use actix_web::http::header;
use actix_web::{Error, HttpMessage as _, HttpRequest, HttpResponse, error};
use actix_web_actors::ws::{handshake, handshake_with_protocols};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use futures_util::Stream;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Sleep;
use tokio_util::codec::Decoder as _;

use super::frame_limit::FrameLimit;
use super::writer::{Frame, FrameWriter};
use crate::net::http::socket::{Slot, Taken};
use crate::net::socket::Socket;

/// How long a peer that was told farewell may take to answer it. Its last bytes are read meanwhile: a connection
/// that is cut with unread bytes loses what was written last.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// How long what waits for it may take to leave then.
const UNREAD_MAX: Duration = Duration::from_secs(60);
/// So much is read at a time, into memory that all connections of a thread share.
const READ_BYTES: usize = 64 << 10;

/// Close codes of RFC 6455 that are sent.
pub mod code {
    /// The end, as agreed.
    pub const NORMAL: u16 = 1000;
    /// The node goes.
    pub const AWAY: u16 = 1001;
    /// Against the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// Not text.
    pub const UNSUPPORTED: u16 = 1003;
    /// Not UTF-8.
    pub const INVALID: u16 = 1007;
    /// A message that is too large.
    pub const SIZE: u16 = 1009;
    /// The node starts anew.
    pub const RESTART: u16 = 1012;
    /// The cluster has no majority.
    pub const AGAIN: u16 = 1013;
}

/// What comes over a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboundFrame {
    /// A whole message.
    Frame(Frame),
    /// A ping or a pong: the peer lives.
    Sign,
    /// The last: nothing more comes, and nothing can be written.
    Closed,
}

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// What comes over a WebSocket; ends with [`InboundFrame::Closed`].
pub struct Reader {
    io: Socket,
    sink: FrameWriter,
    guard: FrameLimit,
    codec: Codec,
    buffer: BytesMut,
    /// More was announced than is allowed: nothing more is kept; what came before is still in the buffer.
    too_big: bool,
    /// Where a frame begins is not known any more: nothing is kept.
    lost: bool,
    /// The fragments so far, and whether they are text.
    parts: Option<(bool, BytesMut)>,
    /// Until when what waits must have left behind a farewell, and until when that must be answered.
    farewell: Option<Pin<Box<Sleep>>>,
    parting: Option<Pin<Box<Sleep>>>,
    /// The peer has said farewell.
    answered: bool,
    over: bool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("over", &self.over).finish_non_exhaustive()
    }
}

/// Whether a request wants to become a WebSocket.
#[must_use]
pub fn is_upgrade(request: &HttpRequest) -> bool {
    let upgrade = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// Whether the headers of a request are a proper upgrade to a WebSocket. Touches nothing: asked before anything is
/// started for the connection.
#[must_use]
pub fn is_proper_upgrade(request: &HttpRequest) -> bool {
    handshake(request).is_ok()
}

/// Answers an upgrade request: messages of at most `message_bytes_max`, in the first of these subprotocols that the
/// client offers too. The answer that is returned has been written.
///
/// # Errors
/// The request is not a proper upgrade.
pub fn open(
    request: &HttpRequest,
    message_bytes_max: usize,
    protocols: &[&str],
) -> Result<(Reader, FrameWriter, HttpResponse), Error> {
    let response = handshake_with_protocols(request, protocols)?.finish();
    let slot = request.extensions().get::<Slot>().cloned();
    let taken = slot.and_then(|slot| slot.take());
    let Taken { io, rest } = taken.ok_or_else(|| error::ErrorInternalServerError("no connection to take"))?;
    let sink = FrameWriter::default();
    sink.head(&response);
    let mut reader = Reader {
        io,
        sink: sink.clone(),
        guard: FrameLimit::new(message_bytes_max),
        codec: Codec::new().max_size(message_bytes_max),
        buffer: BytesMut::new(),
        too_big: false,
        lost: false,
        parts: None,
        farewell: None,
        parting: None,
        answered: false,
        over: false,
    };
    reader.keep(&rest);
    Ok((reader, sink, response))
}

impl Reader {
    fn keep(&mut self, chunk: &[u8]) {
        let good = match self.guard.pass(chunk) {
            Ok(()) => chunk.len(),
            Err(good) => {
                self.too_big = true;
                good
            }
        };
        self.buffer.extend_from_slice(chunk.get(..good).unwrap_or_default());
    }

    /// Writes what waits, as much as goes.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let written = {
                let out = self.sink.out.borrow();
                if out.waiting().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                ready!(Pin::new(&mut self.io).poll_write(cx, out.waiting()))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sink.out.borrow_mut().advance(written);
            self.sink.answer_ping();
        }
    }

    /// Reads what is there; `false` at the end.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            let ends = match ready!(Pin::new(&mut self.io).poll_read(cx, &mut read)) {
                Ok(()) => read.filled().is_empty(),
                Err(_) => true,
            };
            if !self.too_big && !self.lost {
                self.keep(read.filled());
            }
            Poll::Ready(!ends)
        })
    }

    /// What the next frame in the buffer means; `None` when there is no whole one.
    fn next_part(&mut self) -> Option<InboundFrame> {
        loop {
            match self.codec.decode(&mut self.buffer) {
                Ok(Some(part)) => {
                    let came = self.part(part);
                    if came.is_some() {
                        return came;
                    }
                }
                Ok(None) if self.too_big => self.sink.close(code::SIZE),
                Ok(None) => {
                    if self.buffer.is_empty() {
                        self.buffer = BytesMut::new();
                    }
                    return None;
                }
                Err(_) => {
                    self.lost = true;
                    self.sink.close(code::PROTOCOL);
                }
            }
            if self.sink.out.borrow().closing {
                return None;
            }
        }
    }

    fn part(&mut self, part: Part) -> Option<InboundFrame> {
        match part {
            Part::Text(bytes) => self.text(bytes),
            Part::Binary(bytes) => Some(InboundFrame::Frame(Frame::Binary(bytes))),
            Part::Continuation(item) => self.fragment(item),
            Part::Ping(bytes) => {
                self.sink.pong(bytes);
                Some(InboundFrame::Sign)
            }
            Part::Pong(_) => Some(InboundFrame::Sign),
            Part::Close(reason) => {
                match reason {
                    Some(reason) => self.sink.close(reason.code.into()),
                    None => self.sink.farewell(&[]),
                }
                self.answered = true;
                None
            }
        }
    }

    fn text(&self, bytes: Bytes) -> Option<InboundFrame> {
        if let Ok(text) = ByteString::try_from(bytes) {
            return Some(InboundFrame::Frame(Frame::Text(text)));
        }
        self.sink.close(code::INVALID);
        None
    }

    fn fragment(&mut self, item: Item) -> Option<InboundFrame> {
        match item {
            Item::FirstText(part) => self.parts = Some((true, BytesMut::from(part))),
            Item::FirstBinary(part) => self.parts = Some((false, BytesMut::from(part))),
            Item::Continue(part) => {
                if let Some((_, parts)) = &mut self.parts {
                    parts.extend_from_slice(&part);
                }
            }
            Item::Last(part) => {
                let (text, mut parts) = self.parts.take()?;
                parts.extend_from_slice(&part);
                let whole = parts.freeze();
                return if text { self.text(whole) } else { Some(InboundFrame::Frame(Frame::Binary(whole))) };
            }
        }
        None
    }

    /// It may be in what was read already.
    fn look_for_farewell(&mut self) {
        while !self.lost {
            match self.codec.decode(&mut self.buffer) {
                Ok(Some(part)) => self.answered |= matches!(part, Part::Close(_)),
                Ok(None) => break,
                Err(_) => self.lost = true,
            }
        }
        if self.too_big || self.lost {
            self.buffer = BytesMut::new();
        }
    }

    /// Reads past what comes until the peer says farewell too; `true` when the wait is over.
    fn part_with(&mut self, cx: &mut Context<'_>, flushed: bool) -> bool {
        loop {
            self.look_for_farewell();
            if self.answered && flushed {
                return true;
            }
            match self.read(cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return true,
                Poll::Pending => break,
            }
        }
        if !flushed {
            let unread = self.farewell.get_or_insert_with(|| Box::pin(tokio::time::sleep(UNREAD_MAX)));
            return unread.as_mut().poll(cx).is_ready();
        }
        let farewell = self.parting.get_or_insert_with(|| Box::pin(tokio::time::sleep(FAREWELL_MAX)));
        farewell.as_mut().poll(cx).is_ready()
    }

    /// Is polled again when something is to be written.
    fn listen(&self, cx: &Context<'_>) {
        self.sink.out.borrow_mut().reader = Some(cx.waker().clone());
    }

    fn ends(&mut self) -> Poll<Option<InboundFrame>> {
        self.over = true;
        self.sink.out.borrow_mut().end();
        Poll::Ready(Some(InboundFrame::Closed))
    }
}

impl Stream for Reader {
    type Item = InboundFrame;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<InboundFrame>> {
        let this = &mut *self;
        loop {
            if this.over {
                return Poll::Ready(None);
            }
            let flushed = match this.flush(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(_)) => return this.ends(),
                Poll::Pending => false,
            };
            if this.sink.out.borrow().closing {
                if this.part_with(cx, flushed) {
                    return this.ends();
                }
                this.listen(cx);
                return Poll::Pending;
            }
            if let Some(came) = this.next_part() {
                return Poll::Ready(Some(came));
            }
            if this.sink.waiting() > 0 && flushed {
                // A pong or a farewell of its own.
                continue;
            }
            match this.read(cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return this.ends(),
                Poll::Pending => {
                    this.listen(cx);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Drop for Reader {
    /// Nobody listens any more.
    fn drop(&mut self) {
        self.sink.out.borrow_mut().end();
    }
}
