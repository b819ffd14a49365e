//! The cluster: nodes on hosts of their own, and what an operator can do with them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rollbook_cluster::lab_faults::{Bug, VARIABLE};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::disk::{Medium, text};
use crate::harness::http::{Http, Response};
use crate::harness::{copy_tree, ms, wait_for};
use crate::history::{LAB, Op, Phase, Recorder};
use crate::hosts::{self, Hosts};
use crate::net::Net;
use crate::node::{Node, Start};
use crate::system::{Guard, try_run};

/// Bound of one question to REST.
const ASK: Duration = Duration::from_secs(2);
/// Bound of one change that an operator asks for.
pub(crate) const CHANGE: Duration = Duration::from_secs(15);
/// Bound of a change of the membership over all attempts, catching up included.
const MEMBERSHIP: Duration = Duration::from_secs(60);
/// After a removal every node knows of it within this.
const REMOVED: Duration = Duration::from_secs(10);
/// Bound of an election, and of the time in which links come up again before it.
const ELECTION: Duration = Duration::from_secs(120);
/// The log that is kept for a node that is behind: little, so that a snapshot is needed soon, but more than the
/// load writes during the longest partition.
pub(crate) const LOG_KEEP: u64 = 24 << 20;
/// The name of the library that sets the clock of a node.
const CLOCK: &str = "clock.so";

/// How a cluster is built.
#[derive(Clone, Debug)]
pub(crate) struct Design {
    pub(crate) binary: PathBuf,
    /// Nodes that found it; one stands alone.
    pub(crate) founders: u8,
    /// Hosts that have no node at the beginning.
    pub(crate) spares: u8,
    pub(crate) medium: Medium,
    /// The binary keeps the log for nodes that are behind, and can be told how much.
    pub(crate) keeps_log: bool,
    /// The clocks of nodes can be set while they run.
    pub(crate) clocks: bool,
    /// What the nodes do wrong, if the binary can.
    pub(crate) bug: Option<Bug>,
}

/// A running cluster. Everything of it is gone when it is dropped, but for the evidence.
pub(crate) struct Cluster {
    pub(crate) hosts: Hosts,
    pub(crate) net: Net,
    pub(crate) recorder: Recorder,
    /// Writers of the workload rest as long as this is set.
    pub(crate) quiet: Arc<AtomicBool>,
    nodes: Vec<Node>,
    design: Design,
    _guard: Guard,
    dir: TempDir,
}

impl Cluster {
    /// Builds the hosts and starts all founders. The calling thread becomes a client.
    pub(crate) fn found(design: Design, evidence: &Path, recorder: Recorder) -> Self {
        let dir = TempDir::with_prefix("rollbook-lab-").expect("temporary directory");
        let tag = format!("rb{}", std::process::id());
        let guard = Guard::start(&tag, dir.path());
        let count = design.founders + design.spares;
        let net = Net::build(&tag, count);
        net.enter_clients();
        let node = |host| {
            let mut node = Node::new(host, net.path(host), dir.path(), evidence, design.medium);
            if design.keeps_log {
                node.environment.push(("ROLLBOOK_CLUSTER__LOG_KEEP_BYTES".to_owned(), LOG_KEEP.to_string()));
            }
            if let Some(bug) = design.bug {
                node.environment.push((VARIABLE.to_owned(), format!("{bug:?}")));
            }
            node
        };
        let nodes = (1..=count).map(node).collect();
        let hosts = Hosts::new(design.founders, design.spares);
        let quiet = Arc::default();
        let mut cluster = Self { hosts, nodes, net, recorder, quiet, design, _guard: guard, dir };
        if cluster.design.clocks {
            cluster.make_clocks();
        }
        let founders: Vec<u8> = cluster.hosts.inhabited();
        founders.iter().for_each(|host| cluster.spawn(*host));
        founders.iter().for_each(|host| cluster.await_ready(*host));
        // A cluster that has just been founded is not what is tested: a build that forgets to sync must lose
        // what it acknowledged, and not itself.
        cluster.nodes.iter().filter(|_| cluster.design.medium == Medium::Disk).for_each(|node| node.volume.sync());
        cluster
    }

    /// Every node gets a clock that can be set while it runs, if there is a compiler.
    fn make_clocks(&mut self) {
        let library = self.dir.path().join(CLOCK);
        if let Err(error) = clock_library(&library) {
            eprintln!("    the clocks cannot be set: {error}");
            self.design.clocks = false;
            return;
        }
        for host in (1..).take(self.nodes.len()) {
            let file = self.clock_file(host);
            std::fs::write(&file, 0_i64.to_ne_bytes()).expect("create the file of a clock");
            let environment = &mut self.node(host).environment;
            environment.push(("LD_PRELOAD".to_owned(), text(&library).to_owned()));
            environment.push(("LAB_CLOCK_FILE".to_owned(), text(&file).to_owned()));
        }
    }

    fn clock_file(&self, host: u8) -> PathBuf {
        self.dir.path().join(format!("clock-{host}"))
    }

    /// From now on the clock of a node is that many seconds ahead of the true time, or behind it. False when
    /// clocks cannot be set here.
    pub(crate) fn set_clock(&self, host: u8, ahead: i64) -> bool {
        if self.design.clocks {
            // The node has the file mapped: it must not be cut, not even for a moment.
            let file = OpenOptions::new().write(true).open(self.clock_file(host)).expect("open the file of a clock");
            file.write_all_at(&ahead.to_ne_bytes(), 0).expect("set a clock");
        }
        self.design.clocks
    }

    /// Writers of the workload rest, and go on.
    pub(crate) fn hush(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::Relaxed);
    }

    /// Whether the nodes have a port for each other.
    pub(crate) const fn several(&self) -> bool {
        self.design.founders > 1
    }

    pub(crate) fn node(&mut self, host: u8) -> &mut Node {
        &mut self.nodes[usize::from(host) - 1]
    }

    /// Hosts whose node runs and is not paused.
    pub(crate) fn running(&self) -> Vec<u8> {
        self.nodes.iter().filter(|node| node.runs() && !node.paused).map(|node| node.host).collect()
    }

    /// Numbers of all nodes but those.
    pub(crate) fn all_but(&self, hosts: &[u8]) -> Vec<u64> {
        let others = self.hosts.inhabited().into_iter().filter(|host| !hosts.contains(host));
        others.map(|host| self.hosts.node(host)).collect()
    }

    /// Starts the process of a node and does not wait.
    pub(crate) fn spawn(&mut self, host: u8) {
        let (node, several) = (self.hosts.node(host), self.several());
        let founders = (1..=self.design.founders).map(|host| format!("{host}={}", hosts::peer(host)));
        let founders = (several && node == u64::from(host)).then(|| founders.collect::<Vec<_>>().join(","));
        let start = Start { binary: self.design.binary.clone(), node, founders, peers: several };
        self.note(host, Phase::Seen, Op::Process { running: true });
        self.node(host).spawn(&start);
    }

    /// Waits until a node is ready; it must not end.
    pub(crate) fn await_ready(&mut self, host: u8) {
        if let Err(code) = self.node(host).await_ready() {
            self.note(host, Phase::Seen, Op::Process { running: false });
            panic!("the node on host {host} ended with {code:?} instead of starting: {}", self.node(host).last_words());
        }
    }

    /// Starts a node that must refuse to; its last words.
    pub(crate) fn refused(&mut self, host: u8) -> Result<String, String> {
        self.spawn(host);
        let code = match self.node(host).await_ready() {
            Ok(()) => return Err("it started".to_owned()),
            Err(code) => code,
        };
        self.note(host, Phase::Seen, Op::Process { running: false });
        let words = self.node(host).last_words();
        if code == Some(1) { Ok(words) } else { Err(format!("it ended with {code:?}: {words}")) }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, host: u8) {
        self.node(host).kill();
        self.note(host, Phase::Seen, Op::Process { running: false });
    }

    /// SIGTERM; the exit code.
    pub(crate) fn terminate(&mut self, host: u8, bound: Duration) -> Option<i32> {
        self.node(host).signal(Signal::TERM);
        let code = self.node(host).await_end(bound);
        self.note(host, Phase::Seen, Op::Process { running: false });
        code
    }

    /// Nodes that ended although nobody told them to.
    pub(crate) fn casualties(&mut self) -> Vec<u8> {
        let ended = self.nodes.iter_mut().filter_map(|node| node.ended().map(|_| node.host));
        let ended: Vec<u8> = ended.collect();
        ended.iter().for_each(|host| self.note(*host, Phase::Seen, Op::Process { running: false }));
        ended
    }

    /// Whether the node on a host, which ran, has ended by itself.
    pub(crate) fn has_ended(&mut self, host: u8) -> bool {
        let ended = self.node(host).ended().is_some();
        if ended {
            self.note(host, Phase::Seen, Op::Process { running: false });
        }
        ended
    }

    /// Waits until a node that was started is ready; false if it ends instead.
    pub(crate) fn starts(&mut self, host: u8) -> bool {
        let ready = self.node(host).await_ready().is_ok();
        if !ready {
            self.note(host, Phase::Seen, Op::Process { running: false });
        }
        ready
    }

    /// Writes a line about the node on a host.
    pub(crate) fn note(&self, host: u8, phase: Phase, op: Op) {
        self.recorder.note(LAB, self.hosts.node(host), phase, op);
    }

    /// What a node says of the cluster.
    pub(crate) fn status(&self, host: u8) -> Option<Value> {
        let answer = ask(host, "GET", "/api/cluster", "").ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// The host of the leader, as told by the node that knows the highest term.
    pub(crate) fn leader(&self) -> u8 {
        wait_for("a leader", ELECTION, || {
            let told = self.running().into_iter().filter_map(|host| self.status(host));
            let newest = told.max_by_key(|status| status["term"].as_u64())?;
            let host = self.hosts.host(newest["leader"].as_u64()?)?;
            self.running().contains(&host).then_some(host)
        })
    }

    /// Asks any running node, again and again, until it is done.
    pub(crate) fn insist(&self, method: &str, target: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let deadline = Instant::now() + MEMBERSHIP;
        let mut said = String::from("nobody could be asked");
        while Instant::now() < deadline {
            for host in self.running() {
                match ask_within(host, method, target, &body, CHANGE) {
                    Ok(answer) if (200..300).contains(&answer.status) => {
                        return serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
                    }
                    Ok(answer) => said = format!("{} {}", answer.status, answer.text()),
                    Err(error) => said = error.to_string(),
                }
            }
            std::thread::sleep(ms(200));
        }
        panic!("{method} {target} {body}: not done within {MEMBERSHIP:?}; the last answer: {said}");
    }

    /// A new node, with an empty disk and a number that the cluster gives, joins from a host and becomes a
    /// voter.
    pub(crate) fn join(&mut self, host: u8) {
        let node = self.prepare(host);
        self.spawn(host);
        self.await_ready(host);
        self.insist("POST", &format!("/api/cluster/nodes/{node}/promote"), &Value::Null);
    }

    /// Asks for a number and lays out the data directory that goes with it.
    pub(crate) fn prepare(&mut self, host: u8) -> u64 {
        let address = json!({ "address": hosts::peer(host).to_string() });
        let given = self.insist("POST", "/api/cluster/nodes", &address);
        let (Some(node), Some(cluster)) = (given["id"].as_u64(), given["cluster_id"].as_str()) else {
            panic!("no id and cluster_id in {given}");
        };
        let data = self.node(host).volume.data();
        std::fs::create_dir_all(&data).expect("create a data directory");
        let files = [("FORMAT", format!("rollbook data 1\nnode {node}\n")), ("CLUSTER", format!("{cluster}\n"))];
        for (name, text) in files {
            let written = File::create(data.join(name)).and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            });
            written.unwrap_or_else(|error| panic!("write {name}: {error}"));
        }
        // A power cut may come next.
        [Some(data.as_path()), data.parent()].into_iter().flatten().for_each(|folder| {
            File::open(folder).and_then(|folder| folder.sync_all()).expect("sync a folder");
        });
        self.hosts.settle(host, node);
        node
    }

    /// The node on a host, which does not run, is replaced by a new one on an empty disk.
    pub(crate) fn replace(&mut self, host: u8) {
        let old = self.hosts.node(host);
        self.node(host).volume.replace();
        self.join(host);
        self.remove(old);
    }

    /// The node on a host, which is no member any more, ends, and its disk is emptied.
    pub(crate) fn vacate(&mut self, host: u8) {
        // A node that was removed may have ended by itself.
        if self.node(host).runs() && !self.has_ended(host) {
            self.kill(host);
        }
        self.node(host).volume.replace();
        self.hosts.settle(host, 0);
    }

    /// Ends all nodes and keeps what is on their disks.
    pub(crate) fn preserve(&mut self, evidence: &Path) {
        for node in &mut self.nodes {
            node.kill();
            let data = node.volume.data();
            if data.exists() {
                copy_tree(&data, &evidence.join(format!("host-{}-data", node.host)));
            }
        }
    }

    /// A node leaves the cluster for good, and soon no other node calls it a member any more.
    pub(crate) fn remove(&self, node: u64) {
        self.insist("DELETE", &format!("/api/cluster/nodes/{node}"), &Value::Null);
        let lists = |host: &u8| {
            let status = self.status(*host).filter(|_| self.hosts.node(*host) != node);
            status.is_some_and(|status| {
                status["nodes"].as_array().is_some_and(|all| all.iter().any(|one| one["id"] == node))
            })
        };
        let deadline = Instant::now() + REMOVED;
        while let Some(host) = self.running().into_iter().find(lists) {
            if Instant::now() >= deadline {
                let text = format!("node {node} was removed, and is a member still after {REMOVED:?}");
                eprintln!("    broken: {text}");
                return self.note(host, Phase::Seen, Op::Broken { text });
            }
            std::thread::sleep(ms(50));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Before the guard, which would find them otherwise: they are our own children.
        self.nodes.iter_mut().for_each(Node::kill);
    }
}

/// Compiles the library that sets the clock of a process into which it is preloaded.
pub(crate) fn clock_library(path: &Path) -> Result<(), String> {
    let options = ["-O1", "-shared", "-fPIC", "-o", text(path), "-x", "c", "-"];
    try_run("cc", &options, include_str!("clock.c")).map(drop)
}

/// A number that a node tells about itself.
pub(crate) fn metric(host: u8, name: &str) -> Option<u64> {
    let answer = ask(host, "GET", "/metrics", "").ok()?;
    let text = answer.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.parse::<f64>().ok().map(|value| value as u64)
}

/// One question to REST of a host.
pub(crate) fn ask(host: u8, method: &str, target: &str, body: &str) -> io::Result<Response> {
    ask_within(host, method, target, body, ASK)
}

/// One question to REST of a host, with a bound of its own.
pub(crate) fn ask_within(host: u8, method: &str, target: &str, body: &str, bound: Duration) -> io::Result<Response> {
    let mut http = Http::connect_within(hosts::web(host), bound)?;
    http.try_request(method, target, &[("Content-Type", "application/json")], body.as_bytes())
}
