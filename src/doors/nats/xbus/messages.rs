//! Fragments of envelopes in protobuf, from and to the JSON that the book has.

use rollbook_core::xbus::id::Id;

use super::proto::envelope::{Envelope, EnvelopePosition, Event, EventPosition};
use super::proto::ids::{IdFault, optional, required};
use crate::bus::xbus::envelopes::json::body::{JsonEnvelope, JsonEvent};

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;
    use rollbook_core::xbus::envelope::assembly::Ack;
    use rollbook_core::xbus::envelope::part::Fragment;
    use rollbook_core::xbus::envelope::row::{EnvelopeRow, EnvelopeStatus, EventRow};

    use super::*;
    use crate::bus::xbus::envelopes::json::body::OutputBody;
    use crate::bus::xbus::envelopes::measure::of_json;

    /// Envelopes as the published clients cut them.
    const FRAGMENTS: &str = include_str!("../../../../tests/doors/xbus/fragments.hex");

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            hex.chars().map(|c| u8::try_from(c.to_digit(16).expect("a digit")).expect("small")).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    fn receive(id: Id, fragments: &[Fragment]) -> Vec<Ack> {
        let mut row = EnvelopeRow { id: id.to_vec(), ..EnvelopeRow::default() };
        row.set_status(EnvelopeStatus::Receiving);
        let mut known: BTreeMap<Id, EventRow> = BTreeMap::new();
        let acks = fragments.iter().map(|fragment| {
            let received = row.receive(&known, fragment, 1);
            known.extend(received.changed.into_iter().map(|event| (event.id(), event)));
            received.ack
        });
        acks.collect()
    }

    #[test]
    fn envelopes_of_the_published_clients_become_complete_with_their_last_fragment() {
        let mut seen = 0;
        for line in FRAGMENTS.lines().filter(|line| !line.starts_with('#')) {
            let mut parts = line.split('|');
            let name = parts.next().expect("a name");
            let messages: Vec<Envelope> =
                parts.map(|hex| Envelope::decode(&bytes(hex)[..]).expect("an envelope")).collect();
            let id = required(&messages[0].id, "id").expect("an id");
            let fragments: Vec<Fragment> =
                messages.into_iter().map(|message| of_json(&of_message(message).expect("ids"))).collect();
            let acks = receive(id, &fragments);
            let (last, before) = acks.split_last().expect("fragments");
            assert_eq!(*last, Ack::Accepted, "{name}");
            assert!(before.iter().all(|ack| *ack == Ack::Receiving), "{name}: {acks:?}");
            seen += acks.len();
        }
        assert!(seen > 10, "several fragments: {seen}");
    }

    #[test]
    fn an_envelope_in_json_is_the_same_envelope() {
        let body = br#"{"id":"9b3f1466-4e2e-11e7-916e-af2b1e6d242d","event_ids":["53131466-4e2e-11e7-916e-af2b1e6d242d"],
            "events":[{"id":"53131466-4e2e-11e7-916e-af2b1e6d242d","type":"test","index":1,"count":1,"checksum":3098160312,"items":["A message"]}],"last":true}"#;
        let Ok(OutputBody::Send { envelope, .. }) = OutputBody::read(body) else { panic!("an envelope") };
        assert_eq!(receive(envelope.id.expect("an id"), &[of_json(&envelope)]), [Ack::Accepted]);
        // As small as the specification page allows.
        let Ok(OutputBody::Send { envelope, .. }) =
            OutputBody::read(br#"{"events":[{"type":"t","items":["a"]}],"last":true}"#)
        else {
            panic!("an envelope")
        };
        assert_eq!(receive(Id::new([7; 16]), &[of_json(&envelope)]), [Ack::Accepted]);
    }
}
