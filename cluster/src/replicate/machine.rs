//! Applies the committed log to [`State`]: what openraft drives.
//!
//! Entries are applied to a copy of the machine, which is cheap and which no reader sees. Their effects and the
//! applied index go into one write batch; then the copy is published, then the applied index is announced. So readers
//! never wait for the disk, never see the machine ahead of its rows, and never see it behind an index that was
//! announced.
//!
//! The batch is not synced: the durable log makes it again. An entry is applied only when it is durable on this very
//! node, so the state never gets ahead of the log that holds its payloads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use openraft::impls::EntryPayload;
use openraft::storage::{EntryResponder, RaftStateMachine};
use prost::Message as _;
use rocksdb::{DB, Direction, IteratorMode, ReadOptions, WriteBatch};
use rollbook_core::command::Reply;
use rollbook_core::entry::{Entry as Frames, FLAG_KEYED, Frame};
use rollbook_core::machine::Machine;
use rollbook_core::namespace::Head;
use rollbook_core::rows::{Family, Row, Rows, RowsError, Writes};
use tokio::sync::watch;

use crate::book::events::Reader;
use crate::book::snapshot::{self, Builder, Checkpoint};
use crate::codec;
use crate::error::{ReadError, io_error};
use crate::lab_faults::Bug;
use crate::lock::lock;
use crate::log::store::LogStore;
use crate::state::state::{APPLIED, MEMBERSHIP, State, System, is_alone};
use crate::store::layout::{CF_SYSTEM, family, unlogged};
use crate::types::{Entry, LogId, SnapshotMeta, StoredMembership, Types};
use crate::wait::wait_until;

/// Most entries whose effects go into one batch.
const CHUNK_ENTRIES_MAX: usize = 64;

/// Applies entries and commits their effects together with the applied index.
pub(crate) fn apply(state: &State, log: Option<&LogStore>, entries: &[Entry]) -> Result<Vec<Vec<Reply>>, ReadError> {
    let db = state.db();
    let mut machine = Machine::clone(&state.machine());
    let mut system = lock(&state.system).clone();
    let mut writes = Writes::default();
    let mut replies = Vec::with_capacity(entries.len());
    let rows = StateRows { state, db: &db, log };
    for entry in entries {
        let mut reply = Vec::new();
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(members) => {
                system.membership = StoredMembership::new(Some(entry.log_id), members.clone());
                state.clock.set_alone(is_alone(&system.membership));
            }
            EntryPayload::Normal(data) => {
                let wrong = |what| ReadError(format!("entry {}: {what}", entry.log_id.index));
                let frames = Frames::parse_trusted(&data.0).map_err(wrong)?;
                let bytes = u64::try_from(data.0.len()).unwrap_or_default();
                state.applied_bytes.fetch_add(bytes, Ordering::Relaxed);
                if is_keyed(&frames) {
                    // A chosen id may name any event before: they must all be readable.
                    commit(state, &db, &machine, &mut writes, &system)?;
                }
                reply = machine
                    .apply(entry.log_id.index, &frames, &rows, &mut writes)
                    .map_err(|RowsError(error)| ReadError(error))?;
            }
        }
        system.applied = Some(entry.log_id);
        replies.push(reply);
    }
    commit(state, &db, &machine, &mut writes, &system)?;
    let next = system.applied.map_or(0, |applied| applied.index.saturating_add(1));
    *lock(&state.system) = system;
    state.clock.observe(machine.millis());
    state.applied.send_replace(next);
    Ok(replies)
}

fn is_keyed(entry: &Frames<'_>) -> bool {
    entry.frames().any(|frame| matches!(frame, Frame::Publish(publish) if publish.flags & FLAG_KEYED != 0))
}

/// Writes the effects, shows the machine that has them, and notes which namespaces changed.
fn commit(state: &State, db: &DB, machine: &Machine, writes: &mut Writes, system: &System) -> Result<(), ReadError> {
    let mut batch = WriteBatch::default();
    for (of, from, to) in writes.ranges() {
        batch.delete_range_cf(family(db, of.name())?, from, to);
    }
    for (of, key, value) in writes.rows() {
        let column = family(db, of.name())?;
        match value {
            Some(value) => batch.put_cf(column, key, value),
            None => batch.delete_cf(column, key),
        }
    }
    let column = family(db, CF_SYSTEM)?;
    if let Some(applied) = &system.applied {
        batch.put_cf(column, APPLIED, codec::encode_log_id(applied));
    }
    batch.put_cf(column, MEMBERSHIP, codec::encode_membership(&system.membership));
    state.publish(machine, || Ok(db.write_opt(batch, &unlogged())?))?;
    // After the publication: a reader that is woken by the change of a namespace must see the change.
    let heads = writes.rows().filter_map(|(of, _, value)| value.filter(|_| of == Family::Heads));
    let mut changes = lock(&state.changes);
    for head in heads {
        changes.note(Head::decode(head).map_err(|error| ReadError(format!("head: {error}")))?);
    }
    drop(changes);
    writes.clear();
    Ok(())
}

/// The rows as the machine reads them while it is being applied.
struct StateRows<'a> {
    state: &'a State,
    db: &'a DB,
    log: Option<&'a LogStore>,
}

impl Rows for StateRows<'_> {
    fn get(&self, of: Family, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        if of == Family::Keys && Bug::KeysForgotten.is_on() {
            return Ok(None);
        }
        let column = family(self.db, of.name()).map_err(|error| RowsError(error.0))?;
        self.db.get_cf(column, key).map_err(|error| RowsError(error.to_string()))
    }

    fn scan(&self, of: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, RowsError> {
        let column = family(self.db, of.name()).map_err(|error| RowsError(error.0))?;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let found = self.db.iterator_cf_opt(column, options, IteratorMode::From(from, Direction::Forward)).take(limit);
        let row = |(key, value): (Box<[u8]>, Box<[u8]>)| (key.into(), value.into());
        found.map(|found| found.map(row).map_err(|error| RowsError(error.to_string()))).collect()
    }

    fn event_id(&self, head: &Head, sequence: u64) -> Result<Option<String>, RowsError> {
        let Some(log) = self.log else { return Ok(None) };
        Reader { state: self.state, log }.event_id(head, sequence).map_err(|error| RowsError(error.0))
    }
}

/// The state machine of openraft: applies the committed log to [`State`].
pub(crate) struct StateMachine {
    state: Arc<State>,
    log: Option<LogStore>,
    durable: Option<watch::Receiver<u64>>,
}

impl StateMachine {
    /// A state machine behind the log of the same node.
    pub(crate) fn new(state: Arc<State>, log: &LogStore) -> Self {
        Self { state, log: Some(log.clone()), durable: Some(log.durable()) }
    }

    /// A state machine whose entries never passed through a log, as in openraft's storage suite.
    #[cfg(test)]
    pub(crate) const fn detached(state: Arc<State>) -> Self {
        Self { state, log: None, durable: None }
    }

    async fn wait_durable(&mut self, index: u64) -> io::Result<()> {
        match &mut self.durable {
            Some(durable) => wait_until(durable, |next| *next > index).await.map_err(io_error),
            None => Ok(()),
        }
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Checkpoint;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.state.system())
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        let mut entries = entries.fuse();
        while let Some(item) = entries.next().await {
            let mut chunk = Vec::new();
            let mut responders = Vec::new();
            let (entry, responder) = item?;
            chunk.push(entry);
            responders.push(responder);
            while chunk.len() < CHUNK_ENTRIES_MAX {
                let Some(Some(item)) = entries.next().now_or_never() else { break };
                let (entry, responder) = item?;
                chunk.push(entry);
                responders.push(responder);
            }
            if let Some(last) = chunk.last() {
                self.wait_durable(last.log_id.index).await?;
            }
            let applying = self.state.applying.lock().await;
            let replies = apply(&self.state, self.log.as_ref(), &chunk).map_err(io_error)?;
            drop(applying);
            for (responder, reply) in responders.into_iter().zip(replies) {
                if let Some(responder) = responder {
                    responder.send(reply);
                }
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder::new(Arc::clone(&self.state))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Checkpoint) -> Result<(), io::Error> {
        let (state, meta) = (Arc::clone(&self.state), meta.clone());
        // Only a test installs what was not received; the files live until they are installed.
        let (directory, _made) = match snapshot {
            Checkpoint::Received(directory) => (directory, None),
            promised @ Checkpoint::Promised(_) => {
                let made = promised.make().await.map_err(io_error)?;
                (made.directory().to_path_buf(), Some(made))
            }
        };
        let _applying = self.state.applying.lock().await;
        // RocksDB opens files: not on a thread that heartbeats need.
        let install = tokio::task::spawn_blocking(move || snapshot::install(&state, &meta, &directory));
        let replaced = install.await.map_err(io_error)?.map_err(io_error)?;
        tokio::spawn(replaced.retire());
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::alias::SnapshotOf<Types, Checkpoint>>, io::Error> {
        if Bug::SnapshotInWorker.is_on()
            && let Some(current) = snapshot::current(&self.state, self.log.as_ref())
        {
            current.snapshot.make().await.map_err(io_error)?;
        }
        Ok(snapshot::current(&self.state, self.log.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::command::{Command, Done, LevelRaise, Tidy, Trim};
    use rollbook_core::entry::{EntryBuilder, FLAG_CREATE, begin_publish, command_frame, finish_publish};
    use rollbook_core::error::Refusal;
    use rollbook_core::event::Event;
    use rollbook_core::level::FeatureLevel;

    use super::*;
    use crate::codec::log_id;
    use crate::store::layout::Layout;
    use crate::types::EntryData;

    /// An entry of one frame.
    fn entry(index: u64, frame: Vec<u8>) -> Entry {
        let mut entry = EntryBuilder::new(0);
        entry.push(&frame);
        Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(EntryData(entry.finish(9).into())) }
    }

    #[test]
    fn an_entry_that_needs_a_newer_release_stops_the_node_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open(directory.path(), 1).unwrap();
        let state = State::open(&layout).unwrap();
        let unknown = command_frame(&[0xfa, 0x07, 0x00]).unwrap();
        let stopped = apply(&state, None, &[entry(1, unknown)]).unwrap_err();
        assert_eq!(stopped.0, "entry 1 has an unknown command: upgrade this node");
        drop(state);
        let state = State::open(&layout).unwrap();
        assert_eq!((*state.applied().borrow(), state.machine().millis()), (0, 0), "it is applied after the upgrade");
    }

    #[test]
    fn ids_of_trimmed_events_leave_the_store_and_the_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open(directory.path(), 1).unwrap();
        let state = State::open(&layout).unwrap();
        let publish = |ids: std::ops::Range<u32>| {
            let (mut frame, count) = (Vec::new(), ids.end - ids.start);
            begin_publish(&mut frame, "app").unwrap();
            for id in ids {
                Event { subject: "app.x", id: &format!("id-{id}"), ..Event::default() }.encode(&mut frame).unwrap();
            }
            finish_publish(&mut frame, 0, FLAG_CREATE | FLAG_KEYED, count).unwrap();
            frame
        };
        let kept = || state.rows(Family::Ids).unwrap().len();
        let level = Command::LevelRaise(LevelRaise { level: FeatureLevel::LATEST.get() }).frame().unwrap();
        let trim = Command::Trim(Trim { name: "app".into(), first: 4991, bytes_first: 0 }).frame().unwrap();
        let tidy = || Command::Tidy(Tidy {}).frame().unwrap();
        apply(&state, None, &[entry(1, level), entry(2, publish(0..5000))]).unwrap();
        assert_eq!(kept(), 10_000);
        // Each sees what those before it leave behind, though nothing of that is in the store yet.
        let steps: Vec<_> = (4..12).map(|index| entry(index, tidy())).collect();
        apply(&state, None, &[vec![entry(3, trim)], steps].concat()).unwrap();
        assert_eq!(kept(), 20);
        let replies = apply(&state, None, &[entry(12, publish(4980..4990)), entry(13, publish(4990..5000))]).unwrap();
        assert_eq!(replies[0], [Ok(Done::Published { first: 5001, events: 10 })]);
        assert!(matches!(replies[1][..], [Err(Refusal::EventIdExists(_))]));
        assert_eq!(kept(), 40);
    }
}
