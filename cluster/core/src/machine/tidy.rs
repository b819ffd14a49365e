//! Rows that are not needed any more go in bounded steps.
//!
//! What one command leaves undone, the next one goes on with: how far it came is in the row of the namespace, or in
//! that of the [`Migration`]. So no entry takes long, and all nodes remove the same rows with the same entries. The
//! leader proposes `Tidy` while there is something to do.

use alloc::borrow::ToOwned as _;
use alloc::vec::Vec;
use prost::Message as _;

use super::events::{ids, keys};
use super::migration::Migration;
use super::{META_MIGRATION, Machine, saved};
use crate::command::{Done, Reply};
use crate::error::Refusal;
use crate::level::FeatureLevel;
use crate::limits;
use crate::namespace::Head;
use crate::rows::{self, Family, Rows, RowsError, Writes};

/// Behind all rows that begin with the number of a namespace.
const END: &[u8] = &[0xff; 4];

/// When the next row of a namespace may go, 0 for at once.
pub(super) fn due(head: &Head) -> Option<u64> {
    if ids::is_due(head) { Some(0) } else { keys::due(head) }
}

impl Machine {
    /// Until when keys count that were stored at the first level.
    pub(super) fn old_keys_until(&self) -> u64 {
        let until = self.migration.as_ref().map(Migration::old_keys_until);
        until.unwrap_or_else(|| self.millis.saturating_add(limits::DEDUPE_WINDOW_MS))
    }

    pub(super) fn load_migration(&mut self, value: &[u8]) -> Result<(), RowsError> {
        self.migration = Some(Migration::decode(value).map_err(|_| RowsError::corrupt("meta"))?);
        Ok(())
    }

    /// Notes when the level was reached that the migration leads to.
    pub(super) fn begin_migration(&mut self, writes: &mut Writes) {
        if self.level >= FeatureLevel::BOUNDED && self.migration.is_none() {
            let migration = Migration::begin(self.millis);
            writes.put(Family::Meta, META_MIGRATION.into(), migration.encode_to_vec());
            self.migration = Some(migration);
        }
    }

    /// Keeps the order of what is due; `before` is [`due`] of the namespace before it was changed.
    pub(super) fn schedule(&mut self, name: &str, before: Option<u64>) {
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

    /// When there is something for `Tidy` to do, in milliseconds since 1970; 0 is at once.
    #[must_use]
    pub fn tidy_due(&self) -> Option<u64> {
        let keys = self.due.first().map(|(at, _)| *at);
        let migration = self.migration.as_ref().and_then(Migration::due);
        keys.into_iter().chain(migration).min()
    }

    /// Looks at no more than [`limits::TIDY_ROWS_MAX`] rows and removes those that are not needed.
    pub(super) fn tidy(&mut self, rows: &impl Rows, writes: &mut Writes) -> Result<Reply, RowsError> {
        if self.level < FeatureLevel::BOUNDED {
            // What nodes of earlier releases answer.
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
            let mut looked = ids::forget(head, left, rows, writes)?;
            looked = looked.saturating_add(keys::forget(head, millis, left.saturating_sub(looked), rows, writes)?);
            saved(head, writes);
            self.schedule(&name, Some(at));
            left = left.saturating_sub(looked.max(1));
        }
        while left > 0 && self.migration.as_ref().and_then(Migration::due).is_some_and(|due| due <= self.millis) {
            left = left.saturating_sub(self.migrate(left, rows, writes)?.max(1));
        }
        Ok(Ok(Done::Nothing))
    }

    /// One step through rows of the first level: at most `limit` rows are looked at; how many were.
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
                // The rest of the namespace is of this level.
                next = Some(rows::bounds(namespace).1);
                break;
            }
            match family {
                Family::Ids if value.len() == ids::FIRST_LEVEL_BYTES => {
                    if head.as_ref().is_none_or(|head| head.id != namespace) {
                        head = self.head_of(namespace, rows, writes)?;
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

    /// The namespace of a number, by its row: in memory they are by name.
    fn head_of(&self, namespace: u32, rows: &impl Rows, writes: &Writes) -> Result<Option<Head>, RowsError> {
        let row = writes.get(rows, Family::Heads, &rows::key(namespace, &[]))?;
        row.map(|row| Head::decode(row.as_slice()).map_err(|_| RowsError::corrupt("heads"))).transpose()
    }

    /// The id of an event that is there gets its row by sequence number; one that is free goes.
    fn migrate_id(&mut self, head: Option<&Head>, key: Vec<u8>, value: &[u8], writes: &mut Writes) {
        let sequence = value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let live = head.filter(|head| !head.deleted && sequence >= head.first);
        let (Some(live), Some(id)) = (live, key.get(4..)) else {
            return writes.delete(Family::Ids, key);
        };
        let name = live.name.clone();
        let Some(head) = self.heads.get_mut(&name) else { return };
        let before = due(head);
        ids::convert(head, sequence, id, writes);
        saved(head, writes);
        self.schedule(&name, before);
    }
}
