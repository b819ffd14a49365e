//! Dedupe keys and chosen ids of a publish, from feature level `BOUNDED` on.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;

use super::decode::{decode_all, is_own_id};
use super::keys::Now;
use super::{ids, keys};
use crate::entry::{FLAG_RESTORE, Publish};
use crate::error::{Refusal, Repeated};
use crate::level::FeatureLevel;
use crate::machine::Machine;
use crate::namespace::Head;
use crate::rows::{Family, Rows, RowsError, Writes};

impl Machine {
    /// The time for dedupe keys; none at the first level.
    pub(in crate::machine) fn keyed_now(&self) -> Option<Now> {
        let bounded = self.level >= FeatureLevel::BOUNDED;
        bounded.then(|| Now { millis: self.millis, old_keys_until: self.old_keys_until() })
    }
}

/// Decides whether all events of a frame may be appended, and if so records their keys and ids.
///
/// Check and record are one step, so a publish that is refused never burns a key.
pub(in crate::machine) fn admit(
    head: &mut Head,
    now: Now,
    entry_first: u64,
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
                    keys::Known::Taken(repeated) => return Ok(Err(Refusal::KeyProcessed(at(repeated)))),
                    keys::Known::Free { expired } => key = Some((row, expired)),
                }
            }
        }
        if !event.id.is_empty() && !is_own_id(event, sequence) {
            let row = ids::row_key(head.id, event.id);
            if !seen.insert((Family::Ids, row.clone())) {
                return Ok(Err(Refusal::EventIdExists(at(Repeated::default()))));
            }
            match ids::find(head, entry_first, event.id, &row, rows, writes)? {
                ids::Known::Taken(repeated) => return Ok(Err(Refusal::EventIdExists(at(repeated)))),
                ids::Known::Free { trimmed } => id = Some((row, trimmed)),
            }
        }
        accepted.push((sequence, event, key, id));
    }
    for (sequence, event, key, id) in accepted {
        if let Some((row, trimmed)) = id {
            ids::remember(head, event, sequence, (row, trimmed), writes);
        }
        if let Some((row, expired)) = key {
            // The same key may have come before in the same frame.
            let expired = if restores { keys::ordinal(&row, rows, writes)? } else { expired };
            keys::remember(head, now.millis, event, sequence, (row, expired), rows, writes)?;
        }
    }
    Ok(Ok(()))
}
