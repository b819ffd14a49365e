//! State of clients whose connection broke, kept for a while so that they find it again when they come back, at
//! whatever node. Off unless a time is set.
//!
//! Kept is what the client was, not what it was sent: that is in the book, on every node.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use prost::Message;
use rollbook_cluster::lock::lock;
use rollbook_cluster::node::state_reader::StateReader;

use super::session_state::{Kept, Word};
use crate::base::clock;
use crate::bus::relay::peer_client::PeerClient;
use crate::doors::socketio::settings::NAME;

/// How long another node may take to look.
const ASK_MAX: Duration = Duration::from_secs(1);
/// Length of the name of a state.
const PID_BYTES: usize = 22;

#[derive(Debug, Default)]
struct Store {
    /// By pid, and until when.
    kept: HashMap<String, (Instant, Kept)>,
    /// All of them in the order in which they end, and some that were taken.
    ends: VecDeque<(Instant, String)>,
}

impl Store {
    fn put(&mut self, kept: Kept, end: Instant) {
        self.ends.push_back((end, kept.pid.clone()));
        self.kept.insert(kept.pid.clone(), (end, kept));
    }

    fn take(&mut self, pid: &str, now: Instant) -> Option<Kept> {
        let (end, kept) = self.kept.remove(pid)?;
        (now < end).then_some(kept)
    }

    /// Forgets those that have ended, and the oldest if there are more than so many.
    fn forget(&mut self, now: Instant, count_max: usize) {
        while self.ends.front().is_some_and(|(end, _)| *end <= now || self.ends.len() > count_max) {
            let Some((end, pid)) = self.ends.pop_front() else { return };
            if self.kept.get(&pid).is_some_and(|(of, _)| *of == end) {
                self.kept.remove(&pid);
            }
        }
    }
}

/// The states of one node, and the way to those of the others.
#[derive(Debug)]
pub(in crate::doors::socketio) struct Recovery {
    state: StateReader,
    peers: PeerClient,
    /// How long a state is kept; zero when none is.
    time: Duration,
    /// Most that are kept.
    count_max: usize,
    store: Mutex<Store>,
    leaving: AtomicBool,
}

impl Recovery {
    pub(in crate::doors::socketio) fn new(
        state: StateReader,
        peers: PeerClient,
        time: Duration,
        count_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self { state, peers, time, count_max, store: Mutex::default(), leaving: AtomicBool::new(false) })
    }

    /// Whether anything is kept at all.
    pub(in crate::doors::socketio) const fn is_on(&self) -> bool {
        !self.time.is_zero()
    }

    /// A new name for the state of a client.
    pub(in crate::doors::socketio) fn pid() -> String {
        URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().into_bytes())
    }

    /// Keeps the state of a client that is gone.
    pub(in crate::doors::socketio) fn keep(&self, kept: Kept) {
        if !self.is_on() {
            return;
        }
        if self.leaving.load(Ordering::Relaxed) {
            return self.hand_over(kept);
        }
        let (now, mut store) = (clock::now(), lock(&self.store));
        store.put(kept, now + self.time);
        store.forget(now, self.count_max);
    }

    fn hand_over(&self, kept: Kept) {
        if let Some(to) = heir(&kept.pid, &self.state.others_up()) {
            self.peers.tell_door(to, NAME, Word::Keep(Box::new(kept)).into_bytes());
        }
    }

    /// The node is about to stop: from now on the others keep what this one would.
    pub(in crate::doors::socketio) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        let kept = std::mem::take(&mut *lock(&self.store)).kept;
        kept.into_values().for_each(|(_, kept)| self.hand_over(kept));
    }

    /// Takes a state that is kept here: it is found once.
    fn take_here(&self, pid: &str) -> Option<Kept> {
        lock(&self.store).take(pid, clock::now())
    }

    /// Takes a state, whichever node keeps it.
    pub(in crate::doors::socketio) async fn take(&self, pid: &str) -> Option<Kept> {
        if pid.len() != PID_BYTES {
            return None;
        }
        if let Some(kept) = self.take_here(pid) {
            return Some(kept);
        }
        let ask = |node| {
            let word = Word::Restore(pid.to_owned()).into_bytes();
            async move { self.peers.ask_door(node, NAME, word, ASK_MAX).await }
        };
        let mut answers: FuturesUnordered<_> = self.state.others_up().into_iter().map(ask).collect();
        while let Some(answer) = answers.next().await {
            let kept = answer.ok().filter(|bytes| !bytes.is_empty()).and_then(|bytes| Kept::decode(bytes).ok());
            if kept.is_some() {
                return kept;
            }
        }
        None
    }

    /// Takes a state for another node; empty when there is none.
    pub(in crate::doors::socketio) fn answer(&self, pid: &str) -> Bytes {
        self.take_here(pid).map(|kept| kept.encode_to_vec().into()).unwrap_or_default()
    }
}

/// The node that keeps a state from now on: names are random, so each of them keeps about as many.
fn heir(pid: &str, others: &[u64]) -> Option<u64> {
    let sum = pid.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    others.get(sum.checked_rem(others.len())?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::client::announcement::AnnouncedUpTo;

    #[test]
    fn a_node_that_stops_leaves_its_states_to_all_others() {
        assert_eq!(heir(&Recovery::pid(), &[]), None);
        let mut kept = [0; 3];
        for _ in 0..3000 {
            let to = heir(&Recovery::pid(), &[2, 3, 4]).and_then(|to| usize::try_from(to).ok());
            kept[to.expect("one of them") - 2] += 1;
        }
        assert!(kept.iter().all(|kept| (800..1200).contains(kept)), "{kept:?}");
    }

    fn kept(pid: &str, floor: u64) -> Kept {
        Kept::new(pid, "sid", None, AnnouncedUpTo { roll: floor, notify: 0 })
    }

    #[test]
    fn a_state_is_found_once_until_its_time_is_over() {
        let (mut store, now) = (Store::default(), clock::now());
        let end = now + Duration::from_secs(1);
        store.put(kept("a", 1), end);
        assert_eq!(store.take("b", now), None);
        assert_eq!(store.take("a", now), Some(kept("a", 1)));
        assert_eq!(store.take("a", now), None);
        store.put(kept("a", 2), end);
        assert_eq!(store.take("a", end), None);
    }

    #[test]
    fn a_client_that_breaks_again_is_kept_as_long_as_all_are() {
        let (mut store, now) = (Store::default(), clock::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        store.put(kept("a", 1), at(10));
        store.take("a", at(5));
        store.put(kept("a", 2), at(15));
        store.forget(at(12), 10);
        assert_eq!(store.take("a", at(12)), Some(kept("a", 2)));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let (mut store, now) = (Store::default(), clock::now());
        for n in 0..5 {
            store.put(kept(&n.to_string(), n), now + Duration::from_secs(10 + n));
            store.forget(now, 3);
        }
        let there: Vec<bool> = (0..5).map(|n: u64| store.take(&n.to_string(), now).is_some()).collect();
        assert_eq!(there, [false, false, true, true, true]);
        store.forget(now + Duration::from_secs(20), 3);
        assert!(store.kept.is_empty() && store.ends.is_empty());
    }
}
