//! `Idempotency-Key`: a command that is sent twice runs once, even if the two requests reach different nodes.
//!
//! The keys are in no log. A node first records the key and then asks all other nodes for the key, so of two nodes
//! that get the key at the same moment, at least one sees the other. The keys of a node that died are lost.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::HttpRequest;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use rollbook_cluster::live::Live;
use rollbook_cluster::lock::lock;
use rollbook_core::error::Refusal;

use super::problem::Problem;
use crate::bus::roll::services::Services;

/// The name under which other nodes ask for keys.
pub const NAME: &str = "admin";
/// Most commands that a node remembers.
const KEYS_MAX: usize = 1000;
/// Most bytes of answers that a node remembers.
const ANSWERS_BYTES_MAX: usize = 16 << 20;
/// Longest key, bytes.
const KEY_BYTES_MAX: usize = 128;
/// How long another node may take to look for a key.
const ASK_MAX: Duration = Duration::from_secs(1);
const HEADER: &str = "idempotency-key";

/// The state of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
enum CommandState {
    /// The command is running.
    Running,
    /// The command has run, with this answer.
    Done(Bytes),
}

impl CommandState {
    fn bytes(&self) -> usize {
        match self {
            Self::Running => 0,
            Self::Done(answer) => answer.len(),
        }
    }

    /// Encodes the state for other nodes. No bytes mean that the key is unknown.
    fn encode(state: Option<Self>) -> Bytes {
        let mut out = BytesMut::new();
        match state {
            None => {}
            Some(Self::Running) => out.put_u8(1),
            Some(Self::Done(answer)) => {
                out.put_u8(2);
                out.put(answer);
            }
        }
        out.freeze()
    }

    fn decode(bytes: &Bytes) -> Option<Self> {
        match bytes.first()? {
            1 => Some(Self::Running),
            _ => Some(Self::Done(bytes.slice(1..))),
        }
    }
}

#[derive(Debug, Default)]
struct CommandTable {
    /// The state of each command, by key.
    states: HashMap<String, CommandState>,
    /// The keys, oldest first.
    order: VecDeque<String>,
    /// Bytes of all answers, for the bound.
    bytes: usize,
}

impl CommandTable {
    /// Records that a command begins. Returns the state of the command if the key is known.
    fn begin(&mut self, key: &str) -> Option<CommandState> {
        if let Some(state) = self.states.get(key) {
            return Some(state.clone());
        }
        self.order.push_back(key.to_owned());
        self.set(key, CommandState::Running);
        None
    }

    /// Records the answer of a command. An answer that is larger than the bound is dropped at once.
    fn end(&mut self, key: &str, answer: Bytes) {
        // A key that was evicted meanwhile stays evicted.
        if self.states.contains_key(key) {
            self.set(key, CommandState::Done(answer));
        }
    }

    fn set(&mut self, key: &str, state: CommandState) {
        self.bytes = self.bytes.saturating_add(state.bytes());
        let before = self.states.insert(key.to_owned(), state);
        self.bytes = self.bytes.saturating_sub(before.map_or(0, |before| before.bytes()));
        while self.order.len() > KEYS_MAX || self.bytes > ANSWERS_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &str) {
        let before = self.states.remove(key);
        self.bytes = self.bytes.saturating_sub(before.map_or(0, |before| before.bytes()));
    }

    fn forget(&mut self, key: &str) {
        self.remove(key);
        self.order.retain(|other| other != key);
    }
}

/// The commands of this node, by key.
#[derive(Debug, Default, Clone)]
pub(super) struct IdempotencyKeys(Arc<Mutex<CommandTable>>);

/// A running command. The key is removed when this value is dropped before the end, so that the command may be
/// repeated.
#[derive(Debug)]
pub(super) struct Claim {
    keys: IdempotencyKeys,
    key: Option<String>,
}

/// Whether a command has to run.
#[derive(Debug)]
pub(super) enum ClaimResult {
    /// The command is new. The caller runs it and reports the answer.
    New(Claim),
    /// The command has run before, with this answer.
    Before(Bytes),
}

impl Claim {
    /// Records the answer for requests that repeat the command.
    pub(super) fn done(mut self, answer: &Bytes) {
        if let Some(key) = self.key.take() {
            lock(&self.keys.0).end(&key, answer.clone());
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            lock(&self.keys.0).forget(&key);
        }
    }
}

impl IdempotencyKeys {
    /// Claims the command of a request. A key is valid for one path. A command without a key is new.
    pub(super) async fn claim(&self, request: &HttpRequest, services: &Services) -> Result<ClaimResult, Problem> {
        let Some(key) = key(request)? else { return Ok(ClaimResult::New(Claim { keys: self.clone(), key: None })) };
        let running = || Problem::new(409, "in_progress", "the command of this Idempotency-Key is being given");
        match lock(&self.0).begin(&key) {
            Some(CommandState::Done(answer)) => return Ok(ClaimResult::Before(answer)),
            Some(CommandState::Running) => return Err(running()),
            None => {}
        }
        let claim = Claim { keys: self.clone(), key: Some(key.clone()) };
        let ask = |node| services.peers.ask_door(node, NAME, Bytes::from(key.clone()), ASK_MAX);
        let answers = join_all(services.bus.node().state().others_up().into_iter().map(ask)).await;
        match answers.into_iter().flatten().find_map(|bytes| CommandState::decode(&bytes)) {
            Some(CommandState::Done(answer)) => {
                claim.done(&answer);
                Ok(ClaimResult::Before(answer))
            }
            Some(CommandState::Running) => Err(running()),
            None => Ok(ClaimResult::New(claim)),
        }
    }
}

fn key(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let Some(value) = request.headers().get(HEADER) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=KEY_BYTES_MAX).contains(&text.len()));
    let invalid = || Problem::new(400, "bad_request", format!("Idempotency-Key: 1 to {KEY_BYTES_MAX} characters"));
    Ok(Some(format!("{} {}", request.path(), text.ok_or_else(invalid)?)))
}

impl Live for IdempotencyKeys {
    fn hear(&self, _: u64, _: Bytes) {}

    fn answer(&self, _: u64, message: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let state = std::str::from_utf8(&message).ok().and_then(|key| lock(&self.0).states.get(key).cloned());
        std::future::ready(Ok(CommandState::encode(state))).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_reads_back() {
        for state in [None, Some(CommandState::Running), Some(CommandState::Done(Bytes::from_static(b"{}")))] {
            assert_eq!(CommandState::decode(&CommandState::encode(state.clone())), state);
        }
    }

    #[test]
    fn a_command_is_given_once_and_again_only_when_it_came_to_nothing() {
        let keys = IdempotencyKeys::default();
        let claim = |key: &str| Claim { keys: keys.clone(), key: Some(key.to_owned()) };
        let begin = |key: &str| lock(&keys.0).begin(key);
        assert_eq!(begin("a"), None);
        let first = claim("a");
        assert_eq!(begin("a"), Some(CommandState::Running));
        drop(first);
        assert_eq!(begin("a"), None);
        claim("a").done(&Bytes::from_static(b"x"));
        assert_eq!(begin("a"), Some(CommandState::Done(Bytes::from_static(b"x"))));
        for n in 0..KEYS_MAX {
            assert_eq!(begin(&n.to_string()), None);
        }
        assert_eq!(begin("a"), None, "only so many are remembered");
        let table = lock(&keys.0);
        assert_eq!((table.states.len(), table.order.len()), (KEYS_MAX, KEYS_MAX));
    }

    #[test]
    fn answers_are_remembered_up_to_so_many_bytes() {
        let keys = IdempotencyKeys::default();
        let give = |key: &str, bytes: usize| {
            assert_eq!(lock(&keys.0).begin(key), None, "{key}");
            Claim { keys: keys.clone(), key: Some(key.to_owned()) }.done(&vec![b'x'; bytes].into());
        };
        let bytes = || lock(&keys.0).bytes;
        for n in 0..100 {
            give(&n.to_string(), 1 << 20);
            assert!(bytes() <= ANSWERS_BYTES_MAX);
        }
        assert_eq!((bytes(), lock(&keys.0).states.len()), (ANSWERS_BYTES_MAX, 16));
        assert!(matches!(lock(&keys.0).begin("99"), Some(CommandState::Done(_))));
        give("larger than all", ANSWERS_BYTES_MAX + 1);
        let table = lock(&keys.0);
        assert_eq!((table.bytes, table.states.len(), table.order.len()), (0, 0, 0));
    }
}
