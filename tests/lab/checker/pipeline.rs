//! Pipelined publishes, and those that were given up: their order, their answers, their end.

use std::collections::BTreeMap;

use super::facts::{Facts, Fate};
use super::{Bounds, Property, Violation, seconds};
use crate::history::{Log, Op, Phase, nanos};

pub(super) fn check(facts: &Facts<'_>, bounds: &Bounds) -> Vec<Violation> {
    let mut violations = out_of_order(facts);
    violations.extend(late_answers(facts, bounds));
    violations.extend(stored_late(facts, bounds));
    violations
}

/// Publishes of one connection stand in the order in which they were written to it.
fn out_of_order(facts: &Facts<'_>) -> Vec<Violation> {
    // The one before that stands highest: payload and index.
    let mut highest: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let mut violations = Vec::new();
    // Calls come in the order in which they began.
    for call in &facts.calls {
        let Op::Publish(publish) = call.op else { continue };
        let Some(pipe) = publish.pipe else { continue };
        let place = facts.places.get(&publish.payload).and_then(|places| places.first());
        let Some((_, index)) = place.copied() else { continue };
        match highest.get(&pipe) {
            Some((earlier, above)) if *above > index => {
                let text = format!(
                    "payload {} was written to connection {pipe} of node {} after payload {earlier}, and stands at {index} before it at {above}",
                    publish.payload, call.node
                );
                violations.push(Violation::new(Property::PipelineOrder, text));
            }
            _ => drop(highest.insert(pipe, (publish.payload, index))),
        }
    }
    violations
}

/// A node answers within its own time-out. Most clients do not wait for so long; some do.
fn late_answers(facts: &Facts<'_>, bounds: &Bounds) -> Vec<Violation> {
    let late = facts.calls.iter().filter_map(|call| {
        let Op::Publish(publish) = call.op else { return None };
        let took = call.end?.saturating_sub(call.begin);
        // When a pipelined connection ended is not known. Any other client waited until then.
        let waited = call.phase != Phase::Unknown || publish.said.is_some() || publish.pipe.is_none();
        (waited && took > nanos(bounds.answer)).then(|| {
            let said = match (&publish.said, call.phase) {
                (Some(said), _) => said.as_str(),
                (None, Phase::Ok) => "accepted",
                (None, _) => "nothing",
            };
            let text = format!(
                "node {} answered payload {} after {} (bound {:?}): {said}",
                call.node,
                publish.payload,
                seconds(took),
                bounds.answer
            );
            Violation::new(Property::LateAnswer, text)
        })
    });
    late.collect()
}

/// What was given up is not written later: it does not stand behind a write that began long after its time-out.
fn stored_late(facts: &Facts<'_>, bounds: &Bounds) -> Vec<Violation> {
    let mut placed: BTreeMap<Log, Vec<(u64, u64, Fate)>> = BTreeMap::new();
    for (payload, fate) in &facts.fates {
        if let Some((log, index)) = facts.places.get(payload).and_then(|places| places.first().copied()) {
            placed.entry(log).or_default().push((index, *payload, *fate));
        }
    }
    let mut violations = Vec::new();
    for mut values in placed.into_values() {
        values.sort_unstable_by_key(|(index, ..)| *index);
        // Of those that stand before: the one that began last.
        let mut latest: Option<(u64, u64, u64)> = None;
        for (index, payload, fate) in values {
            let given_up = fate.last_begin.saturating_add(nanos(bounds.given_up));
            if let Some((begin, other, place)) =
                latest.filter(|(begin, ..)| fate.acknowledged.is_none() && *begin > given_up)
            {
                let text = format!(
                    "payload {payload}, asked for at {} and never acknowledged, stands at {index}, behind payload {other} at {place}, which was asked for at {}",
                    seconds(fate.last_begin),
                    seconds(begin)
                );
                violations.push(Violation::new(Property::StoredLate, text));
            }
            if latest.is_none_or(|(begin, ..)| fate.begin > begin) {
                latest = Some((fate.begin, payload, index));
            }
        }
    }
    violations
}
