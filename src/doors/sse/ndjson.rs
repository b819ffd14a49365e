//! Writes a stream as JSON lines: an event in each line, without the frames of Server-Sent Events.

use actix_web::http::header::{self, HeaderMap, HeaderValue};
use rollbook_core::event::Event;

use crate::base::slot::Slot;
use crate::bus::read::encoder::{EVENT_SLOTS, End, EventEncoder};
use crate::bus::read::event_json;
use crate::bus::read::redelivery::Redelivery;

/// The media type.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// Encodes streams of lines.
#[derive(Debug)]
pub(super) struct Lines;

/// The only value of [`Lines`].
pub(super) static LINES: Lines = Lines;

/// The slot of the encoded lines.
static SLOT: Slot = Slot::of(&EVENT_SLOTS);

/// Whether the client asks for lines.
pub(super) fn is_requested(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(header::ACCEPT).filter_map(|value: &HeaderValue| value.to_str().ok());
    let mut ranges = texts.flat_map(|text| text.split(','));
    ranges.any(|range| range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(NDJSON))
}

/// Appends `{"error":"...","code":"..."}`: the last line of a stream that ends by the bus.
fn last(code: &str, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"error\":");
    event_json::string(text, out);
    out.extend_from_slice(b",\"code\":");
    event_json::string(code, out);
    out.extend_from_slice(b"}\n");
}

impl EventEncoder for Lines {
    fn slot(&self) -> usize {
        SLOT.number()
    }

    fn event(&self, index: i64, event: &Event<'_>, again: Option<&Redelivery>, out: &mut Vec<u8>) {
        let start = out.len();
        event_json::write_delivery(index, event, again, out);
        // Line breaks in JSON stand only between its parts: in texts they are escaped.
        if let Some(line) = out.get_mut(start..) {
            line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        }
        out.push(b'\n');
    }

    /// An empty line, which readers of JSON lines pass by.
    fn keep_alive(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
    }

    fn failure(&self, text: &str, out: &mut Vec<u8>) {
        last(End::Failed.code(), text, out);
    }

    fn not_found(&self, text: &str, out: &mut Vec<u8>) {
        last(End::NotFound.code(), text, out);
    }

    fn end(&self, end: End, out: &mut Vec<u8>) {
        last(end.code(), end.text(), out);
    }

    fn end_with_retry(&self, _: u64, out: &mut Vec<u8>) {
        last(End::NodeStopping.code(), End::NodeStopping.text(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_however_its_payload_was_written() {
        let event = Event { subject: "a.b", id: "x", payload: Some(b"{\r\n \"n\": \"a\\nb\"\n}"), ..Event::default() };
        let mut out = Vec::new();
        LINES.event(3, &event, None, &mut out);
        let text = String::from_utf8(out).unwrap();
        let value: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(
            (text.matches('\n').count(), &value["payload"]["n"], &value["index"]),
            (1, &"a\nb".into(), &3.into())
        );
    }

    #[test]
    fn the_end_of_a_stream_is_a_line_too() {
        let mut out = Vec::new();
        LINES.end(End::TakenOver, &mut out);
        LINES.not_found("no \"x\"", &mut out);
        let lines: Vec<serde_json::Value> =
            String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["code"], &lines[1]["code"]), (&"taken_over".into(), &"not_found".into()));
        assert_eq!(lines[1]["error"], "no \"x\"");
    }
}
