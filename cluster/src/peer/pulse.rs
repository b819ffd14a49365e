//! Signs of life: the report that a node sends when another node probes it, and the time that the probe takes.

use std::collections::VecDeque;
use std::time::Duration;

use prost::Message;

/// The answer to a ping. A release that does not know it answers nothing, which reads as all defaults.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Pong {
    /// When this node leads: how long ago, in milliseconds, it last knew that a majority follows it.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) majority_millis: Option<u64>,
}

/// Round trips that are looked at together.
const ROUNDS: usize = 8;

/// A change of the speed of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Its round trip is longer than the heartbeat allows.
    Slow(Duration),
    /// The link has recovered.
    Well(Duration),
}

/// The round trips of one link.
#[derive(Debug, Default)]
pub(crate) struct RoundTrips {
    newest: VecDeque<Duration>,
    slow: bool,
}

impl RoundTrips {
    /// The median, once there were enough.
    pub(crate) fn median(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.newest.iter().copied().collect();
        sorted.sort_unstable();
        (sorted.len() == ROUNDS).then(|| sorted.get(ROUNDS / 2).copied()).flatten()
    }

    /// Adds a measurement. Reports once when the link becomes too slow for `limit`, and once when it recovers.
    pub(crate) fn note(&mut self, round_trip: Duration, limit: Duration) -> Option<Pace> {
        if self.newest.len() == ROUNDS {
            self.newest.pop_front();
        }
        self.newest.push_back(round_trip);
        let median = self.median()?;
        // A link at the limit must not be reported again and again.
        let well = limit.saturating_sub(limit / 5);
        if !self.slow && median > limit {
            self.slow = true;
            return Some(Pace::Slow(median));
        }
        if self.slow && median < well {
            self.slow = false;
            return Some(Pace::Well(median));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_slow_link_is_said_once_and_so_is_its_recovery() {
        let (mut trips, limit) = (RoundTrips::default(), ms(200));
        let mut said = |millis: &[u64]| -> Vec<Pace> {
            millis.iter().filter_map(|millis| trips.note(ms(*millis), limit)).collect()
        };
        assert_eq!(said(&[1, 900, 1, 1, 800, 1, 1, 1, 1, 1, 1, 1]), [], "single ones that are late");
        assert_eq!(said(&[250; 20]), [Pace::Slow(ms(250))]);
        assert_eq!(said(&[190, 210, 190, 210, 190, 210, 190, 210, 190, 210]), [], "about at the limit");
        assert_eq!(said(&[20; 20]), [Pace::Well(ms(20))]);
        assert_eq!(said(&[201; 20]), [Pace::Slow(ms(201))], "again");
    }

    #[test]
    fn the_release_before_says_nothing_of_a_majority() {
        assert_eq!(Pong::decode(&[][..]).unwrap(), Pong { majority_millis: None });
        let pong = Pong { majority_millis: Some(0) };
        assert_eq!(Pong::decode(&*pong.encode_to_vec()).unwrap(), pong);
    }
}
