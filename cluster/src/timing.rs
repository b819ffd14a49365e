//! Every time that follows from the one setting `cluster.heartbeat`.

use std::time::Duration;

/// Default interval of the heartbeats of a leader.
pub const HEARTBEAT: Duration = Duration::from_millis(100);
/// The shortest heartbeat: below it, a scheduler that is late once would cost the leader.
pub const HEARTBEAT_MIN: Duration = Duration::from_millis(20);
/// The longest heartbeat: with it, an election begins after 15 to 20 s.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(1);
/// A node that is silent for fewer heartbeats may only be late.
pub const NODE_TIMEOUT_HEARTBEATS: u32 = 10;

/// A peer that takes nothing of what comes in bulk for this long is cut off. Its disk may stand still for a while.
const STALL_MAX: Duration = Duration::from_secs(10);

/// The times of a node, all multiples of the heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    heartbeat: Duration,
}

impl Timing {
    pub(crate) fn new(heartbeat: Duration) -> Self {
        Self { heartbeat: heartbeat.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX) }
    }

    const fn times(self, count: u32) -> Duration {
        self.heartbeat.saturating_mul(count)
    }

    /// Between two heartbeats, and between two attempts at a peer that cannot be reached.
    pub(crate) const fn heartbeat(self) -> Duration {
        self.heartbeat
    }

    /// Time for the answer to a heartbeat. More than the interval: on a slow link the answer to one heartbeat
    /// comes when the next one would be due, and an answer that is not waited for renews nothing.
    pub(crate) const fn answer(self) -> Duration {
        self.times(3)
    }

    /// The largest round trip at which answers come in time, with room for an fsync.
    pub(crate) const fn round_trip_max(self) -> Duration {
        self.times(2)
    }

    /// The heartbeat that a round trip needs, in whole tens of milliseconds.
    pub(crate) fn needed(round_trip: Duration) -> Duration {
        let tens = round_trip.as_millis().div_ceil(20).max(1);
        Duration::from_millis(u64::try_from(tens).unwrap_or(u64::MAX).saturating_mul(10))
    }

    /// A follower campaigns after the lease, which is [`Timing::election_max`], and a random time between both.
    pub(crate) const fn election_min(self) -> Duration {
        self.times(5)
    }

    pub(crate) const fn election_max(self) -> Duration {
        self.times(10)
    }

    /// Time for a vote: two fsyncs, on a busy disk.
    pub(crate) const fn vote(self) -> Duration {
        self.times(5)
    }

    /// A leader that was not heard for this long is not taken to be there.
    pub(crate) const fn silence(self) -> Duration {
        self.times(25)
    }

    /// A leader whose majority did not answer for this long does not lead any more.
    pub(crate) const fn quorum(self) -> Duration {
        self.times(25)
    }

    /// How long a write waits for a majority, counted from when there was one: a disk that stands still for some
    /// seconds, or a few elections that fail, must not refuse what would be stored.
    pub(crate) const fn leaderless(self) -> Duration {
        self.times(40)
    }

    /// A stream of appends that gets no answer for this long has stopped.
    pub(crate) const fn stream(self) -> Duration {
        self.times(50)
    }

    /// Between two signs of life on a connection.
    pub(crate) const fn ping(self) -> Duration {
        self.times(2)
    }

    /// Time for the answer to a sign of life.
    pub(crate) const fn ping_max(self) -> Duration {
        self.times(15)
    }

    /// Time for a TCP connection: one round trip. Short, as a lost SYN is sent again only after a second.
    pub(crate) const fn connect(self) -> Duration {
        self.times(10)
    }

    /// Time for a whole dial: TCP, TLS and hello are four round trips.
    pub(crate) const fn dial(self) -> Duration {
        self.times(30)
    }

    /// How long a leader whose connection ended is asked whether it lives.
    pub(crate) const fn probe(self) -> Duration {
        self.times(40)
    }

    /// How long the kernel of a peer may leave bytes unacknowledged before the connection ends.
    pub(crate) const fn unacknowledged(self) -> Duration {
        self.times(25)
    }

    /// The same for a connection on which a receiver may take nothing for a while, as its disk stands still. When the
    /// host is gone, such a connection ends together with the control connection.
    pub(crate) fn unacknowledged_bulk(self) -> Duration {
        self.unacknowledged().max(STALL_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_fit_each_other_with_every_heartbeat_that_can_be_set() {
        for heartbeat in [HEARTBEAT_MIN, HEARTBEAT, HEARTBEAT_MAX] {
            let timing = Timing::new(heartbeat);
            assert!(timing.round_trip_max() < timing.answer() && timing.answer() < timing.election_min());
            assert!(timing.election_min() < timing.election_max());
            // An election must not look like the loss of the majority.
            assert!(timing.election_max() * 2 < timing.quorum() && timing.quorum() < timing.leaderless());
            assert!(timing.ping() + timing.round_trip_max() < timing.quorum());
            assert!(timing.connect() < timing.dial());
            assert!(timing.unacknowledged() <= timing.unacknowledged_bulk());
            assert!(timing.needed_fits());
        }
        assert_eq!((Timing::new(Duration::ZERO), Timing::new(Duration::MAX)), {
            (Timing::new(HEARTBEAT_MIN), Timing::new(HEARTBEAT_MAX))
        });
    }

    impl Timing {
        fn needed_fits(self) -> bool {
            [1, 99, 100, 251, 900].into_iter().map(Duration::from_millis).all(|round_trip| {
                let needed = Self::needed(round_trip);
                needed > HEARTBEAT_MAX || needed < HEARTBEAT_MIN || Self::new(needed).round_trip_max() >= round_trip
            })
        }
    }

    #[test]
    fn the_default_is_what_it_always_was() {
        let timing = Timing::new(HEARTBEAT);
        let millis = |time: Duration| time.as_millis();
        assert_eq!(millis(timing.heartbeat()), 100);
        assert_eq!((millis(timing.election_min()), millis(timing.election_max())), (500, 1000));
    }
}
