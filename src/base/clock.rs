//! The only place of the bus that asks for the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rollbook_core::time::Timestamp;

/// Now, for measuring.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Now, as it is stored with an event.
#[must_use]
pub fn timestamp() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}

/// Now, in milliseconds since 1970, as programs in JavaScript count.
#[must_use]
pub fn millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
