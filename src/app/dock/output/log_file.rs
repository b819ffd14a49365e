//! One file that a service appends to, and the older files that it is rotated into: `out.log`, `out.log.1` and so on.
//!
//! The service keeps the file open, so rotation cannot rename the file. The agent copies what is old into the next file
//! and then takes the old bytes out of the beginning of the open one. File systems with `FALLOC_FL_COLLAPSE_RANGE` (ext4,
//! xfs) do that in one step. On others the file is truncated, and what the service wrote between the copy and the
//! truncation is lost: microseconds of output, counted as far as the agent can see the bytes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::super::store::builds::discard;

/// How many older files are kept.
const OLDER_FILES: u32 = 4;
/// Removed ranges begin and end at blocks. Larger than the block of every common file system.
const BLOCK: u64 = 64 * 1024;

/// A file that is appended to.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    /// The size from which on the file is rotated, and about the size of older files.
    max_bytes: u64,
}

/// What a rotation took out of the file.
#[derive(Debug)]
pub(crate) struct Rotation {
    /// The bytes that the beginning of the file moved by.
    pub(crate) removed: u64,
    /// Where in the old numbering the newest older file begins.
    pub(crate) older_from: u64,
    /// The newest older file. It ends at `removed` in the old numbering, or before when bytes were lost.
    pub(crate) older: File,
    /// The bytes of the newest older file.
    pub(crate) older_bytes: u64,
}

impl LogFile {
    /// Opens or makes a file.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub(crate) fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
        Ok(Self { path: path.to_owned(), file, max_bytes })
    }

    /// A handle for a service, which can only append.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub(crate) fn writer(&self) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The present size.
    pub(crate) fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Reads from `position` on.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(crate) fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    /// True when the file is due for a rotation.
    pub(crate) fn is_full(&self) -> bool {
        self.size() >= self.max_bytes
    }

    /// True when the file has grown to twice the size from which on it is rotated.
    pub(crate) fn is_far_beyond(&self) -> bool {
        self.size() >= self.max_bytes.saturating_mul(2)
    }

    /// Removes the content of the file, and gives its size.
    ///
    /// # Errors
    ///
    /// The file cannot be changed.
    pub(crate) fn empty(&self) -> io::Result<u64> {
        let size = self.size();
        self.file.set_len(0).map(|()| size)
    }

    /// Moves the content of the file to the newest older file, and the older files on by one. Of a file that grew far
    /// beyond its bound only the newest part is kept.
    ///
    /// # Errors
    ///
    /// A file cannot be written. The service is not touched.
    pub(crate) fn rotate(&self) -> io::Result<Rotation> {
        let fresh = self.older(0);
        let older = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o640).open(&fresh)?;
        let size = self.size();
        let older_from = if size <= self.older_bytes_max() { 0 } else { size.saturating_sub(self.max_bytes) };
        let copied = self.copy(older_from, &older).inspect_err(|_| discard(&fresh))?;
        let mut copied_to = older_from.saturating_add(copied);
        let removed = match self.collapse(copied_to) {
            Some(removed) => {
                older.set_len(removed.saturating_sub(older_from))?;
                removed
            }
            None => {
                // What was written during the copy, so that the truncation loses as little as possible.
                copied_to = copied_to.saturating_add(self.copy(copied_to, &older)?);
                let size = self.size().max(copied_to);
                self.file.set_len(0)?;
                size
            }
        };
        for number in (1..OLDER_FILES).rev() {
            rename(&self.older(number), &self.older(number.saturating_add(1)))?;
        }
        rename(&fresh, &self.older(1))?;
        let older_bytes = older.metadata()?.len();
        Ok(Rotation { removed, older_from, older, older_bytes })
    }

    /// A service that writes much between two looks makes a file larger than its bound.
    fn older_bytes_max(&self) -> u64 {
        self.max_bytes.saturating_add(self.max_bytes / 4)
    }

    /// Copies what the file has from `position` on, up to a bound: a service that writes faster than the copy would
    /// never let the copy end.
    fn copy(&self, position: u64, mut to: &File) -> io::Result<u64> {
        let mut from = File::open(&self.path)?;
        from.seek(SeekFrom::Start(position))?;
        io::copy(&mut from.take(self.older_bytes_max()), &mut to)
    }

    /// Takes whole blocks out of the beginning of the file. None where the file system cannot.
    fn collapse(&self, up_to: u64) -> Option<u64> {
        // A range that reaches the end of the file cannot be taken out.
        let removed = up_to.min(self.size().saturating_sub(1)) / BLOCK * BLOCK;
        if removed == 0 {
            return None;
        }
        fallocate(&self.file, FallocateFlags::COLLAPSE_RANGE, 0, removed).is_ok().then_some(removed)
    }

    fn older(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// The end of the newest older file and the beginning of the file join without a gap.
    fn rotates_in(folder: &Path) {
        let log = LogFile::open(&folder.join("out.log"), 200_000).unwrap();
        let mut writer = log.writer().unwrap();
        let mut expected = Vec::new();
        for number in 0..110_000 {
            let line = format!("line {number}\n");
            writer.write_all(line.as_bytes()).unwrap();
            expected.extend_from_slice(line.as_bytes());
            if log.is_full() {
                let rotation = log.rotate().unwrap();
                assert_eq!(rotation.older_bytes + rotation.older_from, rotation.removed);
            }
        }
        let mut content = Vec::new();
        for name in ["out.log.4", "out.log.3", "out.log.2", "out.log.1", "out.log"] {
            content.extend(fs::read(folder.join(name)).unwrap());
        }
        assert!(expected.len() > 1_000_000, "the oldest file was rotated out");
        assert!(expected.ends_with(&content) && content.len() > 500_000, "{} bytes", content.len());
        assert_eq!(fs::read_dir(folder).unwrap().count(), 5);
    }

    #[test]
    fn rotation_loses_nothing_and_keeps_five_files() {
        rotates_in(tempfile::tempdir().unwrap().path());
    }

    #[test]
    fn rotation_loses_nothing_where_the_file_system_can_only_truncate() {
        let memory = Path::new("/dev/shm");
        if !memory.is_dir() {
            println!("skipped: no file system in memory");
            return;
        }
        rotates_in(tempfile::tempdir_in(memory).unwrap().path());
    }

    #[test]
    fn of_a_file_far_beyond_its_bound_only_the_newest_part_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = LogFile::open(&folder.path().join("out.log"), 100_000).unwrap();
        log.writer().unwrap().write_all(&vec![b'x'; 5_000_000]).unwrap();
        let rotation = log.rotate().unwrap();
        assert!(rotation.older_bytes <= 100_000 && log.size() <= BLOCK);
    }
}
