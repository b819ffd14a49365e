//! Registers: is there an order of all reads and writes that fits their times?
//!
//! Each value is written once, so the answer is exact and cheap (Gibbons and Korach, "Testing shared
//! memories", 1997): the operations on one value are a cluster that must stand together. Cluster X can stand
//! before Y unless an operation of Y ended before one of X began. If neither can stand before the other, no
//! order fits; if every pair can be ordered, all of them can. The tests compare this with a search.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::{Property, Violation, seconds};
use crate::history::{Op, Phase};

/// All operations on one value of a register.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    value: u64,
    /// When its first operation ended.
    first_end: u64,
    /// When its last operation began.
    last_begin: u64,
}

/// The write of a value.
#[derive(Clone, Copy, Debug)]
struct Written {
    begin: u64,
    /// `u64::MAX` when it is unknown whether it happened.
    end: u64,
    refused: bool,
}

/// One read that was answered.
#[derive(Clone, Copy, Debug)]
struct Read {
    value: u64,
    begin: u64,
    end: u64,
}

/// The operations on one register.
#[derive(Debug, Default)]
struct Register {
    writes: BTreeMap<u64, Written>,
    reads: Vec<Read>,
}

pub(super) fn check(facts: &Facts<'_>) -> Vec<Violation> {
    let mut registers: BTreeMap<u32, Register> = BTreeMap::new();
    for call in &facts.calls {
        match *call.op {
            Op::Write { register, value } => {
                let end = call.end.filter(|_| call.phase == Phase::Ok).unwrap_or(u64::MAX);
                let written = Written { begin: call.begin, end, refused: call.phase == Phase::Fail };
                registers.entry(register).or_default().writes.insert(value, written);
            }
            Op::Read { register, value: Some(value) } if call.phase == Phase::Ok => {
                let read = Read { value, begin: call.begin, end: call.end.unwrap_or(u64::MAX) };
                registers.entry(register).or_default().reads.push(read);
            }
            _ => {}
        }
    }
    let judged = registers.iter().flat_map(|(number, register)| {
        register.judge().into_iter().map(move |text| format!("register {number}: {text}"))
    });
    judged.map(|text| Violation::new(Property::StaleRead, text)).collect()
}

impl Register {
    fn judge(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut clusters: BTreeMap<u64, Cluster> = BTreeMap::new();
        for (value, written) in self.writes.iter().filter(|(_, written)| written.end != u64::MAX) {
            let cluster = Cluster { value: *value, first_end: written.end, last_begin: written.begin };
            clusters.insert(*value, cluster);
        }
        for read in &self.reads {
            let (value, at) = (read.value, seconds(read.end));
            match self.writes.get(&value) {
                None => wrong.push(format!("{value} was read at {at} and never written")),
                Some(write) if write.refused => wrong.push(format!("{value} was read at {at}, its write was refused")),
                Some(write) if read.end < write.begin => {
                    wrong.push(format!("{value} was read at {at}, before its write began"));
                }
                Some(write) => {
                    let fresh = Cluster { value, first_end: write.end, last_begin: write.begin };
                    let cluster = clusters.entry(value).or_insert(fresh);
                    cluster.first_end = cluster.first_end.min(read.end);
                    cluster.last_begin = cluster.last_begin.max(read.begin);
                }
            }
        }
        let clusters: Vec<Cluster> = clusters.into_values().collect();
        for (place, one) in clusters.iter().enumerate() {
            for two in clusters.iter().skip(place + 1) {
                if two.first_end < one.last_begin && one.first_end < two.last_begin {
                    wrong.push(format!("{one} and {two}: neither can stand before the other"));
                }
            }
        }
        wrong
    }
}

impl std::fmt::Display for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { value, first_end, last_begin } = self;
        write!(f, "{value} (in place at {}, still at {})", seconds(*first_end), seconds(*last_begin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Rng;

    /// An operation for the search.
    #[derive(Clone, Copy, Debug)]
    struct Step {
        write: bool,
        known: bool,
        value: u64,
        begin: u64,
        end: u64,
    }

    /// Tries every order that fits the times: the plain search of Wing and Gong.
    fn fits(steps: &[Step], done: u32, present: u64) -> bool {
        let left = || (0..steps.len()).filter(|place| done & (1 << place) == 0);
        if left().all(|place| !steps[place].known) {
            return true;
        }
        left().any(|place| {
            let step = steps[place];
            // Nothing that is left may have ended before this began.
            let next = left().all(|other| steps[other].end >= step.begin);
            let answer = if step.write { step.value } else { present };
            next && (step.write || step.value == present) && fits(steps, done | 1 << place, answer)
        })
    }

    fn random(rng: &mut Rng) -> Vec<Step> {
        let count = rng.pick(2, 8);
        let mut written = 0;
        let mut steps = vec![Step { write: true, known: true, value: 0, begin: 0, end: 1 }];
        for _ in 0..count {
            let begin = rng.pick(2, 30);
            let write = rng.pick(0, 5) < 2;
            written += u64::from(write);
            let value = if write { written } else { rng.pick(0, 4) };
            let known = !write || rng.pick(0, 3) > 0;
            let end = if known { begin + rng.pick(0, 12) } else { u64::MAX };
            steps.push(Step { write, known, value, begin, end });
        }
        steps
    }

    #[test]
    fn the_cheap_answer_is_the_one_of_a_search_through_all_orders() {
        let mut rng = Rng::from_env("registers");
        let (mut good, mut bad) = (0, 0);
        for round in 0..20_000 {
            let steps = random(&mut rng);
            let mut register = Register::default();
            for step in &steps {
                let Step { value, begin, end, .. } = *step;
                if step.write {
                    register.writes.insert(value, Written { begin, end, refused: false });
                } else {
                    register.reads.push(Read { value, begin, end });
                }
            }
            let judged = register.judge();
            let found = fits(&steps, 0, u64::MAX);
            assert_eq!(judged.is_empty(), found, "round {round}: {judged:?}\n{steps:#?}");
            *(if found { &mut good } else { &mut bad }) += 1;
        }
        assert!(good > 1000 && bad > 1000, "the histories were one-sided: {good} good, {bad} bad");
    }
}
