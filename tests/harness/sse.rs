//! An SSE reader that keeps the raw bytes: chunk framing, frames, and how the stream ended.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::http::{ANSWER, Http, Response, head};

/// Parsed bytes are kept for inspection up to this many.
const KEPT: usize = 4 << 20;

/// A live subscription, read on demand: nothing is read ahead of the test.
pub(crate) struct Sse {
    /// Status and headers of the response.
    pub(crate) head: Response,
    stream: TcpStream,
    wire: Vec<u8>,
    chunk: Chunk,
    raw: Vec<u8>,
    parsed: usize,
    scanned: usize,
    /// How it ended, if it did.
    pub(crate) end: Option<End>,
}

/// Where the reader is in the chunked coding.
enum Chunk {
    Size,
    Data(usize),
    DataEnd,
    Last,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With the terminating chunk.
    Clean,
    /// The connection broke off.
    Cut,
}

/// What stands between two blank lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    pub(crate) raw: String,
    pub(crate) id: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) data: Option<String>,
}

impl Sse {
    /// Subscribes; the answer must be 200.
    pub(crate) fn open(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        let sse = Self::try_open(address, target, headers, ANSWER);
        let sse = sse.unwrap_or_else(|error| panic!("GET {target}: no answer: {error}"));
        if sse.head.status != 200 {
            panic!("GET {target}: status {}: {:?}", sse.head.status, sse.head.headers);
        }
        sse
    }

    /// Subscribes and reads the head of the answer, whatever it says.
    pub(crate) fn try_open(
        address: SocketAddr,
        target: &str,
        headers: &[(&str, &str)],
        bound: Duration,
    ) -> io::Result<Self> {
        let mut http = Http::connect_within(address, bound)?;
        let mut bytes = head("GET", target, headers);
        bytes.extend_from_slice(b"\r\n");
        http.send(&bytes)?;
        let head = http.read_head()?;
        let (stream, wire) = http.into_parts();
        Ok(Self { head, stream, wire, chunk: Chunk::Size, raw: Vec::new(), parsed: 0, scanned: 0, end: None })
    }

    pub(crate) fn consumer_id(&self) -> String {
        let id = self.head.header("x-bus-consumer-id");
        id.expect("X-BUS-CONSUMER-ID is missing").to_owned()
    }

    /// All bytes so far, chunk framing removed (the newest few MiB of a long stream).
    pub(crate) fn raw(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    /// The next frame, comments included; nothing after `bound` or at the end.
    pub(crate) fn next_frame(&mut self, bound: Duration) -> Option<Frame> {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(frame) = self.parse() {
                return Some(frame);
            }
            if !self.fill(deadline) {
                return None;
            }
        }
    }

    /// The next frame that is an event (not a comment), if one comes.
    pub(crate) fn try_event(&mut self, bound: Duration) -> Option<Frame> {
        let deadline = Instant::now() + bound;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = self.next_frame(left)?;
            if frame.data.is_some() || frame.kind.is_some() {
                return Some(frame);
            }
        }
    }

    /// The next event; panics with the tail of the stream when none comes.
    pub(crate) fn next_event(&mut self, bound: Duration) -> Frame {
        match self.try_event(bound) {
            Some(frame) => frame,
            None => panic!("no event within {bound:?}; end: {:?}; stream so far: {:?}", self.end, self.tail()),
        }
    }

    /// The next `count` events, all within `bound`.
    pub(crate) fn events(&mut self, count: usize, bound: Duration) -> Vec<Frame> {
        let deadline = Instant::now() + bound;
        (0..count).map(|_| self.next_event(deadline.saturating_duration_since(Instant::now()))).collect()
    }

    /// Asserts that no event comes and that the stream stays open.
    pub(crate) fn quiet(&mut self, bound: Duration) {
        if let Some(frame) = self.try_event(bound) {
            panic!("nothing should have been delivered: {:?}", frame.raw);
        }
        assert_eq!(self.end, None, "the stream ended: {:?}", self.tail());
    }

    /// Reads to the end and says how it ended.
    pub(crate) fn end(&mut self, bound: Duration) -> End {
        let deadline = Instant::now() + bound;
        while self.end.is_none() && self.fill(deadline) {}
        match self.end {
            Some(end) => end,
            None => panic!("still open after {bound:?}: {:?}", self.tail()),
        }
    }

    fn tail(&self) -> String {
        let from = self.raw.len().saturating_sub(600);
        String::from_utf8_lossy(&self.raw[from..]).into_owned()
    }

    fn parse(&mut self) -> Option<Frame> {
        let fresh = &self.raw[self.scanned..];
        let Some(found) = fresh.windows(2).position(|pair| pair == b"\n\n") else {
            self.scanned = self.raw.len().saturating_sub(1).max(self.parsed);
            return None;
        };
        let end = self.scanned + found + 2;
        let frame = Frame::parse(&self.raw[self.parsed..end]);
        self.parsed = end;
        self.scanned = end;
        if self.parsed > KEPT {
            self.raw.drain(..self.parsed);
            self.parsed = 0;
            self.scanned = 0;
        }
        Some(frame)
    }

    /// Reads once; false when the deadline is over or the stream has ended.
    fn fill(&mut self, deadline: Instant) -> bool {
        if self.wire.is_empty() || !self.decode() {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.end.is_some() || left.is_zero() {
                return false;
            }
            let set = self.stream.set_read_timeout(Some(left));
            set.expect("set the read timeout");
            let mut bytes = [0; 64 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => self.end = Some(End::Cut),
                Ok(count) => self.wire.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return false,
                Err(_) => self.end = Some(End::Cut),
            }
            self.decode();
        }
        true
    }

    /// Removes chunk framing from what is there; true when something was gained.
    fn decode(&mut self) -> bool {
        let mut at = 0;
        while self.end != Some(End::Clean) {
            let rest = &self.wire[at..];
            match self.chunk {
                Chunk::Size => {
                    let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
                        break;
                    };
                    let digits = String::from_utf8_lossy(&rest[..end]).into_owned();
                    let size = usize::from_str_radix(&digits, 16);
                    let size = size.unwrap_or_else(|_| panic!("bad chunk size {digits:?}"));
                    self.chunk = if size == 0 { Chunk::Last } else { Chunk::Data(size) };
                    at += end + 2;
                }
                Chunk::Data(size) => {
                    let count = size.min(rest.len());
                    if count == 0 {
                        break;
                    }
                    self.raw.extend_from_slice(&rest[..count]);
                    self.chunk = if count == size { Chunk::DataEnd } else { Chunk::Data(size - count) };
                    at += count;
                }
                Chunk::DataEnd | Chunk::Last => {
                    if rest.len() < 2 {
                        break;
                    }
                    assert_eq!(&rest[..2], b"\r\n", "chunk without its line end");
                    if matches!(self.chunk, Chunk::Last) {
                        self.end = Some(End::Clean);
                    }
                    self.chunk = Chunk::Size;
                    at += 2;
                }
            }
        }
        self.wire.drain(..at);
        at > 0
    }
}

/// Whether a read ended because nothing came in time.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    use ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

impl Frame {
    fn parse(bytes: &[u8]) -> Self {
        let raw = std::str::from_utf8(bytes);
        let raw = raw.unwrap_or_else(|_| panic!("frame is not UTF-8: {bytes:?}"));
        let mut frame = Self { raw: raw.to_owned(), ..Self::default() };
        for line in raw.lines() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                "id" => frame.id = Some(value),
                "event" => frame.kind = Some(value),
                "data" => {
                    frame.data = Some(match frame.data.take() {
                        Some(before) => format!("{before}\n{value}"),
                        None => value,
                    });
                }
                _ => {}
            }
        }
        frame
    }

    /// The data lines, joined.
    pub(crate) fn text(&self) -> &str {
        self.data.as_deref().unwrap_or_default()
    }

    /// The event JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or_else(|error| panic!("data is not JSON ({error}): {:?}", self.raw))
    }

    /// The id line.
    pub(crate) fn event_id(&self) -> String {
        let id = self.id.clone();
        id.unwrap_or_else(|| panic!("frame without id: {:?}", self.raw))
    }

    pub(crate) fn subject(&self) -> String {
        self.json()["subject"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn payload(&self) -> Value {
        self.json()["payload"].clone()
    }

    pub(crate) fn index(&self) -> i64 {
        let index = self.json()["index"].as_i64();
        index.unwrap_or_else(|| panic!("event without index: {:?}", self.raw))
    }
}
