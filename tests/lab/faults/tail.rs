//! Ends of logs: entries that were never acknowledged and are truncated right before a power cut, and the
//! newest of a store that is gone when its node comes back.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Fault, Nemesis, USUAL};
use crate::cluster::{Cluster, metric};
use crate::harness::ms;
use crate::net::Loss;

/// Bytes of a publish that is an entry of its own.
const LARGE: usize = 100 << 10;
/// Publishes of which none is acknowledged. More do not become entries while these are on their way.
const LARGES: usize = 3;
/// After this their clients leave.
const GIVEN_UP: Duration = ms(1000);
/// Bound of an election.
const ELECTED: Duration = Duration::from_secs(4);
/// Bound of the truncation after the healing.
const TRUNCATED: Duration = Duration::from_secs(20);
/// How long the lab waits until what is there at the beginning is in the ledger and no longer in the log.
const SETTLED: Duration = Duration::from_secs(30);
/// A node settles again within this.
const STEP: Duration = Duration::from_secs(7);

impl Nemesis<'_> {
    /// The leader is cut off with entries that nobody else gets; a new leader has fewer, and truncates them; the
    /// power of the old one is cut before it writes anything else. Nothing is missing: it must start.
    pub(super) fn truncated_tail(&mut self) {
        let (leader, all) = (self.cluster.leader(), self.cluster.hosts.inhabited());
        self.during(Fault::TruncatedTail, Self::everybody(leader), |nemesis| {
            nemesis.cluster.hush(true);
            std::thread::sleep(ms(1500));
            let before = metric(leader, "rollbook_raft_last_index").unwrap_or(0);
            nemesis.cluster.net.cut(leader, &all, Loss::Both);
            let crowd = nemesis.crowd.clone();
            let askers: Vec<_> = (0..LARGES)
                .map(|_| {
                    let crowd = crowd.clone();
                    std::thread::spawn(move || crowd.publish_patiently(leader, LARGE, GIVEN_UP))
                })
                .collect();
            let others: Vec<u8> = all.iter().copied().filter(|host| *host != leader).collect();
            let ends = || others.iter().filter_map(|host| metric(*host, "rollbook_raft_last_index")).max().unwrap_or(0);
            // The first entry of a new leader, but no more: soon it writes that the old one is gone.
            let deadline = Instant::now() + ELECTED;
            while ends() <= before && Instant::now() < deadline {
                std::thread::sleep(ms(5));
            }
            let tail = metric(leader, "rollbook_raft_last_index").unwrap_or(0);
            let ends = ends();
            // What the system does by itself within seconds.
            nemesis.cluster.node(leader).volume.sync();
            nemesis.cluster.net.heal();
            let end = nemesis.truncation(leader, tail);
            nemesis.power_cut(&[leader]);
            eprintln!(
                "    the log of the old leader went from {before} to {tail}, others to {ends}; it was cut to {end:?}"
            );
            nemesis.cluster.hush(false);
            nemesis.last(300, 1000);
            nemesis.cluster.spawn(leader);
            for asker in askers {
                asker.join().expect("the one who asks");
            }
        });
        self.must_start(leader, Fault::TruncatedTail);
        self.recovered(Fault::TruncatedTail, USUAL);
    }

    /// Waits until the log of a host ends before that entry, and says where.
    fn truncation(&self, host: u8, tail: u64) -> Option<u64> {
        let deadline = Instant::now() + TRUNCATED;
        while Instant::now() < deadline {
            match metric(host, "rollbook_raft_last_index") {
                Some(last) if last < tail => return Some(last),
                _ => std::thread::sleep(ms(2)),
            }
        }
        None
    }

    /// A node of which nothing is missing starts. One that refuses is told, and replaced.
    fn must_start(&mut self, host: u8, fault: Fault) {
        if self.cluster.starts(host) {
            return;
        }
        let words = self.cluster.node(host).last_words();
        self.broken(host, format!("{fault:?}: nothing is missing, and it does not start: {words}"));
        self.cluster.replace(host);
    }

    /// The newest of one store is cut or removed while the node is down: it starts with nothing missing, which
    /// the reading at the end shows, or it refuses.
    pub(super) fn lost_tail(&mut self, fault: Fault) {
        let all = self.cluster.running();
        let host = self.any(&all);
        self.cluster.await_settled(host);
        let mut refused = false;
        self.during(fault, self.one(host), |nemesis| {
            nemesis.cluster.kill(host);
            let data = nemesis.cluster.node(host).volume.data();
            let done = nemesis.lose(&data, fault);
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
        if refused {
            self.cluster.replace(host);
            return;
        }
        // What is missing shows when what comes next is settled behind it.
        std::thread::sleep(STEP);
        self.bury(fault);
        self.recovered(fault, USUAL);
    }

    /// Says what was done to which file.
    fn lose(&mut self, data: &Path, fault: Fault) -> String {
        if fault == Fault::TailMark {
            let path = data.join("MARK");
            if self.rng.pick(0, 2) == 0 {
                fs::remove_file(&path).expect("remove the mark");
                return "MARK is gone".to_owned();
            }
            let length = fs::metadata(&path).map_or(0, |meta| meta.len());
            fs::write(&path, vec![0; usize::try_from(length).unwrap_or(0)]).expect("write zeros");
            return format!("MARK is {length} zeros");
        }
        let store = match fault {
            Fault::TailRaft => data.join("raft"),
            Fault::TailState => present(data, "state"),
            _ => present(data, "ledger"),
        };
        // A store without a log of its own has its newest in tables.
        let newest = newest(&store, "log").or_else(|| newest(&store, "sst"));
        let Some((path, length)) = newest else { return format!("{} has nothing to lose", store.display()) };
        let name = path.strip_prefix(data).unwrap_or(&path).display().to_string();
        if self.rng.pick(0, 3) == 0 {
            fs::remove_file(&path).expect("remove a file");
            return format!("{name} of {length} bytes is gone");
        }
        let left = self.rng.pick(0, length);
        let file = OpenOptions::new().write(true).open(&path).expect("open a file of the node");
        file.set_len(left).expect("cut a file");
        format!("{name} cut from {length} to {left} bytes")
    }
}

impl Cluster {
    /// Waits until what a node has now is settled and purged from its log. Not for ever: that is not promised.
    fn await_settled(&self, host: u8) {
        let last = metric(host, "rollbook_raft_last_index").unwrap_or(0);
        let deadline = Instant::now() + SETTLED;
        while metric(host, "rollbook_raft_first_index").is_none_or(|first| first <= last) && Instant::now() < deadline {
            std::thread::sleep(ms(100));
        }
    }
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
