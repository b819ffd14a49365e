//! Gzip to the blocks of a tar.

use std::io::{self, BufRead as _, BufReader, Read};

use flate2::bufread::GzDecoder;

use super::error::ArchiveError;

/// Bytes of a block: headers are blocks, and content ends with a whole block.
pub(super) const BLOCK_BYTES: usize = 512;
/// Bytes that are unpacked in one step.
const CHUNK_BYTES: usize = 64 * 1024;
/// Most zeros behind the end of a tar. Usual writers fill up to 10 KiB.
const PADDING_MAX: u64 = 1024 * 1024;

/// The unpacked bytes of an archive. Never holds more than a chunk of them.
pub(super) struct Stream<R> {
    gzip: GzDecoder<BufReader<Capped<R>>>,
    chunk: Vec<u8>,
}

/// A reader that fails beyond a number of bytes, and remembers why it failed: the decoder tells no difference between an
/// error of its own and one of its reader.
struct Capped<R> {
    reader: R,
    left: u64,
    max: u64,
    failed: Option<ArchiveError>,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let came = loop {
            match self.reader.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let fault = match came {
            Ok(bytes) => match self.left.checked_sub(u64::try_from(bytes).unwrap_or(u64::MAX)) {
                Some(left) => {
                    self.left = left;
                    return Ok(bytes);
                }
                None => ArchiveError::TooManyCompressedBytes(self.max),
            },
            Err(error) => ArchiveError::Read(error),
        };
        self.failed = Some(fault);
        Err(io::Error::other("the reader failed"))
    }
}

impl<R: Read> Stream<R> {
    pub(super) fn new(reader: R, compressed_bytes: u64) -> Self {
        let capped = Capped { reader, left: compressed_bytes, max: compressed_bytes, failed: None };
        Self { gzip: GzDecoder::new(BufReader::new(capped)), chunk: vec![0; CHUNK_BYTES] }
    }

    /// The next bytes, at least one and at most so many.
    pub(super) fn chunk(&mut self, at_most: u64) -> Result<&[u8], ArchiveError> {
        match self.read(at_most)? {
            0 => Err(ArchiveError::Truncated),
            bytes => Ok(self.chunk.get(..bytes).unwrap_or_default()),
        }
    }

    /// The next block.
    pub(super) fn block(&mut self) -> Result<[u8; BLOCK_BYTES], ArchiveError> {
        let mut block = [0; BLOCK_BYTES];
        let mut empty = &mut block[..];
        while !empty.is_empty() {
            let chunk = self.chunk(u64::try_from(empty.len()).unwrap_or(u64::MAX))?;
            let Some((filled, rest)) = empty.split_at_mut_checked(chunk.len()) else { break };
            filled.copy_from_slice(chunk);
            empty = rest;
        }
        Ok(block)
    }

    /// Reads content of `bytes`, and the rest of its last block. Gives the content to `take`, chunk by chunk.
    pub(super) fn content(
        &mut self,
        bytes: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let mut left = bytes;
        while left > 0 {
            let chunk = self.chunk(left)?;
            left = left.saturating_sub(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            take(chunk)?;
        }
        let block = u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX);
        let mut padding = bytes.next_multiple_of(block).saturating_sub(bytes);
        while padding > 0 {
            let skipped = self.chunk(padding)?.len();
            padding = padding.saturating_sub(u64::try_from(skipped).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// Reads what follows the end of the tar: zeros alone, then the checksum of the gzip, then nothing.
    pub(super) fn finish(mut self) -> Result<(), ArchiveError> {
        let mut padding = 0_u64;
        loop {
            let bytes = self.read(u64::MAX)?;
            if bytes == 0 {
                break;
            }
            padding = padding.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
            let zeros = self.chunk.iter().take(bytes).all(|byte| *byte == 0);
            if !zeros || padding > PADDING_MAX {
                return Err(ArchiveError::TrailingData);
            }
        }
        match self.gzip.get_mut().fill_buf().map(<[u8]>::is_empty) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ArchiveError::TrailingData),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Reads into the chunk, at most so many bytes; 0 at the end of a whole gzip.
    fn read(&mut self, at_most: u64) -> Result<usize, ArchiveError> {
        let bytes = usize::try_from(at_most).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let read = self.gzip.read(self.chunk.get_mut(..bytes).unwrap_or_default());
        read.map_err(|error| self.fault(&error))
    }

    fn fault(&mut self, error: &io::Error) -> ArchiveError {
        if let Some(fault) = self.gzip.get_mut().get_mut().failed.take() {
            return fault;
        }
        match error.kind() {
            _ if self.gzip.header().is_none() => ArchiveError::NotGzip,
            io::ErrorKind::UnexpectedEof => ArchiveError::Truncated,
            _ => ArchiveError::Corrupt,
        }
    }
}
