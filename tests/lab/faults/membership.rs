//! Nodes that join and catch up while other things go wrong.

use serde_json::{Value, json};

use super::{Fault, Nemesis, USUAL};
use crate::cluster;
use crate::harness::http::Http;
use crate::harness::ms;
use crate::hosts;
use crate::net::Loss;

/// Batches of half a megabyte: more than the log keeps, so that a snapshot is needed.
const BATCHES: u32 = 180;
/// How often the node that catches up is killed.
const CUTS: u32 = 3;
/// A host that is not there.
const NOBODY: u8 = 99;

impl Nemesis<'_> {
    /// While a follower is away the log is written full and purged; then it is killed several times on its
    /// way back, and once the sender is.
    pub(super) fn snapshot_cut(&mut self) {
        let follower = self.follower();
        let leader = self.cluster.leader();
        self.during(Fault::SnapshotCut, self.one(follower), |nemesis| {
            nemesis.cluster.kill(follower);
            fill(leader);
            // The log is settled and purged some seconds after the last of it.
            nemesis.last(7000, 9000);
            for _ in 0..CUTS {
                nemesis.cluster.spawn(follower);
                nemesis.last(100, 1500);
                nemesis.cluster.kill(follower);
            }
            nemesis.cluster.spawn(follower);
            nemesis.last(100, 1000);
        });
        let leader = self.cluster.leader();
        if leader != follower {
            self.cluster.kill(leader);
            self.last(1000, 2000);
            self.cluster.spawn(leader);
            self.cluster.await_ready(leader);
        }
        self.cluster.await_ready(follower);
        let installed = self.cluster.node(follower).volume.data().join("GENERATION").exists();
        if !installed {
            self.missed(Fault::SnapshotCut, "the node has not installed a snapshot");
        }
    }

    /// A fourth node becomes a voter while one of the three is cut off and the leader is killed.
    pub(super) fn membership_cut(&mut self) {
        let (leader, follower) = (self.cluster.leader(), self.follower());
        let spare = self.cluster.hosts.vacant().expect("a host without a node");
        let all = self.cluster.hosts.inhabited();
        let mut node = 0;
        self.during(Fault::MembershipCut, Self::everybody(follower), |nemesis| {
            nemesis.cluster.net.cut(follower, &all, Loss::Both);
            node = nemesis.cluster.prepare(spare);
            nemesis.cluster.spawn(spare);
            nemesis.cluster.await_ready(spare);
            let helper = all.iter().copied().find(|host| ![leader, follower].contains(host)).unwrap_or(leader);
            let target = format!("/api/cluster/nodes/{node}/promote");
            let promotion = std::thread::spawn(move || cluster::ask(helper, "POST", &target, "").is_ok());
            nemesis.last(0, 60);
            nemesis.cluster.kill(leader);
            let answered = promotion.join().expect("the one who asks");
            eprintln!("    the promotion was {}answered", if answered { "" } else { "not " });
            nemesis.last(500, 1500);
            nemesis.cluster.net.heal();
            nemesis.cluster.spawn(leader);
        });
        self.cluster.await_ready(leader);
        self.cluster.insist("POST", &format!("/api/cluster/nodes/{node}/promote"), &Value::Null);
        std::thread::sleep(ms(1000));
        // And out again, so that it can happen once more.
        self.cluster.remove(node);
        std::thread::sleep(ms(500));
        self.cluster.vacate(spare);
    }
}

impl Nemesis<'_> {
    /// A node joins, becomes a voter, leads, hands over and leaves, under load; half of the times with one of
    /// the others down.
    pub(super) fn membership(&mut self) {
        let spare = self.cluster.hosts.vacant().expect("a host without a node");
        let down = if self.rng.pick(0, 2) == 0 { Some(self.follower()) } else { None };
        eprintln!("    a node joins host {spare}, down is {down:?}");
        self.during(Fault::Membership, Self::everybody(spare), |nemesis| {
            down.into_iter().for_each(|host| nemesis.cluster.kill(host));
            nemesis.cluster.join(spare);
            let node = nemesis.cluster.hosts.node(spare);
            nemesis.cluster.insist("POST", "/api/cluster/transfer", &json!({ "to": node }));
            nemesis.last(500, 1500);
            nemesis.move_leadership(&[spare]);
            nemesis.last(200, 500);
            nemesis.cluster.remove(node);
            down.into_iter().for_each(|host| nemesis.cluster.spawn(host));
        });
        down.into_iter().for_each(|host| self.cluster.await_ready(host));
        self.bury_all_but(spare, Fault::Membership);
        self.cluster.vacate(spare);
        self.recovered(Fault::Membership, USUAL);
    }

    /// A node that was never started must not become a voter: nobody would ever hear of its vote.
    pub(super) fn ghost(&mut self) {
        let leader = self.cluster.leader();
        self.during(Fault::Ghost, self.one(leader), |nemesis| {
            let address = json!({ "address": hosts::peer(NOBODY).to_string() });
            let given = nemesis.cluster.insist("POST", "/api/cluster/nodes", &address);
            let node = given["id"].as_u64().expect("the number of a node");
            nemesis.last(500, 1500);
            let target = format!("/api/cluster/nodes/{node}/promote");
            let answer = cluster::ask_within(leader, "POST", &target, "", cluster::CHANGE);
            let said = answer.map(|answer| (answer.status, answer.text().trim().to_owned()));
            eprintln!("    the promotion of a node that was never started: {said:?}");
            if let Ok((200..300, text)) = said {
                nemesis.broken(leader, format!("a node that was never started votes: {text}"));
            }
            nemesis.cluster.remove(node);
        });
        self.recovered(Fault::Ghost, USUAL);
    }
}

/// Publishes much, into a namespace that nobody looks at.
fn fill(host: u8) {
    let item = format!("{{\"subject\":\"bulk.x\",\"payload\":\"{}\"}}", "x".repeat(1000));
    let batch = format!("[{}]", vec![item.as_str(); 500].join(","));
    let mut http = Http::connect(hosts::log(host));
    for number in 0..BATCHES {
        let answer = http.post(&batch);
        assert!([202, 503].contains(&answer.status), "batch {number}: {} {}", answer.status, answer.text());
    }
}
