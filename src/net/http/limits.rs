//! Bounds and counts of a listener, which all its threads share.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_http::ServiceConfig;
use actix_web::HttpResponse;
use tokio::sync::Notify;

use super::head::Fault;
use super::hosts::Hosts;
use crate::base::metrics::Metrics;

/// Most connections at a time that are only told that there are too many.
const TURNED_AWAY_MAX: usize = 1000;

/// How a listener answers a request that reaches no application, in the form of its door.
pub type Refuse = Arc<dyn Fn(&Fault) -> HttpResponse + Send + Sync>;

/// What a listener is told.
pub struct ListenerSettings {
    /// Its name among the metrics.
    pub name: &'static str,
    /// Hosts that requests may ask for.
    pub hosts: Hosts,
    /// How long a connection without a request is kept.
    pub idle_timeout: Duration,
    /// Most connections, those that carry a stream or a WebSocket apart.
    pub connections_max: usize,
    /// Whether its application takes connections over as WebSockets.
    pub websockets: bool,
    /// How it says no.
    pub refuse: Refuse,
}

impl fmt::Debug for ListenerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A listener: what it was told, and how many are there.
#[derive(Debug)]
pub struct ListenerLimits {
    pub(super) terms: ListenerSettings,
    metrics: Metrics,
    /// Connections, those with a stream apart.
    open: AtomicUsize,
    turned_away: AtomicUsize,
}

/// Why a connection or request was turned away, as the metric names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// Too many connections.
    Connections,
    /// Too many streams.
    Streams,
    /// The host is not this node's.
    Host,
    /// The request is not one of HTTP/1.
    Malformed,
}

impl TurnedAway {
    const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Streams => "streams",
            Self::Host => "host",
            Self::Malformed => "malformed",
        }
    }

    /// Counts it.
    pub fn count(self, metrics: &Metrics, listener: &'static str) {
        metrics.http_refused.get_or_create(&[("listener", listener), ("reason", self.name())]).inc();
    }
}

impl ListenerLimits {
    /// A listener without connections.
    #[must_use]
    pub fn new(terms: ListenerSettings, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { terms, metrics, open: AtomicUsize::new(0), turned_away: AtomicUsize::new(0) })
    }

    /// A listener that nothing is too much for.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Arc<Self> {
        let terms = ListenerSettings {
            name: "web",
            hosts: Hosts::default(),
            idle_timeout: Duration::from_secs(75),
            connections_max: 1000,
            websockets: true,
            refuse: Arc::new(|fault| panic!("refused: {fault:?}")),
        };
        Self::new(terms, Metrics::default())
    }

    /// How many connections there are that carry no stream.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, why: TurnedAway) {
        why.count(&self.metrics, self.terms.name);
    }
}

/// A place among the connections of a listener, given back when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    rules: Arc<ListenerLimits>,
    counted: Counted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Connection,
    Stream,
    TurnedAway,
}

impl ConnectionSlot {
    /// A place, or, `Err`, one of those that are left to say that there is none. `None`: not even that.
    pub(super) fn take(rules: &Arc<ListenerLimits>, may_make_room: bool) -> Option<Result<Self, Self>> {
        let place = |counted| Self { rules: Arc::clone(rules), counted };
        let open = rules.open.fetch_add(1, Ordering::Relaxed);
        let connection = place(Counted::Connection);
        if open < rules.terms.connections_max || may_make_room {
            return Some(Ok(connection));
        }
        drop(connection);
        let turned_away = rules.turned_away.fetch_add(1, Ordering::Relaxed);
        let place = place(Counted::TurnedAway);
        (turned_away < TURNED_AWAY_MAX).then_some(Err(place))
    }

    /// From now on, or no longer, the connection carries a stream.
    pub(super) fn stream(&mut self, streams: bool) {
        let to = if streams { Counted::Stream } else { Counted::Connection };
        if self.counted != to && self.counted != Counted::TurnedAway {
            self.leave();
            self.counted = to;
            if to == Counted::Connection {
                self.rules.open.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn leave(&self) {
        match self.counted {
            Counted::Connection => drop(self.rules.open.fetch_sub(1, Ordering::Relaxed)),
            Counted::TurnedAway => drop(self.rules.turned_away.fetch_sub(1, Ordering::Relaxed)),
            Counted::Stream => {}
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What the connections of one thread share.
pub(super) struct Worker<S> {
    /// The application.
    pub(super) service: S,
    pub(super) rules: Arc<ListenerLimits>,
    /// Of the codec.
    pub(super) codec: ServiceConfig,
    /// Wakes idle connections: the one that is idle for longest to make room, all when the listener stops.
    pub(super) idle: Notify,
    pub(super) idle_count: Cell<usize>,
    /// Idle ones that were woken to make room and have not left.
    pub(super) leaving: Cell<usize>,
    pub(super) stopping: Cell<bool>,
    /// Where a head is copied, to say what is wrong with it.
    pub(super) scratch: RefCell<Vec<u8>>,
}

impl<S> Worker<S> {
    pub(super) fn new(service: S, rules: Arc<ListenerLimits>) -> Self {
        Self {
            service,
            rules,
            codec: ServiceConfig::default(),
            idle: Notify::new(),
            idle_count: Cell::new(0),
            leaving: Cell::new(0),
            stopping: Cell::new(false),
            scratch: RefCell::default(),
        }
    }

    /// A place for a connection. When there is none, one that is idle makes room.
    pub(super) fn admit(&self) -> Option<Result<ConnectionSlot, ConnectionSlot>> {
        let full = self.rules.open.load(Ordering::Relaxed) >= self.rules.terms.connections_max;
        let may_make_room = full && self.idle_count.get() > self.leaving.get();
        if may_make_room {
            self.leaving.set(self.leaving.get().saturating_add(1));
            self.idle.notify_one();
        }
        ConnectionSlot::take(&self.rules, may_make_room)
    }

    /// An idle connection was woken.
    pub(super) fn woken(&self) {
        if !self.stopping.get() {
            self.leaving.set(self.leaving.get().saturating_sub(1));
        }
    }

    /// No connection is kept for another request any more.
    pub(super) fn stop(&self) {
        self.stopping.set(true);
        self.idle.notify_waiters();
    }
}

/// Notes that a connection is idle, as long as it lives.
pub(super) struct Idle<'a>(&'a Cell<usize>);

impl<'a> Idle<'a> {
    pub(super) fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get().saturating_add(1));
        Self(count)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
