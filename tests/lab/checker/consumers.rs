//! What each consumer saw: never back, nothing left out, nothing twice, nothing after its acknowledgement.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::{Property, Violation, seconds};
use crate::history::{Log, Op, Phase, Record};

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
    /// Committed acknowledgements: when the answer came, and for which position.
    acknowledged: Vec<(u64, u64)>,
}

pub(super) fn check(facts: &Facts<'_>) -> Vec<Violation> {
    let mut readers: BTreeMap<u32, Reader> = BTreeMap::new();
    for call in &facts.calls {
        match *call.op {
            Op::Subscribe { connection, durable, .. } => {
                let reader = readers.entry(call.process).or_default();
                reader.durable |= durable;
                reader.opened.insert(connection, call.begin);
            }
            Op::Ack { index, .. } if call.phase == Phase::Ok => {
                let reader = readers.entry(call.process).or_default();
                reader.acknowledged.extend(call.end.map(|end| (end, index)));
            }
            _ => {}
        }
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
        // Connections that were asked for later than the answer start behind it; the stream that was
        // acknowledged on goes on behind it at once.
        let done =
            |&&(at, index): &&(u64, u64)| index >= got.index && (at < opened || (index == got.index && at < got.at));
        if let Some((at, index)) = self.acknowledged.iter().find(done) {
            let text = format!("{got}: {index} was acknowledged at {}", seconds(*at));
            return Some(Violation::new(Property::Redelivery, text));
        }
        let (last, connection) = self.last?;
        let back = connection == got.connection && got.index < last;
        back.then(|| Violation::new(Property::TravelBack, format!("{got}: it had seen {last} on that connection")))
    }
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
