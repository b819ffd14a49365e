//! A durable consumer: a named cursor in the replicated state, and the deliveries beyond the cursor.
//!
//! The node that serves a consumer proposes the progress ([`crate::command::ConsumerAdvance`]), so that another node
//! continues at the same place. Every event up to the ack floor is done: acknowledged, or dead-lettered. Beyond the
//! floor the row remembers, within bounds, which events are done too and how often the others were delivered. An event
//! that the row cannot remember is delivered again, never lost.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::{CONSUMER_ATTEMPTS_MAX, CONSUMER_RANGES_MAX};
use crate::node::Owner;

/// The sequence numbers `first ..= last` of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Range {
    /// The first sequence number of the range.
    #[prost(uint64, tag = "1")]
    pub first: u64,
    /// The last sequence number of the range, included.
    #[prost(uint64, tag = "2")]
    pub last: u64,
}

/// The delivery count of one event.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Attempts {
    /// Sequence number of the event.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// Number of deliveries that a client received and did not acknowledge. In a command, 0 deletes the count.
    #[prost(uint32, tag = "2")]
    pub count: u32,
}

/// The replicated state of a durable consumer or group.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Consumer {
    /// Name of the consumer, unique in its namespace among consumers and groups.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The pattern of the consumer. Fixed at creation, because the ack floor means nothing for another pattern.
    #[prost(string, tag = "2")]
    pub subject: String,
    /// Whether this is a group: its members share the cursor, and each event goes to one member.
    #[prost(bool, tag = "3")]
    pub group: bool,
    /// Every event of the pattern up to this sequence number is done: acknowledged, or dead-lettered.
    #[prost(uint64, tag = "4")]
    pub ack_floor: u64,
    /// The node that delivers to all members of the consumer, wherever the members are connected, so that one place
    /// decides which member gets an event. When this life of the node ends, another node takes over.
    #[prost(message, optional, tag = "5")]
    pub owner: Option<Owner>,
    /// Whether the operator has paused the consumer: its members get no events until the operator resumes delivery.
    #[prost(bool, tag = "6")]
    pub paused: bool,
    /// Counts how often the operator has set the cursor. Progress that was read before such a reset names an older
    /// generation, and is refused, because it would undo the reset.
    #[prost(uint64, tag = "7")]
    pub generation: u64,
    /// Events beyond the floor that are done, so that they are not delivered again after a change of node: sorted,
    /// disjoint, with gaps between them, at most [`CONSUMER_RANGES_MAX`]. Empty below feature level `COUNTED`, like the
    /// two fields that follow.
    #[prost(message, repeated, tag = "8")]
    pub done: Vec<Range>,
    /// Delivery counts of events beyond the floor that are not done, sorted, at most [`CONSUMER_ATTEMPTS_MAX`]. The
    /// counts are replicated, because an event that kills each client must become a dead letter on whatever node it is
    /// delivered.
    #[prost(message, repeated, tag = "9")]
    pub attempts: Vec<Attempts>,
    /// Counts how often a node has begun to serve the consumer. Progress that names an older epoch is refused: a later
    /// start may have delivered the same events again.
    #[prost(uint64, tag = "10")]
    pub epoch: u64,
}

/// The body of [`crate::command::Command::ConsumerStart`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConsumerStart {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Name of the consumer.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The node that begins to serve. The command is refused while another node that is up serves the consumer.
    #[prost(message, required, tag = "3")]
    pub owner: Owner,
}

impl Consumer {
    /// Whether the event with this sequence number is done: acknowledged, or dead-lettered.
    #[must_use]
    pub fn is_done(&self, sequence: u64) -> bool {
        sequence <= self.ack_floor || contains(&self.done, sequence)
    }

    /// Adds ranges of done events beyond the floor and new delivery counts, and drops what the floor has passed. `last`
    /// is the newest event of the namespace: nothing beyond it is remembered. When a bound is exceeded, the highest
    /// sequence numbers are dropped: an event that is not remembered as done is delivered again. Returns whether the
    /// row changed.
    pub(crate) fn record_progress(&mut self, done: &[Range], attempts: &[Attempts], last: u64) -> bool {
        let mut changed = false;
        if !self.done.is_empty() || !done.is_empty() {
            let behind = self.ack_floor.saturating_add(1);
            let inside = |of: &Range| Range { first: of.first.max(behind), last: of.last.min(last) };
            let all = self.done.iter().chain(done).map(inside).filter(|of| of.first <= of.last).collect();
            let all = merged_ranges(all);
            changed = all != self.done;
            self.done = all;
        }
        if !self.attempts.is_empty() || !attempts.is_empty() {
            let all = self.merged_attempts(attempts, last);
            changed |= all != self.attempts;
            self.attempts = all;
        }
        changed
    }

    /// The known counts merged with new ones. A new count replaces the known count of the same event.
    fn merged_attempts(&self, new: &[Attempts], last: u64) -> Vec<Attempts> {
        let known = self.attempts.iter().chain(new).map(|of| (of.sequence, of.count));
        let known: BTreeMap<u64, u32> = known.collect();
        let counts = |(sequence, count): &(u64, u32)| *count > 0 && *sequence <= last && !self.is_done(*sequence);
        let counts = known.into_iter().filter(counts).take(CONSUMER_ATTEMPTS_MAX);
        counts.map(|(sequence, count)| Attempts { sequence, count }).collect()
    }
}

#[cfg(test)]
impl Consumer {
    /// Checks the invariants of the row.
    pub(crate) fn check(&self) {
        let apart =
            self.done.windows(2).all(|pair| matches!(pair, [one, two] if one.last.saturating_add(1) < two.first));
        let behind = self.done.iter().all(|of| of.first > self.ack_floor && of.first <= of.last);
        assert!(apart && behind && self.done.len() <= CONSUMER_RANGES_MAX, "{self:?}");
        let sorted = self.attempts.windows(2).all(|pair| matches!(pair, [one, two] if one.sequence < two.sequence));
        let open = self.attempts.iter().all(|of| of.count > 0 && !self.is_done(of.sequence));
        assert!(sorted && open && self.attempts.len() <= CONSUMER_ATTEMPTS_MAX, "{self:?}");
    }
}

/// Whether one of these sorted ranges contains the sequence number.
fn contains(ranges: &[Range], sequence: u64) -> bool {
    let behind = ranges.partition_point(|range| range.first <= sequence);
    behind.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|range| sequence <= range.last)
}

/// Sorts the ranges, merges those that overlap or touch, and keeps the lowest [`CONSUMER_RANGES_MAX`].
fn merged_ranges(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable_by_key(|range| range.first);
    let mut out: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(before) if range.first <= before.last.saturating_add(1) => before.last = before.last.max(range.last),
            _ => out.push(range),
        }
    }
    out.truncate(CONSUMER_RANGES_MAX);
    out
}
