//! The encoding of a stream for a connection that carries other things as well: length-prefixed pieces in an outlet,
//! which the door unpacks and puts into frames of its own.

use bytes::{Buf as _, Bytes};
use rollbook_core::event::Event;

use super::encoder::{EVENT_SLOTS, End, EventEncoder};
use super::event_json;
use super::redelivery::Redelivery;
use crate::base::slot::Slot;

/// A part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// An event, as JSON.
    Event(Bytes),
    /// Why the stream ends, and an explanation for people.
    End(End, Bytes),
}

/// The kind byte of an event. The kind byte of an end is its index in [`End::ALL`].
const EVENT: u8 = b'e';
/// Bytes of kind and length.
const HEADER: usize = 5;

/// The encoder of pieces.
#[derive(Debug)]
pub struct Pieces;

/// The only instance.
pub static PIECES: Pieces = Pieces;

/// Appends a piece.
fn write(kind: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let start = out.len();
    out.extend_from_slice(&[0; HEADER - 1]);
    body(out);
    let length = out.len().saturating_sub(start).saturating_sub(HEADER - 1);
    // An event is far smaller than four GiB.
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = out.get_mut(start..start.saturating_add(HEADER - 1)) {
        place.copy_from_slice(&length);
    }
}

impl Pieces {
    /// Appends an end.
    fn ends(end: End, text: &str, out: &mut Vec<u8>) {
        let kind = End::ALL.iter().position(|one| *one == end).and_then(|place| u8::try_from(place).ok());
        write(kind.unwrap_or(u8::MAX), out, |out| out.extend_from_slice(text.as_bytes()));
    }
}

/// The slot of encoded pieces beside an event.
static SLOT: Slot = Slot::of(&EVENT_SLOTS);

impl EventEncoder for Pieces {
    fn slot(&self) -> usize {
        SLOT.number()
    }

    fn event(&self, index: i64, event: &Event<'_>, again: Option<&Redelivery>, out: &mut Vec<u8>) {
        write(EVENT, out, |out| event_json::write_delivery(index, event, again, out));
    }

    fn keep_alive(&self, _: &mut Vec<u8>) {}

    fn failure(&self, text: &str, out: &mut Vec<u8>) {
        Self::ends(End::Failed, text, out);
    }

    fn not_found(&self, text: &str, out: &mut Vec<u8>) {
        Self::ends(End::NotFound, text, out);
    }

    fn end(&self, end: End, out: &mut Vec<u8>) {
        Self::ends(end, end.text(), out);
    }

    fn end_with_retry(&self, _: u64, out: &mut Vec<u8>) {
        Self::ends(End::NodeStopping, End::NodeStopping.text(), out);
    }
}

/// The pieces of a chunk.
pub fn split(mut chunk: Bytes) -> impl Iterator<Item = Piece> {
    std::iter::from_fn(move || {
        let header = chunk.first_chunk::<HEADER>()?;
        let (kind, length) = (header[0], u32::from_be_bytes([header[1], header[2], header[3], header[4]]));
        chunk.advance(HEADER);
        let length = usize::try_from(length).ok()?.min(chunk.len());
        let body = chunk.split_to(length);
        Some(match kind {
            EVENT => Piece::Event(body),
            other => Piece::End(End::ALL.get(usize::from(other)).copied().unwrap_or(End::Ended), body),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_read_back_one_by_one() {
        let mut out = Vec::new();
        let event = Event { subject: "app.x", payload: Some(b"{\n\"n\": 1}"), ..Event::default() };
        PIECES.event(7, &event, None, &mut out);
        PIECES.keep_alive(&mut out);
        PIECES.failure("no more", &mut out);
        PIECES.not_found("no such event", &mut out);
        PIECES.end_with_retry(500, &mut out);
        PIECES.end(End::TakenOver, &mut out);
        let mut json = Vec::new();
        event_json::write(7, &event, &mut json);
        let end = |end: End, text: &'static str| Piece::End(end, Bytes::from_static(text.as_bytes()));
        let wanted = [
            Piece::Event(json.into()),
            end(End::Failed, "no more"),
            end(End::NotFound, "no such event"),
            end(End::NodeStopping, "node stopping"),
            end(End::TakenOver, "another connection is this consumer now"),
        ];
        assert_eq!(split(Bytes::from(out)).collect::<Vec<_>>(), wanted);
        assert_eq!(split(Bytes::from_static(&[EVENT, 0, 0])).count(), 0, "a cut chunk has no pieces");
    }
}
