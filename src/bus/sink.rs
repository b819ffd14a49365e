//! What is written to a WebSocket.
//!
//! It only queues: [`Reader`](super::socket::Reader), on the same thread, writes all that waits at once. What waits is
//! known in bytes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use actix_web::HttpResponse;
use bytes::{BufMut as _, Bytes, BytesMut};
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
    /// Bytes in it.
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

#[derive(Default)]
pub(super) struct Out {
    pub(super) buffer: BytesMut,
    /// Farewell was said: nothing is written behind it.
    pub(super) closing: bool,
    /// Nothing more leaves.
    pub(super) ended: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl Out {
    pub(super) fn end(&mut self) {
        (self.closing, self.ended) = (true, true);
        self.buffer = BytesMut::new();
        wake(&mut self.writer);
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
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// What is written to a WebSocket. Clones write to the same.
#[derive(Clone, Default)]
pub struct Sink {
    pub(super) out: Rc<RefCell<Out>>,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl Sink {
    fn put(&self, opcode: u8, parts: &[&[u8]]) {
        let mut out = self.out.borrow_mut();
        if out.closing || out.ended {
            return;
        }
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
        wake(&mut out.reader);
    }

    /// Writes the head of the answer to an upgrade.
    pub(super) fn head(&self, response: &HttpResponse) {
        let mut out = self.out.borrow_mut();
        out.buffer.put_slice(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n");
        for (name, value) in response.headers() {
            out.buffer.put_slice(name.as_str().as_bytes());
            out.buffer.put_slice(b": ");
            out.buffer.put_slice(value.as_bytes());
            out.buffer.put_slice(b"\r\n");
        }
        out.buffer.put_slice(b"\r\n");
    }

    /// Writes a message of text that these parts are together.
    pub fn text(&self, parts: &[&[u8]]) {
        self.put(TEXT, parts);
    }

    /// Writes a message.
    pub fn frame(&self, frame: &Frame) {
        match frame {
            Frame::Text(text) => self.put(TEXT, &[text.as_bytes()]),
            Frame::Binary(bytes) => self.put(BINARY, &[bytes]),
        }
    }

    /// Asks for a sign of life.
    pub fn ping(&self) {
        self.put(PING, &[]);
    }

    /// Answers a ping.
    pub(super) fn pong(&self, payload: &[u8]) {
        self.put(PONG, &[payload]);
    }

    /// Says farewell; the stream of what comes ends when the peer has answered, or has taken too long.
    pub fn close(&self, code: u16) {
        self.farewell(&[&code.to_be_bytes()]);
    }

    pub(super) fn farewell(&self, parts: &[&[u8]]) {
        self.put(CLOSE, parts);
        let mut out = self.out.borrow_mut();
        out.closing = true;
        wake(&mut out.reader);
        wake(&mut out.writer);
    }

    /// Bytes that have not left.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.out.borrow().buffer.len()
    }

    /// Waits until everything has left, or nothing can leave any more.
    pub async fn drained(&self) {
        poll_fn(|cx| {
            let mut out = self.out.borrow_mut();
            if out.buffer.is_empty() || out.closing {
                return Poll::Ready(());
            }
            out.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
