//! The logs themselves: one value for each position, seen by all at all times, the same on all nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Facts, Kept, Value};
use super::{Property, Violation, seconds};
use crate::history::{Log, Op, Phase};

pub(super) fn check(facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = two_values(facts);
    violations.extend(dirty(facts));
    violations.extend(jumps(facts));
    violations.extend(unequal(facts));
    violations
}

/// Every value that anybody was told for a position: by an acknowledgement, a delivery, the reading at the end.
fn two_values(facts: &Facts<'_>) -> Vec<Violation> {
    let mut told: BTreeMap<(Log, u64), BTreeMap<Value, String>> = BTreeMap::new();
    let mut tell = |log: Log, index: u64, id: &str, payload: u64, who: String| {
        let value = Value { id: id.to_owned(), payload };
        told.entry((log, index)).or_default().entry(value).or_insert(who);
    };
    for call in facts.calls.iter().filter(|call| call.phase == Phase::Ok) {
        let Op::Publish(publish) = call.op else { continue };
        if let (Some(index), Some(id)) = (publish.index, &publish.id) {
            let who = format!("the answer of node {} at {}", call.node, seconds(call.end.unwrap_or(0)));
            tell(publish.log, index, id, publish.payload, who);
        }
    }
    for record in facts.history.seen() {
        let at = seconds(record.at);
        match &record.op {
            Op::Deliver { log, index, id, payload, .. } => {
                tell(
                    *log,
                    *index,
                    id,
                    *payload,
                    format!("consumer {} on node {} at {at}", record.process, record.node),
                );
            }
            Op::Stored { log, index, id, payload, .. } => {
                tell(*log, *index, id, *payload, format!("node {} at the end", record.node));
            }
            _ => {}
        }
    }
    let clashes = told.into_iter().filter(|(_, values)| values.len() > 1);
    let text = |((log, index), values)| format!("{log:?} {index}: {values:?}");
    clashes.map(|clash| Violation::new(Property::InconsistentOffsets, text(clash))).collect()
}

/// Delivered from a position that nobody has at the end.
fn dirty(facts: &Facts<'_>) -> Vec<Violation> {
    let mut positions = BTreeSet::new();
    let mut violations = Vec::new();
    for record in facts.history.seen() {
        let Op::Deliver { log, index, id, .. } = &record.op else { continue };
        let kept = facts.logs.get(log).is_some_and(|values| values.contains_key(index));
        if !kept && positions.insert((*log, *index)) {
            let (process, node, at) = (record.process, record.node, seconds(record.at));
            let text =
                format!("{log:?} {index} ({id}) came from node {node} to consumer {process} at {at}, and is gone");
            violations.push(Violation::new(Property::DirtyRead, text));
        }
    }
    violations
}

/// Positions begin at 1 and none is left out, on no node.
fn jumps(facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for ((log, node), events) in &facts.kept {
        let mut want = 1;
        // What no node has any more was trimmed; what one node lacks it has lost.
        let trimmed = facts.logs.get(log).and_then(|values| values.keys().next()).is_some_and(|first| *first > 1);
        for index in events.keys() {
            if *log == Log::Aged && trimmed && want == 1 && *index > 1 {
                let text = format!("{log:?} of node {node} begins at {index}: everything is younger than its age");
                violations.push(Violation::new(Property::TrimmedEarly, text));
            } else if *index != want {
                let text =
                    format!("{log:?} of node {node} goes from {} to {index} when read from the oldest", want - 1);
                violations.push(Violation::new(Property::Skip, text));
            }
            want = index + 1;
        }
    }
    violations
}

/// Every running node has every event, byte for byte. Different values are told by `two_values`.
fn unequal(facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let nothing: BTreeMap<u64, Kept> = BTreeMap::new();
    for (log, values) in &facts.logs {
        for node in facts.running() {
            let own = facts.kept.get(&(*log, node)).unwrap_or(&nothing);
            let missing: Vec<u64> = values.keys().filter(|index| !own.contains_key(index)).copied().collect();
            if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
                let text = format!("node {node} lacks {} events of {log:?}, from {first} to {last}", missing.len());
                violations.push(Violation::new(Property::ReplicaEquality, text));
            }
        }
        let mut sums: BTreeMap<(u64, &Value), BTreeMap<u64, u64>> = BTreeMap::new();
        for ((_, node), events) in facts.kept.iter().filter(|((own, _), _)| own == log) {
            for (index, kept) in events {
                sums.entry((*index, &kept.value)).or_default().entry(kept.sum).or_insert(*node);
            }
        }
        for ((index, _), sums) in sums.into_iter().filter(|(_, sums)| sums.len() > 1) {
            let nodes: Vec<u64> = sums.into_values().collect();
            let text = format!("{log:?} {index} has the same id but other bytes on nodes {nodes:?}");
            violations.push(Violation::new(Property::ReplicaEquality, text));
        }
    }
    violations
}
