//! An event: its id, and the record that the log holds.
//!
//! A record is encoded once, where the publish is parsed. The same bytes are in the raft log, in the settled blocks,
//! and at every reader:
//!
//! ```text
//! u32 length of what follows | u8 flags | u16 subject length | subject
//! i64 seconds | u32 nanos
//! [u8 length | id] [u16 length | trace_id] [u16 length | key] [u8 length | response_subject] [u16 length | headers]
//! payload, to the end
//! ```
//!
//! All numbers are little-endian. A part in brackets is present when its flag is set. Headers are a text (see
//! [`headers`]), from feature level `HEADERS` on. A record with an unknown flag counts as damaged. A record does not
//! hold its sequence number: the rules assign the number when they apply the entry, and it follows from the place of
//! the record in the log.

pub mod headers;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::time::Timestamp;

use headers::Headers;

/// Flags of a record: which optional parts follow.
const HAS_ID: u8 = 1;
const HAS_TRACE: u8 = 2;
const HAS_KEY: u8 = 4;
const HAS_RESPONSE: u8 = 8;
const HAS_PAYLOAD: u8 = 16;
const HAS_HEADERS: u8 = 32;
const KNOWN_FLAGS: u8 = HAS_ID | HAS_TRACE | HAS_KEY | HAS_RESPONSE | HAS_PAYLOAD | HAS_HEADERS;
/// Offset of the flags in a record, behind the length.
const FLAGS_AT: usize = 4;

/// The fields of an event, borrowed from a record or from a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Event<'a> {
    /// The id that the client chose. Empty when the id follows from time and sequence number: see [`EventId`].
    pub id: &'a str,
    /// Trace id for distributed tracing, or empty.
    pub trace_id: &'a str,
    /// Dedupe key, or empty. The rules refuse an event whose key was stored for the same subject within the window.
    pub key: &'a str,
    /// The subject, checked by [`crate::subjects::subject::Subject::validate`].
    pub subject: &'a str,
    /// The subject on which the publisher waits for responses, or empty.
    pub response_subject: &'a str,
    /// When the event was created: the client's time if given, else that of the node that parsed the publish.
    pub created_at: Timestamp,
    /// Headers, or none.
    pub headers: Headers<'a>,
    /// The JSON payload, byte for byte as the publisher sent it; `None` when the publisher sent none.
    pub payload: Option<&'a [u8]>,
}

/// A field is longer than its length prefix can express.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} is longer than {limit} bytes")]
pub struct TooLong {
    /// Name of the field.
    pub field: &'static str,
    /// Most bytes that the field may have.
    pub limit: usize,
}

impl<'a> Event<'a> {
    /// Appends the record of this event to `out`, length prefix included.
    ///
    /// # Errors
    /// A field is longer than its length prefix can express; `out` is then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let start = out.len();
        let result = self.encode_fields(out);
        let body = out.len().saturating_sub(start).saturating_sub(4);
        match (result, u32::try_from(body)) {
            (Ok(()), Ok(length)) => {
                if let Some(prefix) = out.get_mut(start..start.saturating_add(4)) {
                    prefix.copy_from_slice(&length.to_le_bytes());
                }
                Ok(())
            }
            (Err(error), _) => {
                out.truncate(start);
                Err(error)
            }
            (Ok(()), Err(_)) => {
                out.truncate(start);
                Err(TooLong { field: "event", limit: 0xffff_ffff })
            }
        }
    }

    /// Appends a length prefix of zero and the fields; after an error `out` holds a part of the record.
    fn encode_fields(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let mut flags = 0;
        for (set, flag) in [
            (!self.id.is_empty(), HAS_ID),
            (!self.trace_id.is_empty(), HAS_TRACE),
            (!self.key.is_empty(), HAS_KEY),
            (!self.response_subject.is_empty(), HAS_RESPONSE),
            (self.payload.is_some(), HAS_PAYLOAD),
            (!self.headers.is_empty(), HAS_HEADERS),
        ] {
            if set {
                flags |= flag;
            }
        }
        out.extend_from_slice(&[0, 0, 0, 0, flags]);
        put_text16(out, "subject", self.subject)?;
        out.extend_from_slice(&self.created_at.seconds.to_le_bytes());
        out.extend_from_slice(&self.created_at.nanos.to_le_bytes());
        if !self.id.is_empty() {
            put_text8(out, "id", self.id)?;
        }
        if !self.trace_id.is_empty() {
            put_text16(out, "trace_id", self.trace_id)?;
        }
        if !self.key.is_empty() {
            put_text16(out, "key", self.key)?;
        }
        if !self.response_subject.is_empty() {
            put_text8(out, "response_subject", self.response_subject)?;
        }
        if !self.headers.is_empty() {
            put_text16(out, "headers", self.headers.text())?;
        }
        out.extend_from_slice(self.payload.unwrap_or_default());
        Ok(())
    }

    /// Decodes the record at the start of `bytes`. Returns the event and the length of the record in bytes, prefix
    /// included; `None` when the record is damaged.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let length = usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
        let total = length.checked_add(4)?;
        let mut rest = RecordReader(bytes.get(4..total)?);
        let flags = rest.u8()?;
        if flags & !KNOWN_FLAGS != 0 {
            return None;
        }
        let mut event = Event { subject: rest.text16()?, ..Event::default() };
        event.created_at.seconds = i64::from_le_bytes(rest.array()?);
        event.created_at.nanos = u32::from_le_bytes(rest.array()?);
        if flags & HAS_ID != 0 {
            event.id = rest.text8()?;
        }
        if flags & HAS_TRACE != 0 {
            event.trace_id = rest.text16()?;
        }
        if flags & HAS_KEY != 0 {
            event.key = rest.text16()?;
        }
        if flags & HAS_RESPONSE != 0 {
            event.response_subject = rest.text8()?;
        }
        if flags & HAS_HEADERS != 0 {
            event.headers = Headers::parse(rest.text16()?)?;
        }
        if flags & HAS_PAYLOAD != 0 {
            event.payload = Some(rest.0);
        }
        Some((event, total))
    }

    /// The length of the record at the start of `bytes`, prefix included. Does not read the fields; `None` when the
    /// record is cut off.
    #[must_use]
    pub fn skip(bytes: &[u8]) -> Option<usize> {
        let length = usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
        length.checked_add(4).filter(|total| *total <= bytes.len())
    }

    /// Whether the record at the start of `bytes` has the flag for headers.
    #[must_use]
    pub fn has_headers(bytes: &[u8]) -> bool {
        bytes.get(FLAGS_AT).is_some_and(|flags| flags & HAS_HEADERS != 0)
    }

    /// Appends the id that clients see: the chosen id, or the id that follows from time and sequence number.
    pub fn write_id(&self, sequence: u64, out: &mut impl Extend<u8>) {
        if self.id.is_empty() {
            EventId::new(self.created_at, sequence).write(out);
        } else {
            out.extend(self.id.bytes());
        }
    }
}

/// Appends a text with a length prefix of one byte.
fn put_text8(out: &mut Vec<u8>, field: &'static str, text: &str) -> Result<(), TooLong> {
    let length = u8::try_from(text.len()).map_err(|_| TooLong { field, limit: 255 })?;
    out.push(length);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Appends a text with a length prefix of two bytes.
fn put_text16(out: &mut Vec<u8>, field: &'static str, text: &str) -> Result<(), TooLong> {
    let length = u16::try_from(text.len()).map_err(|_| TooLong { field, limit: 65_535 })?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Reads fields off the front of a record: holds the bytes that are not read yet.
struct RecordReader<'a>(&'a [u8]);

impl<'a> RecordReader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A text with a length prefix of one byte.
    fn text8(&mut self) -> Option<&'a str> {
        let length = usize::from(self.u8()?);
        core::str::from_utf8(self.take(length)?).ok()
    }

    /// A text with a length prefix of two bytes.
    fn text16(&mut self) -> Option<&'a str> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        core::str::from_utf8(self.take(length)?).ok()
    }
}

/// The id of an event for which the client chose none: `e_` and 20 characters of base32hex over 4 bytes of creation
/// second and 8 bytes of sequence number. A subscription that resumes at such an id needs no search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId {
    /// Creation second, clamped to 32 bits.
    pub second: u32,
    /// Sequence number of the event in its namespace.
    pub sequence: u64,
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

impl EventId {
    /// The id of the event with this sequence number and creation time.
    #[must_use]
    pub fn new(created_at: Timestamp, sequence: u64) -> Self {
        let second = u32::try_from(created_at.seconds.clamp(0, i64::from(u32::MAX))).unwrap_or(0);
        Self { second, sequence }
    }

    /// Appends the text of the id: `e_` and 20 characters.
    pub fn write(&self, out: &mut impl Extend<u8>) {
        out.extend(*b"e_");
        let bits = (u128::from(self.second) << 64 | u128::from(self.sequence)) << 4;
        out.extend((0..20_u32).map(|at| {
            let digit = usize::try_from(bits >> (95 - at * 5) & 31).unwrap_or(0);
            ALPHABET.get(digit).copied().unwrap_or(b'0')
        }));
    }

    /// Parses the text of an id; `None` for a text that no server made.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("e_").filter(|digits| digits.len() == 20)?;
        let mut bits = 0_u128;
        for byte in digits.bytes() {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'v' => byte - b'a' + 10,
                _ => return None,
            };
            bits = bits << 5 | u128::from(digit);
        }
        // 20 digits hold 100 bits, an id 96: the last four are zero.
        if bits & 15 != 0 {
            return None;
        }
        let bits = bits >> 4;
        Some(Self {
            second: u32::try_from(bits >> 64).ok()?,
            sequence: u64::try_from(bits & u128::from(u64::MAX)).ok()?,
        })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(22);
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// Whether a client may choose this text as an id: 1 to 128 characters of `[0-9A-Za-z_.:-]`.
#[must_use]
pub fn is_event_id(text: &str) -> bool {
    (1..=crate::limits::EVENT_ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::headers::HeaderList;
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    /// The record as releases wrote it that knew no headers.
    fn first_form(event: &Event<'_>) -> Vec<u8> {
        let flags = [(event.id, 1), (event.trace_id, 2), (event.key, 4), (event.response_subject, 8)];
        let flags: u8 = flags.iter().filter(|(text, _)| !text.is_empty()).map(|(_, flag)| flag).sum();
        let mut body = vec![flags + if event.payload.is_some() { 16 } else { 0 }];
        let long = |body: &mut Vec<u8>, text: &str| {
            body.extend_from_slice(&u16::try_from(text.len()).unwrap().to_le_bytes());
            body.extend_from_slice(text.as_bytes());
        };
        let short = |body: &mut Vec<u8>, text: &str| {
            body.push(u8::try_from(text.len()).unwrap());
            body.extend_from_slice(text.as_bytes());
        };
        long(&mut body, event.subject);
        body.extend_from_slice(&event.created_at.seconds.to_le_bytes());
        body.extend_from_slice(&event.created_at.nanos.to_le_bytes());
        if !event.id.is_empty() {
            short(&mut body, event.id);
        }
        for text in [event.trace_id, event.key] {
            if !text.is_empty() {
                long(&mut body, text);
            }
        }
        if !event.response_subject.is_empty() {
            short(&mut body, event.response_subject);
        }
        body.extend_from_slice(event.payload.unwrap_or_default());
        [&u32::try_from(body.len()).unwrap().to_le_bytes(), body.as_slice()].concat()
    }

    proptest! {
        #[test]
        fn an_id_reads_back_and_sorts_by_second_then_position(a in any::<(u32, u64)>(), b in any::<(u32, u64)>()) {
            let (one, two) = (EventId { second: a.0, sequence: a.1 }, EventId { second: b.0, sequence: b.1 });
            prop_assert_eq!(EventId::parse(&one.to_string()), Some(one));
            prop_assert_eq!(one.to_string().len(), 22);
            prop_assert_eq!(one.cmp(&two), one.to_string().cmp(&two.to_string()));
        }

        #[test]
        fn a_record_reads_back_and_a_damaged_one_never_panics(
            id in "[a-z]{0,20}", trace in ".{0,40}", key in ".{0,40}", subject in "[a-z]{1,9}\\.[a-z]{1,9}",
            payload in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60)),
            headers in proptest::collection::vec(("[a-zA-Z-]{1,9}", "[^\\pC]{0,20}"), 0..6),
            cut in 0_usize..200, flip in 0_usize..200,
        ) {
            let mut list = HeaderList::default();
            for (name, value) in &headers { list.push(name, value).unwrap(); }
            let event = Event { id: &id, trace_id: &trace, key: &key, subject: &subject,
                payload: payload.as_deref(), created_at: Timestamp { seconds: 7, nanos: 9 }, headers: list.headers(),
                ..Event::default() };
            let mut bytes = Vec::new();
            event.encode(&mut bytes).unwrap();
            prop_assert_eq!(Event::decode(&bytes), Some((event, bytes.len())));
            prop_assert_eq!(Event::skip(&bytes), Some(bytes.len()));
            prop_assert_eq!(Event::has_headers(&bytes), !headers.is_empty());
            let plain = Event { headers: Headers::default(), ..event };
            if headers.is_empty() { prop_assert_eq!(&bytes, &first_form(&plain)); }
            let first = first_form(&plain);
            prop_assert_eq!(Event::decode(&first).map(|(read, _)| read), Some(plain));
            core::hint::black_box(Event::decode(bytes.get(..cut).unwrap_or_default()));
            let mut damaged = bytes.clone();
            if let Some(byte) = damaged.get_mut(flip) { *byte ^= 0xff; }
            core::hint::black_box(Event::decode(&damaged));
        }
    }

    #[test]
    fn a_record_with_headers_that_no_release_writes_is_damaged() {
        let mut list = HeaderList::default();
        list.push("ab", "cd").unwrap();
        let event = Event { subject: "a.b", headers: list.headers(), payload: Some(b"1"), ..Event::default() };
        let mut record = Vec::new();
        event.encode(&mut record).unwrap();
        let at = record.windows(6).position(|window| window == b"ab:cd\n").unwrap();
        assert_eq!(Event::decode(&record), Some((event, record.len())));
        for (place, byte) in [(2, b'-'), (0, b' '), (5, b'-'), (3, 0), (3, 0xff), (3, b'\r'), (2, b'\n')] {
            let mut damaged = record.clone();
            damaged[at + place] = byte;
            assert_eq!(Event::decode(&damaged), None, "byte {place} is {byte}");
        }
        let mut unknown = record.clone();
        unknown[FLAGS_AT] |= 64;
        assert_eq!(Event::decode(&unknown), None, "a flag of a later release");
        let mut none = record.clone();
        none[at - 2] = 0;
        assert_eq!(Event::decode(&none), None, "headers that are announced and not there");
    }

    #[test]
    fn texts_that_no_server_made_are_not_ids() {
        for text in ["", "e_", "c_00000000000000000000", "e_0000000000000000000z", "e_00000000000000000001", "e_000"] {
            assert_eq!(EventId::parse(text), None, "{text}");
        }
    }
}
