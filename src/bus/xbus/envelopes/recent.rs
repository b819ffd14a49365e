//! Envelopes that this node has stored a moment ago: mostly their jobs are brought at once, and need no read then.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rollbook_cluster::lock::lock;
use rollbook_core::xbus::envelope::part::Fragment;
use rollbook_core::xbus::id::Id;

/// Most bytes of all envelopes that are kept.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest envelope that is kept, in bytes of its payload.
const ENVELOPE_BYTES_MAX: usize = 64 * 1024;
/// About the bytes of an envelope beside its payload.
const OVERHEAD: usize = 256;

#[derive(Debug, Default)]
struct Table {
    payloads: HashMap<Id, Bytes>,
    /// The oldest first.
    order: VecDeque<Id>,
    bytes: usize,
}

/// Envelopes of one fragment each. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    table: Arc<Mutex<Table>>,
}

impl Recent {
    /// Keeps the payload of an envelope that is complete with this one fragment. The oldest ones make room.
    pub fn keep(&self, envelope: Id, payload: &[u8]) {
        if payload.len() > ENVELOPE_BYTES_MAX {
            return;
        }
        let mut table = lock(&self.table);
        if table.payloads.insert(envelope, Bytes::copy_from_slice(payload)).is_some() {
            // The same fragment once more: what is complete does not change.
            return;
        }
        table.order.push_back(envelope);
        table.bytes = table.bytes.saturating_add(payload.len()).saturating_add(OVERHEAD);
        while table.bytes > BYTES_MAX
            && let Some(oldest) = table.order.pop_front()
        {
            let freed = table.payloads.remove(&oldest).map_or(0, |payload| payload.len().saturating_add(OVERHEAD));
            table.bytes = table.bytes.saturating_sub(freed);
        }
    }

    /// The payload of an envelope of one fragment, if it is kept.
    #[must_use]
    pub fn get(&self, envelope: Id) -> Option<Bytes> {
        lock(&self.table).payloads.get(&envelope).cloned()
    }
}

/// Whether an envelope that is accepted with this fragment has no other one: the fragment names all events, and has all
/// items of each.
#[must_use]
pub fn is_whole(fragment: &Fragment) -> bool {
    let events = &fragment.event_ids;
    !events.is_empty()
        && events.len() == fragment.parts.len()
        && fragment.parts.iter().all(|part| {
            let first = part.index.is_none_or(|index| index <= 1);
            first && part.item_count == part.items && events.contains(&part.event)
        })
}

#[cfg(test)]
mod tests {
    use rollbook_core::xbus::envelope::part::Part;

    use super::*;

    fn id(number: u8) -> Id {
        Id::new([number; 16])
    }

    fn part(event: u8, index: u64, items: u64, item_count: u64) -> Part {
        Part { event: id(event).to_vec(), index: Some(index), items, item_count, ..Part::default() }
    }

    #[test]
    fn a_fragment_with_all_items_of_all_events_is_the_whole_envelope() {
        let fragment = |events: &[u8], parts: Vec<Part>| Fragment {
            event_ids: events.iter().map(|event| id(*event).to_vec()).collect(),
            parts,
            last: false,
        };
        assert!(is_whole(&fragment(&[1], vec![part(1, 1, 3, 3)])));
        assert!(is_whole(&fragment(&[1, 2], vec![part(2, 0, 0, 0), part(1, 1, 1, 1)])));
        assert!(!is_whole(&fragment(&[], vec![part(1, 1, 3, 3)])), "more events may come");
        assert!(!is_whole(&fragment(&[1, 2], vec![part(1, 1, 3, 3)])), "an event is not here");
        assert!(!is_whole(&fragment(&[1], vec![part(1, 1, 2, 3)])), "an item is not here");
        assert!(!is_whole(&fragment(&[1], vec![part(1, 2, 1, 1)])), "a later part");
        assert!(!is_whole(&fragment(&[1], vec![part(2, 1, 1, 1)])));
    }

    #[test]
    fn the_oldest_envelopes_make_room() {
        let recent = Recent::default();
        recent.keep(id(0), &vec![0; ENVELOPE_BYTES_MAX + 1]);
        assert_eq!(recent.get(id(0)), None, "too large");
        let many = BYTES_MAX / ENVELOPE_BYTES_MAX + 8;
        let number = |n: usize| Id::new(std::array::from_fn(|at| n.to_be_bytes().get(at).copied().unwrap_or(7)));
        for n in 0..many {
            recent.keep(number(n), &vec![1; ENVELOPE_BYTES_MAX]);
            recent.keep(number(n), &vec![1; ENVELOPE_BYTES_MAX]);
        }
        assert_eq!(recent.get(number(0)), None);
        assert_eq!(recent.get(number(many - 1)).map(|payload| payload.len()), Some(ENVELOPE_BYTES_MAX));
        let table = lock(&recent.table);
        assert!(table.bytes <= BYTES_MAX && table.order.len() == table.payloads.len());
    }
}
