//! Checks and stores the dedupe keys and chosen ids of a publish, from feature level `BOUNDED` on.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;

use super::decode::{decode_all, is_own_id};
use super::keys::KeyClock;
use super::{ids, keys};
use crate::entry::{FLAG_RESTORE, Publish};
use crate::error::{Refusal, Repeated};
use crate::level::FeatureLevel;
use crate::machine::Machine;
use crate::namespace::Head;
use crate::rows::{Family, Rows, RowsError, Writes};
use crate::timed::delayed::DelayedId;

impl Machine {
    /// The time by which dedupe keys expire; none at the first level.
    pub(in crate::machine) fn key_clock(&self) -> Option<KeyClock> {
        let bounded = self.level >= FeatureLevel::BOUNDED;
        bounded.then(|| KeyClock { millis: self.millis, old_keys_until: self.old_keys_until() })
    }
}

/// What becomes of the events of a publish.
#[derive(Debug, Clone, Copy)]
pub(in crate::machine) enum Place {
    /// They are appended, and get the next sequence numbers.
    Appended,
    /// They wait for their time, the first of them under this id.
    Waiting(DelayedId),
}

impl Place {
    /// The id under which the event at a position of the publish waits.
    fn waiting(self, position: u32) -> Option<DelayedId> {
        if let Self::Waiting(first) = self { Some(first.behind(position.into())) } else { None }
    }
}

/// Decides whether all events of a frame may be appended, or may wait, and if so stores their keys and ids.
/// `entry_first` is the sequence number of the first event of the namespace in the entry.
///
/// The rows are written after the last check, so a refused publish never uses up a key.
pub(in crate::machine) fn admit(
    head: &mut Head,
    now: KeyClock,
    (place, entry_first): (Place, u64),
    publish: &Publish<'_>,
    rows: &impl Rows,
    writes: &mut Writes,
) -> Result<Result<(), Refusal>, RowsError> {
    let Some(events) = decode_all(publish) else {
        return Ok(Err(Refusal::Malformed("damaged record".into())));
    };
    let restores = publish.flags & FLAG_RESTORE != 0;
    let mut seen = BTreeSet::new();
    let mut accepted = alloc::vec::Vec::with_capacity(events.len());
    for ((position, sequence), event) in (0_u32..).zip(head.next..).zip(&events) {
        let at = |repeated: Repeated| Some(Box::new(Repeated { position, ..repeated }));
        let (mut key, mut id) = (None, None);
        if !event.key.is_empty() {
            let row = keys::row_key(head.id, event);
            if restores {
                key = Some((row, None));
            } else if !seen.insert((Family::Keys, row.clone())) {
                return Ok(Err(Refusal::KeyProcessed(at(Repeated::default()))));
            } else {
                match keys::find(head, now, &row, rows, writes)? {
                    keys::KeyLookup::Taken(repeated) => return Ok(Err(Refusal::KeyProcessed(at(repeated)))),
                    keys::KeyLookup::Free { expired } => key = Some((row, expired)),
                }
            }
        }
        // Nobody knows yet which sequence number a waiting event will get.
        let is_own = matches!(place, Place::Appended) && is_own_id(event, sequence);
        if !event.id.is_empty() && !is_own {
            let row = ids::row_key(head.id, event.id);
            if !seen.insert((Family::Ids, row.clone())) {
                return Ok(Err(Refusal::EventIdExists(at(Repeated::default()))));
            }
            match ids::find(head, entry_first, event.id, &row, rows, writes)? {
                ids::IdLookup::Taken(repeated) => return Ok(Err(Refusal::EventIdExists(at(repeated)))),
                ids::IdLookup::Free { trimmed } => id = Some((row, trimmed)),
            }
        }
        accepted.push((place.waiting(position), sequence, event, key, id));
    }
    for (waiting, sequence, event, key, id) in accepted {
        if let Some(row) = id {
            match waiting {
                None => ids::insert(head, event, sequence, row, writes),
                Some(waiting) => ids::insert_waiting(head, event, waiting, row, writes),
            }
        }
        if let Some((row, expired)) = key {
            // A restore may contain a key twice, so the row of the first one is among the writes.
            let expired = if restores { keys::ordinal(&row, rows, writes)? } else { expired };
            let row = (row, expired);
            match waiting {
                None => keys::insert(head, now.millis, event, sequence, row, rows, writes)?,
                Some(waiting) => keys::insert_waiting(head, now.millis, event, waiting, row, rows, writes)?,
            }
        }
    }
    Ok(Ok(()))
}
