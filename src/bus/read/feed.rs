//! The feed: new events to the subscriptions that want them.
//!
//! One thread per node follows the applied index. For each namespace that has changed and that somebody
//! subscribes to, it reads the new events once, keeps the newest in a ring, finds the
//! subscriptions of each subject in the interest index and puts the shared event into their
//! buffers. A subscription that is not interested is not woken; a namespace that
//! nobody subscribes to costs nothing.

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

/// Most events and bytes in the ring of one namespace.
const RING_EVENTS_MAX: usize = 4096;
const RING_BYTES_MAX: usize = 4 << 20;
/// Most events read under one look at the book.
const PAGE_EVENTS_MAX: usize = 512;

/// Number of one attached subscription.
pub type Ticket = u64;

#[derive(Default)]
struct Channel {
    /// Position behind the newest event that went through.
    head: u64,
    ring: VecDeque<Arc<StoredEvent>>,
    ring_bytes: usize,
    interest: Interest<Ticket>,
    buffers: HashMap<Ticket, Arc<FeedBuffer>>,
}

/// Shared by the feed's thread and all subscriptions of a node.
pub struct Feed {
    state: StateReader,
    channels: Mutex<HashMap<Box<str>, Arc<Mutex<Channel>>>>,
    tickets: std::sync::atomic::AtomicU64,
    /// Somebody came while nobody was there.
    awake: tokio::sync::Notify,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Attached {
    /// Position behind the newest event that was considered for this subscription. What it wants of
    /// the events before is in its inbox, or was taken.
    #[must_use]
    pub fn head(&self) -> u64 {
        let channel = lock(&self.feed.channels).get(self.pattern.namespace()).map(Arc::clone);
        channel.map_or(1, |channel| lock(&channel).head)
    }
}

/// A subscription's place in the feed. Leaves when dropped.
#[derive(Debug)]
pub struct Attached {
    feed: Arc<Feed>,
    pattern: Pattern,
    ticket: Ticket,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.feed.detach(&self.pattern, self.ticket);
    }
}

impl Feed {
    /// A feed of this node; [`Feed::run`] makes it work.
    #[must_use]
    pub fn new(state: StateReader) -> Arc<Self> {
        Arc::new(Self {
            state,
            channels: Mutex::default(),
            tickets: std::sync::atomic::AtomicU64::new(1),
            awake: tokio::sync::Notify::new(),
        })
    }

    /// Lets a subscription that has seen everything before `next` go on from the feed. `None` when
    /// the feed does not reach back that far, or it is more than the inbox takes: read the book first.
    #[must_use]
    pub fn attach(self: &Arc<Self>, pattern: &Pattern, next: u64, buffer: &Arc<FeedBuffer>) -> Option<Attached> {
        // Held to the end: a channel that is being left by its last subscriber must not be joined.
        let mut channels = lock(&self.channels);
        if !channels.contains_key(pattern.namespace()) {
            // Nobody is here: the feed would begin at what is applied now.
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
            let going = runtime.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => false,
                    going = self.something_to_do(&mut applied) => going,
                }
            });
            if !going {
                return;
            }
            // The changes first: a channel that begins behind them begins at a head that has them.
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

    /// Pends while nobody subscribes, then until something is applied. `false` when the node has gone.
    async fn something_to_do(&self, applied: &mut tokio::sync::watch::Receiver<u64>) -> bool {
        while lock(&self.channels).is_empty() {
            self.awake.notified().await;
        }
        applied.changed().await.is_ok()
    }

    fn advance(&self, name: &str, channel: &Mutex<Channel>) -> Result<(), ReadError> {
        loop {
            let head = lock(channel).head;
            let Some(now) = self.state.namespace(name) else { return Ok(()) };
            if now.next <= head {
                return Ok(());
            }
            let (items, next) = self.page(name, head)?;
            let mut channel = lock(channel);
            // A subscriber who came meanwhile may have started the channel anew.
            if channel.head == head {
                channel.pass(items, next.max(now.first));
            }
        }
    }

    /// Reads a page of new events; their records share one allocation.
    fn page(&self, name: &str, from: u64) -> Result<(Vec<Arc<StoredEvent>>, u64), ReadError> {
        let mut bytes = BytesMut::with_capacity(64 << 10);
        let mut places = Vec::new();
        let next = self.state.book().read(name, from, None, &mut |sequence, _, record| {
            places.push((sequence, record.len()));
            bytes.extend_from_slice(record);
            if places.len() < PAGE_EVENTS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let mut bytes: Bytes = bytes.freeze();
        let items = places
            .into_iter()
            .map(|(sequence, length)| Arc::new(StoredEvent::stored(sequence, bytes.split_to(length))));
        Ok((items.collect(), next))
    }
}

impl Channel {
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
