//! Reads RocksDB's write-ahead log files to say where one is damaged or ends.
//!
//! RocksDB names the kind of damage but not the place. A log file is a sequence of
//! 32 KiB blocks; each holds records with a 7-byte header (masked CRC32C, length, type),
//! 11 bytes for the recyclable types, which also carry the number of the log.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const BLOCK_BYTES: usize = 32 * 1024;
const HEADER_BYTES: usize = 7;
const RECYCLABLE_HEADER_BYTES: usize = 11;
/// Types 5 to 8 and 11 are the recyclable forms.
const RECYCLABLE: [u8; 5] = [5, 6, 7, 8, 11];
const MASK_DELTA: u32 = 0xa282_ead8;

/// How far a log file is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scan {
    /// The file.
    pub(crate) file: PathBuf,
    /// Offset behind the last record that is whole.
    pub(crate) valid: u64,
    /// What is wrong at that offset; `None` when the file simply ends there.
    pub(crate) damage: Option<&'static str>,
}

/// The log files of a database, oldest first.
pub(crate) fn log_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        if let (Some(number), Some("log")) = (number, path.extension().and_then(|end| end.to_str())) {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Scans one log file.
pub(crate) fn scan(file: &Path) -> io::Result<Scan> {
    let bytes = fs::read(file)?;
    let (valid, damage) = walk(&bytes);
    Ok(Scan { file: file.to_path_buf(), valid: u64::try_from(valid).unwrap_or(u64::MAX), damage })
}

/// The first damaged file, or the newest one.
pub(crate) fn first_damage(directory: &Path) -> io::Result<Option<Scan>> {
    let mut last = None;
    for file in log_files(directory)? {
        let scan = scan(&file)?;
        let damaged = scan.damage.is_some();
        last = Some(scan);
        if damaged {
            break;
        }
    }
    Ok(last)
}

fn walk(bytes: &[u8]) -> (usize, Option<&'static str>) {
    let mut at = 0;
    // Offset behind the last record that completes a batch.
    let mut whole = 0;
    while at < bytes.len() {
        let left = BLOCK_BYTES.saturating_sub(at % BLOCK_BYTES);
        if left < HEADER_BYTES {
            at = at.saturating_add(left);
            continue;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let Some([a, b, c, d, low, high, kind]) = rest.first_chunk::<HEADER_BYTES>().copied() else {
            return (whole, Some("record header is cut off"));
        };
        if rest.iter().all(|byte| *byte == 0) {
            return (whole, None);
        }
        let header = if RECYCLABLE.contains(&kind) { RECYCLABLE_HEADER_BYTES } else { HEADER_BYTES };
        let length = header.saturating_add(usize::from(u16::from_le_bytes([low, high])));
        if length > left {
            return (whole, Some("record is longer than its block"));
        }
        let Some(covered) = rest.get(6..length) else { return (whole, Some("record is cut off")) };
        if unmask(u32::from_le_bytes([a, b, c, d])) != crc32c::crc32c(covered) {
            return (whole, Some("record has a wrong checksum"));
        }
        at = at.saturating_add(length);
        // Full and last records end a batch; first and middle ones do not.
        if !matches!(kind, 2 | 3 | 6 | 7) {
            whole = at;
        }
    }
    let damage = (whole != at && whole < bytes.len()).then_some("last batch is cut off");
    (whole, damage)
}

const fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(MASK_DELTA).rotate_right(17)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut covered = vec![kind];
        covered.extend_from_slice(payload);
        let masked = crc32c::crc32c(&covered).rotate_left(17).wrapping_add(MASK_DELTA);
        let mut out = masked.to_le_bytes().to_vec();
        out.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_le_bytes());
        out.extend_from_slice(&covered);
        out
    }

    #[test]
    fn whole_records_are_valid_and_the_first_damage_has_its_offset() {
        let mut bytes = record(1, b"one");
        let first = bytes.len();
        bytes.extend(record(1, b"two"));
        assert_eq!(walk(&bytes), (bytes.len(), None));
        assert_eq!(walk(&bytes[..bytes.len() - 1]), (first, Some("record is cut off")));
        assert_eq!(walk(&bytes[..first + 3]), (first, Some("record header is cut off")));
        let mut flipped = bytes.clone();
        flipped[first + 8] ^= 1;
        assert_eq!(walk(&flipped), (first, Some("record has a wrong checksum")));
        bytes.extend([0; 40]);
        assert_eq!(walk(&bytes).1, None, "preallocated zeros are not damage");
    }

    #[test]
    fn a_batch_whose_last_part_is_missing_does_not_count() {
        let mut bytes = record(1, b"one");
        let first = bytes.len();
        bytes.extend(record(2, b"start"));
        assert_eq!(walk(&bytes), (first, Some("last batch is cut off")));
        bytes.extend(record(4, b"end"));
        assert_eq!(walk(&bytes), (bytes.len(), None));
    }

    #[test]
    fn a_real_log_of_rocksdb_is_valid_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let db = crate::store::layout::open_raft(dir.path()).unwrap();
        for at in 0..2000_u32 {
            db.put_opt(at.to_be_bytes(), vec![7; 100], &crate::store::layout::synced()).unwrap();
        }
        let scans: Vec<_> = log_files(dir.path()).unwrap().iter().map(|file| scan(file).unwrap()).collect();
        assert!(scans.iter().all(|scan| scan.damage.is_none()), "{scans:?}");
        assert!(scans.iter().any(|scan| scan.valid > 200_000), "{scans:?}");
    }
}
