//! The pauses between attempts to connect. Pure.

use std::time::Duration;

use super::super::config::Timing;
use super::super::jitter::spread;

/// Pauses that double from one failure to the next.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(timing: &Timing) -> Self {
        Self { first: timing.reconnect_first, max: timing.reconnect_max, failures: 0 }
    }

    /// The pause after one more failure: between half of the bound and the whole of the bound, by `random`, so that the
    /// docks of a node that ended do not come to the next node at the same moment.
    pub(super) fn next(&mut self, random: u8) -> Duration {
        let bound = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        spread(bound, 0.5, 1.0, random)
    }

    /// A connection worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(&Timing::default());
        let pauses: Vec<u128> = (0..8).map(|_| backoff.next(u8::MAX).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 15000, 15000]);
        assert_eq!(backoff.next(0).as_millis(), 7500);
        backoff.reset();
        assert_eq!(backoff.next(u8::MAX).as_millis(), 250);
    }
}
