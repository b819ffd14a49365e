//! A build: the files of a definition, which arrive in chunks.

use alloc::string::String;
use alloc::vec::Vec;

use super::limits::{BUILD_BYTES_MAX, BUILD_CHUNK_BYTES_MAX, BUILD_CHUNKS_MAX, BUILD_IDLE_MS, SHA256_BYTES};
use crate::xbus::id::Id;

/// A build without its bytes, and the row of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BuildRow {
    /// The build, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// The definition whose build this is.
    #[prost(string, tag = "2")]
    pub definition: String,
    /// How many chunks came.
    #[prost(uint32, tag = "3")]
    pub chunks: u32,
    /// Bytes of all chunks that came.
    #[prost(uint64, tag = "4")]
    pub bytes: u64,
    /// SHA-256 of all bytes in order, as whoever finished the build said; empty while the build is open.
    #[prost(bytes = "vec", tag = "5")]
    pub sha256: Vec<u8>,
    /// The revision that the definition got when the build was finished, which puts the finished builds of a definition
    /// in order; 0 while the build is open.
    #[prost(uint64, tag = "6")]
    pub revision: u64,
    /// When the newest chunk came, or the build was begun or finished, milliseconds since 1970.
    #[prost(uint64, tag = "7")]
    pub touched_at: u64,
}

/// What becomes of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkPlace {
    /// The chunk is the next one.
    Next,
    /// The chunk has the ordinal of the newest one: the same again, or another one in its place.
    Newest,
}

/// Why a build cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The build is finished, so its bytes stay as they are.
    #[error("the build is finished")]
    Finished,
    /// The chunk is empty or too long.
    #[error("a chunk of a build has 1 to {BUILD_CHUNK_BYTES_MAX} bytes")]
    ChunkLength,
    /// The chunk is not the next one.
    #[error("chunk {ordinal} is not the next one: {came} came")]
    Ordinal {
        /// The ordinal of the chunk.
        ordinal: u32,
        /// How many chunks came.
        came: u32,
    },
    /// Another chunk of the same ordinal came before.
    #[error("another chunk {0} came before")]
    OtherChunk(u32),
    /// The build would be too large.
    #[error("a build has at most {BUILD_BYTES_MAX} bytes in {BUILD_CHUNKS_MAX} chunks")]
    Size,
    /// Not what came is finished, or nothing came.
    #[error("{chunks} chunks with {bytes} bytes came")]
    Counts {
        /// How many chunks came.
        chunks: u32,
        /// Bytes of all chunks that came.
        bytes: u64,
    },
    /// The checksum has another length.
    #[error("the SHA-256 of a build has {SHA256_BYTES} bytes")]
    Sha256,
}

impl BuildRow {
    /// A build of which no chunk came yet.
    #[must_use]
    pub fn begin(id: Id, definition: String, millis: u64) -> Self {
        Self { id: id.to_vec(), definition, touched_at: millis, ..Self::default() }
    }

    /// The build.
    #[must_use]
    pub fn id(&self) -> Id {
        Id::from_slice(&self.id).unwrap_or_default()
    }

    /// Whether chunks are still arriving.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.revision == 0
    }

    /// When the build is abandoned if no chunk comes; `None` for a finished one.
    #[must_use]
    pub fn abandoned_at(&self) -> Option<u64> {
        self.is_open().then(|| self.touched_at.saturating_add(BUILD_IDLE_MS))
    }

    /// What becomes of a chunk of so many bytes.
    ///
    /// # Errors
    /// The build is finished, or the chunk breaks a rule.
    pub fn place(&self, ordinal: u32, bytes: usize) -> Result<ChunkPlace, BuildError> {
        if !self.is_open() {
            return Err(BuildError::Finished);
        }
        if !(1..=BUILD_CHUNK_BYTES_MAX).contains(&bytes) {
            return Err(BuildError::ChunkLength);
        }
        if ordinal.checked_add(1) == Some(self.chunks) {
            return Ok(ChunkPlace::Newest);
        }
        if ordinal != self.chunks {
            return Err(BuildError::Ordinal { ordinal, came: self.chunks });
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if self.chunks >= BUILD_CHUNKS_MAX || self.bytes.saturating_add(bytes) > BUILD_BYTES_MAX {
            return Err(BuildError::Size);
        }
        Ok(ChunkPlace::Next)
    }

    /// Counts the next chunk, which [`BuildRow::place`] took.
    pub fn append(&mut self, bytes: usize, millis: u64) {
        self.chunks = self.chunks.saturating_add(1);
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.touched_at = millis;
    }

    /// Whether the build is finished already with these numbers: whoever finishes it asks again.
    #[must_use]
    pub fn is_finished_with(&self, chunks: u32, bytes: u64, sha256: &[u8]) -> bool {
        !self.is_open() && (self.chunks, self.bytes, self.sha256.as_slice()) == (chunks, bytes, sha256)
    }

    /// Checks that all of these chunks and bytes came, and that `sha256` is a checksum.
    ///
    /// # Errors
    /// The build is finished, or the numbers are others.
    pub fn check_whole(&self, chunks: u32, bytes: u64, sha256: &[u8]) -> Result<(), BuildError> {
        if !self.is_open() {
            return Err(BuildError::Finished);
        }
        if (chunks, bytes) != (self.chunks, self.bytes) || chunks == 0 {
            return Err(BuildError::Counts { chunks: self.chunks, bytes: self.bytes });
        }
        if sha256.len() != SHA256_BYTES {
            return Err(BuildError::Sha256);
        }
        Ok(())
    }

    /// Finishes the build, which [`BuildRow::check_whole`] let pass. `revision` is the new one of its definition.
    pub fn finish(&mut self, sha256: Vec<u8>, revision: u64, millis: u64) {
        (self.sha256, self.revision, self.touched_at) = (sha256, revision, millis);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn build() -> BuildRow {
        BuildRow::begin(Id::new([1; 16]), "web".into(), 5)
    }

    #[test]
    fn chunks_come_one_after_the_other_and_the_newest_may_come_again() {
        let mut row = build();
        assert_eq!(row.place(1, 10), Err(BuildError::Ordinal { ordinal: 1, came: 0 }));
        assert_eq!(row.place(u32::MAX, 10), Err(BuildError::Ordinal { ordinal: u32::MAX, came: 0 }));
        assert_eq!(row.place(0, 10), Ok(ChunkPlace::Next));
        row.append(10, 7);
        assert_eq!((row.place(0, 10), row.place(1, 1)), (Ok(ChunkPlace::Newest), Ok(ChunkPlace::Next)));
        row.append(1, 9);
        assert_eq!(row.place(0, 10), Err(BuildError::Ordinal { ordinal: 0, came: 2 }));
        assert_eq!((row.chunks, row.bytes, row.abandoned_at()), (2, 11, Some(9 + BUILD_IDLE_MS)));
    }

    #[test]
    fn the_size_of_a_chunk_and_of_a_build_is_bounded() {
        let mut row = build();
        assert_eq!(row.place(0, 0), Err(BuildError::ChunkLength));
        assert_eq!(row.place(0, BUILD_CHUNK_BYTES_MAX + 1), Err(BuildError::ChunkLength));
        (row.chunks, row.bytes) = (3, BUILD_BYTES_MAX - 10);
        assert_eq!((row.place(3, 10), row.place(3, 11)), (Ok(ChunkPlace::Next), Err(BuildError::Size)));
        (row.chunks, row.bytes) = (BUILD_CHUNKS_MAX, 3);
        assert_eq!(row.place(BUILD_CHUNKS_MAX, 1), Err(BuildError::Size));
    }

    #[test]
    fn a_build_is_finished_once_with_what_came() {
        let (mut row, sha256) = (build(), vec![7; 32]);
        assert_eq!(row.check_whole(0, 0, &sha256), Err(BuildError::Counts { chunks: 0, bytes: 0 }), "nothing came");
        row.append(10, 7);
        assert_eq!(row.check_whole(2, 10, &sha256), Err(BuildError::Counts { chunks: 1, bytes: 10 }));
        assert_eq!(row.check_whole(1, 11, &sha256), Err(BuildError::Counts { chunks: 1, bytes: 10 }));
        assert_eq!(row.check_whole(1, 10, &[7; 31]), Err(BuildError::Sha256));
        assert!(row.is_open() && !row.is_finished_with(1, 10, &[]));
        assert_eq!(row.check_whole(1, 10, &sha256), Ok(()));
        row.finish(sha256.clone(), 3, 9);
        assert!(row.is_finished_with(1, 10, &sha256) && !row.is_finished_with(1, 10, &[8; 32]));
        assert_eq!(row.check_whole(1, 10, &sha256), Err(BuildError::Finished));
        assert_eq!((row.place(1, 1), row.abandoned_at()), (Err(BuildError::Finished), None));
    }
}
