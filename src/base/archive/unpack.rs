//! Unpacks an archive into a directory.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::error::ArchiveError;
use super::limits::{Contents, Limits};
use super::scan::{DIRECTORY_MODE, Sink, scan};

/// Unpacks a gzip tar into `directory`, which is made, or is there and empty, and is nobody else's as long as this takes.
///
/// Files get the mode of the archive within 0755, their owner may always write, and the owner is who calls. What is
/// refused: names and links that lead out, entries behind links, devices and pipes, names that come twice, sparse
/// files, unknown types, what is above the limits, and archives that are damaged, cut off, or followed by anything.
///
/// # Errors
///
/// The archive is refused, or cannot be read, or cannot be written to the disk. Then all that was written is removed.
pub fn unpack<R: Read>(reader: R, directory: &Path, limits: &Limits) -> Result<Contents, ArchiveError> {
    let made = prepare(directory)?;
    let outcome = scan(reader, limits, &mut Files { directory, open: None });
    if outcome.is_err() {
        remove(directory, made);
    }
    outcome
}

/// Makes the directory, or sees that it is empty. Tells whether it was made.
fn prepare(directory: &Path) -> Result<bool, ArchiveError> {
    match new_directory(directory, DIRECTORY_MODE) {
        Ok(()) => return Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(ArchiveError::disk(directory)(error)),
    }
    let mut entries = fs::read_dir(directory).map_err(ArchiveError::disk(directory))?;
    if entries.next().is_some() { Err(ArchiveError::NotEmpty(directory.to_owned())) } else { Ok(false) }
}

/// Removes all that was written. The error of the archive is the one to report, so errors of the disk are not.
fn remove(directory: &Path, made: bool) {
    if made {
        fs::remove_dir_all(directory).ok();
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        // Links are not followed: the type is that of the link.
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }.ok();
    }
}

fn new_directory(path: &Path, mode: u32) -> std::io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}

/// Files below a directory. Everything is made anew, so nothing is written through what was there.
struct Files<'a> {
    directory: &'a Path,
    open: Option<(PathBuf, File)>,
}

impl Files<'_> {
    fn at(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }

    /// Does something with the file that is open.
    fn with_open(&mut self, act: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<(), ArchiveError> {
        let Some((path, file)) = &mut self.open else { return Ok(()) };
        act(file).map_err(ArchiveError::disk(path))
    }
}

impl Sink for Files<'_> {
    fn directory(&mut self, path: &Path, mode: u32) -> Result<(), ArchiveError> {
        let path = self.at(path);
        match new_directory(&path, mode) {
            // A directory may come again with another mode. Anything else is another name for the same, on file systems
            // that do not tell small letters from capital ones.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                    return Err(ArchiveError::disk(&path)(error));
                }
            }
            made => made.map_err(ArchiveError::disk(&path))?,
        }
        // Whatever the mask of the process is.
        fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(ArchiveError::disk(&path))
    }

    fn begin_file(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let path = self.at(path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        self.open = Some((path.clone(), file.map_err(ArchiveError::disk(&path))?));
        Ok(())
    }

    fn write(&mut self, content: &[u8]) -> Result<(), ArchiveError> {
        self.with_open(|file| file.write_all(content))
    }

    fn end_file(&mut self, mode: u32, modified: u64) -> Result<(), ArchiveError> {
        self.with_open(|file| {
            file.set_permissions(Permissions::from_mode(mode))?;
            // Build tools compare times. A time that the file system cannot hold is left out.
            if let Some(modified) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(modified)) {
                file.set_modified(modified).ok();
            }
            Ok(())
        })?;
        self.open = None;
        Ok(())
    }

    fn symbolic_link(&mut self, path: &Path, target: &Path) -> Result<(), ArchiveError> {
        let path = self.at(path);
        symlink(target, &path).map_err(ArchiveError::disk(&path))
    }

    fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), ArchiveError> {
        let path = self.at(path);
        fs::hard_link(self.at(target), &path).map_err(ArchiveError::disk(&path))
    }
}
