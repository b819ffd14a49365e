//! The section `[gateway]` of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::checks::Checks;
use crate::base::{bytes, duration};
use crate::doors::door::{ConnectionBound, DoorSettings};

/// Name of the door.
pub(super) const NAME: &str = "gateway";
/// Largest body that can be configured, in bytes.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// `[gateway]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Largest request body in bytes; more is answered 413.
    #[serde(with = "bytes")]
    pub body_bytes_max: usize,
    /// Longest time a request body may take to arrive.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// Longest time that a program may wait for a job in one request.
    #[serde(with = "duration")]
    pub wait_max: Duration,
    /// Most bytes of the items of a job. A job with more ends in error.
    #[serde(with = "bytes")]
    pub job_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_bytes_max: 8 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            wait_max: Duration::from_secs(60),
            job_bytes_max: 16 * 1024 * 1024,
        }
    }
}

impl DoorSettings for Settings {
    fn check(&self, checks: &mut Checks) {
        checks.require(
            (1..=BODY_BYTES_MAX).contains(&self.body_bytes_max),
            "gateway.body_bytes_max",
            format!("1 to {BODY_BYTES_MAX}: an envelope must fit into one message between nodes"),
        );
        checks.require(!self.body_timeout.is_zero(), "gateway.body_timeout", "must be more than 0s");
        checks.require(!self.wait_max.is_zero(), "gateway.wait_max", "must be more than 0s");
        checks.require(self.job_bytes_max > 0, "gateway.job_bytes_max", "must be more than 0");
    }

    fn message_bytes_max(&self) -> (&'static str, usize) {
        ("gateway.body_bytes_max", self.body_bytes_max)
    }

    fn connection_bounds(&mut self) -> Vec<ConnectionBound<'_>> {
        // The web listener counts the connections.
        Vec::new()
    }
}
