//! How often an address may connect, over all listeners of a node. Checked before anything is read or computed for a
//! connection.
//!
//! An IPv4 address or an IPv6 network of 64 bits has one allowance, because that is what one machine usually has. This
//! machine itself has no bound. The table remembers an address until its allowance is whole again, which a few
//! connections are within milliseconds, so the table stays small.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::base::checks::Checks;

/// Addresses that the table remembers before it forgets those with a whole allowance.
const ADDRESSES_MAX: usize = 65_536;
/// Most connections per second that can be configured; one of them must last a nanosecond at least.
const RATE_MAX: u32 = 1_000_000;

/// `[listeners]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenersSettings {
    /// Connections per second of one address over a longer time; more are closed at once. 0 means no bound.
    pub connects_per_address: u32,
    /// Connections of one address at once, before `connects_per_address` counts.
    pub connects_burst: u32,
}

impl Default for ListenersSettings {
    fn default() -> Self {
        Self { connects_per_address: 200, connects_burst: 1000 }
    }
}

impl ListenersSettings {
    /// Finds what is wrong in the section although each value is valid.
    pub fn check(&self, checks: &mut Checks) {
        checks.require(
            self.connects_per_address <= RATE_MAX,
            "listeners.connects_per_address",
            format!("at most {RATE_MAX}; 0 means no bound"),
        );
        checks.require(self.connects_burst > 0, "listeners.connects_burst", "must be more than 0");
    }
}

/// The allowances of all addresses.
#[derive(Debug)]
pub struct Connects {
    /// Time that one connection takes from the allowance. `None`: no bound.
    interval: Option<Duration>,
    /// The whole allowance, in the same measure.
    allowance: Duration,
    /// When the allowance of an address is whole again.
    whole_at: Mutex<HashMap<(bool, u64), Instant>>,
}

impl Connects {
    /// Nobody has connected yet.
    #[must_use]
    pub fn new(settings: &ListenersSettings) -> Self {
        let interval = Duration::from_secs(1).checked_div(settings.connects_per_address);
        let allowance = interval.unwrap_or_default().saturating_mul(settings.connects_burst);
        Self { interval, allowance, whole_at: Mutex::default() }
    }

    /// Whether an address may connect once more. Counts the connection if so.
    pub(in crate::net) fn admit(&self, address: IpAddr, now: Instant) -> bool {
        let Some(interval) = self.interval else { return true };
        let address = address.to_canonical();
        if address.is_loopback() {
            return true;
        }
        let mut whole_at = self.whole_at.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(address);
        let after = whole_at.get(&key).map_or(now, |at| (*at).max(now)) + interval;
        if after.saturating_duration_since(now) > self.allowance {
            return false;
        }
        if whole_at.len() >= ADDRESSES_MAX && !whole_at.contains_key(&key) {
            whole_at.retain(|_, at| *at > now);
            if whole_at.len() >= ADDRESSES_MAX {
                // More addresses than can be remembered connect at once: the bound of the listener is what is left.
                return true;
            }
        }
        whole_at.insert(key, after);
        true
    }
}

/// What shares an allowance.
fn key(address: IpAddr) -> (bool, u64) {
    match address {
        IpAddr::V4(four) => (false, four.to_bits().into()),
        // The upper half is the network.
        IpAddr::V6(six) => (true, u64::try_from(six.to_bits() >> 64).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connects(connects_per_address: u32, connects_burst: u32) -> Connects {
        Connects::new(&ListenersSettings { connects_per_address, connects_burst })
    }

    fn admitted(connects: &Connects, address: &str, now: Instant, times: usize) -> usize {
        (0..times).filter(|_| connects.admit(address.parse().unwrap(), now)).count()
    }

    #[test]
    fn an_address_has_a_burst_and_then_a_rate() {
        let (connects, now) = (connects(10, 5), Instant::now());
        assert_eq!(admitted(&connects, "192.0.2.1", now, 20), 5);
        assert_eq!(admitted(&connects, "::ffff:192.0.2.1", now, 20), 0, "the same address over an IPv6 socket");
        assert_eq!(admitted(&connects, "192.0.2.2", now, 20), 5, "another address has its own");
        assert_eq!(admitted(&connects, "192.0.2.1", now + Duration::from_millis(250), 20), 2);
        assert_eq!(admitted(&connects, "192.0.2.1", now + Duration::from_secs(60), 20), 5, "no more than the burst");
    }

    #[test]
    fn a_network_of_64_bits_counts_as_one_address_and_loopback_not_at_all() {
        let (connects, now) = (connects(10, 5), Instant::now());
        assert_eq!(admitted(&connects, "2001:db8::1", now, 3), 3);
        assert_eq!(admitted(&connects, "2001:db8::ffff:1", now, 20), 2);
        assert_eq!(admitted(&connects, "2001:db8:0:1::1", now, 20), 5);
        assert_eq!(admitted(&connects, "127.0.0.1", now, 50) + admitted(&connects, "::1", now, 50), 100);
        assert_eq!(admitted(&self::connects(0, 1), "192.0.2.1", now, 50), 50, "0 is no bound");
    }

    #[test]
    fn the_table_forgets_whoever_may_connect_again() {
        let (connects, now) = (connects(200, 1000), Instant::now());
        for number in 0..200_000_u32 {
            let later = now + Duration::from_micros(u64::from(number) * 10);
            assert!(connects.admit(IpAddr::V4(number.to_be().into()), later));
        }
        assert!(connects.whole_at.lock().unwrap().len() <= ADDRESSES_MAX);
    }
}
