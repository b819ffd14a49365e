//! Sends a snapshot: file by file, from where the receiver has them already.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::book::snapshot::Made;
use crate::peer::conn::{CallError, Conn, Session, reply};
use crate::peer::frame::Kind;
use crate::peer::wire::{self, FileProto, Offer};
use crate::types::Vote;

/// Bytes of a file in one frame.
const CHUNK_BYTES: usize = 1 << 20;
/// How long a receiver of an earlier release, which sends no reports, may take to check the files that it has.
const OFFER_MAX: Duration = Duration::from_secs(30);
/// How long such a receiver may take to check and install the snapshot.
const INSTALL_MAX: Duration = Duration::from_secs(3600);
/// A receiver that sends reports, and then nothing for this long, counts as ended.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A receiver hears of its sender this often, also when all it is sent is there already.
const SIGN_EVERY: Duration = Duration::from_secs(1);

/// Why a snapshot could not be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the snapshot cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// Sends the files of a snapshot and waits until it is installed. The vote in the answer shows whether it was.
pub(crate) async fn send(conn: &Arc<Conn>, vote: Vote, made: &Made) -> Result<Vote, SendError> {
    let (directory, meta) = (made.directory(), made.meta.clone());
    let root = directory.to_path_buf();
    let files = blocking(move || list(&root)).await?;
    let total: u64 = files.iter().map(|file| file.bytes).sum();
    let mut session = conn.open();
    let offer = Offer { vote, meta, files: files.clone(), progress: true };
    session.send(Kind::Offer, wire::encode_offer(&offer)).await?;
    let have = wire::decode_numbers(&answer(&mut session, OFFER_MAX).await?).map_err(CallError::Protocol)?;
    if have.len() != files.len() {
        return Err(CallError::Protocol("an answer for another offer").into());
    }
    tracing::info!(files = files.len(), bytes = total, present = have.iter().sum::<u64>(), "sending a snapshot");
    let mut checksums = Vec::with_capacity(files.len());
    let mut sending = Transfer { session: &mut session, sign: Instant::now() };
    for (number, (file, have)) in (0_u32..).zip(files.iter().zip(have)) {
        checksums.push(sending.file(directory.join(&file.path), number, file.bytes, have).await?);
    }
    session.send(Kind::Complete, wire::encode_numbers(checksums)).await?;
    let vote = answer(&mut session, INSTALL_MAX).await?;
    Ok(wire::decode_vote(&vote).map_err(CallError::Protocol)?)
}

/// The answer of the receiver. The wait has no end while the receiver reports that it is working.
async fn answer(session: &mut Session, first: Duration) -> Result<Bytes, CallError> {
    let mut within = first;
    loop {
        let frame = tokio::time::timeout(within, session.receive()).await.unwrap_or(Err(CallError::Late))?;
        if frame.kind != Kind::Progress {
            return reply(frame);
        }
        within = SILENCE_MAX;
    }
}

/// Files on their way.
struct Transfer<'a> {
    session: &'a mut Session,
    /// When the receiver was last sent a frame.
    sign: Instant,
}

impl Transfer<'_> {
    /// Sends the missing part of a file, with the checksum of the whole file.
    async fn file(&mut self, path: PathBuf, number: u32, bytes: u64, have: u64) -> Result<u64, SendError> {
        let mut file = blocking(move || File::open(&path)).await?;
        let (mut offset, mut checksum) = (0_u64, 0_u32);
        while offset < bytes {
            let want = usize::try_from(bytes.saturating_sub(offset)).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let chunk;
            (file, chunk) = blocking(move || {
                let mut chunk = vec![0; want];
                file.read_exact(&mut chunk)?;
                Ok((file, chunk))
            })
            .await?;
            checksum = crc32c::crc32c_append(checksum, &chunk);
            let end = offset.saturating_add(u64::try_from(chunk.len()).unwrap_or_default());
            if end > have {
                let skip = usize::try_from(have.saturating_sub(offset)).unwrap_or_default();
                self.chunk(number, offset.max(have), chunk.get(skip..).unwrap_or_default()).await?;
            } else if self.sign.elapsed() >= SIGN_EVERY {
                // A frame without bytes, which gives only the offset at which the file continues.
                self.chunk(number, have, &[]).await?;
            }
            offset = end;
        }
        Ok(u64::from(checksum))
    }

    async fn chunk(&mut self, number: u32, offset: u64, bytes: &[u8]) -> Result<(), SendError> {
        if let Some(frame) = self.session.arrived().filter(|frame| frame.kind != Kind::Progress) {
            // The receiver has given up, or another sender has taken the place.
            reply(frame)?;
            return Err(CallError::Protocol("an answer before the end").into());
        }
        let mut body = Vec::with_capacity(bytes.len().saturating_add(12));
        body.extend_from_slice(&number.to_le_bytes());
        body.extend_from_slice(&offset.to_le_bytes());
        body.extend_from_slice(bytes);
        self.session.send(Kind::Chunk, Bytes::from(body)).await?;
        self.sign = Instant::now();
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn list(root: &Path) -> io::Result<Vec<FileProto>> {
    let mut files = Vec::new();
    for part in ["state", "ledger"] {
        for entry in std::fs::read_dir(root.join(part))? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|_| io::ErrorKind::InvalidData)?;
            files.push(FileProto { path: format!("{part}/{name}"), bytes: entry.metadata()?.len() });
        }
    }
    files.sort_by(|one, two| one.path.cmp(&two.path));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::conn::start_writer;
    use crate::peer::frame::{self, FRAME_BYTES_MAX, Frame};
    use crate::peer::link::halves;

    #[tokio::test]
    async fn a_session_that_is_dropped_ends_at_the_other_side_behind_its_frames_also_when_the_queue_is_full() {
        let (near, far) = tokio::io::duplex(64);
        let (reader, writer) = halves(near);
        let conn = Arc::new(Conn::start(reader, start_writer(writer), 7, "b:1".to_owned()));
        let (mut far, _writer) = halves(far);
        for full in [false, true] {
            let session = conn.open();
            session.send(Kind::Chunk, Bytes::from_static(b"x")).await.unwrap();
            let mut sent = 0;
            while full && conn.tell(Kind::Tell, Bytes::from_static(b"y")).is_ok() {
                sent += 1;
            }
            assert_eq!(sent > 0, full);
            drop(session);
            let mut received = Vec::new();
            while received.last() != Some(&Kind::End) {
                let frame = frame::read(&mut far, FRAME_BYTES_MAX);
                let frame = tokio::time::timeout(Duration::from_secs(10), frame).await;
                received.push(
                    frame
                        .unwrap_or_else(|_| panic!("full: {full}: no end after {}", received.len()))
                        .unwrap()
                        .unwrap()
                        .kind,
                );
            }
            assert_eq!((received.first(), received.len()), (Some(&Kind::Chunk), sent + 2), "full: {full}");
        }
        conn.call(Kind::Ping, Bytes::new(), Duration::from_millis(10)).await.unwrap_err();
        let next = frame::read(&mut far, FRAME_BYTES_MAX).await.unwrap().unwrap().kind;
        assert_eq!(next, Kind::Ping);
        let more = tokio::time::timeout(Duration::from_millis(50), frame::read(&mut far, FRAME_BYTES_MAX)).await;
        assert!(more.is_err(), "a call is no session, and has no end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_is_at_work_is_waited_for_and_one_that_says_nothing_is_not() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (reader, writer) = halves(near);
        let conn = Arc::new(Conn::start(reader, start_writer(writer), 7, "b:1".to_owned()));
        let sender = start_writer(halves(far).1);
        let mut session = conn.open();
        let id = 1;
        let working = async {
            for _ in 0..1000 {
                tokio::time::sleep(SILENCE_MAX / 2).await;
                sender.send(Frame::new(Kind::Progress, id, Bytes::new())).await.unwrap();
            }
            sender.send(Frame::new(Kind::Reply, id, Bytes::from_static(b"done"))).await.unwrap();
        };
        let (answered, ()) = tokio::join!(answer(&mut session, SILENCE_MAX), working);
        assert_eq!(answered.unwrap(), b"done".as_slice());
        sender.send(Frame::new(Kind::Progress, id, Bytes::new())).await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(matches!(answer(&mut session, INSTALL_MAX).await, Err(CallError::Late)));
        assert!(began.elapsed() < SILENCE_MAX * 2, "it had said that it is at work, and is gone");
    }
}
