//! The incremental parser of what clients send.
//!
//! The caller appends bytes to a buffer and calls [`Parser::next`] until there is no operation left. Messages are
//! slices that are split off the buffer, and not copied. The parser bounds what it waits for, so a caller that reads no
//! more before the parser has no operation left holds at most [`Parser::bytes_max`] and one read.

use std::num::NonZeroU32;

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memchr;
use serde::de::IgnoredAny;

use super::error::ProtocolError;
use super::operation::{ClientOp, Publish, Subscribe, Unsubscribe};

/// Bytes of the longest verb and one blank. The limit of a line counts arguments alone, as in nats-server.
const VERB_BYTES: usize = 8;
/// Digits that a size may have. nats-server 2.15 refuses more, leading zeros counted.
const DIGITS_MAX: usize = 9;
/// The end of a payload, and of most lines: nats-server also takes a line, but no payload, that ends with LF alone.
const LINE_END: &[u8] = b"\r\n";

/// Most bytes that a client may send in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a line without its verb and line end. nats-server: 4096.
    pub control_line: usize,
    /// Bytes of headers and payload. nats-server: 1 MiB. The protocol has nine digits for this number.
    pub payload: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { control_line: 4096, payload: 1024 * 1024 }
    }
}

/// Turns the bytes of one client into operations.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    /// Whether HPUB is allowed.
    headers: bool,
    /// Bytes at the start of the buffer that have no line end. They are not searched again: a client that sends byte
    /// by byte would otherwise cost the square of the length of its line.
    searched: usize,
    /// A message whose line has been read, and whose payload has not come whole. Its line is still in the buffer.
    pending: Option<Frame>,
    missing: usize,
    failed: Option<ProtocolError>,
}

/// Where the parts of a message stand in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    /// Bytes of the line with its line end.
    line: usize,
    subject: Span,
    reply: Option<Span>,
    /// Bytes of the header block; 0 if there is none.
    headers: usize,
    /// Bytes of headers and payload.
    total: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Publish,
    PublishWithHeaders,
    Ping,
    Pong,
    Subscribe,
    Unsubscribe,
    Connect,
    Info,
    Ok,
    Error,
}

/// Every verb, the most frequent one first, and whether a blank must follow. In nats-server 2.15 PING, PONG and +OK take
/// any bytes up to the line end, and CONNECT and INFO need no blank before their JSON.
const VERBS: [(&[u8], Verb, bool); 10] = [
    (b"PUB", Verb::Publish, true),
    (b"HPUB", Verb::PublishWithHeaders, true),
    (b"PING", Verb::Ping, false),
    (b"PONG", Verb::Pong, false),
    (b"SUB", Verb::Subscribe, true),
    (b"UNSUB", Verb::Unsubscribe, true),
    (b"CONNECT", Verb::Connect, false),
    (b"INFO", Verb::Info, false),
    (b"+OK", Verb::Ok, false),
    (b"-ERR", Verb::Error, true),
];

impl Parser {
    /// A parser for a new connection. HPUB is refused until [`Self::allow_headers`].
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, headers: false, searched: 0, pending: None, missing: 1, failed: None }
    }

    /// Says what the last CONNECT of the client said about headers. To be called before the next operation is taken.
    pub fn allow_headers(&mut self, allowed: bool) {
        self.headers = allowed;
    }

    /// Bytes that must at least come before there is another operation, as of the last call of [`Self::next`] that gave
    /// none. At least 1. Up to the limit of the payload: reserve that much only as the bytes come (for example, no more
    /// than have come already), or clients that announce payloads and send none hold memory.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// Most bytes that the buffer holds when [`Self::next`] gives no operation.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        let line = self.limits.control_line.saturating_add(VERB_BYTES + LINE_END.len());
        line.saturating_add(self.limits.payload).saturating_add(LINE_END.len())
    }

    /// The next operation at the start of `buf`, whose bytes are removed from `buf`; `None` if it has not come whole.
    /// The caller changes `buf` in no way but by appending what came.
    ///
    /// # Errors
    /// All errors close the connection; further calls give the same error.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<ClientOp>, ProtocolError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.advance(buf).inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn advance(&mut self, buf: &mut BytesMut) -> Result<Option<ClientOp>, ProtocolError> {
        if let Some(frame) = self.pending.take() {
            return self.message(frame, buf);
        }
        while let Some(end) = self.line_end(buf)? {
            let taken = end.saturating_add(1);
            let line = buf.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let (verb, from) = verb(line).ok_or(ProtocolError::UnknownOperation)?;
            if line.len() > self.line_max() {
                return Err(ProtocolError::ControlLineTooLong);
            }
            let arguments = Span { start: from, end: line.len() };
            // What SUB says is kept for long, and must not hold the buffer: these lines are copied.
            let copy = || Bytes::copy_from_slice(line);
            let operation = match verb {
                Verb::Publish | Verb::PublishWithHeaders => {
                    let frame = self.frame(line, arguments, taken, verb == Verb::PublishWithHeaders)?;
                    return self.message(frame, buf);
                }
                Verb::Subscribe => subscribe(&copy(), arguments),
                Verb::Unsubscribe => unsubscribe(&copy(), arguments),
                Verb::Connect => Some(ClientOp::Connect(arguments.of(&copy()))),
                Verb::Ping => Some(ClientOp::Ping),
                Verb::Pong => Some(ClientOp::Pong),
                Verb::Info if !is_object(arguments.bytes(line)) => return Err(ProtocolError::UnknownOperation),
                Verb::Info | Verb::Ok => {
                    buf.advance(taken);
                    continue;
                }
                // nats-server takes this for the farewell of its peer, and closes.
                Verb::Error => None,
            };
            buf.advance(taken);
            return operation.map(Some).ok_or(ProtocolError::UnknownOperation);
        }
        Ok(None)
    }

    /// Most bytes of a line with its verb and without its line end.
    fn line_max(&self) -> usize {
        self.limits.control_line.saturating_add(VERB_BYTES)
    }

    /// Where the LF of the first line stands. A line that has not come whole is refused as soon as it can be no
    /// operation; the order of the checks is that for whole lines, so that the error does not depend on how the bytes
    /// were cut.
    fn line_end(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let fresh = buf.get(self.searched..).unwrap_or_default();
        if let Some(found) = memchr(b'\n', fresh) {
            let end = self.searched.saturating_add(found);
            self.searched = 0;
            return Ok(Some(end));
        }
        (self.searched, self.missing) = (buf.len(), 1);
        if !VERBS.iter().any(|(name, _, blank)| may_become(buf, name, *blank)) {
            return Err(ProtocolError::UnknownOperation);
        }
        // One byte more may be the CR.
        if buf.len() > self.line_max().saturating_add(1) {
            return Err(ProtocolError::ControlLineTooLong);
        }
        Ok(None)
    }

    /// Reads the arguments of PUB or HPUB: the subject, the reply subject if there is one, and one or two sizes.
    fn frame(&self, line: &[u8], arguments: Span, taken: usize, with_headers: bool) -> Result<Frame, ProtocolError> {
        if with_headers && !self.headers {
            return Err(ProtocolError::HeadersNotSupported);
        }
        let read = || {
            let (fields, count) = fields::<4>(line, arguments)?;
            let sizes = if with_headers { 2 } else { 1 };
            let (names, sizes) = fields.get(..count)?.split_at_checked(count.checked_sub(sizes)?)?;
            let (subject, reply) = match names {
                [subject] => (*subject, None),
                [subject, reply] => (*subject, Some(*reply)),
                _ => return None,
            };
            let (headers, total) = match sizes {
                [total] => (0, size(total.bytes(line))?),
                [headers, total] => (size(headers.bytes(line))?, size(total.bytes(line))?),
                _ => return None,
            };
            (headers <= total).then_some(Frame { line: taken, subject, reply, headers, total })
        };
        let frame = read().ok_or(ProtocolError::UnknownOperation)?;
        if frame.total > self.limits.payload {
            return Err(ProtocolError::PayloadTooLarge);
        }
        Ok(frame)
    }

    /// Takes the message at the start of the buffer, or remembers what its line said.
    fn message(&mut self, frame: Frame, buf: &mut BytesMut) -> Result<Option<ClientOp>, ProtocolError> {
        let end = frame.line.saturating_add(frame.total);
        let whole = end.saturating_add(LINE_END.len());
        let behind = buf.get(end..).unwrap_or_default();
        if !LINE_END.starts_with(behind.get(..LINE_END.len()).unwrap_or(behind)) {
            return Err(ProtocolError::UnknownOperation);
        }
        if buf.len() < whole {
            self.missing = whole.saturating_sub(buf.len());
            self.pending = Some(frame);
            return Ok(None);
        }
        let mut bytes = buf.split_to(whole).freeze();
        let subject = frame.subject.of(&bytes);
        let reply = frame.reply.map(|reply| reply.of(&bytes));
        bytes.truncate(end);
        bytes.advance(frame.line);
        let headers = (frame.headers > 0).then(|| bytes.split_to(frame.headers));
        Ok(Some(ClientOp::Publish(Publish { subject, reply, headers, payload: bytes })))
    }
}

/// A part of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    fn of(self, whole: &Bytes) -> Bytes {
        whole.slice(self.start..self.end)
    }

    fn bytes(self, line: &[u8]) -> &[u8] {
        line.get(self.start..self.end).unwrap_or_default()
    }
}

/// Whether this is a JSON object, which is all that nats-server 2.15 asks of the INFO of a client.
fn is_object(json: &[u8]) -> bool {
    json.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(json).is_ok()
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The verb of a line, and where its arguments begin.
fn verb(line: &[u8]) -> Option<(Verb, usize)> {
    VERBS.iter().find_map(|(name, verb, needs_blank)| {
        let (start, rest) = line.split_at_checked(name.len())?;
        let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
        let fits = start.eq_ignore_ascii_case(name) && (blanks > 0 || !needs_blank);
        fits.then(|| (*verb, name.len().saturating_add(blanks)))
    })
}

/// Whether the beginning of a line may become an operation with this verb.
fn may_become(start: &[u8], name: &[u8], needs_blank: bool) -> bool {
    let common = start.len().min(name.len());
    let same = start.get(..common).unwrap_or_default().eq_ignore_ascii_case(name.get(..common).unwrap_or_default());
    same && (!needs_blank || start.get(name.len()).is_none_or(|byte| is_blank(*byte)))
}

/// The fields of the arguments, and how many there are; `None` if there are more than `N`, or a CR is among them.
///
/// Ours: nats-server 2.15 takes such a CR for a blank in some operations, for nothing in others, and treats it in
/// another way when the line came in two pieces.
fn fields<const N: usize>(line: &[u8], arguments: Span) -> Option<([Span; N], usize)> {
    let (mut found, mut count, mut start) = ([Span::default(); N], 0_usize, None);
    for (at, byte) in (arguments.start..).zip(arguments.bytes(line)) {
        match byte {
            b' ' | b'\t' => {
                if let Some(start) = start.take() {
                    *found.get_mut(count)? = Span { start, end: at };
                    count = count.saturating_add(1);
                }
            }
            b'\r' => return None,
            _ => start = start.or(Some(at)),
        }
    }
    if let Some(start) = start {
        *found.get_mut(count)? = Span { start, end: arguments.end };
        count = count.saturating_add(1);
    }
    Some((found, count))
}

fn subscribe(line: &Bytes, arguments: Span) -> Option<ClientOp> {
    let (fields, count) = fields::<3>(line, arguments)?;
    let (subject, queue, sid) = match fields.get(..count)? {
        [subject, sid] => (subject, None, sid),
        [subject, queue, sid] => (subject, Some(queue), sid),
        _ => return None,
    };
    let queue = queue.map(|queue| queue.of(line));
    Some(ClientOp::Subscribe(Subscribe { subject: subject.of(line), queue, sid: sid.of(line) }))
}

fn unsubscribe(line: &Bytes, arguments: Span) -> Option<ClientOp> {
    let (fields, count) = fields::<2>(line, arguments)?;
    let (sid, max) = match fields.get(..count)? {
        [sid] => (sid, None),
        [sid, max] => (sid, number(max.bytes(line)).and_then(NonZeroU32::new)),
        _ => return None,
    };
    Some(ClientOp::Unsubscribe(Unsubscribe { sid: sid.of(line), max }))
}

fn size(digits: &[u8]) -> Option<usize> {
    usize::try_from(number(digits)?).ok()
}

/// A number of one to nine digits, and nothing else.
fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, digit| {
        digit.is_ascii_digit().then(|| number.wrapping_mul(10).wrapping_add(u32::from(digit.wrapping_sub(b'0'))))
    })
}
