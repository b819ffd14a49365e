//! The reading end of a WebSocket: a stream of frames. The other end is the [`FrameWriter`].
//!
//! Both ends live on the thread of the connection, so there is no lock. One poll of the stream reads and writes:
//! everything that waits leaves in one write, and the number of waiting bytes is known. The reader answers pings and
//! ends the connection after a protocol error; its owner gets messages only.

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

/// How long a peer may take to answer a close frame. Bytes of the peer are read meanwhile: a connection that is closed
/// with unread bytes loses what was written last.
const CLOSE_ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long the bytes before a close frame may take to leave.
const UNREAD_MAX: Duration = Duration::from_secs(60);
/// Bytes of one read, into memory that all connections of a thread share.
const READ_BYTES: usize = 64 << 10;

/// Close codes of RFC 6455.
pub mod code {
    /// The connection has served its purpose.
    pub const NORMAL: u16 = 1000;
    /// The node goes away.
    pub const AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// The message is not text.
    pub const UNSUPPORTED: u16 = 1003;
    /// The text is not UTF-8.
    pub const INVALID: u16 = 1007;
    /// The message is too large.
    pub const SIZE: u16 = 1009;
    /// The node restarts.
    pub const RESTART: u16 = 1012;
    /// The cluster has no majority.
    pub const AGAIN: u16 = 1013;
}

/// What comes over a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboundFrame {
    /// A whole message.
    Frame(Frame),
    /// A ping or a pong: the peer is alive.
    Sign,
    /// The end: no frame follows, and nothing can be written.
    Closed,
}

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// The frames of a WebSocket; ends with [`InboundFrame::Closed`].
pub struct Reader {
    /// The connection.
    io: Socket,
    /// What is to be written. The reader does the writing.
    sink: FrameWriter,
    /// Refuses too large frames before their bytes are buffered.
    limit: FrameLimit,
    /// Decodes frames.
    codec: Codec,
    /// Bytes that are not decoded.
    buffer: BytesMut,
    /// A too large frame was announced. Nothing more is buffered; the frames before it are still decoded.
    too_big: bool,
    /// The codec has lost the frame boundaries. Nothing more is buffered.
    lost: bool,
    /// The fragments of the present message, and whether they are text.
    parts: Option<(bool, BytesMut)>,
    /// Ends the wait until the bytes before the close frame have left.
    drain_timer: Option<Pin<Box<Sleep>>>,
    /// Ends the wait for the close frame of the peer.
    close_timer: Option<Pin<Box<Sleep>>>,
    /// The peer has sent its close frame.
    close_received: bool,
    /// [`InboundFrame::Closed`] was returned.
    over: bool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("over", &self.over).finish_non_exhaustive()
    }
}

/// Whether a request asks for a WebSocket.
#[must_use]
pub fn is_upgrade(request: &HttpRequest) -> bool {
    let upgrade = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// Whether the headers of a request are a valid WebSocket upgrade. Has no effect, so that a door can ask before it
/// starts anything.
#[must_use]
pub fn is_proper_upgrade(request: &HttpRequest) -> bool {
    handshake(request).is_ok()
}

/// Answers an upgrade request. Messages have at most `message_bytes_max`; the subprotocol is the first of `protocols`
/// that the client offers too. The returned answer has been written already.
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
        limit: FrameLimit::new(message_bytes_max),
        codec: Codec::new().max_size(message_bytes_max),
        buffer: BytesMut::new(),
        too_big: false,
        lost: false,
        parts: None,
        drain_timer: None,
        close_timer: None,
        close_received: false,
        over: false,
    };
    reader.buffer_checked(&rest);
    Ok((reader, sink, response))
}

impl Reader {
    /// Buffers bytes up to a frame that is too large.
    fn buffer_checked(&mut self, chunk: &[u8]) {
        let good = match self.limit.pass(chunk) {
            Ok(()) => chunk.len(),
            Err(good) => {
                self.too_big = true;
                good
            }
        };
        self.buffer.extend_from_slice(chunk.get(..good).unwrap_or_default());
    }

    /// Writes what waits, as much as the socket takes.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let written = {
                let out = self.sink.out.borrow();
                if out.waiting().is_empty() {
                    // TLS keeps what the connection did not take.
                    return Pin::new(&mut self.io).poll_flush(cx);
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

    /// Reads what is there. Returns `false` at the end.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            let ends = match ready!(Pin::new(&mut self.io).poll_read(cx, &mut read)) {
                Ok(()) => read.filled().is_empty(),
                Err(_) => true,
            };
            if !self.too_big && !self.lost {
                self.buffer_checked(read.filled());
            }
            Poll::Ready(!ends)
        })
    }

    /// The next frame in the buffer; `None` when none is complete.
    fn next_part(&mut self) -> Option<InboundFrame> {
        loop {
            match self.codec.decode(&mut self.buffer) {
                Ok(Some(part)) => {
                    let frame = self.part(part);
                    if frame.is_some() {
                        return frame;
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

    /// Handles a decoded frame.
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
                    None => self.sink.write_close(&[]),
                }
                self.close_received = true;
                None
            }
        }
    }

    /// A text message, if its bytes are UTF-8.
    fn text(&self, bytes: Bytes) -> Option<InboundFrame> {
        if let Ok(text) = ByteString::try_from(bytes) {
            return Some(InboundFrame::Frame(Frame::Text(text)));
        }
        self.sink.close(code::INVALID);
        None
    }

    /// Collects a fragment. Returns the message when it is complete.
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

    /// Discards frames until the close frame of the peer, which may be in the buffer already.
    fn read_past_close(&mut self) {
        while !self.lost {
            match self.codec.decode(&mut self.buffer) {
                Ok(Some(part)) => self.close_received |= matches!(part, Part::Close(_)),
                Ok(None) => break,
                Err(_) => self.lost = true,
            }
        }
        if self.too_big || self.lost {
            self.buffer = BytesMut::new();
        }
    }

    /// Waits for the close frame of the peer and discards what comes before it. Returns `true` when the wait is over.
    fn finish_closing(&mut self, cx: &mut Context<'_>, flushed: bool) -> bool {
        loop {
            self.read_past_close();
            if self.close_received && flushed {
                return true;
            }
            match self.read(cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return true,
                Poll::Pending => break,
            }
        }
        if !flushed {
            let unread = self.drain_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(UNREAD_MAX)));
            return unread.as_mut().poll(cx).is_ready();
        }
        let timer = self.close_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_ANSWER_MAX)));
        timer.as_mut().poll(cx).is_ready()
    }

    /// Wakes this stream when something is to be written.
    fn listen(&self, cx: &Context<'_>) {
        self.sink.out.borrow_mut().reader = Some(cx.waker().clone());
    }

    /// Ends the stream.
    fn ends(&mut self, cx: &mut Context<'_>) -> Poll<Option<InboundFrame>> {
        self.over = true;
        self.io.say_end(cx);
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
                Poll::Ready(Err(_)) => return this.ends(cx),
                Poll::Pending => false,
            };
            if this.sink.out.borrow().closing {
                if this.finish_closing(cx, flushed) {
                    return this.ends(cx);
                }
                this.listen(cx);
                return Poll::Pending;
            }
            if let Some(frame) = this.next_part() {
                return Poll::Ready(Some(frame));
            }
            if this.sink.waiting() > 0 && flushed {
                // A pong, or a close frame of this end.
                continue;
            }
            match this.read(cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return this.ends(cx),
                Poll::Pending => {
                    this.listen(cx);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Drop for Reader {
    /// Nothing can be written any more.
    fn drop(&mut self) {
        self.sink.out.borrow_mut().end();
    }
}
