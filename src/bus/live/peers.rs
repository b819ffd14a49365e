//! What waits for other nodes: live messages and changes of interest, in one order for each node.
//!
//! The order is what makes answers find their way: a client subscribes to the subject of its answers before it asks, so
//! another node hears of the subscription before it hears of the question.
//!
//! Invariant: what waits is bounded in bytes. A message that finds no room is dropped and counted. A change of interest
//! is not lost: the node is then told the whole interest.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::{Bytes, BytesMut};
use rollbook_cluster::lock::lock;
use tokio::sync::Notify;

use super::message::LiveMessage;
use super::table::{InterestChange, Wanted};
use super::wire::{self, Head};

/// Most bytes that wait for one node. Tests have small ones, so that they are reached.
const WAITING_BYTES_MAX: usize = if cfg!(test) { 1200 } else { 16 << 20 };
/// About the most bytes of one message between nodes.
pub(in crate::bus) const BATCH_BYTES: usize = if cfg!(test) { 100 } else { 1 << 20 };

#[derive(Debug, Default)]
struct Waiting {
    /// Encoded changes and messages, in their order.
    operations: BytesMut,
    /// Where in `operations` parts of about [`BATCH_BYTES`] end, so that a batch is no larger than a message may be.
    cuts: Vec<Cut>,
    /// Messages behind the last cut.
    messages: u64,
    /// The version of the interest that the node has been told, with what waits.
    told: u64,
    /// The version at the beginning of what waits.
    start: u64,
    /// Whether the node must be told the whole interest.
    whole: bool,
}

/// The end of a part of what waits.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Where in the operations the part ends.
    end: usize,
    /// The version of the interest there.
    version: u64,
    /// Messages in the part.
    messages: u64,
}

impl Waiting {
    /// Messages in all of what waits.
    fn all_messages(&self) -> u64 {
        self.cuts.iter().fold(self.messages, |sum, cut| sum.saturating_add(cut.messages))
    }
}

/// What waits for one node.
#[derive(Debug)]
pub(in crate::bus) struct PeerQueue {
    waiting: Mutex<Waiting>,
    /// Wakes whoever sends.
    pub(in crate::bus) more: Notify,
}

/// A part of what waits.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::bus) struct Batch {
    pub(in crate::bus) head: Head,
    pub(in crate::bus) operations: Bytes,
    /// Messages in the operations.
    pub(in crate::bus) messages: u64,
    /// Whether the whole interest must come before the operations.
    pub(in crate::bus) whole: bool,
}

impl PeerQueue {
    /// A queue to a node that knows nothing yet, at this version of the interest.
    fn new(version: u64) -> Self {
        let waiting = Waiting { told: version, start: version, whole: true, ..Waiting::default() };
        Self { waiting: Mutex::new(waiting), more: Notify::new() }
    }

    /// Appends an operation. `change`: the version after it, for a change of interest; `None` for a message.
    ///
    /// # Errors
    /// There is no room: so many messages are lost.
    fn push(&self, bytes: usize, change: Option<u64>, write: impl FnOnce(&mut BytesMut)) -> Result<(), u64> {
        let mut waiting = lock(&self.waiting);
        if waiting.operations.len().saturating_add(bytes) > WAITING_BYTES_MAX {
            let mut lost = 1;
            if let Some(version) = change {
                // Older changes that wait would undo the whole interest that the node is told now, so nothing of what
                // waits is sent.
                lost = waiting.all_messages();
                *waiting = Waiting { told: version, start: version, whole: true, ..Waiting::default() };
                drop(waiting);
                self.more.notify_one();
            }
            return Err(lost);
        }
        let first = waiting.operations.is_empty();
        write(&mut waiting.operations);
        match change {
            Some(version) => waiting.told = version,
            None => waiting.messages = waiting.messages.saturating_add(1),
        }
        let (end, told) = (waiting.operations.len(), waiting.told);
        let begun = waiting.cuts.last().map_or(0, |cut| cut.end);
        if end.saturating_sub(begun) >= BATCH_BYTES {
            let messages = std::mem::take(&mut waiting.messages);
            waiting.cuts.push(Cut { end, version: told, messages });
        }
        drop(waiting);
        if first {
            self.more.notify_one();
        }
        Ok(())
    }

    /// The node does not know what it was told.
    pub(in crate::bus) fn forget(&self) {
        lock(&self.waiting).whole = true;
        self.more.notify_one();
    }

    /// Takes the next batch. It may have no operations.
    pub(in crate::bus) fn take(&self, incarnation: u64) -> Batch {
        let mut waiting = lock(&self.waiting);
        let Cut { end: cut, version, messages } = match waiting.cuts.is_empty() {
            true => {
                let messages = std::mem::take(&mut waiting.messages);
                Cut { end: waiting.operations.len(), version: waiting.told, messages }
            }
            false => waiting.cuts.remove(0),
        };
        waiting.cuts.iter_mut().for_each(|later| later.end = later.end.saturating_sub(cut));
        let operations = waiting.operations.split_to(cut).freeze();
        let head = Head { incarnation, start: waiting.start, end: version };
        waiting.start = version;
        Batch { head, operations, messages, whole: std::mem::take(&mut waiting.whole) }
    }

    /// Whether more than an empty batch waits.
    pub(in crate::bus) fn has_more(&self) -> bool {
        let waiting = lock(&self.waiting);
        !waiting.operations.is_empty() || waiting.whole
    }
}

/// What waits for all other nodes.
#[derive(Debug)]
pub(in crate::bus) struct Peers {
    /// The life of this node.
    incarnation: u64,
    /// Counts the changes of the interest of this node.
    version: AtomicU64,
    queues: RwLock<BTreeMap<u64, Arc<PeerQueue>>>,
    /// Messages that found no room, or could not be sent.
    dropped: AtomicU64,
}

impl Peers {
    pub(in crate::bus) const fn new(incarnation: u64) -> Self {
        let (version, dropped) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { incarnation, version, queues: RwLock::new(BTreeMap::new()), dropped }
    }

    /// The life of this node.
    pub(in crate::bus) const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Messages that were taken and could not be sent.
    pub(in crate::bus) fn lose(&self, messages: u64) {
        self.dropped.fetch_add(messages, Ordering::Relaxed);
    }

    /// How many messages found no room, or could not be sent, since the last call.
    pub(in crate::bus) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// A new queue to a node, which takes the place of an older one.
    pub(in crate::bus) fn open(&self, node: u64) -> Arc<PeerQueue> {
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        let queue = Arc::new(PeerQueue::new(self.version.load(Ordering::Acquire)));
        queues.insert(node, Arc::clone(&queue));
        queue
    }

    /// Drops the queue to a node that is gone, unless there is a newer one.
    pub(in crate::bus) fn close(&self, node: u64, queue: &Arc<PeerQueue>) {
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        if queues.get(&node).is_some_and(|present| Arc::ptr_eq(present, queue)) {
            queues.remove(&node);
        }
        drop(queues);
        let waiting = std::mem::take(&mut *lock(&queue.waiting));
        self.lose(waiting.all_messages());
    }

    fn queue(&self, node: u64) -> Option<Arc<PeerQueue>> {
        self.queues.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// The node does not know the interest that it was told.
    pub(in crate::bus) fn forget(&self, node: u64) {
        if let Some(queue) = self.queue(node) {
            queue.forget();
        }
    }

    /// Tells all nodes of a change of interest. Called under the lock of the interest, so that all hear of changes in
    /// one order.
    pub(in crate::bus) fn change(&self, change: InterestChange, wanted: &Wanted) {
        let version = self.version.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        for queue in queues.values() {
            let write = |out: &mut BytesMut| wire::write_change(out, change, wanted);
            if let Err(lost) = queue.push(wire::change_bytes(wanted), Some(version), write) {
                self.lose(lost);
            }
        }
    }

    /// Sends a message to a node, for its subscriptions without a group when `plain`, and for one member of each of
    /// these groups. Returns `false` when there is no room.
    pub(in crate::bus) fn send(&self, node: u64, plain: bool, groups: &[&str], message: &LiveMessage) -> bool {
        let Some(queue) = self.queue(node) else { return false };
        let bytes = wire::message_bytes(groups, message);
        let sent = queue.push(bytes, None, |out| wire::write_message(out, plain, groups, message));
        if let Err(lost) = sent {
            self.lose(lost);
        }
        sent.is_ok()
    }
}
