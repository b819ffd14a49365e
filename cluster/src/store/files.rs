//! Open files: how many the system allows this process, and how they are shared out.
//!
//! A store that cannot open a file stops the node, so its files are not left to chance: each store keeps a bounded
//! number of them open, and the doors leave the [`reserved`] number to the stores.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Fewest and most files that one store keeps open.
const STORE_MIN: u64 = 20;
const STORE_MAX: u64 = 512;
/// Stores that can be open at the same time: the raft log, and state and ledger while those of a snapshot take their
/// place.
const STORES: u64 = 5;
/// Fewest and most connections of other nodes.
const PEERS_MIN: u64 = 16;
const PEERS_MAX: u64 = 1024;
/// Everything else: logs, locks and directories of the stores, listeners, files that are copied or replaced; and the
/// event queues of the threads of each core.
const OTHERS: u64 = 96;
const OTHERS_PER_CORE: u64 = 6;
/// The number of files without which not even a node with few events and no clients runs.
const FEWEST: u64 = 112;
/// The part of the limit that one store, or the other nodes, may have.
const PART: u64 = 16;

/// How many files this process may have open now.
#[must_use]
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises that number as far as the system lets this process. Returns what holds from now on.
pub fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // If the system refuses, the present limit stays.
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).ok();
    }
    limit()
}

/// How many of so many files are not for clients.
#[must_use]
pub fn reserved(limit: u64) -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| u64::try_from(cores.get()).unwrap_or(1));
    reserved_on(limit, cores)
}

fn reserved_on(limit: u64, cores: u64) -> u64 {
    let others = OTHERS.saturating_add(OTHERS_PER_CORE.saturating_mul(cores));
    let share = (STORES * of_store(limit) + of_peers(limit)).saturating_add(others);
    // Of a limit this low clients get a little all the same; a node without any would be of no use.
    share.min(limit / 4 * 3).max(FEWEST.min(limit))
}

fn of_store(limit: u64) -> u64 {
    (limit / PART).clamp(STORE_MIN, STORE_MAX)
}

fn of_peers(limit: u64) -> u64 {
    (limit / PART).clamp(PEERS_MIN, PEERS_MAX)
}

/// Most files that a store keeps open.
pub(crate) fn store_max() -> i32 {
    i32::try_from(of_store(limit())).unwrap_or(i32::MAX)
}

/// Most connections of other nodes.
pub(crate) fn peers_max() -> usize {
    usize::try_from(of_peers(limit())).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stores_have_their_share_and_clients_the_rest() {
        for limit in [1 << 20, u64::MAX] {
            assert_eq!(reserved_on(limit, 2), 5 * 512 + 1024 + 96 + 12);
        }
        assert_eq!(reserved_on(1024, 2), 5 * 64 + 64 + 96 + 12);
        assert_eq!(reserved_on(1024, 64), 768, "three quarters at most");
        assert_eq!([0, 64, 128, 256].map(|limit| reserved_on(limit, 2)), [0, 64, 112, 192]);
        assert!(reserved(1024) >= 5 * 64 + 64 + 96);
    }
}
