//! Removes rows that no rule needs any more, in bounded steps.
//!
//! The leader proposes `Tidy` while [`Machine::tidy_due`] says that rows are due. One command reads a bounded number of
//! rows and stores how far it came, in the row of the namespace or of the [`Migration`]; the next command continues
//! there. So no entry takes long to apply, and all nodes remove the same rows with the same entries.

use alloc::borrow::ToOwned as _;
use alloc::vec::Vec;
use prost::Message as _;

use super::events::{ids, keys};
use super::migration::Migration;
use super::{META_MIGRATION, Machine, delayed, save_head};
use crate::command::{Done, Reply};
use crate::error::Refusal;
use crate::level::FeatureLevel;
use crate::limits;
use crate::namespace::Head;
use crate::rows::{self, Family, Rows, RowsError, Writes};

/// An upper bound of all keys that begin with the number of a namespace. The rows of waiting events, of docks and of Xbus
/// lie behind: they are no ids.
const END: &[u8] = &delayed::keys::NAMESPACE.to_be_bytes();

/// The time at which the next row of a namespace may be removed, milliseconds since 1970: 0 for at once, `None` if
/// there is no such row.
pub(super) fn due(head: &Head) -> Option<u64> {
    if ids::is_due(head) { Some(0) } else { keys::due(head) }
}

impl Machine {
    /// The time at which the dedupe keys of the first level expire.
    pub(super) fn old_keys_until(&self) -> u64 {
        let until = self.migration.as_ref().map(Migration::old_keys_until);
        until.unwrap_or_else(|| self.millis.saturating_add(limits::DEDUPE_WINDOW_MS))
    }

    /// Takes the progress of the migration from its row.
    pub(super) fn load_migration(&mut self, value: &[u8]) -> Result<(), RowsError> {
        self.migration = Some(Migration::decode(value).map_err(|_| RowsError::corrupt("meta"))?);
        Ok(())
    }

    /// Starts the migration with the first entry after the level was raised.
    pub(super) fn begin_migration(&mut self, writes: &mut Writes) {
        if self.level >= FeatureLevel::BOUNDED && self.migration.is_none() {
            let migration = Migration::begin(self.millis);
            writes.put(Family::Meta, META_MIGRATION.into(), migration.encode_to_vec());
            self.migration = Some(migration);
        }
    }

    /// Updates the sorted set of due namespaces after a change of a namespace. `before` is the [`due`] of the namespace
    /// before the change.
    pub(super) fn reschedule_tidy(&mut self, name: &str, before: Option<u64>) {
        let after = self.heads.get(name).and_then(due);
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.due.remove_mut(&(before, name.to_owned()));
        }
        if let Some(after) = after {
            self.due.insert_mut((after, name.to_owned()));
        }
    }

    /// The time at which the next `Tidy` has something to remove, milliseconds since 1970; 0 for at once.
    #[must_use]
    pub fn tidy_due(&self) -> Option<u64> {
        let keys = self.due.first().map(|(at, _)| *at);
        let migration = self.migration.as_ref().and_then(Migration::due);
        keys.into_iter().chain(migration).chain(self.docks.next_abandoned()).min()
    }

    /// Reads at most [`limits::TIDY_ROWS_MAX`] rows and removes those that are due, and abandons idle builds.
    pub(super) fn tidy(&mut self, rows: &impl Rows, writes: &mut Writes) -> Result<Reply, RowsError> {
        if self.level < FeatureLevel::BOUNDED {
            // The reply of nodes of earlier releases.
            return Ok(Err(Refusal::Malformed("unknown command".into())));
        }
        let mut left = limits::TIDY_ROWS_MAX;
        while left > 0 {
            let Some((at, name)) = self.due.first().filter(|(at, _)| *at <= self.millis).cloned() else { break };
            let millis = self.millis;
            let Some(head) = self.heads.get_mut(&name) else {
                self.due.remove_mut(&(at, name));
                continue;
            };
            let mut looked = ids::remove_trimmed(head, left, rows, writes)?;
            looked =
                looked.saturating_add(keys::remove_expired(head, millis, left.saturating_sub(looked), rows, writes)?);
            save_head(head, writes);
            self.reschedule_tidy(&name, Some(at));
            left = left.saturating_sub(looked.max(1));
        }
        while left > 0 && self.migration.as_ref().and_then(Migration::due).is_some_and(|due| due <= self.millis) {
            left = left.saturating_sub(self.migrate(left, rows, writes)?.max(1));
        }
        self.abandon_idle_builds(writes);
        Ok(Ok(Done::Nothing))
    }

    /// Does one step of the migration, which reads at most `limit` rows. Returns the number of rows that were read.
    fn migrate(&mut self, limit: usize, rows: &impl Rows, writes: &mut Writes) -> Result<usize, RowsError> {
        let Some(mut migration) = self.migration.take() else { return Ok(0) };
        let Some(family) = migration.family() else {
            self.migration = Some(migration);
            return Ok(0);
        };
        let found = writes.scan(rows, family, &migration.cursor, END, limit)?;
        let (looked, full) = (found.len(), found.len() >= limit);
        let mut next = found.last().filter(|_| full).map(|(last, _)| rows::successor(last));
        let mut head: Option<Head> = None;
        for (key, value) in found {
            let (namespace, in_order) = rows::parse_in_order(&key).ok_or_else(|| RowsError::corrupt(family.name()))?;
            if in_order.is_some() {
                // The rows in order come last, and all of them are of the new level: continue with the next namespace.
                next = Some(rows::bounds(namespace).1);
                break;
            }
            match family {
                Family::Ids if value.len() == ids::FIRST_LEVEL_BYTES => {
                    if head.as_ref().is_none_or(|head| head.id != namespace) {
                        head = self.head_by_id(namespace, rows, writes)?;
                    }
                    self.migrate_id(head.as_ref(), key, &value, writes);
                }
                Family::Keys if value.len() == keys::FIRST_LEVEL_BYTES => writes.delete(family, key),
                Family::KeyRing => writes.delete(family, key),
                _ => {}
            }
        }
        match next {
            Some(next) => migration.cursor = next,
            None => (migration.stage, migration.cursor) = (migration.stage.saturating_add(1), Vec::new()),
        }
        writes.put(Family::Meta, META_MIGRATION.into(), migration.encode_to_vec());
        self.migration = Some(migration);
        Ok(looked)
    }

    /// The namespace of this number, read from its row, since the map in memory is sorted by name.
    fn head_by_id(&self, namespace: u32, rows: &impl Rows, writes: &Writes) -> Result<Option<Head>, RowsError> {
        let row = writes.get(rows, Family::Heads, &rows::key(namespace, &[]))?;
        row.map(|row| Head::decode(row.as_slice()).map_err(|_| RowsError::corrupt("heads"))).transpose()
    }

    /// Adds the row by sequence number for the chosen id of a visible event, and deletes the id of a trimmed one.
    fn migrate_id(&mut self, head: Option<&Head>, key: Vec<u8>, value: &[u8], writes: &mut Writes) {
        let sequence = value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let live = head.filter(|head| !head.deleted && sequence >= head.first);
        let (Some(live), Some(id)) = (live, key.get(4..)) else {
            return writes.delete(Family::Ids, key);
        };
        let name = live.name.clone();
        let Some(head) = self.heads.get_mut(&name) else { return };
        let before = due(head);
        ids::add_order_row(head, sequence, id, writes);
        save_head(head, writes);
        self.reschedule_tidy(&name, before);
    }
}
