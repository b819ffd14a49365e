//! Nodes on loopback, mostly three, each a real process with a data directory of its own.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::node::{Exit, Node, Options, rollbook, run_command};
use super::{SOON, wait_for};

/// A cluster; its nodes have the numbers 1, 2, 3 and so on.
pub(crate) struct Cluster {
    nodes: Vec<Option<Node>>,
    pub(crate) options: Options,
    pub(crate) directory: TempDir,
    pub(crate) peers: Vec<String>,
    founders: String,
}

/// Addresses that nobody uses now. Their ports are below those that the system gives out by itself, so that nobody
/// gets one of them between now and the start of the node.
pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id() * 97;
    let port = || 12_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 18_000;
    let addresses = std::iter::repeat_with(|| format!("127.0.0.1:{}", port()));
    addresses.filter(|address| TcpListener::bind(address).is_ok()).take(count).collect()
}

/// A node that joins the cluster of `through` with `rollbook cluster join`, as a learner that is ready.
pub(crate) fn joined(through: &Node, data: &Path) -> Node {
    let [address] = free_addresses(1).try_into().expect("one");
    let web = format!("http://{}", through.web);
    let mut join = rollbook();
    join.args(["cluster", "join", "--web-url", &web, "--address", &address, "--data"]).arg(data);
    let exit = run_command(join, b"", SOON);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    Node::start_at(&Options::new().peer(&address), data)
}

impl Cluster {
    /// Three nodes that are ready.
    pub(crate) fn start() -> Self {
        Self::start_with(Options::new())
    }

    /// Three nodes with these options each.
    pub(crate) fn start_with(options: Options) -> Self {
        Self::prepare(options).with_all_up()
    }

    /// Directories and addresses, no process yet.
    pub(crate) fn prepare(options: Options) -> Self {
        Self::prepare_of(3, options)
    }

    /// Directories and addresses for so many nodes.
    pub(crate) fn prepare_of(count: usize, options: Options) -> Self {
        let directory = TempDir::with_prefix("rollbook-cluster-").expect("temporary directory");
        let peers = free_addresses(count);
        let founders: Vec<String> = (1..).zip(&peers).map(|(id, peer)| format!("{id}={peer}")).collect();
        Self { nodes: (0..count).map(|_| None).collect(), options, directory, peers, founders: founders.join(",") }
    }

    /// What node `id` is started with.
    pub(crate) fn options_of(&self, id: usize) -> Options {
        let options = self.options.clone().peer(&self.peers[id - 1]);
        options.arg("--node").arg(&id.to_string()).arg("--cluster").arg(&self.founders)
    }

    pub(crate) fn data(&self, id: usize) -> std::path::PathBuf {
        self.directory.path().join(format!("d{id}"))
    }

    /// Starts these nodes at the same time: none is ready before a majority is there.
    pub(crate) fn up(&mut self, ids: &[usize]) {
        self.up_with(ids, |_, options| options);
    }

    /// Starts these nodes, each with what `more` makes of its options.
    pub(crate) fn up_with(&mut self, ids: &[usize], more: impl Fn(usize, Options) -> Options) {
        let started: Vec<(usize, Node)> = std::thread::scope(|scope| {
            let start = |id: usize| {
                let (options, data) = (more(id, self.options_of(id)), self.data(id));
                scope.spawn(move || (id, Node::start_at(&options, &data)))
            };
            let threads: Vec<_> = ids.iter().map(|id| start(*id)).collect();
            threads.into_iter().map(|thread| thread.join().expect("a node that starts")).collect()
        });
        for (id, node) in started {
            self.nodes[id - 1] = Some(node);
        }
    }

    fn with_all_up(mut self) -> Self {
        self.up(&[1, 2, 3]);
        self
    }

    pub(crate) fn node(&self, id: usize) -> &Node {
        self.nodes[id - 1].as_ref().unwrap_or_else(|| panic!("node {id} is down"))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, id: usize) {
        self.nodes[id - 1].take().unwrap_or_else(|| panic!("node {id} is down")).kill9();
    }

    /// SIGTERM; waits for exit code 0.
    pub(crate) fn terminate(&mut self, id: usize) {
        self.nodes[id - 1].take().unwrap_or_else(|| panic!("node {id} is down")).terminate();
    }

    /// Waits for a node that ends by itself, and how it ended.
    pub(crate) fn ended(&mut self, id: usize, bound: Duration) -> Exit {
        let exit = self.nodes[id - 1].as_mut().unwrap_or_else(|| panic!("node {id} is down")).ended(bound);
        self.nodes[id - 1] = None;
        exit
    }

    /// Numbers of the nodes that run.
    pub(crate) fn running(&self) -> Vec<usize> {
        (1..=self.nodes.len()).filter(|id| self.nodes[id - 1].is_some()).collect()
    }

    /// `/api/cluster` as a node sees it.
    pub(crate) fn view(&self, id: usize) -> Value {
        self.node(id).web("GET", "/api/cluster", "").json()
    }

    /// The leader that all running nodes agree on.
    pub(crate) fn leader(&self) -> usize {
        let running = self.running();
        wait_for("one leader that all nodes name", SOON, || {
            let named: Vec<Option<u64>> = running.iter().map(|id| self.view(*id)["leader"].as_u64()).collect();
            let first = named.first().copied().flatten()?;
            let first_id = usize::try_from(first).ok()?;
            (named.iter().all(|leader| *leader == Some(first)) && running.contains(&first_id)).then_some(first_id)
        })
    }

    /// Running nodes that do not lead.
    pub(crate) fn followers(&self) -> Vec<usize> {
        let leader = self.leader();
        self.running().into_iter().filter(|id| *id != leader).collect()
    }

    /// Publishes through whoever takes it, with a key so that trying again does no harm.
    pub(crate) fn publish_anywhere(&self, subject: &str, key: &str) {
        let body = format!(r#"{{"subject":"{subject}","key":"{key}","payload":"{key}"}}"#);
        let mut turn = 0_usize;
        let running = self.running();
        wait_for("a node that takes the event", Duration::from_secs(15), || {
            turn += 1;
            let node = self.node(running[turn % running.len()]);
            // A key that was processed means that the first try was stored.
            matches!(node.post(&body).status, 202 | 409).then_some(())
        });
    }

    /// Payloads of a namespace from its first event on, as a node has them.
    pub(crate) fn payloads(&self, id: usize, pattern: &str, count: usize) -> Vec<String> {
        let events = self.node(id).replay(pattern).events(count, SOON);
        events.iter().map(|event| event.payload().as_str().unwrap_or_default().to_owned()).collect()
    }
}
