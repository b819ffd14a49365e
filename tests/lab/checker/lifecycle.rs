//! `roll.node.up` and `roll.node.down`: each coming and going is told exactly once.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::{Bounds, Property, Violation, seconds};
use crate::history::{Op, nanos};

/// An event of the roll.
#[derive(Clone, Copy, Debug)]
struct Told {
    index: u64,
    incarnation: u64,
    up: bool,
}

pub(super) fn check(facts: &Facts<'_>, bounds: &Bounds) -> Vec<Violation> {
    let mut nodes: BTreeMap<u64, Vec<Told>> = BTreeMap::new();
    for record in facts.history.seen() {
        if let Op::Lifecycle { index, incarnation, up } = record.op {
            nodes.entry(record.node).or_default().push(Told { index, incarnation, up });
        }
    }
    if nodes.is_empty() {
        // A node that stands alone calls no roll of nodes.
        return Vec::new();
    }
    let mut wrong = Vec::new();
    for (node, told) in &mut nodes {
        told.sort_by_key(|told| told.index);
        wrong.extend(out_of_turn(told).into_iter().map(|text| format!("node {node}: {text}")));
    }
    wrong.extend(missing(facts, bounds, &nodes));
    wrong.into_iter().map(|text| Violation::new(Property::Lifecycle, text)).collect()
}

/// Up and down take turns, and each `up` is another life.
fn out_of_turn(told: &[Told]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut before: Option<Told> = None;
    for now in told {
        let fits = match before {
            None => now.up,
            Some(last) if now.up => !last.up && now.incarnation > last.incarnation,
            Some(last) => last.up && now.incarnation == last.incarnation,
        };
        if !fits {
            wrong.push(format!("{now:?} follows {before:?}"));
        }
        before = Some(*now);
    }
    wrong
}

/// What the roll does not tell of the processes that the lab started and ended.
fn missing(facts: &Facts<'_>, bounds: &Bounds, nodes: &BTreeMap<u64, Vec<Told>>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut starts: BTreeMap<u64, (usize, Option<u64>)> = BTreeMap::new();
    for life in &facts.lives {
        let (count, end) = starts.entry(life.node).or_default();
        // One that was killed as soon as it took part need not have been noticed.
        let known = facts.worked(life).is_some_and(|worked| worked > nanos(bounds.known));
        (*count, *end) = (*count + usize::from(known), life.end);
    }
    for (node, (count, ended)) in starts {
        let told = nodes.get(&node).map(Vec::as_slice).unwrap_or_default();
        let ups = told.iter().filter(|told| told.up).count();
        if ups < count {
            wrong.push(format!("node {node} worked in {count} lives and is told to be up {ups} times"));
        }
        let up = told.last().is_some_and(|told| told.up);
        match ended {
            None if !up => wrong.push(format!("node {node} runs and is told to be down")),
            Some(at) if up && facts.end.saturating_sub(at) > nanos(bounds.gone) => {
                wrong.push(format!("node {node} is gone since {} and is told to be up", seconds(at)));
            }
            None | Some(_) => {}
        }
    }
    wrong
}
