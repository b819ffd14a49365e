//! The replicated state machine: a pure function of its state and the entries of the log.
//!
//! Small state (namespaces, consumers) is held here and mirrored into rows; large
//! state (where events are, chosen ids, dedupe keys) lives in rows alone. Time is the
//! entry's, made monotone; nothing else enters.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use prost::Message as _;

use crate::persistent::{Map, Set, update};
use effects::{Effects, Index};
use migration::Migration;
use recent::{Open, Recent};
use services::Services;

use crate::central::ConfigRevision;
use crate::command::{Command, DecodeError, Done, Reply};
use crate::consumer::Consumer;
use crate::entry::{Entry, Frame};
use crate::error::Refusal;
use crate::level::FeatureLevel;
use crate::limits::{self, Limits};
use crate::namespace::Head;
use crate::node::Node;
use crate::rows::{self, Family, Rows, RowsError, Writes};

mod batch;
mod central;
mod clock;
mod consumers;
mod effects;
mod events;
mod expire;
mod level;
mod migration;
mod namespaces;
mod nodes;
mod recent;
mod roll;
mod services;
mod tidy;

/// Row of [`Family::Meta`] that holds the cluster id.
pub const META_CLUSTER: &[u8] = b"cluster";
/// Row of [`Family::Meta`] that holds the feature level; absent at the first one.
pub const META_LEVEL: &[u8] = b"level";
/// Row of [`Family::Meta`] that holds the log time.
pub const META_MILLIS: &[u8] = b"millis";
/// Row of [`Family::Meta`] that says how far rows of the first level were migrated; absent at that level.
pub const META_MIGRATION: &[u8] = b"migration";
/// Row of [`Family::Meta`] that holds the number of the next new namespace.
pub const META_NEXT_NAMESPACE: &[u8] = b"next_namespace";
/// Row of [`Family::Meta`] that holds the number of the next new node.
pub const META_NEXT_NODE: &[u8] = b"next_node";

/// What a node must read back to build a [`Machine`] from its rows.
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
}

/// The state that every node has alike.
///
/// A clone is a snapshot: it shares with the original what neither of them changes afterwards, and costs the same
/// however much there is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Machine {
    cluster_id: String,
    level: FeatureLevel,
    millis: u64,
    next_namespace: u32,
    heads: Map<String, Head>,
    /// Deleted namespaces, by the entry that deleted them.
    deleted: Set<(u64, String)>,
    /// By namespace and name.
    consumers: Map<u32, Map<String, Consumer>>,
    next_node: u64,
    nodes: Map<u64, Node>,
    recent: Map<u64, Recent>,
    config: Arc<ConfigRevision>,
    services: Services,
    migration: Option<Migration>,
    /// Namespaces with rows that may go, by the time from which on: [`tidy::due`] of each.
    due: Set<(u64, String)>,
}

/// Where a frame is: its entry, and its ordinal among all frames of the entry.
#[derive(Debug, Clone, Copy)]
struct Place {
    entry: u64,
    ordinal: u32,
}

impl Machine {
    /// Rebuilds the machine from its rows.
    ///
    /// # Errors
    /// A row that cannot be read is corruption, never treated as absent.
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
                _ => {}
            }
        }
        for value in &loaded.nodes {
            let node = Node::decode(value.as_slice()).map_err(|_| RowsError::corrupt("nodes"))?;
            machine.nodes.insert_mut(node.id, node);
        }
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

    /// Applies one entry: a reply for each frame, effects into `writes`.
    ///
    /// # Errors
    /// The store failed, or the entry needs rules that this release does not know. The machine must then not be used
    /// any further.
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
        let mut touched = Index::new();
        let mut frames = entry.frames();
        let mut open = None;
        for (ordinal, frame) in (0_u32..).zip(frames.by_ref()) {
            if let Frame::Batch(batch) = frame {
                open = Some(self.open_batch(batch, replies.len(), rows, writes)?);
                continue;
            }
            let place = Place { entry: index, ordinal };
            let repeated = if let Some(Open::Repeated(answers)) = &mut open { answers.next() } else { None };
            if let Some(reply) = repeated {
                self.skip(&frame, ordinal, &mut touched);
                replies.push(reply);
                continue;
            }
            replies.push(self.frame(place, &frame, rows, writes, &mut touched)?);
            if let Some(Open::Fresh { batch, start, left }) = &mut open {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.close_batch(batch, replies.get(*start..).unwrap_or_default(), writes);
                    open = None;
                }
            }
        }
        if !frames.intact() {
            return Err(RowsError(alloc::format!("entry {index} has damaged frames")));
        }
        for (namespace, touched) in touched {
            writes.put(Family::Index, rows::index_key(namespace, touched.first), touched.row.encode_to_vec());
        }
        Ok(replies)
    }

    fn frame(
        &mut self,
        place: Place,
        frame: &Frame<'_>,
        rows: &impl Rows,
        writes: &mut Writes,
        touched: &mut Index,
    ) -> Result<Reply, RowsError> {
        match frame {
            Frame::Publish(publish) => self.publish(place, publish, rows, writes, touched),
            Frame::Command(body) => match Command::decode(body) {
                Ok(command) => self.command(command, rows, &mut Effects { entry: place.entry, writes, touched }),
                Err(DecodeError::Unknown) => Err(RowsError::newer(place.entry, "has an unknown command")),
                // No release wrote it: all of them refuse it alike.
                Err(damaged @ DecodeError::Damaged(_)) => Ok(Err(damaged.into())),
            },
            Frame::Batch(_) => Ok(Err(Refusal::Malformed("a batch within a batch".into()))),
            Frame::Unknown(kind) => {
                Err(RowsError::newer(place.entry, &alloc::format!("has a frame of unknown kind {kind}")))
            }
        }
    }

    /// A namespace that clients can see.
    #[must_use]
    pub fn head(&self, name: &str) -> Option<&Head> {
        self.heads.get(name).filter(|head| !head.deleted)
    }

    /// All namespaces by name, deleted ones included.
    pub fn heads(&self) -> impl Iterator<Item = &Head> {
        self.heads.values()
    }

    /// A durable consumer.
    #[must_use]
    pub fn consumer(&self, namespace: u32, name: &str) -> Option<&Consumer> {
        self.consumers.get(&namespace)?.get(name)
    }

    /// The durable consumers of a namespace by name.
    pub fn consumers(&self, namespace: u32) -> impl Iterator<Item = &Consumer> {
        self.consumers.get(&namespace).into_iter().flat_map(|of| of.values())
    }

    /// Puts a consumer where the one before of that name was.
    fn put_consumer(&mut self, namespace: u32, consumer: Consumer) {
        update(&mut self.consumers, namespace, |of| of.insert_mut(consumer.name.clone(), consumer));
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

    /// The maxima of that level.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits::of(self.level)
    }

    /// The cluster id, empty before the cluster was founded.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    fn command(&mut self, command: Command, rows: &impl Rows, effects: &mut Effects<'_>) -> Result<Reply, RowsError> {
        let writes = &mut *effects.writes;
        Ok(match command {
            Command::Found(found) => Ok(self.found(found.cluster_id, writes)),
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
        })
    }

    /// Only the first one counts: a second founding of the same log would be a second cluster.
    fn found(&mut self, cluster_id: String, writes: &mut Writes) -> Done {
        if self.cluster_id.is_empty() {
            self.cluster_id = cluster_id;
            writes.put(Family::Meta, META_CLUSTER.into(), self.cluster_id.as_bytes().into());
        }
        Done::Nothing
    }

    /// Checks that the state does not contradict itself; for tests and simulations.
    ///
    /// # Panics
    /// Where it does.
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
    }
}

/// Writes the row of a namespace and gives a copy.
fn saved(head: &Head, writes: &mut Writes) -> Head {
    writes.put(Family::Heads, rows::key(head.id, &[]), head.encode_to_vec());
    head.clone()
}

#[cfg(test)]
mod tests;
