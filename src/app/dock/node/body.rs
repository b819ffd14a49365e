//! The body of an HTTP answer: of known length, in chunks, or until the connection ends.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use super::head::Head;

/// How long a node may send nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Most bytes of the line before a chunk.
const LINE_BYTES_MAX: usize = 1024;

/// Reads a body piece by piece.
#[derive(Debug)]
pub(crate) struct Body<S> {
    stream: S,
    buffer: BytesMut,
    left: Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// This many bytes.
    Bytes(u64),
    /// Chunks, of the present one this many bytes. 0: the line before a chunk comes next.
    Chunks { present: u64, first: bool },
    /// All until the end of the connection.
    All,
    /// Nothing.
    Nothing,
}

impl<S: AsyncRead + Unpin> Body<S> {
    /// The body behind `head`, of which `buffer` has come already.
    pub(crate) fn new(stream: S, head: &Head, buffer: BytesMut) -> Self {
        let left = match (head.chunked, head.length) {
            (true, _) => Left::Chunks { present: 0, first: true },
            (false, Some(length)) => Left::Bytes(length),
            (false, None) => Left::All,
        };
        Self { stream, buffer, left }
    }

    /// The next piece. None at the end of the body.
    ///
    /// # Errors
    ///
    /// The connection ends before the body does, or the node is silent for too long.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.left {
                Left::Nothing | Left::Bytes(0) => return Ok(None),
                Left::Chunks { present: 0, first } => self.begin_chunk(first).await?,
                Left::All if self.buffer.is_empty() => match self.fill().await {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                    Err(error) => return Err(error),
                },
                _ if self.buffer.is_empty() => self.fill().await?,
                Left::Bytes(left) => {
                    let (piece, left) = self.split(left);
                    self.left = Left::Bytes(left);
                    return Ok(Some(piece));
                }
                Left::Chunks { present, first } => {
                    let (piece, present) = self.split(present);
                    self.left = Left::Chunks { present, first };
                    return Ok(Some(piece));
                }
                Left::All => return Ok(Some(self.buffer.split().freeze())),
            }
        }
    }

    fn split(&mut self, left: u64) -> (Bytes, u64) {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
        let piece = self.buffer.split_to(length).freeze();
        (piece, left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX)))
    }

    async fn begin_chunk(&mut self, first: bool) -> io::Result<()> {
        if !first && !self.line().await?.is_empty() {
            return Err(invalid());
        }
        let line = self.line().await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| invalid())?;
        self.left = match size {
            0 => Left::Nothing,
            present => Left::Chunks { present, first: false },
        };
        Ok(())
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer.split_to(end)).into_owned();
                self.buffer.advance(2);
                return Ok(line);
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(invalid());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.buffer.reserve(16 * 1024);
        let read = timeout(SILENCE_MAX, self.stream.read_buf(&mut self.buffer)).await;
        match read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the download ended too early")),
            _ => Ok(()),
        }
    }
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the download has wrong chunks")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(head: Head, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut body = Body::new(bytes, &head, BytesMut::new());
        let mut read = Vec::new();
        while let Some(piece) = body.next().await? {
            read.extend_from_slice(&piece);
        }
        Ok(read)
    }

    #[tokio::test]
    async fn a_body_has_a_length_or_chunks_or_an_end() {
        let head = |chunked, length| Head { status: 200, chunked, length };
        assert_eq!(read(head(false, Some(3)), b"abcd").await.unwrap(), b"abc");
        assert_eq!(read(head(true, None), b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n").await.unwrap(), b"abcde");
        assert_eq!(read(head(false, None), b"abc").await.unwrap(), b"abc");
        for cut in ["3\r\nabc\r\n", "3\r\nab", "x\r\n", "", "3\r\nabcde\r\n0\r\n\r\n"] {
            assert!(read(head(true, None), cut.as_bytes()).await.is_err(), "{cut:?}");
        }
        assert!(read(head(false, Some(3)), b"ab").await.is_err());
    }
}
