//! For tests: tells how many bytes of a file survive a power cut.
//!
//! A program that links this crate, RocksDB inside it included, calls the `fsync` and `fdatasync` of this crate instead
//! of those of the C library. Both record the length of the file at each sync. So a test can make what a power cut
//! leaves behind: a copy of each file up to its synced length. A file that was never synced leaves nothing.
//!
//! Not modelled: bytes that are overwritten in place, and names that are created or deleted without a sync of their
//! directory.

use std::collections::HashMap;
use std::ffi::c_int;
use std::fs::{File, Metadata};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Identifies a file by device and inode, because a file may be renamed between its sync and the power cut.
type Identity = (u64, u64);

/// The length of each file at its last sync. Global, because `fsync` has no other place for state.
static SYNCED: LazyLock<Mutex<HashMap<Identity, u64>>> = LazyLock::new(Mutex::default);

fn identity(file: &Metadata) -> Identity {
    (file.dev(), file.ino())
}

/// Number of bytes at the start of this file that survive a power cut; 0 for a file that was never synced.
#[must_use]
pub fn synced(file: &Metadata) -> u64 {
    let synced = SYNCED.lock().unwrap_or_else(PoisonError::into_inner);
    synced.get(&identity(file)).copied().unwrap_or(0)
}

/// Syncs a file by the system call `call` and records its length. The length is read before the call, because a sync
/// guarantees only the bytes that were written before it began.
fn sync(fd: c_int, call: libc::c_long) -> c_int {
    // SAFETY: the caller owns the descriptor and keeps it open; `ManuallyDrop` does not close it.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    let before = file.metadata();
    // SAFETY: the system call takes any number and touches no memory of this process.
    let done = unsafe { libc::syscall(call, fd) };
    if done == 0
        && let Ok(file) = before
        && file.is_file()
    {
        SYNCED.lock().unwrap_or_else(PoisonError::into_inner).insert(identity(&file), file.len());
    }
    if done == 0 { 0 } else { -1 }
}

/// Replaces `fsync` of the C library: returns 0, or -1 with `errno` set.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fsync)
}

/// Replaces `fdatasync` of the C library: returns 0, or -1 with `errno` set.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fdatasync)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_was_written_before_a_sync_survives() {
        let path = std::env::temp_dir().join(format!("rollbook-power-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        file.write_all(b"abc").unwrap();
        assert_eq!(synced(&file.metadata().unwrap()), 0);
        file.sync_data().unwrap();
        file.write_all(b"def").unwrap();
        assert_eq!(synced(&file.metadata().unwrap()), 3);
        file.sync_all().unwrap();
        assert_eq!(synced(&file.metadata().unwrap()), 6);
        std::fs::remove_file(path).unwrap();
    }
}
