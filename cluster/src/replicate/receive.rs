//! Receives a snapshot. Files that the same sender began to send earlier are continued, if their names promise that
//! they never change; checksums decide in the end, and all files are synced before the snapshot is installed.
//!
//! A node receives one snapshot at a time. A receiver never waits for a sender that has ended: the end of the session
//! or silence ends the reception, and an offer with the same or a later vote replaces the present one.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollbook_core::error::Refusal;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::raft::Raft;
use crate::book::snapshot::{self, Checkpoint};
use crate::crash;
use crate::lab_faults::Bug;
use crate::lock::lock;
use crate::peer::conn::Sender;
use crate::peer::frame::{Frame, Kind};
use crate::peer::wire::{self, FileProto, Offer};
use crate::store::disk;
use crate::store::layout::{Layout, sync_directory};
use crate::types::Vote;

/// Most files of one snapshot.
const FILES_MAX: usize = 1_000_000;
/// A sender that sends nothing for this long counts as ended. A sender of an earlier release is silent while it reads
/// the files that the receiver has already.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How often the receiver reports to the waiting sender that it is still working.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Free space that a snapshot must leave, so that the node can run while it receives.
const ROOM_BYTES: u64 = 64 << 20;

/// The snapshot that is being received, or that waits until the one before has ended.
#[derive(Debug)]
struct Present {
    vote: Vote,
    number: u64,
    /// Cancelled when another offer takes its place.
    replaced: CancellationToken,
}

/// Takes snapshots, one at a time.
#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    layout: Layout,
    /// Held while the files of a snapshot are touched.
    turn: Arc<Mutex<()>>,
    present: Arc<std::sync::Mutex<Option<Present>>>,
}

/// The way back to the sender of an offer.
struct OfferReply {
    sender: Sender,
    session: u64,
    /// Whether the sender understands that there is progress.
    progress: bool,
}

impl OfferReply {
    /// Runs work that takes long, and reports to the sender meanwhile.
    async fn while_told<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut tick = tokio::time::interval(PROGRESS_EVERY);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = tick.tick(), if self.progress => {
                    // Without room now, the next report is sent; when the connection has ended, the frames end.
                    self.sender.try_send(Frame::new(Kind::Progress, self.session, Bytes::new())).ok();
                }
            }
        }
    }
}

/// The frames of a sender, until they end in one of the ways in which they can.
struct Frames {
    frames: mpsc::Receiver<Frame>,
    replaced: CancellationToken,
}

impl Frames {
    async fn next(&mut self) -> io::Result<Frame> {
        tokio::select! {
            biased;
            () = self.replaced.cancelled() => Err(replaced()),
            frame = tokio::time::timeout(SILENCE_MAX, self.frames.recv()) => {
                if Bug::ReceiverWaits.is_on() && matches!(frame, Ok(None)) {
                    tokio::time::sleep(SILENCE_MAX).await;
                }
                frame.map_err(|_| io::ErrorKind::TimedOut)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
        }
    }
}

fn replaced() -> io::Error {
    io::Error::other("another offer has taken its place")
}

fn strange(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl Receiver {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), turn: Arc::default(), present: Arc::default() }
    }

    /// Takes one snapshot and installs it.
    pub(crate) async fn run(self, from: u64, raft: Raft, sender: Sender, session: u64, frames: mpsc::Receiver<Frame>) {
        let frame = match self.receive(from, &raft, &sender, session, frames).await {
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

    async fn receive(
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
        let replaced = self.take_place(offer.vote, session)?;
        let back = OfferReply { sender: sender.clone(), session, progress: offer.progress };
        let taken = self.take(from, raft, offer, &back, Frames { frames, replaced: replaced.clone() }).await;
        let mut present = lock(&self.present);
        if !replaced.is_cancelled() {
            present.take();
        }
        drop(present);
        taken
    }

    /// Takes the place of the offer before, unless that one is of a later leader.
    fn take_place(&self, vote: Vote, number: u64) -> io::Result<CancellationToken> {
        let mut present = lock(&self.present);
        if let Some(before) = present.as_ref() {
            if vote < before.vote {
                return Err(io::Error::other("a later leader sends a snapshot"));
            }
            tracing::info!(session = before.number, "a snapshot is offered in the place of the one before");
            if !Bug::ReceiverWaits.is_on() {
                before.replaced.cancel();
            }
        }
        let replaced = CancellationToken::new();
        *present = Some(Present { vote, number, replaced: replaced.clone() });
        Ok(replaced)
    }

    async fn take(
        &self,
        from: u64,
        raft: &Raft,
        offer: Offer,
        back: &OfferReply,
        mut frames: Frames,
    ) -> io::Result<Vote> {
        let Offer { vote, meta, files, .. } = offer;
        let directory = self.layout.incoming(from);
        // The receiver before this one ends its step first; a check of checksums notices between two files that it was
        // replaced.
        let _turn = back.while_told(self.turn.lock()).await;
        if frames.replaced.is_cancelled() {
            return Err(replaced());
        }
        let (layout, place, offered) = (self.layout.clone(), directory.clone(), files.clone());
        let prepared = blocking(move || {
            snapshot::discard_arrivals(&layout, Some(&place))?;
            let have = prepare(&place, &offered)?;
            require_room(layout.root(), &offered, &have)?;
            Ok(have)
        });
        let have = back.while_told(prepared).await?;
        let answer = Frame::new(Kind::Reply, back.session, wire::encode_numbers(have.clone()));
        back.sender.send(answer).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        let mut arriving = IncomingFiles::begin(directory.clone(), files, have);
        let checksums = loop {
            let frame = frames.next().await?;
            match frame.kind {
                Kind::Complete => break wire::decode_numbers(&frame.body).map_err(io::Error::other)?,
                Kind::Chunk => arriving = blocking(move || arriving.write(&frame.body)).await?,
                _ => return Err(strange("a frame of another kind")),
            }
        };
        let ends = frames.replaced.clone();
        let root = self.layout.root().to_path_buf();
        let finish = blocking(move || {
            crash::point_of(&root, "receive: all has arrived").map_err(io::Error::other)?;
            arriving.finish(&checksums, &ends)?;
            crash::point_of(&root, "receive: all is synced").map_err(io::Error::other)
        });
        back.while_told(finish).await?;
        let last = meta.last_log_id.map_or(0, |last| last.index);
        tracing::info!(from, last, "a snapshot has arrived");
        let snapshot = openraft::Snapshot { meta, snapshot: Checkpoint::Received(directory) };
        let installed = back.while_told(raft.install_full_snapshot(vote, snapshot)).await;
        let installed = installed.map_err(io::Error::other)?;
        let layout = self.layout.clone();
        if let Err(error) = blocking(move || snapshot::discard_arrivals(&layout, None)).await {
            tracing::warn!(%error, "files of a snapshot stay behind until the next start");
        }
        Ok(installed.vote)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Refuses a snapshot that would fill the disk: the node lives on without it, and would not on a full disk.
fn require_room(root: &Path, files: &[FileProto], have: &[u64]) -> io::Result<()> {
    let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0_u64, u64::saturating_add);
    let missing = sum(&mut files.iter().map(|file| file.bytes)).saturating_sub(sum(&mut have.iter().copied()));
    disk::require(root, missing.saturating_add(ROOM_BYTES))
        .map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))
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
    let offered: BTreeSet<PathBuf> = files.iter().map(|file| directory.join(&file.path)).collect();
    for part in ["state", "ledger"] {
        fs::create_dir_all(directory.join(part))?;
        for entry in fs::read_dir(directory.join(part))? {
            let path = entry?.path();
            // RocksDB never changes a table once it is written; everything else it may.
            if !offered.contains(&path) || path.extension().is_none_or(|kind| kind != "sst") {
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
}

/// The files of a snapshot while they arrive.
struct IncomingFiles {
    directory: PathBuf,
    files: Vec<FileProto>,
    /// How many bytes of each are there.
    have: Vec<u64>,
    /// Checksums of those that arrived from their first byte on; the others are read again.
    sums: Vec<Option<u32>>,
    open: Option<Open>,
}

impl IncomingFiles {
    fn begin(directory: PathBuf, files: Vec<FileProto>, have: Vec<u64>) -> Self {
        let sums = have.iter().map(|have| (*have == 0).then_some(0)).collect();
        Self { directory, files, have, sums, open: None }
    }

    /// Writes a chunk at its place, which is where its file ends now.
    fn write(mut self, body: &Bytes) -> io::Result<Self> {
        let (number, offset, bytes) = chunk(body).ok_or_else(|| strange("a chunk that was cut"))?;
        let file = self.files.get(number).ok_or_else(|| strange("a chunk of an unknown file"))?;
        let have = self.have.get_mut(number).ok_or_else(|| strange("a chunk of an unknown file"))?;
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if offset != *have || end > file.bytes {
            return Err(strange("a chunk out of its place"));
        }
        if bytes.is_empty() {
            // A sign of life.
            return Ok(self);
        }
        let path = self.directory.join(&file.path);
        let mut open = match self.open.take().filter(|open| open.number == number) {
            Some(open) => open,
            None => Open { number, file: OpenOptions::new().create(true).append(true).open(&path)? },
        };
        if let Err(error) = open.file.write_all(bytes) {
            if error.kind() != io::ErrorKind::StorageFull {
                // The content of the file is unknown.
                fs::remove_file(&path)?;
            }
            return Err(error);
        }
        *have = end;
        if let Some(Some(sum)) = self.sums.get_mut(number) {
            *sum = crc32c::crc32c_append(*sum, bytes);
        }
        self.open = Some(open);
        Ok(self)
    }

    /// Checks and syncs all files, also those that had arrived before, because they may not have been synced.
    fn finish(self, checksums: &[u64], replaced: &CancellationToken) -> io::Result<()> {
        if checksums.len() != self.files.len() {
            return Err(strange("checksums of another offer"));
        }
        drop(self.open);
        for ((file, expected), sum) in self.files.iter().zip(checksums).zip(&self.sums) {
            let path = self.directory.join(&file.path);
            if file.bytes == 0 {
                // It has no chunk.
                File::create(&path)?;
            }
            let sum = match sum {
                Some(sum) => u64::from(*sum),
                None => checksum(&path, replaced)?,
            };
            if replaced.is_cancelled() {
                return Err(self::replaced());
            }
            if sum != *expected {
                fs::remove_file(&path)?;
                return Err(strange(format!("{} arrived damaged", file.path)));
            }
            if let Err(error) = File::open(&path).and_then(|file| file.sync_all()) {
                // A second sync may succeed without having written anything.
                fs::remove_file(&path)?;
                return Err(error);
            }
        }
        for part in ["state", "ledger"] {
            sync_directory(&self.directory.join(part))?;
        }
        sync_directory(&self.directory)
    }
}

fn chunk(body: &Bytes) -> Option<(usize, u64, &[u8])> {
    let (number, rest) = body.split_first_chunk::<4>()?;
    let (offset, bytes) = rest.split_first_chunk::<8>()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, u64::from_le_bytes(*offset), bytes))
}

fn checksum(path: &Path, replaced: &CancellationToken) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut checksum = 0;
    loop {
        if replaced.is_cancelled() {
            return Err(self::replaced());
        }
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

    #[test]
    fn an_offer_may_not_name_a_file_elsewhere() {
        for path in ["../x", "state/../x", "state", "/etc/passwd", "state/", "state/.x", "other/x", "state/a/b"] {
            assert!(check(&[file(path, 1)]).is_err(), "{path}");
        }
        assert!(check(&[file("state/1.sst", 1), file("state/1.sst", 1)]).is_err(), "twice");
        assert!(check(&[file("state/000012.sst", 1), file("ledger/MANIFEST-000004", 2)]).is_ok());
    }

    fn body(number: u32, offset: u64, bytes: &[u8]) -> Bytes {
        [&number.to_le_bytes(), offset.to_le_bytes().as_slice(), bytes].concat().into()
    }

    fn begin(root: &Path, files: &[FileProto]) -> IncomingFiles {
        let have = prepare(root, files).unwrap();
        IncomingFiles::begin(root.to_path_buf(), files.to_vec(), have)
    }

    #[test]
    fn a_transfer_that_was_cut_goes_on_where_it_was_and_damage_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let files = [file("ledger/7.sst", 6), file("state/CURRENT", 3), file("state/LOG.old", 0)];
        let first = begin(root.path(), &files);
        assert_eq!(first.have, [0, 0, 0]);
        let first = first.write(&body(0, 0, b"abc")).unwrap().write(&body(1, 0, b"xy")).unwrap();
        // The sender died.
        drop(first);
        let finish = |arriving: IncomingFiles, ledger: &[u8]| {
            let sums = [ledger, b"xyz", b""].map(|bytes| u64::from(crc32c::crc32c(bytes)));
            arriving.finish(&sums, &CancellationToken::new())
        };
        let rest = |bytes: &[u8]| {
            let arriving = begin(root.path(), &files);
            assert_eq!(arriving.have, [3, 0, 0], "what may have changed begins anew");
            // A sign of life may come at any time.
            let arriving = arriving.write(&body(0, 3, b"")).unwrap().write(&body(0, 3, bytes)).unwrap();
            arriving.write(&body(1, 0, b"xyz")).unwrap()
        };
        assert!(finish(rest(b"deX"), b"abcdef").is_err(), "a flipped byte");
        let arriving = begin(root.path(), &files);
        assert_eq!(arriving.have, [0, 0, 0], "the damaged file is gone, the other may have changed");
        drop(arriving.write(&body(0, 0, b"abc")).unwrap());
        assert!(rest(b"def").finish(&[1], &CancellationToken::new()).is_err(), "checksums of another offer");
        fs::remove_file(root.path().join("ledger/7.sst")).unwrap();
        drop(begin(root.path(), &files).write(&body(0, 0, b"abc")).unwrap());
        finish(rest(b"def"), b"abcdef").unwrap();
        assert_eq!(fs::read(root.path().join("ledger/7.sst")).unwrap(), b"abcdef");
        assert!(root.path().join("state/LOG.old").exists());
    }

    #[test]
    fn a_byte_of_a_part_that_had_arrived_before_is_checked_too() {
        let root = tempfile::tempdir().unwrap();
        let files = [file("ledger/7.sst", 6)];
        drop(begin(root.path(), &files).write(&body(0, 0, b"abc")).unwrap());
        fs::write(root.path().join("ledger/7.sst"), b"aXc").unwrap();
        let sums = [u64::from(crc32c::crc32c(b"abcdef"))];
        let arriving = begin(root.path(), &files).write(&body(0, 3, b"def")).unwrap();
        assert!(arriving.finish(&sums, &CancellationToken::new()).is_err());
    }

    #[test]
    fn a_check_ends_when_another_offer_takes_the_place() {
        let root = tempfile::tempdir().unwrap();
        let files = [file("ledger/7.sst", 3)];
        let arriving = begin(root.path(), &files).write(&body(0, 0, b"abc")).unwrap();
        let replaced = CancellationToken::new();
        replaced.cancel();
        assert!(arriving.finish(&[u64::from(crc32c::crc32c(b"abc"))], &replaced).is_err());
        assert!(root.path().join("ledger/7.sst").exists(), "the next offer goes on with it");
    }

    #[test]
    fn chunks_out_of_place_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let files = [file("ledger/7.sst", 4)];
        for body in
            [body(0, 1, b"a"), body(3, 0, b"a"), body(0, 0, b"abcde"), body(0, 1, b""), Bytes::from_static(b"x")]
        {
            assert!(begin(root.path(), &files).write(&body).is_err());
        }
    }

    #[test]
    fn a_snapshot_that_would_fill_the_disk_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let free = disk::free(root.path()).unwrap().bytes;
        let files = [file("ledger/7.sst", free), file("state/1.sst", 5)];
        let error = require_room(root.path(), &files, &[0, 0]).unwrap_err().to_string();
        assert!(error.contains("no room") && error.contains("needed"), "{error}");
        assert!(require_room(root.path(), &files, &[free, 5]).is_ok(), "nothing is missing");
    }
}
