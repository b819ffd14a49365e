//! The applied state of a node: its databases, the machine of the rules, and the index of the last applied entry.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arc_swap::{ArcSwap, Guard};
use rocksdb::{DB, Direction, IteratorMode, ReadOptions, WriteBatch};
use rollbook_core::machine::{Loaded, Machine};
use rollbook_core::rows::{Family, RowsError};
use tokio::sync::watch;

use super::changes::Changes;
use super::clock::LogClock;
use super::schedule::Schedule;
use crate::codec;
use crate::crash;
use crate::error::{NodeError, ReadError};
use crate::lab_faults::Bug;
use crate::ledger::ledger::Ledger;
use crate::lock::lock;
use crate::store::complete;
use crate::store::layout::{self, CF_SYSTEM, Layout, family, room_for_memtables};
use crate::types::{LogId, SnapshotMeta, StoredMembership};

pub(crate) const APPLIED: &[u8] = b"applied";
pub(crate) const MEMBERSHIP: &[u8] = b"membership";
/// Begins the keys of the rows that say how far each namespace is settled; its number follows.
const SETTLED: &[u8] = b"settled\0";

/// The families of the state database.
fn families() -> impl Iterator<Item = &'static str> {
    Family::ALL.into_iter().map(Family::name).chain([CF_SYSTEM])
}

/// The two databases that a snapshot replaces together.
pub(crate) struct Databases {
    pub(crate) state: Arc<DB>,
    pub(crate) ledger: Arc<Ledger>,
    /// Below which sequence number the state has no index rows any more, by namespace: those events are in the
    /// ledger, or out of sight. The same as the rows of [`SETTLED`], which are in one batch with the removal.
    dropped: RwLock<HashMap<u32, u64>>,
}

impl Databases {
    /// Below which sequence number the state has no index rows of a namespace.
    pub(crate) fn dropped(&self, namespace: u32) -> u64 {
        self.dropped.read().unwrap_or_else(PoisonError::into_inner).get(&namespace).copied().unwrap_or(0)
    }

    /// Puts into the batch that drops index rows how far the namespace is settled: a ledger that has less at the next
    /// start has lost something.
    pub(crate) fn promise(&self, batch: &mut WriteBatch, namespace: u32, end: u64) -> Result<(), ReadError> {
        let key = [SETTLED, &namespace.to_be_bytes()].concat();
        batch.put_cf(family(&self.state, CF_SYSTEM)?, key, end.to_be_bytes());
        Ok(())
    }

    /// The batch with the promise was written.
    pub(crate) fn promised(&self, namespace: u32, end: u64) {
        self.dropped.write().unwrap_or_else(PoisonError::into_inner).insert(namespace, end);
    }

    /// Whether there is room for a flush.
    pub(crate) fn has_room(&self) -> Result<(), ReadError> {
        room_for_memtables(&self.state, families())
    }

    /// Brings the state to the disk, all families as of one moment.
    pub(crate) fn flush(&self) -> Result<(), ReadError> {
        self.has_room()?;
        let families = families().map(|name| family(&self.state, name)).collect::<Result<Vec<_>, _>>()?;
        let mut options = rocksdb::FlushOptions::default();
        options.set_wait(true);
        self.state.flush_cfs_opt(&families, &options)?;
        Ok(())
    }

    /// Refuses a ledger that lacks events which were settled into it. Other damage, which only reads would notice, goes
    /// to the log.
    fn compare(&self, machine: &Machine) -> Result<(), NodeError> {
        let directory = self.ledger.directory();
        for head in machine.heads() {
            let (has, promised) = (self.ledger.settled(head.id), self.dropped(head.id));
            if has.max(head.first) < promised && !Bug::LedgerNotCompared.is_on() {
                return Err(NodeError::LedgerBehind {
                    directory: directory.to_path_buf(),
                    namespace: head.name.clone(),
                    number: head.id,
                    found: has.saturating_sub(1),
                    promised: promised.saturating_sub(1),
                });
            }
            let extent = self.ledger.extent(head.id);
            if extent.first > head.first && head.first < extent.end {
                tracing::error!(directory = %directory.display(), namespace = head.name, number = head.id,
                    from = head.first, to = extent.first.saturating_sub(1), "events are missing in the ledger; reads of them will fail");
            }
            let here = self.ledger.holes().iter().filter(|hole| hole.namespace == head.id);
            for hole in here.filter(|hole| hole.end.max(hole.next) > head.first) {
                let (what, from, to) = if hole.end < hole.next {
                    ("events are missing in the ledger; reads of them will fail", hole.end, hole.next)
                } else {
                    ("events are in two blocks of the ledger; reads of these blocks will fail", hole.next, hole.end)
                };
                tracing::error!(directory = %directory.display(), namespace = head.name, number = head.id,
                    from, to = to.saturating_sub(1), "{what}");
            }
        }
        Ok(())
    }

    /// The namespaces that settling, retention and forgetting have to look at after a start.
    fn changes(&self, machine: &Machine) -> Changes {
        let mut changes = Changes::default();
        machine.heads().for_each(|head| changes.note(head.clone()));
        for head in machine.heads() {
            changes.settled(head.id, self.dropped(head.id));
            if !self.ledger.is_forgettable(head.id, head.first) {
                changes.forgotten(head.id, head.first);
            }
        }
        changes
    }
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
    databases: RwLock<Arc<Databases>>,
    /// The machine as of the newest batch that was written. Replaced whole, so a reader never waits for a write.
    machine: ArcSwap<Machine>,
    /// Held from before a batch is written until the machine that belongs to the rows is published.
    publishing: Mutex<()>,
    pub(crate) system: Mutex<System>,
    /// Index behind the last applied entry.
    pub(crate) applied: watch::Sender<u64>,
    /// When the first waiting event is due, as readers see it. Announced apart, so that nobody is woken by every entry.
    delayed: watch::Sender<Option<u64>>,
    /// Revision of the security state that readers see. Announced apart, so that nobody is woken by every entry.
    security: watch::Sender<u64>,
    pub(crate) snapshots: Snapshots,
    /// Held while some events move to the ledger or are removed from it, never for long.
    pub(crate) settling: Mutex<()>,
    /// Held while entries are applied, and while they are held back for a snapshot; taken before `settling`.
    pub(crate) applying: tokio::sync::Mutex<()>,
    /// The namespaces that changed since the last pass of the settler and of retention.
    pub(crate) changes: Mutex<Changes>,
    /// When retention checks each namespace again.
    pub(crate) schedule: Mutex<Schedule>,
    /// Bytes of entries applied since this process started.
    pub(crate) applied_bytes: AtomicU64,
    /// Gives entries their time.
    pub(crate) clock: LogClock,
}

impl State {
    /// Opens the state and the ledger of the present generation.
    pub(crate) fn open(layout: &Layout) -> Result<Arc<Self>, NodeError> {
        let generation = layout.generation()?;
        // Each ledger has a folder of its own in there; those of earlier lives are of no use.
        let _stale = std::fs::remove_dir_all(layout.staging());
        let (databases, machine, system) = open_databases(layout, generation)?;
        let applied = system.applied.map_or(0, |applied| applied.index.saturating_add(1));
        let clock = LogClock::new(machine.millis());
        clock.set_alone(is_alone(&system.membership));
        let security = watch::Sender::new(machine.security().revision());
        let delayed = watch::Sender::new(machine.delayed().due());
        Ok(Arc::new(Self {
            changes: Mutex::new(databases.changes(&machine)),
            schedule: Mutex::default(),
            layout: layout.clone(),
            databases: RwLock::new(Arc::new(databases)),
            machine: ArcSwap::from_pointee(machine),
            publishing: Mutex::new(()),
            system: Mutex::new(system),
            applied: watch::Sender::new(applied),
            delayed,
            security,
            snapshots: Snapshots::default(),
            settling: Mutex::new(()),
            applying: tokio::sync::Mutex::new(()),
            applied_bytes: AtomicU64::new(0),
            clock,
        }))
    }

    /// The machine as of the newest batch that was written: a snapshot, which never changes. Does not block. The rows
    /// on the disk may be newer than the snapshot, never older.
    pub(crate) fn machine(&self) -> Guard<Arc<Machine>> {
        self.machine.load()
    }

    /// A machine that is at least as new as every row that was read before this call. A reader that found no row needs
    /// this machine to distinguish a deletion from damage. Blocks while a batch is being written: not for async
    /// threads.
    pub(crate) fn machine_behind_rows(&self) -> Guard<Arc<Machine>> {
        drop(lock(&self.publishing));
        self.machine.load()
    }

    /// Writes a batch by `write`, then publishes the machine that belongs to the rows of the batch.
    pub(crate) fn publish(
        &self,
        machine: &Machine,
        write: impl FnOnce() -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let _publishing = lock(&self.publishing);
        crash::point("apply: a batch is to be written")?;
        write()?;
        crash::point("apply: a batch was written")?;
        self.show(machine.clone());
        Ok(())
    }

    /// Readers see this machine from now on.
    fn show(&self, machine: Machine) {
        let (revision, due) = (machine.security().revision(), machine.delayed().due());
        self.machine.store(Arc::new(machine));
        self.security.send_if_modified(|known| std::mem::replace(known, revision) != revision);
        self.delayed.send_if_modified(|known| std::mem::replace(known, due) != due);
    }

    /// State and ledger of one generation. A caller that needs both, or one of them twice, takes them once.
    pub(crate) fn databases(&self) -> Arc<Databases> {
        Arc::clone(&self.databases.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn db(&self) -> Arc<DB> {
        Arc::clone(&self.databases().state)
    }

    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.databases().ledger)
    }

    pub(crate) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Follows the index behind the last applied entry.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Follows when the first waiting event is due, milliseconds since 1970.
    pub(crate) fn delayed_due(&self) -> watch::Receiver<Option<u64>> {
        self.delayed.subscribe()
    }

    /// Follows the revision of the security state.
    pub(crate) fn security_revision(&self) -> watch::Receiver<u64> {
        self.security.subscribe()
    }

    /// Bytes of entries applied since this process started.
    pub(crate) fn applied_bytes(&self) -> u64 {
        self.applied_bytes.load(Ordering::Relaxed)
    }

    /// The applied log id, and the membership at that log id.
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

    /// The rows from key `from` to the key before `to`, at most `limit`: the first ones, or from the end the last ones.
    pub(crate) fn rows_between(
        &self,
        of: Family,
        (from, to): (&[u8], &[u8]),
        limit: usize,
        from_end: bool,
    ) -> Result<Pairs, ReadError> {
        let db = self.db();
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let start = if from_end { IteratorMode::End } else { IteratorMode::Start };
        let rows = db.iterator_cf_opt(family(&db, of.name())?, options, start).take(limit);
        rows.map(|row| row.map(|(key, value)| (key.into(), value.into())).map_err(ReadError::from)).collect()
    }

    /// Whether there is room for a flush.
    pub(crate) fn has_room(&self) -> Result<(), ReadError> {
        self.databases().has_room()
    }

    /// Brings the state to the disk, all families as of one moment.
    pub(crate) fn flush(&self) -> Result<(), ReadError> {
        self.databases().flush()
    }

    /// Replaces the databases by those of a new generation, when `accept` takes what they have applied. Nobody sees
    /// them before. Nothing may be settled meanwhile, as `settling` proves: the log of such a step may go as soon as
    /// this returns.
    pub(crate) fn replace(
        &self,
        _settling: &MutexGuard<'_, ()>,
        generation: u64,
        accept: impl FnOnce(Option<LogId>) -> Result<(), NodeError>,
    ) -> Result<(), NodeError> {
        let (databases, machine, system) = open_databases(&self.layout, generation)?;
        accept(system.applied)?;
        let databases = Arc::new(databases);
        let applied = system.applied.map_or(0, |applied| applied.index.saturating_add(1));
        self.clock.observe(machine.millis());
        self.clock.set_alone(is_alone(&system.membership));
        let changes = databases.changes(&machine);
        let publishing = lock(&self.publishing);
        *self.databases.write().unwrap_or_else(PoisonError::into_inner) = databases;
        self.show(machine);
        drop(publishing);
        *lock(&self.changes) = changes;
        *lock(&self.schedule) = Schedule::default();
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
    let state = complete::opened("state", layout.root(), layout::open_state(&layout.state(generation)))?;
    let ledger = complete::opened("ledger", layout.root(), layout::open_ledger(&layout.ledger(generation)))?;
    let failed = |store: &'static str| move |error: ReadError| NodeError::Store { store, detail: error.0 };
    let staging = layout.staging().join(generation.to_string());
    let ledger = Ledger::new(ledger, &staging).map_err(failed("ledger"))?;
    let machine = load_machine(&state).map_err(failed("state"))?;
    let system = load_system(&state).map_err(failed("state"))?;
    let dropped = RwLock::new(load_settled(&state).map_err(failed("state"))?);
    let databases = Databases { state: Arc::new(state), ledger, dropped };
    databases.compare(&machine)?;
    Ok((databases, machine, system))
}

/// How far each namespace is settled, as the state remembers.
fn load_settled(db: &DB) -> Result<HashMap<u32, u64>, ReadError> {
    let mut settled = HashMap::new();
    for row in db.iterator_cf(family(db, CF_SYSTEM)?, IteratorMode::From(SETTLED, Direction::Forward)) {
        let (key, value) = row?;
        let Some(namespace) = key.strip_prefix(SETTLED) else { break };
        let namespace = namespace.try_into().map(u32::from_be_bytes);
        let end = value.as_ref().try_into().map(u64::from_be_bytes);
        let (Ok(namespace), Ok(end)) = (namespace, end) else {
            return Err(ReadError("damaged row of what is settled".to_owned()));
        };
        settled.insert(namespace, end);
    }
    Ok(settled)
}

/// Keys and values.
pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn rows(db: &DB, of: Family) -> Result<Pairs, ReadError> {
    let rows = db.iterator_cf(family(db, of.name())?, IteratorMode::Start);
    rows.map(|row| row.map(|(key, value)| (key.into(), value.into())).map_err(ReadError::from)).collect()
}

fn range(db: &DB, of: Family, from: &[u8], to: &[u8]) -> Result<Pairs, ReadError> {
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(to.to_vec());
    let column = family(db, of.name())?;
    let rows = db.iterator_cf_opt(column, options, IteratorMode::From(from, Direction::Forward));
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
    let (from, to) = Machine::xbus_bounds();
    let xbus = range(db, Family::Ids, &from, &to)?;
    let loaded = Loaded { meta, heads, consumers, nodes, batches, config, services, instances, xbus };
    Machine::load(&loaded).map_err(|RowsError(error)| ReadError(error))
}

fn load_system(db: &DB) -> Result<System, ReadError> {
    let column = family(db, CF_SYSTEM)?;
    let wrong = |error: io::Error| ReadError(error.to_string());
    let applied = db.get_cf(column, APPLIED)?.map(|bytes| codec::decode_log_id(&bytes)).transpose().map_err(wrong)?;
    let membership = db.get_cf(column, MEMBERSHIP)?.map(|bytes| codec::decode_membership(&bytes));
    Ok(System { applied, membership: membership.transpose().map_err(wrong)?.unwrap_or_default() })
}

/// The newest snapshot that was announced, and the snapshots that are being sent.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    announced: Mutex<Option<SnapshotMeta>>,
    /// Behind which entries the receivers of snapshots will go on.
    sending: Mutex<BTreeMap<u64, u64>>,
}

/// Keeps the log behind a snapshot that is being sent, until this is dropped.
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
