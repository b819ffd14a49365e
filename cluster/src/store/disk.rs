//! Free space for the data directory: bytes, and inodes, since every new file needs an inode.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::error::ReadError;
use crate::lab_faults::Bug;

/// Inodes that are kept in reserve, where a file system has a fixed number of them.
pub const INODES_RESERVE: u64 = 1000;
/// Below this part of the reserve a node takes no entries: the rest is for the end of steps that have begun.
const FULL_PART: u64 = 8;
/// Free space that a step needs beyond the bytes that it writes itself: for manifests, options, logs.
const SLACK_BYTES: u64 = 8 << 20;
/// Files that a step creates at most beside tables.
const SLACK_INODES: u64 = 64;
/// Inodes that a file system may count as free and cannot give: XFS makes 64 at a time and counts the rest below its
/// maximum, which may be less than 64, as free.
const CHUNK_INODES: u64 = 64;

/// The known shortages of disk space.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    /// This node is below its reserve.
    pub(crate) here: AtomicBool,
    /// The node takes no entries any more.
    pub(crate) full: AtomicBool,
    /// So many voters are below theirs that no majority has room; known on the leader.
    pub(crate) majority: AtomicBool,
}

/// The bytes and inodes that this process may still use of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// Bytes that may be written.
    pub bytes: u64,
    /// Files that may be created; the largest number where the file system does not count them.
    pub inodes: u64,
}

/// The free bytes and inodes on the file system of `path`.
///
/// # Errors
/// The error of the operating system.
pub fn free(path: &Path) -> io::Result<Free> {
    let stat = rustix::fs::statvfs(path)?;
    // A file system that makes inodes on demand reports a total of 0.
    let inodes = if stat.f_files == 0 || Bug::InodesNotCounted.is_on() { u64::MAX } else { stat.f_favail };
    Ok(Free { bytes: stat.f_bavail.saturating_mul(stat.f_frsize), inodes })
}

impl Free {
    /// A text for people that names the missing part of so many bytes and of the reserve of inodes; `None` when there
    /// is enough.
    #[must_use]
    pub fn lacks(self, bytes: u64) -> Option<String> {
        let Self { bytes: free, inodes } = self;
        if free < bytes {
            return Some(format!("{free} bytes free, {bytes} bytes are kept in reserve"));
        }
        (inodes < INODES_RESERVE).then(|| format!("{inodes} inodes free, {INODES_RESERVE} inodes are kept in reserve"))
    }

    /// Whether a step finds room that writes so many bytes.
    const fn has_room(self, bytes: u64) -> bool {
        self.bytes >= bytes && self.inodes >= SLACK_INODES + CHUNK_INODES
    }

    /// Whether nothing may be written any more, not even what would give room back.
    #[must_use]
    pub const fn is_full(self, reserve_bytes: u64) -> bool {
        self.bytes < reserve_bytes / FULL_PART || self.inodes < INODES_RESERVE / FULL_PART
    }
}

/// Refuses a step that would write so many bytes, when there is no room for them: RocksDB takes no more writes
/// after one that failed for lack of room.
pub(crate) fn require(path: &Path, bytes: u64) -> Result<(), ReadError> {
    // Where it cannot be known, the step itself finds out.
    let Ok(free) = free(path) else { return Ok(()) };
    let needed = bytes.saturating_add(SLACK_BYTES);
    if free.has_room(needed) {
        return Ok(());
    }
    Err(ReadError(format!(
        "no room at {}: {} bytes and {} inodes are free, {needed} bytes and {} inodes are needed; free some, or make the disk larger",
        path.display(),
        free.bytes,
        free.inodes,
        SLACK_INODES + CHUNK_INODES
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_inodes_both_count() {
        let directory = tempfile::tempdir().unwrap();
        assert!(free(directory.path()).unwrap().bytes > 0);
        assert!(free(&directory.path().join("absent")).is_err());
        assert_eq!(Free { bytes: 10, inodes: u64::MAX }.lacks(10), None);
        assert!(Free { bytes: 9, inodes: u64::MAX }.lacks(10).unwrap().contains("9 bytes free"));
        assert!(Free { bytes: 10, inodes: 6 }.lacks(10).unwrap().contains("6 inodes free"));
        let full = |bytes, inodes| Free { bytes, inodes }.is_full(800);
        assert_eq!([full(100, 125), full(99, 125), full(100, 124)], [false, true, true]);
        let room = |bytes, inodes| Free { bytes, inodes }.has_room(100);
        assert_eq!([room(100, 128), room(99, 128)], [true, false]);
        // XFS counted 64 and could not make one.
        assert!(!room(100, 64) && !room(100, 127));
        assert!(require(directory.path(), 0).is_ok());
        let text = require(directory.path(), u64::MAX).unwrap_err().to_string();
        assert!(text.contains("no room") && text.contains("needed"), "{text}");
    }
}
