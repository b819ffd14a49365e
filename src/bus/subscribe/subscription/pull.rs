//! How far a batch is: what its answer still takes, and what its client has still to acknowledge. Pure but for the clock.

use std::time::{Duration, Instant};

use crate::base::actors::Hold;
use crate::base::clock;
use crate::bus::subscribe::batch::{Batch, WAIT_DEFAULT};

/// How long a batch waits for more behind the newest events.
const GATHER: Duration = Duration::from_millis(25);
/// How long a member stays behind the end of the last wait for an acknowledgement.
const REST: Duration = Duration::from_secs(1);

/// How far a batch is.
#[derive(Debug)]
pub(super) struct Pull {
    /// How many more events the answer takes.
    pub(super) left: u32,
    /// How many events were written.
    pub(super) written: u32,
    /// How many of them the client has acknowledged, or given back.
    pub(super) concluded: u32,
    /// How long the answer waits for its first event.
    pub(super) wait: Duration,
    /// When the first and the newest events were written.
    pub(super) wrote: Option<(Instant, Instant)>,
    /// Whether the answer has ended.
    pub(super) over: bool,
    /// How long the member stays without a word of its client; `None` when clients do not acknowledge.
    pub(super) lease: Option<Duration>,
    /// When the client was heard of last.
    pub(super) heard: Instant,
    /// The actor keeps itself from the end of its answer on.
    pub(super) hold: Option<Hold>,
}

impl Pull {
    /// A batch whose deliveries wait so long for an acknowledgement at most.
    pub(super) fn new(batch: Batch, longest_wait: Option<Duration>) -> Self {
        Self {
            left: batch.limit,
            written: 0,
            concluded: 0,
            wait: batch.wait,
            wrote: None,
            over: false,
            lease: longest_wait.map(|wait| wait.saturating_add(REST)),
            heard: clock::now(),
            hold: None,
        }
    }

    /// How many more events the answer takes.
    pub(super) fn left(&self) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX)
    }

    /// Whether the answer has ended.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// How long to wait for more events behind those that came; `None`: the answer is complete.
    pub(super) fn gathers(&self, now: Instant) -> Option<Duration> {
        let (first, newest) = self.wrote?;
        let since = |at| now.saturating_duration_since(at);
        let left = GATHER.checked_sub(since(newest))?.min(self.wait.max(WAIT_DEFAULT).checked_sub(since(first))?);
        Some(left).filter(|left| !left.is_zero())
    }

    /// Whether nothing is left to acknowledge.
    pub(super) fn is_concluded(&self) -> bool {
        self.concluded >= self.written
    }
}
