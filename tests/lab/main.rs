//! The lab: a cluster of real processes under load and under faults, and a judge of what its clients saw.
//!
//! `cargo test` judges the judge and makes a short run of the most telling faults; `make lab` makes long ones.
//! A run prints its seed; `ROLLBOOK_LAB_SEED` repeats it. One that fails leaves its history and the logs of
//! the nodes in a folder, which it prints.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stderr,
    reason = "a test fails by panicking and tells what it did on standard error"
)]

/// From a history to what is wrong with it.
mod checker;
/// Nodes on hosts of their own.
mod cluster;
/// Where a node keeps its data.
mod disk;
/// What is done to a cluster.
mod faults;
/// Processes, HTTP and SSE for all tests.
#[path = "../harness/mod.rs"]
#[expect(dead_code, reason = "the lab starts its nodes itself")]
mod harness;
/// What clients did and saw.
mod history;
/// Which node is where.
mod hosts;
/// Network namespaces.
mod net;
/// One node.
mod node;
/// One run.
mod run;
/// Programs of the system.
mod system;
/// Load and observation.
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use checker::{Bounds, Property, Report, broken, check};
use faults::Fault;
use harness::Rng;
use history::History;
use run::{Plan, Verdict, seed};

/// Faults in one long run.
const LONG: u64 = 5;

/// A number of the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: {text} is no number")))
}

/// How many nodes a long run has.
fn nodes() -> u8 {
    number("ROLLBOOK_LAB_NODES").map_or(3, |nodes| if nodes == 1 { 1 } else { 3 })
}

/// The faults that somebody asks for, in this order.
fn chosen() -> Option<Vec<Fault>> {
    let text = std::env::var("ROLLBOOK_LAB_FAULT").or_else(|_| std::env::var("ROLLBOOK_LAB_FAULTS")).ok()?;
    Some(text.split(',').map(Fault::named).collect())
}

/// The faults that so many nodes can have.
fn kinds(nodes: u8) -> Vec<Fault> {
    Fault::ALL.into_iter().filter(|fault| nodes > 1 || fault.alone()).collect()
}

#[test]
fn one_node_keeps_what_it_acknowledged_over_a_kill_and_a_power_cut() {
    Plan::new("one-node", 1, &[Fault::KillAll, Fault::PowerAll]).must_hold();
}

#[test]
fn the_leader_and_then_all_nodes_are_killed() {
    Plan::new("kill", 3, &[Fault::KillLeader, Fault::KillAll]).must_hold();
}

#[test]
fn the_leader_stands_still() {
    Plan::new("pause", 3, &[Fault::PauseLeader]).must_hold();
}

#[test]
fn the_leader_is_cut_off() {
    Plan::new("partition", 3, &[Fault::LeaderAlone]).must_hold();
}

#[test]
fn all_nodes_lose_power_at_once() {
    Plan::new("power", 3, &[Fault::PowerAll]).must_hold();
}

#[test]
fn the_data_of_one_node_is_damaged() {
    Plan::new("damage", 3, &[Fault::Damage]).must_hold();
}

#[test]
fn a_node_without_its_data_comes_back_under_a_new_number_only() {
    Plan::new("lost-disk", 3, &[Fault::LostDisk]).must_hold();
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over() {
    Plan::new("hand-over", 3, &[Fault::HandOver]).must_hold();
}

/// `ROLLBOOK_LAB_RUNS` runs from `ROLLBOOK_LAB_SEED` on, each with faults of all kinds.
#[test]
#[ignore = "takes long: make lab"]
fn long_runs_with_faults_of_all_kinds() {
    if number("ROLLBOOK_LAB_SECONDS").is_some() {
        eprintln!("skipped: ROLLBOOK_LAB_SECONDS asks for one run of that time");
        return;
    }
    let (first, nodes) = (seed(), nodes());
    for seed in first..first + number("ROLLBOOK_LAB_RUNS").unwrap_or(10) {
        let mut rng = Rng::seeded(seed);
        let kinds = kinds(nodes);
        let any = |_| kinds[rng.pick(0, kinds.len() as u64) as usize];
        let faults: Vec<Fault> = chosen().unwrap_or_else(|| (0..LONG).map(any).collect());
        Plan { seed, stretch: 3, ..Plan::new("long", nodes, &faults) }.must_hold();
    }
}

/// One run of `ROLLBOOK_LAB_SECONDS` with faults of all kinds, and a table of what happened.
#[test]
#[ignore = "needs ROLLBOOK_LAB_SECONDS: make lab"]
fn one_run_for_as_long_as_is_wanted() {
    let Some(seconds) = number("ROLLBOOK_LAB_SECONDS") else {
        eprintln!("skipped: ROLLBOOK_LAB_SECONDS is not set");
        return;
    };
    let faults = chosen().unwrap_or_else(|| kinds(nodes()));
    let lasts = Some(Duration::from_secs(seconds));
    Plan { lasts, ..Plan::new("hours", nodes(), &faults) }.must_hold();
}

/// A judge who has never condemned proves nothing. `ROLLBOOK_LAB_BROKEN` is a build that breaks a promise under
/// `ROLLBOOK_LAB_FAULT`: one of `ROLLBOOK_LAB_RUNS` runs at least must end with one of the properties
/// `ROLLBOOK_LAB_EXPECT`, or with `any`. Without that it is a build with the feature `lab-ack-before-fsync`.
#[test]
#[ignore = "needs a build of its own: make lab"]
fn a_broken_build_is_found_out() {
    let Some(binary) = std::env::var_os("ROLLBOOK_LAB_BROKEN").map(PathBuf::from) else {
        eprintln!("skipped: ROLLBOOK_LAB_BROKEN is not set");
        return;
    };
    let expected = std::env::var("ROLLBOOK_LAB_EXPECT").ok();
    let trials = match expected.as_ref().and_then(|_| chosen()) {
        Some(faults) => vec![(nodes(), faults, number("ROLLBOOK_LAB_RUNS").unwrap_or(5))],
        // Every power cut takes acknowledged writes along.
        None => vec![(1, vec![Fault::PowerAll], 1), (3, vec![Fault::PowerAll], 1)],
    };
    let expected: Vec<Property> = match expected.as_deref() {
        Some("any") => Vec::new(),
        Some(names) => names.split(',').map(Property::named).collect(),
        None => vec![Property::LostWrite, Property::Hole],
    };
    for (nodes, faults, runs) in trials {
        let first = seed();
        let mut condemned = 0;
        let mut told = 0;
        for seed in first..first + runs {
            let plan = Plan { seed, binary: Some(binary.clone()), ..Plan::new("broken-build", nodes, &faults) };
            let Some(Verdict { violations, evidence }) = plan.run() else { continue };
            eprint!("{}", Report(&violations));
            let found = broken(&violations);
            let right =
                if expected.is_empty() { !found.is_empty() } else { expected.iter().any(|one| found.contains(one)) };
            told += 1;
            condemned += u64::from(right);
            eprintln!("{faults:?}, seed {seed}: {found:?}; evidence in {}", evidence.display());
        }
        eprintln!("{faults:?}: condemned {condemned} of {told} times");
        assert!(told == 0 || condemned > 0, "{faults:?} must show {expected:?}");
    }
}

/// The evidence of a run that failed, judged once more: for work on the judge.
#[test]
#[ignore = "needs ROLLBOOK_LAB_HISTORY, the history.ndjson of a run"]
fn a_saved_history_is_judged_again() {
    let Some(path) = std::env::var_os("ROLLBOOK_LAB_HISTORY").map(PathBuf::from) else {
        eprintln!("skipped: ROLLBOOK_LAB_HISTORY is not set");
        return;
    };
    let history = History::load(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let violations = check(&history, &Bounds::default());
    assert!(violations.is_empty(), "{}", Report(&violations));
}
