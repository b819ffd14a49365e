//! Decodes chunked transfers and splits a stream into SSE frames. Both accept input that is split anywhere.

use anyhow::{Result, bail};
use memchr::memmem;

/// A larger chunk counts as garbage.
const CHUNK_BYTES_MAX: usize = 1 << 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size { value: usize, digits: u8 },
    Extension { value: usize },
    SizeLf { value: usize },
    Data { left: usize },
    DataCr,
    DataLf,
    Trailer { blank: bool },
    Done,
}

/// Decoder of `Transfer-Encoding: chunked`.
#[derive(Debug)]
pub(in crate::app::bench) struct ChunkDecoder(State);

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self(State::Size { value: 0, digits: 0 })
    }
}

impl ChunkDecoder {
    /// Whether the last chunk has come.
    pub(in crate::app::bench) fn is_done(&self) -> bool {
        self.0 == State::Done
    }

    /// Appends the data of `input` to `out`, and returns how many bytes of `input` belong to this body.
    pub(in crate::app::bench) fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize> {
        let mut rest = input;
        while let Some((&byte, after)) = rest.split_first() {
            if let State::Data { left } = self.0 {
                let (data, remaining) = rest.split_at(left.min(rest.len()));
                out.extend_from_slice(data);
                rest = remaining;
                let left = left - data.len();
                self.0 = if left == 0 { State::DataCr } else { State::Data { left } };
                continue;
            }
            if self.is_done() {
                break;
            }
            self.0 = self.0.step(byte)?;
            rest = after;
        }
        Ok(input.len() - rest.len())
    }
}

impl State {
    /// The state after one byte outside chunk data.
    fn step(self, byte: u8) -> Result<Self> {
        Ok(match (self, byte) {
            (Self::Size { value, digits: 1.. }, b'\r') => Self::SizeLf { value },
            (Self::Size { value, digits: 1.. }, b';' | b' ') => Self::Extension { value },
            (Self::Size { value, digits }, _) => {
                let digit = char::from(byte).to_digit(16).and_then(|d| usize::try_from(d).ok());
                let Some(digit) = digit.filter(|_| value < CHUNK_BYTES_MAX / 16) else {
                    bail!("malformed chunk size");
                };
                Self::Size { value: value * 16 + digit, digits: digits.saturating_add(1) }
            }
            (Self::Extension { value }, b'\r') => Self::SizeLf { value },
            (Self::Extension { value }, _) => Self::Extension { value },
            (Self::SizeLf { value: 0 }, b'\n') => Self::Trailer { blank: true },
            (Self::SizeLf { value }, b'\n') => Self::Data { left: value },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size { value: 0, digits: 0 },
            (Self::Trailer { blank: true }, b'\n') => Self::Done,
            (Self::Trailer { blank }, b'\r') => Self::Trailer { blank },
            (Self::Trailer { .. }, _) => Self::Trailer { blank: byte == b'\n' },
            (Self::SizeLf { .. } | Self::DataCr | Self::DataLf, _) => {
                bail!("malformed chunk framing")
            }
            (Self::Data { .. } | Self::Done, _) => self,
        })
    }
}

/// The kind of an SSE frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app::bench) enum FrameKind {
    /// An event of the log.
    Event,
    /// The error that the server sends before it ends the stream.
    Error,
    /// A comment or a retry hint.
    Other,
}

/// Classifies a frame by its first line, which the wire format fixes. A frame with an id alone marks the start of a
/// stream.
pub(in crate::app::bench) fn frame_kind(frame: &[u8]) -> FrameKind {
    let more = || memchr::memchr(b'\n', frame).is_some();
    if (frame.starts_with(b"id: ") && more()) || frame.starts_with(b"event: msg") {
        FrameKind::Event
    } else if frame.starts_with(b"event: error") {
        FrameKind::Error
    } else {
        FrameKind::Other
    }
}

/// Collects the bytes of a stream and returns whole frames.
#[derive(Debug)]
pub(in crate::app::bench) struct Frames {
    pending: Vec<u8>,
    blank_line: memmem::Finder<'static>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { pending: Vec::new(), blank_line: memmem::Finder::new(b"\n\n") }
    }
}

impl Frames {
    /// The buffer for the bytes of the stream.
    pub(in crate::app::bench) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Calls `each` with every complete frame, without its blank line, and keeps the incomplete rest.
    pub(in crate::app::bench) fn drain(&mut self, mut each: impl FnMut(&[u8])) {
        let mut rest = self.pending.as_slice();
        while let Some(end) = self.blank_line.find(rest) {
            each(rest.get(..end).unwrap_or_default());
            rest = rest.get(end + 2..).unwrap_or_default();
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"5\r\nid: 1\r\n1a;x=y\r\n\nevent: msg\ndata: {\"a\":1}\n\r\n4\r\n\n: p\r\n6\r\ning\n\nx\r\n0\r\nTrailer: 1\r\n\r\nNEXT";

    fn feed(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, usize, bool) {
        let (mut decoder, mut frames) = (ChunkDecoder::default(), Frames::default());
        let (mut seen, mut taken) = (Vec::new(), 0);
        for piece in pieces {
            taken += decoder.decode(piece, frames.buffer()).unwrap();
            frames.drain(|frame| seen.push(frame.to_vec()));
        }
        (seen, taken, decoder.is_done())
    }

    #[test]
    fn frames_are_the_same_however_the_stream_is_cut() {
        let expected = vec![b"id: 1\nevent: msg\ndata: {\"a\":1}".to_vec(), b": ping".to_vec()];
        let length = STREAM.len() - b"NEXT".len();
        for cut in 0..=STREAM.len() {
            let (left, right) = STREAM.split_at(cut);
            assert_eq!(feed(&[left, right]), (expected.clone(), length, true), "{cut}");
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(feed(&bytes), (expected, length, true));
    }

    #[test]
    fn malformed_framing_is_refused() {
        for bad in [&b"\r\n"[..], b"xyz\r\n", b"5\r\nhelloX\r", b"1\rX", b"ffffffffffffffff\r\n"] {
            assert!(ChunkDecoder::default().decode(bad, &mut Vec::new()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_first_line_tells_the_kind() {
        assert_eq!(frame_kind(b"id: e_1\nevent: msg\ndata: {}"), FrameKind::Event);
        assert_eq!(frame_kind(b"event: error\ndata: no"), FrameKind::Error);
        assert_eq!(frame_kind(b": ping"), FrameKind::Other);
        assert_eq!(frame_kind(b"id: e_0"), FrameKind::Other);
        assert_eq!(frame_kind(b"retry: 900"), FrameKind::Other);
    }
}
