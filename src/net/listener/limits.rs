//! Bounds and counts of a listener, shared by all its threads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::connects::Connects;
use super::settings::ListenerSettings;
use crate::base::metrics::Metrics;
use crate::net::tls::certificates::ServerTls;

/// Most connections at a time that are kept open only to be told that there are too many.
const TURNED_AWAY_MAX: usize = 1000;

/// The settings and counts of a listener.
#[derive(Debug)]
pub struct ListenerLimits {
    /// The settings.
    pub(in crate::net) settings: ListenerSettings,
    /// The counters.
    metrics: Metrics,
    /// The configuration of TLS, when the listener speaks TLS.
    tls: Option<Arc<ServerTls>>,
    /// How often an address may connect.
    connects: Arc<Connects>,
    /// Whether only this machine can reach the listener.
    loopback: bool,
    /// Open connections without a stream.
    open: AtomicUsize,
    /// Connections that are being told that there are too many.
    turned_away: AtomicUsize,
}

/// Why a connection or request was turned away. The names are labels of the metric.
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
    /// A load balancer sent no PROXY header.
    Proxy,
    /// The client speaks no TLS, or none that the listener accepts.
    Tls,
    /// The address connects too often.
    Address,
}

impl TurnedAway {
    const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Streams => "streams",
            Self::Host => "host",
            Self::Malformed => "malformed",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Address => "address",
        }
    }

    /// Counts a connection or request that was turned away.
    pub fn count(self, metrics: &Metrics, listener: &'static str) {
        metrics.http_refused.get_or_create(&[("listener", listener), ("reason", self.name())]).inc();
    }
}

impl ListenerLimits {
    /// A listener without connections. With `tls`, the listener speaks TLS.
    #[must_use]
    pub fn new(
        (settings, loopback): (ListenerSettings, bool),
        metrics: Metrics,
        tls: Option<Arc<ServerTls>>,
        connects: Arc<Connects>,
    ) -> Arc<Self> {
        let (open, turned_away) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { settings, metrics, tls, connects, loopback, open, turned_away })
    }

    /// A listener that nothing is too much for.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Arc<Self> {
        let (proxy_protocol_from, tls) = Default::default();
        let settings = ListenerSettings {
            name: "web",
            connections_max: 1000,
            proxy_protocol_from,
            tls,
            client_ca: None,
            greeting: None,
        };
        Self::new((settings, true), Metrics::default(), None, Arc::new(Connects::new(&Default::default())))
    }

    /// Open connections without a stream.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether a client is on this machine, and only such clients can reach the listener.
    pub(in crate::net) fn is_local(&self, client: SocketAddr) -> bool {
        self.loopback && client.ip().to_canonical().is_loopback()
    }

    /// The configuration of TLS, when the listener speaks TLS.
    pub(in crate::net) const fn tls(&self) -> Option<&Arc<ServerTls>> {
        self.tls.as_ref()
    }

    /// How often an address may connect.
    pub(in crate::net) fn connects(&self) -> &Connects {
        &self.connects
    }

    /// The counters.
    pub(in crate::net) const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether every slot is taken.
    pub(in crate::net) fn is_full(&self) -> bool {
        self.open() >= self.settings.connections_max
    }

    pub(in crate::net) fn count(&self, why: TurnedAway) {
        why.count(&self.metrics, self.settings.name);
    }
}

/// The slot of a connection, given back when this is dropped.
#[derive(Debug)]
pub(in crate::net) struct ConnectionSlot {
    /// The listener.
    limits: Arc<ListenerLimits>,
    /// What the connection counts as.
    counted: Counted,
}

/// What a connection counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Connection,
    Stream,
    TurnedAway,
}

impl ConnectionSlot {
    /// Takes a slot. `Err`: one of the slots for connections that are only told that there are too many. `None`: not
    /// even that.
    pub(in crate::net) fn take(limits: &Arc<ListenerLimits>, may_make_room: bool) -> Option<Result<Self, Self>> {
        let place = |counted| Self { limits: Arc::clone(limits), counted };
        let open = limits.open.fetch_add(1, Ordering::Relaxed);
        let connection = place(Counted::Connection);
        if open < limits.settings.connections_max || may_make_room {
            return Some(Ok(connection));
        }
        drop(connection);
        let turned_away = limits.turned_away.fetch_add(1, Ordering::Relaxed);
        let place = place(Counted::TurnedAway);
        (turned_away < TURNED_AWAY_MAX).then_some(Err(place))
    }

    /// The connection begins or stops to carry a stream.
    pub(in crate::net) fn stream(&mut self, streams: bool) {
        let to = if streams { Counted::Stream } else { Counted::Connection };
        if self.counted != to && self.counted != Counted::TurnedAway {
            self.leave();
            self.counted = to;
            if to == Counted::Connection {
                self.limits.open.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn leave(&self) {
        match self.counted {
            Counted::Connection => drop(self.limits.open.fetch_sub(1, Ordering::Relaxed)),
            Counted::TurnedAway => drop(self.limits.turned_away.fetch_sub(1, Ordering::Relaxed)),
            Counted::Stream => {}
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.leave();
    }
}
