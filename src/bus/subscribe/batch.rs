//! A batch: the parameters of a stream that ends by itself.

use std::time::Duration;

use crate::bus::delivery::policy::IN_FLIGHT_MAX;
use crate::bus::error::Fault;

/// How long an answer waits for its first event, unless the client says so.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(1);
/// Longest wait for the first event.
pub const WAIT_MAX: Duration = Duration::from_secs(300);
/// Shortest wait: what is there now must have time to be found.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// How many events a stream has, and how long it waits for the first. The stream ends a moment after the last of those
/// that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Most events, 1 to [`IN_FLIGHT_MAX`].
    pub limit: u32,
    /// Wait for the first event.
    pub wait: Duration,
}

impl Batch {
    /// What the parameters `limit` and `wait` mean together; `None` when there is no limit.
    ///
    /// # Errors
    /// One of them is out of bounds, or there is a wait without a limit.
    pub fn named(limit: Option<u64>, wait: Option<Duration>) -> Result<Option<Self>, Fault> {
        let Some(limit) = limit else {
            return if wait.is_none() { Ok(None) } else { Err(Fault::bad("wait: only with limit")) };
        };
        let limit = u32::try_from(limit).ok().filter(|limit| (1..=IN_FLIGHT_MAX).contains(limit));
        let limit = limit.ok_or_else(|| Fault::bad(format!("limit: 1 to {IN_FLIGHT_MAX}")))?;
        let wait = wait.unwrap_or(WAIT_DEFAULT);
        if wait > WAIT_MAX {
            return Err(Fault::bad("wait: at most 5m"));
        }
        Ok(Some(Self { limit, wait: wait.max(WAIT_MIN) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_a_limit_and_a_wait_within_bounds() {
        let seconds = Duration::from_secs;
        assert_eq!(Batch::named(None, None).unwrap(), None);
        assert_eq!(Batch::named(Some(7), None).unwrap(), Some(Batch { limit: 7, wait: WAIT_DEFAULT }));
        assert_eq!(Batch::named(Some(1), Some(Duration::ZERO)).unwrap(), Some(Batch { limit: 1, wait: WAIT_MIN }));
        assert_eq!(Batch::named(Some(4096), Some(seconds(300))).unwrap().unwrap().wait, seconds(300));
        for (limit, wait) in [(None, Some(1)), (Some(0), None), (Some(4097), None), (Some(1), Some(301))] {
            assert!(Batch::named(limit, wait.map(seconds)).is_err(), "{limit:?} {wait:?}");
        }
    }
}
