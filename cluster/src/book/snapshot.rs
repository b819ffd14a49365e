//! Snapshots: RocksDB checkpoints of the settled state, by hard links.
//!
//! openraft asks for a snapshot before it lets the log be purged; for that the metadata
//! is enough, because the state on this node is flushed. When a follower needs one, openraft
//! gets the promise of files at once: its worker, which also applies, waits for nothing and
//! meets no error of a disk. The files are made by the task that sends them. Everything is
//! settled while entries are applied; then apply is held back for what has come meanwhile,
//! and state and ledger are linked.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, TryLockError};
use std::time::{Duration, Instant};

use openraft::alias::SnapshotOf;
use openraft::storage::RaftSnapshotBuilder;
use rocksdb::DB;
use rocksdb::checkpoint::Checkpoint as Links;

use super::settle;
use crate::crash;
use crate::error::{NodeError, ReadError, io_error};
use crate::ledger::ledger::Ledger;
use crate::lock::lock;
use crate::log::store::LogStore;
use crate::state::state::State;
use crate::store::disk;
use crate::store::layout::{Layout, sync_directory};
use crate::types::{SnapshotMeta, Types};

/// Between attempts to bring the state to the disk.
const FLUSH_AGAIN: Duration = Duration::from_secs(1);
/// Free space that the making of snapshot files needs: for settling before, and for linked files.
const MAKE_BYTES: u64 = 24 << 20;
/// Between looks whether an old generation is still read.
const RETIRE_LOOK: Duration = Duration::from_millis(100);

/// A snapshot in the form that openraft passes around.
#[derive(Debug, Clone)]
pub(crate) enum Checkpoint {
    /// Files that were received from another node, to be moved into their place.
    Received(PathBuf),
    /// Files are made when they are sent.
    Promised(Source),
}

/// The stores that a snapshot is made of.
#[derive(Clone)]
pub(crate) struct Source {
    state: Arc<State>,
    log: Option<LogStore>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// The files of a snapshot: a directory with `state` and `ledger`. The last user of the value removes the directory.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) meta: SnapshotMeta,
    directory: PathBuf,
}

impl Made {
    /// Where the files are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        remove_later(std::mem::take(&mut self.directory));
    }
}

/// Removes a directory, away from threads that raft needs.
fn remove_later(directory: PathBuf) {
    let remove = move || {
        if let Err(error) = fs::remove_dir_all(&directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %directory.display(), %error, "a directory stays behind until the next start");
        }
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(remove)),
        Err(_) => remove(),
    }
}

/// Takes a directory out of its place at once, and removes it later.
pub(crate) fn discard(layout: &Layout, directory: &Path) -> io::Result<()> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    fs::create_dir_all(layout.discarded())?;
    let gone = layout.discarded().join(format!("{}-{serial}", std::process::id()));
    match fs::rename(directory, &gone) {
        Ok(()) => remove_later(gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// At a start: removes generations and snapshots that are not used any more. Of the incomplete received snapshots the
/// newest stays: its sender may resume it.
pub(crate) fn sweep(layout: &Layout) -> io::Result<()> {
    let present = layout.generation().map_err(io_error)?;
    // Snapshots that were being sent.
    discard(layout, &layout.snapshots())?;
    for entry in fs::read_dir(layout.root())? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        let number = name.strip_prefix("state-").or_else(|| name.strip_prefix("ledger-"));
        // Never a later one: when GENERATION is lost, the present one would look like that.
        if number.and_then(|number| number.parse::<u64>().ok()).is_some_and(|number| number < present) {
            discard(layout, &entry.path())?;
        }
    }
    let mut arriving = Vec::new();
    for directory in list(&layout.arriving())? {
        let changed = |part: &str| fs::metadata(directory.join(part)).and_then(|meta| meta.modified()).ok();
        arriving.push((changed("state").max(changed("ledger")), directory));
    }
    arriving.sort();
    arriving.pop();
    arriving.iter().try_for_each(|(_, directory)| discard(layout, directory))?;
    list(&layout.discarded())?.into_iter().for_each(remove_later);
    Ok(())
}

/// Removes the incomplete snapshots of other senders, or of all of them.
pub(crate) fn discard_arrivals(layout: &Layout, but: Option<&Path>) -> io::Result<()> {
    let others = list(&layout.arriving())?.into_iter().filter(|directory| Some(directory.as_path()) != but);
    others.into_iter().try_for_each(|directory| discard(layout, &directory))
}

fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
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
        // An announced snapshot must survive a crash: the log below it may be purged at once.
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
        // These files are made only when a task sends them.
        Ok(openraft::Snapshot {
            meta,
            snapshot: Checkpoint::Promised(Source { state: Arc::clone(&self.state), log: None }),
        })
    }
}

/// The newest snapshot, as of what is applied now; `None` before the first was announced. Does nothing yet.
pub(crate) fn current(state: &Arc<State>, log: Option<&LogStore>) -> Option<SnapshotOf<Types, Checkpoint>> {
    state.snapshots.announced()?;
    let source = Source { state: Arc::clone(state), log: log.cloned() };
    // The files will be those of a later entry: a receiver that knows more than its sender believes is harmless.
    Some(openraft::Snapshot { meta: meta(state), snapshot: Checkpoint::Promised(source) })
}

impl Checkpoint {
    /// Makes the files that were promised, as of what is applied then.
    pub(crate) async fn make(&self) -> Result<Made, ReadError> {
        let Self::Promised(source) = self else {
            return Err(ReadError("a snapshot that was received is not sent on".to_owned()));
        };
        let Source { state, log } = source.clone();
        let made = tokio::task::spawn_blocking(move || make(&state, log.as_ref())).await;
        made.map_err(|error| ReadError(error.to_string()))?
    }
}

fn make(state: &Arc<State>, log: Option<&LogStore>) -> Result<Made, ReadError> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let layout = state.layout();
    disk::require(layout.root(), MAKE_BYTES)?;
    let settle = || log.map_or(Ok(()), |log| settle::everything(state, log).map(drop));
    // Most of the work first, while entries are applied.
    settle()?;
    state.flush()?;
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let directory =
        layout.snapshots().join(format!("{}-{serial}", meta(state).last_log_id.map_or(0, |last| last.index)));
    let failed = |error: io::Error| ReadError(format!("{}: {error}", directory.display()));
    if directory.exists() {
        fs::remove_dir_all(&directory).map_err(failed)?;
    }
    fs::create_dir_all(&directory).map_err(failed)?;
    // From here on an error removes the files.
    let mut made = Made { meta: meta(state), directory: directory.clone() };
    let (applying, since) = loop {
        // A step of settling is waited for before entries are held back, not while they are.
        drop(lock(&state.settling));
        let applying = state.applying.blocking_lock();
        // A settler that panicked holds nothing.
        if !matches!(state.settling.try_lock(), Err(TryLockError::WouldBlock)) {
            break (applying, Instant::now());
        }
    };
    settle()?;
    // Neither does retention take blocks away between the two parts.
    let settling = lock(&state.settling);
    let (db, ledger) = (state.db(), state.ledger());
    state.flush()?;
    made.meta = meta(state);
    crash::point_of(layout.root(), "snapshot: flushed")?;
    Links::new(&db)?.create_checkpoint(directory.join("state"))?;
    crash::point_of(layout.root(), "snapshot: the state is linked")?;
    drop(applying);
    tracing::debug!(held = ?since.elapsed(), "apply was held back for a snapshot");
    Links::new(ledger.db())?.create_checkpoint(directory.join("ledger"))?;
    drop(settling);
    crash::point_of(layout.root(), "snapshot: both are linked")?;
    sync_directory(&directory).map_err(failed)?;
    Ok(made)
}

/// The databases of the generation before, and where they are.
pub(crate) struct Replaced {
    databases: (Arc<DB>, Arc<Ledger>),
    directories: [PathBuf; 2],
}

impl Replaced {
    /// Removes the generation once no reader uses it any more.
    pub(crate) async fn retire(self) {
        let Self { databases: (db, ledger), directories } = self;
        while Arc::strong_count(&db) > 1 || Arc::strong_count(&ledger) > 1 {
            tokio::time::sleep(RETIRE_LOOK).await;
        }
        let gone = tokio::task::spawn_blocking(move || {
            drop((db, ledger));
            directories.into_iter().for_each(remove_later);
        });
        if let Err(error) = gone.await {
            tracing::error!(%error, "the generation before stays behind until the next start");
        }
    }
}

/// Replaces the state of this node by a snapshot.
pub(crate) fn install(state: &State, meta: &SnapshotMeta, directory: &Path) -> Result<Replaced, NodeError> {
    let layout = state.layout();
    let wrap = |source| NodeError::Directory { path: directory.to_path_buf(), source };
    // The settler neither writes to the generation that goes nor uses the staging directory meanwhile.
    let settling = lock(&state.settling);
    let present = layout.generation()?;
    let next = present.saturating_add(1);
    let crash = |name| crash::point_of(layout.root(), name).map_err(|error| wrap(io_error(error)));
    crash("install: before")?;
    for (part, place) in [("state", layout.state(next)), ("ledger", layout.ledger(next))] {
        take_over(&directory.join(part), &place).map_err(wrap)?;
        crash("install: a part is in its place")?;
    }
    sync_directory(layout.root()).map_err(wrap)?;
    crash("install: synced")?;
    let replaced = Replaced {
        databases: (state.db(), state.ledger()),
        directories: [layout.state(present), layout.ledger(present)],
    };
    state.replace(&settling, next, |applied| {
        if applied != meta.last_log_id {
            return Err(NodeError::Store {
                store: "state",
                detail: "the snapshot is not what its metadata says".to_owned(),
            });
        }
        layout.note_installed(next, meta.last_log_id.map_or(0, |last| last.index.saturating_add(1)))?;
        crash("install: noted")?;
        layout.set_generation(next)?;
        crash("install: the generation is set")
    })?;
    state.snapshots.announce(meta);
    Ok(replaced)
}

/// Moves files to their place; copies them when they are on another file system.
fn take_over(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        moved => return moved,
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

#[cfg(test)]
mod tests {
    use openraft::impls::EntryPayload;
    use openraft::storage::RaftStateMachine as _;
    use tempfile::TempDir;

    use super::*;
    use crate::codec::log_id;
    use crate::replicate::machine::StateMachine;
    use crate::types::Entry;

    /// Within this what does not wait is done, on any machine.
    const AT_ONCE: Duration = Duration::from_secs(5);

    struct Node {
        state: Arc<State>,
        machine: StateMachine,
        directory: TempDir,
    }

    impl Node {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let state = State::open(&Layout::open(directory.path(), 1).unwrap()).unwrap();
            Self { machine: StateMachine::detached(Arc::clone(&state)), state, directory }
        }

        async fn apply(&mut self, index: u64) {
            let entry = Entry { log_id: log_id(1, index), payload: EntryPayload::Blank };
            self.machine.apply(futures_util::stream::iter([Ok((entry, None))])).await.unwrap();
        }

        async fn announce(&mut self) {
            self.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }
    }

    async fn until(what: &str, mut look: impl FnMut() -> bool) {
        let until = Instant::now() + AT_ONCE;
        while !look() {
            assert!(Instant::now() < until, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_snapshot_that_cannot_be_made_is_no_error_of_raft_and_nothing_is_left_of_it() {
        let mut node = Node::new();
        assert!(node.machine.get_current_snapshot().await.unwrap().is_none(), "none was announced");
        node.apply(0).await;
        node.announce().await;
        fs::write(node.path("snapshots"), b"in the way").unwrap();
        let promised = node.machine.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(promised.meta.last_log_id, Some(log_id(1, 0)));
        let error = promised.snapshot.make().await.unwrap_err().to_string();
        assert!(error.contains("snapshots"), "{error}");
        fs::remove_file(node.path("snapshots")).unwrap();
        // Half of it is made, and then an error comes.
        let files = list(&node.path("ledger-0")).unwrap();
        let manifest = files.iter().find(|file| file.to_string_lossy().contains("MANIFEST")).unwrap();
        fs::remove_file(manifest).unwrap();
        promised.snapshot.make().await.unwrap_err();
        until("what was made is gone", || list(&node.path("snapshots")).unwrap().is_empty()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn entries_are_applied_while_a_snapshot_waits_for_the_settler() {
        let mut node = Node::new();
        node.apply(0).await;
        node.announce().await;
        let state = Arc::clone(&node.state);
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (settles, settling) = tokio::sync::oneshot::channel();
        let settler = std::thread::spawn(move || {
            let _settling = lock(&state.settling);
            settles.send(()).unwrap();
            released.recv().unwrap();
        });
        settling.await.unwrap();
        let promised = tokio::time::timeout(AT_ONCE, node.machine.get_current_snapshot()).await.unwrap();
        let promised = promised.unwrap().unwrap().snapshot;
        let making = tokio::spawn(async move { promised.make().await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        tokio::time::timeout(AT_ONCE, node.apply(1)).await.expect("apply stands still");
        assert!(!making.is_finished());
        release.send(()).unwrap();
        settler.join().unwrap();
        let made = making.await.unwrap().unwrap();
        assert_eq!(made.meta.last_log_id, Some(log_id(1, 1)), "as of when it was made");
        let directory = made.directory().to_path_buf();
        assert!(directory.join("state/CURRENT").exists() && directory.join("ledger/CURRENT").exists());
        drop(made);
        until("the files are gone", || !directory.exists()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_snapshot_is_checked_before_it_is_shown_and_the_generation_before_goes_when_nobody_reads_it() {
        let (mut one, mut two) = (Node::new(), Node::new());
        for index in 0..3 {
            one.apply(index).await;
        }
        one.announce().await;
        two.apply(0).await;
        let mut arrive = async |two: &Node| {
            let made = one.machine.get_current_snapshot().await.unwrap().unwrap().snapshot.make().await.unwrap();
            let incoming = two.state.layout().incoming(1);
            fs::create_dir_all(incoming.parent().unwrap()).unwrap();
            fs::rename(made.directory(), &incoming).unwrap();
            (made.meta.clone(), incoming)
        };
        let (meta, incoming) = arrive(&two).await;
        let wrong = SnapshotMeta { last_log_id: Some(log_id(1, 9)), ..meta };
        let refused = two.machine.install_snapshot(&wrong, Checkpoint::Received(incoming)).await;
        assert!(refused.unwrap_err().to_string().contains("metadata"));
        assert_eq!((two.state.system().0, two.state.layout().generation().unwrap()), (Some(log_id(1, 0)), 0));
        // The present generation goes on as if nothing had been.
        two.apply(1).await;
        two.state.flush().unwrap();
        let reader = two.state.db();
        let (meta, incoming) = arrive(&two).await;
        two.machine.install_snapshot(&meta, Checkpoint::Received(incoming)).await.unwrap();
        assert_eq!((two.state.system().0, two.state.layout().generation().unwrap()), (Some(log_id(1, 2)), 1));
        tokio::time::sleep(RETIRE_LOOK * 3).await;
        assert!(two.path("state-0").exists(), "somebody still reads it");
        drop(reader);
        until("it is gone", || !two.path("state-0").exists() && !two.path("ledger-0").exists()).await;
        assert!(two.path("state-1").exists());
    }

    #[test]
    fn a_start_removes_what_nobody_uses_and_never_what_may_be_the_present() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open(directory.path(), 1).unwrap();
        let names = |names: &[&str]| names.iter().map(|name| layout.root().join(name)).collect::<Vec<_>>();
        let old =
            names(&["state-0", "ledger-0", "state-6", "ledger-6", "snapshots/5-0", "incoming/2", "discarded/1-1"]);
        let kept = names(&["state-7", "ledger-7", "state-8", "incoming/3", "raft", "state-x"]);
        old.iter().chain(&kept).for_each(|path| fs::create_dir_all(path).unwrap());
        // Without GENERATION the present one is unknown.
        sweep(&layout).unwrap();
        assert!(layout.state(6).exists() && layout.ledger(7).exists());
        old.iter().chain(&kept).for_each(|path| fs::create_dir_all(path).unwrap());
        layout.set_generation(7).unwrap();
        fs::create_dir_all(layout.incoming(2).join("state")).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        fs::create_dir_all(layout.incoming(3).join("ledger")).unwrap();
        sweep(&layout).unwrap();
        let left: Vec<_> = old.iter().filter(|path| path.exists()).collect();
        assert!(left.is_empty(), "{left:?}");
        let gone: Vec<_> = kept.iter().filter(|path| !path.exists()).collect();
        assert!(gone.is_empty(), "{gone:?}");
        discard_arrivals(&layout, Some(&layout.incoming(3))).unwrap();
        assert!(layout.incoming(3).exists());
        discard_arrivals(&layout, None).unwrap();
        assert!(list(&layout.arriving()).unwrap().is_empty());
    }
}
