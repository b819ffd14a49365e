//! Schedules are set and deleted.

use alloc::format;
use alloc::string::ToString as _;

use crate::command::{Done, Reply};
use crate::error::{Refusal, check_revision};
use crate::machine::Machine;
use crate::rows::Writes;
use crate::schedule::change::ScheduleSet;
use crate::schedule::definition::is_schedule_name;
use crate::schedule::limits::{DEFINITIONS_BYTES_MAX, NAME_BYTES_MAX, SCHEDULES_MAX};
use crate::schedule::row::ScheduleRow;
use crate::subjects::subject::namespace_of;

impl Machine {
    /// Adds a schedule, or replaces its definition. What it has counted, and the tick that it waits for unless its ticks
    /// change, stay.
    pub(super) fn schedule_set(&mut self, set: ScheduleSet, if_revision: Option<u64>, writes: &mut Writes) -> Reply {
        let present = self.schedules.get(&set.name).map(|row| ScheduleRow::clone(row));
        check_revision(if_revision, present.as_ref().map_or(0, |row| row.revision))?;
        self.check_schedule(&set, present.as_ref())?;
        let ScheduleSet { name, definition, next } = set;
        let millis = self.millis;
        let mut row = present.unwrap_or_else(|| ScheduleRow {
            name,
            created: millis,
            definition: definition.clone(),
            next,
            ..ScheduleRow::default()
        });
        if !row.definition.has_ticks_of(&definition) {
            row.next = next;
        }
        if row.definition.paused && !definition.paused {
            row.resumed = millis;
        }
        row.definition = definition;
        row.changed = millis;
        row.revision = self.schedules.next_revision(writes);
        self.schedules.save(row, writes);
        Ok(Done::Nothing)
    }

    fn check_schedule(&self, set: &ScheduleSet, present: Option<&ScheduleRow>) -> Result<(), Refusal> {
        if !is_schedule_name(&set.name) {
            let text = format!("schedule: a name has 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.'");
            return Err(Refusal::Malformed(text));
        }
        set.definition.check().map_err(|text| Refusal::Malformed(format!("schedule: {text}")))?;
        if set.next == 0 {
            return Err(Refusal::Malformed("schedule: no tick".to_string()));
        }
        let namespace = namespace_of(&set.definition.subject);
        if self.is_reserved(namespace) {
            return Err(Refusal::NamespaceReserved(namespace.into()));
        }
        if present.is_none() && self.schedules.rows.size() >= SCHEDULES_MAX {
            return Err(Refusal::Overloaded(format!("at most {SCHEDULES_MAX} schedules")));
        }
        let others = self.schedules.definition_bytes.saturating_sub(present.map_or(0, |row| row.definition.bytes()));
        if others.saturating_add(set.definition.bytes()) > DEFINITIONS_BYTES_MAX {
            return Err(Refusal::Overloaded(format!("all schedules have at most {DEFINITIONS_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    /// Deletes a schedule. What it has published stays.
    pub(super) fn schedule_delete(&mut self, name: &str, if_revision: Option<u64>, writes: &mut Writes) -> Reply {
        let present = self.schedules.get(name).map(|row| row.revision);
        check_revision(if_revision, present.unwrap_or_default())?;
        if present.is_none() {
            return Err(Refusal::ScheduleNotFound(name.into()));
        }
        self.schedules.delete(name, writes);
        Ok(Done::Nothing)
    }
}
