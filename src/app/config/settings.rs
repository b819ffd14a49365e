//! The sections of the configuration, their defaults, and the checks that need more than one value.
//!
//! Size: a list of all settings, which is looked up and not read.

use std::path::PathBuf;
use std::time::Duration;

use rollbook_cluster::timing::{HEARTBEAT, HEARTBEAT_MAX, HEARTBEAT_MIN, NODE_TIMEOUT_HEARTBEATS};
use serde::{Deserialize, Serialize};

use crate::base::duration;
use crate::bus::call::choice::Strategies;

use super::bytes;
use super::values::{Founders, Listen, LogFormat, Namespaces, OnIsolation, log_filter};

/// Everything `rollbook serve` can be told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who the node is and where it stores.
    pub node: Node,
    /// The listener of REST, metrics and health.
    pub web: Web,
    /// The event log over HTTP and SSE.
    pub sse: Sse,
    /// The event log itself.
    pub book: Book,
    /// Calls between nodes.
    pub peer: Peer,
    /// The cluster that this node is part of.
    pub cluster: Cluster,
    /// The service bus for Socket.IO clients.
    pub socketio: SocketIo,
    /// The door for plain WebSockets.
    pub websocket: WebSocket,
    /// Services and their instances.
    pub roll: Roll,
    /// Requests between services.
    pub calls: Calls,
    /// Log lines.
    pub log: Log,
    /// Threads.
    pub threads: Threads,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Number of this node in its cluster, from 1.
    pub id: u64,
    /// Everything this node stores lies here.
    pub data: PathBuf,
    /// Allows listeners that other machines can reach although there is no TLS and no authentication.
    pub insecure: bool,
    /// Names by which clients reach this node, separated by commas; `*.example.com`: all below it, `*`: any. IP
    /// addresses, `localhost`, names without a dot, the name of the machine and those of the founders need not be
    /// said. A request for another one is answered 421.
    pub hosts: String,
    /// Most bytes of request bodies that are being received at a time, on all listeners for clients.
    #[serde(with = "bytes")]
    pub receiving_bytes_max: usize,
}

impl Default for Node {
    fn default() -> Self {
        let receiving_bytes_max = 256 * 1024 * 1024;
        Self { id: 1, data: PathBuf::from("./data"), insecure: false, hosts: String::new(), receiving_bytes_max }
    }
}

/// `[web]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// Where it listens.
    pub listen: Listen,
    /// Origins of web pages that may use REST beside its own, separated by commas; `*`: any.
    pub origins: String,
    /// Most namespaces that have samples of their own in `/metrics`.
    pub metrics_namespaces_max: usize,
    /// How long a connection without a request is kept. Longer than load balancers and pools of clients keep theirs.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            listen: loopback(7440),
            origins: String::new(),
            metrics_namespaces_max: 1000,
            idle_timeout: IDLE_TIMEOUT,
        }
    }
}

/// `[sse]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sse {
    /// Where it listens.
    pub listen: Listen,
    /// Largest request body in bytes; more is answered 413.
    #[serde(with = "bytes")]
    pub body_bytes_max: usize,
    /// Quiet time after which a stream gets a comment line.
    #[serde(with = "duration")]
    pub keep_alive: Duration,
    /// Longest time a request body may take to arrive.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// Most connections at a time that carry no stream; more are answered 503.
    pub connections_max: usize,
    /// Most streams at a time; more are answered 503.
    pub streams_max: usize,
    /// How long a connection without a request is kept. Longer than load balancers and pools of clients keep theirs.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Origins of web pages that may use the event log beside its own, separated by commas; `*`: any.
    pub origins: String,
}

impl Default for Sse {
    fn default() -> Self {
        Self {
            listen: loopback(2021),
            body_bytes_max: 8 * 1024 * 1024,
            keep_alive: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            connections_max: 20_000,
            streams_max: 20_000,
            idle_timeout: IDLE_TIMEOUT,
            origins: "*".to_owned(),
        }
    }
}

/// `[book]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Book {
    /// Namespaces that clients may use.
    pub namespaces: Namespaces,
    /// Free disk space in bytes below which publishes are refused.
    #[serde(with = "bytes")]
    pub reserve_bytes: u64,
    /// Longest time a publish waits for its commit.
    #[serde(with = "duration")]
    pub publish_timeout: Duration,
    /// Most bytes of publishes that wait for their commit at a time.
    #[serde(with = "bytes")]
    pub pending_bytes_max: usize,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            namespaces: Namespaces::Any,
            reserve_bytes: 512 * 1024 * 1024,
            publish_timeout: Duration::from_secs(10),
            pending_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// `[peer]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peer {
    /// Where it listens for other nodes, never for clients.
    pub listen: Listen,
    /// Where other nodes reach it, HOST:PORT; empty: its entry in `cluster.founders`, else where it listens.
    pub advertise: String,
    /// Certificate of the authority that signs those of all nodes, PEM; empty: no TLS between nodes.
    pub ca: PathBuf,
    /// Certificate of this node, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

impl Default for Peer {
    fn default() -> Self {
        let path = PathBuf::new;
        Self { listen: loopback(7441), advertise: String::new(), ca: path(), certificate: path(), key: path() }
    }
}

impl Peer {
    /// Whether certificates are configured.
    #[must_use]
    pub fn has_certificates(&self) -> bool {
        !self.ca.as_os_str().is_empty()
    }
}

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The nodes that found the cluster, `1=HOST:PORT,2=...`; empty: this node alone, or one that joined.
    pub founders: Founders,
    /// A node that was not heard for this long is taken off the roll.
    #[serde(with = "duration")]
    pub node_timeout: Duration,
    /// How often a leader sends heartbeats, the same on all nodes. A leader that is silent for 10 to 20 of them is
    /// replaced, and round trips may take 2 of them.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// What a node does with its streams when it has had no majority for `node_timeout`: `close` or `hold`.
    pub on_isolation: OnIsolation,
    /// Bytes of the log that are kept for a node that is behind; a node further behind gets a snapshot.
    #[serde(with = "bytes")]
    pub log_keep_bytes: u64,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            founders: Founders::default(),
            node_timeout: Duration::from_secs(5),
            heartbeat: HEARTBEAT,
            on_isolation: OnIsolation::Close,
            log_keep_bytes: 256 * 1024 * 1024,
        }
    }
}

/// `[socketio]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SocketIo {
    /// Time from a pong to the next ping.
    #[serde(with = "duration")]
    pub ping_interval: Duration,
    /// Time for the pong, after which the client has gone.
    #[serde(with = "duration")]
    pub ping_timeout: Duration,
    /// Longest time the change from polling to WebSocket may take.
    #[serde(with = "duration")]
    pub upgrade_timeout: Duration,
    /// Longest time until a client joins a namespace.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// Largest message in bytes; a client that sends more is disconnected.
    #[serde(with = "bytes")]
    pub message_bytes_max: usize,
    /// Most bytes that wait for a client, events of its streams not counted; one that does not read is disconnected.
    #[serde(with = "bytes")]
    pub queue_bytes_max: usize,
    /// Most clients at a time.
    pub connections_max: usize,
    /// How long the state of a client whose connection broke is kept, so that it finds it again when it comes back,
    /// with what it missed; 0s: it is not.
    #[serde(with = "duration")]
    pub max_disconnection: Duration,
    /// Origins of web pages that may connect beside the door's own, separated by commas; `*`: any.
    pub origins: String,
}

impl Default for SocketIo {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(45),
            message_bytes_max: 1_000_000,
            queue_bytes_max: 4 * 1024 * 1024,
            connections_max: 20_000,
            max_disconnection: Duration::ZERO,
            origins: String::new(),
        }
    }
}

/// `[websocket]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocket {
    /// Silence after which a client is asked for a sign of life.
    #[serde(with = "duration")]
    pub ping_interval: Duration,
    /// Silence after which a client has gone.
    #[serde(with = "duration")]
    pub silence_max: Duration,
    /// Longest time until a client registers.
    #[serde(with = "duration")]
    pub register_timeout: Duration,
    /// How long a client that leaves may take to end what it has begun.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// Largest message in bytes; a client that sends more is disconnected.
    #[serde(with = "bytes")]
    pub message_bytes_max: usize,
    /// Most bytes that wait for a client, events of its streams not counted; one that does not read is disconnected.
    #[serde(with = "bytes")]
    pub queue_bytes_max: usize,
    /// Most messages of one client that have no end yet.
    pub in_flight_max: usize,
    /// Most clients at a time.
    pub connections_max: usize,
    /// Origins of web pages that may connect beside the door's own, separated by commas; `*`: any.
    pub origins: String,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(20),
            silence_max: Duration::from_secs(40),
            register_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            message_bytes_max: 1024 * 1024,
            queue_bytes_max: 8 * 1024 * 1024,
            in_flight_max: 1000,
            connections_max: 20_000,
            origins: String::new(),
        }
    }
}

/// `[roll]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roll {
    /// How long a service stays online after its last instance left, so that a short absence is none.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// An instance without a heartbeat for this long is unhealthy and gets no requests.
    #[serde(with = "duration")]
    pub heartbeat_timeout: Duration,
    /// An instance without a heartbeat for this long is disconnected.
    #[serde(with = "duration")]
    pub heartbeat_drop: Duration,
    /// Whether this also holds for instances that have never sent a heartbeat.
    pub heartbeat_required: bool,
}

impl Default for Roll {
    fn default() -> Self {
        Self {
            grace: Duration::ZERO,
            heartbeat_timeout: Duration::from_secs(30),
            heartbeat_drop: Duration::from_secs(90),
            heartbeat_required: false,
        }
    }
}

/// `[calls]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Calls {
    /// Deadline of a request that names none.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Longest deadline that a request may name; a longer one is cut.
    #[serde(with = "duration")]
    pub timeout_max: Duration,
    /// Most requests in flight at this node.
    pub in_flight_max: usize,
    /// Most bytes of requests in flight that this node keeps.
    pub in_flight_bytes_max: usize,
    /// Most requests that one instance gets at a time.
    pub in_flight_per_instance: u32,
    /// How providers are chosen, `CAPABILITY=STRATEGY` separated by commas, `*` for all others: `least_in_flight`
    /// (default), `round_robin`, `random`, `sticky`.
    pub strategies: Strategies,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            timeout_max: Duration::from_secs(600),
            in_flight_max: 65_536,
            in_flight_bytes_max: 256 * 1024 * 1024,
            in_flight_per_instance: 1024,
            strategies: Strategies::default(),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Which lines are written: a level, or `target=level` pairs separated by commas.
    pub filter: String,
    /// How they are written.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

/// `[threads]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Threads {
    /// HTTP worker threads of the event log; 0 = one less than the cores, at least one.
    pub workers: usize,
    /// Threads of the web listener, where services are connected; 0 = half of the cores, at least one.
    pub web: usize,
}

/// Load balancers and pools of clients keep idle connections for 60 seconds, as a rule.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Largest body of a publish that can be configured.
const BODY_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Shortest time until a silent node is given up.
const NODE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Largest message of a Socket.IO client that can be configured.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most HTTP worker threads that make sense to ask for.
const WORKERS_MAX: usize = 1024;

impl Config {
    /// What is wrong although each value by itself is fine: pairs of key and message.
    pub(super) fn contradictions(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut require = |holds: bool, key: &'static str, message: &str| {
            if !holds {
                found.push((key, message.to_owned()));
            }
        };
        require(self.node.id > 0, "node.id", "node numbers start at 1");
        require(!self.node.data.as_os_str().is_empty(), "node.data", "name a directory");
        require(self.node.receiving_bytes_max > 0, "node.receiving_bytes_max", "must be more than 0");
        require(self.sse.body_bytes_max > 0, "sse.body_bytes_max", "must be more than 0");
        require(self.sse.connections_max > 0, "sse.connections_max", "must be more than 0");
        require(self.sse.streams_max > 0, "sse.streams_max", "must be more than 0");
        require(!self.sse.idle_timeout.is_zero(), "sse.idle_timeout", "must be more than 0s");
        require(!self.web.idle_timeout.is_zero(), "web.idle_timeout", "must be more than 0s");
        require(!self.sse.keep_alive.is_zero(), "sse.keep_alive", "must be more than 0s");
        require(!self.sse.body_timeout.is_zero(), "sse.body_timeout", "must be more than 0s");
        require(!self.book.publish_timeout.is_zero(), "book.publish_timeout", "must be more than 0s");
        require(
            self.book.pending_bytes_max >= self.sse.body_bytes_max,
            "book.pending_bytes_max",
            "must be at least sse.body_bytes_max, or the largest publish could never be taken",
        );
        require(
            self.sse.body_bytes_max <= BODY_BYTES_MAX,
            "sse.body_bytes_max",
            &format!("at most {BODY_BYTES_MAX}: a publish must fit into one message between nodes"),
        );
        require(
            self.cluster.node_timeout >= NODE_TIMEOUT_MIN,
            "cluster.node_timeout",
            "must be at least 1s: nodes that only pause must not be taken off the roll",
        );
        require(
            (HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(&self.cluster.heartbeat),
            "cluster.heartbeat",
            "must be 20ms to 1s: about the round trip between nodes, or half of it",
        );
        require(
            self.cluster.node_timeout >= self.cluster.heartbeat.saturating_mul(NODE_TIMEOUT_HEARTBEATS),
            "cluster.node_timeout",
            "must be at least 10 times cluster.heartbeat: the nodes must have time to elect another leader",
        );
        let given = [&self.peer.ca, &self.peer.certificate, &self.peer.key].map(|path| !path.as_os_str().is_empty());
        require(
            given == [true; 3] || given == [false; 3],
            "peer.ca",
            "TLS between nodes needs peer.ca, peer.certificate and peer.key together",
        );
        require(
            self.cluster.founders.is_empty() || self.peer.listen.addr().is_some(),
            "peer.listen",
            "a node of a cluster must listen for the others",
        );
        require(
            self.threads.workers <= WORKERS_MAX,
            "threads.workers",
            &format!("at most {WORKERS_MAX}; 0 means one less than the cores"),
        );
        require(
            self.threads.web <= WORKERS_MAX,
            "threads.web",
            &format!("at most {WORKERS_MAX}; 0 means half of the cores"),
        );
        if let Err(error) = log_filter(&self.log.filter) {
            found.push(("log.filter", error));
        }
        found.extend(self.service_contradictions());
        found.extend(self.listener_contradictions());
        found
    }

    fn service_contradictions(&self) -> Vec<(&'static str, String)> {
        let (door, socket, roll, calls) = (&self.socketio, &self.websocket, &self.roll, &self.calls);
        let times = [
            (door.ping_interval, "socketio.ping_interval"),
            (door.ping_timeout, "socketio.ping_timeout"),
            (door.upgrade_timeout, "socketio.upgrade_timeout"),
            (door.connect_timeout, "socketio.connect_timeout"),
            (socket.ping_interval, "websocket.ping_interval"),
            (socket.register_timeout, "websocket.register_timeout"),
            (roll.heartbeat_timeout, "roll.heartbeat_timeout"),
            (calls.timeout, "calls.timeout"),
        ];
        let zero = times.into_iter().filter(|(time, _)| time.is_zero());
        let mut found: Vec<_> = zero.map(|(_, key)| (key, "must be more than 0s".to_owned())).collect();
        let mut require = |holds: bool, key: &'static str, message: &str| {
            if !holds {
                found.push((key, message.to_owned()));
            }
        };
        // The bounds that both doors for sockets have: of a message, of what waits, of clients.
        let sockets = [
            (
                [door.message_bytes_max, door.queue_bytes_max, door.connections_max],
                ["socketio.message_bytes_max", "socketio.queue_bytes_max", "socketio.connections_max"],
            ),
            (
                [socket.message_bytes_max, socket.queue_bytes_max, socket.connections_max],
                ["websocket.message_bytes_max", "websocket.queue_bytes_max", "websocket.connections_max"],
            ),
        ];
        for ([message, queue, connections], [message_key, queue_key, connections_key]) in sockets {
            let fits = format!("1 to {MESSAGE_BYTES_MAX}: a message must fit into one message between nodes");
            require((1..=MESSAGE_BYTES_MAX).contains(&message), message_key, &fits);
            require(queue >= message, queue_key, &format!("must be at least {message_key}"));
            require(connections > 0, connections_key, "must be more than 0");
        }
        require(
            socket.silence_max > socket.ping_interval,
            "websocket.silence_max",
            "must be more than websocket.ping_interval",
        );
        require(socket.in_flight_max > 0, "websocket.in_flight_max", "must be more than 0");
        require(
            roll.heartbeat_drop >= roll.heartbeat_timeout,
            "roll.heartbeat_drop",
            "must be at least roll.heartbeat_timeout",
        );
        require(calls.timeout_max >= calls.timeout, "calls.timeout_max", "must be at least calls.timeout");
        require(calls.in_flight_max > 0, "calls.in_flight_max", "must be more than 0");
        require(calls.in_flight_bytes_max > 0, "calls.in_flight_bytes_max", "must be more than 0");
        require(calls.in_flight_per_instance > 0, "calls.in_flight_per_instance", "must be more than 0");
        found
    }

    fn listener_contradictions(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        for (key, listen) in [("web.listen", self.web.listen), ("sse.listen", self.sse.listen)] {
            if listen.is_exposed() && !self.node.insecure {
                found.push((
                    key,
                    format!(
                        "{listen} can be reached from other machines and there is no TLS and no authentication; \
                         listen on 127.0.0.1, or pass --insecure (node.insecure = true) if the network is trusted"
                    ),
                ));
            }
        }
        if self.peer.listen.is_exposed() && !self.peer.has_certificates() && !self.node.insecure {
            found.push((
                "peer.listen",
                format!(
                    "{} can be reached from other machines and there are no certificates for calls between nodes; \
                     set peer.ca, peer.certificate and peer.key (see `rollbook cert dev`), or pass --insecure \
                     (node.insecure = true) if the network is trusted",
                    self.peer.listen
                ),
            ));
        }
        if let (Some(web), Some(sse)) = (self.web.listen.addr(), self.sse.listen.addr())
            && web == sse
            && web.port() != 0
        {
            found.push(("sse.listen", format!("{sse} is already the address of web.listen")));
        }
        found
    }
}

fn loopback(port: u16) -> Listen {
    Listen::Addr((std::net::Ipv4Addr::LOCALHOST, port).into())
}
