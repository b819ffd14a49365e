//! The body of a request or an answer in HTTP: of a known length, in chunks, or until the connection ends. For those
//! who read a socket themselves.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest line between chunks, in bytes.
const LINE_BYTES_MAX: usize = 4096;
/// Bytes of a read.
const READ_BYTES: usize = 64 * 1024;

/// How a body says where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// Behind the last chunk.
    Chunked,
    /// With the connection. Only answers may.
    UntilEnd,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes, and then the end.
    Rest(u64),
    /// The line that says how long the chunk is.
    Length,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The end of the line behind a chunk.
    ChunkEnd,
    /// Lines behind the last chunk.
    Trailers,
    /// All until the end of the connection.
    All,
    /// Nothing.
    End,
}

/// Reads a body piece by piece.
#[derive(Debug)]
pub struct FramedBody<S> {
    stream: S,
    read: BytesMut,
    state: State,
}

impl<S: AsyncRead + Unpin> FramedBody<S> {
    /// The body of this form, of which some bytes were read already.
    pub fn new(stream: S, read: BytesMut, framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(length) => State::Rest(length),
            Framing::Chunked => State::Length,
            Framing::UntilEnd => State::All,
        };
        Self { stream, read, state }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// The connection broke, or the chunks are malformed.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.state {
                State::End | State::Rest(0) => return Ok(None),
                State::Chunk(0) => self.state = State::ChunkEnd,
                State::All => {
                    let more = if self.read.is_empty() { self.read_some().await? } else { self.read.len() };
                    return Ok((more > 0).then(|| self.read.split().freeze()));
                }
                State::Rest(left) => {
                    let bytes = self.some(left).await?;
                    self.state = State::Rest(left.saturating_sub(length(&bytes)));
                    return Ok(Some(bytes));
                }
                State::Chunk(left) => {
                    let bytes = self.some(left).await?;
                    self.state = State::Chunk(left.saturating_sub(length(&bytes)));
                    return Ok(Some(bytes));
                }
                State::ChunkEnd => {
                    if !self.line().await?.is_empty() {
                        return Err(malformed());
                    }
                    self.state = State::Length;
                }
                State::Length => {
                    let line = self.line().await?;
                    self.state = match chunk_length(&line).ok_or_else(malformed)? {
                        0 => State::Trailers,
                        length => State::Chunk(length),
                    };
                }
                State::Trailers => {
                    if self.line().await?.is_empty() {
                        self.state = State::End;
                    }
                }
            }
        }
    }

    /// Some bytes, at most so many.
    async fn some(&mut self, most: u64) -> io::Result<Bytes> {
        if self.read.is_empty() {
            self.more().await?;
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.read.len());
        Ok(self.read.split_to(most).freeze())
    }

    /// A line without its end.
    async fn line(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.read) {
                let line = self.read.split_to(end).freeze();
                self.read.advance(1);
                return Ok(line.strip_suffix(b"\r").map_or_else(|| line.clone(), |text| line.slice_ref(text)));
            }
            if self.read.len() > LINE_BYTES_MAX {
                return Err(malformed());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.read_some().await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn read_some(&mut self) -> io::Result<usize> {
        self.read.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.read).await
    }
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The length of a chunk, whose extensions are ignored.
fn chunk_length(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let hexadecimal = (1..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    hexadecimal.then(|| u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok())?
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed chunks")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(text: &[u8], framing: Framing, first: usize) -> io::Result<Vec<u8>> {
        let (read, mut rest) = text.split_at(first);
        let mut body = FramedBody::new(&mut rest, BytesMut::from(read), framing);
        let mut whole = Vec::new();
        while let Some(bytes) = body.next().await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }

    #[tokio::test]
    async fn chunks_are_put_together_however_they_came() {
        let text = b"3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
        for first in 0..text.len() {
            assert_eq!(body(text, Framing::Chunked, first).await.unwrap(), b"abc0123456789", "{first}");
        }
        assert_eq!(body(b"abcdef", Framing::Length(4), 2).await.unwrap(), b"abcd");
        assert_eq!(body(b"abcdef", Framing::UntilEnd, 2).await.unwrap(), b"abcdef");
    }

    #[tokio::test]
    async fn malformed_and_truncated_bodies_are_errors() {
        let text = b"3\r\nabc\r\n0\r\n\r\n";
        for length in 0..text.len() {
            assert!(body(text.get(..length).unwrap(), Framing::Chunked, 0).await.is_err(), "{length}");
        }
        for wrong in [&b"x\r\n"[..], b"-1\r\n", b"\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"ffffffffffffffff1\r\n"] {
            assert!(body(wrong, Framing::Chunked, 0).await.is_err(), "{}", String::from_utf8_lossy(wrong));
        }
        assert!(body(b"abc", Framing::Length(4), 0).await.is_err());
    }
}
