//! The world of a simulation: nodes, links, the dice.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::impls::BasicNode;
use rollbook_core::command::{Command, LevelRaise};
use rollbook_core::entry::EntryBuilder;
use rollbook_core::level::FeatureLevel;
use rollbook_core::machine::Machine;
use rollbook_core::rows::Family;

use super::network::Network;
use crate::error::NodeError;
use crate::events::Book;
use crate::level;
use crate::log::LogStore;
use crate::machine::StateMachine;
use crate::raft::Raft;
use crate::running;
use crate::settle;
use crate::state::{Pairs, State};
use crate::store::Layout;
use crate::timing::{HEARTBEAT, Timing};
use crate::types::EntryData;

const NODES: u64 = 3;

struct Node {
    raft: Raft,
    state: Arc<State>,
    log: LogStore,
    layout: Layout,
}

pub(super) struct World {
    directory: tempfile::TempDir,
    nodes: Mutex<BTreeMap<u64, Node>>,
    /// Directions that are cut.
    cuts: Mutex<BTreeSet<(u64, u64)>>,
    /// Messages lost, of 100.
    losses: AtomicU64,
    dice: AtomicU64,
    stopped: AtomicBool,
    /// What the release of each node knows: some begin with the one before.
    levels: Mutex<BTreeMap<u64, FeatureLevel>>,
}

/// Rows of a family, by its name.
pub(super) type Rows = BTreeMap<&'static str, Pairs>;

/// Names of the events of each namespace, in order.
pub(super) type Books = BTreeMap<String, Vec<String>>;

impl World {
    pub(super) fn new(seed: u64) -> Self {
        // Memory where there is some: the simulation is about order, not about disks.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self {
            directory: directory.unwrap(),
            nodes: Mutex::default(),
            cuts: Mutex::default(),
            losses: AtomicU64::new(0),
            dice: AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            stopped: AtomicBool::new(false),
            levels: Mutex::new((1..=NODES).map(|id| (id, first_level(seed, id))).collect()),
        }
    }

    /// A number below `limit`.
    pub(super) fn random(&self, limit: u64) -> u64 {
        let mut x = self.dice.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.dice.store(x, Ordering::Relaxed);
        (x >> 20) % limit.max(1)
    }

    pub(super) async fn travel(&self) {
        let slow = self.random(50) == 0;
        let millis = if slow { self.random(400) } else { self.random(8) };
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    pub(super) fn loses(&self, from: u64, to: u64) -> bool {
        self.cuts.lock().unwrap().contains(&(from, to)) || self.random(100) < self.losses.load(Ordering::Relaxed)
    }

    pub(super) fn raft(&self, id: u64) -> Option<Raft> {
        self.nodes.lock().unwrap().get(&id).map(|node| node.raft.clone())
    }

    /// Where a node takes a snapshot.
    pub(super) fn receiver(&self, id: u64, from: u64) -> Option<(Raft, PathBuf)> {
        let nodes = self.nodes.lock().unwrap();
        nodes.get(&id).map(|node| (node.raft.clone(), node.layout.incoming(from)))
    }

    pub(super) async fn found(self: &Arc<Self>) {
        for id in 1..=NODES {
            self.start(id).await;
        }
        let members: BTreeMap<u64, BasicNode> = (1..=NODES).map(|id| (id, BasicNode::new(id))).collect();
        self.raft(1).unwrap().initialize(members).await.unwrap();
    }

    async fn start(self: &Arc<Self>, id: u64) {
        let path = self.directory.path().join(id.to_string());
        let delay = Duration::from_millis(self.random(12));
        // The last tasks of the life before still let go of the stores, some on threads of real time.
        let mut tries = 0;
        let (layout, log, state) = loop {
            match open(&path, id, delay) {
                Ok(stores) => break stores,
                Err(NodeError::InUse(_)) if tries < 10_000 => tries += 1,
                Err(error) => panic!("node {id}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        running::check(&layout, &state, &log).unwrap();
        let machine = StateMachine::new(Arc::clone(&state), &log);
        let network = Network { world: Arc::clone(self), from: id };
        let timing = Timing::new(HEARTBEAT);
        let raft = Raft::new(id, running::settings(timing).unwrap(), network, log.clone(), machine).await.unwrap();
        tokio::spawn(running::beat(raft.clone(), timing));
        self.nodes.lock().unwrap().insert(id, Node { raft, state, log, layout });
    }

    async fn kill(&self, id: u64) {
        let node = self.nodes.lock().unwrap().remove(&id);
        if let Some(Node { raft, .. }) = node {
            raft.shutdown().await.unwrap();
        }
    }

    /// Something fails, or gets well again.
    pub(super) async fn fault(self: &Arc<Self>) {
        let node = 1 + self.random(NODES);
        let other = 1 + (node + self.random(NODES - 1)) % NODES;
        match self.random(12) {
            0 | 1 => {
                self.cuts.lock().unwrap().insert((node, other));
            }
            2 => {
                let mut cuts = self.cuts.lock().unwrap();
                for peer in 1..=NODES {
                    cuts.extend([(node, peer), (peer, node)]);
                }
            }
            3..=5 => self.cuts.lock().unwrap().clear(),
            6 => self.losses.store(self.random(30), Ordering::Relaxed),
            7 => self.losses.store(0, Ordering::Relaxed),
            8 => {
                self.kill(node).await;
                tokio::time::sleep(Duration::from_millis(self.random(1500))).await;
                if self.random(2) == 0 {
                    self.upgrade(node);
                }
                self.start(node).await;
            }
            9 => self.raise().await,
            _ => self.purge(node).await,
        }
    }

    /// The node runs the newest release from its next start on.
    fn upgrade(&self, id: u64) {
        self.levels.lock().unwrap().insert(id, FeatureLevel::LATEST);
    }

    /// What the leader does when it knows of all members what they know.
    pub(super) async fn raise(&self) {
        let levels = self.levels.lock().unwrap().clone();
        let known = levels.into_iter().map(|(id, level)| self.raft(id).map(|_| level));
        let Some(level) = level::common(FeatureLevel::LATEST, known) else { return };
        let Some(leader) = (1..=NODES).filter_map(|id| self.raft(id)).find(Raft::is_leader) else { return };
        let mut entry = EntryBuilder::new(0);
        entry.push(&Command::LevelRaise(LevelRaise { level: level.get() }).frame().unwrap());
        let entry = EntryData(entry.finish(0).into());
        // Not raised by a leader that is cut off: the next look tries again.
        tokio::time::timeout(Duration::from_secs(1), leader.client_write(entry)).await.ok();
    }

    /// Settles what is applied and lets the log go, so that others need a snapshot.
    async fn purge(&self, id: u64) {
        let (raft, state, log) = {
            let nodes = self.nodes.lock().unwrap();
            let Some(node) = nodes.get(&id) else { return };
            (node.raft.clone(), Arc::clone(&node.state), node.log.clone())
        };
        let next = *state.applied().borrow();
        settle::settle(&state, &log, next, Duration::ZERO).unwrap();
        state.flush().unwrap();
        let Some(last) = next.checked_sub(1) else { return };
        if raft.trigger().snapshot().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            // A node that was killed meanwhile purges nothing.
            raft.trigger().purge_log(last).await.ok();
        }
    }

    pub(super) async fn heal(self: &Arc<Self>) {
        self.cuts.lock().unwrap().clear();
        self.losses.store(0, Ordering::Relaxed);
        for id in 1..=NODES {
            if self.levels.lock().unwrap().get(&id) != Some(&FeatureLevel::LATEST) {
                self.kill(id).await;
                self.upgrade(id);
            }
            if self.raft(id).is_none() {
                self.start(id).await;
            }
        }
        while self.machines().iter().any(|machine| machine.level() != FeatureLevel::LATEST) {
            self.raise().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) fn stop_clients(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn clients_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Resolves when one more entry is applied on every node and all are equally far.
    pub(super) async fn agreement(&self) {
        let goal = loop {
            let leader = (1..=NODES).filter_map(|id| self.raft(id)).find(Raft::is_leader);
            if let Some(raft) = leader
                && let Ok(written) = raft.write_blank().await
            {
                break written.log_id.index;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        loop {
            let applied: Vec<u64> =
                self.nodes.lock().unwrap().values().map(|node| *node.state.applied().borrow()).collect();
            if applied.iter().all(|next| *next > goal && Some(next) == applied.first()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) fn describe(&self) -> String {
        let nodes = self.nodes.lock().unwrap();
        let line = |(id, node): (&u64, &Node)| format!("node {id}: {}", node.raft.metrics().borrow_watched().clone());
        nodes.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn books(&self) -> Vec<Books> {
        let nodes = self.nodes.lock().unwrap();
        nodes.values().map(|node| read(&Book::new(Arc::clone(&node.state), node.log.clone()), &node.state)).collect()
    }

    pub(super) fn machines(&self) -> Vec<Machine> {
        self.nodes.lock().unwrap().values().map(|node| node.state.machine().clone()).collect()
    }

    /// The rows of every node, without those that go at different times: where events are before they are settled.
    pub(super) fn rows(&self) -> Vec<Rows> {
        let same = |of: &Family| !matches!(of, Family::Index | Family::Made);
        let of = |state: &State| {
            let families = Family::ALL.into_iter().filter(same);
            families.map(|of| (of.name(), state.rows(of).unwrap())).collect()
        };
        self.nodes.lock().unwrap().values().map(|node| of(&node.state)).collect()
    }

    pub(super) async fn close(&self) {
        for id in 1..=NODES {
            self.kill(id).await;
        }
    }
}

/// In one of two runs a node begins with the release that knows no levels.
fn first_level(seed: u64, id: u64) -> FeatureLevel {
    let old = seed.is_multiple_of(2) && id == 1 + seed / 2 % NODES;
    if old { FeatureLevel::FIRST } else { FeatureLevel::LATEST }
}

fn open(path: &Path, id: u64, delay: Duration) -> Result<(Layout, LogStore, Arc<State>), NodeError> {
    let layout = Layout::open(path, id)?;
    let log = LogStore::open_simulated(&layout, delay)?;
    let state = State::open(&layout)?;
    Ok((layout, log, state))
}

fn read(book: &Book, state: &State) -> Books {
    let names: Vec<String> = state.machine().heads().map(|head| head.name.clone()).collect();
    let all = |name: &str| {
        let mut events = Vec::new();
        let mut next = 1;
        loop {
            let read = book.read(name, next, None, &mut |_, event, _| {
                events.push(event.subject.split_once('.').map_or("", |(_, id)| id).to_owned());
                ControlFlow::Continue(())
            });
            let after = read.unwrap();
            if after == next {
                return events;
            }
            next = after;
        }
    };
    names.into_iter().map(|name| (name.clone(), all(&name))).collect()
}
