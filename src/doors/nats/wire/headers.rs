//! The header block of a message: `NATS/1.0`, perhaps a status, lines `Name: value`, and an empty line.
//!
//! nats-server passes blocks on without a look at them. This is for messages whose headers rollbook reads or makes.
//! Names keep their case and may repeat; blanks around a value do not count, as in the clients for Go and Python.

use bytes::{BufMut as _, BytesMut};
use memchr::{memchr, memmem};

/// How a block begins.
const VERSION: &[u8] = b"NATS/1.0";
const LINE_END: &[u8] = b"\r\n";
/// Most lines of a block. Ours: the protocol has no bound but that of the message.
pub const LINES_MAX: usize = 256;
/// Most bytes of a block. Ours, as before.
pub const BLOCK_BYTES_MAX: usize = 64 * 1024;

/// Why a block is none, or cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadersError {
    /// The block does not begin with `NATS/1.0`.
    #[error("headers should begin with NATS/1.0")]
    Version,
    /// What follows `NATS/1.0` is not a number of three digits and a text.
    #[error("the status of headers should be a number of three digits")]
    Status,
    /// The block does not end with an empty line, or goes on behind the empty line.
    #[error("headers should end with an empty line")]
    End,
    /// A line without a colon.
    #[error("a header should be a name, a colon and a value")]
    NoColon,
    /// A name that is empty, or has blanks, control characters, colons or characters beyond ASCII.
    #[error("the name of a header should be visible ASCII without a colon")]
    Name,
    /// A value that is not UTF-8 or has control characters other than tabs.
    #[error("the value of a header should be UTF-8 without control characters")]
    Value,
    /// More than [`LINES_MAX`] lines.
    #[error("there should be at most 256 headers")]
    TooMany,
    /// More than [`BLOCK_BYTES_MAX`] bytes.
    #[error("headers should have at most 64 KiB")]
    TooLarge,
}

/// A block that has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    status: Option<Status<'a>>,
    /// The lines without the first one, each with its line end, without the empty line.
    lines: &'a str,
}

/// What the first line says, in messages that a server makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status<'a> {
    /// 100 to 999, with the meanings of HTTP: 503 is "no responders".
    pub code: u16,
    /// The reason in words; may be empty.
    pub description: &'a str,
}

impl<'a> Headers<'a> {
    /// Checks a block.
    ///
    /// # Errors
    /// The first rule that the block breaks.
    pub fn parse(block: &'a [u8]) -> Result<Self, HeadersError> {
        if block.len() > BLOCK_BYTES_MAX {
            return Err(HeadersError::TooLarge);
        }
        let behind = block.strip_prefix(VERSION).ok_or(HeadersError::Version)?;
        let end = memmem::find(behind, LINE_END).ok_or(HeadersError::End)?;
        let (first, lines) = behind.split_at_checked(end).ok_or(HeadersError::End)?;
        let lines = lines.strip_prefix(LINE_END).and_then(|lines| lines.strip_suffix(LINE_END));
        let lines = std::str::from_utf8(lines.ok_or(HeadersError::End)?).map_err(|_| HeadersError::Value)?;
        let status = status(first)?;
        if !lines.is_empty() && !lines.ends_with("\r\n") {
            return Err(HeadersError::End);
        }
        for (count, line) in lines.split_terminator("\r\n").enumerate() {
            if count >= LINES_MAX {
                return Err(HeadersError::TooMany);
            }
            if line.is_empty() {
                return Err(HeadersError::End);
            }
            let (name, value) = line.split_once(':').ok_or(HeadersError::NoColon)?;
            check(name, value)?;
        }
        Ok(Self { status, lines })
    }

    /// The status, if the first line has one.
    #[must_use]
    pub fn status(&self) -> Option<Status<'a>> {
        self.status
    }

    /// Names and values in their order. Names keep their case and may repeat.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let pairs = self.lines.split_terminator("\r\n").filter_map(|line| line.split_once(':'));
        pairs.map(|(name, value)| (name, trimmed(value)))
    }

    /// The first value of a name, which is compared with regard to case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find_map(|(found, value)| (found == name).then_some(value))
    }
}

/// Appends a block. Blanks around values are left out. If there is an error, nothing is appended.
///
/// # Errors
/// The first rule that a name or value breaks.
pub fn write<'a>(
    out: &mut BytesMut,
    status: Option<Status<'_>>,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), HeadersError> {
    let start = out.len();
    let written = write_lines(out, status, pairs);
    if written.is_ok() && out.len().saturating_sub(start) <= BLOCK_BYTES_MAX {
        return Ok(());
    }
    out.truncate(start);
    written.and(Err(HeadersError::TooLarge))
}

fn write_lines<'a>(
    out: &mut BytesMut,
    status: Option<Status<'_>>,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), HeadersError> {
    out.extend_from_slice(VERSION);
    if let Some(Status { code, description }) = status {
        let description = trimmed(description);
        if !(100..=999).contains(&code) || !is_value(description) {
            return Err(HeadersError::Status);
        }
        out.extend_from_slice(format!(" {code}").as_bytes());
        if !description.is_empty() {
            out.put_u8(b' ');
            out.extend_from_slice(description.as_bytes());
        }
    }
    out.extend_from_slice(LINE_END);
    for (count, (name, value)) in pairs.enumerate() {
        if count >= LINES_MAX {
            return Err(HeadersError::TooMany);
        }
        check(name, value)?;
        for part in [name, ": ", trimmed(value), "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(LINE_END);
    Ok(())
}

/// Reads what stands behind `NATS/1.0`: nothing, or a blank, three digits, and perhaps a blank and words.
fn status(first: &[u8]) -> Result<Option<Status<'_>>, HeadersError> {
    let first = std::str::from_utf8(first).map_err(|_| HeadersError::Status)?;
    let text = trimmed(first);
    if text.is_empty() {
        return Ok(None);
    }
    let (code, description) = text.split_at_checked(3).ok_or(HeadersError::Status)?;
    let is_code = code.bytes().all(|byte| byte.is_ascii_digit()) && !code.starts_with('0');
    let apart = first.starts_with([' ', '\t']) && (description.is_empty() || description.starts_with([' ', '\t']));
    if !is_code || !apart || !is_value(description) {
        return Err(HeadersError::Status);
    }
    let code = code.parse().map_err(|_| HeadersError::Status)?;
    Ok(Some(Status { code, description: trimmed(description) }))
}

fn check(name: &str, value: &str) -> Result<(), HeadersError> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) || memchr(b':', name.as_bytes()).is_some() {
        return Err(HeadersError::Name);
    }
    if is_value(value) { Ok(()) } else { Err(HeadersError::Value) }
}

fn is_value(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
}

fn trimmed(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(block: &[u8]) -> Result<Vec<(&str, &str)>, HeadersError> {
        Ok(Headers::parse(block)?.iter().collect())
    }

    #[test]
    fn names_keep_their_case_and_may_repeat() {
        let block = b"NATS/1.0\r\nBar: Baz\r\nbar:x\r\nBar:\t two words \r\nEmpty:\r\nUrl: http://h:1/\r\n\r\n";
        let expected = [("Bar", "Baz"), ("bar", "x"), ("Bar", "two words"), ("Empty", ""), ("Url", "http://h:1/")];
        assert_eq!(pairs(block).unwrap(), expected);
        let headers = Headers::parse(block).unwrap();
        assert_eq!((headers.get("bar"), headers.get("BAR"), headers.status()), (Some("x"), None, None));
        assert_eq!(pairs(b"NATS/1.0\r\n\r\n").unwrap(), []);
    }

    #[test]
    fn the_first_line_may_have_a_status() {
        let status = |block: &'static [u8]| Headers::parse(block).map(|headers| headers.status());
        let plain = Status { code: 503, description: "" };
        assert_eq!(status(b"NATS/1.0 503\r\nNats-Subject: a\r\n\r\n"), Ok(Some(plain)));
        let with_words = Status { code: 404, description: "No Messages" };
        assert_eq!(status(b"NATS/1.0 404 No Messages\r\n\r\n"), Ok(Some(with_words)));
        assert_eq!(status(b"NATS/1.0 \r\n\r\n"), Ok(None));
        for block in ["NATS/1.0503\r\n\r\n", "NATS/1.0 50\r\n\r\n", "NATS/1.0 5033\r\n\r\n", "NATS/1.0 x\r\n\r\n"] {
            assert_eq!(Headers::parse(block.as_bytes()).unwrap_err(), HeadersError::Status, "{block}");
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let bad: [(&[u8], HeadersError); 15] = [
            (b"", HeadersError::Version),
            (b"nats/1.0\r\n\r\n", HeadersError::Version),
            (b"HTTP/1.1 200\r\n\r\n", HeadersError::Version),
            (b"NATS/1.0", HeadersError::End),
            (b"NATS/1.0\r\n", HeadersError::End),
            (b"NATS/1.0\n\n", HeadersError::End),
            (b"NATS/1.0\r\nA: b\r\n", HeadersError::End),
            (b"NATS/1.0\r\nA: b\r\n\r\nC: d\r\n\r\n", HeadersError::End),
            (b"NATS/1.0\r\n\r\n\r\n", HeadersError::End),
            (b"NATS/1.0\r\nA b\r\n\r\n", HeadersError::NoColon),
            (b"NATS/1.0\r\n: b\r\n\r\n", HeadersError::Name),
            (b"NATS/1.0\r\n folded: b\r\n\r\n", HeadersError::Name),
            (b"NATS/1.0\r\nA : b\r\n\r\n", HeadersError::Name),
            (b"NATS/1.0\r\nA: b\nC: d\r\n\r\n", HeadersError::Value),
            (b"NATS/1.0\r\nA: \xff\r\n\r\n", HeadersError::Value),
        ];
        for (block, error) in bad {
            assert_eq!(pairs(block).unwrap_err(), error, "{}", block.escape_ascii());
        }
    }

    #[test]
    fn blocks_are_bounded() {
        let lines = |count: usize| format!("NATS/1.0\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert_eq!(pairs(lines(LINES_MAX).as_bytes()).unwrap().len(), LINES_MAX);
        assert_eq!(pairs(lines(LINES_MAX + 1).as_bytes()), Err(HeadersError::TooMany));
        let long = format!("NATS/1.0\r\nA: {}\r\n\r\n", "x".repeat(BLOCK_BYTES_MAX));
        assert_eq!(pairs(long.as_bytes()), Err(HeadersError::TooLarge));
        let value = "x".repeat(BLOCK_BYTES_MAX);
        let mut out = BytesMut::from("before");
        assert_eq!(write(&mut out, None, [("A", value.as_str())].into_iter()), Err(HeadersError::TooLarge));
        assert_eq!(write(&mut out, None, [("A", "b"); LINES_MAX + 1].into_iter()), Err(HeadersError::TooMany));
        assert_eq!(&out[..], b"before");
    }

    #[test]
    fn what_is_written_cannot_smuggle_a_line() {
        let mut out = BytesMut::new();
        let bad = [
            ("A\r\nB", "c", HeadersError::Name),
            ("A:B", "c", HeadersError::Name),
            ("A", "b\r\nC: d", HeadersError::Value),
        ];
        for (name, value, error) in bad {
            assert_eq!(write(&mut out, None, [(name, value)].into_iter()), Err(error));
        }
        let status = Status { code: 200, description: "a\r\nB: c" };
        assert_eq!(write(&mut out, Some(status), std::iter::empty()), Err(HeadersError::Status));
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            status in proptest::option::of((100_u16..=999, "([a-z]([a-z ]{0,8}[a-z])?)?")),
            headers in proptest::collection::vec(("[!-9;-~]{1,12}", "([!-~ä]([ -~\tä]{0,20}[!-~])?)?"), 0..20),
        ) {
            let status = status.as_ref().map(|(code, description)| Status { code: *code, description });
            let expected: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            let mut out = BytesMut::new();
            write(&mut out, status, expected.iter().copied()).unwrap();
            let read = Headers::parse(&out).unwrap();
            prop_assert_eq!(read.status(), status);
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), expected);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(proptest::sample::select(b"NATS/1.0 :ab\r\n\t5\xff\0".to_vec()), 0..60),
            prefixed in any::<bool>(),
        ) {
            let block = if prefixed { [VERSION, &bytes, b"\r\n\r\n"].concat() } else { bytes };
            if let Ok(headers) = Headers::parse(&block) {
                let mut out = BytesMut::new();
                write(&mut out, headers.status(), headers.iter()).unwrap();
                let again = Headers::parse(&out).unwrap();
                prop_assert_eq!(again.iter().collect::<Vec<_>>(), headers.iter().collect::<Vec<_>>());
                prop_assert_eq!(again.status(), headers.status());
            }
        }
    }
}
