//! The stores of a node together: opened and compared with each other, flushed, and closed before the process ends.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::NodeError;
use crate::log::store::LogStore;
use crate::state::state::State;
use crate::store::layout::Layout;

/// How long a stop waits until no other part of the process holds the stores.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// The stores of a node, opened and compared with each other.
pub(crate) struct Stores {
    pub(crate) layout: Layout,
    pub(crate) log: LogStore,
    pub(crate) writer: JoinHandle<()>,
    pub(crate) state: Arc<State>,
}

impl Stores {
    /// Opens them. What was opened before one that cannot be is closed again when this returns.
    pub(crate) fn open(data: &Path, node: u64, accept_lost_mark: bool) -> Result<Self, NodeError> {
        let layout = Layout::open(data, node)?;
        let (log, writer) = LogStore::open(&layout, accept_lost_mark)?;
        let state = match State::open(&layout) {
            Ok(state) => state,
            Err(error) => {
                close(None, log, writer);
                return Err(error);
            }
        };
        match check(&layout, &state, &log) {
            Ok(()) => Ok(Self { layout, log, writer, state }),
            Err(error) => {
                close(Some(state), log, writer);
                Err(error)
            }
        }
    }
}

/// The state must not be ahead of the log that holds its payloads.
pub(crate) fn check(layout: &Layout, state: &State, log: &LogStore) -> Result<(), NodeError> {
    let (state_next, log_next) = (*state.applied().borrow(), log.next_index());
    // What came as a snapshot needs no log.
    if state_next > log_next.max(layout.installed()?) {
        return Err(NodeError::StateAhead { state: state_next.saturating_sub(1), log: log_next.saturating_sub(1) });
    }
    Ok(())
}

/// Brings memtables to the disk, so that the next start has less to read. The raft log has everything already: what
/// finds no room on a full disk stays where it is.
pub(crate) async fn flush(state: &State, log: &LogStore) -> Result<(), NodeError> {
    match log.has_room() {
        Ok(()) => log.flush().await.map_err(|error| NodeError::Store { store: "raft", detail: error.to_string() })?,
        Err(short) => tracing::warn!(short = short.0, "the memtables of the raft log are not flushed"),
    }
    match state.has_room() {
        Ok(()) => state.flush().map_err(|error| NodeError::Store { store: "state", detail: error.0 }),
        Err(short) => {
            tracing::warn!(
                short = short.0,
                "the state is not flushed; the next start reads the rest out of the raft log"
            );
            Ok(())
        }
    }
}

/// Closes the stores here, once no other part of the process holds them: RocksDB aborts a process that ends while one
/// of its threads still closes them.
pub(crate) fn close(state: Option<Arc<State>>, log: LogStore, writer: JoinHandle<()>) {
    let until = Instant::now() + RELEASE_MAX;
    while state.as_ref().is_some_and(|state| Arc::strong_count(state) > 1) || log.is_shared() {
        if Instant::now() > until {
            tracing::warn!("the stores are still in use at the end");
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    drop((state, log));
    if writer.join().is_err() {
        tracing::error!("the log writer had panicked");
    }
}
