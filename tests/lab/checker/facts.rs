//! What a history says, arranged for the checks.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Call, History, LAB, Log, Op, Phase};

/// What stands at a position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Value {
    pub(super) id: String,
    pub(super) payload: u64,
}

/// An event of a node at the end of a run.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) value: Value,
    pub(super) sum: u64,
}

/// What became of one payload over all attempts to publish it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    pub(super) log: Log,
    pub(super) producer: u32,
    /// Start of the first attempt, and of the last.
    pub(super) begin: u64,
    pub(super) last_begin: u64,
    /// Attempts that were made.
    pub(super) attempts: u32,
    /// When it was acknowledged for the first time.
    pub(super) acknowledged: Option<u64>,
    /// Every attempt was refused.
    pub(super) refused: bool,
    /// An attempt was answered that the key is known, though every attempt before had been refused.
    pub(super) known_unasked: bool,
    /// The index that an answer told.
    pub(super) told: Option<u64>,
    /// First payload and number of payloads of its batch.
    pub(super) batch: (u64, u64),
}

/// When a process of a node ran.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) node: u64,
    pub(super) begin: u64,
    pub(super) end: Option<u64>,
}

/// A fault from its beginning to its healing.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) name: String,
    pub(super) majority: Vec<u64>,
    pub(super) graceful: bool,
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// The arranged history.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) history: &'a History,
    pub(super) calls: Vec<Call<'a>>,
    pub(super) fates: BTreeMap<u64, Fate>,
    /// The log of each node at the end, by index.
    pub(super) kept: BTreeMap<(Log, u64), BTreeMap<u64, Kept>>,
    /// The logs at the end: what any node has.
    pub(super) logs: BTreeMap<Log, BTreeMap<u64, Value>>,
    /// Where each payload is at the end.
    pub(super) places: BTreeMap<u64, BTreeSet<(Log, u64)>>,
    pub(super) lives: Vec<Life>,
    pub(super) windows: Vec<Window>,
    /// Time of the last line.
    pub(super) end: u64,
}

impl<'a> Facts<'a> {
    pub(super) fn new(history: &'a History) -> Self {
        let calls = history.calls();
        let mut facts = Facts {
            history,
            fates: fates(&calls),
            windows: windows(&calls, history.end()),
            calls,
            kept: BTreeMap::new(),
            logs: BTreeMap::new(),
            places: BTreeMap::new(),
            lives: lives(history),
            end: history.end(),
        };
        for record in history.seen() {
            if let Op::Stored { log, index, id, payload, sum } = &record.op {
                let value = Value { id: id.clone(), payload: *payload };
                facts.logs.entry(*log).or_default().entry(*index).or_insert_with(|| value.clone());
                if *log != Log::Roll {
                    facts.places.entry(*payload).or_default().insert((*log, *index));
                }
                facts.kept.entry((*log, record.node)).or_default().insert(*index, Kept { value, sum: *sum });
            }
        }
        facts
    }

    /// Nodes whose process runs when the history ends.
    pub(super) fn running(&self) -> BTreeSet<u64> {
        self.lives.iter().filter(|life| life.end.is_none()).map(|life| life.node).collect()
    }

    /// How long the process lived on after it had acknowledged a publish for the first time.
    pub(super) fn worked(&self, life: &Life) -> Option<u64> {
        let until = life.end.unwrap_or(self.end);
        let own = self.calls.iter().filter(|call| call.phase == Phase::Ok && call.node == life.node);
        let first =
            own.filter(|call| matches!(call.op, Op::Publish(_)) && call.begin > life.begin).find_map(|call| call.end);
        first.and_then(|first| until.checked_sub(first))
    }

    /// Whether that node ran all the time in between.
    pub(super) fn ran(&self, node: u64, from: u64, to: u64) -> bool {
        self.lives.iter().any(|life| life.node == node && life.begin <= from && life.end.is_none_or(|end| end >= to))
    }
}

fn fates(calls: &[Call<'_>]) -> BTreeMap<u64, Fate> {
    let mut fates: BTreeMap<u64, Fate> = BTreeMap::new();
    for call in calls {
        let Op::Publish(publish) = call.op else { continue };
        for payload in publish.payload..publish.payload + publish.count {
            let fate = fates.entry(payload).or_insert(Fate {
                log: publish.log,
                producer: call.process,
                begin: call.begin,
                last_begin: call.begin,
                attempts: 0,
                acknowledged: None,
                refused: true,
                known_unasked: false,
                told: None,
                batch: (publish.payload, publish.count),
            });
            let known = call.phase == Phase::Ok && publish.said.is_some();
            fate.known_unasked |= known && fate.refused && fate.attempts > 0;
            fate.attempts += 1;
            fate.last_begin = call.begin;
            fate.told = fate.told.or(publish.index);
            fate.refused &= call.phase == Phase::Fail;
            if call.phase == Phase::Ok {
                fate.acknowledged = fate.acknowledged.or(call.end);
            }
        }
    }
    fates
}

fn windows(calls: &[Call<'_>], last: u64) -> Vec<Window> {
    let faults = calls.iter().filter(|call| call.process == LAB).filter_map(|call| match call.op {
        Op::Fault { name, majority, graceful } => Some(Window {
            name: name.clone(),
            majority: majority.clone(),
            graceful: *graceful,
            begin: call.begin,
            end: call.end.unwrap_or(last),
        }),
        _ => None,
    });
    faults.collect()
}

fn lives(history: &History) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    for record in history.seen() {
        let Op::Process { running } = record.op else { continue };
        let open = lives.iter_mut().find(|life| life.node == record.node && life.end.is_none());
        match (open, running) {
            (Some(life), false) => life.end = Some(record.at),
            (None, true) => lives.push(Life { node: record.node, begin: record.at, end: None }),
            // Said twice: known already.
            (Some(_), true) | (None, false) => {}
        }
    }
    lives
}
