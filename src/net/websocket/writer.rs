//! The writing end of a WebSocket.
//!
//! The writer only queues. The [`Reader`](super::reader::Reader), on the same thread, writes everything that waits at
//! once. Paced bytes, the events of a stream that follow the pace of the peer, are counted apart: a large event does
//! not mean that the peer does not read.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use actix_web::HttpResponse;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use bytestring::ByteString;

/// One message, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Valid UTF-8.
    Text(ByteString),
    /// Any bytes.
    Binary(Bytes),
}

impl Frame {
    /// Bytes of the message.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A stream sends its next chunk when fewer bytes than this wait.
pub const ROOM_BYTES: usize = 256 << 10;

/// Which of the waiting bytes are paced.
#[derive(Debug, Default)]
struct Paced {
    /// Bytes that were ever queued.
    queued: u64,
    /// Bytes that have left.
    left: u64,
    /// Begin and end of the paced messages, counted in queued bytes.
    runs: VecDeque<(u64, u64)>,
}

impl Paced {
    fn queue(&mut self, bytes: usize, paced: bool) {
        let start = self.queued;
        self.queued = start.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        match self.runs.back_mut() {
            _ if !paced => {}
            Some((_, end)) if *end == start => *end = self.queued,
            _ => self.runs.push_back((start, self.queued)),
        }
    }

    fn leave(&mut self, bytes: usize) {
        self.left = self.left.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        while self.runs.front().is_some_and(|(_, end)| *end <= self.left) {
            self.runs.pop_front();
        }
        if self.runs.is_empty() {
            self.runs = VecDeque::new();
        }
    }

    /// Paced bytes that wait.
    fn waiting(&self) -> usize {
        let of = |(start, end): &(u64, u64)| end.saturating_sub((*start).max(self.left));
        let sum = self.runs.iter().map(of).fold(0_u64, u64::saturating_add);
        usize::try_from(sum).unwrap_or(usize::MAX)
    }
}

/// The state that reader and writer share.
#[derive(Default)]
pub(super) struct Out {
    /// The bytes that wait.
    buffer: BytesMut,
    /// Which of them are paced.
    paced: Paced,
    /// The newest ping without an answer.
    ping: Option<Bytes>,
    /// A close frame was queued: nothing is queued behind it.
    pub(super) closing: bool,
    /// The connection has ended: nothing more leaves.
    pub(super) ended: bool,
    /// Wakes the reader when something is to be written.
    pub(super) reader: Option<Waker>,
    /// Wakes the task that waits for room.
    pub(super) writer: Option<Waker>,
}

impl Out {
    pub(super) fn end(&mut self) {
        (self.closing, self.ended) = (true, true);
        (self.buffer, self.paced, self.ping) = (BytesMut::new(), Paced::default(), None);
        wake(&mut self.writer);
    }

    /// What waits.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.buffer
    }

    /// So many bytes of it have left.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        self.paced.leave(bytes);
        if self.buffer.len() < ROOM_BYTES {
            wake(&mut self.writer);
        }
        if self.buffer.is_empty() {
            // Thousands of connections are idle at a time: an empty queue keeps no memory.
            self.buffer = BytesMut::new();
        }
    }
}

pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
/// Most bytes of the reason in a close frame: what a control frame holds beside the code.
const REASON_BYTES_MAX: usize = 123;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
/// A ping is answered only while no more than this waits.
const PONG_BYTES_MAX: usize = 64 << 10;

/// The writing end of a WebSocket. Clones write to the same connection.
#[derive(Clone, Default)]
pub struct FrameWriter {
    pub(super) out: Rc<RefCell<Out>>,
}

impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl FrameWriter {
    /// Queues a frame.
    fn put(&self, opcode: u8, parts: &[&[u8]], paced: bool) {
        let mut out = self.out.borrow_mut();
        if out.closing || out.ended {
            return;
        }
        let before = out.buffer.len();
        let length = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        out.buffer.reserve(length.saturating_add(10));
        out.buffer.put_u8(0x80 | opcode);
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ 0..=125), _) => out.buffer.put_u8(short),
            (_, Ok(middle)) => {
                out.buffer.put_u8(126);
                out.buffer.put_u16(middle);
            }
            _ => {
                out.buffer.put_u8(127);
                out.buffer.put_u64(u64::try_from(length).unwrap_or(u64::MAX));
            }
        }
        parts.iter().for_each(|part| out.buffer.put_slice(part));
        let bytes = out.buffer.len().saturating_sub(before);
        out.paced.queue(bytes, paced);
        wake(&mut out.reader);
    }

    /// Queues the head of the answer to an upgrade.
    pub(super) fn head(&self, response: &HttpResponse) {
        let mut out = self.out.borrow_mut();
        let before = out.buffer.len();
        out.buffer.put_slice(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n");
        for (name, value) in response.headers() {
            out.buffer.put_slice(name.as_str().as_bytes());
            out.buffer.put_slice(b": ");
            out.buffer.put_slice(value.as_bytes());
            out.buffer.put_slice(b"\r\n");
        }
        out.buffer.put_slice(b"\r\n");
        let bytes = out.buffer.len().saturating_sub(before);
        out.paced.queue(bytes, false);
    }

    /// Queues a text message, which these parts are together.
    pub fn text(&self, parts: &[&[u8]]) {
        self.put(TEXT, parts, false);
    }

    /// Queues a paced text message. The caller waits for [`FrameWriter::room`] before the next one.
    pub fn paced(&self, parts: &[&[u8]]) {
        self.put(TEXT, parts, true);
    }

    /// Queues a message.
    pub fn frame(&self, frame: &Frame) {
        match frame {
            Frame::Text(text) => self.put(TEXT, &[text.as_bytes()], false),
            Frame::Binary(bytes) => self.put(BINARY, &[bytes], false),
        }
    }

    /// Queues a ping.
    pub fn ping(&self) {
        self.put(PING, &[], false);
    }

    /// Answers a ping once few bytes wait: a peer that sends pings and does not read costs no memory. When further
    /// pings come meanwhile, only the newest is answered, as RFC 6455 permits.
    pub(super) fn pong(&self, payload: Bytes) {
        self.out.borrow_mut().ping = Some(payload);
        self.answer_ping();
    }

    /// Answers the newest ping if few bytes wait.
    pub(super) fn answer_ping(&self) {
        let ping = {
            let mut out = self.out.borrow_mut();
            if out.buffer.len() > PONG_BYTES_MAX { None } else { out.ping.take() }
        };
        if let Some(payload) = ping {
            self.put(PONG, &[&payload], false);
        }
    }

    /// Queues a close frame. The stream of inbound frames ends when the peer has answered, or has taken too long.
    pub fn close(&self, code: u16) {
        self.write_close(&[&code.to_be_bytes()]);
    }

    /// Queues a close frame with a reason, which is cut to what fits.
    pub fn close_saying(&self, code: u16, reason: &str) {
        let cut = reason.floor_char_boundary(REASON_BYTES_MAX);
        self.write_close(&[&code.to_be_bytes(), reason.get(..cut).unwrap_or_default().as_bytes()]);
    }

    /// Queues a close frame with this payload.
    pub(super) fn write_close(&self, parts: &[&[u8]]) {
        self.put(CLOSE, parts, false);
        let mut out = self.out.borrow_mut();
        out.closing = true;
        wake(&mut out.reader);
        wake(&mut out.writer);
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.out.borrow().buffer.len()
    }

    /// Waiting bytes that are not paced. Many of them mean that the peer does not read.
    #[must_use]
    pub fn unread(&self) -> usize {
        let out = self.out.borrow();
        out.buffer.len().saturating_sub(out.paced.waiting())
    }

    /// Bytes that have ever left.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.out.borrow().paced.left
    }

    /// Waits until fewer than `bytes` wait, at most [`ROOM_BYTES`], or the connection closes.
    async fn below(&self, bytes: usize) {
        poll_fn(|cx| {
            let mut out = self.out.borrow_mut();
            if out.buffer.len() < bytes || out.closing {
                return Poll::Ready(());
            }
            out.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until few bytes wait, or the connection closes.
    pub async fn room(&self) {
        self.below(ROOM_BYTES).await;
    }

    /// Waits until everything has left, or the connection closes.
    pub async fn drained(&self) {
        self.below(1).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leave(sink: &FrameWriter, bytes: usize) {
        sink.out.borrow_mut().advance(bytes);
    }

    #[test]
    fn an_event_however_large_does_not_say_that_its_reader_does_not_read() {
        let sink = FrameWriter::default();
        let (large, small) = (vec![b'x'; 9 << 20], [b'y'; 100]);
        sink.text(&[&small]);
        sink.paced(&[&small, &large]);
        sink.paced(&[&small]);
        sink.text(&[&small]);
        assert_eq!(sink.unread(), 2 * (2 + 100));
        leave(&sink, 102 + 5);
        assert_eq!(sink.unread(), 102, "part of the event has left");
        leave(&sink, (9 << 20) + 100 + 10 - 5);
        assert_eq!((sink.unread(), sink.waiting()), (102, 102 + 102));
        leave(&sink, 102);
        assert_eq!((sink.unread(), sink.waiting()), (102, 102));
        sink.paced(&[&large]);
        assert_eq!(sink.unread(), 102);
        leave(&sink, 50);
        assert_eq!(sink.unread(), 52, "what is in front of the event leaves first");
        let all = sink.waiting();
        leave(&sink, all);
        assert_eq!((sink.unread(), sink.waiting()), (0, 0));
    }

    #[test]
    fn a_ping_behind_much_is_answered_when_that_has_left() {
        let sink = FrameWriter::default();
        sink.paced(&[&[b'x'; PONG_BYTES_MAX + 1]]);
        let before = sink.waiting();
        sink.pong(Bytes::from_static(b"first"));
        sink.pong(Bytes::from_static(b"newest"));
        assert_eq!(sink.waiting(), before, "nothing is added to what is not read");
        leave(&sink, before);
        sink.answer_ping();
        assert_eq!(sink.out.borrow().waiting(), b"\x8a\x06newest");
        sink.answer_ping();
        assert_eq!(sink.waiting(), 8, "once");
    }

    #[actix_web::test]
    async fn who_waits_for_room_is_woken_when_the_rest_is_small() {
        let sink = FrameWriter::default();
        sink.paced(&[&[b'x'; 2 * ROOM_BYTES]]);
        let (waits, drains) = (sink.clone(), sink.clone());
        let room = actix_web::rt::spawn(async move { waits.room().await });
        tokio::task::yield_now().await;
        leave(&sink, ROOM_BYTES);
        tokio::task::yield_now().await;
        assert!(!room.is_finished());
        leave(&sink, 11);
        room.await.unwrap();
        let drained = actix_web::rt::spawn(async move { drains.drained().await });
        let rest = sink.waiting();
        leave(&sink, rest);
        drained.await.unwrap();
    }
}
