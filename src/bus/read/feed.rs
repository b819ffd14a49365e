//! The feed: delivers new events to the subscriptions that want them.
//!
//! One thread per node follows the applied index. For each changed namespace with subscribers the thread reads the new
//! events once, keeps the newest in a ring, finds the subscribers of each subject in the interest index, and puts the
//! shared event into their buffers.
//!
//! Invariant: a subscription is woken only by events that it wants, and a namespace without subscribers costs nothing.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rollbook_cluster::error::ReadError;
use rollbook_cluster::lock::lock;
use rollbook_cluster::node::state_reader::StateReader;
use rollbook_core::subjects::interest::Interest;
use rollbook_core::subjects::pattern::Pattern;
use tokio_util::sync::CancellationToken;

use super::feed_buffer::FeedBuffer;
use super::stored_event::StoredEvent;

/// Most events in the ring of one namespace.
const RING_EVENTS_MAX: usize = 4096;
/// Most bytes in the ring of one namespace.
const RING_BYTES_MAX: usize = 4 << 20;
/// Most events in one read of the book.
const PAGE_EVENTS_MAX: usize = 512;

/// Number of one attached subscription.
pub type Ticket = u64;

/// The feed of one namespace. Exists while a subscription is attached.
#[derive(Default)]
struct Channel {
    /// Position behind the newest event that was delivered.
    head: u64,
    /// The newest events, so that a subscription which is a little behind can attach.
    ring: VecDeque<Arc<StoredEvent>>,
    /// Bytes in the ring, for [`RING_BYTES_MAX`].
    ring_bytes: usize,
    /// Which subscriptions want a subject.
    interest: Interest<Ticket>,
    /// The buffers of the subscriptions.
    buffers: HashMap<Ticket, Arc<FeedBuffer>>,
}

/// The feed of a node, shared by its thread and all subscriptions.
pub struct Feed {
    /// The applied index and the book.
    state: StateReader,
    /// The namespaces that have subscribers.
    channels: Mutex<HashMap<Box<str>, Arc<Mutex<Channel>>>>,
    /// Number of the next subscription.
    tickets: std::sync::atomic::AtomicU64,
    /// Wakes the thread when the first subscription attaches.
    awake: tokio::sync::Notify,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Attached {
    /// Position behind the newest event that was considered for this subscription. Earlier events that it wants are in
    /// its buffer, or were taken.
    #[must_use]
    pub fn head(&self) -> u64 {
        let channel = lock(&self.feed.channels).get(self.pattern.namespace()).map(Arc::clone);
        channel.map_or(1, |channel| lock(&channel).head)
    }
}

/// A subscription's place in the feed. The subscription leaves when this is dropped.
#[derive(Debug)]
pub struct Attached {
    /// The feed to leave.
    feed: Arc<Feed>,
    /// What the subscription wants.
    pattern: Pattern,
    /// Number of the subscription.
    ticket: Ticket,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.feed.detach(&self.pattern, self.ticket);
    }
}

impl Feed {
    /// A feed of this node. [`Feed::run`] must run on a thread.
    #[must_use]
    pub fn new(state: StateReader) -> Arc<Self> {
        Arc::new(Self {
            state,
            channels: Mutex::default(),
            tickets: std::sync::atomic::AtomicU64::new(1),
            awake: tokio::sync::Notify::new(),
        })
    }

    /// Attaches a subscription that has seen every event before `next`. `None` when the ring does not reach back that
    /// far, or the missing events do not fit into the buffer: the subscription must read the book first.
    #[must_use]
    pub fn attach(self: &Arc<Self>, pattern: &Pattern, next: u64, buffer: &Arc<FeedBuffer>) -> Option<Attached> {
        // Held to the end, so that a channel is not joined while its last subscriber leaves.
        let mut channels = lock(&self.channels);
        if !channels.contains_key(pattern.namespace()) {
            // A new channel begins behind what is applied now.
            let newest = self.state.namespace(pattern.namespace()).map_or(1, |head| head.next);
            if next < newest {
                return None;
            }
            let channel = Channel { head: newest, ..Channel::default() };
            channels.insert(pattern.namespace().into(), Arc::new(Mutex::new(channel)));
        }
        let channel = Arc::clone(channels.get(pattern.namespace())?);
        let mut channel = lock(&channel);
        let reaches = channel.ring.front().map_or(channel.head, |oldest| oldest.sequence());
        if next < reaches {
            return None;
        }
        let wanted = |item: &&Arc<StoredEvent>| item.sequence() >= next && pattern.matches(item.event().subject);
        let missing: Vec<&Arc<StoredEvent>> = channel.ring.iter().filter(wanted).collect();
        if !buffer.takes(missing.len()) {
            // It would overflow before anything was taken, and come back here for ever.
            return None;
        }
        for item in missing {
            buffer.put(item);
        }
        let ticket = self.tickets.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        channel.interest.insert(pattern, ticket);
        channel.buffers.insert(ticket, Arc::clone(buffer));
        self.awake.notify_one();
        Some(Attached { feed: Arc::clone(self), pattern: pattern.clone(), ticket })
    }

    /// Removes a subscription, and its channel when it was the last one.
    fn detach(&self, pattern: &Pattern, ticket: Ticket) {
        let mut channels = lock(&self.channels);
        let Some(shared) = channels.get(pattern.namespace()).map(Arc::clone) else { return };
        let mut channel = lock(&shared);
        channel.interest.remove(pattern, ticket);
        channel.buffers.remove(&ticket);
        if channel.buffers.is_empty() {
            channels.remove(pattern.namespace());
        }
    }

    /// Follows the applied index until cancelled. Blocks: call it on a thread of its own.
    pub fn run(self: Arc<Self>, stop: &CancellationToken) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let mut applied = self.state.applied();
        let mut failed = BTreeSet::new();
        loop {
            let running = runtime.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => false,
                    running = self.wait_for_work(&mut applied) => running,
                }
            });
            if !running {
                return;
            }
            // Take the changes before the channels: a channel that is opened behind the changes begins at a head that
            // includes them.
            let mut names: BTreeSet<Box<str>> = std::mem::take(&mut failed);
            names.extend(self.state.take_changed().iter().map(|head| Box::from(head.name.as_str())));
            let channels: Vec<_> = {
                let channels = lock(&self.channels);
                let here = |name: Box<str>| channels.get(&name).map(|channel| (name, Arc::clone(channel)));
                names.into_iter().filter_map(here).collect()
            };
            for (name, channel) in channels {
                if let Err(error) = self.advance(&name, &channel) {
                    tracing::error!(%error, namespace = %name, "the feed cannot read the book");
                    std::thread::sleep(Duration::from_millis(100));
                    failed.insert(name);
                    applied.mark_changed();
                }
            }
        }
    }

    /// Sleeps while there is no subscription, then until an entry is applied. Returns `false` when the node has
    /// stopped.
    async fn wait_for_work(&self, applied: &mut tokio::sync::watch::Receiver<u64>) -> bool {
        while lock(&self.channels).is_empty() {
            self.awake.notified().await;
        }
        applied.changed().await.is_ok()
    }

    /// Delivers the new events of one namespace.
    fn advance(&self, name: &str, channel: &Mutex<Channel>) -> Result<(), ReadError> {
        loop {
            let head = lock(channel).head;
            let Some(now) = self.state.namespace(name) else { return Ok(()) };
            if now.next <= head {
                return Ok(());
            }
            let (items, next) = self.page(name, head)?;
            let mut channel = lock(channel);
            // A new subscriber may have opened the channel anew meanwhile.
            if channel.head == head {
                channel.pass(items, next.max(now.first));
            }
        }
    }

    /// Reads a page of new events. Their records share one allocation.
    fn page(&self, name: &str, from: u64) -> Result<(Vec<Arc<StoredEvent>>, u64), ReadError> {
        let mut bytes = BytesMut::with_capacity(64 << 10);
        let mut lengths = Vec::new();
        let next = self.state.book().read(name, from, None, &mut |sequence, _, record| {
            lengths.push((sequence, record.len()));
            bytes.extend_from_slice(record);
            if lengths.len() < PAGE_EVENTS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let mut bytes: Bytes = bytes.freeze();
        let items = lengths
            .into_iter()
            .map(|(sequence, length)| Arc::new(StoredEvent::stored(sequence, bytes.split_to(length))));
        Ok((items.collect(), next))
    }
}

impl Channel {
    /// Delivers events to the subscriptions that want them, and keeps the newest in the ring.
    fn pass(&mut self, items: Vec<Arc<StoredEvent>>, next: u64) {
        let mut wanted = Vec::new();
        for item in items {
            wanted.clear();
            let event = item.event();
            self.interest.find(event.subject, &mut wanted);
            for ticket in &wanted {
                if let Some(buffer) = self.buffers.get(ticket) {
                    buffer.put(&item);
                }
            }
            self.ring_bytes = self.ring_bytes.saturating_add(event.payload.map_or(0, <[u8]>::len));
            self.ring.push_back(item);
        }
        while self.ring.len() > RING_EVENTS_MAX || self.ring_bytes > RING_BYTES_MAX {
            let Some(old) = self.ring.pop_front() else { break };
            self.ring_bytes = self.ring_bytes.saturating_sub(old.event().payload.map_or(0, <[u8]>::len));
        }
        self.head = next;
    }
}
