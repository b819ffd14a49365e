//! Snapshots: RocksDB checkpoints of the settled state, by hard links.
//!
//! openraft asks for a snapshot before it lets the log be purged; for that the metadata
//! is enough, because the state on this node is flushed. Files are made when a follower
//! needs them: everything applied is settled first, then state and ledger are linked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::alias::SnapshotOf;
use openraft::storage::RaftSnapshotBuilder;
use rocksdb::checkpoint::Checkpoint as Links;

use crate::error::{NodeError, ReadError, io_error};
use crate::log::LogStore;
use crate::settle;
use crate::state::State;
use crate::store::sync_directory;
use crate::types::{SnapshotMeta, Types};

/// Between attempts to bring the state to the disk.
const FLUSH_AGAIN: Duration = Duration::from_secs(1);

/// Files of a snapshot: a directory with `state` and `ledger`.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    directory: PathBuf,
    /// What was made here is removed when nobody sends it any more.
    kept: Option<Arc<Kept>>,
}

#[derive(Debug)]
struct Kept(PathBuf);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(directory = %self.0.display(), %error, "a snapshot stays behind until the next start");
        }
    }
}

impl Checkpoint {
    /// Files that came from another node, to be moved where they belong.
    pub(crate) const fn received(directory: PathBuf) -> Self {
        Self { directory, kept: None }
    }

    fn made(directory: PathBuf) -> Self {
        Self { kept: Some(Arc::new(Kept(directory.clone()))), directory }
    }

    /// Where the files are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

fn meta(state: &State) -> SnapshotMeta {
    let (last_log_id, last_membership) = state.system();
    SnapshotMeta { last_log_id, last_membership }
}

/// Announces how far the flushed state reaches.
pub(crate) struct Builder {
    state: Arc<State>,
}

impl Builder {
    pub(crate) const fn new(state: Arc<State>) -> Self {
        Self { state }
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Checkpoint;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, Checkpoint>, io::Error> {
        let meta = meta(&self.state);
        // What is announced must survive a crash: the log below it may be purged at once.
        loop {
            let state = Arc::clone(&self.state);
            match tokio::task::spawn_blocking(move || state.flush()).await.map_err(io_error)? {
                Ok(()) => break,
                // A full disk may have room again; an error here would end raft.
                Err(error) => tracing::error!(%error, "the state cannot be flushed; it will be tried again"),
            }
            tokio::time::sleep(FLUSH_AGAIN).await;
        }
        self.state.snapshots.announce(&meta);
        // Nobody reads these files: `current` makes them when they are wanted.
        Ok(openraft::Snapshot { meta, snapshot: Checkpoint::received(self.state.layout().snapshots()) })
    }
}

/// The newest snapshot with its files, made now. `None` before the first was announced.
pub(crate) fn current(
    state: &Arc<State>,
    log: Option<&LogStore>,
) -> Result<Option<SnapshotOf<Types, Checkpoint>>, ReadError> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    if state.snapshots.announced().is_none() {
        return Ok(None);
    }
    // openraft calls from the task that applies, so nothing is applied meanwhile.
    let meta = meta(state);
    if let Some(log) = log {
        settle::everything(state, log)?;
    }
    state.flush()?;
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let name = meta.last_log_id.map_or(0, |last| last.index);
    let directory = state.layout().snapshots().join(format!("{name}-{serial}"));
    let failed = |error: io::Error| ReadError(format!("{}: {error}", directory.display()));
    if directory.exists() {
        fs::remove_dir_all(&directory).map_err(failed)?;
    }
    fs::create_dir_all(&directory).map_err(failed)?;
    let checkpoint = Checkpoint::made(directory.clone());
    Links::new(&state.db())?.create_checkpoint(directory.join("state"))?;
    Links::new(state.ledger().db())?.create_checkpoint(directory.join("ledger"))?;
    sync_directory(&directory).map_err(failed)?;
    state.snapshots.announce(&meta);
    Ok(Some(openraft::Snapshot { meta, snapshot: checkpoint }))
}

/// Replaces the state of this node by a snapshot. The generation before stays until the next one.
pub(crate) fn install(state: &State, meta: &SnapshotMeta, snapshot: &Checkpoint) -> Result<(), NodeError> {
    let layout = state.layout();
    let wrap = |source| NodeError::Directory { path: snapshot.directory.clone(), source };
    let present = layout.generation()?;
    let next = present.saturating_add(1);
    for (part, place) in [("state", layout.state(next)), ("ledger", layout.ledger(next))] {
        take_over(&snapshot.directory.join(part), &place, snapshot.kept.is_none()).map_err(wrap)?;
    }
    sync_directory(layout.root()).map_err(wrap)?;
    state.replace(next)?;
    if state.system().0 != meta.last_log_id {
        state.replace(present)?;
        return Err(NodeError::Store {
            store: "state",
            detail: "the snapshot is not what its metadata says".to_owned(),
        });
    }
    layout.note_installed(next, meta.last_log_id.map_or(0, |last| last.index.saturating_add(1)))?;
    layout.set_generation(next)?;
    if let Some(old) = present.checked_sub(1) {
        let _gone = (fs::remove_dir_all(layout.state(old)), fs::remove_dir_all(layout.ledger(old)));
    }
    state.snapshots.announce(meta);
    Ok(())
}

/// Files that came from elsewhere are moved; those that others may still send are copied.
fn take_over(from: &Path, to: &Path, moved: bool) -> io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    if moved && fs::rename(from, to).is_ok() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        fs::copy(entry.path(), &target)?;
        fs::File::open(&target)?.sync_all()?;
    }
    sync_directory(to)
}
