//! What becomes of a tick that is due. Pure.

use rollbook_core::schedule::change::Tick;
use rollbook_core::schedule::definition::Missed;
use rollbook_core::schedule::row::ScheduleRow;

use super::ticks::Ticks;

/// A tick that is late by no more than this has its own event: a change of leader takes less. In milliseconds.
pub(super) const LATE_MS_MAX: u64 = 60_000;

/// What becomes of a tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// An event.
    Fire(Tick),
    /// None: it was missed, as others behind it perhaps.
    Skip(Tick),
}

impl Plan {
    /// What becomes of the tick that a schedule waits for, at a time when its event should leave, milliseconds since 1970.
    pub(super) fn of(row: &ScheduleRow, ticks: &Ticks, now: u64) -> Self {
        let from = row.next;
        let single = || Tick {
            schedule: row.name.clone(),
            revision: row.revision,
            from,
            tick: from,
            next: ticks.after_or_never(from),
            missed: 0,
        };
        let is_late = now.saturating_sub(row.due().unwrap_or(now)) > LATE_MS_MAX;
        if !is_late && from >= row.resumed {
            return Self::Fire(single());
        }
        // Of a schedule that was paused, only the ticks of the pause were missed.
        let until = if is_late { now } else { now.min(row.resumed.saturating_sub(1)) };
        let newest = ticks.newest(from, until.max(from));
        let count = ticks.count(from, newest);
        let tick = Tick { tick: newest, next: ticks.after_or_never(newest), ..single() };
        match row.on_missed() {
            Missed::Once => Self::Fire(Tick { missed: count.saturating_sub(1), ..tick }),
            Missed::Skip => Self::Skip(Tick { missed: count, ..tick }),
        }
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::schedule::definition::ScheduleDefinition;

    use super::*;

    fn row(next: u64, missed: Missed) -> ScheduleRow {
        let definition = ScheduleDefinition { every_ms: 1000, missed: missed.into(), ..ScheduleDefinition::default() };
        ScheduleRow { name: "s".into(), revision: 7, definition, next, ..ScheduleRow::default() }
    }

    fn tick(from: u64, tick: u64, next: u64, missed: u64) -> Tick {
        Tick { schedule: "s".into(), revision: 7, from, tick, next, missed }
    }

    const EVERY: Ticks = Ticks::Every(1000);

    #[test]
    fn a_tick_that_is_a_little_late_has_its_own_event() {
        for missed in [Missed::Once, Missed::Skip] {
            let row = row(50_000, missed);
            for now in [50_000, 51_500, 50_000 + LATE_MS_MAX] {
                assert_eq!(Plan::of(&row, &EVERY, now), Plan::Fire(tick(50_000, 50_000, 51_000, 0)), "{now}");
            }
        }
    }

    #[test]
    fn missed_ticks_have_one_event_or_none() {
        let now = 50_500 + LATE_MS_MAX + 1000;
        assert_eq!(Plan::of(&row(50_000, Missed::Once), &EVERY, now), Plan::Fire(tick(50_000, 111_000, 112_000, 61)));
        assert_eq!(Plan::of(&row(50_000, Missed::Skip), &EVERY, now), Plan::Skip(tick(50_000, 111_000, 112_000, 62)));
    }

    #[test]
    fn ticks_of_a_pause_were_missed_however_short_it_was() {
        let resumed = |missed| ScheduleRow { resumed: 60_500, ..row(50_000, missed) };
        assert_eq!(Plan::of(&resumed(Missed::Once), &EVERY, 60_600), Plan::Fire(tick(50_000, 60_000, 61_000, 10)));
        assert_eq!(Plan::of(&resumed(Missed::Skip), &EVERY, 60_600), Plan::Skip(tick(50_000, 60_000, 61_000, 11)));
        // The tick behind the pause has its own event, although the leader comes to it late.
        assert_eq!(Plan::of(&resumed(Missed::Skip), &EVERY, 63_000), Plan::Skip(tick(50_000, 60_000, 61_000, 11)));
        let next = ScheduleRow { next: 61_000, ..resumed(Missed::Skip) };
        assert_eq!(Plan::of(&next, &EVERY, 63_000), Plan::Fire(tick(61_000, 61_000, 62_000, 0)));
    }

    #[test]
    fn jitter_does_not_make_a_tick_late() {
        let mut row = row(50_000, Missed::Skip);
        row.definition.jitter_ms = 86_400_000;
        let due = row.due().unwrap();
        assert!(due > 50_000 + LATE_MS_MAX, "the jitter of this name and tick is long");
        assert!(matches!(Plan::of(&row, &EVERY, due), Plan::Fire(Tick { tick: 50_000, .. })));
    }
}
