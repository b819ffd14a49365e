//! Events of the book for live subscriptions: each node gives every new event to those of its clients.
//!
//! Invariant: a live subscription gets an event once, after the commit, and misses what it does not read in time.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollbook_cluster::lock::lock;
use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::subjects::subject::Namespace;
use tokio_util::sync::CancellationToken;

use super::handle::Bus;
use super::live::filter::{LiveFilter, LiveSubject, WILDCARD};
use super::live::message::LiveMessage;
use super::live::route::Wakes;
use super::live::subjects::OwnRoutes;
use super::read::feed::Attached;
use super::read::feed_buffer::{FeedBuffer, Taken};
use super::read::stored_event::StoredEvent;
use crate::base::clock;

/// Most events that wait to be given to live subscriptions. When more come, those that wait are missed.
const EVENTS_MAX: usize = 16_384;
/// How often namespaces that nobody wants any more are let go, and new ones are looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Most tries to get a place in the feed of a namespace that changes all the time.
const ATTACHES_MAX: usize = 16;
/// Events that are given without giving the thread to others.
const EVENTS_AT_A_TIME: usize = 256;

/// Encodes events as live messages, for the protocol of a door.
pub trait LiveEventEncoder: std::fmt::Debug + Send + Sync {
    /// The event as a message; `None` for one that cannot be one.
    fn message(&self, event: &StoredEvent) -> Option<LiveMessage>;
}

/// The namespaces whose events may go to live subscriptions.
pub type Allowed = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Gives events of the book to the live subscriptions of this node.
pub struct LiveEvents {
    bus: Bus,
    encoder: &'static dyn LiveEventEncoder,
    allowed: Allowed,
    /// The events that wait, of all namespaces.
    buffer: Arc<FeedBuffer>,
    /// The places in the feed, by namespace.
    attached: Mutex<HashMap<String, Attached>>,
}

impl std::fmt::Debug for LiveEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveEvents").field("namespaces", &lock(&self.attached).len()).finish_non_exhaustive()
    }
}

impl LiveEvents {
    /// The events of the namespaces for which `allowed` says so. [`LiveEvents::run`] must run.
    #[must_use]
    pub fn new(bus: Bus, encoder: &'static dyn LiveEventEncoder, allowed: Allowed) -> Arc<Self> {
        let buffer = Arc::new(FeedBuffer::new(EVENTS_MAX));
        Arc::new(Self { bus, encoder, allowed, buffer, attached: Mutex::default() })
    }

    /// A client has subscribed to this: events from now on are not missed.
    pub fn prepare(&self, filter: &LiveFilter) {
        match filter.first_token() {
            WILDCARD => self.namespaces(|_| true).iter().for_each(|name| self.attach(name)),
            name if (self.allowed)(name) => self.attach(name),
            _ => {}
        }
    }

    /// The namespaces that live subscriptions may follow, of those that are wanted.
    fn namespaces(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        self.bus.node().state().with_machine(|machine| {
            let names = machine.heads().map(|head| head.name.as_str());
            names.filter(|name| wanted(name) && (self.allowed)(name)).map(str::to_owned).collect()
        })
    }

    /// Follows a namespace from now on. A namespace that is not there yet is followed from its first event.
    fn attach(&self, name: &str) {
        let mut attached = lock(&self.attached);
        if attached.contains_key(name) || Namespace::parse(name).is_err() {
            return;
        }
        let Ok(pattern) = Pattern::parse(&format!("{name}.>")) else { return };
        for _ in 0..ATTACHES_MAX {
            let next = self.bus.node().state().namespace(name).map_or(1, |head| head.next);
            // Events that come between the two lines make a place impossible, and the next one is tried.
            if let Some(place) = self.bus.feed().attach(&pattern, next, &self.buffer) {
                attached.insert(name.to_owned(), place);
                return;
            }
        }
    }

    /// Lets namespaces go that nobody wants any more, and takes those that are new or could not be taken before.
    fn look(&self) {
        let subjects = self.bus.live_subjects();
        let known: HashSet<String> = {
            let mut attached = lock(&self.attached);
            attached.retain(|name, _| subjects.wants_first_token(name));
            attached.keys().cloned().collect()
        };
        let wanted = |name: &str| !known.contains(name) && subjects.wants_first_token(name);
        if subjects.subscriptions() > 0 {
            self.namespaces(wanted).iter().for_each(|name| self.attach(name));
        }
    }

    /// Gives events to live subscriptions until cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let follow = async {
            let (mut next_look, mut routes) = (clock::now(), OwnRoutes::default());
            loop {
                if clock::now() >= next_look {
                    self.look();
                    next_look = clock::now() + LOOK;
                }
                match tokio::time::timeout(LOOK, self.buffer.take()).await {
                    Ok(Taken::Items(events)) => {
                        for part in events.chunks(EVENTS_AT_A_TIME) {
                            self.give(part, &mut routes);
                            tokio::task::yield_now().await;
                        }
                    }
                    Ok(Taken::Overflowed) => {
                        self.bus.metrics().live_dropped.inc();
                        tracing::warn!("live subscriptions have missed events, which came faster than they were given");
                    }
                    Err(_) => {}
                }
            }
        };
        stop.run_until_cancelled(follow).await;
    }

    fn give(&self, events: &[Arc<StoredEvent>], routes: &mut OwnRoutes) {
        let (subjects, here, mut wakes) = (self.bus.live_subjects(), self.bus.node().id(), Wakes::default());
        for event in events {
            let Some(message) = self.encoder.message(event) else { continue };
            if let Ok(subject) = LiveSubject::parse(message.subject.clone()) {
                subjects.deliver_event(&subject, &message, (here, event.sequence()), (routes, &mut wakes));
            }
        }
    }
}
