//! How a member gets events: how many at a time, when again, and how often.

use std::sync::Arc;
use std::time::Duration;

use rollbook_core::subjects::subject::Subject;

/// Shortest redelivery wait that a client may choose.
pub const REDELIVERY_MIN: Duration = Duration::from_millis(100);
/// Most events in flight that a member may choose.
pub const IN_FLIGHT_MAX: u32 = 4096;
/// Events in flight of a member whose door lets clients acknowledge many at a time, unless the client chooses.
pub const IN_FLIGHT_DEFAULT: u32 = 256;
/// Most bytes of the records in flight to one member, beyond which a single event may reach.
pub const IN_FLIGHT_BYTES_MAX: usize = 1 << 20;
/// Most steps of a back-off.
pub const BACKOFF_MAX: usize = 16;

/// The policy that a member chooses when it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// Wait for an acknowledgement before the event is delivered again; at least [`REDELIVERY_MIN`] when the client
    /// acknowledges.
    pub redelivery: Duration,
    /// The waits of the first, second and further deliveries in place of `redelivery`; the last one counts for all behind
    /// it. Empty: there are none.
    pub backoff: Arc<[Duration]>,
    /// Most deliveries of one event; 0 means no bound.
    pub count_max: u32,
    /// Most events that the member has at a time; 1 to [`IN_FLIGHT_MAX`].
    pub in_flight_max: u32,
    /// Most deliveries to the member in all, after which the member gets nothing any more; `None`: as many as there are.
    pub quota: Option<u32>,
    /// The subject of dead letters in place of `_dead_.` and the subject of the event.
    pub dead_letter: Option<Subject>,
}

impl Default for DeliveryPolicy {
    /// The policy of members that do not choose one: 5 seconds, 3 deliveries, one event at a time.
    fn default() -> Self {
        Self {
            redelivery: Duration::from_secs(5),
            backoff: Arc::default(),
            count_max: 3,
            in_flight_max: 1,
            quota: None,
            dead_letter: None,
        }
    }
}

impl DeliveryPolicy {
    /// The wait for an acknowledgement of the delivery of this number, counted from 1.
    #[must_use]
    pub fn wait(&self, delivery: u32) -> Duration {
        let step = usize::try_from(delivery.saturating_sub(1)).unwrap_or(usize::MAX);
        self.backoff.get(step).or(self.backoff.last()).copied().unwrap_or(self.redelivery)
    }

    /// The longest wait for an acknowledgement.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        self.backoff.iter().copied().max().unwrap_or(self.redelivery)
    }

    /// Whether an event with this many deliveries has had its last one.
    #[must_use]
    pub const fn gives_up(&self, deliveries: u32) -> bool {
        self.count_max != 0 && deliveries >= self.count_max
    }

    /// Whether an event with this many deliveries is delivered alone: it has failed before, and this would be its last
    /// delivery. When members die of an event, the others that they had then must not be given up with it.
    #[must_use]
    pub const fn is_alone(&self, deliveries: u32) -> bool {
        deliveries > 0 && self.gives_up(deliveries.saturating_add(1))
    }

    /// How many events the member may have at a time.
    #[must_use]
    pub fn room(&self) -> usize {
        usize::try_from(self.in_flight_max.clamp(1, IN_FLIGHT_MAX)).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_of_a_backoff_count_in_their_order_and_the_last_one_for_the_rest() {
        let seconds = Duration::from_secs;
        let plain = DeliveryPolicy::default();
        assert_eq!([plain.wait(1), plain.wait(9)], [seconds(5); 2]);
        let policy = DeliveryPolicy { backoff: [seconds(1), seconds(10), seconds(60)].into(), ..plain };
        assert_eq!([1, 2, 3, 4, 99].map(|delivery| policy.wait(delivery)), [1, 10, 60, 60, 60].map(seconds));
    }

    #[test]
    fn only_a_last_delivery_after_failures_is_alone() {
        let policy = |count_max| DeliveryPolicy { count_max, ..DeliveryPolicy::default() };
        assert_eq!([0, 1, 2, 3].map(|deliveries| policy(3).is_alone(deliveries)), [false, false, true, true]);
        assert!(!policy(1).is_alone(0) && !policy(0).is_alone(99));
    }
}
