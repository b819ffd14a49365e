//! Saves the state of clients whose connection broke, so that a client can recover it at any node. Off unless
//! `socketio.max_disconnection` is set.
//!
//! The state is what the client was, and not the events that it got: those are in the book, on every node.

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

use super::session_state::{PeerMessage, SessionState};
use crate::base::clock;
use crate::bus::relay::peer_client::PeerClient;
use crate::doors::socketio::settings::NAME;

/// How long another node may take to look for a state.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Length of a pid, bytes.
const PID_BYTES: usize = 22;

#[derive(Debug, Default)]
struct Store {
    /// The states by pid, with the end of each.
    states: HashMap<String, (Instant, SessionState)>,
    /// The states in the order in which they end. States that were taken are still listed.
    ends: VecDeque<(Instant, String)>,
}

impl Store {
    fn put(&mut self, saved: SessionState, end: Instant) {
        self.ends.push_back((end, saved.pid.clone()));
        self.states.insert(saved.pid.clone(), (end, saved));
    }

    fn take(&mut self, pid: &str, now: Instant) -> Option<SessionState> {
        let (end, saved) = self.states.remove(pid)?;
        (now < end).then_some(saved)
    }

    /// Removes the states that have ended, and the oldest ones beyond `count_max`.
    fn expire(&mut self, now: Instant, count_max: usize) {
        while self.ends.front().is_some_and(|(end, _)| *end <= now || self.ends.len() > count_max) {
            let Some((end, pid)) = self.ends.pop_front() else { return };
            if self.states.get(&pid).is_some_and(|(of, _)| *of == end) {
                self.states.remove(&pid);
            }
        }
    }
}

/// The saved states of one node, and the client of the states of other nodes.
#[derive(Debug)]
pub(in crate::doors::socketio) struct Recovery {
    state: StateReader,
    peers: PeerClient,
    /// How long a state is kept; zero turns the recovery off.
    duration: Duration,
    /// Most states that are kept.
    count_max: usize,
    store: Mutex<Store>,
    draining: AtomicBool,
}

impl Recovery {
    pub(in crate::doors::socketio) fn new(
        state: StateReader,
        peers: PeerClient,
        time: Duration,
        count_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            state,
            peers,
            duration: time,
            count_max,
            store: Mutex::default(),
            draining: AtomicBool::new(false),
        })
    }

    /// Whether the recovery is on.
    pub(in crate::doors::socketio) const fn is_on(&self) -> bool {
        !self.duration.is_zero()
    }

    /// Makes a new name for the state of a client.
    pub(in crate::doors::socketio) fn pid() -> String {
        URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().into_bytes())
    }

    /// Saves the state of a client that disconnected.
    pub(in crate::doors::socketio) fn keep(&self, saved: SessionState) {
        if !self.is_on() {
            return;
        }
        if self.draining.load(Ordering::Relaxed) {
            return self.hand_over(saved);
        }
        let (now, mut store) = (clock::now(), lock(&self.store));
        store.put(saved, now + self.duration);
        store.expire(now, self.count_max);
    }

    fn hand_over(&self, saved: SessionState) {
        if let Some(to) = successor(&saved.pid, &self.state.others_up()) {
            self.peers.tell_door(to, NAME, PeerMessage::SaveState(Box::new(saved)).into_bytes());
        }
    }

    /// Gives all states to other nodes because this node is about to stop. Later states go to other nodes at once.
    pub(in crate::doors::socketio) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        let states = std::mem::take(&mut *lock(&self.store)).states;
        states.into_values().for_each(|(_, state)| self.hand_over(state));
    }

    /// Takes a state of this node. A state can be taken once.
    fn take_here(&self, pid: &str) -> Option<SessionState> {
        lock(&self.store).take(pid, clock::now())
    }

    /// Takes a state, whichever node keeps it.
    pub(in crate::doors::socketio) async fn take(&self, pid: &str) -> Option<SessionState> {
        if pid.len() != PID_BYTES {
            return None;
        }
        if let Some(saved) = self.take_here(pid) {
            return Some(saved);
        }
        let request = |node| {
            let message = PeerMessage::Restore(pid.to_owned()).into_bytes();
            async move { self.peers.ask_door(node, NAME, message, REQUEST_TIMEOUT).await }
        };
        let mut answers: FuturesUnordered<_> = self.state.others_up().into_iter().map(request).collect();
        while let Some(answer) = answers.next().await {
            let saved =
                answer.ok().filter(|bytes| !bytes.is_empty()).and_then(|bytes| SessionState::decode(bytes).ok());
            if saved.is_some() {
                return saved;
            }
        }
        None
    }

    /// Takes a state for another node. The bytes are empty when there is no such state.
    pub(in crate::doors::socketio) fn answer(&self, pid: &str) -> Bytes {
        self.take_here(pid).map(|saved| saved.encode_to_vec().into()).unwrap_or_default()
    }
}

/// The node that keeps a state from now on. Names are random, so each node gets about as many states.
fn successor(pid: &str, others: &[u64]) -> Option<u64> {
    let sum = pid.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    others.get(sum.checked_rem(others.len())?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::client::announcement::AnnouncedUpTo;

    #[test]
    fn a_node_that_stops_leaves_its_states_to_all_others() {
        assert_eq!(successor(&Recovery::pid(), &[]), None);
        let mut saved = [0; 3];
        for _ in 0..3000 {
            let to = successor(&Recovery::pid(), &[2, 3, 4]).and_then(|to| usize::try_from(to).ok());
            saved[to.expect("one of them") - 2] += 1;
        }
        assert!(saved.iter().all(|saved| (800..1200).contains(saved)), "{saved:?}");
    }

    fn saved(pid: &str, floor: u64) -> SessionState {
        SessionState::new(pid, "sid", None, AnnouncedUpTo { roll: floor, notify: 0 }, "user:a")
    }

    #[test]
    fn a_state_is_found_once_until_its_time_is_over() {
        let (mut store, now) = (Store::default(), clock::now());
        let end = now + Duration::from_secs(1);
        store.put(saved("a", 1), end);
        assert_eq!(store.take("b", now), None);
        assert_eq!(store.take("a", now), Some(saved("a", 1)));
        assert_eq!(store.take("a", now), None);
        store.put(saved("a", 2), end);
        assert_eq!(store.take("a", end), None);
    }

    #[test]
    fn a_client_that_breaks_again_is_kept_as_long_as_all_are() {
        let (mut store, now) = (Store::default(), clock::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        store.put(saved("a", 1), at(10));
        store.take("a", at(5));
        store.put(saved("a", 2), at(15));
        store.expire(at(12), 10);
        assert_eq!(store.take("a", at(12)), Some(saved("a", 2)));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let (mut store, now) = (Store::default(), clock::now());
        for n in 0..5 {
            store.put(saved(&n.to_string(), n), now + Duration::from_secs(10 + n));
            store.expire(now, 3);
        }
        let there: Vec<bool> = (0..5).map(|n: u64| store.take(&n.to_string(), now).is_some()).collect();
        assert_eq!(there, [false, false, true, true, true]);
        store.expire(now + Duration::from_secs(20), 3);
        assert!(store.states.is_empty() && store.ends.is_empty());
    }
}
