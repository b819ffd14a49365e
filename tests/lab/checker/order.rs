//! Writes that did not overlap stand in the order in which they were made.

use super::facts::{Facts, Fate};
use super::{Property, Violation, seconds};
use crate::history::Log;

/// An acknowledged write and its place.
#[derive(Clone, Copy)]
struct Placed {
    fate: Fate,
    end: u64,
    payload: u64,
    index: u64,
}

pub(super) fn check(facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for log in [Log::Lab, Log::Work, Log::Aged, Log::Burst] {
        let placed = facts.fates.iter().filter_map(|(payload, fate)| {
            // Stored twice is another violation; the first place counts.
            let (own, index) = facts.places.get(payload)?.first().copied()?;
            let placed = Placed { fate: *fate, end: fate.acknowledged?, payload: *payload, index };
            (own == log).then_some(placed)
        });
        let placed: Vec<Placed> = placed.collect();
        let mut producers: Vec<u32> = placed.iter().map(|placed| placed.fate.producer).collect();
        producers.sort_unstable();
        producers.dedup();
        for producer in producers {
            let own = placed.iter().filter(|placed| placed.fate.producer == producer).copied().collect();
            violations.extend(inversions(own, Property::ProducerOrder));
        }
        // Pairs of one producer were told above.
        violations.extend(inversions(placed, Property::RealTimeOrder));
    }
    violations
}

/// Writes that stand before one that had been acknowledged when they began.
fn inversions(mut by_begin: Vec<Placed>, property: Property) -> Vec<Violation> {
    let mut by_end = by_begin.clone();
    by_begin.sort_by_key(|placed| placed.fate.begin);
    by_end.sort_by_key(|placed| placed.end);
    let mut ended = by_end.into_iter().peekable();
    // Of those that had ended: the one that stands highest.
    let mut highest: Option<Placed> = None;
    let mut violations = Vec::new();
    for later in by_begin {
        while let Some(earlier) = ended.next_if(|earlier| earlier.end < later.fate.begin) {
            highest = Some(highest.filter(|own| own.index > earlier.index).unwrap_or(earlier));
        }
        let Some(earlier) = highest.filter(|earlier| earlier.index > later.index) else { continue };
        if property == Property::RealTimeOrder && earlier.fate.producer == later.fate.producer {
            continue;
        }
        let text = format!(
            "payload {} of producer {} began at {} and stands at {}, before payload {} of producer {} at {}, which was acknowledged at {}",
            later.payload,
            later.fate.producer,
            seconds(later.fate.begin),
            later.index,
            earlier.payload,
            earlier.fate.producer,
            earlier.index,
            seconds(earlier.end)
        );
        violations.push(Violation::new(property, text));
    }
    violations
}
