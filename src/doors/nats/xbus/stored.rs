//! Envelopes as the book has them: the JSON of the specification page, so that people can read what they watch.
//!
//! Fragments of both dialects are one type here, [`JsonEnvelope`].

use rollbook_core::xbus::envelope::part::checksum;
use rollbook_core::xbus::id::Id;
use serde::Serialize;

use super::json::answer::EventOut;
use super::json::body::{BodyError, JsonEnvelope, JsonEvent, OutputBody};
use super::proto::envelope::{Envelope, EnvelopePosition, Event, EventPosition};
use super::proto::ids::{IdFault, optional, required};
use crate::bus::security::credentials::token::sha256;

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

/// The id of the event of the book with this payload: the same fragment has the same id.
#[must_use]
pub fn event_id(payload: &[u8]) -> String {
    let digest = sha256(payload);
    digest.iter().take(16).fold("x-".to_owned(), |id, byte| format!("{id}{byte:02x}"))
}

/// A fragment of protobuf.
///
/// # Errors
/// An id has not 16 bytes.
pub fn of_message(message: Envelope) -> Result<JsonEnvelope, IdFault> {
    let event = |event: Event| {
        let id = optional(&event.id, "id of an event")?;
        let Event { event_type, index, item_count, checksum, items, .. } = event;
        Ok(JsonEvent { id, event_type, index: Some(index), count: item_count, checksum, items })
    };
    Ok(JsonEnvelope {
        id: optional(&message.id, "id of the envelope")?,
        event_ids: message.event_ids.iter().map(|id| required(id, "eventIDs")).collect::<Result<_, _>>()?,
        events: message.events.into_iter().map(event).collect::<Result<_, _>>()?,
        last: message.last,
    })
}

/// The same in protobuf. `last` is never told: receivers must not depend on it.
#[must_use]
pub fn to_message(id: Id, envelope: JsonEnvelope) -> Envelope {
    let event = |event: JsonEvent| Event {
        id: event.id.map(Id::to_vec).unwrap_or_default(),
        event_type: event.event_type,
        // Older senders count from 0, and receivers from 1.
        index: event.index.unwrap_or(1).max(1),
        item_count: event.count,
        checksum: event.checksum,
        items: event.items,
    };
    Envelope {
        id: id.to_vec(),
        event_ids: envelope.event_ids.into_iter().map(Id::to_vec).collect(),
        events: envelope.events.into_iter().map(event).collect(),
        last: false,
    }
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

/// What is covered of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    envelope: Id,
    events: Vec<EventPosition>,
}

impl Covered {
    /// Nothing yet.
    #[must_use]
    pub const fn nothing(envelope: Id) -> Self {
        Self { envelope, events: Vec::new() }
    }

    /// Takes one more fragment.
    pub fn take(&mut self, fragment: &Envelope) {
        for event in &fragment.events {
            let items = u64::try_from(event.items.len()).unwrap_or(u64::MAX);
            match self.events.iter_mut().find(|known| known.event_id == event.id) {
                Some(known) => {
                    known.index = event.index;
                    known.item_count = known.item_count.saturating_add(items);
                }
                None => self.events.push(EventPosition {
                    event_id: event.id.clone(),
                    index: event.index,
                    item_count: items,
                }),
            }
        }
    }

    /// The position of all that was taken.
    #[must_use]
    pub fn position(&self, complete: bool) -> EnvelopePosition {
        let (envelope_id, start, event_positions) = (self.envelope.to_vec(), false, self.events.clone());
        EnvelopePosition { envelope_id, start, complete, event_positions }
    }

    /// Whether a receiver that is at `position` has all of this.
    #[must_use]
    pub fn is_behind(&self, position: &EnvelopePosition) -> bool {
        !position.start
            && self.events.iter().all(|event| {
                let known = position.event_positions.iter().find(|known| known.event_id == event.event_id);
                known.is_some_and(|known| known.index >= event.index)
            })
    }
}
