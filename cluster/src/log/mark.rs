//! The high-water mark: how far the log was acknowledged, kept outside the log.
//!
//! RocksDB opens a log whose end is missing without a word, so the end must be known
//! from elsewhere. Two slots are written in turn, a page apart, so that a write that was
//! torn or lost leaves the other. The file is written before the acknowledgement of every
//! group of entries, which is exact for a killed process and for files damaged while the
//! node is down; the file is synced once a second and on a clean stop, so after a power cut
//! the mark may be that much behind, never ahead: before entries are truncated, the lower
//! mark is synced.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::store::layout::sync_directory;
use crate::types::LogId;

const SLOT_BYTES: usize = 64;
/// Offsets of the two slots. No sector and no page holds both, so one damaged write cannot destroy both.
const SLOTS: [u64; 2] = [0, 4096];
/// Offset of the second slot of an earlier release.
const OLD_SLOT: u64 = 64;
const MAGIC: u32 = 0x726b_6d31;

/// The last log index and vote that the node has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    /// Index of the last entry that is synced, counted from 1; 0 means none.
    pub(crate) next_index: u64,
    /// Term of that entry: an older entry at the same index is not the acknowledged one. An earlier release did not
    /// note the term.
    pub(crate) last_term: Option<u64>,
    /// Term of the last vote that is synced.
    pub(crate) vote_term: u64,
}

impl Mark {
    /// The log ends with this entry now.
    pub(crate) fn end_with(&mut self, last: Option<LogId>) {
        self.next_index = last.map_or(0, |last| last.index.saturating_add(1));
        self.last_term = last.map(|last| last.leader_id.term);
    }
}

/// The content of a mark file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// There is no file.
    Absent,
    /// The file has no byte: an earlier release left it like this before its first write to the log.
    Empty,
    /// No slot has a right checksum.
    Unreadable,
    /// The newest slot.
    Known(u64, Mark),
}

impl Stored {
    /// What is wrong with a file that does not say how far the log was acknowledged, for people.
    pub(crate) const fn what(self) -> &'static str {
        if matches!(self, Self::Absent) { "is missing" } else { "cannot be read" }
    }
}

/// Reads a file without changing it.
pub(crate) fn read(path: &Path) -> io::Result<Stored> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::Absent),
        Err(error) => return Err(error),
    };
    let mut newest = None;
    for at in SLOTS.into_iter().chain([OLD_SLOT]) {
        let mut bytes = [0; SLOT_BYTES];
        match file.read_exact_at(&mut bytes, at) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(error) => return Err(error),
        }
        let slot = decode(&bytes);
        if slot.map(|(serial, _)| serial) >= newest.map(|(serial, _)| serial) {
            newest = slot;
        }
    }
    Ok(match newest {
        Some((serial, mark)) => Stored::Known(serial, mark),
        None if file.metadata()?.len() == 0 => Stored::Empty,
        None => Stored::Unreadable,
    })
}

/// The open file.
#[derive(Debug)]
pub(crate) struct MarkFile {
    file: File,
    serial: u64,
    mark: Mark,
    dirty: bool,
    /// Gets a copy of what was synced, so that a test can cut the power.
    #[cfg(test)]
    disk: std::path::PathBuf,
}

impl MarkFile {
    /// Replaces the file, atomically: both slots say the same. `serial` is that of the slot that was read.
    pub(crate) fn begin(path: &Path, serial: u64, mark: Mark) -> io::Result<Self> {
        let draft = path.with_extension("new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&draft)?;
        let mut begun = Self {
            file,
            serial,
            mark,
            dirty: false,
            #[cfg(test)]
            disk: path.with_extension("disk"),
        };
        begun.write_both()?;
        begun.sync()?;
        fs::rename(&draft, path)?;
        sync_directory(path.parent().unwrap_or(Path::new(".")))?;
        Ok(begun)
    }

    /// The present mark.
    pub(crate) const fn get(&self) -> Mark {
        self.mark
    }

    /// Replaces the mark in the page cache.
    pub(crate) fn set(&mut self, mark: Mark) -> io::Result<()> {
        if mark == self.mark {
            return Ok(());
        }
        self.mark = mark;
        self.write()
    }

    /// Replaces the mark by one that may be lower: neither slot says more afterwards. To be synced before the
    /// entries go.
    pub(crate) fn lower(&mut self, mark: Mark) -> io::Result<()> {
        self.mark = mark;
        self.write_both()
    }

    fn write_both(&mut self) -> io::Result<()> {
        self.write()?;
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        self.serial = self.serial.wrapping_add(1);
        self.dirty = true;
        let [even, odd] = SLOTS;
        self.file.write_all_at(&encode(self.serial, self.mark), if self.serial.is_multiple_of(2) { even } else { odd })
    }

    /// Brings the mark to the disk.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.dirty) {
            self.file.sync_data()?;
            #[cfg(test)]
            {
                let mut bytes = vec![0; usize::try_from(self.file.metadata()?.len()).unwrap()];
                self.file.read_exact_at(&mut bytes, 0)?;
                fs::write(&self.disk, bytes)?;
            }
        }
        Ok(())
    }
}

/// `magic | serial | next index | term of the vote | crc32c | term of the last entry | crc32c of all before`; release
/// 0.1.0 knows the part up to the first checksum.
fn encode(serial: u64, mark: Mark) -> [u8; SLOT_BYTES] {
    let mut out = [0; SLOT_BYTES];
    let fields = [u64::from(MAGIC), serial, mark.next_index, mark.vote_term];
    for (slot, field) in out.chunks_exact_mut(8).zip(fields) {
        slot.copy_from_slice(&field.to_le_bytes());
    }
    seal(&mut out, 32);
    if let Some(term) = mark.last_term {
        if let Some(slot) = out.get_mut(36..44) {
            slot.copy_from_slice(&term.to_le_bytes());
        }
        seal(&mut out, 44);
    }
    out
}

fn seal(out: &mut [u8; SLOT_BYTES], length: usize) {
    let checksum = crc32c::crc32c(out.get(..length).unwrap_or_default());
    if let Some(slot) = out.get_mut(length..length.saturating_add(4)) {
        slot.copy_from_slice(&checksum.to_le_bytes());
    }
}

fn is_sealed(bytes: &[u8; SLOT_BYTES], length: usize) -> Option<bool> {
    let checksum = crc32c::crc32c(bytes.get(..length)?).to_le_bytes();
    Some(checksum.as_slice() == bytes.get(length..length.saturating_add(4))?)
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<(u64, Mark)> {
    is_sealed(bytes, 32)?.then_some(())?;
    let mut fields =
        bytes.get(..32)?.chunks_exact(8).filter_map(|field| field.first_chunk()).map(|f| u64::from_le_bytes(*f));
    (fields.next()? == u64::from(MAGIC)).then_some(())?;
    let (serial, next_index, vote_term) = (fields.next()?, fields.next()?, fields.next()?);
    let rest = bytes.get(36..)?;
    let last_term = if rest.iter().all(|byte| *byte == 0) {
        None
    } else {
        is_sealed(bytes, 44)?.then_some(())?;
        Some(u64::from_le_bytes(*rest.first_chunk()?))
    };
    Some((serial, Mark { next_index, last_term, vote_term }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(next_index: u64) -> Mark {
        Mark { next_index, last_term: Some(3), vote_term: 2 }
    }

    fn stored(path: &Path) -> Option<Mark> {
        match read(path).unwrap() {
            Stored::Known(_, mark) => Some(mark),
            Stored::Absent | Stored::Empty | Stored::Unreadable => None,
        }
    }

    #[test]
    fn the_newest_mark_is_read_back_and_a_sector_that_is_lost_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("MARK");
        assert_eq!(read(&path).unwrap(), Stored::Absent);
        let mut file = MarkFile::begin(&path, 0, Mark::default()).unwrap();
        assert_eq!(stored(&path), Some(Mark::default()));
        for next_index in 1..=5 {
            file.set(mark(next_index)).unwrap();
            assert_eq!(stored(&path), Some(mark(next_index)));
        }
        file.sync().unwrap();
        let whole = fs::read(&path).unwrap();
        // Each sector of a common disk, and each page, with whatever a torn write may leave there.
        for bytes in [512, 4096] {
            for (sector, _) in whole.chunks(bytes).enumerate() {
                for garbage in [0, 0xff] {
                    let mut torn = whole.clone();
                    torn.chunks_mut(bytes).nth(sector).unwrap().fill(garbage);
                    fs::write(&path, &torn).unwrap();
                    let left = stored(&path).unwrap_or_else(|| panic!("sector {sector} of {bytes}: nothing is left"));
                    assert!(left.next_index >= 4, "sector {sector} of {bytes}: {left:?}");
                }
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_never_another_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("MARK");
        let mut file = MarkFile::begin(&path, 0, mark(7)).unwrap();
        file.set(mark(8)).unwrap();
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            let left = stored(&path).unwrap();
            assert!(left == mark(7) || left == mark(8), "bit {bit}: {left:?}");
        }
        fs::write(&path, [1; 9000]).unwrap();
        assert_eq!(read(&path).unwrap(), Stored::Unreadable);
        fs::write(&path, []).unwrap();
        assert_eq!(read(&path).unwrap(), Stored::Empty);
    }

    #[test]
    fn no_slot_says_more_than_a_lower_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("MARK");
        let mut file = MarkFile::begin(&path, 0, mark(100)).unwrap();
        file.lower(mark(50)).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in SLOTS {
            let mut torn = whole.clone();
            torn[usize::try_from(at).unwrap()..][..SLOT_BYTES].fill(0);
            fs::write(&path, &torn).unwrap();
            assert_eq!(stored(&path), Some(mark(50)));
        }
    }

    /// As an earlier release wrote slots: 64 bytes apart, without the term of the last entry.
    fn old_slot(serial: u64, next_index: u64) -> [u8; SLOT_BYTES] {
        encode(serial, Mark { next_index, last_term: None, vote_term: 2 })
    }

    #[test]
    fn a_file_of_an_earlier_release_is_read_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("MARK");
        for (first, second, newest) in [(4, 5, 5), (6, 5, 6)] {
            fs::write(&path, [old_slot(first, first), old_slot(second, second)].concat()).unwrap();
            let Stored::Known(serial, old) = read(&path).unwrap() else { panic!("not read") };
            assert_eq!((serial, old), (newest, Mark { next_index: newest, last_term: None, vote_term: 2 }));
            let mut file = MarkFile::begin(&path, serial, old).unwrap();
            file.set(mark(9)).unwrap();
            assert_eq!(stored(&path), Some(mark(9)));
            assert!(fs::read(&path).unwrap()[64..128].iter().all(|byte| *byte == 0), "the old slot is gone");
        }
    }
}
