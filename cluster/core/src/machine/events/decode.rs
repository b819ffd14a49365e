//! The events of a frame that must be looked at one by one.

use alloc::string::ToString as _;
use alloc::vec::Vec;

use crate::entry::Publish;
use crate::event::{Event, EventId};

/// The events of a frame, `None` when one is damaged.
pub(in crate::machine) fn decode_all<'a>(publish: &Publish<'a>) -> Option<Vec<Event<'a>>> {
    let mut events = Vec::with_capacity(usize::try_from(publish.events).ok()?.min(publish.records.len()));
    let mut rest = publish.records;
    for _ in 0..publish.events {
        let (event, used) = Event::decode(rest)?;
        events.push(event);
        rest = rest.get(used..)?;
    }
    rest.is_empty().then_some(events)
}

/// The chosen id is the one the event would get anyway, as in a restore of a whole namespace.
pub(in crate::machine) fn is_own_id(event: &Event<'_>, sequence: u64) -> bool {
    EventId::new(event.created_at, sequence).to_string() == event.id
}
