//! A schedule as it is stored.

use alloc::string::String;

use super::definition::{Missed, ScheduleDefinition};

/// A schedule, and how far it is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ScheduleRow {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What is published, and when.
    #[prost(message, required, tag = "2")]
    pub definition: ScheduleDefinition,
    /// Number of the last change of the definition among the changes of all schedules, so that no schedule ever has a
    /// revision that an earlier one of the same name had.
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    /// The tick that comes next, milliseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub next: u64,
    /// The newest tick that was published, or tried and refused; 0 before the first one.
    #[prost(uint64, tag = "5")]
    pub last: u64,
    /// Time of the log when the schedule was created, milliseconds since 1970.
    #[prost(uint64, tag = "6")]
    pub created: u64,
    /// Time of the log of the last change of the definition, milliseconds since 1970.
    #[prost(uint64, tag = "7")]
    pub changed: u64,
    /// Time of the log when the schedule was resumed; earlier ticks count as missed. 0: never.
    #[prost(uint64, tag = "8")]
    pub resumed: u64,
    /// Number of published events.
    #[prost(uint64, tag = "9")]
    pub fired: u64,
    /// Number of ticks that have no event of their own, because their time had passed.
    #[prost(uint64, tag = "10")]
    pub missed: u64,
    /// Number of ticks whose event was refused.
    #[prost(uint64, tag = "11")]
    pub failed: u64,
    /// Why the newest refused event was refused; empty before the first one.
    #[prost(string, tag = "12")]
    pub failure: String,
}

impl ScheduleRow {
    /// What becomes of missed ticks.
    #[must_use]
    pub fn on_missed(&self) -> Missed {
        Missed::try_from(self.definition.missed).unwrap_or(Missed::Once)
    }

    /// By how many milliseconds the event of a tick leaves behind the tick. Name and tick alone decide, so all nodes
    /// agree.
    #[must_use]
    pub fn jitter(&self, tick: u64) -> u64 {
        let most = self.definition.jitter_ms;
        if most == 0 {
            return 0;
        }
        let hash = crc32c::crc32c_append(crc32c::crc32c(self.name.as_bytes()), &tick.to_be_bytes());
        u64::from(hash).checked_rem(most.saturating_add(1)).unwrap_or_default()
    }

    /// When the next event leaves, milliseconds since 1970; `None` while the schedule is paused.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        (!self.definition.paused).then(|| self.next.saturating_add(self.jitter(self.next)))
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    #[test]
    fn jitter_is_bounded_differs_between_ticks_and_is_the_same_for_the_same_tick() {
        let definition = ScheduleDefinition { jitter_ms: 60_000, ..ScheduleDefinition::default() };
        let row = ScheduleRow { name: "report".into(), definition, next: 5_000, ..ScheduleRow::default() };
        let of_ticks: BTreeSet<u64> = (0..100).map(|tick| row.jitter(tick * 1000)).collect();
        assert!(of_ticks.len() > 90 && of_ticks.iter().all(|jitter| *jitter <= 60_000), "{of_ticks:?}");
        assert_eq!(row.due(), Some(5_000 + row.clone().jitter(5_000)));
        let other = ScheduleRow { name: "other".into(), ..row.clone() };
        assert_ne!(other.jitter(5_000), row.jitter(5_000), "two schedules of the same ticks do not leave together");
    }

    #[test]
    fn without_jitter_an_event_leaves_at_its_tick_and_a_paused_one_never() {
        let mut row = ScheduleRow { name: "report".into(), next: 5_000, ..ScheduleRow::default() };
        assert_eq!(row.due(), Some(5_000));
        row.definition.paused = true;
        assert_eq!(row.due(), None);
    }
}
