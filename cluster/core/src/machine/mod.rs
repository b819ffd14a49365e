//! The replicated state machine: its new state depends only on its old state and the entry that it applies.
//!
//! [`Machine`] holds the small state (namespaces, consumers, nodes, the roll) in memory and writes each change to rows
//! as well. The large state (where events are, chosen ids, dedupe keys) is in rows only. The time of the machine is the
//! time of the entries, made monotone.
//!
//! One file for each part of the state: `namespaces`, `consumers`, `nodes`, `roll` (services and instances), `central`,
//! `level`, `security`, `xbus`, `docks`, `schedules`, `delayed`; `events` applies publishes, `batch` recognises forwarded batches that arrive twice, `tidy` removes rows.
//!
//! Invariant: the machine in memory equals the machine that [`Machine::load`] builds from the committed rows.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use prost::Message as _;

use crate::persistent::{Map, Set, update};
use delayed::state::{Delayed, META_DROPPED};
use docks::state::Docks;
use effects::{Appends, Effects};
use migration::Migration;
use recent_batches::{BatchState, RecentBatches};
use schedules::state::Schedules;
use security::state::Security;
use services::Services;
use xbus::state::Xbus;

use crate::central::ConfigRevision;
use crate::command::attributed::Attributed;
use crate::command::{Command, DecodeError, Done, Reply};
use crate::consumer::Consumer;
use crate::entry::{Entry, Frame};
use crate::error::Refusal;
use crate::level::FeatureLevel;
use crate::limits::{self, Limits};
use crate::namespace::Head;
use crate::node::Node;
use crate::rows::{self, Family, Row, Rows, RowsError, Writes};

mod batch;
mod central;
mod clock;
mod consumers;
pub mod delayed;
pub mod docks;
mod effects;
mod events;
mod expire;
mod level;
mod migration;
mod namespaces;
mod nodes;
mod recent_batches;
mod roll;
pub mod schedules;
pub mod security;
mod services;
mod tidy;
pub mod xbus;

/// Row of [`Family::Meta`] that holds the cluster id.
pub const META_CLUSTER: &[u8] = b"cluster";
/// Row of [`Family::Meta`] that holds the feature level; absent at the first level.
pub const META_LEVEL: &[u8] = b"level";
/// Row of [`Family::Meta`] that holds the log time.
pub const META_MILLIS: &[u8] = b"millis";
/// Row of [`Family::Meta`] that holds the progress of the migration from the first level; absent at that level.
pub const META_MIGRATION: &[u8] = b"migration";
/// Row of [`Family::Meta`] that holds the number that the last new namespace got.
pub const META_NEXT_NAMESPACE: &[u8] = b"next_namespace";
/// Row of [`Family::Meta`] that holds the number that the next joining node gets at least.
pub const META_NEXT_NODE: &[u8] = b"next_node";

/// The rows that a node must read to build a [`Machine`].
#[derive(Debug, Default)]
pub struct Loaded {
    /// All rows of [`Family::Meta`].
    pub meta: Vec<(Vec<u8>, Vec<u8>)>,
    /// Values of all rows of [`Family::Heads`].
    pub heads: Vec<Vec<u8>>,
    /// All rows of [`Family::Consumers`].
    pub consumers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Values of all rows of [`Family::Nodes`].
    pub nodes: Vec<Vec<u8>>,
    /// Keys of all rows of [`Family::Batches`].
    pub batches: Vec<Vec<u8>>,
    /// Value of the newest row of [`Family::Config`].
    pub config: Option<Vec<u8>>,
    /// Values of all rows of [`Family::Services`].
    pub services: Vec<Vec<u8>>,
    /// Values of all rows of [`Family::Instances`].
    pub instances: Vec<Vec<u8>>,
    /// The rows of [`Family::Ids`] between [`Machine::xbus_bounds`].
    pub xbus: Vec<Row>,
}

/// The replicated state: the same on every node that has applied the same entries.
///
/// A clone is a snapshot. Its maps share their nodes with the original, so a clone costs the same for any size.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Set by the first command of the log and never changed; a node compares the id with its own identity.
    cluster_id: String,
    /// The version of the rules by which the next frame is applied.
    level: FeatureLevel,
    /// Time of the log, milliseconds since 1970: the only clock of the rules.
    millis: u64,
    /// The number that the last new namespace got: numbers in row keys are never reused.
    next_namespace: u32,
    /// All namespaces by name, deleted ones included, because publishes name the namespace.
    heads: Map<String, Head>,
    /// Deleted namespaces, sorted by the entry that deleted them: the first of them is forgotten first.
    deleted: Set<(u64, String)>,
    /// Durable consumers by number of the namespace and name.
    consumers: Map<u32, Map<String, Consumer>>,
    /// The number that the next joining node gets at least: numbers of nodes are never reused.
    next_node: u64,
    /// All nodes that were ever members, by number: says which lives go on.
    nodes: Map<u64, Node>,
    /// The newest forwarded batches of each node, so that a batch that arrives twice is applied once.
    recent_batches: Map<u64, RecentBatches>,
    /// The newest revision of the central configuration. In an `Arc`, so that a clone of the machine stays cheap.
    config: Arc<ConfigRevision>,
    /// Principals, roles, credentials and issuers.
    security: Security,
    /// Accounts, actors, pipelines, envelopes and processes of Xbus.
    xbus: Xbus,
    /// Definitions and builds of docks.
    docks: Docks,
    /// Schedules, and the tick that each waits for.
    schedules: Schedules,
    /// How many events wait for their time, and when the first is due.
    delayed: Delayed,
    /// Services and instances with the indexes by which routers find them.
    services: Services,
    /// Progress of the migration of rows from the first level; none at that level.
    migration: Option<Migration>,
    /// Namespaces that have rows to remove, sorted by the time from which they may be removed ([`tidy::due`]): `Tidy`
    /// finds its work without a search.
    due: Set<(u64, String)>,
}

/// Where a frame is in the log. Index rows store this position, so that readers find the events again.
#[derive(Debug, Clone, Copy)]
struct FramePosition {
    /// Index of the entry in the raft log.
    entry: u64,
    /// Ordinal of the frame among all frames of the entry, from 0.
    ordinal: u32,
}

impl Machine {
    /// Rebuilds the machine from its rows.
    ///
    /// # Errors
    /// A row cannot be read: that is corruption, and the row is never treated as absent.
    pub fn load(loaded: &Loaded) -> Result<Self, RowsError> {
        let mut machine = Self::default();
        for (key, value) in &loaded.meta {
            let number = || {
                value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).ok_or_else(|| RowsError::corrupt("meta"))
            };
            match key.as_slice() {
                META_CLUSTER => machine.cluster_id = String::from_utf8_lossy(value).into_owned(),
                META_LEVEL => machine.load_level(number()?)?,
                META_MILLIS => machine.millis = number()?,
                META_NEXT_NAMESPACE => {
                    machine.next_namespace = u32::try_from(number()?).map_err(|_| RowsError::corrupt("meta"))?;
                }
                META_NEXT_NODE => machine.next_node = number()?,
                META_MIGRATION => machine.load_migration(value)?,
                META_DROPPED => machine.delayed.load_dropped(value)?,
                key if machine.xbus.load_meta(key, value)?
                    || machine.docks.load_meta(key, value)?
                    || machine.schedules.load_meta(key, value)? => {}
                key => machine.security.load(key, value)?,
            }
        }
        for value in &loaded.nodes {
            let node = Node::decode(value.as_slice()).map_err(|_| RowsError::corrupt("nodes"))?;
            machine.nodes.insert_mut(node.id, node);
        }
        machine.xbus.load_open(&loaded.xbus)?;
        machine.services = Services::load(&loaded.services, &loaded.instances)?;
        if let Some(value) = &loaded.config {
            let config = ConfigRevision::decode(value.as_slice()).map_err(|_| RowsError::corrupt("config"))?;
            machine.config = Arc::new(config);
        }
        for key in &loaded.batches {
            machine.load_batch(key)?;
        }
        for value in &loaded.heads {
            let head = Head::decode(value.as_slice()).map_err(|_| RowsError::corrupt("heads"))?;
            if head.deleted {
                machine.deleted.insert_mut((head.deleted_by, head.name.clone()));
            }
            if let Some(at) = tidy::due(&head) {
                machine.due.insert_mut((at, head.name.clone()));
            }
            machine.delayed.load(&head);
            machine.heads.insert_mut(head.name.clone(), head);
        }
        for (key, value) in &loaded.consumers {
            let namespace = key
                .first_chunk()
                .map(|bytes| u32::from_be_bytes(*bytes))
                .ok_or_else(|| RowsError::corrupt("consumers"))?;
            let consumer = Consumer::decode(value.as_slice()).map_err(|_| RowsError::corrupt("consumers"))?;
            machine.put_consumer(namespace, consumer);
        }
        Ok(machine)
    }

    /// Applies the entry at `index` of the log. Adds the changed rows to `writes` and returns a reply for each frame.
    ///
    /// # Errors
    /// The store failed, or the entry needs rules that this release does not know. The machine is then half changed and
    /// must not be used any more.
    pub fn apply(
        &mut self,
        index: u64,
        entry: &Entry<'_>,
        rows: &impl Rows,
        writes: &mut Writes,
    ) -> Result<Vec<Reply>, RowsError> {
        if entry.millis > self.millis {
            self.millis = entry.millis;
            writes.put(Family::Meta, META_MILLIS.into(), self.millis.to_be_bytes().into());
        }
        self.begin_migration(writes);
        let mut replies = Vec::with_capacity(usize::try_from(entry.len()).unwrap_or_default().min(4096));
        let mut appends = Appends::new();
        let mut frames = entry.frames();
        let mut batch_state = None;
        for (ordinal, frame) in (0_u32..).zip(frames.by_ref()) {
            if let Frame::Batch(batch) = frame {
                batch_state = Some(self.begin_batch(batch, replies.len(), rows, writes)?);
                continue;
            }
            let position = FramePosition { entry: index, ordinal };
            let repeated =
                if let Some(BatchState::Repeated(answers)) = &mut batch_state { answers.next() } else { None };
            if let Some(reply) = repeated {
                self.skip_repeated(&frame, ordinal, &mut appends);
                replies.push(reply);
                continue;
            }
            replies.push(self.frame(position, &frame, rows, writes, &mut appends)?);
            if let Some(BatchState::New { batch, start, left }) = &mut batch_state {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.finish_batch(batch, replies.get(*start..).unwrap_or_default(), writes);
                    batch_state = None;
                }
            }
        }
        if !frames.intact() {
            return Err(RowsError(alloc::format!("entry {index} has damaged frames")));
        }
        for (namespace, append) in appends {
            append.write(namespace, writes);
        }
        Ok(replies)
    }

    /// Applies one frame. An error stops the node; a refusal is the reply.
    fn frame(
        &mut self,
        position: FramePosition,
        frame: &Frame<'_>,
        rows: &impl Rows,
        writes: &mut Writes,
        appends: &mut Appends,
    ) -> Result<Reply, RowsError> {
        match frame {
            Frame::Publish(publish) => match publish.tick {
                Some(tick) => self.publish_tick(position, (publish, tick), rows, writes, appends),
                None => self.publish(position, publish, rows, writes, appends),
            },
            Frame::Command(body) => match Attributed::decode(body) {
                Ok(command) => self.attributed(command, rows, &mut Effects { entry: position.entry, writes, appends }),
                Err(DecodeError::Unknown) => Err(RowsError::newer(position.entry, "has an unknown command")),
                // No release wrote these bytes, so all releases refuse them alike.
                Err(damaged @ DecodeError::Damaged(_)) => Ok(Err(damaged.into())),
            },
            Frame::Batch(_) => Ok(Err(Refusal::Malformed("a batch within a batch".into()))),
            Frame::Unknown(kind) => {
                Err(RowsError::newer(position.entry, &alloc::format!("has a frame of unknown kind {kind}")))
            }
        }
    }

    /// The namespace of this name, unless it is deleted.
    #[must_use]
    pub fn head(&self, name: &str) -> Option<&Head> {
        self.heads.get(name).filter(|head| !head.deleted)
    }

    /// All namespaces by name, deleted ones included.
    pub fn heads(&self) -> impl Iterator<Item = &Head> {
        self.heads.values()
    }

    /// The durable consumer of this name in the namespace of this number.
    #[must_use]
    pub fn consumer(&self, namespace: u32, name: &str) -> Option<&Consumer> {
        self.consumers.get(&namespace)?.get(name)
    }

    /// The durable consumers of the namespace of this number, by name.
    pub fn consumers(&self, namespace: u32) -> impl Iterator<Item = &Consumer> {
        self.consumers.get(&namespace).into_iter().flat_map(|of| of.values())
    }

    /// Inserts a consumer, or replaces the consumer of the same name.
    fn put_consumer(&mut self, namespace: u32, consumer: Consumer) {
        update(&mut self.consumers, namespace, |of| of.insert_mut(consumer.name.clone(), consumer));
    }

    /// Keys of [`Family::Ids`] between which the rows are that [`Loaded::xbus`] has.
    #[must_use]
    pub fn xbus_bounds() -> (Vec<u8>, Vec<u8>) {
        Xbus::open_bounds()
    }

    /// The waiting events of the cluster.
    #[must_use]
    pub const fn delayed(&self) -> &Delayed {
        &self.delayed
    }

    /// Time of the log, milliseconds since 1970.
    #[must_use]
    pub const fn millis(&self) -> u64 {
        self.millis
    }

    /// The feature level: which version of the rules this state follows.
    #[must_use]
    pub const fn level(&self) -> FeatureLevel {
        self.level
    }

    /// The maxima of the present feature level.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits::of(self.level)
    }

    /// The cluster id; empty before the cluster is founded.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Applies one command, and writes who had it done into the audit.
    fn attributed(
        &mut self,
        Attributed { command, actor }: Attributed,
        rows: &impl Rows,
        effects: &mut Effects<'_>,
    ) -> Result<Reply, RowsError> {
        // Below the level no release writes an actor, and none reads one.
        let actor = actor.filter(|_| self.level >= FeatureLevel::SECURED);
        let noted = actor.and_then(|actor| security::audit::Noted::begin(self, &command, actor));
        let reply = self.command(command, rows, effects)?;
        if let Some(noted) = noted {
            self.append_audit(noted, &reply, effects);
        }
        Ok(reply)
    }

    /// Applies one command.
    fn command(&mut self, command: Command, rows: &impl Rows, effects: &mut Effects<'_>) -> Result<Reply, RowsError> {
        let writes = &mut *effects.writes;
        Ok(match command {
            Command::ClusterCreate(create) => Ok(self.create_cluster(create.cluster_id, writes)),
            Command::NamespaceCreate(create) => {
                if self.head(&create.name).is_some() {
                    return Ok(Err(Refusal::NamespaceExists(create.name)));
                }
                self.create_namespace(&create.name, create.retention, false, writes)
                    .map(|head| Done::Namespace(head.clone()))
            }
            Command::NamespaceRetain(retain) => self.retain_namespace(&retain.name, retain.retention, writes),
            Command::NamespaceDelete(delete) => self.delete_namespace(&delete.name, effects),
            Command::Trim(trim) => self.trim(&trim, limits::TRIM_ROWS_MAX, rows, writes)?.1,
            Command::TrimMany(many) => self.trim_many(&many, rows, writes)?,
            Command::Tidy(_) => self.tidy(rows, writes)?,
            Command::ClockSet(set) => self.clock_set(set, writes),
            Command::ConsumerOpen(open) => self.open_consumer(open, writes),
            Command::ConsumerAdvance(advance) => self.advance_consumer(advance, writes),
            Command::ConsumerStart(start) => self.start_consumer(start, writes),
            Command::ConsumerDelete(delete) => self.delete_consumer(delete, writes),
            Command::ConsumerSet(set) => self.set_consumer(set, writes),
            Command::NodeUp(up) => self.node_up(up, effects),
            Command::NodeDown(down) => self.node_down(&down, effects),
            Command::NodeAllocate(allocate) => self.node_allocate(allocate, writes),
            Command::NodeRemove(remove) => self.node_remove(&remove, effects),
            Command::ConfigSet(set) => self.config_set(set, effects),
            Command::InstanceRegister(register) => self.instance_register(*register, effects),
            Command::InstanceLeave(leave) => self.instance_leave(&leave, effects),
            Command::InstanceMark(mark) => self.instance_mark(&mark, effects),
            Command::ServiceUpdate(update) => self.service_update(update, effects),
            Command::ServiceRemove(remove) => self.service_remove(&remove, effects),
            Command::ServiceExpire(expire) => self.service_expire(&expire, effects),
            Command::InstanceExpire(_) => self.instance_expire(effects),
            Command::LevelRaise(raise) => Ok(self.level_raise(effects.entry, &raise, writes)?),
            Command::Security(change) => self.security_change(*change, effects),
            Command::Xbus(change) => self.xbus_change(*change, rows, effects)?,
            Command::Dock(change) => self.dock_change(*change, rows, effects)?,
            Command::Schedule(change) => self.schedule_change(*change, writes),
            Command::DelayedRelease(_) => self.release_delayed(rows, effects)?,
            Command::DelayedCancel(cancel) => self.cancel_delayed(&cancel, rows, effects)?,
        })
    }

    /// Sets the cluster id once. A second founding changes nothing, because the log belongs to the first cluster.
    fn create_cluster(&mut self, cluster_id: String, writes: &mut Writes) -> Done {
        if self.cluster_id.is_empty() {
            self.cluster_id = cluster_id;
            writes.put(Family::Meta, META_CLUSTER.into(), self.cluster_id.as_bytes().into());
        }
        Done::Nothing
    }

    /// Checks the invariants of the state; for tests.
    ///
    /// # Panics
    /// When an invariant is broken.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        for (name, head) in &self.heads {
            assert_eq!(*name, head.name);
            assert!(head.first >= 1 && head.first <= head.next, "{head:?}");
            assert!(head.bytes_first <= head.bytes_end, "{head:?}");
            assert!(head.id >= 1 && head.id <= self.next_namespace, "{head:?}");
        }
        let deleted = self.heads.values().filter(|head| head.deleted);
        assert_eq!(self.deleted, deleted.map(|head| (head.deleted_by, head.name.clone())).collect::<Set<_>>());
        let consumers = self.consumers.iter().flat_map(|(of, all)| all.iter().map(move |(name, one)| (of, name, one)));
        for (namespace, name, consumer) in consumers {
            let head = self.heads.values().find(|head| head.id == *namespace);
            assert!(head.is_some_and(|head| !head.deleted && consumer.ack_floor <= head.last()), "{consumer:?}");
            assert_eq!(*name, consumer.name);
            consumer.check();
        }
        let due = self.heads.values().filter_map(|head| Some((tidy::due(head)?, head.name.clone())));
        assert_eq!(self.due, due.collect::<Set<_>>());
        self.check_services();
        self.check_xbus();
        self.check_docks();
        self.check_schedules();
        self.check_delayed();
    }
}

/// Writes the row of a namespace and returns a copy of the namespace.
fn save_head(head: &Head, writes: &mut Writes) -> Head {
    writes.put(Family::Heads, rows::key(head.id, &[]), head.encode_to_vec());
    head.clone()
}

#[cfg(test)]
mod tests;
