//! Snapshots: RocksDB checkpoints of the settled state, by hard links.
//!
//! openraft asks for a snapshot before it lets the log be purged; for that the metadata
//! is enough, because the state on this node is flushed. Files are made when a follower
//! needs them: everything applied is settled first, then state and ledger are linked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::alias::SnapshotOf;
use openraft::storage::RaftSnapshotBuilder;
use rocksdb::checkpoint::Checkpoint as Links;

use crate::error::{NodeError, ReadError, io_error};
use crate::log::LogStore;
use crate::settle;
use crate::state::State;
use crate::store::sync_directory;
use crate::types::{SnapshotMeta, Types};

/// Files of a snapshot: a directory with `state` and `ledger`.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    directory: PathBuf,
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
        self.state.flush().map_err(io_error)?;
        self.state.snapshots.announce(&meta);
        Ok(openraft::Snapshot { meta, snapshot: Checkpoint { directory: self.state.layout().snapshots() } })
    }
}

/// The newest snapshot with its files, made now. `None` before the first was announced.
pub(crate) fn current(
    state: &Arc<State>,
    log: Option<&LogStore>,
) -> Result<Option<SnapshotOf<Types, Checkpoint>>, ReadError> {
    if state.snapshots.announced().is_none() {
        return Ok(None);
    }
    // openraft calls from the task that applies, so nothing is applied meanwhile.
    let meta = meta(state);
    if let Some(log) = log {
        settle::everything(state, log)?;
    }
    state.flush()?;
    let name = meta.last_log_id.map_or(0, |last| last.index);
    let directory = state.layout().snapshots().join(format!("{name}"));
    let failed = |error: io::Error| ReadError(format!("{}: {error}", directory.display()));
    if directory.exists() {
        fs::remove_dir_all(&directory).map_err(failed)?;
    }
    fs::create_dir_all(&directory).map_err(failed)?;
    Links::new(&state.db())?.create_checkpoint(directory.join("state"))?;
    Links::new(state.ledger().db())?.create_checkpoint(directory.join("ledger"))?;
    sync_directory(&directory).map_err(failed)?;
    state.snapshots.announce(&meta);
    Ok(Some(openraft::Snapshot { meta, snapshot: Checkpoint { directory } }))
}

/// Replaces the state of this node by a snapshot. The generation before stays until the next one.
pub(crate) fn install(state: &State, meta: &SnapshotMeta, snapshot: &Checkpoint) -> Result<(), NodeError> {
    let layout = state.layout();
    let wrap = |source| NodeError::Directory { path: snapshot.directory.clone(), source };
    let present = layout.generation()?;
    let next = present.saturating_add(1);
    copy_directory(&snapshot.directory.join("state"), &layout.state(next)).map_err(wrap)?;
    copy_directory(&snapshot.directory.join("ledger"), &layout.ledger(next)).map_err(wrap)?;
    state.replace(next)?;
    if state.system().0 != meta.last_log_id {
        state.replace(present)?;
        return Err(NodeError::Store {
            store: "state",
            detail: "the snapshot is not what its metadata says".to_owned(),
        });
    }
    layout.set_generation(next)?;
    if let Some(old) = present.checked_sub(1) {
        let _gone = (fs::remove_dir_all(layout.state(old)), fs::remove_dir_all(layout.ledger(old)));
    }
    state.snapshots.announce(meta);
    Ok(())
}

fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
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
