//! Faults that were mended and are put back one at a time, and what must find each.
//!
//! A judge who has never condemned proves nothing. The build with the feature `lab-faults` has all of them, and
//! `ROLLBOOK_LAB_BUG` says to its nodes which one is on: `cluster/src/lab_faults.rs`.

use std::fs;

use rollbook_cluster::lab_faults::{Bug, VARIABLE};

use crate::checker::{Property, Report, broken};
use crate::faults::Fault;
use crate::run::{Plan, Verdict};

/// One way in which a fault must be found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) bug: Bug,
    /// Nodes of the cluster.
    nodes: u8,
    /// What is done to the cluster in one run.
    faults: &'static [Fault],
    /// One of these must be broken.
    expected: &'static [Property],
    /// Runs at most: some faults show only when things happen within milliseconds.
    runs: u64,
}

/// What came out of some runs.
#[derive(Debug)]
pub(crate) struct Trial {
    /// Runs until the first that was condemned for what was expected.
    pub(crate) runs: u64,
    /// What was broken then.
    pub(crate) condemned: Option<String>,
    /// Faults of the lab that did not take effect.
    pub(crate) missed: usize,
}

const fn case(bug: Bug, faults: &'static [Fault], expected: &'static [Property], runs: u64) -> Case {
    Case { bug, nodes: 3, faults, expected, runs }
}

/// The same, with one node.
const fn alone(case: Case) -> Case {
    Case { nodes: 1, ..case }
}

/// Each fault has one line at least.
pub(crate) const CASES: &[Case] = &[
    alone(case(Bug::AckBeforeFsync, &[Fault::PowerAll], &[Property::LostWrite, Property::Hole], 2)),
    case(Bug::AckBeforeFsync, &[Fault::PowerAll], &[Property::LostWrite, Property::Hole], 2),
    alone(case(Bug::LogNotCompared, &[Fault::TailRaft], &[Property::LostWrite, Property::Hole], 4)),
    case(Bug::LostMarkAccepted, &[Fault::TailMark], &[Property::Broken], 2),
    case(Bug::MarkNotLowered, &[Fault::TruncatedTail], &[Property::Broken], 3),
    case(Bug::LedgerNotCompared, &[Fault::TailLedger], &[Property::Skip, Property::ReplicaEquality], 4),
    case(Bug::ForgetBeforeFlush, &[Fault::Forgotten], &[Property::Broken], 2),
    case(Bug::ReceiverWaits, &[Fault::SnapshotTransfer], &[Property::Recovery], 3),
    case(Bug::SnapshotInWorker, &[Fault::SnapshotFull], &[Property::Recovery, Property::NodeEnded], 3),
    case(Bug::InodesNotCounted, &[Fault::SnapshotInodes], &[Property::NodeEnded, Property::Broken], 2),
    case(Bug::RefusedThoughGiven, &[Fault::QueueFull], &[Property::RefusedButStored], 5),
    case(Bug::WaitsForEver, &[Fault::KillTwo], &[Property::LateAnswer], 2),
    case(Bug::GivenUpIsWritten, &[Fault::KillTwo], &[Property::RefusedButStored, Property::StoredLate], 2),
    case(Bug::BatchesRace, &[Fault::Pipelined], &[Property::PipelineOrder], 2),
    case(Bug::BatchRenumbered, &[Fault::QueueFull], &[Property::StoredTwice], 5),
    case(Bug::KeysForgotten, &[Fault::DeafLeader, Fault::DeafLeader], &[Property::Duplicate], 3),
    case(Bug::SilenceBelieved, &[Fault::SilentAll], &[Property::Recovery], 2),
    case(Bug::SilenceBelieved, &[Fault::SilentNode], &[Property::Recovery], 3),
    case(Bug::ReadyWithoutMajority, &[Fault::SilentAll], &[Property::Broken], 1),
    case(Bug::WallClockBelieved, &[Fault::JumpAhead], &[Property::TrimmedEarly], 2),
    case(Bug::UnheardVotes, &[Fault::Ghost], &[Property::Broken], 1),
    case(Bug::RemovedHalfway, &[Fault::Membership], &[Property::Broken], 1),
];

impl Case {
    fn title(&self) -> String {
        let Self { bug, nodes, faults, .. } = self;
        format!("{bug:?}, {nodes} nodes, {faults:?}")
    }

    /// Runs until the fault was found out.
    pub(crate) fn try_out(&self, plan: Plan) -> Trial {
        let plan = Plan { bug: Some(self.bug), nodes: self.nodes, faults: self.faults.to_vec(), ..plan };
        try_out(&plan, self.expected, self.runs)
    }

    /// A line of the table.
    pub(crate) fn told(&self, trial: &Trial) -> String {
        let Trial { runs, condemned, missed } = trial;
        let what = condemned.as_ref().map_or_else(|| "NOT FOUND".to_owned(), |text| format!("found: {text}"));
        format!("{}: after {runs} runs ({missed} faults without effect) {what}", self.title())
    }
}

/// Runs a plan at most so often, each time with the next seed, until one of the properties is broken; any if none is
/// named.
pub(crate) fn try_out(plan: &Plan, expected: &[Property], runs: u64) -> Trial {
    let mut trial = Trial { runs: 0, condemned: None, missed: 0 };
    for seed in plan.seed..plan.seed + runs {
        let plan = Plan { seed, ..plan.clone() };
        let Some(Verdict { violations, evidence, missed }) = plan.run() else { return trial };
        let (found, report) = (broken(&violations), Report(&violations).to_string());
        eprint!("{report}");
        eprintln!("{:?}, seed {seed}: {found:?}; evidence in {}", plan.faults, evidence.display());
        fs::write(evidence.join("violations.txt"), report).expect("write the violations");
        if let Some(bug) = plan.bug {
            let said = fs::read_to_string(evidence.join("host-1.log")).unwrap_or_default();
            assert!(said.contains(&format!("{bug:?} is put back")), "this program has no {bug:?}: see {VARIABLE}");
        }
        trial.runs += 1;
        trial.missed += missed;
        let right = violations.iter().find(|one| expected.is_empty() || expected.contains(&one.property));
        if let Some(right) = right {
            trial.condemned = Some(format!("{:?}, {}", right.property, right.text.lines().next().unwrap_or_default()));
            return trial;
        }
    }
    trial
}

#[test]
fn each_fault_that_can_be_put_back_must_be_found_by_something() {
    for bug in Bug::ALL {
        let cases: Vec<&Case> = CASES.iter().filter(|case| case.bug == *bug).collect();
        assert!(!cases.is_empty(), "nothing is to find {bug:?}");
        assert!(cases.iter().all(|case| !case.expected.is_empty() && case.runs > 0 && !case.faults.is_empty()));
    }
}
