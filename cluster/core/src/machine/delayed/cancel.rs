//! Cancels a waiting event.

use super::keys;
use super::release::{count_out, find_first};
use crate::command::{Done, Reply};
use crate::event::Event;
use crate::machine::effects::Effects;
use crate::machine::events::{ids, keys as dedupe};
use crate::machine::{Machine, save_head, tidy};
use crate::rows::{self, Rows, RowsError};
use crate::timed::delayed::{DelayedCancel, DelayedDone, DelayedId};

impl Machine {
    /// Removes a waiting event, and makes its dedupe key and its chosen id free. The reply counts no event when the
    /// event waits no longer, or never did.
    pub(in crate::machine) fn cancel_delayed(
        &mut self,
        cancel: &DelayedCancel,
        rows: &impl Rows,
        effects: &mut Effects<'_>,
    ) -> Result<Reply, RowsError> {
        let &DelayedCancel { namespace, due, number, .. } = cancel;
        let id = DelayedId { namespace, due, number };
        let mut done = DelayedDone { namespace, due, first: number, events: 0 };
        let Some(head) = self.heads.get_mut(&cancel.name).filter(|head| !head.deleted && head.id == namespace) else {
            return Ok(Ok(Done::Delayed(done)));
        };
        let key = keys::key(id);
        let Some(record) = effects.writes.get(rows, keys::FAMILY, &key)? else {
            return Ok(Ok(Done::Delayed(done)));
        };
        let (before, tidy_due) = (head.clone(), tidy::due(head));
        let (event, _) = Event::decode(&record).ok_or_else(|| RowsError::corrupt("delayed"))?;
        if !event.id.is_empty() {
            effects.writes.delete(keys::FAMILY, ids::row_key(namespace, event.id));
        }
        if !event.key.is_empty() {
            dedupe::cancelled(head, &event, id, rows, effects.writes)?;
        }
        count_out(head, record.len());
        let of = head.delayed.unwrap_or_default();
        let is_first = (of.first_due, of.first_number) == (due, number);
        let next = rows::successor(&key);
        effects.writes.delete(keys::FAMILY, key);
        if is_first {
            find_first(head, &next, rows, effects)?;
        }
        save_head(head, effects.writes);
        self.delayed.changed(&before, head);
        self.reschedule_tidy(&cancel.name, tidy_due);
        done.events = 1;
        Ok(Ok(Done::Delayed(done)))
    }
}
