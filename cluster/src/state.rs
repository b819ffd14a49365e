//! The applied state of a node: its databases, the machine of the rules, how far it is.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use rocksdb::{DB, IteratorMode};
use rollbook_core::machine::{Loaded, Machine};
use rollbook_core::rows::{Family, RowsError};
use tokio::sync::watch;

use crate::clock::LogClock;
use crate::codec;
use crate::disk;
use crate::error::{NodeError, ReadError};
use crate::ledger::Ledger;
use crate::lock::lock;
use crate::store::{self, CF_SYSTEM, Layout, family};
use crate::types::{LogId, SnapshotMeta, StoredMembership};

pub(crate) const APPLIED: &[u8] = b"applied";
pub(crate) const MEMBERSHIP: &[u8] = b"membership";

/// The two databases that a snapshot replaces together.
struct Databases {
    state: Arc<DB>,
    ledger: Arc<Ledger>,
}

/// How far this node has applied.
#[derive(Debug, Default, Clone)]
pub(crate) struct System {
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

/// The applied state, shared by the state machine, the settler and all readers.
pub(crate) struct State {
    layout: Layout,
    databases: RwLock<Databases>,
    pub(crate) machine: RwLock<Machine>,
    pub(crate) system: Mutex<System>,
    /// Index behind the last applied entry.
    pub(crate) applied: watch::Sender<u64>,
    pub(crate) snapshots: Snapshots,
    /// Held while events move to the ledger.
    pub(crate) settling: Mutex<()>,
    /// Held while entries are applied, and by whoever holds them back; taken before `settling`.
    pub(crate) applying: tokio::sync::Mutex<()>,
    /// Bytes of entries applied since this process started.
    pub(crate) applied_bytes: AtomicU64,
    /// Gives entries their time.
    pub(crate) clock: LogClock,
}

impl State {
    /// Opens the state and the ledger of the present generation.
    pub(crate) fn open(layout: &Layout) -> Result<Arc<Self>, NodeError> {
        let generation = layout.generation()?;
        let (databases, machine, system) = open_databases(layout, generation)?;
        let applied = system.applied.map_or(0, |applied| applied.index.saturating_add(1));
        let clock = LogClock::new(machine.millis());
        clock.set_alone(is_alone(&system.membership));
        Ok(Arc::new(Self {
            layout: layout.clone(),
            databases: RwLock::new(databases),
            machine: RwLock::new(machine),
            system: Mutex::new(system),
            applied: watch::Sender::new(applied),
            snapshots: Snapshots::default(),
            settling: Mutex::new(()),
            applying: tokio::sync::Mutex::new(()),
            applied_bytes: AtomicU64::new(0),
            clock,
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
        let system = lock(&self.system).clone();
        (system.applied, system.membership)
    }

    /// One row of the state.
    pub(crate) fn row(&self, of: Family, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let db = self.db();
        Ok(db.get_cf(family(&db, of.name())?, key)?)
    }

    /// All rows of a small family, in the order of their keys.
    pub(crate) fn rows(&self, of: Family) -> Result<Pairs, ReadError> {
        rows(&self.db(), of)
    }

    /// Brings the state to the disk, all families as of one moment.
    pub(crate) fn flush(&self) -> Result<(), ReadError> {
        let db = self.db();
        let names = Family::ALL.into_iter().map(Family::name).chain([CF_SYSTEM]);
        let families = names.map(|name| family(&db, name)).collect::<Result<Vec<_>, _>>()?;
        let mut bytes = 0_u64;
        for column in &families {
            let waits = db.property_int_value_cf(column, "rocksdb.cur-size-all-mem-tables")?;
            bytes = bytes.saturating_add(waits.unwrap_or_default());
        }
        disk::require(self.layout.root(), bytes)?;
        let mut options = rocksdb::FlushOptions::default();
        options.set_wait(true);
        db.flush_cfs_opt(&families, &options)?;
        Ok(())
    }

    /// Replaces the databases by those of a new generation, when `accept` takes what they have applied. Nobody sees
    /// them before.
    pub(crate) fn replace(
        &self,
        generation: u64,
        accept: impl FnOnce(Option<LogId>) -> Result<(), NodeError>,
    ) -> Result<(), NodeError> {
        let (databases, machine, system) = open_databases(&self.layout, generation)?;
        accept(system.applied)?;
        let applied = system.applied.map_or(0, |applied| applied.index.saturating_add(1));
        self.clock.observe(machine.millis());
        self.clock.set_alone(is_alone(&system.membership));
        *self.databases.write().unwrap_or_else(PoisonError::into_inner) = databases;
        *self.machine.write().unwrap_or_else(PoisonError::into_inner) = machine;
        *lock(&self.system) = system;
        self.applied.send_replace(applied);
        Ok(())
    }
}

/// Whether there is one member, or none yet.
pub(crate) fn is_alone(membership: &StoredMembership) -> bool {
    membership.nodes().count() <= 1
}

fn open_databases(layout: &Layout, generation: u64) -> Result<(Databases, Machine, System), NodeError> {
    let state =
        store::open_state(&layout.state(generation)).map_err(|e| store::open_error("state", layout.root(), &e))?;
    let ledger =
        store::open_ledger(&layout.ledger(generation)).map_err(|e| store::open_error("ledger", layout.root(), &e))?;
    let failed = |store: &'static str| move |error: ReadError| NodeError::Store { store, detail: error.0 };
    let ledger = Ledger::new(ledger, &layout.staging()).map_err(failed("ledger"))?;
    let machine = load_machine(&state).map_err(failed("state"))?;
    let system = load_system(&state).map_err(failed("state"))?;
    Ok((Databases { state: Arc::new(state), ledger }, machine, system))
}

/// Keys and values.
pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn rows(db: &DB, of: Family) -> Result<Pairs, ReadError> {
    let rows = db.iterator_cf(family(db, of.name())?, IteratorMode::Start);
    rows.map(|row| row.map(|(key, value)| (key.into(), value.into())).map_err(ReadError::from)).collect()
}

fn load_machine(db: &DB) -> Result<Machine, ReadError> {
    let rows = |of: Family| rows(db, of);
    let values = |of: Family| rows(of).map(|pairs| pairs.into_iter().map(|(_, value)| value).collect());
    let (heads, nodes) = (values(Family::Heads)?, values(Family::Nodes)?);
    let (services, instances) = (values(Family::Services)?, values(Family::Instances)?);
    let batches = rows(Family::Batches)?.into_iter().map(|(key, _)| key).collect();
    let config = rows(Family::Config)?.into_iter().next_back().map(|(_, value)| value);
    let (meta, consumers) = (rows(Family::Meta)?, rows(Family::Consumers)?);
    let loaded = Loaded { meta, heads, consumers, nodes, batches, config, services, instances };
    Machine::load(&loaded).map_err(|RowsError(error)| ReadError(error))
}

fn load_system(db: &DB) -> Result<System, ReadError> {
    let column = family(db, CF_SYSTEM)?;
    let wrong = |error: io::Error| ReadError(error.to_string());
    let applied = db.get_cf(column, APPLIED)?.map(|bytes| codec::decode_log_id(&bytes)).transpose().map_err(wrong)?;
    let membership = db.get_cf(column, MEMBERSHIP)?.map(|bytes| codec::decode_membership(&bytes));
    Ok(System { applied, membership: membership.transpose().map_err(wrong)?.unwrap_or_default() })
}

/// The newest snapshot that was announced, and those that are being sent.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    announced: Mutex<Option<SnapshotMeta>>,
    /// Behind which entries the receivers of snapshots will go on.
    sending: Mutex<BTreeMap<u64, u64>>,
}

/// While it lives, the log behind a snapshot that is being sent is kept.
pub(crate) struct Sending {
    state: Arc<State>,
    number: u64,
}

impl Sending {
    /// A snapshot that reaches up to entry `last` is being sent.
    pub(crate) fn begin(state: &Arc<State>, last: u64) -> Self {
        let mut sending = lock(&state.snapshots.sending);
        let number = sending.last_key_value().map_or(0, |(number, _)| number.saturating_add(1));
        sending.insert(number, last);
        drop(sending);
        Self { state: Arc::clone(state), number }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        lock(&self.state.snapshots.sending).remove(&self.number);
    }
}

impl Snapshots {
    /// The first entry that a receiver of a snapshot will need.
    pub(crate) fn needed(&self) -> Option<u64> {
        let sending = lock(&self.sending);
        sending.values().min().map(|last| last.saturating_add(1))
    }

    pub(crate) fn announced(&self) -> Option<SnapshotMeta> {
        lock(&self.announced).clone()
    }

    /// Never backwards: a slow old build must not hide a newer snapshot.
    pub(crate) fn announce(&self, meta: &SnapshotMeta) {
        let mut announced = lock(&self.announced);
        if announced.as_ref().is_none_or(|present| present.last_log_id < meta.last_log_id) {
            *announced = Some(meta.clone());
        }
    }
}
