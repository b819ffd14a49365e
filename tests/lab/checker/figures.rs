//! The figures of a run in one table: what was published, seen and broken, and how long each fault held things up.

use std::collections::BTreeMap;
use std::fmt;

use super::facts::Facts;
use super::{progress, seconds};
use crate::history::{Log, Op, Phase, Recovery};

/// What a fault of one kind did.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    count: u64,
    /// Longest time without an acknowledgement by the majority while it lasted.
    gap: Option<u64>,
    /// Longest time after its healing until every node acknowledged a publish; `stuck` counts those that did not.
    pause: Option<u64>,
    /// Longest time until every node had everything, where the lab waited for that.
    level: Option<u64>,
    stuck: u64,
    /// How often it did not do what it is for.
    missed: u64,
}

/// The table.
#[derive(Debug)]
pub(super) struct Figures {
    lasted: u64,
    /// Events asked for, and what became of those publishes in the end.
    published: u64,
    acknowledged: u64,
    unknown: u64,
    refused: u64,
    delivered: u64,
    stored: u64,
    starts: usize,
    kinds: BTreeMap<String, Kind>,
    violations: usize,
}

impl Figures {
    pub(super) fn of(facts: &Facts<'_>, violations: usize) -> Self {
        let count = |of: &dyn Fn(&super::facts::Fate) -> bool| facts.fates.values().filter(|fate| of(fate)).count();
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let delivered = facts.history.seen().filter(|record| matches!(record.op, Op::Deliver { .. })).count();
        let stored = facts.logs.iter().filter(|(log, _)| **log != Log::Roll).map(|(_, values)| values.len()).sum();
        let mut figures = Self {
            lasted: facts.end,
            published: number(facts.fates.len()),
            acknowledged: number(count(&|fate| fate.acknowledged.is_some())),
            unknown: number(count(&|fate| fate.acknowledged.is_none() && !fate.refused)),
            refused: number(count(&|fate| fate.refused)),
            delivered: number(delivered),
            stored: number(stored),
            starts: facts.lives.len(),
            kinds: BTreeMap::new(),
            violations,
        };
        for (name, pause) in progress::pauses(facts) {
            let kind = figures.kinds.entry(name).or_default();
            kind.count += 1;
            kind.pause = kind.pause.max(pause);
            kind.stuck += u64::from(pause.is_none());
        }
        for (name, gap) in progress::gaps(facts) {
            let kind = figures.kinds.entry(name).or_default();
            kind.gap = kind.gap.max(Some(gap));
        }
        for record in facts.history.seen().filter(|record| record.phase == Phase::Seen) {
            if let Op::Recovered { fault, what: Recovery::Level, took, .. } = &record.op {
                let kind = figures.kinds.entry(fault.clone()).or_default();
                kind.level = kind.level.max(*took);
                kind.stuck += u64::from(took.is_none());
            }
            if let Op::Missed { fault, .. } = &record.op {
                figures.kinds.entry(fault.clone()).or_default().missed += 1;
            }
        }
        figures
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, acknowledged, unknown, refused, delivered, stored, starts, violations, .. } = self;
        writeln!(f, "| figure | value |\n|---|--:|")?;
        writeln!(f, "| lasted | {} |", seconds(self.lasted))?;
        for (name, value) in [
            ("events published", published),
            ("acknowledged", acknowledged),
            ("unknown", unknown),
            ("refused", refused),
            ("delivered, over all consumers", delivered),
            ("stored at the end", stored),
        ] {
            writeln!(f, "| {name} | {value} |")?;
        }
        writeln!(f, "| starts of nodes | {starts} |\n| violations | {violations} |\n")?;
        writeln!(
            f,
            "| fault | times | without effect | longest without an acknowledgement by the majority | until every node accepted again | until every node was level | never |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|")?;
        for (name, Kind { count, gap, pause, level, stuck, missed }) in &self.kinds {
            let [gap, pause, level] = [gap, pause, level].map(|time| time.map_or_else(|| "-".to_owned(), seconds));
            writeln!(f, "| {name} | {count} | {missed} | {gap} | {pause} | {level} | {stuck} |")?;
        }
        Ok(())
    }
}
