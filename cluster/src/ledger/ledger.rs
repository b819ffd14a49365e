//! The ledger: settled events of each namespace in compressed blocks.
//!
//! A block holds the records of consecutive events of one namespace, about 128 KiB
//! before compression. A small row for each block holds the range of events and a filter of
//! the subjects, so that a replay of a rare subject skips blocks without reading them.
//! Nodes cut blocks at different events; the events are the same on all nodes.
//!
//! The blocks of a namespace are contiguous: each begins where the one before ended. Every write, every
//! opening of the ledger and every read checks this.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use prost::Message as _;
use rocksdb::{Cache, DB, IngestExternalFileOptions, ReadOptions, SstFileWriter, WriteBatch};
use rollbook_core::rows::{bounds, index_key, index_sequence};
use rollbook_core::subjects::filter;
use rollbook_core::subjects::pattern::Pattern;

use super::block::{self, BLOCK_BYTES, Block, BlockBuilder, BlockMeta, Outline};
use crate::crash;
use crate::error::ReadError;
use crate::store::layout::{CF_BLOCK_META, CF_BLOCKS, family, ledger_options, synced};

/// From this many bytes on, the blocks of a namespace are written into their own files, without memtable and log.
const INGEST_BYTES_MIN: usize = if cfg!(test) { 256 << 10 } else { 1 << 20 };
/// Most holes that are remembered, so that a ledger in ruins does not fill the memory.
const HOLES_MAX: usize = 64;

/// The blocks of a namespace in the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Sequence number of the first event that is there.
    pub(crate) first: u64,
    /// Sequence number behind the last event of the first block.
    pub(crate) first_end: u64,
    /// Sequence number behind the last settled event.
    pub(crate) end: u64,
    /// Bytes of the stored blocks.
    pub(crate) stored_bytes: u64,
}

/// Two blocks that are not contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) namespace: u32,
    /// Where one block ends.
    pub(crate) end: u64,
    /// Where the next one begins.
    pub(crate) next: u64,
}

/// Blocks of trimmed events that may still be on the disk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pending {
    /// Blocks that begin before this went.
    pub(crate) end: u64,
    pub(crate) bytes: u64,
    /// Of these bytes the marks are still in memory.
    pub(crate) unflushed: u64,
}

/// The ledger of a node.
pub(crate) struct Ledger {
    pub(crate) db: DB,
    directory: PathBuf,
    staging: PathBuf,
    pub(crate) extents: RwLock<HashMap<u32, Extent>>,
    /// What was not contiguous when the ledger was opened.
    holes: Vec<Hole>,
    /// Blocks that are out of sight and may still be on the disk.
    pub(crate) pending: Mutex<BTreeMap<u32, Pending>>,
}

/// A block as a reader sees it.
pub(crate) struct BlockMatch {
    /// Sequence number of its first event.
    pub(crate) first: u64,
    /// How many events.
    pub(crate) events: u64,
    pub(crate) records: Vec<u8>,
}

/// The result of a search.
pub(crate) enum SeekResult {
    Block(BlockMatch),
    /// No block before this sequence number may hold an event of the pattern.
    Passed(u64),
}

/// The blocks of one step of a namespace.
pub(crate) struct Run {
    pub(crate) namespace: u32,
    pub(crate) blocks: Vec<Block>,
    /// The oldest event that clients can see: only before that events may be missing.
    pub(crate) visible: u64,
    /// Bytes of the stored block that the first one replaces.
    pub(crate) replaced: Option<u64>,
}

impl Ledger {
    /// Takes an open database; `staging` is a scratch directory on the same file system, of this ledger alone.
    pub(crate) fn new(db: DB, staging: &Path) -> Result<Arc<Self>, ReadError> {
        let _stale = std::fs::remove_dir_all(staging);
        std::fs::create_dir_all(staging).map_err(|e| ReadError(format!("{}: {e}", staging.display())))?;
        let mut ledger = Self {
            directory: db.path().to_path_buf(),
            db,
            staging: staging.to_path_buf(),
            extents: RwLock::default(),
            holes: Vec::new(),
            pending: Mutex::default(),
        };
        let (extents, holes) = ledger.survey()?;
        ledger.extents = RwLock::new(extents);
        ledger.holes = holes;
        Ok(Arc::new(ledger))
    }

    /// Walks over the rows of all blocks, once.
    fn survey(&self) -> Result<(HashMap<u32, Extent>, Vec<Hole>), ReadError> {
        let mut extents: HashMap<u32, Extent> = HashMap::new();
        let mut holes = Vec::new();
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(1 << 20);
        let mut rows = self.db.raw_iterator_cf_opt(family(&self.db, CF_BLOCK_META)?, options);
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            let namespace = key.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).unwrap_or_default();
            let (first, meta) = self.outline(namespace, key, value)?;
            let end = first.saturating_add(meta.events);
            let extent =
                extents.entry(namespace).or_insert(Extent { first, first_end: end, end: first, ..Extent::default() });
            if first != extent.end && holes.len() < HOLES_MAX {
                holes.push(Hole { namespace, end: extent.end, next: first });
            }
            extent.end = end.max(extent.end);
            extent.stored_bytes = extent.stored_bytes.saturating_add(meta.stored_bytes);
            rows.next();
        }
        rows.status()?;
        Ok((extents, holes))
    }

    /// The database, for checkpoints.
    pub(crate) const fn db(&self) -> &DB {
        &self.db
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What was not contiguous when the ledger was opened; at most the first few dozen places.
    pub(crate) fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// What is there of a namespace.
    pub(crate) fn extent(&self, namespace: u32) -> Extent {
        self.extents.read().unwrap_or_else(PoisonError::into_inner).get(&namespace).copied().unwrap_or_default()
    }

    /// Sequence number behind the last settled event of a namespace; 0 when none is.
    pub(crate) fn settled(&self, namespace: u32) -> u64 {
        self.extent(namespace).end
    }

    /// Bytes of the stored blocks of a namespace.
    pub(crate) fn stored_bytes(&self, namespace: u32) -> u64 {
        self.extent(namespace).stored_bytes
    }

    /// An error at a place of this ledger.
    fn wrong(&self, namespace: u32, sequence: u64, what: impl std::fmt::Display) -> ReadError {
        ReadError(format!("ledger {}: namespace {namespace}, event {sequence}: {what}", self.directory.display()))
    }

    fn outline(&self, namespace: u32, key: &[u8], value: &[u8]) -> Result<(u64, Outline), ReadError> {
        let first = index_sequence(namespace, key).ok_or_else(|| self.wrong(namespace, 0, "damaged key of a block"))?;
        let meta = Outline::decode(value).map_err(|e| self.wrong(namespace, first, format_args!("block meta: {e}")))?;
        Ok((first, meta))
    }

    /// The block that holds `sequence`, or the first one behind, that may hold an event of the pattern. Looks at no
    /// more rows of blocks than `budget` says, which is used up.
    pub(crate) fn seek(
        &self,
        namespace: u32,
        sequence: u64,
        pattern: Option<&Pattern>,
        budget: &mut usize,
    ) -> Result<SeekResult, ReadError> {
        let end = self.settled(namespace);
        // A block that grows is replaced together with its row: a reader must see both of one moment.
        let snapshot = self.db.snapshot();
        let mut options = ReadOptions::default();
        let (lower, upper) = bounds(namespace);
        options.set_iterate_lower_bound(lower);
        options.set_iterate_upper_bound(upper);
        let mut rows = snapshot.raw_iterator_cf_opt(family(&self.db, CF_BLOCK_META)?, options);
        rows.seek_for_prev(index_key(namespace, sequence));
        let mut next = sequence;
        while next < end {
            let twice = |hole: &&Hole| hole.namespace == namespace && (hole.next..hole.end).contains(&next);
            if let Some(hole) = self.holes.iter().find(twice) {
                let what = format_args!("two blocks hold it, one of them ends at {}", hole.end.saturating_sub(1));
                return Err(self.wrong(namespace, next, what));
            }
            let Some((key, value)) = rows.item() else {
                rows.status()?;
                return Err(self.wrong(
                    namespace,
                    next,
                    format_args!("no block holds it, yet all before {end} are settled"),
                ));
            };
            let first = index_sequence(namespace, key).ok_or_else(|| self.wrong(namespace, next, "damaged key"))?;
            let meta =
                BlockMeta::decode(value).map_err(|e| self.wrong(namespace, first, format_args!("block meta: {e}")))?;
            let behind = first.saturating_add(meta.events);
            // The first one may hold events before; each other one begins where the one before ended.
            let fits = if next == sequence { first <= next && next < behind } else { first == next && next < behind };
            if !fits {
                return Err(self.wrong(
                    namespace,
                    next,
                    format_args!("the block at this place has the events {first} to {}", behind.saturating_sub(1)),
                ));
            }
            *budget = budget.saturating_sub(1);
            let may_match = pattern.is_none_or(|pattern| filter::may_match(&meta.filter, pattern));
            rows.next();
            let follows = rows.key().and_then(|key| index_sequence(namespace, key));
            if let Some(follows) = follows.filter(|follows| *follows < behind) {
                return Err(self.wrong(
                    namespace,
                    follows,
                    format_args!("two blocks hold it, those at {first} and at {follows}"),
                ));
            }
            if may_match {
                let value = snapshot.get_pinned_cf(family(&self.db, CF_BLOCKS)?, index_key(namespace, first))?;
                let value = value.ok_or_else(|| self.wrong(namespace, first, "the block is missing"))?;
                let records = block::unpack(namespace, first, &meta, &value)
                    .map_err(|what| self.wrong(namespace, first, format_args!("damaged block: {what}")))?;
                return Ok(SeekResult::Block(BlockMatch { first, events: meta.events, records }));
            }
            next = behind;
            if *budget == 0 {
                break;
            }
        }
        Ok(SeekResult::Passed(next))
    }

    /// Shows the rows of the blocks that hold events from `from` on, in order, until `visit` breaks. Holes are passed
    /// over, so this is for those who take events away.
    pub(crate) fn walk(
        &self,
        namespace: u32,
        from: u64,
        mut visit: impl FnMut(u64, &Outline) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut options = ReadOptions::default();
        // What was forgotten lies before: iterating over it is slow.
        options.set_iterate_lower_bound(index_key(namespace, self.extent(namespace).first));
        options.set_iterate_upper_bound(bounds(namespace).1);
        let mut rows = self.db.raw_iterator_cf_opt(family(&self.db, CF_BLOCK_META)?, options);
        rows.seek_for_prev(index_key(namespace, from));
        if !rows.valid() {
            rows.status()?;
            rows.seek_to_first();
        }
        while let Some((key, value)) = rows.item() {
            let (first, meta) = self.outline(namespace, key, value)?;
            if first.saturating_add(meta.events) > from && visit(first, &meta).is_break() {
                return Ok(());
            }
            rows.next();
        }
        rows.status()?;
        Ok(())
    }

    /// The last block of a namespace if the block is not full, because the next step extends it; and the number of
    /// bytes that the store holds of the block.
    pub(crate) fn reopen_last(&self, namespace: u32) -> Result<Option<(BlockBuilder, u64)>, ReadError> {
        let extent = self.extent(namespace);
        let Some(last) = extent.end.checked_sub(1).filter(|last| *last >= extent.first) else { return Ok(None) };
        let mut found = None;
        self.walk(namespace, last, |first, meta| {
            found = Some((first, *meta));
            ControlFlow::Break(())
        })?;
        let Some((first, outline)) = found else {
            return Err(self.wrong(namespace, last, "no block holds it"));
        };
        if usize::try_from(outline.raw_bytes).unwrap_or(usize::MAX) >= BLOCK_BYTES / 2 {
            return Ok(None);
        }
        let value = self.db.get_pinned_cf(family(&self.db, CF_BLOCKS)?, index_key(namespace, first))?;
        let value = value.ok_or_else(|| self.wrong(namespace, first, "the block is missing"))?;
        let Outline { events, raw_bytes, millis, bytes_first, stored_bytes } = outline;
        let meta = BlockMeta { events, raw_bytes, millis, bytes_first, stored_bytes, filter: Vec::new() };
        let builder = BlockBuilder::reopen(namespace, first, &meta, &value)
            .map_err(|what| self.wrong(namespace, first, format_args!("damaged block: {what}")))?;
        Ok(Some((builder, stored_bytes)))
    }

    /// Stores the blocks of one step, on the disk when it returns. Whatever fails or dies in between, the blocks of
    /// each namespace stay contiguous.
    pub(crate) fn store(&self, runs: &[Run]) -> Result<(), ReadError> {
        let (data, metas) = (family(&self.db, CF_BLOCKS)?, family(&self.db, CF_BLOCK_META)?);
        let mut batch = WriteBatch::default();
        let mut large = Vec::new();
        for run in runs {
            self.check(run)?;
            let bytes: usize = run.blocks.iter().map(|block| block.value.len()).sum();
            let mut rest = run.blocks.as_slice();
            if bytes >= INGEST_BYTES_MIN {
                // A block that replaces one must come together with its row, and before what follows on it.
                rest = rest.split_at(usize::from(run.replaced.is_some()).min(rest.len())).0;
                large.push((run, rest.len()));
            }
            for block in rest {
                let key = index_key(run.namespace, block.first);
                batch.put_cf(data, &key, &block.value);
                batch.put_cf(metas, &key, block.meta.encode_to_vec());
            }
        }
        if !batch.is_empty() {
            crash::point("ledger: before the batch")?;
            self.db.write_opt(batch, &synced())?;
        }
        for run in runs {
            let written = large.iter().find(|(of, _)| std::ptr::eq(*of, run)).map_or(run.blocks.len(), |(_, n)| *n);
            self.note(run, run.blocks.get(..written).unwrap_or_default(), run.replaced.unwrap_or(0));
        }
        crash::point("ledger: behind the batch")?;
        for (run, written) in large {
            let rest = run.blocks.get(written..).unwrap_or_default();
            if rest.is_empty() {
                continue;
            }
            // The rows that say what is inside come last: a block counts from then on. All keys are new.
            self.ingest(CF_BLOCKS, run.namespace, rest, |block| block.value.clone())?;
            crash::point("ledger: between blocks and rows")?;
            self.ingest(CF_BLOCK_META, run.namespace, rest, |block| block.meta.encode_to_vec())?;
            self.note(run, rest, 0);
            crash::point("ledger: behind the rows")?;
        }
        Ok(())
    }

    /// The blocks must go on where the ledger ends.
    fn check(&self, run: &Run) -> Result<(), ReadError> {
        let extent = self.extent(run.namespace);
        let mut next = extent.end;
        for (at, block) in run.blocks.iter().enumerate() {
            let begins = match run.replaced {
                Some(_) if at == 0 => block.first < next && block.end() >= next && block.first >= extent.first,
                _ if at == 0 => block.first == next || (block.first > next && block.first == run.visible),
                _ => block.first == next,
            };
            if !begins || block.meta.events == 0 {
                return Err(self.wrong(
                    run.namespace,
                    next,
                    format_args!("the next block would begin at {}", block.first),
                ));
            }
            next = block.end();
        }
        Ok(())
    }

    /// Notes that blocks are there.
    fn note(&self, run: &Run, blocks: &[Block], replaced: u64) {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return };
        let bytes = blocks.iter().map(|block| block.meta.stored_bytes).fold(0, u64::saturating_add);
        let mut extents = self.extents.write().unwrap_or_else(PoisonError::into_inner);
        let extent = extents.entry(run.namespace).or_default();
        if extent.first >= extent.end {
            extent.first = first.first;
        }
        if extent.first == first.first {
            extent.first_end = first.end();
        }
        extent.end = last.end();
        extent.stored_bytes = extent.stored_bytes.saturating_sub(replaced).saturating_add(bytes);
    }

    fn ingest(
        &self,
        name: &'static str,
        namespace: u32,
        blocks: &[Block],
        value: impl Fn(&Block) -> Vec<u8>,
    ) -> Result<(), ReadError> {
        let file = self.staging.join(format!("{name}-{namespace}.sst"));
        let options = ledger_options(&Cache::new_lru_cache(1 << 20));
        let mut writer = SstFileWriter::create(&options);
        writer.open(&file)?;
        for block in blocks {
            writer.put(index_key(namespace, block.first), value(block))?;
        }
        writer.finish()?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db.ingest_external_file_cf_opts(family(&self.db, name)?, &options, vec![file])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
