//! An SSE subscriber on a raw socket.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::timeout;

use super::chunk::{ChunkDecoder, FrameKind, Frames, frame_kind};
use super::http::{Body, Target, encode, parse_head};
use super::stream::Stream;
use crate::app::bench::units::count;

/// How long the server may take to answer a subscribe request.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A subscription whose response head has arrived.
#[derive(Debug)]
pub(in crate::app::bench) struct Subscriber {
    stream: Stream,
    buffer: Vec<u8>,
    /// `None` means that the stream is not chunked and ends with the connection.
    decoder: Option<ChunkDecoder>,
    frames: Frames,
    /// Bytes received after the response head.
    pub(in crate::app::bench) bytes: u64,
}

impl Subscriber {
    /// Subscribes to `subject` from `start` with a receive buffer of `capacity` bytes.
    pub(in crate::app::bench) async fn open(
        target: &Target,
        subject: &str,
        start: &str,
        capacity: usize,
    ) -> Result<Self> {
        let path = format!("/?subject={}&start={}&ack=none", encode(subject), encode(start));
        Self::open_path(target, &path, capacity).await
    }

    /// Subscribes with a request for `path`.
    pub(in crate::app::bench) async fn open_path(target: &Target, path: &str, capacity: usize) -> Result<Self> {
        timeout(OPEN_TIMEOUT, Self::subscribe(target, path, capacity))
            .await
            .context("no answer to the subscribe request in 10 s")?
    }

    async fn subscribe(target: &Target, path: &str, capacity: usize) -> Result<Self> {
        let mut stream = target.connect().await?;
        stream.send(&target.get(path, "text/event-stream")).await?;
        let mut buffer = Vec::with_capacity(capacity);
        let head = loop {
            if stream.receive(&mut buffer).await? == 0 {
                bail!("the server closed the connection before it answered the subscribe request");
            }
            if let Some(head) = parse_head(&buffer)? {
                break head;
            }
        };
        buffer.drain(..head.length);
        if head.status != 200 {
            let text = String::from_utf8_lossy(&buffer);
            bail!("subscribe with {path}: HTTP {}: {}", head.status, text.trim());
        }
        let decoder = match head.body {
            Body::Chunked => Some(ChunkDecoder::default()),
            Body::UntilClose => None,
            Body::Sized(_) => bail!("subscribe with {path}: the answer is not a stream"),
        };
        let bytes = count(buffer.len());
        Ok(Self { stream, buffer, decoder, frames: Frames::default(), bytes })
    }

    /// Waits for bytes, calls `each` with every completed event frame, and returns the number of frames.
    pub(in crate::app::bench) async fn read(&mut self, mut each: impl FnMut(&[u8])) -> Result<u64> {
        if self.buffer.is_empty() {
            let n = self.stream.receive(&mut self.buffer).await?;
            if n == 0 {
                bail!("the server closed the stream");
            }
            self.bytes += count(n);
        }
        match &mut self.decoder {
            Some(decoder) => {
                decoder.decode(&self.buffer, self.frames.buffer())?;
            }
            None => self.frames.buffer().extend_from_slice(&self.buffer),
        }
        self.buffer.clear();
        let (mut events, mut failure) = (0, None);
        self.frames.drain(|frame| match frame_kind(frame) {
            FrameKind::Event => {
                events += 1;
                each(frame);
            }
            FrameKind::Error => failure = Some(String::from_utf8_lossy(frame).into_owned()),
            FrameKind::Other => {}
        });
        if let Some(text) = failure {
            bail!("the stream ended with an error: {}", text.replace('\n', " "));
        }
        if events == 0 && self.decoder.as_ref().is_some_and(ChunkDecoder::is_done) {
            bail!("the server ended the stream");
        }
        Ok(events)
    }
}
