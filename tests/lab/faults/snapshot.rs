//! A follower that missed more than the log keeps, and what happens while it gets a snapshot.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::{Fault, Nemesis, SNAPSHOT};
use crate::cluster::{self, metric};
use crate::harness::http::Http;
use crate::harness::ms;
use crate::hosts;
use crate::workload::BULK;

/// Events of a batch, bytes of each, and batches before the log is looked at again.
const EVENTS: usize = 250;
const EVENT_BYTES: usize = 2000;
const BATCHES: u32 = 12;
/// Bound of writing until the log is purged.
const PURGED: Duration = Duration::from_secs(120);
/// Written for a snapshot that is larger than what a sender has on its way at a time, 64 MiB: a smaller one
/// arrives whole when its sender has given up long ago.
const LARGE: usize = 170 << 20;
/// How fast the link to the follower is, in megabits a second: a snapshot takes some fifteen seconds.
const SLOW: u64 = 64;
/// How long the lab waits for the first bytes of a snapshot.
const BEGUN: Duration = Duration::from_secs(20);
/// What a full disk has left, bytes and inodes: enough for the raft log, too little for a snapshot.
const LEFT_MIN: u64 = 64 << 10;
const LEFT_MAX: u64 = 256 << 10;
const INODES_MAX: u64 = 7;
/// Bound of a move of leadership.
const MOVED: Duration = Duration::from_secs(5);
/// How often it is taken away again.
const FILL: Duration = ms(50);

impl Nemesis<'_> {
    /// Leadership moves while a follower receives a snapshot; it must be level all the same.
    pub(super) fn snapshot_moved(&mut self, fault: Fault) {
        let follower = self.follower();
        let leader = self.cluster.leader();
        self.during(fault, Self::everybody(follower), |nemesis| {
            nemesis.leave_behind(follower, LARGE);
            nemesis.cluster.net.slow(follower, SLOW);
            nemesis.cluster.spawn(follower);
            let begun = nemesis.snapshot_begins(follower);
            nemesis.last(200, 1000);
            if !begun || nemesis.arrived(follower) == 0 {
                nemesis.missed(fault, "no snapshot is on its way");
            }
            if fault == Fault::SnapshotPause {
                nemesis.cluster.node(leader).signal(Signal::STOP);
                nemesis.last(2500, 4000);
                nemesis.cluster.node(leader).signal(Signal::CONT);
            } else {
                if !nemesis.move_leadership(&[follower]) {
                    nemesis.missed(fault, "leadership did not move");
                }
                // As long as the old sender would need: it must not get to the end of it.
                nemesis.last(3000, 4000);
            }
            nemesis.cluster.net.fast(follower);
        });
        self.recovered(fault, SNAPSHOT);
    }

    /// A follower needs a snapshot, and the leader, which has none yet, has no room to make one: refusals, and
    /// nobody ends.
    pub(super) fn snapshot_full(&mut self, fault: Fault) {
        let follower = self.follower();
        self.during(fault, Self::everybody(follower), |nemesis| {
            nemesis.leave_behind(follower, 0);
            // Nobody else may write to the log of the leader: it must be the snapshot that finds no room.
            nemesis.cluster.hush(true);
            std::thread::sleep(ms(1500));
            let before = nemesis.cluster.leader();
            let others = nemesis.cluster.running().into_iter().filter(|host| *host != before).collect::<Vec<_>>();
            let next = nemesis.any(&others);
            let left = nemesis.left(fault);
            // The present leader has made a snapshot as soon as it purged its log.
            nemesis.fill_up(next, fault, left);
            nemesis.move_leadership(&[follower]);
            let leader = nemesis.cluster.leader();
            eprintln!("    host {next} is full, host {leader} leads");
            if leader != next {
                nemesis.missed(fault, "the full node does not lead");
            }
            nemesis.cluster.spawn(follower);
            let until = Instant::now() + ms(nemesis.rng.pick(6000, 8000));
            // What the node gives back by itself, old files, is taken away at once.
            while Instant::now() < until {
                nemesis.fill_up(next, fault, left);
                std::thread::sleep(FILL);
            }
            let left = format!("{left} {}", if fault == Fault::SnapshotFull { "bytes" } else { "inodes" });
            let said = nemesis.crowd.answer(next, BULK).map(|answer| (answer.status, answer.text()));
            eprintln!("    with {left} left it answered {said:?}");
            if let Some((status, text)) = said
                && status != 507
            {
                nemesis.broken(next, format!("a publish with {left} left was answered {status} {}", text.trim()));
            }
            nemesis.cluster.node(next).volume.free();
            nemesis.cluster.hush(false);
        });
        self.bury(fault);
        self.recovered(fault, SNAPSHOT);
    }

    fn left(&mut self, fault: Fault) -> u64 {
        if fault == Fault::SnapshotFull { self.rng.pick(LEFT_MIN, LEFT_MAX) } else { self.rng.pick(0, INODES_MAX) }
    }

    /// Leaves hardly a byte, or hardly an inode.
    fn fill_up(&mut self, host: u8, fault: Fault, left: u64) {
        let volume = &self.cluster.node(host).volume;
        if fault == Fault::SnapshotFull { volume.fill(left) } else { volume.fill_inodes(left) }
    }

    /// The follower is killed, and the log of all others is written, so much at least and until it begins
    /// behind what it has.
    pub(super) fn leave_behind(&mut self, follower: u8, least: usize) {
        let missed = metric(follower, "rollbook_raft_last_index").unwrap_or(0);
        self.cluster.kill(follower);
        let others = self.cluster.running();
        let deadline = Instant::now() + PURGED;
        let purged = |host: &u8| metric(*host, "rollbook_raft_first_index").is_some_and(|first| first > missed + 1);
        let (mut wrote, each) = (0, BATCHES as usize * EVENTS * EVENT_BYTES);
        let enough = least.max(cluster::LOG_KEEP as usize * 3 / 2);
        while wrote * each < least || !others.iter().all(purged) {
            assert!(Instant::now() < deadline, "the log was not purged within {PURGED:?}");
            // The log is settled and purged some seconds after the last of it: no more than needed is written.
            if wrote * each < enough {
                let leader = self.cluster.leader();
                self.fill(leader);
                wrote += 1;
            } else {
                std::thread::sleep(ms(200));
            }
        }
        eprintln!("    the log is purged past host {follower}, after {wrote} times {BATCHES} batches");
    }

    /// Publishes much that cannot be compressed well, into a namespace that nobody looks at.
    fn fill(&mut self, host: u8) {
        let Ok(mut http) = Http::try_connect(hosts::log(host)) else { return };
        for _ in 0..BATCHES {
            let events: Vec<String> = (0..EVENTS).map(|_| self.noise()).collect();
            let body = format!("[{}]", events.join(","));
            // Refused or lost: then it is written once more.
            if http.try_request("POST", "/", &[], body.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn noise(&mut self) -> String {
        let letter = |place: u64| {
            char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[place as usize])
        };
        let mut text = String::with_capacity(EVENT_BYTES);
        while text.len() < EVENT_BYTES {
            let mut bits = self.rng.pick(0, 1 << 42);
            for _ in 0..7 {
                text.push(letter(bits & 63));
                bits >>= 6;
            }
        }
        format!("{{\"subject\":\"{BULK}.x\",\"payload\":\"{text}\"}}")
    }

    /// Whether bytes of a snapshot come to a node soon.
    fn snapshot_begins(&mut self, host: u8) -> bool {
        let folder = self.cluster.node(host).volume.data().join("incoming");
        let deadline = Instant::now() + BEGUN;
        while Instant::now() < deadline {
            if bytes(&folder) > 1 << 20 {
                return true;
            }
            std::thread::sleep(ms(20));
        }
        false
    }

    /// How many bytes of a snapshot a node has got.
    fn arrived(&mut self, host: u8) -> u64 {
        let data = self.cluster.node(host).volume.data();
        let (bytes, done) = (bytes(&data.join("incoming")), data.join("INSTALLED").exists());
        eprintln!("    {bytes} bytes of it have arrived{}", if done { ", one was installed" } else { "" });
        bytes
    }

    /// Another node leads, but none of those; false when none does.
    pub(super) fn move_leadership(&mut self, not: &[u8]) -> bool {
        let leader = self.cluster.leader();
        let others: Vec<u8> =
            self.cluster.running().into_iter().filter(|host| *host != leader && !not.contains(host)).collect();
        if others.is_empty() {
            return false;
        }
        let next = self.any(&others);
        let to = self.cluster.hosts.node(next);
        let answer = cluster::ask_within(
            leader,
            "POST",
            "/api/cluster/transfer",
            &json!({ "to": to }).to_string(),
            cluster::CHANGE,
        );
        eprintln!("    leadership goes to node {to}: {:?}", answer.map(|answer| answer.status));
        // A node that must not lead now may decline: then everything stays as it is.
        let deadline = Instant::now() + MOVED;
        while self.cluster.leader() == leader {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(ms(20));
        }
        true
    }
}

/// Bytes of the files below a folder.
fn bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
