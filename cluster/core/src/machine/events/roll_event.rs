//! Events that the rules make: each event of the roll and of the audit is appended by the same entry as the change that
//! it announces.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use serde::Serialize;

use crate::event::Event;
use crate::machine::effects::{Effects, append_made};
use crate::machine::{Machine, save_head};
use crate::namespace::Retention;
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
        append_made(head, millis, record, effects);
        save_head(head, effects.writes);
    }

    /// The time of the log as RFC 3339 text.
    pub(in crate::machine) fn time_text(&self) -> String {
        Timestamp::from_millis(self.millis).to_string()
    }
}
