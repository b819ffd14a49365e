//! How much an archive may hold.

/// Limits of one archive, for reading and for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together, as they are unpacked. Long names and attributes count too.
    pub bytes: u64,
    /// Files, directories and links, with the directories that are only parts of names. A directory that comes again
    /// counts again.
    pub entries: u64,
    /// Bytes of the longest name with its directories, and of the longest target of a link.
    pub path_bytes: usize,
    /// Bytes of the archive itself.
    pub compressed_bytes: u64,
}

impl Limits {
    /// What no node is told to go beyond: for whoever makes archives for nodes, or takes those that a node has checked.
    pub const MOST: Self = Self { bytes: 64 << 30, entries: 10_000_000, path_bytes: 1024, compressed_bytes: 1 << 30 };
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 30, entries: 100_000, path_bytes: 1024, compressed_bytes: 1 << 28 }
    }
}

/// What an archive holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// Files. A hard link is one more.
    pub files: u64,
    /// Directories, without the one that holds everything.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of all files.
    pub bytes: u64,
}
