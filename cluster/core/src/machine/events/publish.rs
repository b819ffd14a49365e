//! Applies a publish frame: checks its keys and ids, gives sequence numbers, and extends the index row.

use super::first;
use super::keyed::{self, Place};
use crate::command::{Done, Reply};
use crate::entry::{FLAG_CREATE, FLAG_INTERNAL, FLAG_KEYED, Publish};
use crate::error::Refusal;
use crate::machine::effects::{Appends, NamespaceAppend};
use crate::machine::{FramePosition, Machine, save_head, tidy};
use crate::namespace::Head;
use crate::rows::{IndexRow, Rows, RowsError, Writes};

impl Machine {
    /// Applies a publish: appends all of its events, or none. The events get consecutive sequence numbers.
    pub(in crate::machine) fn publish(
        &mut self,
        position: FramePosition,
        publish: &Publish<'_>,
        rows: &impl Rows,
        writes: &mut Writes,
        appends: &mut Appends,
    ) -> Result<Reply, RowsError> {
        if let Some(due) = self.due_at(publish) {
            return self.delay(position, publish, due, rows, writes, appends);
        }
        let (millis, now) = (self.millis, self.key_clock());
        let head = match self.publish_head(publish, writes) {
            Ok(head) => head,
            Err(refusal) => {
                if now.is_some() {
                    self.record_skipped(publish, position, appends);
                }
                return Ok(Err(refusal));
            }
        };
        let due = tidy::due(head);
        // Events that this entry appended before are not in the rows yet.
        let entry_first = appends.get(&head.id).map_or(head.next, |append| append.entry_first);
        let verdict = match (publish.flags & FLAG_KEYED, now) {
            (0, _) => Ok(()),
            (_, None) => first::admit(head, entry_first, publish, rows, writes)?,
            (_, Some(now)) => keyed::admit(head, now, (Place::Appended, entry_first), publish, rows, writes)?,
        };
        if let Err(refusal) = verdict {
            if let Some(append) = appends.get_mut(&head.id) {
                append.row.refused.push(position.ordinal);
            }
            return Ok(Err(refusal));
        }
        let bytes = u64::try_from(publish.records.len()).unwrap_or(u64::MAX);
        let begin = IndexRow { entry: position.entry, first_frame: position.ordinal, millis, ..IndexRow::default() };
        let row = NamespaceAppend::row_of(appends, head, false, begin, writes);
        let first = head.next;
        row.events = row.events.saturating_add(u64::from(publish.events));
        row.bytes = row.bytes.saturating_add(bytes);
        head.next = head.next.saturating_add(u64::from(publish.events));
        head.bytes_end = head.bytes_end.saturating_add(bytes);
        save_head(head, writes);
        if tidy::due(head) != due {
            self.reschedule_tidy(publish.namespace, due);
        }
        Ok(Ok(Done::Published { first, events: publish.events }))
    }

    /// Notes in the index row that a later frame of the same namespace is refused, or waits: readers of the entry must
    /// skip its events.
    pub(in crate::machine) fn record_skipped(
        &self,
        publish: &Publish<'_>,
        position: FramePosition,
        appends: &mut Appends,
    ) {
        if let Some(head) = self.heads.get(publish.namespace)
            && let Some(append) = appends.get_mut(&head.id)
            && !append.row.made
        {
            append.row.refused.push(position.ordinal);
        }
    }

    /// The namespace of a publish, created if the publish allows that.
    pub(in crate::machine) fn publish_head(
        &mut self,
        publish: &Publish<'_>,
        writes: &mut Writes,
    ) -> Result<&mut Head, Refusal> {
        let internal = publish.flags & FLAG_INTERNAL != 0;
        // Only the rules append to the roll and to the audit: see `append_made_event`.
        if self.is_rules_own(publish.namespace) || (self.is_reserved(publish.namespace) && !internal) {
            return Err(Refusal::NamespaceReserved(publish.namespace.into()));
        }
        if self.head(publish.namespace).is_none() {
            if publish.flags & FLAG_CREATE == 0 {
                return Err(Refusal::NamespaceNotFound(publish.namespace.into()));
            }
            return self.create_namespace(publish.namespace, crate::namespace::Retention::default(), internal, writes);
        }
        self.head_mut(publish.namespace)
    }
}
