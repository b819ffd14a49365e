//! Sends a snapshot: file by file, from where the receiver has them already.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::conn::{CallError, Conn, Session};
use super::frame::Kind;
use super::wire::{self, FileProto, Offer};
use crate::types::{SnapshotMeta, Vote};

/// Bytes of a file in one frame.
const CHUNK_BYTES: usize = 1 << 20;
/// How long the receiver may take to look at what it has.
const OFFER_MAX: Duration = Duration::from_secs(30);
/// How long it may take to check and install what it got.
const INSTALL_MAX: Duration = Duration::from_secs(600);

/// Why a snapshot could not be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the snapshot cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// Sends the files of a snapshot and waits until it is installed. The receiver's vote tells whether it was.
pub(crate) async fn send(
    conn: &Arc<Conn>,
    vote: Vote,
    meta: SnapshotMeta,
    directory: &Path,
) -> Result<Vote, SendError> {
    let root = directory.to_path_buf();
    let files = blocking(move || list(&root)).await?;
    let total: u64 = files.iter().map(|file| file.bytes).sum();
    let mut session = conn.open();
    session.send(Kind::Offer, wire::encode_offer(&Offer { vote, meta, files: files.clone() })).await?;
    let have = tokio::time::timeout(OFFER_MAX, session.reply()).await.unwrap_or(Err(CallError::Late))?;
    let have = wire::decode_numbers(&have).map_err(CallError::Protocol)?;
    if have.len() != files.len() {
        return Err(CallError::Protocol("an answer for another offer").into());
    }
    tracing::info!(files = files.len(), bytes = total, present = have.iter().sum::<u64>(), "sending a snapshot");
    let mut checksums = Vec::with_capacity(files.len());
    for (number, (file, have)) in (0_u32..).zip(files.iter().zip(have)) {
        checksums.push(send_file(&session, directory.join(&file.path), number, file.bytes, have).await?);
    }
    session.send(Kind::Complete, wire::encode_numbers(checksums)).await?;
    let vote = tokio::time::timeout(INSTALL_MAX, session.reply()).await.unwrap_or(Err(CallError::Late))?;
    Ok(wire::decode_vote(&vote).map_err(CallError::Protocol)?)
}

/// Sends what is missing of a file; the checksum is that of all of it.
async fn send_file(session: &Session, path: PathBuf, number: u32, bytes: u64, have: u64) -> Result<u64, SendError> {
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
            let mut body = Vec::with_capacity(chunk.len().saturating_add(12));
            body.extend_from_slice(&number.to_le_bytes());
            body.extend_from_slice(&offset.max(have).to_le_bytes());
            body.extend_from_slice(chunk.get(skip..).unwrap_or_default());
            session.send(Kind::Chunk, Bytes::from(body)).await?;
        }
        offset = end;
    }
    Ok(u64::from(checksum))
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
