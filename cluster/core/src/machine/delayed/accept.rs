//! Makes the events of a publish wait.

use alloc::format;

use super::keys;
use crate::command::{Done, Reply};
use crate::entry::{FLAG_INTERNAL, FLAG_KEYED, FLAG_RESTORE, Publish, Wait};
use crate::error::Refusal;
use crate::event::Event;
use crate::level::FeatureLevel;
use crate::limits::{DELAY_MS_MAX, DELAYED_BYTES_MAX, DELAYED_EVENTS_MAX};
use crate::machine::effects::Appends;
use crate::machine::events::decode::decode_all;
use crate::machine::events::keyed::{self, Place};
use crate::machine::{FramePosition, Machine, save_head, tidy};
use crate::rows::{Rows, RowsError, Writes};
use crate::timed::delayed::{DelayedDone, DelayedId};

impl Machine {
    /// When the events of a publish are due, milliseconds since 1970; `None` for events that are appended at once,
    /// because they need not wait, or because their time has come.
    pub(in crate::machine) fn due_at(&self, publish: &Publish<'_>) -> Option<u64> {
        let due = match publish.wait? {
            Wait::Until(at) => at,
            Wait::For(millis) => self.millis.saturating_add(millis),
        };
        (due > self.millis).then_some(due)
    }

    /// Makes all events of a publish wait, or none. Keys and chosen ids are checked as if the events were appended now.
    pub(in crate::machine) fn delay(
        &mut self,
        position: FramePosition,
        publish: &Publish<'_>,
        due: u64,
        rows: &impl Rows,
        writes: &mut Writes,
        appends: &mut Appends,
    ) -> Result<Reply, RowsError> {
        // The entry holds the records, but readers of the entry must not count them.
        self.record_skipped(publish, position, appends);
        let Some(events) = decode_all(publish).filter(|events| !events.is_empty()) else {
            return Ok(Err(Refusal::Malformed("damaged record".into())));
        };
        let bytes = u64::try_from(publish.records.len()).unwrap_or(u64::MAX);
        if let Err(refusal) = self.check_delay(publish, due, bytes) {
            return Ok(Err(refusal));
        }
        let Some(now) = self.key_clock() else {
            return Ok(Err(Refusal::Unavailable("events cannot wait at this feature level".into())));
        };
        let head = match self.publish_head(publish, writes) {
            Ok(head) => head,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (before, tidy_due) = (head.clone(), tidy::due(head));
        let first = head.delayed.unwrap_or_default().last.saturating_add(1);
        if publish.flags & FLAG_KEYED != 0 {
            let entry_first = appends.get(&head.id).map_or(head.next, |append| append.entry_first);
            let place = Place::Waiting(DelayedId { namespace: head.id, due, number: first });
            if let Err(refusal) = keyed::admit(head, now, (place, entry_first), publish, rows, writes)? {
                return Ok(Err(refusal));
            }
        }
        let mut rest = publish.records;
        for (number, _) in (first..).zip(&events) {
            let used = Event::skip(rest).ok_or_else(|| RowsError::corrupt("delayed"))?;
            let (record, after) = rest.split_at_checked(used).unwrap_or((rest, &[]));
            writes.put(keys::FAMILY, keys::key(DelayedId { namespace: head.id, due, number }), record.into());
            rest = after;
        }
        let of = head.delayed.get_or_insert_default();
        if of.due().is_none_or(|present| due < present) {
            (of.first_due, of.first_number) = (due, first);
        }
        of.last = of.last.saturating_add(publish.events.into());
        of.events = of.events.saturating_add(publish.events.into());
        of.bytes = of.bytes.saturating_add(bytes);
        let after = save_head(head, writes);
        self.delayed.changed(&before, &after);
        let done = DelayedDone { namespace: after.id, due, first, events: publish.events };
        self.reschedule_tidy(publish.namespace, tidy_due);
        Ok(Ok(Done::Delayed(done)))
    }

    /// Checks that so many more bytes may wait until `due`.
    fn check_delay(&self, publish: &Publish<'_>, due: u64, bytes: u64) -> Result<(), Refusal> {
        self.level.check(FeatureLevel::TIMED)?;
        if publish.flags & (FLAG_INTERNAL | FLAG_RESTORE) != 0 {
            return Err(Refusal::Malformed("events of the bus, and copies of stored events, do not wait".into()));
        }
        if due.saturating_sub(self.millis) > DELAY_MS_MAX {
            let days = DELAY_MS_MAX / 86_400_000;
            return Err(Refusal::Malformed(format!("an event waits for {days} days at most")));
        }
        if self.delayed.events.saturating_add(publish.events.into()) > DELAYED_EVENTS_MAX {
            return Err(Refusal::Overloaded(format!("{DELAYED_EVENTS_MAX} events of the cluster wait at most")));
        }
        if self.delayed.bytes.saturating_add(bytes) > DELAYED_BYTES_MAX {
            return Err(Refusal::Overloaded(format!(
                "{DELAYED_BYTES_MAX} bytes of events of the cluster wait at most"
            )));
        }
        Ok(())
    }
}
