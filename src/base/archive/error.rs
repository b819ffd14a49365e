//! Why an archive is refused, or cannot be read or written. The texts are shown to the user of the command line.

use std::io;
use std::path::{Path, PathBuf};

/// An archive was refused, or could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The first bytes are not those of gzip. The text is that of zlib, which stock clients know.
    #[error("incorrect header check")]
    NotGzip,
    /// The compressed bytes are damaged.
    #[error("incorrect data check")]
    Corrupt,
    /// The archive ends too early.
    #[error("unexpected end of file")]
    Truncated,
    /// Something follows the end of the archive.
    #[error("the archive is followed by other data")]
    TrailingData,
    /// The unpacked bytes are no tar, or one of a kind that is not taken.
    #[error("the archive is not a valid tar: {0}")]
    NotTar(&'static str),
    /// An entry is not taken.
    #[error("the archive is refused: {name} {problem}")]
    Entry {
        /// The name of the entry, printable and shortened.
        name: String,
        /// What is wrong with the entry.
        problem: Problem,
    },
    /// The files have more bytes than allowed.
    #[error("the files of the archive have more than {0} bytes")]
    TooManyBytes(u64),
    /// There are more entries than allowed.
    #[error("the archive has more than {0} entries")]
    TooManyEntries(u64),
    /// The archive has more bytes than allowed.
    #[error("the archive has more than {0} bytes")]
    TooManyCompressedBytes(u64),
    /// The archive goes into a directory that holds something already.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// A file was made shorter while the archive was written.
    #[error("{} changed while the archive was written", .0.display())]
    Changed(PathBuf),
    /// A file or directory of this machine could not be read or written.
    #[error("{}: {error}", path.display())]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The reader of the archive failed.
    #[error("the archive could not be read: {0}")]
    Read(io::Error),
    /// The writer of the archive failed.
    #[error("the archive could not be written: {0}")]
    Write(io::Error),
}

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The name is empty.
    #[error("has an empty name")]
    EmptyName,
    /// The name starts at the root of the file system.
    #[error("has an absolute name")]
    AbsoluteName,
    /// The name has a `..`.
    #[error("leads out of the archive")]
    ParentName,
    /// The name or the target of a link has a NUL.
    #[error("has a NUL in its name")]
    NulName,
    /// The name or the target of a link is too long, or a part of the name is.
    #[error("has too long a name")]
    LongName,
    /// The name was there before.
    #[error("is in the archive twice")]
    Duplicate,
    /// A parent of the entry is a symbolic link.
    #[error("lies behind a symbolic link")]
    BehindLink,
    /// A parent of the entry is a file.
    #[error("lies below a file")]
    BelowFile,
    /// The symbolic link is absolute, or leads or may lead out.
    #[error("is a symbolic link that leads out of the archive")]
    LinkOut,
    /// The hard link does not lead to a file that came before.
    #[error("is a hard link to what is no earlier file of the archive")]
    HardLink,
    /// The entry is a device or a pipe.
    #[error("is a device or a pipe")]
    Device,
    /// The entry is a file with holes.
    #[error("is a sparse file")]
    Sparse,
    /// The entry is of no kind that is taken.
    #[error("is of an unknown type")]
    UnknownType,
    /// The entry is no file, and has content.
    #[error("has content and is no file")]
    Content,
}

/// Characters of a name that an error shows.
const SHOWN: usize = 120;

impl ArchiveError {
    pub(super) fn entry(name: &[u8], problem: Problem) -> Self {
        let printable = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
        let name = String::from_utf8_lossy(name).chars().map(printable).take(SHOWN).collect();
        Self::Entry { name, problem }
    }

    /// Makes an error of what the system says about `path`.
    pub(super) fn disk(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |error| Self::Disk { path: path.to_owned(), error }
    }

    /// What is wrong with an entry, if an entry is what is wrong.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        match self {
            Self::Entry { problem, .. } => Some(*problem),
            _ => None,
        }
    }
}
