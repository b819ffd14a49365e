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

use checker::{Bounds, Property, Report, broken, check};
use faults::Fault;
use harness::Rng;
use history::History;
use run::{Plan, Verdict, seed};

/// Faults in one long run.
const LONG: u64 = 5;

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
    let runs = std::env::var("ROLLBOOK_LAB_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let nodes = std::env::var("ROLLBOOK_LAB_NODES").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let chosen = std::env::var("ROLLBOOK_LAB_FAULTS").ok().map(|text| text.split(',').map(Fault::named).collect());
    let first = seed();
    for seed in first..first + runs {
        let mut rng = Rng::seeded(seed);
        let kinds: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| nodes > 1 || fault.alone()).collect();
        let any = |_| kinds[rng.pick(0, kinds.len() as u64) as usize];
        let faults: Vec<Fault> = chosen.clone().unwrap_or_else(|| (0..LONG).map(any).collect());
        Plan { name: "long", seed, nodes, faults, stretch: 3, binary: None }.must_hold();
    }
}

/// A judge who has never condemned proves nothing. `ROLLBOOK_LAB_BROKEN` is a build with the feature
/// `lab-ack-before-fsync`.
#[test]
#[ignore = "needs a build of its own: make lab"]
fn a_build_that_acknowledges_before_fsync_is_found_out_by_a_power_cut() {
    let Some(binary) = std::env::var_os("ROLLBOOK_LAB_BROKEN").map(PathBuf::from) else {
        eprintln!("skipped: ROLLBOOK_LAB_BROKEN is not set");
        return;
    };
    for nodes in [1, 3] {
        let plan = Plan { binary: Some(binary.clone()), ..Plan::new("broken-build", nodes, &[Fault::PowerAll]) };
        let Some(Verdict { violations, evidence }) = plan.run() else { continue };
        eprint!("{}", Report(&violations));
        let found = broken(&violations);
        let lost = found.iter().any(|property| matches!(property, Property::LostWrite | Property::Hole));
        assert!(lost, "acknowledged writes must be missed: {found:?}; evidence in {}", evidence.display());
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
