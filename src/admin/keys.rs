//! `Idempotency-Key`: a command that is asked for twice is given once, whichever nodes are asked.
//!
//! Nothing of it is in a log. A node that is asked first takes note of the key, then asks all others for it: of two
//! that are asked at the same moment at least one sees the other. What a node knew that has died is not known.

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

/// Its name to other nodes.
pub const NAME: &str = "admin";
/// Commands that a node remembers.
const KEYS_MAX: usize = 1000;
/// Bytes of their answers that a node remembers.
const ANSWERS_BYTES_MAX: usize = 16 << 20;
/// Longest key, bytes.
const KEY_BYTES_MAX: usize = 128;
/// How long another node may take to look.
const ASK_MAX: Duration = Duration::from_secs(1);
const HEADER: &str = "idempotency-key";

/// What is known of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// It is being given.
    Running,
    /// It was given; this was the answer.
    Done(Bytes),
}

impl Known {
    fn bytes(&self) -> usize {
        match self {
            Self::Running => 0,
            Self::Done(answer) => answer.len(),
        }
    }

    /// As nodes tell each other; nothing is known when there are no bytes.
    fn encode(known: Option<Self>) -> Bytes {
        let mut out = BytesMut::new();
        match known {
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
struct Table {
    known: HashMap<String, Known>,
    /// Their keys, oldest first.
    order: VecDeque<String>,
    /// Bytes of all answers.
    bytes: usize,
}

impl Table {
    /// Takes note that a command is about to be given, unless something is known of it.
    fn begin(&mut self, key: &str) -> Option<Known> {
        if let Some(known) = self.known.get(key) {
            return Some(known.clone());
        }
        self.order.push_back(key.to_owned());
        self.set(key, Known::Running);
        None
    }

    /// Takes note of what a command gave. An answer that is larger than all that is remembered is forgotten at once.
    fn end(&mut self, key: &str, answer: Bytes) {
        // One that was crowded out meanwhile stays forgotten.
        if self.known.contains_key(key) {
            self.set(key, Known::Done(answer));
        }
    }

    fn set(&mut self, key: &str, known: Known) {
        self.bytes = self.bytes.saturating_add(known.bytes());
        let before = self.known.insert(key.to_owned(), known);
        self.bytes = self.bytes.saturating_sub(before.map_or(0, |before| before.bytes()));
        while self.order.len() > KEYS_MAX || self.bytes > ANSWERS_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &str) {
        let before = self.known.remove(key);
        self.bytes = self.bytes.saturating_sub(before.map_or(0, |before| before.bytes()));
    }

    fn forget(&mut self, key: &str) {
        self.remove(key);
        self.order.retain(|other| other != key);
    }
}

/// The commands that were given through this node.
#[derive(Debug, Default, Clone)]
pub(super) struct Keys(Arc<Mutex<Table>>);

/// A command that is being given. Forgotten when dropped before its end, so that it may be tried again.
#[derive(Debug)]
pub(super) struct Claim {
    keys: Keys,
    key: Option<String>,
}

/// Whether to give a command.
#[derive(Debug)]
pub(super) enum Claimed {
    /// Now; tell what became of it.
    New(Claim),
    /// It was given; this was the answer.
    Before(Bytes),
}

impl Claim {
    /// The command was given; whoever asks again is told this.
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

impl Keys {
    /// Claims the command that a request is for: its key counts for its path alone. A command without a key is new.
    pub(super) async fn claim(&self, request: &HttpRequest, services: &Services) -> Result<Claimed, Problem> {
        let Some(key) = key(request)? else { return Ok(Claimed::New(Claim { keys: self.clone(), key: None })) };
        let running = || Problem::new(409, "in_progress", "the command of this Idempotency-Key is being given");
        match lock(&self.0).begin(&key) {
            Some(Known::Done(answer)) => return Ok(Claimed::Before(answer)),
            Some(Known::Running) => return Err(running()),
            None => {}
        }
        let claim = Claim { keys: self.clone(), key: Some(key.clone()) };
        let ask = |node| services.peers.ask_door(node, NAME, Bytes::from(key.clone()), ASK_MAX);
        let answers = join_all(services.bus.node().state().others_up().into_iter().map(ask)).await;
        match answers.into_iter().flatten().find_map(|bytes| Known::decode(&bytes)) {
            Some(Known::Done(answer)) => {
                claim.done(&answer);
                Ok(Claimed::Before(answer))
            }
            Some(Known::Running) => Err(running()),
            None => Ok(Claimed::New(claim)),
        }
    }
}

fn key(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let Some(value) = request.headers().get(HEADER) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=KEY_BYTES_MAX).contains(&text.len()));
    let wrong = || Problem::new(400, "bad_request", format!("Idempotency-Key: 1 to {KEY_BYTES_MAX} characters"));
    Ok(Some(format!("{} {}", request.path(), text.ok_or_else(wrong)?)))
}

impl Live for Keys {
    fn hear(&self, _: u64, _: Bytes) {}

    fn answer(&self, _: u64, message: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let known = std::str::from_utf8(&message).ok().and_then(|key| lock(&self.0).known.get(key).cloned());
        std::future::ready(Ok(Known::encode(known))).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_reads_back() {
        for known in [None, Some(Known::Running), Some(Known::Done(Bytes::from_static(b"{}")))] {
            assert_eq!(Known::decode(&Known::encode(known.clone())), known);
        }
    }

    #[test]
    fn a_command_is_given_once_and_again_only_when_it_came_to_nothing() {
        let keys = Keys::default();
        let claim = |key: &str| Claim { keys: keys.clone(), key: Some(key.to_owned()) };
        let begin = |key: &str| lock(&keys.0).begin(key);
        assert_eq!(begin("a"), None);
        let first = claim("a");
        assert_eq!(begin("a"), Some(Known::Running));
        drop(first);
        assert_eq!(begin("a"), None);
        claim("a").done(&Bytes::from_static(b"x"));
        assert_eq!(begin("a"), Some(Known::Done(Bytes::from_static(b"x"))));
        for n in 0..KEYS_MAX {
            assert_eq!(begin(&n.to_string()), None);
        }
        assert_eq!(begin("a"), None, "only so many are remembered");
        let table = lock(&keys.0);
        assert_eq!((table.known.len(), table.order.len()), (KEYS_MAX, KEYS_MAX));
    }

    #[test]
    fn answers_are_remembered_up_to_so_many_bytes() {
        let keys = Keys::default();
        let give = |key: &str, bytes: usize| {
            assert_eq!(lock(&keys.0).begin(key), None, "{key}");
            Claim { keys: keys.clone(), key: Some(key.to_owned()) }.done(&vec![b'x'; bytes].into());
        };
        let bytes = || lock(&keys.0).bytes;
        for n in 0..100 {
            give(&n.to_string(), 1 << 20);
            assert!(bytes() <= ANSWERS_BYTES_MAX);
        }
        assert_eq!((bytes(), lock(&keys.0).known.len()), (ANSWERS_BYTES_MAX, 16));
        assert!(matches!(lock(&keys.0).begin("99"), Some(Known::Done(_))));
        give("larger than all", ANSWERS_BYTES_MAX + 1);
        let table = lock(&keys.0);
        assert_eq!((table.bytes, table.known.len(), table.order.len()), (0, 0, 0));
    }
}
