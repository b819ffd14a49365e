//! Things get on: after healing, on the side of the majority, through a hand-over.

use std::collections::BTreeMap;

use super::facts::{Facts, Window};
use super::{Bounds, Property, Violation, seconds};
use crate::history::{Log, Op, Phase, THE_END, nanos};

pub(super) fn check(facts: &Facts<'_>, bounds: &Bounds) -> Vec<Violation> {
    let mut violations = liveness(facts, bounds);
    violations.extend(left_behind(facts));
    violations.extend(availability(facts, bounds));
    violations.extend(hand_over(facts));
    violations
}

/// When publishes through a node were acknowledged, with their begin.
fn acknowledged(facts: &Facts<'_>) -> Vec<(u64, u64, u64)> {
    let calls = facts.calls.iter().filter(|call| call.phase == Phase::Ok && matches!(call.op, Op::Publish(_)));
    calls.filter_map(|call| Some((call.node, call.begin, call.end?))).collect()
}

/// Within the bound after a healing every node that runs has acknowledged a publish. A fault that comes
/// earlier ends the time in which that can be asked for.
fn liveness(facts: &Facts<'_>, bounds: &Bounds) -> Vec<Violation> {
    let acknowledged = acknowledged(facts);
    let mut violations = Vec::new();
    for window in &facts.windows {
        let (healed, late) = (window.end, window.end.saturating_add(nanos(bounds.live)));
        let later = facts.windows.iter().filter(|other| other.begin >= healed && other.name != THE_END);
        let next = later.map(|other| other.begin).min();
        if next.is_some_and(|next| next < late) {
            continue;
        }
        for node in facts.lives.iter().map(|life| life.node).collect::<std::collections::BTreeSet<_>>() {
            if !facts.ran(node, healed, late.min(facts.end)) {
                continue;
            }
            let first = acknowledged.iter().filter(|(own, begin, _)| *own == node && *begin >= healed);
            let first = first.map(|(_, _, end)| *end).min();
            if first.is_none_or(|end| end > late) {
                let told = first.map_or_else(|| "none".to_owned(), seconds);
                let text = format!(
                    "{:?} healed at {}: the first publish that node {node} acknowledged then: {told}",
                    window.name,
                    seconds(healed)
                );
                violations.push(Violation::new(Property::Liveness, text));
            }
        }
    }
    violations
}

/// At the end every consumer has seen everything.
fn left_behind(facts: &Facts<'_>) -> Vec<Violation> {
    let mut stands: BTreeMap<(u32, Log), u64> = BTreeMap::new();
    for call in &facts.calls {
        if let Op::Subscribe { log, .. } = call.op {
            stands.entry((call.process, *log)).or_default();
        }
    }
    for record in facts.history.seen() {
        if let Op::Deliver { log, index, .. } = record.op {
            let stand = stands.entry((record.process, log)).or_default();
            *stand = index.max(*stand);
        }
    }
    let mut violations = Vec::new();
    for ((process, log), stand) in stands {
        let last = facts.logs.get(&log).and_then(|values| values.keys().next_back()).copied().unwrap_or(0);
        if stand < last {
            let text = format!("consumer {process} has seen {log:?} up to {stand}, the log goes up to {last}");
            violations.push(Violation::new(Property::Liveness, text));
        }
    }
    violations
}

/// How long after the healing of each fault until the last of the nodes that ran on acknowledged a publish that
/// was asked for after it; none when one did not.
pub(super) fn pauses(facts: &Facts<'_>) -> Vec<(String, Option<u64>)> {
    let mut first: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for (node, begin, end) in acknowledged(facts) {
        first.entry(node).or_default().push((begin, end));
    }
    let windows = facts.windows.iter().filter(|window| window.name != THE_END);
    let told = windows.map(|window| {
        let next = facts.windows.iter().map(|other| other.begin).filter(|begin| *begin >= window.end).min();
        let nodes = first.iter().filter(|(node, _)| facts.ran(**node, window.end, next.unwrap_or(facts.end)));
        let waits = nodes.map(|(_, calls)| {
            let later = calls.iter().filter(|(begin, _)| *begin >= window.end);
            later.map(|(_, end)| end.saturating_sub(window.end)).min()
        });
        let waits: Vec<Option<u64>> = waits.collect();
        let longest = if waits.contains(&None) { None } else { waits.into_iter().flatten().max() };
        (window.name.clone(), longest)
    });
    told.collect()
}

/// For each fault that a majority survives: its name and the longest time without an acknowledgement.
pub(super) fn gaps(facts: &Facts<'_>) -> Vec<(String, u64)> {
    let acknowledged = acknowledged(facts);
    let judged = facts.windows.iter().filter(|window| !window.majority.is_empty());
    judged.map(|window| (window.name.clone(), longest_gap(window, &acknowledged))).collect()
}

/// The p99 over the faults of the longest time without an acknowledgement from a node of the majority.
fn availability(facts: &Facts<'_>, bounds: &Bounds) -> Vec<Violation> {
    let acknowledged = acknowledged(facts);
    let judged = facts.windows.iter().filter(|window| !window.majority.is_empty());
    let mut gaps: Vec<(u64, &Window)> = judged.map(|window| (longest_gap(window, &acknowledged), window)).collect();
    gaps.sort_by_key(|(gap, _)| *gap);
    let rank = (gaps.len() * 99).div_ceil(100).saturating_sub(1);
    let Some((gap, window)) = gaps.get(rank) else { return Vec::new() };
    if *gap < nanos(bounds.gap) {
        return Vec::new();
    }
    let text = format!(
        "{:?} from {} to {}: {} without an acknowledgement by any of the nodes {:?} (p99 of {} faults, bound {:?})",
        window.name,
        seconds(window.begin),
        seconds(window.end),
        seconds(*gap),
        window.majority,
        gaps.len(),
        bounds.gap
    );
    vec![Violation::new(Property::Availability, text)]
}

fn longest_gap(window: &Window, acknowledged: &[(u64, u64, u64)]) -> u64 {
    let inside = acknowledged
        .iter()
        .filter(|(node, _, end)| window.majority.contains(node) && (window.begin..=window.end).contains(end));
    let mut times: Vec<u64> = inside.map(|(_, _, end)| *end).collect();
    times.push(window.end);
    times.sort_unstable();
    let mut last = window.begin;
    let mut longest = 0;
    for time in times {
        longest = longest.max(time.saturating_sub(last));
        last = time;
    }
    longest
}

/// During a graceful fault a second attempt is always enough.
fn hand_over(facts: &Facts<'_>) -> Vec<Violation> {
    let graceful: Vec<&Window> = facts.windows.iter().filter(|window| window.graceful).collect();
    let mut violations = Vec::new();
    for call in facts.calls.iter().filter(|call| matches!(call.phase, Phase::Fail | Phase::Unknown)) {
        let Op::Publish(publish) = call.op else { continue };
        let during = graceful.iter().find(|window| (window.begin..=window.end).contains(&call.begin));
        if let (Some(window), true) = (during, publish.attempt > 1) {
            let text = format!(
                "during {:?} attempt {} of payload {} at node {} ended as {:?} at {}",
                window.name,
                publish.attempt,
                publish.payload,
                call.node,
                call.phase,
                seconds(call.end.unwrap_or(facts.end))
            );
            violations.push(Violation::new(Property::HandOver, text));
        }
    }
    violations
}
