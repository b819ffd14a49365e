//! Converts counts and durations to numbers, and measures the time of a run.

use std::time::{Duration, Instant};

/// A count as a float; exact up to 2^53.
pub(super) fn float(count: u64) -> f64 {
    let low = u32::try_from(count & 0xFFFF_FFFF).unwrap_or(u32::MAX);
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

/// A length or number of things as `u64`.
pub(super) fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Nanoseconds of a duration.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How many per second.
pub(super) fn per_second(n: u64, elapsed: Duration) -> f64 {
    float(n) / elapsed.as_secs_f64().max(1e-9)
}

/// The clock of a run. All timestamps have one origin, so that those of publishers and subscribers can be compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    /// Starts a clock at zero.
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start.
    pub(super) fn now(self) -> u64 {
        nanos(self.0.elapsed())
    }

    /// The instant of a timestamp.
    pub(super) fn instant(self, at: u64) -> Instant {
        self.0 + Duration::from_nanos(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_become_exact_floats() {
        for n in [0, 1, 4_294_967_295, 4_294_967_296, 1 << 53] {
            assert_eq!(format!("{:.0}", float(n)), n.to_string());
        }
    }
}
