//! The rules of whole archives. Reads an archive entry by entry, and gives to a [`Sink`] what is taken.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use super::error::{ArchiveError, Problem};
use super::extension::Extensions;
use super::limits::{Contents, Limits};
use super::names::{entry_path, link_target};
use super::stream::{BLOCK_BYTES, Stream};

/// The bits of a mode that an archive may set. No setuid, no setgid, no sticky bit, and nothing for others to write.
const MODE_MASK: u32 = 0o755;
/// The mode of a directory that is only a part of names.
pub(super) const DIRECTORY_MODE: u32 = 0o755;

/// Where entries go. Paths are relative to the directory of the archive, their parents are directories that came
/// before, and no path comes twice, but for directories.
pub(super) trait Sink {
    /// A directory. Comes again when the archive has another mode for the directory.
    fn directory(&mut self, _path: &Path, _mode: u32) -> Result<(), ArchiveError> {
        Ok(())
    }

    /// A file, whose content follows.
    fn begin_file(&mut self, _path: &Path) -> Result<(), ArchiveError> {
        Ok(())
    }

    /// More content of the file that was begun.
    fn write(&mut self, _content: &[u8]) -> Result<(), ArchiveError> {
        Ok(())
    }

    /// The content of the file is complete. The time is in seconds of Unix.
    fn end_file(&mut self, _mode: u32, _modified: u64) -> Result<(), ArchiveError> {
        Ok(())
    }

    /// A symbolic link.
    fn symbolic_link(&mut self, _path: &Path, _target: &Path) -> Result<(), ArchiveError> {
        Ok(())
    }

    /// One more name of a file that came before.
    fn hard_link(&mut self, _path: &Path, _target: &Path) -> Result<(), ArchiveError> {
        Ok(())
    }
}

/// What is known at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link,
}

/// A scan that goes on.
struct Scan<'a, S> {
    limits: &'a Limits,
    sink: &'a mut S,
    /// All that the archive has so far. The directory is ours alone, so this is what is on the disk.
    paths: HashMap<PathBuf, Kind>,
    bytes_left: u64,
    entries: u64,
    contents: Contents,
}

/// Reads a whole archive.
pub(super) fn scan<R: Read, S: Sink>(reader: R, limits: &Limits, sink: &mut S) -> Result<Contents, ArchiveError> {
    let mut stream = Stream::new(reader, limits.compressed_bytes);
    let paths = HashMap::new();
    let mut scan = Scan { limits, sink, paths, bytes_left: limits.bytes, entries: 0, contents: Contents::default() };
    let mut extensions = Extensions::default();
    loop {
        let block = stream.block()?;
        if is_zero(&block) {
            break;
        }
        let header = Header::from_byte_slice(&block);
        let size = checked_size(header)?;
        if Extensions::is_extension(header.entry_type()) {
            scan.spend(size)?;
            extensions.read(header.entry_type(), size, &mut stream, limits)?;
        } else {
            scan.entry(header, size, std::mem::take(&mut extensions), &mut stream)?;
        }
    }
    if !is_zero(&stream.block()?) {
        return Err(ArchiveError::NotTar("the end is not marked"));
    }
    if extensions.is_pending() {
        return Err(ArchiveError::NotTar("a name has no entry"));
    }
    let contents = scan.contents;
    stream.finish()?;
    Ok(contents)
}

impl<S: Sink> Scan<'_, S> {
    fn entry<R: Read>(
        &mut self,
        header: &Header,
        size: u64,
        extensions: Extensions,
        stream: &mut Stream<R>,
    ) -> Result<(), ArchiveError> {
        let name = extensions.path.unwrap_or_else(|| header_name(header));
        let refuse = |problem| ArchiveError::entry(&name, problem);
        let path = entry_path(&name, self.limits.path_bytes).map_err(refuse)?;
        let kind = entry_type(header, &name, size).map_err(refuse)?;
        if extensions.sparse {
            return Err(refuse(Problem::Sparse));
        }
        if extensions.size.is_some_and(|stated| stated != size) {
            return Err(ArchiveError::NotTar("an entry has two sizes"));
        }
        let mode = header.mode().map_err(|_| ArchiveError::NotTar("a mode is no number"))? & MODE_MASK;
        let link = || extensions.link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        match kind {
            EntryType::Directory => self.directory(path, mode | 0o700),
            // The directory of the archive itself is no file and no link.
            _ if path.as_os_str().is_empty() => Err(refuse(Problem::EmptyName)),
            EntryType::Symlink => {
                let target = link_target(&path, &link(), self.limits.path_bytes).map_err(refuse)?;
                self.begin(&path, Kind::Link)?;
                self.contents.links = self.contents.links.saturating_add(1);
                self.sink.symbolic_link(&path, &target)
            }
            EntryType::Link => self.hard_link(&path, &link()),
            _ => {
                self.spend(size)?;
                self.begin(&path, Kind::File)?;
                self.contents.files = self.contents.files.saturating_add(1);
                self.contents.bytes = self.contents.bytes.saturating_add(size);
                self.sink.begin_file(&path)?;
                stream.content(size, |chunk| self.sink.write(chunk))?;
                // A time that is no number is no reason to refuse: nobody is told the time.
                self.sink.end_file(mode | 0o600, header.mtime().unwrap_or_default())
            }
        }
    }

    fn directory(&mut self, path: PathBuf, mode: u32) -> Result<(), ArchiveError> {
        match self.paths.get(&path) {
            _ if path.as_os_str().is_empty() => return self.count(),
            Some(Kind::Directory) => {
                self.count()?;
                return self.sink.directory(&path, mode);
            }
            Some(Kind::File | Kind::Link) => return Err(refuse(&path, Problem::Duplicate)),
            None => {}
        }
        self.parents(&path)?;
        self.new_directory(path, mode)
    }

    fn hard_link(&mut self, path: &Path, target: &[u8]) -> Result<(), ArchiveError> {
        let target = entry_path(target, self.limits.path_bytes).map_err(|_| refuse(path, Problem::HardLink))?;
        if self.paths.get(&target) != Some(&Kind::File) {
            return Err(refuse(path, Problem::HardLink));
        }
        self.begin(path, Kind::File)?;
        self.contents.files = self.contents.files.saturating_add(1);
        self.sink.hard_link(path, &target)
    }

    /// Notes a path that must be new, and makes its parents.
    fn begin(&mut self, path: &Path, kind: Kind) -> Result<(), ArchiveError> {
        if self.paths.contains_key(path) {
            return Err(refuse(path, Problem::Duplicate));
        }
        self.parents(path)?;
        self.count()?;
        self.paths.insert(path.to_owned(), kind);
        Ok(())
    }

    fn parents(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let mut missing = Vec::new();
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            match self.paths.get(parent) {
                Some(Kind::Directory) => break,
                Some(Kind::File) => return Err(refuse(path, Problem::BelowFile)),
                Some(Kind::Link) => return Err(refuse(path, Problem::BehindLink)),
                None => missing.push(parent.to_owned()),
            }
        }
        missing.into_iter().rev().try_for_each(|parent| self.new_directory(parent, DIRECTORY_MODE))
    }

    fn new_directory(&mut self, path: PathBuf, mode: u32) -> Result<(), ArchiveError> {
        self.count()?;
        self.contents.directories = self.contents.directories.saturating_add(1);
        self.sink.directory(&path, mode)?;
        self.paths.insert(path, Kind::Directory);
        Ok(())
    }

    fn count(&mut self) -> Result<(), ArchiveError> {
        self.entries = self.entries.saturating_add(1);
        let max = self.limits.entries;
        if self.entries <= max { Ok(()) } else { Err(ArchiveError::TooManyEntries(max)) }
    }

    /// Takes content off what may still come, before any of the content is read.
    fn spend(&mut self, bytes: u64) -> Result<(), ArchiveError> {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.ok_or(ArchiveError::TooManyBytes(self.limits.bytes))?;
        Ok(())
    }
}

fn refuse(path: &Path, problem: Problem) -> ArchiveError {
    ArchiveError::entry(path.as_os_str().as_bytes(), problem)
}

fn is_zero(block: &[u8; BLOCK_BYTES]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// The size of a header whose checksum is right. Sizes of 8 GiB and more are written in another way, and not taken.
fn checked_size(header: &Header) -> Result<u64, ArchiveError> {
    let stated = header.cksum().map_err(|_| ArchiveError::NotTar("a checksum is no number"))?;
    // The field of the checksum counts as blanks.
    let field = 148..156;
    let sum: u32 =
        (0..).zip(header.as_bytes()).map(|(at, byte)| u32::from(if field.contains(&at) { b' ' } else { *byte })).sum();
    if stated != sum {
        return Err(ArchiveError::NotTar("a header has a wrong checksum"));
    }
    if header.as_old().size.first().is_some_and(|first| first & 0x80 != 0) {
        return Err(ArchiveError::NotTar("a size is too large"));
    }
    header.entry_size().map_err(|_| ArchiveError::NotTar("a size is no number"))
}

/// The name in a header, with its prefix. The stock command line writes prefixes in headers whose magic is not quite that
/// of POSIX. In those of GNU, which have a blank behind the magic, times stand in the place of the prefix.
fn header_name(header: &Header) -> Vec<u8> {
    let text = |range| {
        let field: &[u8] = header.as_bytes().get(range).unwrap_or_default();
        field.split(|byte| *byte == 0).next().unwrap_or_default()
    };
    let (name, prefix, magic) = (text(0..100), text(345..500), text(257..263));
    if prefix.is_empty() || !magic.starts_with(b"ustar") || magic.ends_with(b" ") {
        return name.to_vec();
    }
    [prefix, name].join(&b'/')
}

/// The type of an entry that is taken: a file, a directory or a link.
fn entry_type(header: &Header, name: &[u8], size: u64) -> Result<EntryType, Problem> {
    let kind = match header.entry_type() {
        // The oldest tars mark directories by their names alone.
        EntryType::Regular if name.ends_with(b"/") => EntryType::Directory,
        kind @ (EntryType::Regular | EntryType::Directory | EntryType::Symlink | EntryType::Link) => kind,
        EntryType::Char | EntryType::Block | EntryType::Fifo => return Err(Problem::Device),
        EntryType::GNUSparse => return Err(Problem::Sparse),
        _ => return Err(Problem::UnknownType),
    };
    if kind == EntryType::Regular || size == 0 { Ok(kind) } else { Err(Problem::Content) }
}
