//! The world of a simulation: whole nodes, their disks, what fails.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use rollbook_core::level::FeatureLevel;
use rollbook_core::machine::Machine;
use rollbook_core::rows::Family;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dice::Dice;
use super::disk::{self, End};
use super::net::Net;
use crate::book::events::Book;
use crate::book::settle;
use crate::crash;
use crate::error::ReadError;
use crate::lock::lock;
use crate::log::store::LogStore;
use crate::node::Node;
use crate::replicate::raft::Raft;
use crate::running::{self, NodeConfig, Parts, Transport};
use crate::state::state::{Pairs, State};
use crate::store::layout::Layout;
use crate::stores;
use crate::timing::{HEARTBEAT, Timing};

pub(super) const NODES: u64 = 3;
/// How long a publish may wait.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A process of a node.
struct Process {
    node: Node,
    raft: Raft,
    state: Arc<State>,
    log: LogStore,
    directory: PathBuf,
    /// Cancelled when the process is killed: nothing reaches its disk, its clients or its peers any more.
    killed: CancellationToken,
    trap: Arc<Trap>,
}

/// Where a process ends: once, whether somebody ends it or it dies between two steps.
#[derive(Default)]
struct Trap(Mutex<Option<PathBuf>>);

impl Trap {
    /// Ends the process, unless it has ended; where what it left is.
    fn spring(&self, directory: &Path, killed: &CancellationToken, how: impl FnOnce() -> (PathBuf, End)) -> PathBuf {
        let mut sprung = lock(&self.0);
        sprung
            .get_or_insert_with(|| {
                killed.cancel();
                let (image, end) = how();
                disk::copy(directory, &image, end);
                image
            })
            .clone()
    }

    fn is_sprung(&self) -> bool {
        lock(&self.0).is_some()
    }
}

/// A node as a client sees it.
pub(super) struct Reachable {
    pub(super) node: Node,
    /// The connection of the client ends with the process.
    pub(super) killed: CancellationToken,
}

pub(super) struct World {
    directory: PathBuf,
    pub(super) dice: Arc<Dice>,
    net: Arc<Net>,
    processes: Mutex<BTreeMap<u64, Process>>,
    /// Where the disk of each node is.
    disks: Mutex<BTreeMap<u64, PathBuf>>,
    /// The highest feature level that the release of each node knows.
    levels: Mutex<BTreeMap<u64, FeatureLevel>>,
    images: AtomicU64,
    crashes: AtomicU64,
    stopped: AtomicBool,
}

/// Names of the events of each namespace, in order.
pub(super) type Books = BTreeMap<String, Vec<String>>;
/// Rows by the name of their family.
pub(super) type Rows = BTreeMap<&'static str, Pairs>;

impl World {
    pub(super) fn new(seed: u64, directory: &Path) -> Self {
        let dice = Arc::new(Dice::new(seed));
        Self {
            directory: directory.to_path_buf(),
            net: Net::new(Arc::clone(&dice), Timing::new(HEARTBEAT)),
            dice,
            processes: Mutex::default(),
            disks: Mutex::default(),
            levels: Mutex::new((1..=NODES).map(|id| (id, first_level(seed, id))).collect()),
            images: AtomicU64::new(0),
            crashes: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    pub(super) fn node(&self, id: u64) -> Option<Reachable> {
        let processes = self.processes.lock().unwrap();
        processes.get(&id).map(|process| Reachable { node: process.node.clone(), killed: process.killed.clone() })
    }

    fn raft(&self, id: u64) -> Option<Raft> {
        self.processes.lock().unwrap().get(&id).map(|process| process.raft.clone())
    }

    pub(super) async fn found(&self) {
        for id in 1..=NODES {
            self.start(id).await;
        }
    }

    async fn start(&self, id: u64) {
        let directory = {
            let mut disks = self.disks.lock().unwrap();
            disks.entry(id).or_insert_with(|| self.directory.join(id.to_string())).clone()
        };
        let killed = CancellationToken::new();
        let delay = Duration::from_millis(self.dice.below(12));
        let layout = Layout::open(&directory, id).unwrap();
        let log = LogStore::open_until(&layout, delay, killed.clone()).unwrap();
        let state = State::open(&layout).unwrap();
        stores::check(&layout, &state, &log).unwrap();
        let config = NodeConfig {
            id,
            data: directory.clone(),
            listener: None,
            address: Net::address(id),
            founders: (1..=NODES).map(|id| (id, Net::address(id))).collect(),
            tls: None,
            timeout: TIMEOUT,
            node_timeout: Duration::from_secs(3),
            heartbeat: HEARTBEAT,
            log_keep_bytes: 1 << 20,
            level: self.levels.lock().unwrap()[&id],
            accept_lost_mark: false,
        };
        let transport = Transport { dialer: self.net.dialer(id), acceptor: Some(self.net.listen(id)) };
        let assembled = running::assemble(config, transport, &layout, &log, &state, &killed);
        let (Parts { node, raft, .. }, _) = assembled.await.unwrap();
        self.processes
            .lock()
            .unwrap()
            .insert(id, Process { node, raft, state, log, directory, killed, trap: Arc::default() });
    }

    /// Ends a process: its disk stays as it is at this moment, its connections are reset.
    fn kill(&self, id: u64, end: End) {
        let Some(process) = self.processes.lock().unwrap().remove(&id) else { return };
        // A process that has crashed between two steps has left its disk then.
        let image = process.trap.spring(&process.directory, &process.killed, || (self.image(id), end));
        crash::unwatch(&process.directory);
        self.disks.lock().unwrap().insert(id, image);
        self.net.kill(id);
        // What is left of it uses files that nobody reads any more.
        tokio::spawn(async move { process.raft.shutdown().await });
    }

    /// Where the next image of the disk of a node goes.
    fn image(&self, id: u64) -> PathBuf {
        self.directory.join(format!("{id}-{}", self.images.fetch_add(1, Ordering::Relaxed)))
    }

    /// How a process ends that somebody ends.
    fn any_end(&self) -> End {
        if self.dice.below(2) == 0 { End::Killed } else { End::PowerCut }
    }

    /// The process dies between two steps of settling, of making a snapshot or of installing one, when it comes to the
    /// chosen one.
    fn set_trap(&self, id: u64) {
        let processes = self.processes.lock().unwrap();
        let Some(process) = processes.get(&id) else { return };
        let (trap, killed, directory) = (Arc::clone(&process.trap), process.killed.clone(), process.directory.clone());
        let (image, end, passes) = (self.image(id), self.any_end(), AtomicU64::new(self.dice.below(6)));
        crash::watch(&process.directory, move |_| {
            let passed = passes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if passed.is_err() {
                trap.spring(&directory, &killed, || (image.clone(), end));
            }
            passed.is_err()
        });
    }

    /// Whoever stepped into a trap comes back.
    async fn bury(&self) {
        let sprung: Vec<u64> = {
            let processes = self.processes.lock().unwrap();
            processes.iter().filter(|(_, process)| process.trap.is_sprung()).map(|(id, _)| *id).collect()
        };
        for id in sprung {
            self.crashes.fetch_add(1, Ordering::Relaxed);
            self.restart(id).await;
        }
    }

    /// How many processes died between two steps.
    pub(super) fn crashes(&self) -> u64 {
        self.crashes.load(Ordering::Relaxed)
    }

    async fn restart(&self, id: u64) {
        self.kill(id, self.any_end());
        tokio::time::sleep(Duration::from_millis(self.dice.below(1500))).await;
        if self.dice.below(2) == 0 {
            self.upgrade(id);
        }
        self.start(id).await;
    }

    /// The node runs the newest release from its next start on.
    fn upgrade(&self, id: u64) {
        self.levels.lock().unwrap().insert(id, FeatureLevel::LATEST);
    }

    fn others(id: u64) -> impl Iterator<Item = u64> {
        (1..=NODES).filter(move |other| *other != id)
    }

    /// Both directions between a node and all others.
    fn isolation(id: u64) -> impl Iterator<Item = (u64, u64)> {
        Self::others(id).flat_map(move |other| [(id, other), (other, id)])
    }

    /// Something fails, or gets well again.
    pub(super) async fn fault(&self) {
        let id = 1 + self.dice.below(NODES);
        let other = 1 + (id + self.dice.below(NODES - 1)) % NODES;
        self.bury().await;
        match self.dice.below(18) {
            0 | 1 => self.net.cut([(id, other)]),
            2 => self.net.cut(Self::isolation(id)),
            3..=6 => self.net.heal(),
            7 => self.net.slow_down(self.dice.below(60), self.dice.below(100)),
            8 => self.restart(id).await,
            9 => {
                self.kill(other, self.any_end());
                self.restart(id).await;
                self.start(other).await;
            }
            16 => self.lights_out().await,
            17 => self.set_trap(id),
            10 | 11 => self.transfer(other).await,
            _ => self.purge(id).await,
        }
    }

    /// The power of all nodes is cut at once.
    async fn lights_out(&self) {
        (1..=NODES).for_each(|id| self.kill(id, End::PowerCut));
        for id in 1..=NODES {
            self.start(id).await;
        }
    }

    /// Hands leadership over, whatever else goes on.
    async fn transfer(&self, to: u64) {
        let leader = (1..=NODES).filter_map(|id| self.node(id)).find(|reachable| reachable.node.consensus().leads());
        if let Some(leader) = leader {
            // It may be refused, or come too late.
            drop(leader.killed.run_until_cancelled(leader.node.membership().transfer(Some(to))).await);
        }
    }

    /// Cuts one node, or all nodes from each other, for longer than any TCP connection lives.
    pub(super) async fn long_partition(&self) {
        let id = self.dice.below(NODES + 1);
        let cut: Vec<u64> = if id == 0 { (1..=NODES).collect() } else { vec![id] };
        for id in cut {
            self.net.cut(Self::isolation(id));
        }
        tokio::time::sleep(Duration::from_millis(60_000 + self.dice.below(30_000))).await;
    }

    /// Settles what is applied and lets the log go, so that others need a snapshot.
    async fn purge(&self, id: u64) {
        let (raft, state, log) = {
            let processes = self.processes.lock().unwrap();
            let Some(process) = processes.get(&id) else { return };
            (process.raft.clone(), Arc::clone(&process.state), process.log.clone())
        };
        let next = *state.applied().borrow();
        let directory = state.layout().root().to_path_buf();
        // A step that fails is one at which the process has died.
        let settled = crash::with(
            move |name| crash::point_of(&directory, name).is_err(),
            || -> Result<u64, ReadError> {
                let flushed = settle::settle(&state, &log, next, Duration::ZERO)?.flush(&state)?;
                settle::forget(&state, &flushed)?;
                Ok(flushed.limit())
            },
        );
        let Some(last) = settled.ok().and_then(|limit| limit.checked_sub(1)) else { return };
        if raft.trigger().snapshot().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            // A node that was killed meanwhile purges nothing.
            raft.trigger().purge_log(last).await.ok();
        }
    }

    /// Ends all faults.
    pub(super) async fn heal(&self) {
        self.net.heal();
        self.processes.lock().unwrap().values().for_each(|process| crash::unwatch(&process.directory));
        self.bury().await;
        for id in 1..=NODES {
            if self.levels.lock().unwrap()[&id] != FeatureLevel::LATEST {
                self.kill(id, End::Killed);
                self.upgrade(id);
            }
            if self.node(id).is_none() {
                self.start(id).await;
            }
        }
    }

    /// How long it takes until every node says that it is ready. A cluster of one release also follows its rules then.
    pub(super) async fn recovery(&self) -> Duration {
        let began = Instant::now();
        for id in 1..=NODES {
            while self.node(id).is_none_or(|reachable| reachable.node.consensus().ready().is_err()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let took = began.elapsed();
        while self.machines().iter().any(|machine| machine.level() != FeatureLevel::LATEST) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        took
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
                self.processes.lock().unwrap().values().map(|process| *process.state.applied().borrow()).collect();
            if applied.iter().all(|next| *next > goal && Some(next) == applied.first()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) fn describe(&self) -> String {
        let processes = self.processes.lock().unwrap();
        let line = |(id, process): (&u64, &Process)| {
            let raft = &process.raft;
            format!("node {id}: {:?} {}", process.node.consensus().ready(), raft.metrics().borrow_watched().clone())
        };
        processes.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn books(&self) -> Vec<Books> {
        let processes = self.processes.lock().unwrap();
        let read =
            |process: &Process| read(&Book::new(Arc::clone(&process.state), process.log.clone()), &process.state);
        processes.values().map(read).collect()
    }

    pub(super) fn machines(&self) -> Vec<Machine> {
        self.processes.lock().unwrap().values().map(|process| Machine::clone(&process.state.machine())).collect()
    }

    /// The rows of every node, without those that go at different times: where events are before they are settled.
    pub(super) fn rows(&self) -> Vec<Rows> {
        let same = |of: &Family| !matches!(of, Family::Index | Family::Made);
        let of = |state: &State| {
            let families = Family::ALL.into_iter().filter(same);
            families.map(|of| (of.name(), state.rows(of).unwrap())).collect()
        };
        self.processes.lock().unwrap().values().map(|process| of(&process.state)).collect()
    }

    pub(super) fn close(&self) {
        let processes = std::mem::take(&mut *self.processes.lock().unwrap());
        for (id, process) in processes {
            process.killed.cancel();
            crash::unwatch(&process.directory);
            self.net.kill(id);
        }
    }
}

/// In one of two runs a node begins with an older release: in turn one of each.
fn first_level(seed: u64, id: u64) -> FeatureLevel {
    let old = seed.is_multiple_of(2) && id == 1 + seed / 2 % NODES;
    match seed / 2 / NODES % 2 {
        _ if !old => FeatureLevel::LATEST,
        0 => FeatureLevel::FIRST,
        _ => FeatureLevel::BOUNDED,
    }
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
    // The roll tells of nodes, not of what clients did.
    let of_clients = names.into_iter().filter(|name| name.len() == 1);
    of_clients.map(|name| (name.clone(), all(&name))).collect()
}
