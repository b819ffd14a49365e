//! Schedules in memory, and their rows.

use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;

use prost::Message as _;

use crate::persistent::{Map, Set};
use crate::rows::{Family, RowsError, Writes};
use crate::schedule::row::ScheduleRow;

/// Beginning of the keys of rows in [`Family::Meta`], before the name.
const SCHEDULE: &[u8] = b"schedule/";
/// Key of the row that holds the number of the last change.
const REVISION: &[u8] = b"schedules";

/// The state of schedules.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Schedules {
    pub(super) rows: Map<String, Arc<ScheduleRow>>,
    /// Schedules that are not paused, by the time when their next event leaves.
    pub(super) due: Set<(u64, String)>,
    /// Bytes of all definitions.
    pub(super) definition_bytes: usize,
    /// Number of the last change of a definition.
    pub(super) revision: u64,
}

fn key(name: &str) -> Vec<u8> {
    [SCHEDULE, name.as_bytes()].concat()
}

impl Schedules {
    /// A schedule.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<ScheduleRow>> {
        self.rows.get(name)
    }

    /// All schedules, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ScheduleRow>> {
        self.rows.values()
    }

    /// How many schedules there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.size()
    }

    /// When the next event of any schedule leaves, milliseconds since 1970.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The schedules whose next event leaves at `now` or before, those that wait for the longest time first.
    pub fn due(&self, now: u64) -> impl Iterator<Item = &Arc<ScheduleRow>> {
        self.due.iter().take_while(move |(at, _)| *at <= now).filter_map(|(_, name)| self.rows.get(name))
    }

    /// Takes a row of [`Family::Meta`]. Whether it was one of schedules.
    pub(in crate::machine) fn load_meta(&mut self, key: &[u8], value: &[u8]) -> Result<bool, RowsError> {
        if key == REVISION {
            let number = value.first_chunk().ok_or_else(|| RowsError::corrupt("schedules"))?;
            self.revision = u64::from_be_bytes(*number);
        } else if key.starts_with(SCHEDULE) {
            self.insert(ScheduleRow::decode(value).map_err(|_| RowsError::corrupt("schedules"))?);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// The number of a new change.
    pub(super) fn next_revision(&mut self, writes: &mut Writes) -> u64 {
        self.revision = self.revision.saturating_add(1);
        writes.put(Family::Meta, REVISION.into(), self.revision.to_be_bytes().into());
        self.revision
    }

    /// Writes the row of a schedule.
    pub(super) fn save(&mut self, row: ScheduleRow, writes: &mut Writes) {
        writes.put(Family::Meta, key(&row.name), row.encode_to_vec());
        self.insert(row);
    }

    /// Deletes a schedule and its row.
    pub(super) fn delete(&mut self, name: &str, writes: &mut Writes) {
        writes.delete(Family::Meta, key(name));
        self.remove(name);
    }

    fn insert(&mut self, row: ScheduleRow) {
        self.remove(&row.name);
        self.definition_bytes = self.definition_bytes.saturating_add(row.definition.bytes());
        if let Some(at) = row.due() {
            self.due.insert_mut((at, row.name.clone()));
        }
        self.rows.insert_mut(row.name.clone(), Arc::new(row));
    }

    fn remove(&mut self, name: &str) {
        let Some(was) = self.rows.get(name).cloned() else { return };
        self.definition_bytes = self.definition_bytes.saturating_sub(was.definition.bytes());
        if let Some(at) = was.due() {
            self.due.remove_mut(&(at, name.to_string()));
        }
        self.rows.remove_mut(name);
    }
}
