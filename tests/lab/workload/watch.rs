//! Who leads, as each node tells it: not judged, but the first thing to look at when something took long.

use crate::cluster;
use crate::harness::ms;
use crate::history::{Op, Phase};

use super::Scene;

/// How often a node is asked.
const EVERY: std::time::Duration = ms(100);

/// Asks one host and notes what has changed.
pub(super) fn run(scene: &Scene, process: u32, host: u8) {
    let mut known = None;
    while scene.reading() {
        std::thread::sleep(EVERY);
        let status = cluster::ask(host, "GET", "/api/cluster", "").ok().filter(|answer| answer.status == 200);
        let told = status.map(|answer| answer.json()).map(|json| (json["leader"].as_u64(), json["term"].as_u64()));
        if told.is_some() && told != known {
            known = told;
            let (leader, term) = told.unwrap_or_default();
            scene.recorder.note(process, scene.hosts.node(host), Phase::Seen, Op::Leader { leader, term });
        }
    }
}
