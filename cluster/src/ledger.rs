//! The ledger: settled events of each namespace in compressed blocks.
//!
//! A block holds the records of consecutive events of one namespace, about 128 KiB
//! before compression. A small row beside it says what is inside, with a filter of the
//! subjects, so that a replay of a rare subject passes by blocks without reading them.
//! Blocks are a local matter: nodes cut them differently, their content is the same.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use prost::Message;
use rocksdb::{Cache, DB, Direction, IngestExternalFileOptions, IteratorMode, ReadOptions, SstFileWriter, WriteBatch};
use rollbook_core::event::Event;
use rollbook_core::filter::{self, FilterBuilder};
use rollbook_core::pattern::Pattern;
use rollbook_core::rows::{bounds, index_key, index_sequence};

use crate::error::ReadError;
use crate::store::{CF_BLOCK_META, CF_BLOCKS, family, ledger_options, synced};

/// Bytes of records in a full block.
pub(crate) const BLOCK_BYTES: usize = 128 << 10;
/// From this many bytes on a step goes into files of its own, past memtable and log.
const INGEST_BYTES_MIN: usize = 1 << 20;
const VERSION: u8 = 1;
const CODEC_ZSTD: u8 = 1;
const HEADER_BYTES: usize = 10;
const ZSTD_LEVEL: i32 = 1;

/// What a block holds.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BlockMeta {
    /// How many events.
    #[prost(uint64, tag = "1")]
    pub(crate) events: u64,
    /// Bytes of their records.
    #[prost(uint64, tag = "2")]
    pub(crate) raw_bytes: u64,
    /// Log time of the newest, milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub(crate) millis: u64,
    /// Position of the first record on the namespace's byte axis.
    #[prost(uint64, tag = "4")]
    pub(crate) bytes_first: u64,
    /// Filter of the subjects.
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) filter: Vec<u8>,
    /// Bytes of the stored block.
    #[prost(uint64, tag = "6")]
    pub(crate) stored_bytes: u64,
}

/// A finished block and its place.
pub(crate) struct Block {
    first: u64,
    meta: BlockMeta,
    value: Vec<u8>,
}

impl Block {
    /// Sequence number behind its last event.
    pub(crate) const fn end(&self) -> u64 {
        self.first.saturating_add(self.meta.events)
    }
}

/// Gathers the records of consecutive events until a block is full.
pub(crate) struct BlockBuilder {
    first: u64,
    meta: BlockMeta,
    records: Vec<u8>,
    subjects: FilterBuilder,
}

impl BlockBuilder {
    pub(crate) fn new(first: u64, bytes_first: u64) -> Self {
        Self {
            first,
            meta: BlockMeta { bytes_first, ..BlockMeta::default() },
            records: Vec::with_capacity(BLOCK_BYTES),
            subjects: FilterBuilder::new(),
        }
    }

    /// Appends one record.
    pub(crate) fn push(&mut self, subject: &str, record: &[u8], millis: u64) {
        self.subjects.add(subject);
        self.records.extend_from_slice(record);
        self.meta.events = self.meta.events.saturating_add(1);
        self.meta.millis = self.meta.millis.max(millis);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= BLOCK_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.meta.events == 0
    }

    /// Compresses and seals the block.
    pub(crate) fn finish(mut self) -> Result<Block, ReadError> {
        let packed = zstd::bulk::compress(&self.records, ZSTD_LEVEL).map_err(|e| ReadError(format!("zstd: {e}")))?;
        let raw = u32::try_from(self.records.len()).map_err(|_| ReadError("block too large".to_owned()))?;
        let mut value = vec![VERSION, CODEC_ZSTD];
        value.extend_from_slice(&raw.to_le_bytes());
        value.extend_from_slice(&crc32c::crc32c(&packed).to_le_bytes());
        value.extend_from_slice(&packed);
        self.meta.raw_bytes = u64::from(raw);
        self.meta.stored_bytes = u64::try_from(value.len()).unwrap_or_default();
        self.meta.filter = self.subjects.build();
        Ok(Block { first: self.first, meta: self.meta, value })
    }
}

fn unpack(value: &[u8]) -> Result<Vec<u8>, ReadError> {
    let damaged = || ReadError("damaged block in the ledger".to_owned());
    let (header, packed) = value.split_first_chunk::<HEADER_BYTES>().ok_or_else(damaged)?;
    let [version, codec, a, b, c, d, e, f, g, h] = *header;
    let checksum = u32::from_le_bytes([e, f, g, h]);
    if version != VERSION || codec != CODEC_ZSTD || crc32c::crc32c(packed) != checksum {
        return Err(damaged());
    }
    let raw = usize::try_from(u32::from_le_bytes([a, b, c, d])).map_err(|_| damaged())?;
    zstd::bulk::decompress(packed, raw).map_err(|_| damaged())
}

/// The ledger of a node.
pub(crate) struct Ledger {
    db: DB,
    staging: PathBuf,
    /// Sequence number behind the last settled event, by namespace.
    settled: RwLock<HashMap<u32, u64>>,
}

/// A block as a reader sees it.
pub(crate) struct Found {
    /// Sequence number of its first event.
    pub(crate) first: u64,
    /// What it holds.
    pub(crate) meta: BlockMeta,
}

impl Ledger {
    /// Takes an open database; `staging` is a scratch directory on the same file system.
    pub(crate) fn new(db: DB, staging: &Path) -> Result<Arc<Self>, ReadError> {
        let _stale = std::fs::remove_dir_all(staging);
        std::fs::create_dir_all(staging).map_err(|e| ReadError(format!("{}: {e}", staging.display())))?;
        let ledger = Self { db, staging: staging.to_path_buf(), settled: RwLock::default() };
        let mut settled = HashMap::new();
        let mut bound = Vec::from([0xff; 12]);
        // From the back: the last block of each namespace says how far it is settled.
        loop {
            let metas = family(&ledger.db, CF_BLOCK_META)?;
            let last =
                ledger.db.iterator_cf(metas, IteratorMode::From(&bound, Direction::Reverse)).next().transpose()?;
            let Some((key, value)) = last else { break };
            let Some(namespace) = key.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)) else { break };
            let meta = BlockMeta::decode(value.as_ref()).map_err(|e| ReadError(format!("block meta: {e}")))?;
            let first = index_sequence(namespace, &key).unwrap_or_default();
            settled.insert(namespace, first.saturating_add(meta.events));
            bound = bounds(namespace).0;
        }
        *ledger.settled.write().unwrap_or_else(PoisonError::into_inner) = settled;
        Ok(Arc::new(ledger))
    }

    /// The database, for checkpoints.
    pub(crate) const fn db(&self) -> &DB {
        &self.db
    }

    /// Sequence number behind the last settled event of a namespace; 0 when none is.
    pub(crate) fn settled(&self, namespace: u32) -> u64 {
        let settled = self.settled.read().unwrap_or_else(PoisonError::into_inner);
        settled.get(&namespace).copied().unwrap_or(0)
    }

    /// The first block, from the one that holds `sequence` on, that may hold an event of the pattern.
    pub(crate) fn seek(
        &self,
        namespace: u32,
        sequence: u64,
        pattern: Option<&Pattern>,
    ) -> Result<Option<Found>, ReadError> {
        let metas = family(&self.db, CF_BLOCK_META)?;
        let mut options = ReadOptions::default();
        let (lower, upper) = bounds(namespace);
        options.set_iterate_lower_bound(lower);
        options.set_iterate_upper_bound(upper);
        let mut rows = self.db.raw_iterator_cf_opt(metas, options);
        rows.seek_for_prev(index_key(namespace, sequence));
        if !rows.valid() {
            rows.status()?;
            rows.seek(index_key(namespace, sequence));
        }
        while let Some((key, value)) = rows.item() {
            let first = index_sequence(namespace, key).unwrap_or_default();
            let meta = BlockMeta::decode(value).map_err(|e| ReadError(format!("block meta: {e}")))?;
            let holds = first.saturating_add(meta.events) > sequence;
            if holds && pattern.is_none_or(|pattern| filter::may_match(&meta.filter, pattern)) {
                return Ok(Some(Found { first, meta }));
            }
            rows.next();
        }
        rows.status()?;
        Ok(None)
    }

    /// The records of a block.
    pub(crate) fn records(&self, namespace: u32, first: u64) -> Result<Vec<u8>, ReadError> {
        let blocks = family(&self.db, CF_BLOCKS)?;
        let value = self.db.get_pinned_cf(blocks, index_key(namespace, first))?;
        unpack(&value.ok_or_else(|| ReadError(format!("block {first} of namespace {namespace} is missing")))?)
    }

    /// The last block of a namespace when it is not full: it goes on in the next step.
    pub(crate) fn reopen_last(&self, namespace: u32) -> Result<Option<BlockBuilder>, ReadError> {
        let Some(last) = self.settled(namespace).checked_sub(1) else { return Ok(None) };
        let Some(found) = self.seek(namespace, last, None)? else { return Ok(None) };
        if usize::try_from(found.meta.raw_bytes).unwrap_or(usize::MAX) >= BLOCK_BYTES / 2 {
            return Ok(None);
        }
        let records = self.records(namespace, found.first)?;
        let mut builder = BlockBuilder::new(found.first, found.meta.bytes_first);
        let mut rest = records.as_slice();
        while let Some((event, used)) = Event::decode(rest) {
            let (record, after) = rest.split_at(used);
            builder.push(event.subject, record, found.meta.millis);
            rest = after;
        }
        Ok(Some(builder))
    }

    /// Stores the blocks of one step of a namespace, on the disk when it returns.
    pub(crate) fn store(&self, namespace: u32, blocks: &[Block]) -> Result<(), ReadError> {
        let Some(end) = blocks.last().map(Block::end) else { return Ok(()) };
        let bytes: usize = blocks.iter().map(|block| block.value.len()).sum();
        if bytes >= INGEST_BYTES_MIN {
            // The rows that say what is inside come last: a block counts from then on.
            self.ingest(CF_BLOCKS, namespace, blocks, |block| block.value.clone())?;
            self.ingest(CF_BLOCK_META, namespace, blocks, |block| block.meta.encode_to_vec())?;
        } else {
            let (data, metas) = (family(&self.db, CF_BLOCKS)?, family(&self.db, CF_BLOCK_META)?);
            let mut batch = WriteBatch::default();
            for block in blocks {
                let key = index_key(namespace, block.first);
                batch.put_cf(data, &key, &block.value);
                batch.put_cf(metas, &key, block.meta.encode_to_vec());
            }
            self.db.write_opt(batch, &synced())?;
        }
        self.settled.write().unwrap_or_else(PoisonError::into_inner).insert(namespace, end);
        Ok(())
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

    /// Gives back the disk of the blocks that lie wholly before `first`, or of the whole namespace.
    pub(crate) fn forget(&self, namespace: u32, first: u64, deleted: bool) -> Result<bool, ReadError> {
        let (from, end) = bounds(namespace);
        let stays = if deleted { None } else { self.seek(namespace, first, None)?.map(|found| found.first) };
        let to = stays.map_or(end, |stays| index_key(namespace, stays));
        // RocksDB takes files that end with the second key along: it must be one that goes, or that nobody has.
        let last = stays.map_or_else(|| to.clone(), |stays| index_key(namespace, stays.saturating_sub(1)));
        let metas = family(&self.db, CF_BLOCK_META)?;
        let oldest = self.db.iterator_cf(metas, IteratorMode::From(&from, Direction::Forward)).next().transpose()?;
        if oldest.is_none_or(|(key, _)| key.as_ref() >= to.as_slice()) {
            return Ok(false);
        }
        let mut batch = WriteBatch::default();
        for name in [CF_BLOCK_META, CF_BLOCKS] {
            batch.delete_range_cf(family(&self.db, name)?, &from, &to);
        }
        self.db.write_opt(batch, &synced())?;
        for name in [CF_BLOCK_META, CF_BLOCKS] {
            let column = family(&self.db, name)?;
            self.db.delete_file_in_range_cf(column, &from, &last)?;
            self.db.flush_cf(column)?;
            self.db.compact_range_cf(column, Some(&from), Some(&to));
        }
        Ok(true)
    }

    /// Bytes of the stored blocks of a namespace.
    pub(crate) fn stored_bytes(&self, namespace: u32) -> Result<u64, ReadError> {
        let metas = family(&self.db, CF_BLOCK_META)?;
        let mut options = ReadOptions::default();
        let (lower, upper) = bounds(namespace);
        options.set_iterate_upper_bound(upper);
        let mut sum = 0_u64;
        for row in self.db.iterator_cf_opt(metas, options, IteratorMode::From(&lower, Direction::Forward)) {
            let (_, value) = row?;
            let meta = BlockMeta::decode(value.as_ref()).map_err(|e| ReadError(format!("block meta: {e}")))?;
            sum = sum.saturating_add(meta.stored_bytes);
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(first: u64, subjects: &[&str]) -> Block {
        let mut builder = BlockBuilder::new(first, 0);
        for subject in subjects {
            let mut record = Vec::new();
            Event { subject, payload: Some(b"1"), ..Event::default() }.encode(&mut record).unwrap();
            builder.push(subject, &record, 7);
        }
        builder.finish().unwrap()
    }

    fn ledger(dir: &Path) -> Arc<Ledger> {
        Ledger::new(crate::store::open_ledger(&dir.join("ledger")).unwrap(), &dir.join("staging")).unwrap()
    }

    #[test]
    fn giving_back_what_is_forgotten_keeps_the_first_block_that_stays() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(dir.path());
        let blocks: Vec<Block> = (1..=3).map(|first| block(first, &["a.x"])).collect();
        ledger.store(1, &blocks).unwrap();
        // Compacted files that end with the first block that stays.
        for name in [CF_BLOCKS, CF_BLOCK_META] {
            let column = family(&ledger.db, name).unwrap();
            ledger.db.flush_cf(column).unwrap();
            ledger.db.compact_range_cf(column, None::<&[u8]>, None::<&[u8]>);
        }
        ledger.store(1, &[block(4, &["a.x"])]).unwrap();
        ledger.store(2, &[block(1, &["b.x"])]).unwrap();
        assert!(ledger.forget(1, 3, false).unwrap());
        assert!(ledger.records(1, 2).is_err() && ledger.records(1, 3).is_ok() && ledger.records(1, 4).is_ok());
        assert!(ledger.forget(1, 3, true).unwrap());
        assert!(ledger.records(1, 3).is_err() && ledger.records(2, 1).is_ok());
    }

    #[test]
    fn a_block_is_found_by_any_sequence_inside_it_and_passed_by_when_its_filter_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(dir.path());
        ledger.store(1, &[block(1, &["a.x", "a.y"]), block(3, &["a.z"])]).unwrap();
        ledger.store(2, &[block(1, &["b.x"])]).unwrap();
        let found = |sequence, pattern: Option<&str>| {
            let pattern = pattern.map(|text| Pattern::parse(text).unwrap());
            ledger.seek(1, sequence, pattern.as_ref()).unwrap().map(|found| found.first)
        };
        assert_eq!([found(1, None), found(2, None), found(3, None), found(4, None)], [Some(1), Some(1), Some(3), None]);
        assert_eq!(found(1, Some("a.z")), Some(3));
        assert_eq!(found(1, Some("a.none")), None);
        assert_eq!((ledger.settled(1), ledger.settled(2), ledger.settled(3)), (4, 2, 0));
    }

    #[test]
    fn what_was_settled_is_known_after_reopening_and_a_small_block_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        ledger(dir.path()).store(1, &[block(1, &["a.x", "a.y"])]).unwrap();
        let ledger = ledger(dir.path());
        assert_eq!(ledger.settled(1), 3);
        let mut builder = ledger.reopen_last(1).unwrap().unwrap();
        let mut record = Vec::new();
        Event { subject: "a.z", ..Event::default() }.encode(&mut record).unwrap();
        builder.push("a.z", &record, 9);
        ledger.store(1, &[builder.finish().unwrap()]).unwrap();
        assert_eq!((ledger.settled(1), ledger.seek(1, 3, None).unwrap().unwrap().first), (4, 1));
    }

    #[test]
    fn forgetting_takes_whole_blocks_only() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(dir.path());
        ledger.store(1, &[block(1, &["a.x", "a.y"]), block(3, &["a.z"])]).unwrap();
        assert!(!ledger.forget(1, 2, false).unwrap(), "the first block still holds a visible event");
        assert!(ledger.forget(1, 3, false).unwrap());
        assert_eq!(ledger.seek(1, 0, None).unwrap().unwrap().first, 3);
        assert!(ledger.forget(1, 99, true).unwrap());
        assert!(ledger.seek(1, 0, None).unwrap().is_none());
    }

    #[test]
    fn a_damaged_block_is_an_error() {
        let mut value = block(1, &["a.x"]).value;
        assert!(unpack(&value).is_ok());
        let last = value.len() - 1;
        value[last] ^= 1;
        assert!(unpack(&value).is_err());
        assert!(unpack(&value[..5]).is_err());
    }
}
