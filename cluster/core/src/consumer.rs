//! A durable consumer: a named cursor in the replicated state, and what was delivered behind it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::{CONSUMER_ATTEMPTS_MAX, CONSUMER_RANGES_MAX};
use crate::node::Owner;

/// Positions `first ..= last` of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Range {
    /// The first of them.
    #[prost(uint64, tag = "1")]
    pub first: u64,
    /// The last of them.
    #[prost(uint64, tag = "2")]
    pub last: u64,
}

/// How often an event was delivered.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Attempts {
    /// Position of the event.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// Deliveries that a client got and did not acknowledge. In a command 0 takes the count back.
    #[prost(uint32, tag = "2")]
    pub count: u32,
}

/// The replicated state of a durable consumer or group.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Consumer {
    /// Name, unique in its namespace among consumers and groups.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Pattern it was created with.
    #[prost(string, tag = "2")]
    pub subject: String,
    /// Members share the cursor, and each event goes to one of them.
    #[prost(bool, tag = "3")]
    pub group: bool,
    /// Every event of the pattern up to here is done with: acknowledged, or dead-lettered.
    #[prost(uint64, tag = "4")]
    pub ack_floor: u64,
    /// The node that serves its members, wherever they are connected. Another takes over when that life of it ends.
    #[prost(message, optional, tag = "5")]
    pub owner: Option<Owner>,
    /// Its members get nothing until it goes on.
    #[prost(bool, tag = "6")]
    pub paused: bool,
    /// Counts the times its cursor was set by the operator.
    #[prost(uint64, tag = "7")]
    pub generation: u64,
    /// Behind the floor, but done with: in order, apart from each other, at most
    /// [`CONSUMER_RANGES_MAX`]. Empty below feature level `COUNTED`, as are the two fields behind.
    #[prost(message, repeated, tag = "8")]
    pub done: Vec<Range>,
    /// Events behind the floor that were delivered and are not done with, in order, at most
    /// [`CONSUMER_ATTEMPTS_MAX`]: the counts outlive the node that made them.
    #[prost(message, repeated, tag = "9")]
    pub attempts: Vec<Attempts>,
    /// Counts the times that a node began to serve it; what an older start says is refused.
    #[prost(uint64, tag = "10")]
    pub epoch: u64,
}

/// See [`crate::command::Command::ConsumerStart`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConsumerStart {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Its consumer.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Who begins; refused when another living node serves the consumer.
    #[prost(message, required, tag = "3")]
    pub owner: Owner,
}

impl Consumer {
    /// Whether the event at this position is done with.
    #[must_use]
    pub fn is_done(&self, sequence: u64) -> bool {
        sequence <= self.ack_floor || covers(&self.done, sequence)
    }

    /// Takes in what is done with behind the floor, up to the position `last`, and new counts, and lets go of what the
    /// floor has passed. What is beyond a bound goes from the end: an event that is not remembered as done with comes
    /// again. Whether anything is different.
    pub(crate) fn note(&mut self, done: &[Range], attempts: &[Attempts], last: u64) -> bool {
        let mut changed = false;
        if !self.done.is_empty() || !done.is_empty() {
            let behind = self.ack_floor.saturating_add(1);
            let inside = |of: &Range| Range { first: of.first.max(behind), last: of.last.min(last) };
            let all = self.done.iter().chain(done).map(inside).filter(|of| of.first <= of.last).collect();
            let all = joined(all);
            changed = all != self.done;
            self.done = all;
        }
        if !self.attempts.is_empty() || !attempts.is_empty() {
            let all = self.counted(attempts, last);
            changed |= all != self.attempts;
            self.attempts = all;
        }
        changed
    }

    /// The counts together with new ones, of which the later counts when an event is named twice.
    fn counted(&self, new: &[Attempts], last: u64) -> Vec<Attempts> {
        let known = self.attempts.iter().chain(new).map(|of| (of.sequence, of.count));
        let known: BTreeMap<u64, u32> = known.collect();
        let counts = |(sequence, count): &(u64, u32)| *count > 0 && *sequence <= last && !self.is_done(*sequence);
        let counts = known.into_iter().filter(counts).take(CONSUMER_ATTEMPTS_MAX);
        counts.map(|(sequence, count)| Attempts { sequence, count }).collect()
    }
}

#[cfg(test)]
impl Consumer {
    /// Checks that the row does not contradict itself.
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

/// Whether one of these ranges, which are in order, has the position.
fn covers(ranges: &[Range], sequence: u64) -> bool {
    let behind = ranges.partition_point(|range| range.first <= sequence);
    behind.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|range| sequence <= range.last)
}

/// These ranges in order, those that touch as one, at most [`CONSUMER_RANGES_MAX`].
fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
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
