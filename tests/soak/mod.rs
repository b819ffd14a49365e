//! Clients that come and go for hours while nodes are killed: nothing stays behind, and nobody gets stuck.
//!
//! `make soak` runs both tests; [`README.md`](README.md) says what they do and what they demand.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::harness::Rng;
use crate::harness::cluster::Cluster;

/// Services that are called, and clients that call them.
mod calls;
/// Clients that do everything that clients do, and much that they should not.
mod churn;
/// Clients of `/ws` and of Socket.IO that need no threads of their own.
mod clients;
/// An hour of everything, and what the nodes are like before and after.
mod everything;
/// Figures of a node: what its process has, uses and does.
mod figures;
/// Requests and frames that no client should send.
mod hostile;
/// Fifty kills under two hundred durable consumers.
mod kills;
/// Durable consumers, their members, and what arrived at them.
mod population;
/// A stream of the book through any of the doors.
mod stream;

/// Longest wait of a client for one answer.
const BOUND: Duration = Duration::from_secs(10);

/// The number that a variable of the environment says.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: {text} is no number")))
}

/// How long the soak lasts; nothing, and a word about it, when nobody has asked for one.
fn seconds() -> Option<u64> {
    let seconds = number("ROLLBOOK_SOAK_SECONDS");
    if seconds.is_none() {
        eprintln!("skipped: ROLLBOOK_SOAK_SECONDS is not set");
    }
    seconds
}

/// A generator of its own for each client, out of that of the test: the one seed that is printed makes all of them.
fn branch(rng: &mut Rng) -> Rng {
    Rng::seeded(rng.pick(1, 1 << 40))
}

/// How long it is until then.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// What went wrong, as text: failures of operations are counted and shown.
fn told(error: impl Display) -> String {
    error.to_string()
}

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
struct At {
    id: usize,
    log: SocketAddr,
    web: SocketAddr,
}

/// The nodes that clients know, which are those that run.
#[derive(Debug)]
struct Known(Mutex<Vec<At>>);

impl Known {
    fn of(cluster: &Cluster) -> Self {
        let known = Self(Mutex::default());
        cluster.running().into_iter().for_each(|id| known.learn(cluster, id));
        known
    }

    fn all(&self) -> Vec<At> {
        self.lock().clone()
    }

    /// A node that was started has new addresses.
    fn learn(&self, cluster: &Cluster, id: usize) {
        let node = cluster.node(id);
        let mut all = self.lock();
        all.push(At { id, log: node.log, web: node.web });
        all.sort_unstable_by_key(|at| at.id);
    }

    fn forget(&self, id: usize) {
        self.lock().retain(|at| at.id != id);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<At>> {
        self.0.lock().expect("the nodes")
    }
}

/// `kill -9`. Clients are told of it after the fact, so some of them find out by themselves.
fn kill(cluster: &mut Cluster, known: &Known, id: usize) {
    cluster.kill(id);
    known.forget(id);
}

/// Starts a killed node again and waits until the node is ready.
fn start_again(cluster: &mut Cluster, known: &Known, id: usize) {
    cluster.up(&[id]);
    known.learn(cluster, id);
}

/// Tells threads to end when it is dropped, by a panic too: a scope waits for all of its threads.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
