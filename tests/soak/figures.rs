//! Figures of a node: what its process uses and has, as `/proc` tells, and what lives in it, as `/metrics` tells.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::cluster::Cluster;
use crate::harness::node::Node;
use crate::harness::proc;

/// Linux tells programs of processor time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a node has at a moment.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    pub(super) resident_kib: u64,
    pub(super) anonymous_kib: u64,
    pub(super) threads: u64,
    /// Sockets, pipes and the like. Files of the stores are counted apart: how many of them are open depends on what
    /// was compacted when, and not on clients.
    pub(super) descriptors: usize,
    pub(super) files: usize,
    /// By kind, with those of which there are none.
    pub(super) actors: BTreeMap<String, u64>,
    pub(super) subscriptions: u64,
    /// Since the start of its process.
    pub(super) cpu_seconds: f64,
}

impl Sizes {
    pub(super) fn of(node: &Node) -> Self {
        // The descriptors first: the question for the metrics is one more.
        let (files, descriptors) = opened(node);
        let number = |name: &str| proc::status(node.pid(), name);
        let metrics = node.web("GET", "/metrics", "").text();
        let actor = |line: &str| {
            let (kind, count) = line.strip_prefix("rollbook_actors{kind=\"")?.split_once("\"} ")?;
            Some((kind.to_owned(), count.parse().ok()?))
        };
        let actors: BTreeMap<String, u64> = metrics.lines().filter_map(actor).collect();
        assert!(!actors.is_empty(), "no actors in {metrics}");
        let subscriptions = metrics.lines().find_map(|line| line.strip_prefix("rollbook_subscriptions "));
        Self {
            resident_kib: number("VmRSS"),
            anonymous_kib: number("RssAnon"),
            threads: number("Threads"),
            descriptors,
            files,
            actors,
            subscriptions: subscriptions.and_then(|count| count.parse().ok()).unwrap_or_default(),
            cpu_seconds: ticks(node.pid()) as f64 / TICKS_PER_SECOND,
        }
    }

    /// All actors together.
    pub(super) fn actors_sum(&self) -> u64 {
        self.actors.values().sum()
    }

    /// The kinds of which there are some.
    pub(super) fn kinds(&self) -> String {
        let there = self.actors.iter().filter(|(_, count)| **count > 0);
        there.map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<String>>().join(", ")
    }

    pub(super) fn resident_mib(&self) -> f64 {
        self.resident_kib as f64 / 1024.0
    }

    pub(super) fn anonymous_mib(&self) -> f64 {
        self.anonymous_kib as f64 / 1024.0
    }
}

/// What a node does within some time, and has at the end of it.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) cpu_percent: f64,
    /// How often a thread of it went to sleep and was woken, a second.
    pub(super) woken: f64,
    /// How often one was interrupted for another, a second.
    pub(super) interrupted: f64,
    pub(super) sizes: Sizes,
}

/// Figures of all nodes over the same time, in which nobody asks them anything.
pub(super) fn of_all(cluster: &Cluster, long: Duration) -> Vec<Figures> {
    let nodes: Vec<&Node> = cluster.running().into_iter().map(|id| cluster.node(id)).collect();
    let moments = || -> Vec<Moment> { nodes.iter().map(|node| Moment::of(node.pid())).collect() };
    let begin = moments();
    thread::sleep(long);
    let end = moments();
    let pairs = begin.iter().zip(&end).zip(&nodes);
    pairs.map(|((begin, end), node)| end.since(begin, Sizes::of(node))).collect()
}

/// What a process has done until now.
struct Moment {
    at: Instant,
    ticks: u64,
    /// Of each thread, by its id: switches that it asked for, and those that it did not.
    switches: BTreeMap<String, [u64; 2]>,
}

impl Moment {
    fn of(pid: u32) -> Self {
        Self { at: Instant::now(), ticks: ticks(pid), switches: switches(pid) }
    }

    fn since(&self, begin: &Self, sizes: Sizes) -> Figures {
        let seconds = self.at.duration_since(begin.at).as_secs_f64();
        // A thread that has ended meanwhile takes its count along, one that has begun brings all of it.
        let rate = |which: usize| {
            let of_thread = |(thread, counts): (&String, &[u64; 2])| {
                let before = begin.switches.get(thread).map_or(0, |counts| counts[which]);
                counts[which].saturating_sub(before)
            };
            self.switches.iter().map(of_thread).sum::<u64>() as f64 / seconds
        };
        let busy = self.ticks.saturating_sub(begin.ticks) as f64 / TICKS_PER_SECOND;
        Figures { cpu_percent: busy / seconds * 100.0, woken: rate(0), interrupted: rate(1), sizes }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Processor time of a process, that of the kernel for it included.
fn ticks(pid: u32) -> u64 {
    let stat = read(&format!("/proc/{pid}/stat"));
    // Behind the name in brackets begins the third field; the two times are the 14th and the 15th.
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn switches(pid: u32) -> BTreeMap<String, [u64; 2]> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the threads of the node");
    let of_thread = |thread: fs::DirEntry| {
        // A thread may end while it is looked at.
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let counts =
            [proc::field(&status, "voluntary_ctxt_switches")?, proc::field(&status, "nonvoluntary_ctxt_switches")?];
        Some((thread.file_name().to_string_lossy().into_owned(), counts))
    };
    threads.flatten().filter_map(of_thread).collect()
}

/// How many files of its stores a node has open, and how many other descriptors.
fn opened(node: &Node) -> (usize, usize) {
    let data = fs::canonicalize(&node.data).expect("the data directory");
    let listed = fs::read_dir(format!("/proc/{}/fd", node.pid())).expect("the descriptors of the node");
    // One that was closed meanwhile leads nowhere.
    let targets: Vec<PathBuf> = listed.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    let files = targets.iter().filter(|target| target.starts_with(&data)).count();
    (files, targets.len() - files)
}
