//! From a history to what is wrong with it. Pure: a saved history can be judged again at any time.
//!
//! Each property has a function of its own in `checker/`; a fact that breaks two promises is reported under
//! the more telling one only, so that the name of a violation says where to look.

mod consumers;
mod facts;
mod figures;
mod lifecycle;
mod logs;
mod order;
mod pipeline;
mod progress;
mod recovery;
mod register;
mod stored;
#[cfg(test)]
mod story;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod verdicts;

use std::fmt;
use std::time::Duration;

use crate::history::History;
use facts::Facts;

/// Violations of one property that are told in full.
const TOLD: usize = 5;

/// What can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Property {
    /// An acknowledged write is not there, nor is anything later of the same producer.
    LostWrite,
    /// An acknowledged write is not there, but a later one of the same producer is.
    Hole,
    /// A single attempt to publish is stored more than once.
    StoredTwice,
    /// A write with a key is stored more than once, or a position is delivered more than once.
    Duplicate,
    /// A write is stored although every answer promised that nothing was.
    RefusedButStored,
    /// A write is stored that nobody made.
    Phantom,
    /// A write that was given up is stored long afterwards.
    StoredLate,
    /// A part of a batch is stored.
    TornBatch,
    /// Two values at one position.
    InconsistentOffsets,
    /// A consumer sees a lower position after a higher one.
    TravelBack,
    /// A page jumps over a position.
    Skip,
    /// One producer's writes are out of its own order.
    ProducerOrder,
    /// Writes of one pipelined connection are out of its order.
    PipelineOrder,
    /// A write that began after another had been acknowledged stands before it.
    RealTimeOrder,
    /// An event went before its age.
    TrimmedEarly,
    /// Something was seen that later is not there.
    DirtyRead,
    /// A linearizable read is older than its bound.
    StaleRead,
    /// Delivered again after its acknowledgement had been committed.
    Redelivery,
    /// At the end the replicas are not the same.
    ReplicaEquality,
    /// An event of the life of a node is missing, double or out of place.
    Lifecycle,
    /// After healing some node or consumer does not get on.
    Liveness,
    /// After healing some node is not level soon enough.
    Recovery,
    /// A node ended although nobody had told it to.
    NodeEnded,
    /// The lab itself saw a promise broken.
    Broken,
    /// A publish was answered after the time-out of the node.
    LateAnswer,
    /// The majority went without an acknowledgement for too long.
    Availability,
    /// A planned hand-over was seen by a client that tried twice.
    HandOver,
    /// The lab could not go on: a node that must start does not, nobody leads, a change is never made.
    Panicked,
}

/// One broken promise.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) property: Property,
    /// What to look at.
    pub(crate) text: String,
}

impl Property {
    /// The one that an operator expects.
    pub(crate) fn named(name: &str) -> Self {
        let found = Self::ALL.into_iter().find(|property| format!("{property:?}") == name.trim());
        found.unwrap_or_else(|| panic!("no property is named {name:?}; there are {:?}", Self::ALL))
    }

    const ALL: [Self; 28] = [
        Self::LostWrite,
        Self::Hole,
        Self::StoredTwice,
        Self::Duplicate,
        Self::RefusedButStored,
        Self::Phantom,
        Self::StoredLate,
        Self::TornBatch,
        Self::InconsistentOffsets,
        Self::TravelBack,
        Self::Skip,
        Self::ProducerOrder,
        Self::PipelineOrder,
        Self::RealTimeOrder,
        Self::TrimmedEarly,
        Self::DirtyRead,
        Self::StaleRead,
        Self::Redelivery,
        Self::ReplicaEquality,
        Self::Lifecycle,
        Self::Liveness,
        Self::Recovery,
        Self::NodeEnded,
        Self::Broken,
        Self::LateAnswer,
        Self::Availability,
        Self::HandOver,
        Self::Panicked,
    ];
}

impl Violation {
    /// A run that could not go on.
    pub(crate) fn panicked(text: &str) -> Self {
        Self::new(Property::Panicked, text.to_owned())
    }

    fn new(property: Property, text: String) -> Self {
        Self { property, text }
    }
}

/// What is promised in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// After healing every node takes publishes again within this.
    pub(crate) live: Duration,
    /// The p99 over all faults of the longest time without an acknowledgement on the side of the majority.
    pub(crate) gap: Duration,
    /// A node that is gone for longer is told to be down.
    pub(crate) gone: Duration,
    /// A node that works for longer is told to be up.
    pub(crate) known: Duration,
    /// A publish is answered within this: `book.publish_timeout` and time for the way.
    pub(crate) answer: Duration,
    /// A publish without an answer is not stored later than this after it was asked for.
    pub(crate) given_up: Duration,
}

impl Default for Bounds {
    /// Three times the longest election time-out of 1 s, and the node time-out of 5 s with time to tell of it.
    fn default() -> Self {
        let [live, gap, gone, known, answer, given_up] = [10, 3, 8, 3, 12, 15].map(Duration::from_secs);
        Self { live, gap, gone, known, answer, given_up }
    }
}

/// Everything that is wrong with a run.
pub(crate) fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let facts = Facts::new(history);
    let mut violations = Vec::new();
    violations.extend(stored::check(&facts));
    violations.extend(logs::check(&facts));
    violations.extend(consumers::check(&facts));
    violations.extend(order::check(&facts));
    violations.extend(register::check(&facts));
    violations.extend(lifecycle::check(&facts, bounds));
    violations.extend(progress::check(&facts, bounds));
    violations.extend(pipeline::check(&facts, bounds));
    violations.extend(recovery::check(&facts));
    violations.sort_by_key(|violation| violation.property);
    violations
}

/// The table of a long run, for people.
pub(crate) fn figures(history: &History, violations: usize) -> String {
    figures::Figures::of(&Facts::new(history), violations).to_string()
}

/// How long the majority went without an acknowledgement in each fault, for people.
pub(crate) fn gaps(history: &History) -> String {
    let gaps = progress::gaps(&Facts::new(history));
    gaps.into_iter().map(|(name, gap)| format!("; {name}: gap of {}", seconds(gap))).collect()
}

/// The properties that are broken, each once.
pub(crate) fn broken(violations: &[Violation]) -> Vec<Property> {
    let mut properties: Vec<Property> = violations.iter().map(|violation| violation.property).collect();
    properties.dedup();
    properties
}

/// The first few of each property, and how many there are.
pub(crate) struct Report<'a>(pub(crate) &'a [Violation]);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for same in self.0.chunk_by(|one, next| one.property == next.property) {
            let Some(first) = same.first() else { continue };
            writeln!(f, "{:?}: {} violations", first.property, same.len())?;
            for violation in same.iter().take(TOLD) {
                writeln!(f, "  {}", violation.text)?;
            }
            if same.len() > TOLD {
                writeln!(f, "  and {} more", same.len() - TOLD)?;
            }
        }
        Ok(())
    }
}

/// Nanoseconds as seconds, for people.
fn seconds(nanos: u64) -> String {
    let millis = nanos / 1_000_000;
    format!("{}.{:03} s", millis / 1000, millis % 1000)
}
