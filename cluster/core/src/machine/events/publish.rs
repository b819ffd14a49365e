//! Appending events: numbering, dedupe, chosen ids.

use super::{first, keyed};
use crate::command::{Done, Reply};
use crate::entry::{FLAG_CREATE, FLAG_INTERNAL, FLAG_KEYED, Publish};
use crate::error::Refusal;
use crate::machine::effects::{Index, Touched};
use crate::machine::{Machine, Place, saved, tidy};
use crate::namespace::Head;
use crate::rows::{IndexRow, Rows, RowsError, Writes};
use crate::subjects::subject::Namespace;

impl Machine {
    pub(in crate::machine) fn publish(
        &mut self,
        place: Place,
        publish: &Publish<'_>,
        rows: &impl Rows,
        writes: &mut Writes,
        touched: &mut Index,
    ) -> Result<Reply, RowsError> {
        let (millis, now) = (self.millis, self.keyed_now());
        let head = match self.publish_head(publish, writes) {
            Ok(head) => head,
            Err(refusal) => {
                if now.is_some() {
                    self.leave_out(publish, place, touched);
                }
                return Ok(Err(refusal));
            }
        };
        let due = tidy::due(head);
        // What this entry appended before is not in the rows yet.
        let entry_first = touched.get(&head.id).map_or(head.next, |touched| touched.first);
        let verdict = match (publish.flags & FLAG_KEYED, now) {
            (0, _) => Ok(()),
            (_, None) => first::admit(head, entry_first, publish, rows, writes)?,
            (_, Some(now)) => keyed::admit(head, now, entry_first, publish, rows, writes)?,
        };
        if let Err(refusal) = verdict {
            if let Some(touched) = touched.get_mut(&head.id) {
                touched.row.refused.push(place.ordinal);
            }
            return Ok(Err(refusal));
        }
        let bytes = u64::try_from(publish.records.len()).unwrap_or(u64::MAX);
        let touched = touched.entry(head.id).or_insert_with(|| Touched {
            first: head.next,
            row: IndexRow {
                entry: place.entry,
                first_frame: place.ordinal,
                millis,
                bytes_first: head.bytes_end,
                ..IndexRow::default()
            },
        });
        let first = head.next;
        touched.row.events = touched.row.events.saturating_add(u64::from(publish.events));
        touched.row.bytes = touched.row.bytes.saturating_add(bytes);
        head.next = head.next.saturating_add(u64::from(publish.events));
        head.bytes_end = head.bytes_end.saturating_add(bytes);
        saved(head, writes);
        if tidy::due(head) != due {
            self.schedule(publish.namespace, due);
        }
        Ok(Ok(Done::Published { first, events: publish.events }))
    }

    /// A refused frame behind accepted ones of the same namespace: readers of the entry must not take it for events.
    fn leave_out(&self, publish: &Publish<'_>, place: Place, touched: &mut Index) {
        if let Some(head) = self.heads.get(publish.namespace)
            && let Some(touched) = touched.get_mut(&head.id)
            && !touched.row.made
        {
            touched.row.refused.push(place.ordinal);
        }
    }

    fn publish_head(&mut self, publish: &Publish<'_>, writes: &mut Writes) -> Result<&mut Head, Refusal> {
        let internal = publish.flags & FLAG_INTERNAL != 0;
        // Only the rules write the roll: see `tell`.
        if publish.namespace == Namespace::ROLL || (Namespace::is_reserved(publish.namespace) && !internal) {
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
