//! Envelopes as clients send them become what the rules need to know of them.

use rollbook_core::xbus::envelope::part::{EventView, Fragment, Part};
use rollbook_core::xbus::id::Id;

use super::json::body::{JsonEnvelope, JsonEvent};
use super::proto::envelope::{Envelope, Event};
use super::proto::ids::{IdFault, optional};

/// The measure of a fragment in protobuf. A missing id of an event is left to the server; an index is always there.
///
/// # Errors
/// An id has not 16 bytes.
pub fn of_message(envelope: &Envelope) -> Result<Fragment, IdFault> {
    let part = |event: &Event| {
        let id = optional(&event.id, "id of an event")?;
        let items = event.items.iter().map(Vec::as_slice);
        let (index, item_count, checksum) = (Some(event.index), event.item_count, event.checksum);
        Ok(Part::measure(EventView { id, event_type: &event.event_type, index, item_count, checksum, items }))
    };
    for id in &envelope.event_ids {
        optional(id, "eventIDs")?.ok_or(IdFault::Missing("eventIDs"))?;
    }
    let parts = envelope.events.iter().map(part).collect::<Result<_, IdFault>>()?;
    Ok(Fragment { event_ids: envelope.event_ids.clone(), parts, last: envelope.last })
}

/// The measure of a fragment in JSON.
#[must_use]
pub fn of_json(envelope: &JsonEnvelope) -> Fragment {
    let part = |event: &JsonEvent| {
        let items = event.items.iter().map(Vec::as_slice);
        let (id, index, item_count, checksum) = (event.id, event.index, event.count, event.checksum);
        Part::measure(EventView { id, event_type: &event.event_type, index, item_count, checksum, items })
    };
    let event_ids = envelope.event_ids.iter().copied().map(Id::to_vec).collect();
    Fragment { event_ids, parts: envelope.events.iter().map(part).collect(), last: envelope.last }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;
    use rollbook_core::xbus::envelope::assembly::Ack;
    use rollbook_core::xbus::envelope::row::{EnvelopeRow, EnvelopeStatus, EventRow};

    use super::super::json::body::OutputBody;
    use super::super::proto::ids::required;
    use super::*;

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
            let fragments: Vec<Fragment> = messages.iter().map(|message| of_message(message).expect("ids")).collect();
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
