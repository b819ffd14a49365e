//! How much of a file survives a power cut.
//!
//! A program that is linked with this crate calls its `fsync` and `fdatasync` in place of those of the C library; so
//! does RocksDB, which is linked with it. Both note how long the file was when it was synced, so that a test can make
//! what a power cut leaves behind: a copy of each file up to there. A file that was never synced leaves nothing. What
//! is not modelled: bytes that are overwritten in place, and names that come or go without a sync of their directory.

use std::collections::HashMap;
use std::ffi::c_int;
use std::fs::{File, Metadata};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{LazyLock, Mutex, PoisonError};

/// A file, whatever its name is now: device and inode.
type Identity = (u64, u64);

static SYNCED: LazyLock<Mutex<HashMap<Identity, u64>>> = LazyLock::new(Mutex::default);

fn identity(file: &Metadata) -> Identity {
    (file.dev(), file.ino())
}

/// How many bytes of this file are on the disk.
#[must_use]
pub fn synced(file: &Metadata) -> u64 {
    let synced = SYNCED.lock().unwrap_or_else(PoisonError::into_inner);
    synced.get(&identity(file)).copied().unwrap_or(0)
}

/// What a file holds before a sync begins is on the disk when the sync is done.
fn sync(fd: c_int, call: libc::c_long) -> c_int {
    // SAFETY: the caller owns the descriptor and keeps it open; it is not closed here.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    let before = file.metadata();
    // SAFETY: a system call that takes a number, whatever that number is.
    let done = unsafe { libc::syscall(call, fd) };
    if done == 0
        && let Ok(file) = before
        && file.is_file()
    {
        SYNCED.lock().unwrap_or_else(PoisonError::into_inner).insert(identity(&file), file.len());
    }
    if done == 0 { 0 } else { -1 }
}

/// In place of the function of the C library.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fsync)
}

/// In place of the function of the C library.
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
