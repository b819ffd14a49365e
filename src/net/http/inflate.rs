//! A compressed body, decompressed piece by piece. Invariant: only one piece is in memory, however large the whole body
//! is, and the reader decides when to stop.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_http::error::PayloadError;
use actix_web::http::header::{CONTENT_ENCODING, HeaderMap};
use bytes::{Buf as _, Bytes};
use flate2::bufread::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use futures_util::Stream;

use super::head::Fault;

/// The supported codings, as a header names them.
pub(super) const CODINGS: &str = "gzip, deflate, zstd";
/// Most bytes of a piece.
const PIECE_BYTES_MAX: usize = 32 << 10;
/// Largest window of a zstd frame, as a power of two: 8 MiB, which every decoder has to support.
const WINDOW_LOG_MAX: u32 = 23;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Zstd,
}

impl Coding {
    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }
}

/// The coding of a request body; `None` when it is not compressed.
///
/// # Errors
/// In a way that is not understood.
pub(super) fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Fault> {
    let mut found = None;
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = value.as_bytes();
        for name in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()) {
            let coding = match name.to_ascii_lowercase().as_slice() {
                b"identity" => continue,
                b"gzip" | b"x-gzip" => Coding::Gzip,
                b"deflate" => Coding::Deflate,
                b"zstd" => Coding::Zstd,
                _ => return Err(unknown(value)),
            };
            // Two codings, one inside the other, would multiply the size that few bytes can stand for.
            if found.replace(coding).is_some() {
                return Err(unknown(value));
            }
        }
    }
    Ok(found)
}

fn unknown(value: &[u8]) -> Fault {
    let value = value.get(..value.len().min(60)).unwrap_or_default();
    Fault::new(415, format!("Content-Encoding {} is not understood: one of {CODINGS}, or none", value.escape_ascii()))
}

/// Compressed bytes that were received and not decompressed.
#[derive(Debug, Default)]
struct Waiting {
    /// The bytes.
    chunks: VecDeque<Bytes>,
    /// No more bytes will come.
    ended: bool,
}

impl BufRead for Waiting {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.chunks.front() {
            Some(chunk) => Ok(chunk),
            None if self.ended => Ok(&[]),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn consume(&mut self, count: usize) {
        if let Some(chunk) = self.chunks.front_mut() {
            chunk.advance(count.min(chunk.len()));
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}

impl Read for Waiting {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let here = self.fill_buf()?;
        let count = here.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..count), here.get(..count)) {
            to.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }
}

/// A decoder of zlib. The one of flate2 does not report a stream that was cut off.
struct Deflate {
    /// The input.
    waiting: Waiting,
    /// The state of the decoder.
    state: Decompress,
    /// Whether the end of the stream was read.
    whole: bool,
}

impl Deflate {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.whole {
            let input = self.waiting.fill_buf()?;
            let (before, written) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(input, out, FlushDecompress::None)?;
            let cut = input.is_empty();
            let used = usize::try_from(self.state.total_in() - before).unwrap_or(usize::MAX);
            let count = usize::try_from(self.state.total_out() - written).unwrap_or(usize::MAX);
            self.waiting.consume(used);
            self.whole = status == Status::StreamEnd;
            if count > 0 {
                return Ok(count);
            }
            if cut && !self.whole {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(0)
    }
}

enum Decoder {
    Gzip(Box<MultiGzDecoder<Waiting>>),
    Deflate(Box<Deflate>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Waiting>>),
}

impl Decoder {
    fn new(coding: Coding) -> io::Result<Self> {
        let waiting = Waiting::default();
        Ok(match coding {
            Coding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(waiting))),
            Coding::Deflate => Self::Deflate(Box::new(Deflate { waiting, state: Decompress::new(true), whole: false })),
            Coding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(waiting)?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    fn waiting(&mut self) -> &mut Waiting {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => &mut decoder.waiting,
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }

    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(out),
            Self::Deflate(decoder) => decoder.read(out),
            Self::Zstd(decoder) => decoder.read(out),
        }
    }
}

/// A body before its compression.
pub(super) struct Inflated<B> {
    /// The coding.
    coding: Coding,
    /// `None` before the first read and after the end.
    decoder: Option<Decoder>,
    /// Whether the decoder was made.
    begun: bool,
    /// The buffer of one piece.
    piece: Vec<u8>,
    /// The compressed body.
    body: B,
}

impl<B> Inflated<B> {
    pub(super) const fn new(coding: Coding, body: B) -> Self {
        Self { coding, decoder: None, begun: false, piece: Vec::new(), body }
    }
}

impl<B: Stream<Item = Result<Bytes, PayloadError>> + Unpin> Stream for Inflated<B> {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if !std::mem::replace(&mut this.begun, true) {
            match Decoder::new(this.coding) {
                Ok(decoder) => (this.decoder, this.piece) = (Some(decoder), vec![0; PIECE_BYTES_MAX]),
                Err(error) => return Poll::Ready(Some(Err(PayloadError::Io(error)))),
            }
        }
        loop {
            let Some(decoder) = &mut this.decoder else { return Poll::Ready(None) };
            match decoder.read(&mut this.piece) {
                Ok(0) => {
                    this.decoder = None;
                    return Poll::Ready(None);
                }
                Ok(count) => {
                    let piece = Bytes::copy_from_slice(this.piece.get(..count).unwrap_or_default());
                    return Poll::Ready(Some(Ok(piece)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    this.decoder = None;
                    let text = format!("the body is not {} as its Content-Encoding says", this.coding.name());
                    return Poll::Ready(Some(Err(PayloadError::Io(io::Error::new(io::ErrorKind::InvalidData, text)))));
                }
            }
            match ready!(Pin::new(&mut this.body).poll_next(cx)) {
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => decoder.waiting().chunks.push_back(chunk),
                Some(Err(error)) => {
                    this.decoder = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => decoder.waiting().ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use actix_web::http::header::HeaderValue;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use futures_util::StreamExt as _;

    use super::*;

    fn packed(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Gzip => {
                let mut out = GzEncoder::new(Vec::new(), Compression::best());
                out.write_all(bytes).unwrap();
                out.finish().unwrap()
            }
            Coding::Deflate => {
                let mut out = ZlibEncoder::new(Vec::new(), Compression::best());
                out.write_all(bytes).unwrap();
                out.finish().unwrap()
            }
            Coding::Zstd => zstd::encode_all(bytes, 19).unwrap(),
        }
    }

    /// All pieces of a body that comes in chunks of that size, or the text of the error.
    fn inflate(coding: Coding, bytes: &[u8], size: usize) -> Result<Vec<Bytes>, String> {
        let chunks: Vec<_> = bytes.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let mut inflated = Inflated::new(coding, futures_util::stream::iter(chunks));
        let mut pieces = Vec::new();
        let all = async {
            while let Some(piece) = inflated.next().await {
                pieces.push(piece.map_err(|error| error.to_string())?);
            }
            Ok(())
        };
        futures_executor(all).map(|()| pieces)
    }

    /// Nothing here ever waits.
    fn futures_executor<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(out) => out,
            Poll::Pending => panic!("waits"),
        }
    }

    const ALL: [Coding; 3] = [Coding::Gzip, Coding::Deflate, Coding::Zstd];

    #[test]
    fn a_body_comes_out_as_it_went_in_however_it_is_cut() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(|n| (n * n).to_le_bytes()).collect();
        for coding in ALL {
            let small = packed(coding, b"{\"subject\":\"app.x\"}");
            for size in 1..small.len() {
                assert_eq!(
                    inflate(coding, &small, size).unwrap().concat(),
                    b"{\"subject\":\"app.x\"}",
                    "{coding:?} {size}"
                );
            }
            let large = packed(coding, &text);
            for size in [1, 1000, 100_000] {
                assert!(inflate(coding, &large, size).unwrap().concat() == text, "{coding:?} {size}");
            }
            for cut in [1, 5, small.len() - 1] {
                assert!(inflate(coding, &small[..cut], 3).is_err(), "{coding:?} cut to {cut} bytes");
            }
            assert!(inflate(coding, b"{\"subject\":\"app.x\"}", 7).unwrap_err().contains("Content-Encoding"));
        }
        let twice = [packed(Coding::Gzip, b"one "), packed(Coding::Gzip, b"two")].concat();
        assert_eq!(inflate(Coding::Gzip, &twice, 5).unwrap().concat(), b"one two");
    }

    #[test]
    fn few_bytes_that_mean_many_come_in_pieces_of_bounded_size() {
        let zeros = vec![0; 64 << 20];
        for coding in ALL {
            let bomb = packed(coding, &zeros);
            assert!(bomb.len() < 200_000);
            let mut inflated = Inflated::new(coding, futures_util::stream::iter([Ok(Bytes::from(bomb))]));
            let mut seen = 0;
            // A reader with a limit stops here, and nothing of the rest was decompressed.
            while seen < 8 << 20 {
                let piece = futures_executor(inflated.next()).unwrap().unwrap();
                assert!(piece.len() <= PIECE_BYTES_MAX);
                seen += piece.len();
            }
        }
    }

    #[test]
    fn one_coding_that_is_known_or_415() {
        let ask = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_str(value).unwrap());
            }
            coding(&headers).map_err(|fault| fault.status)
        };
        assert_eq!(ask(&[]), Ok(None));
        assert_eq!(ask(&["identity"]), Ok(None));
        assert_eq!(ask(&["GZIP"]), Ok(Some(Coding::Gzip)));
        assert_eq!(ask(&["identity, zstd"]), Ok(Some(Coding::Zstd)));
        for other in [&["br"][..], &["gzip, gzip"], &["gzip", "deflate"], &["compress"]] {
            assert_eq!(ask(other), Err(415), "{other:?}");
        }
    }
}
