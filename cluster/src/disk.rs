//! Free space of the data directory.

use std::path::Path;

/// Bytes that this process may still write to the file system of `path`.
///
/// # Errors
/// What the system said.
pub fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
