//! The sections of the configuration, their defaults, and the checks that need more than one value.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bus::duration;

use super::values::{Listen, LogFormat, Namespaces};

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
}

impl Default for Node {
    fn default() -> Self {
        Self { id: 1, data: PathBuf::from("./data"), insecure: false }
    }
}

/// `[web]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// Where it listens.
    pub listen: Listen,
}

impl Default for Web {
    fn default() -> Self {
        Self { listen: loopback(7440) }
    }
}

/// `[sse]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sse {
    /// Where it listens.
    pub listen: Listen,
    /// Largest request body in bytes; more is answered 413.
    pub body_bytes_max: usize,
    /// Quiet time after which a stream gets a comment line.
    #[serde(with = "duration")]
    pub keep_alive: Duration,
    /// Longest time a request body may take to arrive.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// Most connections at a time.
    pub connections_max: usize,
}

impl Default for Sse {
    fn default() -> Self {
        Self {
            listen: loopback(2021),
            body_bytes_max: 8 * 1024 * 1024,
            keep_alive: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            connections_max: 20_000,
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
    pub reserve_bytes: u64,
    /// Longest time a publish waits for its commit.
    #[serde(with = "duration")]
    pub publish_timeout: Duration,
    /// Most bytes of publishes that wait for their commit at a time.
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
}

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
        require(self.sse.body_bytes_max > 0, "sse.body_bytes_max", "must be more than 0");
        require(self.sse.connections_max > 0, "sse.connections_max", "must be more than 0");
        require(!self.sse.keep_alive.is_zero(), "sse.keep_alive", "must be more than 0s");
        require(!self.sse.body_timeout.is_zero(), "sse.body_timeout", "must be more than 0s");
        require(!self.book.publish_timeout.is_zero(), "book.publish_timeout", "must be more than 0s");
        require(
            self.book.pending_bytes_max >= self.sse.body_bytes_max,
            "book.pending_bytes_max",
            "must be at least sse.body_bytes_max, or the largest publish could never be taken",
        );
        require(
            self.threads.workers <= WORKERS_MAX,
            "threads.workers",
            &format!("at most {WORKERS_MAX}; 0 means one less than the cores"),
        );
        if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&self.log.filter) {
            found.push(("log.filter", format!("{error}; write a level (info) or pairs (info,rollbook=debug)")));
        }
        found.extend(self.listener_contradictions());
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
