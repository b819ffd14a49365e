//! Opens the three RocksDB instances of a node: all names and options in one place.
//!
//! - `raft`: the log and the vote. Every write is synced. The journal, and the store of recent events.
//! - `state`: effects of applied entries. Never synced by itself: flushed before the log is purged.
//! - `ledger`: settled events in compressed blocks.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, Options, WriteOptions,
};
use rollbook_core::rows::Family;

use super::disk;
use super::files;
use crate::error::{NodeError, ReadError};
use crate::lab_faults::Bug;

/// Column family of the log: group, index -> entry.
pub(crate) const CF_LOG: &str = "log";
/// Column family of vote, purged and committed marks.
pub(crate) const CF_META: &str = "meta";
/// Both.
pub(crate) const LOG_FAMILIES: [&str; 2] = [CF_LOG, CF_META];
/// Column family of the state database for applied index, membership, and how far each namespace is settled.
pub(crate) const CF_SYSTEM: &str = "system";
/// Column family of the ledger: namespace, first sequence -> compressed block.
pub(crate) const CF_BLOCKS: &str = "blocks";
/// Column family of the ledger: namespace, first sequence -> what the block holds.
pub(crate) const CF_BLOCK_META: &str = "block_meta";

/// All of rollbook is one raft group for now; every key starts with its number.
pub(crate) const GROUP: u32 = 0;

const FORMAT: &str = "rollbook data 1";
/// The text before the checksum of a small file.
const SEAL: &str = "crc32c ";
/// Length of the id of a cluster.
const CLUSTER_ID_BYTES: usize = 32;
const MIB: usize = 1 << 20;

/// The paths of the parts of a data directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
    /// Held as long as anybody uses the directory: what looks torn may be a log that another node writes.
    _lock: Arc<fs::File>,
}

impl Layout {
    /// Creates the directory when it is not there, and checks that this node may use it.
    pub(crate) fn open(root: &Path, node: u64) -> Result<Self, NodeError> {
        let wrap = |source| NodeError::Directory { path: root.to_path_buf(), source };
        fs::create_dir_all(root).map_err(wrap)?;
        let file = root.join("FORMAT");
        if !file.exists() {
            create_format(root, &file, node).map_err(wrap)?;
        }
        let lock = fs::File::open(&file).map_err(wrap)?;
        let found = fs::read_to_string(&file).map_err(wrap)?;
        let unborn = found.is_empty() && !root.join("raft").exists();
        if !unborn {
            check_format(root, &found, node)?;
        }
        lock.try_lock().map_err(|_| NodeError::InUse(root.to_path_buf()))?;
        if unborn {
            // An earlier release was cut off at the first start of this node. The file itself stays: it is locked.
            let write = || {
                let mut out = fs::OpenOptions::new().write(true).open(&file)?;
                out.write_all(format_of(node).as_bytes())?;
                out.sync_all()
            };
            write().map_err(wrap)?;
        }
        Ok(Self { root: root.to_path_buf(), _lock: Arc::new(lock) })
    }

    /// The node number that a directory was made for.
    pub(crate) fn recorded_node(root: &Path) -> Option<u64> {
        owner_of(&fs::read_to_string(root.join("FORMAT")).ok()?)
    }

    pub(crate) fn raft(&self) -> PathBuf {
        self.root.join("raft")
    }

    /// Directory of the state database of a generation.
    pub(crate) fn state(&self, generation: u64) -> PathBuf {
        self.root.join(format!("state-{generation}"))
    }

    /// Directory of the ledger of a generation.
    pub(crate) fn ledger(&self, generation: u64) -> PathBuf {
        self.root.join(format!("ledger-{generation}"))
    }

    /// Which state and ledger are the present ones; an installed snapshot is the next generation.
    pub(crate) fn generation(&self) -> Result<u64, NodeError> {
        let name = "GENERATION";
        self.read_text(name)?.map_or(Ok(0), |text| text.parse().map_err(|_| self.damaged(name)))
    }

    /// Makes another generation the present one, atomically.
    pub(crate) fn set_generation(&self, generation: u64) -> Result<(), NodeError> {
        self.write_text("GENERATION", &generation.to_string())
    }

    /// Replaces a small file by a text and a line with the checksum of the text.
    fn write_text(&self, name: &str, text: &str) -> Result<(), NodeError> {
        let (path, draft) = (self.root.join(name), self.root.join(format!("{name}.new")));
        let text = text.trim();
        let sealed = format!("{text}\n{SEAL}{:08x}\n", crc32c::crc32c(text.as_bytes()));
        let write = || {
            write_draft(&draft, &sealed)?;
            fs::rename(&draft, &path)?;
            sync_directory(&self.root)
        };
        write().map_err(|source| NodeError::Directory { path: path.clone(), source })
    }

    /// Reads such a file. One without a checksum was written by hand, or by an earlier release.
    fn read_text(&self, name: &str) -> Result<Option<String>, NodeError> {
        let path = self.root.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(NodeError::Directory { path, source }),
        };
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default().trim();
        let good = lines.next().is_none_or(|seal| {
            let sum = seal.strip_prefix(SEAL).and_then(|sum| u32::from_str_radix(sum, 16).ok());
            sum == Some(crc32c::crc32c(first.as_bytes()))
        });
        if good { Ok(Some(first.to_owned())) } else { Err(self.damaged(name)) }
    }

    fn damaged(&self, name: &str) -> NodeError {
        NodeError::Directory { path: self.root.join(name), source: std::io::Error::other("damaged") }
    }

    /// Id of the cluster that this directory belongs to.
    pub(crate) fn cluster_id(&self) -> Result<Option<String>, NodeError> {
        let name = "CLUSTER";
        match self.read_text(name)? {
            Some(id) if id.len() != CLUSTER_ID_BYTES || !id.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Err(self.damaged(name))
            }
            id => Ok(id),
        }
    }

    /// Records that this directory belongs to that cluster.
    pub(crate) fn set_cluster_id(&self, cluster_id: &str) -> Result<(), NodeError> {
        self.write_text("CLUSTER", &format!("{cluster_id}\n"))
    }

    /// Counts the lives of this node.
    pub(crate) fn next_incarnation(&self) -> Result<u64, NodeError> {
        let name = "INCARNATION";
        let present: u64 = self.read_text(name)?.map_or(Ok(0), |text| text.parse().map_err(|_| self.damaged(name)))?;
        let next = present.saturating_add(1);
        self.write_text(name, &format!("{next}\n"))?;
        Ok(next)
    }

    /// Notes that a generation came as a snapshot up to the entry before `next`: its log need not reach there.
    pub(crate) fn note_installed(&self, generation: u64, next: u64) -> Result<(), NodeError> {
        self.write_text("INSTALLED", &format!("{generation} {next}\n"))
    }

    /// Behind which entry the snapshot ended that the present generation came as; 0 when it did not.
    pub(crate) fn installed(&self) -> Result<u64, NodeError> {
        let text = self.read_text("INSTALLED")?.unwrap_or_default();
        let numbers: Vec<u64> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
        match numbers.as_slice() {
            [generation, next] if *generation == self.generation()? => Ok(*next),
            _ => Ok(0),
        }
    }

    /// Where the files of snapshots gather, a directory for each sender.
    pub(crate) fn arriving(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// Where the files of a snapshot from that node gather.
    pub(crate) fn incoming(&self, from: u64) -> PathBuf {
        self.arriving().join(from.to_string())
    }

    /// Directories that are being removed.
    pub(crate) fn discarded(&self) -> PathBuf {
        self.root.join("discarded")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn mark(&self) -> PathBuf {
        self.root.join("MARK")
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

fn format_of(node: u64) -> String {
    format!("{FORMAT}\nnode {node}\n")
}

fn write_draft(draft: &Path, text: &str) -> std::io::Result<()> {
    let mut out = fs::File::create(draft)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()
}

/// Creates the file whole or not at all. It is never replaced: of two processes that start at once, both must lock
/// the same file.
fn create_format(root: &Path, file: &Path, node: u64) -> std::io::Result<()> {
    // A name of its own: two containers on one volume may have the same process number.
    let draft = root.join(format!("FORMAT.{}", uuid::Uuid::new_v4().simple()));
    write_draft(&draft, &format_of(node))?;
    let linked = match fs::hard_link(&draft, file) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    };
    fs::remove_file(&draft)?;
    linked?;
    sync_directory(root)
}

fn check_format(root: &Path, found: &str, node: u64) -> Result<(), NodeError> {
    if found.lines().next() != Some(FORMAT) {
        return Err(NodeError::Format { path: root.to_path_buf(), found: found.trim().to_owned(), known: FORMAT });
    }
    match owner_of(found) {
        Some(found) if found != node => Err(NodeError::NodeId { path: root.to_path_buf(), found, configured: node }),
        _ => Ok(()),
    }
}

fn owner_of(format: &str) -> Option<u64> {
    format.lines().nth(1)?.strip_prefix("node ")?.parse().ok()
}

pub(crate) fn sync_directory(path: &Path) -> std::io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Bytes of a piece of a filter or index.
const METADATA_BLOCK_BYTES: usize = 4096;

fn base_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(MIB);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    options.set_max_open_files(files::store_max());
    // Each open starts so many threads, 16 by default. The stores have few files, and tests open them thousands of times.
    options.set_max_file_opening_threads(1);
    options
}

fn cached(cache: &Cache, compression: DBCompressionType) -> Options {
    tabled(BlockBasedOptions::default(), cache, compression)
}

/// Of a database that can have very many files: what is kept of each in memory counts against the cache.
fn bounded(cache: &Cache, compression: DBCompressionType) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // In pieces: the filter of a file with a million keys is larger than a shard of the cache, and each look for a key
    // would read all of it.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(METADATA_BLOCK_BYTES);
    table.set_pin_top_level_index_and_filter(true);
    tabled(table, cache, compression)
}

fn tabled(mut table: BlockBasedOptions, cache: &Cache, compression: DBCompressionType) -> Options {
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(compression);
    options
}

fn raft_options() -> (Options, [(&'static str, Options); 2]) {
    let mut options = base_options();
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_use_direct_io_for_flush_and_compaction(true);
    options.set_max_total_wal_size(64 << 20);
    let cache = Cache::new_lru_cache(8 * MIB);
    let mut log = cached(&cache, DBCompressionType::None);
    log.set_write_buffer_size(32 * MIB);
    log.set_max_write_buffer_number(4);
    let mut meta = cached(&cache, DBCompressionType::None);
    meta.set_write_buffer_size(MIB);
    (options, [(CF_LOG, log), (CF_META, meta)])
}

/// Opens the raft database. Recovery never drops what was not torn off the end: any other damage is an error.
pub(crate) fn open_raft(path: &Path) -> Result<DB, rocksdb::Error> {
    let (options, families) = raft_options();
    DB::open_cf_descriptors(&options, path, families.map(|(name, options)| ColumnFamilyDescriptor::new(name, options)))
}

/// Whether the raft database has all its families: a first start may have been cut short before that.
pub(crate) fn is_complete_raft(path: &Path) -> bool {
    let (options, families) = raft_options();
    let found = DB::list_cf(&options, path);
    found.map_or(true, |found| families.iter().all(|(name, _)| found.iter().any(|other| other == name)))
}

/// Opens the raft database without changing a byte, to check the database before it is opened for writing.
pub(crate) fn look_at_raft(path: &Path) -> Result<DB, rocksdb::Error> {
    let (options, families) = raft_options();
    let families = families.map(|(name, options)| ColumnFamilyDescriptor::new(name, options));
    DB::open_cf_descriptors_read_only(&options, path, families, false)
}

/// Opens the state database. It has no write-ahead log: all families are flushed together.
pub(crate) fn open_state(path: &Path) -> Result<DB, rocksdb::Error> {
    let mut options = base_options();
    options.set_atomic_flush(true);
    options.set_db_write_buffer_size(64 * MIB);
    let cache = Cache::new_lru_cache(32 * MIB);
    let family = |name| {
        let mut options = bounded(&cache, DBCompressionType::Lz4);
        options.set_write_buffer_size(32 * MIB);
        ColumnFamilyDescriptor::new(name, options)
    };
    let names = Family::ALL.into_iter().map(Family::name).chain([CF_SYSTEM]);
    DB::open_cf_descriptors(&options, path, names.map(family))
}

/// Opens the ledger.
pub(crate) fn open_ledger(path: &Path) -> Result<DB, rocksdb::Error> {
    let mut options = base_options();
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_max_total_wal_size(16 << 20);
    let cache = Cache::new_lru_cache(32 * MIB);
    let family = |(name, size)| {
        let mut options = ledger_options(&cache);
        options.set_write_buffer_size(size);
        ColumnFamilyDescriptor::new(name, options)
    };
    DB::open_cf_descriptors(&options, path, [(CF_BLOCKS, 8 * MIB), (CF_BLOCK_META, 2 * MIB)].map(family))
}

/// Options of the ledger's families, which the files that are ingested into them share. Blocks are
/// compressed by us, so that one is read with one decompression.
pub(crate) fn ledger_options(cache: &Cache) -> Options {
    let mut options = bounded(cache, DBCompressionType::None);
    // Blocks that are forgotten one by one: a file of which half is gone is compacted.
    options.add_compact_on_deletion_collector_factory(128, 64, 0.5);
    options
}

/// Refuses a flush of these families when there is no room for what they have in memory.
pub(crate) fn room_for_memtables(db: &DB, names: impl Iterator<Item = &'static str>) -> Result<(), ReadError> {
    let mut bytes = 0_u64;
    for name in names {
        let waits = db.property_int_value_cf(family(db, name)?, "rocksdb.cur-size-all-mem-tables")?;
        bytes = bytes.saturating_add(waits.unwrap_or_default());
    }
    disk::require(db.path(), bytes)
}

/// A column family that was opened above.
pub(crate) fn family<'a>(db: &'a DB, name: &'static str) -> Result<&'a ColumnFamily, ReadError> {
    db.cf_handle(name).ok_or_else(|| ReadError(format!("column family {name} is not open")))
}

/// Options of a write that is on the disk when it returns.
pub(crate) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// Options of a write to the raft log, which is on the disk when it returns.
pub(crate) fn journaled() -> WriteOptions {
    if Bug::AckBeforeFsync.is_on() { WriteOptions::default() } else { synced() }
}

/// Options of a write that only the log makes durable.
pub(crate) fn unlogged() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

/// Turns an error of RocksDB during opening into an error that names the directory.
pub(crate) fn open_error(store: &'static str, root: &Path, error: &rocksdb::Error) -> NodeError {
    let detail = error.to_string();
    if detail.contains("lock ") || detail.contains("LOCK") {
        return NodeError::InUse(root.to_path_buf());
    }
    NodeError::Store { store, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_that_is_damaged_is_refused_and_one_written_by_hand_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open(directory.path(), 1).unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(layout.cluster_id().unwrap(), None);
        layout.set_cluster_id(id).unwrap();
        assert_eq!(layout.cluster_id().unwrap().as_deref(), Some(id));
        let path = directory.path().join("CLUSTER");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() - 1 {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            assert!(layout.cluster_id().is_err(), "byte {at}");
        }
        fs::write(&path, &good[..17]).unwrap();
        assert!(layout.cluster_id().is_err(), "cut");
        fs::write(&path, format!("{id}\n")).unwrap();
        assert_eq!(layout.cluster_id().unwrap().as_deref(), Some(id));
        assert_eq!((layout.next_incarnation().unwrap(), layout.next_incarnation().unwrap()), (1, 2));
    }

    #[test]
    fn the_format_file_is_there_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let format = root.join("FORMAT");
        drop(Layout::open(root, 7).unwrap());
        assert_eq!(fs::read_to_string(&format).unwrap(), "rollbook data 1\nnode 7\n");
        let files: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, ["FORMAT"]);
        // A release before this one was cut off at its first start: nothing is in the directory yet.
        fs::write(&format, "").unwrap();
        let layout = Layout::open(root, 7).unwrap();
        assert!(matches!(Layout::open(root, 7), Err(NodeError::InUse(_))));
        drop(layout);
        assert_eq!(Layout::recorded_node(root), Some(7));
        // With a log in it, nobody knows whose it is.
        fs::create_dir(root.join("raft")).unwrap();
        fs::write(&format, "").unwrap();
        assert!(matches!(Layout::open(root, 7), Err(NodeError::Format { .. })));
    }

    #[test]
    fn of_processes_that_start_at_once_one_gets_the_directory() {
        for _ in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let opened: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| Layout::open(directory.path(), 1))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 1, "{opened:?}");
        }
    }
}
