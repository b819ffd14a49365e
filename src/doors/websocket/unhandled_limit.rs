//! Limits how often services are told of messages without a provider, so that a client which sends many of them does
//! not flood all services.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rollbook_cluster::lock::lock;

/// Most notifications of one destination in a second.
const OF_ONE: u32 = 10;
/// Most notifications of all destinations in a second.
const OF_ALL: u32 = 100;
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Period {
    /// When the present second began; `None` before the first message.
    since: Option<Instant>,
    /// Notices of each destination in this second.
    counts: HashMap<String, u32>,
    /// Notices of all destinations in this second.
    all: u32,
}

/// The counts of this node.
#[derive(Debug, Default)]
pub(super) struct UnhandledLimit {
    period: Mutex<Period>,
}

impl UnhandledLimit {
    /// Whether services are told of one more message to this destination.
    pub(super) fn permits(&self, destination: &str, now: Instant) -> bool {
        let mut period = lock(&self.period);
        if period.since.is_none_or(|since| now.saturating_duration_since(since) >= PERIOD) {
            *period = Period { since: Some(now), ..Period::default() };
        }
        if period.all >= OF_ALL {
            return false;
        }
        let count = period.counts.entry(destination.to_owned()).or_default();
        if *count >= OF_ONE {
            return false;
        }
        *count = count.saturating_add(1);
        period.all = period.all.saturating_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_second_of_each_and_a_hundred_of_all() {
        let (throttle, now) = (UnhandledLimit::default(), Instant::now());
        let told = |destination: &str, at: Instant| (0..20).filter(|_| throttle.permits(destination, at)).count();
        assert_eq!((told("a:x", now), told("b:x", now)), (10, 10));
        let many: usize = (0..50).map(|n| told(&format!("c{n}:x"), now)).sum();
        assert_eq!(many, 80);
        assert_eq!(told("a:x", now + PERIOD), 10, "a new second");
    }
}
