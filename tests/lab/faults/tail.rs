//! Ends of logs: entries that were never acknowledged and are truncated right before a power cut, and the
//! newest of a store that is gone when its node comes back.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Fault, Nemesis, USUAL};
use crate::cluster::{Cluster, metric};
use crate::harness::{copy_tree, ms};
use crate::hosts;
use crate::net::Loss;

/// Power cuts of one fault.
const ROUNDS: u32 = 4;
/// Bytes of a publish that is an entry of its own.
const LARGE: usize = 100 << 10;
/// Publishes of which none is acknowledged. Two become entries; more do not while these are on their way.
const LARGES: usize = 3;
/// After this their clients leave.
const GIVEN_UP: Duration = ms(1000);
/// Bound of an election.
const ELECTED: Duration = Duration::from_secs(4);
/// Bound of a start.
const STARTED: Duration = Duration::from_secs(10);
/// Bound of the truncation after the healing. A call that was lost is made again after a second.
const TRUNCATED: Duration = Duration::from_secs(4);
/// What raft tells of is written within this. The mark is not yet on the disk: that happens once a second, and the
/// vote of the next leader comes right before.
const WRITTEN: Duration = ms(80);
/// How long the lab waits until what is there at the beginning is in the ledger and no longer in the log.
const SETTLED: Duration = Duration::from_secs(30);
/// Most bytes that are cut off a file.
const TAIL_MAX: u64 = 64 << 10;
/// A node settles again within this.
const STEP: Duration = Duration::from_secs(7);

impl Nemesis<'_> {
    /// A leader is killed with entries that nobody else has; the next one has fewer, and truncates them as soon as
    /// it comes back; its power is cut before it writes anything else. Nothing is missing: it must start.
    /// Which of both is first is a matter of milliseconds: several times.
    pub(super) fn truncated_tail(&mut self) {
        let hits = (0..ROUNDS).filter(|_| self.truncated_once()).count();
        eprintln!("    the log of an old leader was truncated in {hits} of {ROUNDS} rounds");
        if hits == 0 {
            self.missed(Fault::TruncatedTail, "no log was truncated");
        }
        self.recovered(Fault::TruncatedTail, USUAL);
    }

    /// Whether a log was truncated.
    fn truncated_once(&mut self) -> bool {
        let (leader, all) = (self.cluster.leader(), self.cluster.hosts.inhabited());
        let others: Vec<u8> = all.iter().copied().filter(|host| *host != leader).collect();
        let last = |host: u8| metric(host, "rollbook_raft_last_index").unwrap_or(0);
        let mut hit = false;
        self.during(Fault::TruncatedTail, Self::everybody(leader), |nemesis| {
            nemesis.cluster.hush(true);
            std::thread::sleep(ms(1500));
            let before = last(leader);
            nemesis.cluster.net.cut(leader, &all, Loss::Both);
            let crowd = nemesis.crowd.clone();
            let ask = |_| {
                let crowd = crowd.clone();
                std::thread::spawn(move || crowd.publish_patiently(leader, LARGE, GIVEN_UP))
            };
            let askers: Vec<_> = (0..LARGES).map(ask).collect();
            within(GIVEN_UP, || last(leader) >= before + 2);
            // Raft tells of entries before they are on the disk.
            std::thread::sleep(WRITTEN);
            let tail = last(leader);
            nemesis.cluster.kill(leader);
            // What the system does by itself within seconds.
            nemesis.cluster.node(leader).volume.sync();
            // The first entry of a new leader, but no more: soon it writes that the old one is gone.
            within(ELECTED, || others.iter().any(|host| last(*host) > before));
            let ends = others.iter().map(|host| last(*host)).max().unwrap_or(0);
            // While nobody is refused by it, nobody writes that it is dead.
            nemesis.cluster.spawn(leader);
            within(STARTED, || metric(leader, "rollbook_raft_last_index").is_some_and(|last| last >= tail));
            nemesis.cluster.net.heal();
            // It gets entries and can have none written, not even that it is back.
            nemesis.cluster.net.keep_from_dialing(leader, &others, hosts::PEER);
            // As many entries may come as go; then they are applied.
            let now = |name: &str| metric(leader, name);
            let shorter = || now("rollbook_raft_last_index").is_some_and(|last| last != tail);
            let other = || now("rollbook_raft_applied_index").is_some_and(|applied| applied > before);
            hit = tail > before && within(TRUNCATED, || shorter() || other());
            std::thread::sleep(WRITTEN);
            let left = last(leader);
            nemesis.power_cut(&[leader]);
            nemesis.cluster.net.heal();
            let seen = if hit { "was truncated and" } else { "was NOT truncated and" };
            eprintln!(
                "    the log of the old leader went from {before} to {tail}, others to {ends}; it {seen} went to {left}"
            );
            nemesis.cluster.hush(false);
            nemesis.last(300, 1000);
            nemesis.cluster.spawn(leader);
            for asker in askers {
                asker.join().expect("the one who asks");
            }
        });
        self.must_start(leader, Fault::TruncatedTail);
        hit
    }

    /// A node of which nothing is missing starts. One that refuses is told, and replaced.
    pub(super) fn must_start(&mut self, host: u8, fault: Fault) {
        if self.cluster.starts(host) {
            return;
        }
        let words = self.cluster.node(host).last_words();
        let last = words.lines().last().unwrap_or_default();
        self.broken(host, format!("{fault:?}: nothing is missing, and it does not start: {last}"));
        self.cluster.replace(host);
    }

    /// The newest of one store is cut or removed while the node is down: it starts with nothing missing, which
    /// the reading at the end shows, or it refuses.
    pub(super) fn lost_tail(&mut self, fault: Fault) {
        let all = self.cluster.running();
        let host = self.any(&all);
        self.cluster.await_settled(host);
        // Something is in the raft log only: the newest is what may be lost unnoticed.
        self.last(1500, 2500);
        let whole = self.cluster.node(host).volume.data().with_extension("whole");
        let mut refused = false;
        self.during(fault, self.one(host), |nemesis| {
            nemesis.cluster.kill(host);
            let data = nemesis.cluster.node(host).volume.data();
            if !nemesis.cluster.several() {
                copy_tree(&data, &whole);
            }
            let (lost, done) = nemesis.lose(&data, fault);
            if !lost {
                nemesis.missed(fault, &done);
            }
            let started = nemesis.cluster.refused(host);
            let said = started.as_deref().unwrap_or_else(|text| text).lines().last().unwrap_or_default().to_owned();
            eprintln!("    host {host}: {done}: {said}");
            refused = started.is_ok();
            if let Err(text) = started
                && text != "it started"
            {
                panic!("{done}: a node that misses something starts or exits with 1: {text}");
            }
            if fault == Fault::TailMark && !refused {
                nemesis.broken(host, format!("it starts beside a log without knowing what it promised: {done}"));
            }
        });
        if refused && self.cluster.several() {
            self.cluster.replace(host);
        } else if refused {
            // Nobody else has anything: it gets back what it had.
            let data = self.cluster.node(host).volume.data();
            fs::remove_dir_all(&data).expect("remove what was left");
            fs::rename(&whole, &data).expect("put everything back");
            self.cluster.spawn(host);
            self.cluster.await_ready(host);
        }
        drop(fs::remove_dir_all(&whole));
        if refused {
            return;
        }
        // What is missing shows when what comes next is settled behind it.
        std::thread::sleep(STEP);
        self.bury(fault);
        self.recovered(fault, USUAL);
    }

    /// Whether something is gone now, and what was done to which file.
    fn lose(&mut self, data: &Path, fault: Fault) -> (bool, String) {
        if fault == Fault::TailMark {
            let path = data.join("MARK");
            if self.rng.pick(0, 2) == 0 {
                fs::remove_file(&path).expect("remove the mark");
                return (true, "MARK is gone".to_owned());
            }
            let length = fs::metadata(&path).map_or(0, |meta| meta.len());
            fs::write(&path, vec![0; usize::try_from(length).unwrap_or(0)]).expect("write zeros");
            return (true, format!("MARK is {length} zeros"));
        }
        let store = match fault {
            Fault::TailRaft => data.join("raft"),
            Fault::TailState => present(data, "state"),
            _ => present(data, "ledger"),
        };
        // A store without a log of its own has its newest in tables.
        let newest = newest(&store, "log").or_else(|| newest(&store, "sst"));
        let Some((path, length)) = newest else {
            return (false, format!("{} has nothing to lose", store.display()));
        };
        let name = path.strip_prefix(data).unwrap_or(&path).display().to_string();
        if self.rng.pick(0, 3) == 0 {
            fs::remove_file(&path).expect("remove a file");
            return (true, format!("{name} of {length} bytes is gone"));
        }
        let left = self.rng.pick(length.saturating_sub(TAIL_MAX), length);
        let file = OpenOptions::new().write(true).open(&path).expect("open a file of the node");
        file.set_len(left).expect("cut a file");
        (true, format!("{name} cut from {length} to {left} bytes"))
    }
}

impl Cluster {
    /// Waits until what a node has now is settled and purged from its log. Not for ever: that is not promised.
    pub(super) fn await_settled(&self, host: u8) {
        let last = metric(host, "rollbook_raft_last_index").unwrap_or(0);
        let deadline = Instant::now() + SETTLED;
        while metric(host, "rollbook_raft_first_index").is_none_or(|first| first <= last) && Instant::now() < deadline {
            std::thread::sleep(ms(100));
        }
    }
}

/// Whether something is so within a time.
fn within(bound: Duration, so: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + bound;
    while Instant::now() < deadline {
        if so() {
            return true;
        }
        std::thread::sleep(ms(2));
    }
    false
}

/// The present generation of a part of the store.
fn present(data: &Path, part: &str) -> PathBuf {
    let number = fs::read_to_string(data.join("GENERATION")).ok();
    let number = number.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    data.join(format!("{part}-{number}"))
}

/// The file with the highest number that has any bytes.
fn newest(folder: &Path, kind: &str) -> Option<(PathBuf, u64)> {
    let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let files = entries.filter(|path| path.extension().is_some_and(|own| own == kind));
    let files = files.filter_map(|path| {
        let length = fs::metadata(&path).ok()?.len();
        (length > 0).then_some((path, length))
    });
    files.max()
}
