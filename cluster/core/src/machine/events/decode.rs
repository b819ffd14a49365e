//! Decodes the events of a frame whose keys and ids must be checked one by one.

use alloc::string::ToString as _;
use alloc::vec::Vec;

use crate::entry::Publish;
use crate::event::{Event, EventId};

/// All events of a frame; `None` when a record is damaged or bytes are left.
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

/// Whether the chosen id equals the id that the event would get without one, as in a restore of a whole namespace. Such
/// an id needs no rows.
pub(in crate::machine) fn is_own_id(event: &Event<'_>, sequence: u64) -> bool {
    EventId::new(event.created_at, sequence).to_string() == event.id
}
