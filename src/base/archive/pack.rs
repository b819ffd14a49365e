//! Packs a directory into an archive.

use std::cmp::Reverse;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::error::{ArchiveError, Problem};
use super::limits::{Contents, Limits};

/// Packs all that is below `directory` into a gzip tar, in the order of the bytes of the names, parents first.
///
/// Symbolic links are stored and not followed. Sockets, pipes and devices are left out. Owners are not stored, and modes
/// within 0755 are.
///
/// # Errors
///
/// A file cannot be read or changes, the writer fails, or a limit is passed. What was written by then is no whole
/// archive, and every reader refuses it.
pub fn pack<W: Write>(directory: &Path, writer: W, limits: &Limits) -> Result<Contents, ArchiveError> {
    let output = Output { writer, left: limits.compressed_bytes, full: false, closed: false };
    let builder = Builder::new(GzEncoder::new(output, Compression::default()));
    let mut packer = Packer { directory, limits, builder, waiting: Vec::new(), seen: 0, contents: Contents::default() };
    let outcome = packer.run().and_then(|()| packer.finish());
    if outcome.is_err() {
        // The builder and the encoder end the archive when they are dropped, as if nothing were missing.
        packer.output().closed = true;
    }
    outcome.map(|()| packer.contents)
}

/// An archive that is being written.
struct Packer<'a, W: Write> {
    directory: &'a Path,
    limits: &'a Limits,
    builder: Builder<GzEncoder<Output<W>>>,
    /// What was found and is not packed, the next one last.
    waiting: Vec<(PathBuf, Metadata)>,
    seen: u64,
    contents: Contents,
}

/// A writer with a bound, which can be closed.
struct Output<W> {
    writer: W,
    left: u64,
    full: bool,
    closed: bool,
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Err(io::Error::other("the archive is closed"));
        }
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > self.left {
            self.full = true;
            return Err(io::Error::other("the archive is full"));
        }
        let written = self.writer.write(bytes)?;
        self.left = self.left.saturating_sub(u64::try_from(written).unwrap_or(u64::MAX));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A file of which exactly the announced bytes are read.
struct Content {
    file: File,
    left: u64,
    failed: Option<io::Error>,
    changed: bool,
}

impl Read for Content {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        match self.file.read(into.get_mut(..bytes).unwrap_or_default()) {
            Ok(0) if self.left > 0 && !into.is_empty() => {
                self.changed = true;
                Err(io::Error::other("the file changed"))
            }
            Ok(read) => {
                self.left = self.left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("the file cannot be read"))
            }
        }
    }
}

impl<W: Write> Packer<'_, W> {
    fn run(&mut self) -> Result<(), ArchiveError> {
        self.list(Path::new(""))?;
        while let Some((path, metadata)) = self.waiting.pop() {
            if metadata.is_dir() {
                self.contents.directories = self.contents.directories.saturating_add(1);
                // The empty part makes the slash at the end, by which the oldest readers know a directory.
                let (header, name) = (header(EntryType::Directory, &metadata), path.join(""));
                self.append(header, &name, b"", io::empty()).map_err(|error| self.fault(error))?;
                self.list(&path)?;
            } else if metadata.is_symlink() {
                self.link(&path, &metadata)?;
            } else {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    /// Adds what is in a directory to what waits.
    fn list(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let on_disk = self.directory.join(path);
        let first = self.waiting.len();
        for entry in fs::read_dir(&on_disk).map_err(ArchiveError::disk(&on_disk))? {
            let entry = entry.map_err(ArchiveError::disk(&on_disk))?;
            let path = path.join(entry.file_name());
            let metadata = entry.metadata().map_err(ArchiveError::disk(&entry.path()))?;
            if !(metadata.is_dir() || metadata.is_file() || metadata.is_symlink()) {
                continue;
            }
            if path.as_os_str().len() > self.limits.path_bytes {
                return Err(ArchiveError::entry(path.as_os_str().as_bytes(), Problem::LongName));
            }
            self.seen = self.seen.saturating_add(1);
            if self.seen > self.limits.entries {
                return Err(ArchiveError::TooManyEntries(self.limits.entries));
            }
            self.waiting.push((path, metadata));
        }
        if let Some(found) = self.waiting.get_mut(first..) {
            found.sort_by(|(a, _), (b, _)| Reverse(a).cmp(&Reverse(b)));
        }
        Ok(())
    }

    fn link(&mut self, path: &Path, metadata: &Metadata) -> Result<(), ArchiveError> {
        let on_disk = self.directory.join(path);
        let target = fs::read_link(&on_disk).map_err(ArchiveError::disk(&on_disk))?;
        self.contents.links = self.contents.links.saturating_add(1);
        let (header, target) = (header(EntryType::Symlink, metadata), target.as_os_str().as_bytes());
        self.append(header, path, target, io::empty()).map_err(|error| self.fault(error))
    }

    fn file(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let on_disk = self.directory.join(path);
        let file = File::open(&on_disk).map_err(ArchiveError::disk(&on_disk))?;
        let metadata = file.metadata().map_err(ArchiveError::disk(&on_disk))?;
        if !metadata.is_file() {
            return Err(ArchiveError::Changed(on_disk));
        }
        self.contents.files = self.contents.files.saturating_add(1);
        self.contents.bytes = self.contents.bytes.saturating_add(metadata.len());
        if self.contents.bytes > self.limits.bytes {
            return Err(ArchiveError::TooManyBytes(self.limits.bytes));
        }
        let mut header = header(EntryType::Regular, &metadata);
        header.set_size(metadata.len());
        let mut content = Content { file, left: metadata.len(), failed: None, changed: false };
        self.append(header, path, b"", &mut content).map_err(|error| match content {
            Content { failed: Some(error), .. } => ArchiveError::Disk { path: on_disk, error },
            Content { changed: true, .. } => ArchiveError::Changed(on_disk),
            _ => self.fault(error),
        })
    }

    /// Appends an entry. Long names stand in a PAX header: stock docks do not know those of GNU.
    fn append(&mut self, mut header: Header, path: &Path, target: &[u8], content: impl Read) -> io::Result<()> {
        let mut records = Vec::new();
        if header.set_path(path).is_err() {
            records.push(("path", path.as_os_str().as_bytes()));
            header.set_path("long")?;
        }
        if !target.is_empty() && header.set_link_name_literal(target).is_err() {
            records.push(("linkpath", target));
        }
        header.set_cksum();
        self.builder.append_pax_extensions(records)?;
        self.builder.append(&header, content)
    }

    fn output(&mut self) -> &mut Output<W> {
        self.builder.get_mut().get_mut()
    }

    fn fault(&mut self, error: io::Error) -> ArchiveError {
        let max = self.limits.compressed_bytes;
        if self.output().full { ArchiveError::TooManyCompressedBytes(max) } else { ArchiveError::Write(error) }
    }

    fn finish(&mut self) -> Result<(), ArchiveError> {
        self.builder.finish().map_err(|error| self.fault(error))?;
        self.builder.get_mut().try_finish().map_err(|error| self.fault(error))?;
        self.output().flush().map_err(ArchiveError::Write)
    }
}

fn header(kind: EntryType, metadata: &Metadata) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(metadata.permissions().mode() & 0o755);
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    header.set_mtime(modified.unwrap_or_default().as_secs());
    header
}
