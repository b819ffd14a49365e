//! What each node tells of the cluster: who leads, which is not judged but the first thing to look at when
//! something took long, and how far the durable consumer is, which is proof of a committed acknowledgement.

use serde_json::Value;

use crate::cluster;
use crate::harness::ms;
use crate::history::{Log, Op, Phase};

use super::{Scene, namespace};

/// How often a node is asked.
const EVERY: std::time::Duration = ms(100);

/// Asks one host and notes what has changed.
pub(super) fn run(scene: &Scene, process: u32, host: u8) {
    let (mut leader, mut floor) = (None, None);
    let note = |known: &mut Option<Op>, told: Option<Op>| {
        if told.is_some() && *known != told {
            known.clone_from(&told);
            told.into_iter().for_each(|op| scene.recorder.note(process, scene.hosts.node(host), Phase::Seen, op));
        }
    };
    while scene.reading() {
        std::thread::sleep(EVERY);
        let told = ask(host, "/api/cluster");
        note(&mut leader, told.map(|told| Op::Leader { leader: told["leader"].as_u64(), term: told["term"].as_u64() }));
        let told = ask(host, &format!("/api/consumers?namespace={}", namespace(Log::Work)));
        let index = told.and_then(|told| told["items"][0]["ack_floor"].as_u64());
        note(&mut floor, index.map(|index| Op::Floor { log: Log::Work, index }));
    }
}

fn ask(host: u8, target: &str) -> Option<Value> {
    let answer = cluster::ask(host, "GET", target, "").ok()?;
    (answer.status == 200).then(|| answer.json())
}
