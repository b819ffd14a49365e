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

/// Faults that are put back.
mod bugs;
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

use bugs::{CASES, Case};
use checker::{Bounds, Property, Report, check};
use faults::Fault;
use harness::Rng;
use history::History;
use rollbook_cluster::lab_faults::{Bug, VARIABLE};
use run::{Plan, seed};

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

/// `ROLLBOOK_LAB_FAULTY` is a build with the feature `lab-faults`: each fault that it can put back, or the one that
/// `ROLLBOOK_LAB_BUG` names, must be found out, and be found for what it is.
#[test]
#[ignore = "needs a build of its own: make lab"]
fn each_fault_put_back_is_found_out() {
    let Some(binary) = std::env::var_os("ROLLBOOK_LAB_FAULTY").map(PathBuf::from) else {
        eprintln!("skipped: ROLLBOOK_LAB_FAULTY is not set");
        return;
    };
    let wanted = std::env::var(VARIABLE).ok();
    let cases: Vec<&Case> =
        CASES.iter().filter(|case| wanted.as_ref().is_none_or(|name| format!("{:?}", case.bug) == *name)).collect();
    assert!(!cases.is_empty(), "no fault is named {wanted:?}; there are {:?}", Bug::ALL);
    let (mut lines, mut hidden) = (Vec::new(), 0);
    for case in cases {
        let trial = case.try_out(Plan { binary: Some(binary.clone()), ..Plan::new("bug", 3, &[]) });
        lines.push(case.told(&trial));
        eprintln!("{}", case.told(&trial));
        hidden += u32::from(trial.runs > 0 && trial.condemned.is_none());
    }
    eprintln!("\n{}", lines.join("\n"));
    assert_eq!(hidden, 0, "faults that the lab did not find");
}

/// `ROLLBOOK_LAB_BROKEN` is any program that breaks a promise under `ROLLBOOK_LAB_FAULT`: one of `ROLLBOOK_LAB_RUNS`
/// runs at least must end with one of the properties `ROLLBOOK_LAB_EXPECT`, or without that with any.
#[test]
#[ignore = "needs a program of its own: make lab"]
fn a_broken_build_is_found_out() {
    let Some(binary) = std::env::var_os("ROLLBOOK_LAB_BROKEN").map(PathBuf::from) else {
        eprintln!("skipped: ROLLBOOK_LAB_BROKEN is not set");
        return;
    };
    let faults = chosen().unwrap_or_else(|| vec![Fault::PowerAll]);
    let expected = std::env::var("ROLLBOOK_LAB_EXPECT").unwrap_or_default();
    let expected: Vec<Property> =
        expected.split(',').filter(|name| !["", "any"].contains(name)).map(Property::named).collect();
    let plan = Plan { binary: Some(binary), ..Plan::new("broken-build", nodes(), &faults) };
    let trial = bugs::try_out(&plan, &expected, number("ROLLBOOK_LAB_RUNS").unwrap_or(5));
    assert!(trial.runs == 0 || trial.condemned.is_some(), "{faults:?} must show {expected:?}");
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
