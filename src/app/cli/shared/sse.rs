//! A parser of `text/event-stream`. Bytes may be split anywhere.

use std::collections::VecDeque;
use std::time::Duration;

/// Largest event. Only a server that is not a rollbook node sends more.
const EVENT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// One dispatched event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// The last id of the stream, including that of this event.
    pub(crate) id: Option<String>,
    /// The type of the event; `message` when the stream names none.
    pub(crate) kind: String,
    /// Data lines, joined by line feeds.
    pub(crate) data: String,
}

/// One item of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SseItem {
    /// An event is complete.
    Event(SseEvent),
    /// An id without an event. A client that reconnects before its first event continues there.
    Id(String),
    /// `retry:`, the wait before the next connection.
    Retry(Duration),
}

/// An event was larger than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream sent an event of more than {EVENT_BYTES_MAX} bytes")]
pub(crate) struct TooLarge;

/// The parser of one connection.
#[derive(Debug, Default)]
pub(crate) struct SseParser {
    /// The start of a line whose end has not arrived.
    line: Vec<u8>,
    /// The last byte was CR, so a following LF belongs to the same line end.
    after_cr: bool,
    /// Whether the first line has begun, which may have a byte order mark.
    started: bool,
    /// The last id of the stream, which later events without an id keep.
    id: Option<String>,
    /// Whether the present block has an id.
    names_id: bool,
    /// The type of the present event.
    kind: String,
    /// The data of the present event.
    data: Vec<u8>,
    /// Whether the present block has data, without which it is no event.
    has_data: bool,
}

impl SseParser {
    /// Parses the next bytes and appends the completed items. At the end of a stream, drop the parser: an event
    /// without its blank line does not count.
    pub(crate) fn push(&mut self, bytes: &[u8], items: &mut VecDeque<SseItem>) -> Result<(), TooLarge> {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.line.extend_from_slice(rest);
                break;
            };
            let (head, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            self.after_cr = tail.first() == Some(&b'\r');
            rest = tail.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.take_line(head, items);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(head);
                self.take_line(&line, items);
                // The allocation is kept for the next split line.
                line.clear();
                self.line = line;
            }
            self.check_size()?;
        }
        self.check_size()
    }

    fn check_size(&self) -> Result<(), TooLarge> {
        let fits = self.line.len().saturating_add(self.data.len()) <= EVENT_BYTES_MAX;
        if fits { Ok(()) } else { Err(TooLarge) }
    }

    fn take_line(&mut self, line: &[u8], items: &mut VecDeque<SseItem>) {
        let line = if std::mem::replace(&mut self.started, true) {
            line
        } else {
            line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line)
        };
        if line.is_empty() {
            return self.dispatch(items);
        }
        let (field, value) = match memchr::memchr(b':', line).and_then(|colon| line.split_at_checked(colon)) {
            Some((field, value)) => {
                let value = value.get(1..).unwrap_or_default();
                (field, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, [].as_slice()),
        };
        match field {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"id" if !value.contains(&0) => (self.id, self.names_id) = (Some(text(value)), true),
            b"event" => self.kind = text(value),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                if let Ok(millis) = text(value).parse() {
                    items.push_back(SseItem::Retry(Duration::from_millis(millis)));
                }
            }
            // A comment (empty field name), or a field of a later version of the format.
            _ => {}
        }
    }

    fn dispatch(&mut self, items: &mut VecDeque<SseItem>) {
        let kind = std::mem::take(&mut self.kind);
        let names_id = std::mem::take(&mut self.names_id);
        if !std::mem::take(&mut self.has_data) {
            items.extend(self.id.clone().filter(|_| names_id).map(SseItem::Id));
            return;
        }
        let data = String::from_utf8(std::mem::take(&mut self.data))
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        let kind = if kind.is_empty() { "message".to_owned() } else { kind };
        items.push_back(SseItem::Event(SseEvent { id: self.id.clone(), kind, data }));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: Option<&str>, kind: &str, data: &str) -> SseItem {
        SseItem::Event(SseEvent { id: id.map(str::to_owned), kind: kind.to_owned(), data: data.to_owned() })
    }

    fn parse(chunks: &[&[u8]]) -> Vec<SseItem> {
        let (mut parser, mut items) = (SseParser::default(), VecDeque::new());
        for chunk in chunks {
            parser.push(chunk, &mut items).unwrap();
        }
        items.into()
    }

    const STREAM: &str = "\u{feff}: consumer c_1\n\nid: e_1\nevent: msg\ndata: {\"a\":\"\u{e4}\"}\n\n: ping\n\n\
        id: e_2\r\nevent: msg\r\ndata: one\r\ndata:two\r\ndata\r\n\r\nretry: 1500\rdata: three\r\r\
        id: bad\0id\ndata: four\n\nretry: 1s\nevent: only\n\nevent: error\ndata:  x: y\nother: z\n\n\
        id\ndata: five\n\ndata: never ends\n";

    fn expected() -> Vec<SseItem> {
        vec![
            event(Some("e_1"), "msg", "{\"a\":\"\u{e4}\"}"),
            event(Some("e_2"), "msg", "one\ntwo\n"),
            SseItem::Retry(Duration::from_millis(1500)),
            event(Some("e_2"), "message", "three"),
            event(Some("e_2"), "message", "four"),
            event(Some("e_2"), "error", " x: y"),
            event(Some(""), "message", "five"),
        ]
    }

    #[test]
    fn whole() {
        assert_eq!(parse(&[STREAM.as_bytes()]), expected());
    }

    #[test]
    fn split_at_every_byte() {
        let bytes = STREAM.as_bytes();
        for at in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(parse(&[head, tail]), expected(), "split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(parse(&single), expected());
    }

    #[test]
    fn every_line_end() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = ["id: 1", "data: a", "data: b", "", "data: c", "", ""].join(end);
            let expected = vec![event(Some("1"), "message", "a\nb"), event(Some("1"), "message", "c")];
            assert_eq!(parse(&[stream.as_bytes()]), expected, "{end:?}");
        }
    }

    #[test]
    fn an_id_without_data_still_counts_and_an_empty_data_line_is_an_event() {
        assert_eq!(
            parse(&[b"id: 7\n\ndata\n\n: ping\n\n"]),
            [SseItem::Id("7".to_owned()), event(Some("7"), "message", "")]
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(parse(&[b"data: \xff\n\n"]), [event(None, "message", "\u{fffd}")]);
    }

    #[test]
    fn a_retry_before_the_end_needs_no_blank_line() {
        assert_eq!(parse(&[b"retry: 700\n"]), [SseItem::Retry(Duration::from_millis(700))]);
    }
}
