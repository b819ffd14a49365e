//! The section `[socketio]` of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::checks::Checks;
use crate::base::comma_list::CommaList;
use crate::base::{bytes, duration};
use crate::doors::door::{ConnectionBound, DoorSettings, check_socket_bounds};

/// Name of the door.
pub(in crate::doors::socketio) const NAME: &str = "socketio";

/// `[socketio]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Time from a pong, or from the handshake, to the next ping.
    #[serde(with = "duration")]
    pub ping_interval: Duration,
    /// Time from a ping to its pong. A client without a pong counts as disconnected.
    #[serde(with = "duration")]
    pub ping_timeout: Duration,
    /// Longest time of an upgrade from polling to WebSocket.
    #[serde(with = "duration")]
    pub upgrade_timeout: Duration,
    /// Longest time from the handshake until a client joins a namespace.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// Largest message and largest POST in bytes; a client that sends more is disconnected.
    #[serde(with = "bytes")]
    pub message_bytes_max: usize,
    /// Most bytes that wait for a client, without the events of its streams. A client that does not read is
    /// disconnected.
    #[serde(with = "bytes")]
    pub queue_bytes_max: usize,
    /// Most clients at a time.
    pub connections_max: usize,
    /// How long the state of a client whose connection broke is kept, so that the client recovers the state and gets
    /// the missed events when it reconnects; 0s turns the recovery off.
    #[serde(with = "duration")]
    pub max_disconnection: Duration,
    /// Origins of web pages that may connect beside the door's own, separated by commas; `*` means any.
    pub origins: CommaList,
}

impl Default for Settings {
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
            origins: CommaList::default(),
        }
    }
}

impl DoorSettings for Settings {
    fn check(&self, checks: &mut Checks) {
        for (time, key) in [
            (self.ping_interval, "socketio.ping_interval"),
            (self.ping_timeout, "socketio.ping_timeout"),
            (self.upgrade_timeout, "socketio.upgrade_timeout"),
            (self.connect_timeout, "socketio.connect_timeout"),
        ] {
            checks.require(!time.is_zero(), key, "must be more than 0s");
        }
        let bounds = [
            ("socketio.message_bytes_max", self.message_bytes_max),
            ("socketio.queue_bytes_max", self.queue_bytes_max),
            ("socketio.connections_max", self.connections_max),
        ];
        check_socket_bounds(checks, bounds);
    }

    fn message_bytes_max(&self) -> (&'static str, usize) {
        ("socketio.message_bytes_max", self.message_bytes_max)
    }

    fn connection_bounds(&mut self) -> Vec<ConnectionBound<'_>> {
        // A polling client has two connections: its GET and its POST.
        let max = &mut self.connections_max;
        vec![ConnectionBound { key: "socketio.connections_max", max, files: 2, counted: 2 }]
    }
}
