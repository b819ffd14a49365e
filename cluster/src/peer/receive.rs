//! Receives a snapshot: files that were begun are gone on with, even from another sender's checkpoint, as
//! far as their names promise that they never change; checksums decide in the end.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rollbook_core::error::Refusal;
use tokio::sync::{Mutex, mpsc};

use super::conn::Sender;
use super::frame::{Frame, Kind};
use super::wire::{self, FileProto, Offer};
use crate::raft::Raft;
use crate::snapshot::Checkpoint;
use crate::store::{Layout, sync_directory};
use crate::types::Vote;

/// Most files of one snapshot.
const FILES_MAX: usize = 1_000_000;

/// Takes snapshots, one at a time.
#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    layout: Layout,
    turn: Arc<Mutex<()>>,
}

impl Receiver {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), turn: Arc::default() }
    }

    /// Takes one snapshot and installs it.
    pub(crate) async fn run(self, from: u64, raft: Raft, sender: Sender, session: u64, frames: mpsc::Receiver<Frame>) {
        let _turn = self.turn.lock().await;
        let frame = match self.take(from, &raft, &sender, session, frames).await {
            Ok(vote) => Frame::new(Kind::Reply, session, wire::encode_vote(&vote)),
            Err(error) => {
                tracing::warn!(from, %error, "a snapshot was not taken");
                let refusal = Refusal::Unavailable(format!("snapshot: {error}"));
                Frame::new(Kind::Refused, session, rollbook_core::reply::encode_refusal(&refusal))
            }
        };
        // The sender may have gone.
        sender.send(frame).await.ok();
    }

    async fn take(
        &self,
        from: u64,
        raft: &Raft,
        sender: &Sender,
        session: u64,
        mut frames: mpsc::Receiver<Frame>,
    ) -> io::Result<Vote> {
        let first = frames.recv().await.ok_or(io::ErrorKind::UnexpectedEof)?;
        let offer = wire::decode_offer(&first.body).map_err(io::Error::other)?;
        check(&offer.files)?;
        let directory = self.layout.incoming(from);
        let (wanted, place) = (offer.files.clone(), directory.clone());
        let have = blocking(move || prepare(&place, &wanted)).await?;
        let answer = Frame::new(Kind::Reply, session, wire::encode_numbers(have.clone()));
        sender.send(answer).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        let Offer { vote, meta, files } = offer;
        let place = directory.clone();
        blocking(move || write(&place, &files, have, frames)).await?;
        tracing::info!(from, last = ?meta.last_log_id, "a snapshot has arrived");
        let snapshot = openraft::Snapshot { meta, snapshot: Checkpoint::received(directory) };
        let installed = raft.install_full_snapshot(vote, snapshot).await.map_err(io::Error::other)?;
        Ok(installed.vote)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Only plain names below the two directories of a snapshot, each once.
fn check(files: &[FileProto]) -> io::Result<()> {
    let plain = |name: &str| {
        (1..=128).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let good = |file: &FileProto| matches!(file.path.split_once('/'), Some(("state" | "ledger", name)) if plain(name));
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    if files.len() > FILES_MAX || paths.len() != files.len() || !files.iter().all(good) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an offer with impossible files"));
    }
    Ok(())
}

/// Removes what is not offered; how many bytes of each offered file are there.
fn prepare(directory: &Path, files: &[FileProto]) -> io::Result<Vec<u64>> {
    let wanted: BTreeSet<PathBuf> = files.iter().map(|file| directory.join(&file.path)).collect();
    for part in ["state", "ledger"] {
        fs::create_dir_all(directory.join(part))?;
        for entry in fs::read_dir(directory.join(part))? {
            let path = entry?.path();
            // RocksDB never changes a table once it is written; everything else it may.
            if !wanted.contains(&path) || path.extension().is_none_or(|kind| kind != "sst") {
                fs::remove_file(path)?;
            }
        }
    }
    let have = |file: &FileProto| match fs::metadata(directory.join(&file.path)) {
        Ok(present) if present.len() <= file.bytes => Ok(present.len()),
        Ok(_) => fs::remove_file(directory.join(&file.path)).map(|()| 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    };
    files.iter().map(have).collect()
}

/// A file that is being written.
struct Open {
    number: usize,
    file: File,
    bytes: u64,
}

/// Writes the chunks as they come, then checks all files.
fn write(directory: &Path, files: &[FileProto], have: Vec<u64>, mut frames: mpsc::Receiver<Frame>) -> io::Result<()> {
    let strange = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut have = have;
    let mut open: Option<Open> = None;
    // Files without a byte have no chunk.
    for (file, _) in files.iter().zip(&have).filter(|(file, _)| file.bytes == 0) {
        File::create(directory.join(&file.path))?;
    }
    let checksums = loop {
        let frame = frames.blocking_recv().ok_or(io::ErrorKind::UnexpectedEof)?;
        match frame.kind {
            Kind::Complete => break wire::decode_numbers(&frame.body).map_err(io::Error::other)?,
            Kind::Chunk => {}
            _ => return Err(strange("a frame of another kind")),
        }
        let (number, offset, bytes) = chunk(&frame.body).ok_or_else(|| strange("a chunk that was cut"))?;
        if open.as_ref().is_none_or(|open| open.number != number) {
            finish(open.take())?;
            let file = files.get(number).ok_or_else(|| strange("a chunk of an unknown file"))?;
            let path = directory.join(&file.path);
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            open = Some(Open { number, file, bytes: have.get(number).copied().unwrap_or_default() });
        }
        let Some(now) = open.as_mut() else { continue };
        let limit = files.get(number).map_or(0, |file| file.bytes);
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if offset != now.bytes || end > limit {
            return Err(strange("a chunk out of its place"));
        }
        now.file.write_all(bytes)?;
        now.bytes = end;
        if let Some(have) = have.get_mut(number) {
            *have = end;
        }
    };
    finish(open)?;
    if checksums.len() != files.len() {
        return Err(strange("checksums of another offer"));
    }
    for (file, wanted) in files.iter().zip(checksums) {
        let path = directory.join(&file.path);
        if checksum(&path)? != wanted {
            fs::remove_file(&path)?;
            return Err(strange(&format!("{} arrived damaged", file.path)));
        }
    }
    for part in ["state", "ledger"] {
        sync_directory(&directory.join(part))?;
    }
    sync_directory(directory)
}

fn finish(open: Option<Open>) -> io::Result<()> {
    open.map_or(Ok(()), |open| open.file.sync_all())
}

fn chunk(body: &Bytes) -> Option<(usize, u64, &[u8])> {
    let (number, rest) = body.split_first_chunk::<4>()?;
    let (offset, bytes) = rest.split_first_chunk::<8>()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, u64::from_le_bytes(*offset), bytes))
}

fn checksum(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut checksum = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(u64::from(checksum));
        }
        checksum = crc32c::crc32c_append(checksum, buffer.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: u64) -> FileProto {
        FileProto { path: path.to_owned(), bytes }
    }

    fn chunk_frame(number: u32, offset: u64, bytes: &[u8]) -> Frame {
        let body = [&number.to_le_bytes(), offset.to_le_bytes().as_slice(), bytes].concat();
        Frame::new(Kind::Chunk, 1, body)
    }

    #[test]
    fn an_offer_may_not_name_a_file_elsewhere() {
        for path in ["../x", "state/../x", "state", "/etc/passwd", "state/", "state/.x", "other/x", "state/a/b"] {
            assert!(check(&[file(path, 1)]).is_err(), "{path}");
        }
        assert!(check(&[file("state/1.sst", 1), file("state/1.sst", 1)]).is_err(), "twice");
        assert!(check(&[file("state/000012.sst", 1), file("ledger/MANIFEST-000004", 2)]).is_ok());
    }

    #[test]
    fn a_transfer_that_was_cut_goes_on_where_it_was_and_damage_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let files = [file("ledger/7.sst", 6), file("state/CURRENT", 3)];
        assert_eq!(prepare(root.path(), &files).unwrap(), [0, 0]);
        let (frames, received) = mpsc::channel(9);
        frames.try_send(chunk_frame(0, 0, b"abc")).unwrap();
        frames.try_send(chunk_frame(1, 0, b"xy")).unwrap();
        drop(frames);
        assert!(write(root.path(), &files, vec![0, 0], received).is_err(), "the sender died");
        let have = prepare(root.path(), &files).unwrap();
        assert_eq!(have, [3, 0], "what may have changed begins anew");
        let send = |second: &'static [u8]| {
            let (frames, received) = mpsc::channel(9);
            frames.try_send(chunk_frame(0, 3, second)).unwrap();
            frames.try_send(chunk_frame(1, 0, b"xyz")).unwrap();
            let sums = [b"abcdef".as_slice(), b"xyz"].map(|bytes| u64::from(crc32c::crc32c(bytes)));
            frames.try_send(Frame::new(Kind::Complete, 1, wire::encode_numbers(sums.to_vec()))).unwrap();
            received
        };
        assert!(write(root.path(), &files, have, send(b"deX")).is_err(), "a flipped byte");
        let have = prepare(root.path(), &files).unwrap();
        assert_eq!(have, [0, 0], "the damaged file is gone, the other may have changed");
    }

    #[test]
    fn chunks_out_of_place_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let files = [file("ledger/7.sst", 4)];
        for frame in [chunk_frame(0, 1, b"a"), chunk_frame(3, 0, b"a"), chunk_frame(0, 0, b"abcde")] {
            prepare(root.path(), &files).unwrap();
            let (frames, received) = mpsc::channel(9);
            frames.try_send(frame).unwrap();
            assert!(write(root.path(), &files, vec![0], received).is_err());
        }
    }
}
