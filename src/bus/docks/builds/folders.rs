//! Folders for archives on their way, and how much they may take.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tempfile::{NamedTempFile, TempDir};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::archive::limits::Limits;
use crate::bus::error::Fault;

/// How the names of these folders begin.
const PREFIX: &str = "rollbook-build-";
/// Folders older than this are of nodes that were killed.
const LEFT_OVER: Duration = Duration::from_secs(24 * 60 * 60);

/// How much archives and builds may take.
#[derive(Debug, Clone)]
pub struct BuildLimits {
    /// Where archives are kept on their way. Empty: the folder of the system for such files.
    pub folder: PathBuf,
    /// Bytes of an archive.
    pub archive_bytes_max: u64,
    /// Bytes of all files in an archive.
    pub files_bytes_max: u64,
    /// Files in an archive.
    pub files_max: usize,
    /// Whether definitions may have a command that builds their archives on this node.
    pub builds: bool,
    /// How long an archive may take to arrive.
    pub upload_timeout: Duration,
    /// How long a build may take.
    pub time_max: Duration,
    /// Bytes that a build may write to its output.
    pub output_bytes_max: u64,
    /// Processes of a build at a time.
    pub processes_max: usize,
    /// Uploads at a time.
    pub uploads_max: usize,
}

impl BuildLimits {
    /// What an archive may hold.
    #[must_use]
    pub(super) fn archive(&self) -> Limits {
        Limits {
            compressed_bytes: self.archive_bytes_max,
            bytes: self.files_bytes_max,
            entries: u64::try_from(self.files_max).unwrap_or(u64::MAX),
            ..Limits::default()
        }
    }
}

/// Where archives are checked and built. Clones share the places.
#[derive(Debug, Clone)]
pub struct BuildFolders {
    limits: Arc<BuildLimits>,
    places: Arc<Semaphore>,
}

/// The folder of one upload, with everything in it, until this is dropped.
#[derive(Debug)]
pub struct UploadFolder {
    folder: TempDir,
    archive_bytes_max: u64,
    _place: OwnedSemaphorePermit,
}

impl BuildFolders {
    /// Folders with these limits.
    #[must_use]
    pub fn new(limits: BuildLimits) -> Self {
        let places = Arc::new(Semaphore::new(limits.uploads_max));
        Self { limits: Arc::new(limits), places }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &BuildLimits {
        &self.limits
    }

    fn folder(&self) -> PathBuf {
        let own = &self.limits.folder;
        if own.as_os_str().is_empty() { std::env::temp_dir() } else { own.clone() }
    }

    /// A place for one upload.
    ///
    /// # Errors
    /// All places are taken, or the folder cannot be made.
    pub fn open_upload(&self) -> Result<UploadFolder, Fault> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Fault::overloaded(format!("{} uploads are going on already", self.limits.uploads_max)))?;
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(self.folder())
            .map_err(|error| Fault::internal(format!("no folder for an archive: {error}")))?;
        Ok(UploadFolder { folder, archive_bytes_max: self.limits.archive_bytes_max, _place: place })
    }

    /// Removes what nodes have left that were killed.
    pub async fn empty(&self) {
        let folder = self.folder();
        let emptied = tokio::task::spawn_blocking(move || empty(&folder)).await;
        if emptied.is_err() {
            tracing::warn!("folders of old builds are not removed");
        }
    }
}

fn empty(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let old = entry.metadata().and_then(|of| of.modified()).ok().and_then(|at| at.elapsed().ok());
        if old.is_some_and(|age| age > LEFT_OVER)
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, folder = %entry.path().display(), "a folder of an old build is not removed");
        }
    }
}

/// Why an archive was not received.
#[derive(Debug)]
pub enum ReceiveError<E> {
    /// The archive is larger than this many bytes.
    TooLarge(u64),
    /// The archive cannot be kept.
    Disk(io::Error),
    /// The archive did not arrive.
    Body(E),
}

impl UploadFolder {
    /// Writes an archive into a file while the archive arrives. Nothing more is read of one that is too large.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub async fn receive<E>(
        &self,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<NamedTempFile, ReceiveError<E>> {
        let mut body = pin!(body);
        let file = self.file().map_err(ReceiveError::Disk)?;
        let mut writer = tokio::fs::File::from_std(file.reopen().map_err(ReceiveError::Disk)?);
        let mut written = 0_u64;
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(ReceiveError::Body)?;
            written = written.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            if written > self.archive_bytes_max {
                return Err(ReceiveError::TooLarge(self.archive_bytes_max));
            }
            writer.write_all(&bytes).await.map_err(ReceiveError::Disk)?;
        }
        writer.flush().await.map_err(ReceiveError::Disk)?;
        Ok(file)
    }

    /// A new file.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn file(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(self.folder.path())
    }

    /// The folder in which an archive is unpacked: it is not there yet.
    pub(super) fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }
}
