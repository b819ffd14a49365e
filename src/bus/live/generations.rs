//! Which routes still count: the changes of interest, counted apart for groups of first tokens.
//!
//! A subscription that comes or goes changes the routes of subjects that begin with its first token, and of all subjects
//! when that is a wildcard. Clients that subscribe to an inbox for each request would otherwise have every publisher
//! look up all of its routes anew. Invariant: a count never goes down, so equal counts mean that nothing has changed.

use std::sync::atomic::{AtomicU64, Ordering};

use super::filter::LiveFilter;

/// Groups of first tokens. Tokens that share one cost a look-up more, no more.
const GROUPS: usize = 256;

/// The counts.
#[derive(Debug)]
pub(super) struct Generations {
    /// Changes of filters whose first token is a wildcard.
    any: AtomicU64,
    /// Changes of other filters, by the group of their first token.
    groups: [AtomicU64; GROUPS],
}

impl Default for Generations {
    fn default() -> Self {
        Self { any: AtomicU64::new(1), groups: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Generations {
    /// The group of a first token.
    pub(super) fn group(first_token: &str) -> usize {
        // FNV-1a: tokens are short, and whoever makes them collide slows routes down that are as good as new.
        let hash =
            first_token.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        usize::try_from(hash).unwrap_or_default() % GROUPS
    }

    /// The count that a route of this group is made from, more than 0.
    pub(super) fn of(&self, group: usize) -> u64 {
        let own = self.groups.get(group).map_or(0, |count| count.load(Ordering::Acquire));
        // The sum of two counts that never go down is the same only while both are.
        self.any.load(Ordering::Acquire).wrapping_add(own)
    }

    /// The interest in this filter has changed. Called under the lock of the table.
    pub(super) fn changed(&self, filter: &LiveFilter) {
        let group = Self::group(filter.first_token());
        let count = self.groups.get(group).filter(|_| !filter.begins_with_wildcard());
        count.unwrap_or(&self.any).fetch_add(1, Ordering::Release);
    }

    /// The interest in anything may have changed. Called under the lock of the table.
    pub(super) fn all_changed(&self) {
        self.any.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_for_its_first_token_and_a_wildcard_for_all() {
        let generations = Generations::default();
        let counts = || ["orders", "users"].map(|token| generations.of(Generations::group(token)));
        let changed = |filter: &str| generations.changed(&LiveFilter::parse(filter.into()).unwrap());
        assert_eq!(counts(), [1, 1]);
        changed("orders.*");
        changed("orders");
        assert_eq!(counts(), [3, 1]);
        changed("*.eu");
        changed(">");
        generations.all_changed();
        assert_eq!(counts(), [6, 4]);
    }
}
