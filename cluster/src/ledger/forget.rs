//! Forgetting: the ledger gives back the disk of blocks that are out of sight.
//!
//! Costs follow what goes: a namespace of which nothing can go is not looked at, few blocks are removed by their keys,
//! many by their range. The files are a matter of RocksDB's own compaction, except where whole files can be dropped.

use std::ops::ControlFlow;
use std::sync::PoisonError;

use rocksdb::WriteBatch;
use rollbook_core::rows::{bounds, index_key};

use super::ledger::{Extent, Ledger};
use crate::crash;
use crate::error::ReadError;
use crate::lock::lock;
use crate::store::layout::{CF_BLOCK_META, CF_BLOCKS, family, synced};

/// Most blocks that one call removes.
const BLOCKS_MAX: usize = 4096;
/// More blocks of a namespace than this are removed as a range: a mark of a range makes all later reads a little
/// slower, so few blocks are better removed one by one.
const KEYS_MAX: usize = 64;
/// Whole files of a namespace are dropped when this many bytes of its blocks went.
const DROP_BYTES: u64 = 16 << 20;
/// Marks of what went are brought out of memory when they stand for this many bytes: only then can compaction act on
/// them.
const FLUSH_BYTES: u64 = 64 << 20;
/// With nothing else to do, files of a namespace are rewritten without what went when it is this many bytes.
const COMPACT_BYTES: u64 = 1 << 20;

impl Ledger {
    /// Whether a whole block of the namespace lies before `first`.
    pub(crate) fn is_forgettable(&self, namespace: u32, first: u64) -> bool {
        let extent = self.extent(namespace);
        extent.first < extent.end && extent.first_end <= first
    }

    /// Removes the blocks that lie wholly before the sequence number of each namespace, on the disk when it returns.
    /// `false` when there were so many that some are left for another call.
    pub(crate) fn forget(&self, trims: &[(u32, u64)]) -> Result<bool, ReadError> {
        let (metas, blocks) = (family(&self.db, CF_BLOCK_META)?, family(&self.db, CF_BLOCKS)?);
        let mut batch = WriteBatch::default();
        let mut left = BLOCKS_MAX;
        let mut gone = Vec::new();
        for (namespace, first) in trims.iter().filter(|(namespace, first)| self.is_forgettable(*namespace, *first)) {
            let before = self.extent(*namespace);
            let mut after = Extent { first: before.end, first_end: before.end, ..before };
            let mut keys = Vec::new();
            self.walk(*namespace, before.first, |at, meta| {
                let end = at.saturating_add(meta.events);
                if end > *first || left == 0 {
                    (after.first, after.first_end) = (at, end);
                    return ControlFlow::Break(());
                }
                left = left.saturating_sub(1);
                keys.push(index_key(*namespace, at));
                after.stored_bytes = after.stored_bytes.saturating_sub(meta.stored_bytes);
                ControlFlow::Continue(())
            })?;
            if keys.len() > KEYS_MAX || after.first == after.end {
                let (from, to) = (bounds(*namespace).0, index_key(*namespace, after.first));
                batch.delete_range_cf(metas, &from, &to);
                batch.delete_range_cf(blocks, &from, &to);
            } else {
                for key in &keys {
                    batch.delete_cf(metas, key);
                    batch.delete_cf(blocks, key);
                }
            }
            gone.push((*namespace, before.stored_bytes, after));
            if left == 0 {
                break;
            }
        }
        if gone.is_empty() {
            return Ok(true);
        }
        crash::point("forget: before the batch")?;
        self.db.write_opt(batch, &synced())?;
        let mut extents = self.extents.write().unwrap_or_else(PoisonError::into_inner);
        let mut pending = lock(&self.pending);
        for (namespace, before, after) in gone {
            extents.insert(namespace, after);
            let bytes = before.saturating_sub(after.stored_bytes);
            let pending = pending.entry(namespace).or_default();
            pending.end = after.first;
            pending.bytes = pending.bytes.saturating_add(bytes);
            pending.unflushed = pending.unflushed.saturating_add(bytes);
        }
        drop((extents, pending));
        crash::point("forget: behind the batch")?;
        Ok(left > 0)
    }

    /// Rewrites all files without what went.
    #[cfg(test)]
    pub(crate) fn reclaim_all(&self) -> Result<(), ReadError> {
        self.reclaim(false)?;
        for name in [CF_BLOCKS, CF_BLOCK_META] {
            let column = family(&self.db, name)?;
            self.db.flush_cf(column)?;
            self.db.compact_range_cf(column, None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    /// Lets files go that hold nothing but blocks that were forgotten. When idle, also rewrites those of one namespace
    /// that hold some. Takes its time, but holds nothing that others wait for.
    pub(crate) fn reclaim(&self, idle: bool) -> Result<(), ReadError> {
        let (metas, blocks) = (family(&self.db, CF_BLOCK_META)?, family(&self.db, CF_BLOCKS)?);
        let (large, unflushed): (Vec<(u32, u64)>, u64) = {
            let pending = lock(&self.pending);
            let large = pending.iter().filter(|(_, pending)| pending.bytes >= DROP_BYTES);
            let unflushed = pending.values().map(|pending| pending.unflushed).fold(0, u64::saturating_add);
            (large.map(|(namespace, pending)| (*namespace, pending.end)).collect(), unflushed)
        };
        for (namespace, end) in &large {
            // RocksDB takes files that end with the second key along: it must be one that goes, or that nobody has.
            // Not the rows: a file with the mark that a row went could go before the file with the row.
            let last = index_key(*namespace, end.saturating_sub(1));
            self.db.delete_file_in_range_cf(blocks, &bounds(*namespace).0, &last)?;
        }
        if unflushed >= FLUSH_BYTES || (idle && unflushed >= COMPACT_BYTES) {
            self.db.flush_cf(metas)?;
            self.db.flush_cf(blocks)?;
            lock(&self.pending).values_mut().for_each(|pending| pending.unflushed = 0);
        }
        let largest = lock(&self.pending).iter().max_by_key(|(_, pending)| pending.bytes).map(|(n, p)| (*n, *p));
        if let Some((namespace, pending)) = largest.filter(|(_, pending)| idle && pending.bytes >= COMPACT_BYTES) {
            let (from, to) = (bounds(namespace).0, index_key(namespace, pending.end));
            self.db.compact_range_cf(metas, Some(&from), Some(&to));
            self.db.compact_range_cf(blocks, Some(&from), Some(&to));
            lock(&self.pending).remove(&namespace);
        }
        let mut pending = lock(&self.pending);
        for (namespace, end) in large {
            if let Some(pending) = pending.get_mut(&namespace).filter(|pending| pending.end == end) {
                // Little is left: the files at both ends, for an idle moment.
                pending.bytes = COMPACT_BYTES;
            }
        }
        // What is small is left to RocksDB.
        pending.retain(|_, pending| pending.unflushed > 0 || pending.bytes >= COMPACT_BYTES);
        Ok(())
    }
}
