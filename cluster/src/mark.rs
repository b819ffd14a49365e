//! The high-water mark: how far the log was acknowledged, kept outside the log.
//!
//! RocksDB opens a log whose end is missing without a word, so the end must be known
//! from elsewhere. Two slots are written in turn, so that a torn write leaves the other.
//! The file is written before the acknowledgement of every group of entries, which is
//! exact for a killed process and for files damaged while the node is down; it is synced
//! to the disk once a second and on a clean stop, so after a power cut it may be that
//! much behind, never ahead.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const SLOT_BYTES: usize = 64;
const MAGIC: u32 = 0x726b_6d31;

/// What was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    /// Index of the last entry that is synced, counted from 1; 0 means none.
    pub(crate) next_index: u64,
    /// Term of the last vote that is synced.
    pub(crate) vote_term: u64,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct MarkFile {
    file: File,
    serial: u64,
    mark: Mark,
    dirty: bool,
}

impl MarkFile {
    /// Opens the file, or creates it for a new node.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut best = None;
        for slot in 0..2_u64 {
            let mut bytes = [0; SLOT_BYTES];
            if file.read_exact_at(&mut bytes, slot * 64).is_ok() {
                best = best.max(decode(&bytes));
            }
        }
        let (serial, next_index, vote_term) = best.unwrap_or_default();
        Ok(Self { file, serial, mark: Mark { next_index, vote_term }, dirty: false })
    }

    /// What it says.
    pub(crate) const fn get(&self) -> Mark {
        self.mark
    }

    /// Replaces the mark in the page cache.
    pub(crate) fn set(&mut self, mark: Mark) -> io::Result<()> {
        if mark == self.mark {
            return Ok(());
        }
        self.serial = self.serial.wrapping_add(1);
        self.mark = mark;
        self.dirty = true;
        self.file.write_all_at(&encode(self.serial, mark), self.serial % 2 * 64)
    }

    /// Brings the mark to the disk.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.dirty) {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

fn encode(serial: u64, mark: Mark) -> [u8; SLOT_BYTES] {
    let mut out = [0; SLOT_BYTES];
    let fields = [u64::from(MAGIC), serial, mark.next_index, mark.vote_term];
    for (slot, field) in out.chunks_exact_mut(8).zip(fields) {
        slot.copy_from_slice(&field.to_le_bytes());
    }
    let checksum = crc32c::crc32c(out.get(..32).unwrap_or_default());
    if let Some(slot) = out.get_mut(32..36) {
        slot.copy_from_slice(&checksum.to_le_bytes());
    }
    out
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<(u64, u64, u64)> {
    let covered = bytes.get(..32)?;
    if crc32c::crc32c(covered).to_le_bytes().as_slice() != bytes.get(32..36)? {
        return None;
    }
    let mut fields = covered.chunks_exact(8).filter_map(|field| field.first_chunk()).map(|f| u64::from_le_bytes(*f));
    (fields.next()? == u64::from(MAGIC)).then_some(())?;
    Some((fields.next()?, fields.next()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_mark_is_read_back_and_a_torn_one_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("MARK");
        let mut file = MarkFile::open(&path).unwrap();
        assert_eq!(file.get(), Mark::default());
        for next_index in 1..=5 {
            file.set(Mark { next_index, vote_term: 2 }).unwrap();
        }
        file.sync().unwrap();
        assert_eq!(MarkFile::open(&path).unwrap().get(), Mark { next_index: 5, vote_term: 2 });
        file.file.write_all_at(&[0xff; 7], 64 + 9).unwrap();
        assert_eq!(MarkFile::open(&path).unwrap().get(), Mark { next_index: 4, vote_term: 2 });
    }
}
