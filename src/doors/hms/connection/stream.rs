//! Bytes in and out of one connection, and pings.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;

use super::super::outbox::Outbox;
use super::session::{Event, Over, Session};
use crate::base::clock;

/// Bytes of the first read, and of the largest.
const READ_BYTES: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one write, so that progress is seen while a client reads slowly.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// How long a connection that ends may take to say its last words.
const END_TIME: Duration = Duration::from_secs(2);

/// When the other end has last shown that it is there: bytes came, or the socket took some.
type LastSign = Rc<Cell<Instant>>;

/// Serves a connection until either end ends it.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    read: BytesMut,
    mut session: Session,
    stopping: CancellationToken,
) {
    let (reader, writer) = tokio::io::split(stream);
    let (outbox, last_sign) = (session.outbox(), Rc::new(Cell::new(clock::now())));
    let mut writing = std::pin::pin!(write(writer, Arc::clone(&outbox), Rc::clone(&last_sign)));
    {
        let mut reading = std::pin::pin!(listen(reader, read, &mut session, last_sign));
        tokio::select! {
            () = stopping.cancelled() => {}
            Over = &mut reading => {}
            () = &mut writing => return,
        }
    }
    // The client leaves the bus before its last words are written.
    drop(session);
    outbox.end();
    tokio::time::timeout(END_TIME, writing).await.ok();
}

async fn write<S: AsyncWrite>(mut writer: WriteHalf<S>, outbox: Arc<Outbox>, last_sign: LastSign) {
    let mut out = BytesMut::new();
    while outbox.take(&mut out).await {
        let mut rest = &out[..];
        while !rest.is_empty() {
            let part = rest.get(..WRITE_BYTES_MAX).unwrap_or(rest);
            let Ok(count @ 1..) = writer.write(part).await else { return };
            outbox.written(count);
            last_sign.set(clock::now());
            rest = rest.get(count..).unwrap_or_default();
        }
        if writer.flush().await.is_err() {
            return;
        }
    }
    if let Err(error) = writer.shutdown().await {
        tracing::debug!(%error, "a connection ended before its last words");
    }
}

async fn listen<S: AsyncRead>(
    mut reader: ReadHalf<S>,
    read: BytesMut,
    session: &mut Session,
    last_sign: LastSign,
) -> Over {
    let mut buffer = read;
    let mut read_bytes = READ_BYTES;
    loop {
        if !buffer.is_empty() {
            if session.take_bytes(&buffer).is_err() {
                return Over;
            }
            if buffer.len() >= read_bytes {
                read_bytes = read_bytes.saturating_mul(2).min(READ_BYTES_MAX);
            }
            buffer.clear();
        }
        let (reads, wakes_at) = (session.is_listening(), session.wakes_at());
        let event = tokio::select! {
            biased;
            event = session.next() => event,
            () = tokio::time::sleep_until(wakes_at.into()) => Event::Timer(last_sign.get()),
            count = fill(&mut reader, &mut buffer, read_bytes), if reads => match count {
                0 => return Over,
                _ => {
                    last_sign.set(clock::now());
                    continue;
                }
            },
        };
        if session.handle(event).is_err() {
            return Over;
        }
    }
}

/// Reads once. 0: nothing more comes.
async fn fill<S: AsyncRead>(reader: &mut ReadHalf<S>, buffer: &mut BytesMut, bytes: usize) -> usize {
    buffer.reserve(bytes);
    reader.read_buf(buffer).await.unwrap_or_default()
}
