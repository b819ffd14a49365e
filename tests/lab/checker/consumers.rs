//! What each consumer saw: never back, nothing left out, nothing twice, nothing after its acknowledgement.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::{Property, Violation, seconds};
use crate::history::{Log, Op, Phase, Record};

/// A delivery that was under way when its acknowledgement was committed takes at most this, nanoseconds.
const CROSSING: u64 = 1_000_000_000;

/// A delivery.
#[derive(Clone, Copy)]
struct Got {
    process: u32,
    node: u64,
    connection: u32,
    log: Log,
    index: u64,
    at: u64,
}

/// What is known of a process while its deliveries are gone through.
#[derive(Default)]
struct Reader {
    durable: bool,
    /// When each connection was asked for.
    opened: BTreeMap<u32, u64>,
    /// The highest position so far.
    highest: u64,
    /// Position and connection of the last delivery.
    last: Option<(u64, u32)>,
    /// Committed acknowledgements: since when that is known, and up to which position.
    done: Vec<(u64, u64)>,
}

pub(super) fn check(facts: &Facts<'_>) -> Vec<Violation> {
    let mut readers: BTreeMap<u32, Reader> = BTreeMap::new();
    for call in &facts.calls {
        if let Op::Subscribe { connection, durable, .. } = *call.op {
            let reader = readers.entry(call.process).or_default();
            reader.durable |= durable;
            reader.opened.insert(connection, call.begin);
        }
    }
    let floors: Vec<(u64, u64)> = facts.history.seen().filter_map(floor).collect();
    for (process, reader) in &mut readers {
        reader.done = proven(facts, *process);
        reader.done.extend(&floors);
    }
    let mut violations = Vec::new();
    for got in facts.history.seen().filter_map(Got::of) {
        let reader = readers.entry(got.process).or_default();
        violations.extend(if reader.durable { reader.redelivered(got) } else { reader.tailed(got) });
        if got.index > reader.highest + 1 {
            let text = format!("{got}: {} was the highest before", reader.highest);
            violations.push(Violation::new(Property::Skip, text));
        }
        reader.highest = reader.highest.max(got.index);
        reader.last = Some((got.index, got.connection));
    }
    violations
}

impl Reader {
    /// A tailing consumer resumes behind what it had: each position comes once.
    fn tailed(&self, got: Got) -> Option<Violation> {
        let (last, _) = self.last?;
        let property = match got.index.cmp(&last) {
            std::cmp::Ordering::Less => Property::TravelBack,
            std::cmp::Ordering::Equal => Property::Duplicate,
            std::cmp::Ordering::Greater => return None,
        };
        Some(Violation::new(property, format!("{got}: it had seen {last} before")))
    }

    /// A durable consumer gets again what it did not acknowledge, and on a new connection only.
    fn redelivered(&self, got: Got) -> Option<Violation> {
        let opened = self.opened.get(&got.connection).copied().unwrap_or(0);
        // A connection that was asked for later begins behind it; on an older one it may have been on its way.
        let done = |&&(at, index): &&(u64, u64)| index >= got.index && (at < opened || at + CROSSING < got.at);
        if let Some((at, index)) = self.done.iter().find(done) {
            let text = format!("{got}: everything up to {index} was acknowledged for good at {}", seconds(*at));
            return Some(Violation::new(Property::Redelivery, text));
        }
        let (last, _) = self.last.filter(|(_, connection)| *connection == got.connection)?;
        (got.index < last)
            .then(|| Violation::new(Property::TravelBack, format!("{got}: it had seen {last} on that connection")))
    }
}

/// A position that a node told to be done with.
fn floor(record: &Record) -> Option<(u64, u64)> {
    let Op::Floor { index, .. } = record.op else { return None };
    Some((record.at, index))
}

/// Acknowledgements of a process behind which the same connection went on: only one that was taken lets it go
/// on, and its answer comes when it is committed.
fn proven(facts: &Facts<'_>, process: u32) -> Vec<(u64, u64)> {
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    for got in facts.history.seen().filter_map(Got::of).filter(|got| got.process == process) {
        let highest = newest.entry(got.connection).or_default();
        *highest = got.index.max(*highest);
    }
    let answered = facts.calls.iter().filter(|call| call.process == process && call.phase == Phase::Ok);
    let proven = answered.filter_map(|call| match *call.op {
        Op::Ack { connection, index, .. } if newest.get(&connection).is_some_and(|newest| *newest > index) => {
            Some((call.end?, index))
        }
        _ => None,
    });
    proven.collect()
}

impl Got {
    fn of(record: &Record) -> Option<Self> {
        let Op::Deliver { log, connection, index, .. } = record.op else { return None };
        let Record { at, process, node, .. } = *record;
        Some(Self { process, node, connection, log, index, at })
    }
}

impl std::fmt::Display for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { process, node, connection, log, index, at } = self;
        let at = seconds(*at);
        write!(f, "consumer {process}, connection {connection} to node {node}, got {log:?} {index} at {at}")
    }
}
