//! The end of a run: what every node takes and what every node has.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster;
use crate::harness::ms;
use crate::harness::sse::Sse;
use crate::history::{Log, Op, Phase};
use crate::hosts;

use super::client::{Client, PATIENCE};
use super::crowd::Crowd;
use super::tail::Event;
use super::{READERS, Scene, namespace};

/// How long each host is asked for a publish, and a little more than is promised.
pub(super) const PROBED: Duration = Duration::from_secs(11);
/// Bound of reading one log of one host, and what is added for each event of it.
const READ: Duration = Duration::from_secs(20);
const READ_EACH: Duration = Duration::from_micros(500);
/// A log that has not come further for so long is at its end.
const QUIET: Duration = Duration::from_secs(5);
/// What comes behind the mark comes within this.
const REST: Duration = ms(300);

/// A last event for each log, through whichever host takes it; its index is where the log ends.
pub(super) fn marks(crowd: &Crowd, hosts: &[u8]) -> BTreeMap<Log, u64> {
    let mut client = Client::default();
    let mut mark = |log: Log| {
        let deadline = Instant::now() + PROBED;
        while Instant::now() < deadline {
            for host in hosts {
                if let Some(index) = crowd.publish(&mut client, log, *host).1 {
                    return index;
                }
            }
            std::thread::sleep(ms(50));
        }
        // Told by the check of liveness: what there is is read until nothing more comes.
        u64::MAX
    };
    let logs = [Log::Lab, Log::Work, Log::Aged, Log::Burst];
    let mut ends: BTreeMap<Log, u64> = logs.into_iter().map(|log| (log, mark(log))).collect();
    if let Some(end) = hosts.iter().filter_map(|host| end_of_roll(*host)).max() {
        ends.insert(Log::Roll, end);
    }
    ends
}

/// None when nodes do not call the roll.
fn end_of_roll(host: u8) -> Option<u64> {
    let answer = cluster::ask(host, "GET", "/api/namespaces/roll?consistency=stale", "").ok()?;
    (answer.status == 200).then(|| answer.json()["next_index"].as_u64())?.map(|next| next.saturating_sub(1))
}

/// Reads every log of every host from its oldest event. An unknown publish may have come behind the mark: the
/// first host is read until nothing more comes, and all others as far.
pub(super) fn read(scene: &Scene, hosts: &[u8], ends: &BTreeMap<Log, u64>) {
    let mut ends = ends.clone();
    for host in hosts {
        for (log, end) in &mut ends {
            *end = read_one(scene, *host, *log, *end, hosts.first() == Some(host)).max(*end);
        }
    }
}

/// The index of the last event.
fn read_one(scene: &Scene, host: u8, log: Log, end: u64, first: bool) -> u64 {
    let (process, node) = (READERS + u32::from(host), scene.hosts.node(host));
    let target = format!("/?subject={}.%3E&start=oldest", namespace(log));
    let Ok(mut stream) = Sse::try_open(hosts::log(host), &target, &[], PATIENCE) else { return 0 };
    let each = READ_EACH.saturating_mul(u32::try_from(end).unwrap_or(0));
    let deadline = Instant::now() + READ + each;
    let mut index = 0;
    while (index < end || first) && Instant::now() < deadline {
        let patience = if index < end { QUIET } else { REST };
        let Some(event) = stream.try_event(patience).as_ref().and_then(Event::of) else { break };
        index = event.index;
        let Event { payload, sum, .. } = event;
        scene.recorder.note(process, node, Phase::Seen, Op::Stored { log, index, id: event.id.clone(), payload, sum });
        if log == Log::Roll && first {
            lifecycle(scene, process, &event);
        }
    }
    index
}

/// Events of other kinds are none of a node's life.
fn lifecycle(scene: &Scene, process: u32, event: &Event) {
    let up = match event.json["subject"].as_str() {
        Some("roll.node.up") => true,
        Some("roll.node.down") => false,
        _ => return,
    };
    let about = &event.json["payload"]["node"];
    let number = |name: &str| about[name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", event.json));
    let op = Op::Lifecycle { index: event.index, incarnation: number("incarnation"), up };
    scene.recorder.note(process, number("id"), Phase::Seen, op);
}
