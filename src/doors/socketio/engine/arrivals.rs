//! Bounds the sessions that have completed the handshake and have joined no namespace.
//!
//! A handshake costs a client one request, so a client could begin many sessions at no cost. These sessions have a
//! bound of their own, and each address has a share of that bound, so that clients which join a namespace always find
//! room.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use rollbook_cluster::lock::lock;

/// One session in so many of a node may be arriving.
const PART: usize = 10;
/// One arriving session in so many may come from one address.
const ADDRESS_PART: usize = 2;
/// The least number of arriving sessions that any bound allows.
const ALWAYS: usize = 16;

#[derive(Debug, Default)]
struct Counts {
    /// All arriving sessions.
    all: usize,
    /// The arriving sessions of each address block.
    by: HashMap<Option<IpAddr>, usize>,
}

/// Counts the sessions that are arriving. Clones share the counts.
#[derive(Debug, Clone)]
pub(in crate::doors::socketio) struct Arrivals {
    counts: Arc<Mutex<Counts>>,
    /// Most arriving sessions.
    max: usize,
    /// Most arriving sessions of one address block.
    address_max: usize,
}

/// One arriving session. The session stops to count when this value is dropped.
#[derive(Debug)]
pub(in crate::doors::socketio) struct Arrival {
    arrivals: Arrivals,
    address: Option<IpAddr>,
}

/// The part of an address that the bound counts. A client with one IPv6 address has the 2^64 addresses of its block,
/// so the whole block counts as one address.
fn block(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => four.into(),
            None => Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)).into(),
        },
    }
}

impl Arrivals {
    /// Creates the counts for a node that accepts so many sessions.
    pub(in crate::doors::socketio) fn new(sessions_max: usize) -> Self {
        let max = (sessions_max / PART).max(ALWAYS);
        Self { counts: Arc::default(), max, address_max: (max / ADDRESS_PART).max(ALWAYS) }
    }

    /// Counts one more arriving session. `None` means that a bound is reached.
    pub(in crate::doors::socketio) fn one(&self, address: Option<IpAddr>) -> Option<Arrival> {
        let address = address.map(block);
        let mut counts = lock(&self.counts);
        let of_address = counts.by.get(&address).copied().unwrap_or(0);
        if counts.all >= self.max || of_address >= self.address_max {
            return None;
        }
        counts.all = counts.all.saturating_add(1);
        counts.by.insert(address, of_address.saturating_add(1));
        drop(counts);
        Some(Arrival { arrivals: self.clone(), address })
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut counts = lock(&self.arrivals.counts);
        counts.all = counts.all.saturating_sub(1);
        if let Some(count) = counts.by.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.by.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    fn taken(arrivals: &Arrivals, address: Option<IpAddr>) -> Vec<Arrival> {
        std::iter::from_fn(|| arrivals.one(address)).take(10_000).collect()
    }

    #[test]
    fn one_address_has_half_of_a_tenth_and_all_have_a_tenth() {
        let arrivals = Arrivals::new(1000);
        let one = taken(&arrivals, four(1));
        assert_eq!(one.len(), 50);
        let two = taken(&arrivals, four(2));
        assert_eq!((two.len(), taken(&arrivals, four(3)).len()), (50, 0));
        drop(one);
        assert_eq!(taken(&arrivals, four(3)).len(), 50, "those who have joined make room");
        drop(two);
        assert!(lock(&arrivals.counts).by.is_empty());
    }

    #[test]
    fn a_small_door_lets_clients_arrive_all_the_same() {
        assert_eq!(taken(&Arrivals::new(1), four(1)).len(), 16);
    }

    #[test]
    fn addresses_of_one_block_of_ipv6_are_one_and_mapped_ones_are_those_of_ipv4() {
        let arrivals = Arrivals::new(1000);
        let six = |text: &str| Some(text.parse().expect("an address"));
        let kept = taken(&arrivals, six("2001:db8::1"));
        assert_eq!((kept.len(), taken(&arrivals, six("2001:db8::ffff:1")).len()), (50, 0));
        drop(taken(&arrivals, six("2001:db8:0:1::1")));
        let mapped = taken(&arrivals, six("::ffff:10.0.0.1"));
        assert_eq!((mapped.len(), taken(&arrivals, four(1)).len()), (50, 0));
    }
}
