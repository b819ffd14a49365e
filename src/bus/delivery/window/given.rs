//! An event on its way to a member.

use std::sync::Arc;
use std::time::Duration;

use rollbook_core::time::Timestamp;

use crate::bus::read::redelivery::{Reason, Redelivery};
use crate::bus::read::stored_event::StoredEvent;

/// An event that a member is given.
#[derive(Debug, Clone)]
pub struct Given {
    /// The event.
    item: Arc<StoredEvent>,
    /// What is known of the deliveries before; `None` for the first one.
    again: Option<Again>,
}

/// What is known of the deliveries of an event before this one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Again {
    /// How many there were.
    pub(super) deliveries: u32,
    /// How long ago the first one was; `None` when an earlier start of the consumer made it.
    pub(super) first: Option<Duration>,
    /// Why the last one failed, if this start of the consumer knows.
    pub(super) reason: Option<Reason>,
}

impl Given {
    pub(super) const fn new(item: Arc<StoredEvent>, again: Option<Again>) -> Self {
        Self { item, again }
    }

    /// The position of the event.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.item.sequence()
    }

    /// The event as a client gets it at this time: one that was delivered before says so.
    #[must_use]
    pub fn into_item(self, at: Timestamp) -> Arc<StoredEvent> {
        let Some(Again { deliveries, first, reason }) = self.again else { return self.item };
        let first_at = first.map(|ago| before(at, ago));
        Arc::new(self.item.redelivered(Redelivery { count: deliveries.saturating_add(1), first_at, reason }))
    }
}

/// The time so long before another.
fn before(at: Timestamp, ago: Duration) -> Timestamp {
    const SECOND: u32 = 1_000_000_000;
    let seconds = at.seconds.saturating_sub(i64::try_from(ago.as_secs()).unwrap_or(i64::MAX));
    match at.nanos.checked_sub(ago.subsec_nanos()) {
        Some(nanos) => Timestamp { seconds, nanos },
        None => Timestamp {
            seconds: seconds.saturating_sub(1),
            nanos: at.nanos.saturating_add(SECOND).saturating_sub(ago.subsec_nanos()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_another_borrows_from_its_seconds() {
        let at = Timestamp { seconds: 10, nanos: 5 };
        assert_eq!(before(at, Duration::new(3, 5)), Timestamp { seconds: 7, nanos: 0 });
        assert_eq!(before(at, Duration::new(3, 6)), Timestamp { seconds: 6, nanos: 999_999_999 });
    }
}
