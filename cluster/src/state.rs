//! The state of a node: `Machine::apply`, and one write batch with effects and applied index.
//!
//! The batch is not synced: the durable log makes it again. An entry is applied only
//! when it is durable on this very node, so the state never gets ahead of the log that
//! holds its payloads.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use openraft::impls::EntryPayload;
use openraft::storage::{EntryResponder, RaftStateMachine};
use rocksdb::{DB, IteratorMode, WriteBatch};
use rollbook_core::command::Reply;
use rollbook_core::entry::{Entry as Frames, FLAG_KEYED, Frame};
use rollbook_core::machine::{Loaded, Machine};
use rollbook_core::namespace::Head;
use rollbook_core::rows::{Family, Rows, RowsError, Writes};
use tokio::sync::watch;

use crate::codec;
use crate::error::{NodeError, ReadError, io_error};
use crate::events::Reader;
use crate::ledger::Ledger;
use crate::log::LogStore;
use crate::snapshot::{Builder, Checkpoint, Snapshots};
use crate::store::{self, CF_SYSTEM, Layout, family, unlogged};
use crate::types::{Entry, LogId, SnapshotMeta, StoredMembership, Types};

const APPLIED: &[u8] = b"applied";
const MEMBERSHIP: &[u8] = b"membership";
/// Most entries applied under one hold of the lock.
const CHUNK_ENTRIES_MAX: usize = 64;

/// The two databases that a snapshot replaces together.
struct Databases {
    state: Arc<DB>,
    ledger: Arc<Ledger>,
}

/// How far this node has applied.
#[derive(Debug, Default, Clone)]
struct System {
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// The applied state, shared by the state machine, the settler and all readers.
pub(crate) struct State {
    layout: Layout,
    databases: RwLock<Databases>,
    machine: RwLock<Machine>,
    system: Mutex<System>,
    /// Index behind the last applied entry.
    applied: watch::Sender<u64>,
    pub(crate) snapshots: Snapshots,
    /// Held while events move to the ledger.
    pub(crate) settling: Mutex<()>,
    /// Bytes of entries applied since this process started.
    applied_bytes: AtomicU64,
}

impl State {
    /// Opens the state and the ledger of the present generation.
    pub(crate) fn open(layout: &Layout) -> Result<Arc<Self>, NodeError> {
        let generation = layout.generation()?;
        let (databases, machine, system) = open_databases(layout, generation)?;
        let applied = system.applied.map_or(0, |applied| applied.index.saturating_add(1));
        Ok(Arc::new(Self {
            layout: layout.clone(),
            databases: RwLock::new(databases),
            machine: RwLock::new(machine),
            system: Mutex::new(system),
            applied: watch::Sender::new(applied),
            snapshots: Snapshots::default(),
            settling: Mutex::new(()),
            applied_bytes: AtomicU64::new(0),
        }))
    }

    /// The rules' view of the state.
    pub(crate) fn machine(&self) -> RwLockReadGuard<'_, Machine> {
        self.machine.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn db(&self) -> Arc<DB> {
        Arc::clone(&self.databases.read().unwrap_or_else(PoisonError::into_inner).state)
    }

    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.databases.read().unwrap_or_else(PoisonError::into_inner).ledger)
    }

    pub(crate) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Follows the index behind the last applied entry.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Bytes of entries applied since this process started.
    pub(crate) fn applied_bytes(&self) -> u64 {
        self.applied_bytes.load(Ordering::Relaxed)
    }

    /// Applied log id and the membership as of it.
    pub(crate) fn system(&self) -> (Option<LogId>, StoredMembership) {
        let system = self.system.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (system.applied, system.membership)
    }

    /// One row of the state.
    pub(crate) fn row(&self, of: Family, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let db = self.db();
        Ok(db.get_cf(family(&db, of.name())?, key)?)
    }

    /// Brings the state to the disk, all families as of one moment.
    pub(crate) fn flush(&self) -> Result<(), ReadError> {
        let db = self.db();
        let names = Family::ALL.into_iter().map(Family::name).chain([CF_SYSTEM]);
        let families = names.map(|name| family(&db, name)).collect::<Result<Vec<_>, _>>()?;
        let mut options = rocksdb::FlushOptions::default();
        options.set_wait(true);
        db.flush_cfs_opt(&families, &options)?;
        Ok(())
    }

    /// Replaces the databases by those of a new generation.
    pub(crate) fn replace(&self, generation: u64) -> Result<(), NodeError> {
        let (databases, machine, system) = open_databases(&self.layout, generation)?;
        let applied = system.applied.map_or(0, |applied| applied.index.saturating_add(1));
        *self.databases.write().unwrap_or_else(PoisonError::into_inner) = databases;
        *self.machine.write().unwrap_or_else(PoisonError::into_inner) = machine;
        *self.system.lock().unwrap_or_else(PoisonError::into_inner) = system;
        self.applied.send_replace(applied);
        Ok(())
    }

    /// Applies entries and commits their effects together with the applied index.
    fn apply(&self, log: Option<&LogStore>, entries: &[Entry]) -> Result<Vec<Vec<Reply>>, ReadError> {
        let db = self.db();
        let mut machine = self.machine.write().unwrap_or_else(PoisonError::into_inner);
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut writes = Writes::default();
        let mut replies = Vec::with_capacity(entries.len());
        let rows = StateRows { state: self, db: &db, log };
        for entry in entries {
            let mut reply = Vec::new();
            match &entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(members) => {
                    system.membership = StoredMembership::new(Some(entry.log_id), members.clone());
                }
                EntryPayload::Normal(data) => {
                    let wrong = |what| ReadError(format!("entry {}: {what}", entry.log_id.index));
                    let frames = Frames::parse_trusted(&data.0).map_err(wrong)?;
                    let bytes = u64::try_from(data.0.len()).unwrap_or_default();
                    self.applied_bytes.fetch_add(bytes, Ordering::Relaxed);
                    if is_keyed(&frames) {
                        // A chosen id may name any event before: they must all be readable.
                        commit(&db, &mut writes, &system)?;
                    }
                    reply = machine
                        .apply(entry.log_id.index, &frames, &rows, &mut writes)
                        .map_err(|RowsError(error)| ReadError(error))?;
                }
            }
            system.applied = Some(entry.log_id);
            replies.push(reply);
        }
        commit(&db, &mut writes, &system)?;
        let next = system.applied.map_or(0, |applied| applied.index.saturating_add(1));
        *self.system.lock().unwrap_or_else(PoisonError::into_inner) = system;
        drop(machine);
        self.applied.send_replace(next);
        Ok(replies)
    }
}

fn is_keyed(entry: &Frames<'_>) -> bool {
    entry.frames().any(|frame| matches!(frame, Frame::Publish(publish) if publish.flags & FLAG_KEYED != 0))
}

fn commit(db: &DB, writes: &mut Writes, system: &System) -> Result<(), ReadError> {
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
    db.write_opt(batch, &unlogged())?;
    writes.clear();
    Ok(())
}

fn open_databases(layout: &Layout, generation: u64) -> Result<(Databases, Machine, System), NodeError> {
    let state = store::open_state(&layout.state(generation)).map_err(|e| store::open_error("state", layout.root(), &e))?;
    let ledger =
        store::open_ledger(&layout.ledger(generation)).map_err(|e| store::open_error("ledger", layout.root(), &e))?;
    let failed = |store: &'static str| move |error: ReadError| NodeError::Store { store, detail: error.0 };
    let ledger = Ledger::new(ledger, &layout.staging()).map_err(failed("ledger"))?;
    let machine = load_machine(&state).map_err(failed("state"))?;
    let system = load_system(&state).map_err(failed("state"))?;
    Ok((Databases { state: Arc::new(state), ledger }, machine, system))
}

fn load_machine(db: &DB) -> Result<Machine, ReadError> {
    let rows = |of: Family| -> Result<Vec<(Vec<u8>, Vec<u8>)>, ReadError> {
        let rows = db.iterator_cf(family(db, of.name())?, IteratorMode::Start);
        rows.map(|row| row.map(|(key, value)| (key.into(), value.into())).map_err(ReadError::from)).collect()
    };
    let heads = rows(Family::Heads)?.into_iter().map(|(_, value)| value).collect();
    let loaded = Loaded { meta: rows(Family::Meta)?, heads, consumers: rows(Family::Consumers)? };
    Machine::load(&loaded).map_err(|RowsError(error)| ReadError(error))
}

fn load_system(db: &DB) -> Result<System, ReadError> {
    let column = family(db, CF_SYSTEM)?;
    let wrong = |error: io::Error| ReadError(error.to_string());
    let applied = db.get_cf(column, APPLIED)?.map(|bytes| codec::decode_log_id(&bytes)).transpose().map_err(wrong)?;
    let membership = db.get_cf(column, MEMBERSHIP)?.map(|bytes| codec::decode_membership(&bytes));
    Ok(System { applied, membership: membership.transpose().map_err(wrong)?.unwrap_or_default() })
}

/// The rows as the machine reads them while it is being applied.
struct StateRows<'a> {
    state: &'a State,
    db: &'a DB,
    log: Option<&'a LogStore>,
}

impl Rows for StateRows<'_> {
    fn get(&self, of: Family, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        let column = family(self.db, of.name()).map_err(|error| RowsError(error.0))?;
        self.db.get_cf(column, key).map_err(|error| RowsError(error.to_string()))
    }

    fn event_id(&self, head: &Head, sequence: u64) -> Result<Option<String>, RowsError> {
        let Some(log) = self.log else { return Ok(None) };
        Reader { state: self.state, log }.event_id(head, sequence).map_err(|error| RowsError(error.0))
    }
}

/// What openraft drives: applies the committed log to [`State`].
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
            Some(durable) => durable.wait_for(|next| *next > index).await.map(drop).map_err(io_error),
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
            let replies = self.state.apply(self.log.as_ref(), &chunk).map_err(io_error)?;
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
        crate::snapshot::install(&self.state, meta, &snapshot).map_err(io_error)
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::alias::SnapshotOf<Types, Checkpoint>>, io::Error> {
        crate::snapshot::current(&self.state, self.log.as_ref()).map_err(io_error)
    }
}
