//! What the lab itself measured and saw: how soon nodes were level again, which ended, what was broken before
//! its eyes.

use super::facts::Facts;
use super::{Property, Violation, seconds};
use crate::history::{Op, Recovery};

pub(super) fn check(facts: &Facts<'_>) -> Vec<Violation> {
    let told = facts.history.seen().filter_map(|record| match &record.op {
        Op::Recovered { fault, what, took, bound } => {
            if took.is_some_and(|took| took <= *bound) {
                return None;
            }
            let node = record.node;
            let what = match what {
                Recovery::Accepts => format!("node {node} accepted a publish"),
                Recovery::Level => format!("node {node} was level"),
            };
            let took =
                took.map_or_else(|| "not while the lab waited".to_owned(), |took| format!("after {}", seconds(took)));
            let text = format!("{fault} was healed: {what} {took} (bound {})", seconds(*bound));
            Some(Violation::new(Property::Recovery, text))
        }
        Op::Ended { words } => {
            let text = format!("node {} ended by itself before {}: {words}", record.node, seconds(record.at));
            Some(Violation::new(Property::NodeEnded, text))
        }
        Op::Broken { text } => {
            let text = format!("node {} at {}: {text}", record.node, seconds(record.at));
            Some(Violation::new(Property::Broken, text))
        }
        _ => None,
    });
    told.collect()
}
