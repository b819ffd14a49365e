//! Nodes are killed while envelopes go along a pipeline: whatever was accepted ends well or in error, nothing vanishes,
//! and nothing is done before its consumer said so.
//!
//! `programs` send, work and consume at three nodes and note what they see; `checker` judges the notes.

mod checker;
mod programs;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use checker::{Process, Seen, Verdict, check};
use programs::{Kind, Program, Shared};

use super::setup::{processes, set_up};
use crate::harness::cluster::{Cluster, free_addresses};
use crate::harness::node::{Node, Options};
use crate::harness::{Rng, ms};

const LINE: &str = "nodes:
- {id: in, type: emitter, roles: [shop]}
- {id: tax, type: worker, roles: [tax]}
- {id: archive, type: consumer, roles: [archive]}
edges:
- in.default->tax.default
- tax.default->archive.default
";
/// Each of them a program of its own.
const PROGRAMS: [(&str, Kind); 7] = [
    ("shop1", Kind::Emitter),
    ("shop2", Kind::Emitter),
    ("tax1", Kind::Worker),
    ("tax2", Kind::Worker),
    ("archive1", Kind::Consumer),
    ("archive2", Kind::Consumer),
    ("archive2", Kind::Consumer),
];
/// How long processes may take to end behind the last kill: detached jobs wait a minute for their actor.
const END: Duration = Duration::from_secs(90);

/// One run.
struct Run {
    cluster: Cluster,
    doors: Vec<String>,
    programs: Arc<[Program]>,
    rng: Rng,
}

impl Run {
    fn start(rng: Rng) -> Self {
        let doors = free_addresses(3);
        let mut cluster = Cluster::prepare(Options::new());
        cluster.up_with(&[1, 2, 3], |id, options| options.arg("--nats").arg(&doors[id - 1]));
        let program = |(place, (actor, kind))| Program { actor, kind, at: AtomicUsize::new(place % 3) };
        let programs = PROGRAMS.into_iter().enumerate().map(program).collect();
        Self { cluster, doors, programs, rng }
    }

    /// Kills a node that matters, and starts the node again.
    fn kill(&mut self) {
        let role = ["emitter", "worker", "consumer", "leader"][usize::try_from(self.rng.pick(0, 4)).expect("small")];
        let of = |kind: Kind| self.programs.iter().filter(move |program| program.kind == kind).collect::<Vec<_>>();
        let holders = match role {
            "emitter" => of(Kind::Emitter),
            "worker" => of(Kind::Worker),
            _ => of(Kind::Consumer),
        };
        let turn = usize::try_from(self.rng.pick(0, 97)).expect("small") % holders.len();
        let node = match role {
            "leader" => self.cluster.leader(),
            _ => holders[turn].at.load(Ordering::Relaxed) + 1,
        };
        // Sometimes another one at the same time: there is no majority then.
        let more = (self.rng.pick(0, 5) == 0).then_some(node % 3 + 1);
        let down = Duration::from_millis(self.rng.pick(0, 2500));
        eprintln!("kill -9 of node {node}, which holds the {role}, and {more:?}, for {down:?}");
        let nodes: Vec<usize> = [node].into_iter().chain(more).collect();
        nodes.iter().for_each(|node| self.cluster.kill(*node));
        std::thread::sleep(down);
        let doors = &self.doors;
        self.cluster.up_with(&nodes, |id, options| options.arg("--nats").arg(&doors[id - 1]));
    }

    /// Kills so many nodes while so many envelopes go along, and what was seen.
    fn judge(mut self, count: u64, kills: usize) -> Verdict {
        let actors: Vec<(&str, &str, &str)> = PROGRAMS[..6].iter().map(|(name, kind)| described(name, *kind)).collect();
        let setup = set_up(self.cluster.node(1), &actors, &[("orders", LINE)]);
        let shared = Shared {
            doors: self.doors.iter().map(|door| door.parse().expect("an address")).collect(),
            setup,
            count,
            next: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            seen: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
            denied: Mutex::new(Vec::new()),
        };
        let mut moments: Vec<u64> = (0..kills).map(|_| self.rng.pick(count / 20, count * 19 / 20)).collect();
        moments.sort_unstable();
        let begun = Instant::now();
        let programs = Arc::clone(&self.programs);
        let found = std::thread::scope(|scope| {
            let stop = StopAtEnd(&shared.stop);
            for program in &*programs {
                let shared = &shared;
                scope.spawn(move || program.run(shared));
            }
            for moment in moments {
                until("envelopes before a kill", || shared.answered.load(Ordering::Relaxed) >= moment);
                self.kill();
            }
            until("the acknowledgement of each envelope", || shared.answered.load(Ordering::Relaxed) >= count);
            eprintln!("{count} envelopes were accepted after {:?}", begun.elapsed());
            let found = ended(self.cluster.node(1));
            drop(stop);
            found
        });
        eprintln!("their processes have ended after {:?}", begun.elapsed());
        let denied = shared.denied.into_inner().expect("notes");
        if !denied.is_empty() {
            eprintln!("{} outputs of workers were refused, such as {:?}", denied.len(), denied[0]);
        }
        let seen: Vec<Seen> = shared.seen.into_inner().expect("notes");
        check(&seen, &found)
    }
}

/// Ends the programs, also when a test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn described(name: &'static str, kind: Kind) -> (&'static str, &'static str, &'static str) {
    match kind {
        Kind::Emitter => (name, "emitter", "shop"),
        Kind::Worker => (name, "worker", "tax"),
        Kind::Consumer => (name, "consumer", "archive"),
    }
}

fn until(what: &str, ready: impl Fn() -> bool) {
    let deadline = Instant::now() + END * 4;
    while !ready() {
        assert!(Instant::now() < deadline, "waited too long for: {what}");
        std::thread::sleep(ms(20));
    }
}

/// All processes, once they have ended, or after a while.
fn ended(node: &Node) -> Vec<Process> {
    let deadline = Instant::now() + END;
    while Instant::now() < deadline && !processes(node, "&status=running").is_empty() {
        std::thread::sleep(ms(200));
    }
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let found = processes(node, "").into_iter();
    found
        .map(|one| Process { id: text(&one["id"]), envelope: text(&one["envelope"]), status: text(&one["status"]) })
        .collect()
}

fn run(count: u64, kills: usize) {
    let verdict = Run::start(Rng::from_env("xbus kill")).judge(count, kills);
    let shown = verdict.violations.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    eprintln!(
        "{} accepted, {} done, {} in error, {} consumed again",
        verdict.accepted, verdict.done, verdict.failed, verdict.repeated
    );
    assert!(verdict.violations.is_empty(), "{} violations\n{shown}", verdict.violations.len());
    assert_eq!(verdict.accepted, usize::try_from(count).expect("small"));
    assert_eq!(verdict.failed, 0, "no actor has failed");
}

#[test]
fn no_accepted_envelope_is_lost_when_nodes_are_killed() {
    run(2000, 3);
}

#[test]
#[ignore = "minutes; ROLLBOOK_XBUS_ENVELOPES=10000 ROLLBOOK_XBUS_KILLS=20 say how many"]
fn no_accepted_envelope_is_lost_when_many_nodes_are_killed() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let kills = number("ROLLBOOK_XBUS_KILLS", 20);
    run(number("ROLLBOOK_XBUS_ENVELOPES", 10_000), usize::try_from(kills).expect("few"));
}
