//! Counters of the bus, as Prometheus reads them.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::actors::Actors;

/// What the bus counts. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Publishes that were acknowledged.
    pub publishes: Counter,
    /// Events in them.
    pub events: Counter,
    /// Publishes that were refused.
    pub refused: Counter,
    /// Open streams.
    pub subscriptions: Gauge,
    /// Events sent again.
    pub redeliveries: Counter,
    /// Events that became dead letters.
    pub dead_letters: Counter,
    /// Acknowledgements that ended a delivery.
    pub acks: Counter,
    /// Messages delivered to inbox listeners.
    pub inbox_messages: Counter,
    /// Messages that a slow inbox listener lost.
    pub inbox_dropped: Counter,
    /// Messages that clients published to live subjects.
    pub live_messages: Counter,
    /// Live messages that found no room on their way to another node or to a client.
    pub live_dropped: Counter,
    /// Requests that ended, by how.
    pub requests: Family<[(&'static str, &'static str); 1], Counter>,
    /// Requests that went to a second provider after the first was lost.
    pub requests_retried: Counter,
    /// Answers that came when their caller had been told that there is none.
    pub answers_late: Counter,
    /// Connected docks.
    pub docks: Gauge,
    /// Orders that docks refused, or did not answer.
    pub dock_orders_failed: Counter,
    /// Connected clients of services.
    pub clients: Gauge,
    /// Clients that were disconnected because they did not read.
    pub clients_slow: Counter,
    /// Clients that came back and found their state.
    pub clients_recovered: Counter,
    /// Notifications in no log that a client with a full queue has missed.
    pub notifications_skipped: Counter,
    /// Messages that nobody could be given.
    pub messages_unhandled: Counter,
    /// Ticks of schedules that this node proposed as the leader, by what became of them.
    pub schedule_ticks: Family<[(&'static str, &'static str); 1], Counter>,
    /// Actors that were started again after they died.
    pub restarts: Counter,
    /// Connections and requests that a listener turned away, by listener and reason.
    pub http_refused: Family<[(&'static str, &'static str); 2], Counter>,
    /// Requests that were refused because the client may not do what it asked for, by verb.
    pub denied: Family<[(&'static str, &'static str); 1], Counter>,
    /// TLS handshakes, by listener and outcome.
    pub tls_handshakes: Family<[(&'static str, &'static str); 2], Counter>,
    /// Attempts to read the certificate of the listeners again, by outcome.
    pub tls_reloads: Family<[(&'static str, &'static str); 1], Counter>,
    /// Days until the certificate of a listener expires, by listener.
    pub tls_days_left: Family<[(&'static str, &'static str); 1], Gauge<f64, AtomicU64>>,
    /// 1 when the node was started with `--insecure`.
    pub insecure: Gauge,
    /// Members of durable consumers that lost their place because their node did not answer.
    pub members_lost: Counter,
    /// Actors that live now.
    pub actors: Actors,
}

impl Metrics {
    /// Registers everything under its documented name.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            ("publishes", "Publishes that were acknowledged", &self.publishes),
            ("events", "Events that were acknowledged", &self.events),
            ("publishes_refused", "Publishes that were refused", &self.refused),
            ("redeliveries", "Events sent again because nobody acknowledged", &self.redeliveries),
            ("dead_letters", "Events stored as dead letters", &self.dead_letters),
            ("acks", "Acknowledgements that ended a delivery", &self.acks),
            ("inbox_messages", "Messages delivered to inbox listeners", &self.inbox_messages),
            ("inbox_dropped", "Messages dropped because an inbox listener was slow", &self.inbox_dropped),
            ("live_messages", "Messages published to live subjects", &self.live_messages),
            ("live_dropped", "Live messages dropped because a client or another node was slow", &self.live_dropped),
            (
                "requests_retried",
                "Requests that went to a second provider after the first was lost",
                &self.requests_retried,
            ),
            ("answers_late", "Answers that came after the deadline of their request", &self.answers_late),
            (
                "dock_orders_failed",
                "Orders that docks of this node refused or did not answer",
                &self.dock_orders_failed,
            ),
            ("clients_slow", "Clients that were disconnected because they did not read", &self.clients_slow),
            ("clients_recovered", "Clients that came back and found their state", &self.clients_recovered),
            (
                "notifications_skipped",
                "Broadcasts and volatile notifications that a client with a full queue has missed",
                &self.notifications_skipped,
            ),
            ("messages_unhandled", "Messages that nobody could be given", &self.messages_unhandled),
            (
                "members_lost",
                "Members of durable consumers that lost their place because they did not answer",
                &self.members_lost,
            ),
            ("actor_restarts", "Actors started again after they died", &self.restarts),
        ];
        for (name, help, counter) in counters {
            registry.register(format!("rollbook_{name}"), help, counter.clone());
        }
        registry.register("rollbook_requests", "Requests that ended, by outcome", self.requests.clone());
        let ticks = "Ticks of schedules that this node proposed as the leader, by outcome";
        registry.register("rollbook_schedule_ticks", ticks, self.schedule_ticks.clone());
        let refused = "Connections and requests that a listener turned away";
        registry.register("rollbook_http_refused", refused, self.http_refused.clone());
        let denied = "Requests that the principal of the client had no right to, by verb";
        registry.register("rollbook_denied", denied, self.denied.clone());
        registry.register("rollbook_tls_handshakes", "TLS handshakes, by outcome", self.tls_handshakes.clone());
        let reloads = "Attempts to read the certificate of the listeners again, by outcome";
        registry.register("rollbook_tls_reloads", reloads, self.tls_reloads.clone());
        let days = "Days until the certificate of a listener expires";
        registry.register("rollbook_tls_certificate_days_left", days, self.tls_days_left.clone());
        let insecure = "1 when the node was started with --insecure";
        registry.register("rollbook_insecure", insecure, self.insecure.clone());
        registry.register("rollbook_clients", "Connected clients of services", self.clients.clone());
        registry.register("rollbook_docks", "Docks that are connected to this node", self.docks.clone());
        registry.register("rollbook_subscriptions", "Open streams", self.subscriptions.clone());
        registry.register("rollbook_actors", "Actors that live now, by kind", self.actors.metric());
    }
}
