//! The section `[websocket]` of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::checks::Checks;
use crate::base::comma_list::CommaList;
use crate::base::{bytes, duration};
use crate::doors::door::{ConnectionBound, DoorSettings, check_socket_bounds};

/// Name of the door.
pub(super) const NAME: &str = "websocket";

/// `[websocket]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Silence after which the door sends a ping.
    #[serde(with = "duration")]
    pub ping_interval: Duration,
    /// Silence after which the client counts as disconnected.
    #[serde(with = "duration")]
    pub silence_max: Duration,
    /// Longest time from the upgrade until a client registers.
    #[serde(with = "duration")]
    pub register_timeout: Duration,
    /// How long a draining client may take to finish its messages.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// Largest message in bytes; a client that sends more is disconnected.
    #[serde(with = "bytes")]
    pub message_bytes_max: usize,
    /// Most bytes that wait for a client, without the events of its streams. A client that does not read is
    /// disconnected.
    #[serde(with = "bytes")]
    pub queue_bytes_max: usize,
    /// Most messages of one client without an outcome.
    pub in_flight_max: usize,
    /// Most clients at a time.
    pub connections_max: usize,
    /// Origins of web pages that may connect beside the door's own, separated by commas; `*` means any.
    pub origins: CommaList,
}

impl Default for Settings {
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
            origins: CommaList::default(),
        }
    }
}

impl DoorSettings for Settings {
    fn check(&self, checks: &mut Checks) {
        checks.require(!self.ping_interval.is_zero(), "websocket.ping_interval", "must be more than 0s");
        checks.require(!self.register_timeout.is_zero(), "websocket.register_timeout", "must be more than 0s");
        let bounds = [
            ("websocket.message_bytes_max", self.message_bytes_max),
            ("websocket.queue_bytes_max", self.queue_bytes_max),
            ("websocket.connections_max", self.connections_max),
        ];
        check_socket_bounds(checks, bounds);
        checks.require(
            self.silence_max > self.ping_interval,
            "websocket.silence_max",
            "must be more than websocket.ping_interval",
        );
        checks.require(self.in_flight_max > 0, "websocket.in_flight_max", "must be more than 0");
    }

    fn message_bytes_max(&self) -> (&'static str, usize) {
        ("websocket.message_bytes_max", self.message_bytes_max)
    }

    fn connection_bounds(&mut self) -> Vec<ConnectionBound<'_>> {
        let max = &mut self.connections_max;
        vec![ConnectionBound { key: "websocket.connections_max", max, files: 1, counted: 0 }]
    }
}
