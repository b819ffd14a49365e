//! Events that the rules make: each event of the roll and of the audit is appended by the same entry as the change that
//! it announces.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use serde::Serialize;

use crate::event::Event;
use crate::machine::effects::{Effects, NamespaceAppend};
use crate::machine::{Machine, save_head};
use crate::namespace::Retention;
use crate::rows::{self, Family, IndexRow};
use crate::subjects::subject::Namespace;
use crate::time::Timestamp;

impl Machine {
    /// Appends the event `roll.<what>` with a JSON payload. The record is stored in a row, since no entry of the log
    /// holds it.
    pub(in crate::machine) fn append_roll_event(
        &mut self,
        what: &str,
        payload: &impl Serialize,
        effects: &mut Effects<'_>,
    ) {
        self.append_made_event(Namespace::ROLL, what, payload, effects);
    }

    /// Appends the event `namespace.<what>` to a namespace of the bus.
    pub(in crate::machine) fn append_made_event(
        &mut self,
        namespace: &str,
        what: &str,
        payload: &impl Serialize,
        effects: &mut Effects<'_>,
    ) {
        let Ok(payload) = serde_json::to_vec(payload) else { return };
        let subject = format!("{namespace}.{what}");
        let millis = self.millis;
        let event = Event {
            subject: &subject,
            created_at: Timestamp::from_millis(millis),
            payload: Some(&payload),
            ..Event::default()
        };
        let mut record = Vec::new();
        if event.encode(&mut record).is_err() {
            return;
        }
        if self.head(namespace).is_none()
            && self.create_namespace(namespace, Retention::default(), true, effects.writes).is_err()
        {
            return;
        }
        let Some(head) = self.heads.get_mut(namespace) else { return };
        let bytes = u64::try_from(record.len()).unwrap_or(u64::MAX);
        let append = effects.appends.entry(head.id).or_insert_with(|| NamespaceAppend {
            first: head.next,
            row: IndexRow {
                entry: effects.entry,
                millis,
                bytes_first: head.bytes_end,
                made: true,
                ..IndexRow::default()
            },
        });
        append.row.events = append.row.events.saturating_add(1);
        append.row.bytes = append.row.bytes.saturating_add(bytes);
        effects.writes.put(Family::Made, rows::index_key(head.id, head.next), record);
        head.next = head.next.saturating_add(1);
        head.bytes_end = head.bytes_end.saturating_add(bytes);
        save_head(head, effects.writes);
    }

    /// The time of the log as RFC 3339 text.
    pub(in crate::machine) fn time_text(&self) -> String {
        Timestamp::from_millis(self.millis).to_string()
    }
}
