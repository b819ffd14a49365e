//! What the raft database holds, and how it is opened: a tail that was torn is cut, any other damage is refused.

use std::fs;
use std::io;
use std::path::Path;

use rocksdb::{DB, Direction, ErrorKind, IteratorMode};

use super::mark::{self, Mark, MarkFile, Stored};
use super::scan;
use crate::codec;
use crate::error::{NodeError, ReadError};
use crate::lab_faults::Bug;
use crate::store::complete;
use crate::store::layout::{self, CF_LOG, CF_META, GROUP, Layout, family, sync_directory};
use crate::types::{LogId, Vote};

/// Key of the row of CF_META for vote (`v`), purged (`p`) or committed (`c`).
pub(crate) fn meta_key(kind: u8) -> Vec<u8> {
    let mut key = GROUP.to_be_bytes().to_vec();
    key.push(kind);
    key
}

/// Key of an entry.
pub(crate) fn entry_key(index: u64) -> Vec<u8> {
    let mut key = GROUP.to_be_bytes().to_vec();
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// Index of the entry with that key.
pub(crate) fn key_index(key: &[u8]) -> Option<u64> {
    let (group, index) = key.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*group) == GROUP).then_some(())?;
    index.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The state of the log that openraft may ask for at any moment: kept in memory, so that no read is needed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
    pub(crate) committed: Option<LogId>,
}

impl Known {
    /// How far log and vote reach.
    pub(crate) fn reach(&self) -> Mark {
        let vote_term = self.vote.as_ref().map_or(0, |vote| vote.leader_id.term);
        let mut mark = Mark { vote_term, ..Mark::default() };
        mark.end_with(self.last);
        mark
    }
}

/// The open raft database.
pub(crate) struct Opened {
    pub(crate) db: DB,
    pub(crate) known: Known,
    pub(crate) mark: MarkFile,
}

/// Opens the log of a node. A tail that was torn and never acknowledged is cut; anything else is refused, and a
/// refusal leaves every file as it was.
pub(crate) fn open(layout: &Layout, accept_lost_mark: bool) -> Result<Opened, NodeError> {
    let path = layout.mark();
    let failed = |source| NodeError::Directory { path: path.clone(), source };
    let begin = |serial, mark| MarkFile::begin(&path, serial, mark).map_err(failed);
    let stored = mark::read(&path).map_err(failed)?;
    let serial = if let Stored::Known(serial, _) = stored { serial } else { 0 };
    let promised = match (stored, layout.raft().join("CURRENT").exists()) {
        (Stored::Known(_, mark), _) => mark,
        (Stored::Absent | Stored::Empty, false) => {
            // A new node. The mark is on the disk before there is a log, so that a log without one has lost it.
            begin(serial, Mark::default())?;
            Mark::default()
        }
        (Stored::Empty, true) if is_blank(&layout.raft()) => Mark::default(),
        _ if Bug::LostMarkAccepted.is_on() => Mark::default(),
        (lost, _) if accept_lost_mark => {
            tracing::warn!(path = %path.display(), what = lost.what(), "the high-water mark is lost, and was asked to be accepted as lost: \
                acknowledged entries that are missing at the end of the raft log stay unnoticed");
            Mark::default()
        }
        (lost, _) => {
            return Err(NodeError::LostMark { path, what: lost.what() });
        }
    };
    let db = open_checked(layout, promised)?;
    let known = load(&db).map_err(|error| corrupt(&layout.raft(), &error.to_string()))?;
    // The entries that were found count as acknowledged from now on.
    let mark = begin(serial, known.reach())?;
    Ok(Opened { db, known, mark })
}

/// Opens the database when it keeps what was promised.
fn open_checked(layout: &Layout, promised: Mark) -> Result<DB, NodeError> {
    let path = layout.raft();
    let open = || complete::opened("raft", layout.root(), layout::open_raft(&path));
    if !path.join("CURRENT").exists() {
        if promised != Mark::default() {
            return Err(truncated(&path, Mark::default(), promised));
        }
        return open();
    }
    // Our own scan comes first: RocksDB's reader was seen to loop for ever on garbage behind the last record.
    if let Ok(Some(scan)) = scan::first_damage(&path)
        && let Some(damage) = scan.damage
    {
        let newest = scan::log_files(&path).ok().and_then(|mut files| files.pop());
        if newest.as_ref() != Some(&scan.file) {
            return Err(corrupt(&path, damage));
        }
        let cut = cut_torn_tail(&path, &scan, promised);
        let cut = cut.map_err(|source| NodeError::Directory { path: path.clone(), source })?;
        return if cut { open() } else { Err(corrupt(&path, damage)) };
    }
    if promised == Mark::default() && !layout::is_complete_raft(&path) {
        // A first start that was cut short before all families were there.
        return open();
    }
    match layout::look_at_raft(&path) {
        Ok(db) => {
            // Here too, where nothing was changed yet.
            complete::check_files(&db).map_err(|detail| corrupt(&path, &detail))?;
            let damaged = |error: ReadError| corrupt(&path, &error.to_string());
            let known = load(&db).map_err(damaged)?;
            if !keeps(&db, &known, promised).map_err(damaged)? {
                return Err(truncated(&path, known.reach(), promised));
            }
            drop(db);
            open()
        }
        Err(error) if error.kind() == ErrorKind::Corruption => Err(corrupt(&path, error.as_ref())),
        Err(error) => Err(layout::open_error("raft", layout.root(), &error)),
    }
}

/// Whether nothing was ever written to the log.
fn is_blank(path: &Path) -> bool {
    let damaged = scan::first_damage(path).map_or(true, |scan| scan.is_some_and(|scan| scan.damage.is_some()));
    if damaged {
        return false;
    }
    let known = || layout::look_at_raft(path).ok().and_then(|db| load(&db).ok());
    !layout::is_complete_raft(path) || known() == Some(Known::default())
}

/// Whether the log has what was acknowledged: the vote, and the last entry, not an older one at its index.
fn keeps(db: &DB, known: &Known, promised: Mark) -> Result<bool, ReadError> {
    if Bug::LogNotCompared.is_on() {
        return Ok(true);
    }
    let found = known.reach();
    if found.next_index < promised.next_index || found.vote_term < promised.vote_term {
        return Ok(false);
    }
    let (Some(last), Some(term)) = (promised.next_index.checked_sub(1), promised.last_term) else { return Ok(true) };
    if known.purged.is_some_and(|purged| purged.index >= last) {
        return Ok(true);
    }
    let Some(value) = db.get_cf(family(db, CF_LOG)?, entry_key(last))? else { return Ok(false) };
    let entry = codec::decode_entry(last, value.into()).map_err(|error| ReadError(error.to_string()))?;
    Ok(entry.log_id.leader_id.term == term)
}

/// Cuts the damaged tail off, when everything that was acknowledged is there without it.
fn cut_torn_tail(directory: &Path, scan: &scan::Scan, promised: Mark) -> io::Result<bool> {
    let trial = directory.with_extension("trial");
    let complete = try_without_tail(directory, &trial, scan, promised);
    if trial.exists() {
        fs::remove_dir_all(&trial)?;
    }
    if !complete? {
        return Ok(false);
    }
    let backup = scan.file.with_extension("torn");
    fs::copy(&scan.file, &backup)?;
    fs::File::open(&backup)?.sync_all()?;
    sync_directory(directory)?;
    cut(&scan.file, scan.valid)?;
    tracing::warn!(file = %scan.file.display(), offset = scan.valid, backup = %backup.display(),
        "the raft log had a torn tail that was never acknowledged; it was cut");
    Ok(true)
}

fn cut(file: &Path, length: u64) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(file)?;
    file.set_len(length)?;
    file.sync_all()
}

/// Looks at a copy that has no tail, so that a refusal leaves everything as it was.
fn try_without_tail(directory: &Path, trial: &Path, scan: &scan::Scan, promised: Mark) -> io::Result<bool> {
    if trial.exists() {
        fs::remove_dir_all(trial)?;
    }
    fs::create_dir_all(trial)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), trial.join(entry.file_name()))?;
        }
    }
    if let Some(name) = scan.file.file_name() {
        cut(&trial.join(name), scan.valid)?;
    }
    let Ok(db) = layout::look_at_raft(trial) else { return Ok(false) };
    Ok(load(&db).and_then(|known| keeps(&db, &known, promised)).unwrap_or(false))
}

fn corrupt(path: &Path, detail: &str) -> NodeError {
    let (file, offset, what) = match scan::first_damage(path) {
        Ok(Some(scan)) if scan.damage.is_some() => {
            (scan.file.display().to_string(), scan.valid, scan.damage.unwrap_or_default())
        }
        _ => (path.display().to_string(), 0, ""),
    };
    let detail = if what.is_empty() || what == detail { detail.to_owned() } else { format!("{what} ({detail})") };
    NodeError::Corrupt { file, offset, detail }
}

fn truncated(path: &Path, found: Mark, promised: Mark) -> NodeError {
    let newest = scan::log_files(path).ok().and_then(|mut files| files.pop());
    let scan = newest.and_then(|file| scan::scan(&file).ok());
    let file = scan.as_ref().map_or_else(|| path.display().to_string(), |scan| scan.file.display().to_string());
    let offset = scan.map_or(0, |scan| scan.valid);
    let (ends, last) = (found.next_index.saturating_sub(1), promised.next_index.saturating_sub(1));
    if found.next_index < promised.next_index {
        return NodeError::Truncated { found: ends, promised: last, file, offset };
    }
    if found.vote_term < promised.vote_term {
        return NodeError::LostVote { found: found.vote_term, promised: promised.vote_term, file, offset };
    }
    let detail = format!("entry {last} is missing or older than the entry {last} that was acknowledged");
    NodeError::Corrupt { file, offset, detail }
}

fn load(db: &DB) -> Result<Known, ReadError> {
    let wrap = |error: io::Error| ReadError(error.to_string());
    let meta = family(db, CF_META)?;
    let read = |kind| db.get_cf(meta, meta_key(kind));
    let vote = read(b'v')?.map(|bytes| codec::decode_vote(&bytes)).transpose().map_err(wrap)?;
    let purged = read(b'p')?.map(|bytes| codec::decode_log_id(&bytes)).transpose().map_err(wrap)?;
    let committed = read(b'c')?.map(|bytes| codec::decode_log_id(&bytes)).transpose().map_err(wrap)?;
    let log = family(db, CF_LOG)?;
    let newest =
        db.iterator_cf(log, IteratorMode::From(&entry_key(u64::MAX), Direction::Reverse)).next().transpose()?;
    let last = match newest.and_then(|(key, value)| Some((key_index(&key)?, value))) {
        Some((index, value)) => Some(codec::decode_entry(index, value.into()).map_err(wrap)?.log_id),
        None => purged,
    };
    Ok(Known { vote, purged, last: last.max(purged), committed })
}
