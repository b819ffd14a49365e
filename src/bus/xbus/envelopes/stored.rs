//! Envelopes as the book has them: the JSON of the specification page, so that people can read what they watch.
//!
//! Fragments of both dialects are one type here, [`JsonEnvelope`].

use rollbook_core::xbus::envelope::part::checksum;
use rollbook_core::xbus::id::Id;
use serde::Serialize;

use crate::bus::error::Fault;
use crate::bus::security::credentials::token::sha256;
use crate::bus::xbus::envelopes::json::answer::EventOut;
use crate::bus::xbus::envelopes::json::body::{BodyError, JsonEnvelope, OutputBody};

#[derive(Serialize)]
struct EnvelopeOut<'a> {
    id: String,
    event_ids: Vec<String>,
    events: Vec<EventOut<'a>>,
    last: bool,
}

/// The payload for the book.
#[must_use]
pub fn encode(id: Id, envelope: &JsonEnvelope) -> Vec<u8> {
    let out = EnvelopeOut {
        id: id.to_string(),
        event_ids: envelope.event_ids.iter().map(Id::to_string).collect(),
        events: envelope.events.iter().map(EventOut::of).collect(),
        last: envelope.last,
    };
    serde_json::to_vec(&out).unwrap_or_default()
}

/// A fragment of the book.
///
/// # Errors
/// The payload is none.
pub fn decode(payload: &[u8]) -> Result<JsonEnvelope, BodyError> {
    match OutputBody::read(payload)? {
        OutputBody::Send { envelope, .. } => Ok(envelope),
        OutputBody::Close { .. } | OutputBody::Forward { .. } => Err(BodyError::NoContext),
    }
}

/// The same for a fragment that has to be readable.
///
/// # Errors
/// The payload is none: the book has another event in its place.
pub fn fragment(payload: &[u8]) -> Result<JsonEnvelope, Fault> {
    decode(payload).map_err(|error| Fault::internal(format!("a fragment cannot be read: {error}")))
}

/// The id of the event of the book with this payload: the same fragment has the same id.
#[must_use]
pub fn event_id(payload: &[u8]) -> String {
    let digest = sha256(payload);
    digest.iter().take(16).fold("x-".to_owned(), |id, byte| format!("{id}{byte:02x}"))
}

/// Fills in what the sender of an envelope in one fragment left to the server: ids, counts and checksums.
pub fn complete(id: Id, envelope: &mut JsonEnvelope) {
    if !envelope.last {
        return;
    }
    for (position, event) in (0..).zip(&mut envelope.events) {
        let event_id = *event.id.get_or_insert(Id::of_event(id, position));
        // In protobuf an index is always there, and 0 or 1 in the only fragment of an event.
        if event.index.is_none_or(|index| index <= 1) {
            event.index.get_or_insert(1);
            if event.count == 0 {
                event.count = u64::try_from(event.items.len()).unwrap_or(u64::MAX);
            }
            if event.checksum == 0 {
                event.checksum = checksum(event_id, &event.event_type, event.items.iter().map(Vec::as_slice));
            }
        }
    }
    if envelope.event_ids.is_empty() {
        envelope.event_ids = envelope.events.iter().filter_map(|event| event.id).collect();
    }
}
