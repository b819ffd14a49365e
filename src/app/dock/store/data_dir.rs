//! The data directory: its lock and its places.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A data directory that this process holds.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Held until the agent ends.
    _lock: File,
}

impl DataDir {
    /// Makes the directory when there is none, and takes its lock.
    ///
    /// # Errors
    ///
    /// The directory cannot be written, or another agent holds it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        let path = fs::canonicalize(path)?;
        let file = path.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::WOULDBLOCK => io::Error::new(io::ErrorKind::ResourceBusy, "another dock uses the directory"),
            error => error.into(),
        })?;
        for folder in ["builds", "work", "logs"] {
            fs::create_dir_all(path.join(folder))?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// The file of definitions and processes.
    pub(crate) fn state_file(&self) -> PathBuf {
        self.path.join("dock.json")
    }

    /// The folder of all builds.
    pub(crate) fn builds(&self) -> PathBuf {
        self.path.join("builds")
    }

    /// The folder in which a service without a build runs.
    pub(crate) fn work(&self, service: &str) -> PathBuf {
        self.path.join("work").join(service)
    }

    /// The folder of the output of a service.
    pub(crate) fn logs(&self, service: &str) -> PathBuf {
        self.path.join("logs").join(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_do_not_share_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        assert!(DataDir::open(&path).unwrap_err().to_string().contains("another dock"));
        drop(first);
        DataDir::open(&path).unwrap();
    }
}
