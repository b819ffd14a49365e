//! Durable consumers of all doors and kinds, their members, and what arrived at them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::Known;
use super::stream::{DOORS, Door, Said, Stream, Wanted};
use crate::harness::shared::Shared;
use crate::harness::{Rng, ms};

/// The namespace of all of them.
pub(super) const NAMESPACE: &str = "bar";
/// Ends of streams and refusals that are kept of each consumer, the newest.
const REASONS_MAX: usize = 6;

/// A durable consumer, or a group of two members, with a subject of its own. All doors, kinds and ways to acknowledge
/// take turns.
pub(super) struct Consumer {
    number: usize,
    door: Door,
    /// Whether its members acknowledge.
    manual: bool,
    /// One, or two when it is a group.
    pub(super) members: usize,
    /// Whether the members of a group have stable names.
    named: bool,
}

impl Consumer {
    pub(super) fn of(number: usize) -> Self {
        Self {
            number,
            door: DOORS[number % DOORS.len()],
            members: 1 + number / 3 % 2,
            manual: (number / 6).is_multiple_of(2),
            named: (number / 12).is_multiple_of(2),
        }
    }

    pub(super) fn name(&self) -> String {
        format!("c{}", self.number)
    }

    pub(super) fn subject(&self) -> String {
        format!("{NAMESPACE}.{}", self.name())
    }

    fn is_group(&self) -> bool {
        self.members > 1
    }

    fn wanted(&self, member: usize) -> Wanted {
        let (consumer, group) = match (self.is_group(), self.named) {
            (false, _) => (Some(self.name()), None),
            (true, false) => (None, Some(self.name())),
            (true, true) => (Some(format!("m{member}")), Some(self.name())),
        };
        Wanted { start: "oldest", manual: self.manual, consumer, group, ..Wanted::of(&self.subject()) }
    }
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match (self.is_group(), self.named) {
            (false, _) => "consumer",
            (true, false) => "group",
            (true, true) => "group of named members",
        };
        let ack = if self.manual { "manual" } else { "none" };
        write!(f, "{} ({:?}, {kind}, ack {ack})", self.name(), self.door)
    }
}

/// What became of a consumer.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// When each number came first, to whichever member.
    pub(super) arrived: BTreeMap<u64, Instant>,
    /// Events that came, those that came again included.
    pub(super) deliveries: u64,
    /// Members that have a stream now.
    pub(super) connected: usize,
    /// Streams that ended by themselves.
    pub(super) ended: u64,
    /// Attempts to open one that failed.
    pub(super) refused: u64,
    /// Why, the newest of both.
    pub(super) reasons: VecDeque<String>,
}

impl Record {
    fn keep(&mut self, reason: String) {
        self.reasons.push_back(reason);
        if self.reasons.len() > REASONS_MAX {
            self.reasons.pop_front();
        }
    }
}

/// The records of all consumers, by number.
pub(super) type Records = Shared<Vec<Record>>;

/// A client that follows a consumer for as long as the soak lasts, and always comes back.
pub(super) struct Member<'a> {
    pub(super) consumer: &'a Consumer,
    /// Which one of its consumer.
    pub(super) number: usize,
    pub(super) known: &'a Known,
    pub(super) records: &'a Records,
    pub(super) stop: &'a AtomicBool,
    pub(super) rng: Rng,
}

impl Member<'_> {
    pub(super) fn run(mut self) {
        let wanted = self.consumer.wanted(self.number);
        // Members of one group begin at different nodes.
        let mut turn = self.consumer.number / 3 + self.number;
        while !self.stops() {
            let nodes = self.known.all();
            let at = nodes[turn % nodes.len()];
            turn += 1;
            match Stream::open(self.consumer.door, at, &wanted) {
                Ok(stream) => {
                    self.record(|record| record.connected += 1);
                    let why = self.follow(stream);
                    self.record(|record| {
                        record.connected -= 1;
                        if let Some(why) = why {
                            record.ended += 1;
                            record.keep(format!("ended at node {}: {why}", at.id));
                        }
                    });
                }
                Err(why) => {
                    self.record(|record| {
                        record.refused += 1;
                        record.keep(format!("refused by node {}: {why}", at.id));
                    });
                    // As client libraries do, so that a node that is away is not called all the time.
                    std::thread::sleep(ms(self.rng.pick(100, 500)));
                }
            }
        }
    }

    /// Reads and acknowledges until the stream ends, and says why; nothing when the soak is over.
    fn follow(&self, mut stream: Stream) -> Option<String> {
        while !self.stops() {
            match stream.next(ms(1000)) {
                Said::Event(event) => {
                    let at = Instant::now();
                    // Whatever has no number is none of the rounds.
                    let number = event.payload.as_u64().unwrap_or_default();
                    self.record(|record| {
                        record.arrived.entry(number).or_insert(at);
                        record.deliveries += 1;
                    });
                    if self.consumer.manual
                        && let Err(why) = stream.ack(&event.id)
                    {
                        return Some(format!("not acknowledged: {why}"));
                    }
                }
                Said::Nothing => {}
                Said::Ended(why) => return Some(why),
            }
        }
        None
    }

    fn record(&self, change: impl FnOnce(&mut Record)) {
        self.records.change(|records| change(&mut records[self.consumer.number]));
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
