//! What retention took out of sight, and a kill right after its disk was given back.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Fault, Nemesis, USUAL};
use crate::cluster;
use crate::harness::ms;

/// Publishes into the namespace of which nothing stays.
const EVENTS: u32 = 60;
/// A node settles again within this, and gives disk back.
const STEP: Duration = Duration::from_secs(8);
/// Bound of retention, which looks once a second.
const TRIMMED: Duration = Duration::from_secs(15);

impl Nemesis<'_> {
    /// All events of a namespace are settled, then they go because of their age. A follower is away, so that nothing
    /// is purged from the log: only what goes itself brings the state to the disk. When the disk was given back, one of
    /// the others is killed. Nothing is missing: it must start.
    pub(super) fn forgotten(&mut self) {
        let (away, hosts) = (self.follower(), self.cluster.running());
        let others: Vec<u8> = hosts.iter().copied().filter(|host| *host != away).collect();
        let one = self.any(&others);
        let name = format!("fleeting{}", self.rng.pick(0, 1 << 32));
        let target = format!("/api/namespaces/{name}");
        self.cluster.insist("POST", "/api/namespaces", &json!({ "name": name }));
        for _ in 0..EVENTS {
            self.crowd.answer(away, &name);
        }
        hosts.iter().for_each(|host| self.cluster.await_settled(*host));
        self.during(Fault::Forgotten, Self::everybody(away), |nemesis| {
            nemesis.cluster.kill(away);
            std::thread::sleep(STEP);
            nemesis.cluster.insist("PATCH", &target, &json!({ "retention": { "max_age": "1s" } }));
            let deadline = Instant::now() + TRIMMED;
            while !others.iter().all(|host| is_empty(*host, &name)) && Instant::now() < deadline {
                std::thread::sleep(ms(50));
            }
            if Instant::now() >= deadline {
                nemesis.missed(Fault::Forgotten, "nothing was trimmed");
            }
            std::thread::sleep(STEP);
            nemesis.cluster.kill(one);
            [away, one].into_iter().for_each(|host| nemesis.cluster.spawn(host));
        });
        [away, one].into_iter().for_each(|host| self.must_start(host, Fault::Forgotten));
        self.recovered(Fault::Forgotten, USUAL);
    }
}

/// Whether a node has no event of a namespace in sight, and had some.
fn is_empty(host: u8, name: &str) -> bool {
    let target = format!("/api/namespaces/{name}?consistency=stale");
    let answer = cluster::ask(host, "GET", &target, "").ok().filter(|answer| answer.status == 200);
    answer.is_some_and(|answer| {
        let (first, next) = (answer.json()["first_index"].as_u64(), answer.json()["next_index"].as_u64());
        first == next && next > Some(1)
    })
}
