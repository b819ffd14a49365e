//! Writes against what is there at the end: lost, holes, duplicates, phantoms, torn batches.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Facts;
use super::{Property, Violation, seconds};
use crate::history::{Log, Op};

/// Violations whose refusals are looked up.
const TOLD_MAX: usize = 20;

pub(super) fn check(facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = missing(facts);
    violations.extend(surplus(facts));
    violations.extend(torn(facts));
    violations
}

/// Acknowledged and not there.
fn missing(facts: &Facts<'_>) -> Vec<Violation> {
    let gone = facts.fates.iter().filter(|(payload, _)| !facts.places.contains_key(*payload));
    let gone = gone.filter_map(|(payload, fate)| Some((*payload, *fate, fate.acknowledged?)));
    // The last visible write of each producer, by the start of its first attempt.
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    for (_, fate) in facts.fates.iter().filter(|(payload, _)| facts.places.contains_key(*payload)) {
        let latest = newest.entry(fate.producer).or_default();
        *latest = fate.begin.max(*latest);
    }
    // What retention took is told by `logs`, once for each node.
    let first = facts.logs.get(&Log::Aged).and_then(|values| values.keys().next()).copied().unwrap_or(0);
    let gone = gone.filter(|(_, fate, _)| fate.log != Log::Aged || fate.told.is_none_or(|told| told >= first));
    let told = gone.map(|(payload, fate, acknowledged)| {
        let hole = newest.get(&fate.producer).is_some_and(|latest| *latest > acknowledged);
        let property = if hole { Property::Hole } else { Property::LostWrite };
        let text = format!(
            "payload {payload} of producer {} in {:?} was acknowledged at {} and is on no node",
            fate.producer,
            fate.log,
            seconds(acknowledged)
        );
        Violation::new(property, text)
    });
    told.collect()
}

/// There more than once, or without having been accepted.
fn surplus(facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (payload, places) in &facts.places {
        let fate = facts.fates.get(payload);
        if places.len() > 1 {
            let attempts = fate.map_or(0, |fate| fate.attempts);
            let property = if attempts > 1 { Property::Duplicate } else { Property::StoredTwice };
            let text = format!("payload {payload} is stored at {places:?} after {attempts} attempts");
            violations.push(Violation::new(property, text));
        }
        let (property, why) = match fate {
            None => (Property::Phantom, "nobody published"),
            Some(fate) if fate.refused => (Property::RefusedButStored, "was refused each time"),
            Some(fate) if fate.known_unasked => (Property::RefusedButStored, "was refused, and then its key was known"),
            Some(_) => continue,
        };
        let said = refusals(facts, *payload, violations.len());
        violations.push(Violation::new(property, format!("payload {payload} at {places:?}: {why}{said}")));
    }
    violations
}

/// What nodes said to the attempts, for the first of many.
fn refusals(facts: &Facts<'_>, payload: u64, told: usize) -> String {
    if told > TOLD_MAX {
        return String::new();
    }
    let calls = facts.calls.iter().filter_map(|call| match call.op {
        Op::Publish(publish) if (publish.payload..publish.payload + publish.count).contains(&payload) => {
            let said = publish.said.as_deref().unwrap_or("no connection");
            Some(format!("; node {} at {}: {said}", call.node, seconds(call.end.unwrap_or(facts.end))))
        }
        _ => None,
    });
    calls.collect()
}

/// A batch is stored whole and in a row, or not at all. One of which nothing is left is a lost write.
fn torn(facts: &Facts<'_>) -> Vec<Violation> {
    let batches: BTreeSet<(u64, u64)> = facts.fates.values().map(|fate| fate.batch).collect();
    let mut violations = Vec::new();
    for (first, count) in batches.into_iter().filter(|(_, count)| *count > 1) {
        let places: Vec<Option<(Log, u64)>> = (first..first + count)
            .map(|payload| facts.places.get(&payload).and_then(|places| places.first().copied()))
            .collect();
        let in_a_row = places.windows(2).all(|pair| match (pair[0], pair[1]) {
            (Some((log, index)), Some((next_log, next))) => log == next_log && next == index + 1,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        });
        if !in_a_row {
            let text = format!("the batch of {count} payloads from {first} on is stored at {places:?}");
            violations.push(Violation::new(Property::TornBatch, text));
        }
    }
    violations
}
