//! What happened to processes becomes events of the roll. They change no state of docks.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use serde::Serialize;

use crate::dock::done::DockDone;
use crate::dock::event::{DockEvent, DockEventKind};
use crate::dock::limits::EVENTS_MAX;
use crate::error::Refusal;
use crate::machine::Machine;
use crate::machine::effects::Effects;
use crate::time::Timestamp;

/// Payload of `roll.process.*`; the names of the fields are what clients read.
#[derive(Serialize)]
struct ProcessJson<'a> {
    definition: &'a str,
    dock: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    at: String,
}

impl Machine {
    /// Appends the events `roll.process.<what>`: all of them, or none when one breaks a rule.
    pub(super) fn process_events(
        &mut self,
        events: &[DockEvent],
        effects: &mut Effects<'_>,
    ) -> Result<DockDone, Refusal> {
        if !(1..=EVENTS_MAX).contains(&events.len()) {
            return Err(Refusal::Malformed(format!("a change has 1 to {EVENTS_MAX} process events")));
        }
        let check = |event: &DockEvent| event.check().map_err(|error| Refusal::Malformed(error.to_string()));
        let kinds = events.iter().map(check).collect::<Result<Vec<_>, _>>()?;
        for (event, kind) in events.iter().zip(kinds) {
            let what = match kind {
                DockEventKind::Spawned => "process.spawn",
                DockEventKind::Exited => "process.exit",
                DockEventKind::Crashed => "process.crashed",
                // No event of this kind passes the check.
                DockEventKind::Unspecified => continue,
            };
            let payload = ProcessJson {
                definition: &event.definition,
                dock: &event.dock,
                pid: event.pid,
                code: event.code,
                text: event.text.as_deref(),
                at: Timestamp::from_millis(event.at).to_string(),
            };
            self.append_roll_event(what, &payload, effects);
        }
        Ok(DockDone::default())
    }
}
