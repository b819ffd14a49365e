//! Envelopes as clients send them become what the rules need to know of them.

use rollbook_core::xbus::envelope::part::{EventView, Fragment, Part};
use rollbook_core::xbus::id::Id;

use crate::bus::xbus::envelopes::json::body::{JsonEnvelope, JsonEvent};

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
