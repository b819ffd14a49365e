//! The ticks of a schedule: an expression in a time zone, or an interval. Pure.
//!
//! Where the clocks of a zone are set forward, a local time that does not exist is as much later as they are set: 02:30
//! becomes 03:30. Where they are set back, a local time that comes twice is a tick the first time alone. An expression
//! that matches each hour follows time as it passes instead: it leaves out the hour that does not exist, and has its
//! ticks in both of the hours that are the same.

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneTransition};
use rollbook_core::schedule::definition::ScheduleDefinition;

use super::cron::Cron;
use crate::bus::error::Fault;

/// Ticks are searched for this many seconds, somewhat more than 9 years.
const HORIZON: i64 = 10 * 366 * 86_400;
/// Most changes of the clocks that one search passes by.
const TRANSITIONS_MAX: usize = 100;
/// Stands for a tick that never comes: the last second of the year 9999, in milliseconds since 1970.
pub const NEVER: u64 = 253_402_300_799_000;
/// Missed ticks are counted up to this number.
pub const COUNT_MAX: u64 = 10_000;

/// The ticks of a schedule.
#[derive(Debug, Clone)]
pub enum Ticks {
    /// Those of an expression.
    Cron(Cron, TimeZone),
    /// All multiples of an interval since 1970, in milliseconds.
    Every(u64),
}

/// A time between two changes of the clocks of a zone; all in seconds.
struct Segment {
    /// Local time minus UTC.
    offset: i64,
    /// Where the segment begins, and the offset before.
    begin: Option<(i64, i64)>,
    /// Where the segment ends.
    end: Option<i64>,
}

impl Segment {
    /// The segment around a time.
    fn at(zone: &TimeZone, second: i64) -> Option<Self> {
        let time = Timestamp::from_second(second).ok()?;
        let offset = |time: Timestamp| i64::from(zone.to_offset(time).seconds());
        let begin =
            zone.preceding(Timestamp::from_second(second.checked_add(1)?).ok()?).next().and_then(|transition| {
                let begin = transition.timestamp().as_second();
                Some((begin, offset(Timestamp::from_second(begin.checked_sub(1)?).ok()?)))
            });
        let end =
            zone.following(time).next().map(|transition: TimeZoneTransition<'_>| transition.timestamp().as_second());
        Some(Self { offset: offset(time), begin, end })
    }

    /// The first tick of the segment at `from` or later. `Err`: the expression matches nothing for years.
    fn next(&self, cron: &Cron, from: i64) -> Result<Option<i64>, Never> {
        let Self { offset, begin, end } = *self;
        let by_hands = begin.filter(|_| !cron.is_every_hour());
        let mut own_from = from.saturating_add(offset);
        let mut shifted = None;
        if let Some((begin, before)) = by_hands {
            let passed = begin.saturating_add(before);
            if before > offset {
                // These local times were there before the clocks were set back.
                own_from = own_from.max(passed);
            } else {
                // These local times do not exist, because the clocks were set forward over them.
                let skipped = from.saturating_add(before).max(passed);
                let match_in_gap = cron.next(skipped).filter(|local| *local < begin.saturating_add(offset));
                shifted = match_in_gap.map(|local| local.saturating_sub(before));
            }
        }
        let own = cron.next(own_from).map(|local| local.saturating_sub(offset));
        if own.is_none() && shifted.is_none() {
            return Err(Never);
        }
        let first = own.into_iter().chain(shifted).min();
        Ok(first.filter(|tick| end.is_none_or(|end| *tick < end)))
    }
}

/// The expression matches nothing for years.
struct Never;

impl Ticks {
    /// The ticks of a definition.
    ///
    /// # Errors
    /// The expression or the zone is not known.
    pub fn of(definition: &ScheduleDefinition) -> Result<Self, Fault> {
        if definition.every_ms != 0 {
            return Ok(Self::Every(definition.every_ms));
        }
        let cron = Cron::parse(&definition.cron).map_err(|error| Fault::bad(error.to_string()))?;
        Ok(Self::Cron(cron, zone(&definition.time_zone)?))
    }

    /// The first tick after a time, both in milliseconds since 1970. `None` when there is none for years.
    #[must_use]
    pub fn after(&self, millis: u64) -> Option<u64> {
        match self {
            Self::Every(every) => millis.checked_div(*every)?.checked_add(1)?.checked_mul(*every),
            Self::Cron(cron, zone) => {
                let second = i64::try_from(millis / 1000).ok()?;
                u64::try_from(next_of(cron, zone, second)?).ok()?.checked_mul(1000)
            }
        }
        .filter(|tick| *tick < NEVER)
    }

    /// The first tick after a time, or [`NEVER`].
    #[must_use]
    pub fn after_or_never(&self, millis: u64) -> u64 {
        self.after(millis).unwrap_or(NEVER)
    }

    /// The newest tick between `first`, which is one, and `until`.
    #[must_use]
    pub fn newest(&self, first: u64, until: u64) -> u64 {
        // The span is doubled until a tick is in it, so few ticks are looked at however many there are.
        let mut span = 1000_u64;
        let mut newest = first;
        while until.saturating_sub(first) > span / 2 {
            let start = until.saturating_sub(span).max(first);
            if let Some(found) = self.after(start).filter(|tick| *tick <= until) {
                newest = found;
                break;
            }
            span = span.saturating_mul(2);
        }
        while let Some(next) = self.after(newest).filter(|tick| *tick <= until) {
            newest = next;
        }
        newest
    }

    /// The number of ticks from `first`, which is one, to `last`; at most [`COUNT_MAX`].
    #[must_use]
    pub fn count(&self, first: u64, last: u64) -> u64 {
        let (mut count, mut at) = (1, first);
        while count < COUNT_MAX
            && let Some(next) = self.after(at).filter(|tick| *tick <= last)
        {
            (count, at) = (count.saturating_add(1), next);
        }
        count
    }
}

/// The zone of this name; UTC for none.
fn zone(name: &str) -> Result<TimeZone, Fault> {
    if name.is_empty() || name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    // The library would look for a file of any name.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+/".contains(&byte);
    let known = if name.bytes().all(is_plain) { TimeZone::get(name).ok() } else { None };
    let unknown = || Fault::bad(format!("time_zone: {name:?} is not known; write a name such as Europe/Berlin"));
    known.ok_or_else(unknown)
}

/// The first tick after a second of UTC.
fn next_of(cron: &Cron, zone: &TimeZone, after: i64) -> Option<i64> {
    let mut from = after.checked_add(1)?;
    let limit = from.checked_add(HORIZON)?;
    for _ in 0..TRANSITIONS_MAX {
        let segment = Segment::at(zone, from)?;
        match segment.next(cron, from) {
            Ok(Some(tick)) => return Some(tick),
            Ok(None) => from = segment.end.filter(|end| *end < limit)?,
            Err(Never) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticks(cron: &str, time_zone: &str) -> Ticks {
        let (cron, time_zone) = (cron.to_owned(), time_zone.to_owned());
        Ticks::of(&ScheduleDefinition { cron, time_zone, ..ScheduleDefinition::default() }).unwrap()
    }

    fn millis(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    fn text(millis: u64) -> String {
        Timestamp::from_millisecond(i64::try_from(millis).unwrap()).unwrap().to_string()
    }

    /// The first ticks after a time of UTC.
    #[track_caller]
    fn follow(ticks: &Ticks, after: &str, expected: &[&str]) {
        let mut at = millis(after);
        let mut found = Vec::new();
        for _ in expected {
            at = ticks.after(at).unwrap();
            found.push(text(at));
        }
        assert_eq!(found, expected, "{ticks:?}");
    }

    #[test]
    fn a_local_time_that_the_clocks_are_set_over_is_as_much_later() {
        let from = "2026-03-28T12:00:00Z";
        let daily = ticks("30 2 * * *", "Europe/Berlin");
        follow(&daily, from, &["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]);
        follow(
            &ticks("0,30 2 * * *", "Europe/Berlin"),
            from,
            &["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:00:00Z"],
        );
        // 02:00 becomes 03:00, which is a tick of its own: one event.
        follow(&ticks("0 2,3 * * *", "Europe/Berlin"), from, &["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]);
        follow(&ticks("30 1,3 * * *", "Europe/Berlin"), from, &["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"]);
        let mixed = ticks("30 2 29 3 *", "Europe/Berlin");
        follow(&mixed, "2026-03-29T01:29:59Z", &["2026-03-29T01:30:00Z", "2027-03-29T00:30:00Z"]);
    }

    #[test]
    fn a_local_time_that_comes_twice_is_a_tick_the_first_time_alone() {
        let from = "2026-10-24T12:00:00Z";
        let daily = ticks("30 2 * * *", "Europe/Berlin");
        follow(&daily, from, &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        follow(
            &ticks("0 2,3 * * *", "Europe/Berlin"),
            from,
            &["2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z", "2026-10-26T01:00:00Z"],
        );
        follow(&daily, "2026-10-25T00:59:59Z", &["2026-10-26T01:30:00Z"]);
    }

    #[test]
    fn an_expression_of_each_hour_follows_time_as_it_passes() {
        let hourly = ticks("30 * * * *", "Europe/Berlin");
        follow(
            &hourly,
            "2026-03-29T00:00:00Z",
            &["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"],
        );
        follow(
            &hourly,
            "2026-10-24T23:00:00Z",
            &["2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"],
        );
        // Half an hour of change: 01:30 to 02:00 comes twice.
        let island = ticks("45 * * * *", "Australia/Lord_Howe");
        follow(
            &island,
            "2026-04-04T14:00:00Z",
            &["2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z", "2026-04-04T16:15:00Z"],
        );
    }

    #[test]
    fn a_zone_is_known_by_its_name_and_utc_is_the_one_of_no_name() {
        follow(&ticks("0 3 * * *", ""), "2026-07-01T00:00:00Z", &["2026-07-01T03:00:00Z"]);
        follow(&ticks("0 3 * * *", "America/New_York"), "2026-07-01T00:00:00Z", &["2026-07-01T07:00:00Z"]);
        follow(&ticks("0 3 * * *", "Asia/Kathmandu"), "2026-07-01T00:00:00Z", &["2026-07-01T21:15:00Z"]);
        for name in ["Europe/Nowhere", "../../etc/passwd", "/etc/localtime", "a b", "\0", "Europe/Berlin\n"] {
            let (cron, time_zone) = ("@daily".to_owned(), name.to_owned());
            let refused = Ticks::of(&ScheduleDefinition { cron, time_zone, ..ScheduleDefinition::default() });
            assert!(refused.is_err(), "{name}");
        }
    }

    #[test]
    fn an_interval_has_its_ticks_at_multiples_since_1970() {
        follow(&Ticks::Every(30_000), "2026-01-01T00:00:29.999Z", &["2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"]);
        follow(&Ticks::Every(86_400_000), "2026-01-01T00:00:00Z", &["2026-01-02T00:00:00Z"]);
    }

    #[test]
    fn what_never_comes_is_told() {
        for (cron, zone) in [("0 0 30 2 *", ""), ("0 0 30 2 *", "Europe/Berlin"), ("0 0 31 4 *", "Australia/Lord_Howe")]
        {
            assert_eq!(ticks(cron, zone).after(millis("2026-01-01T00:00:00Z")), None, "{cron}");
        }
        let leap = ticks("0 0 29 2 *", "Europe/Berlin");
        follow(&leap, "2026-01-01T00:00:00Z", &["2028-02-28T23:00:00Z", "2032-02-28T23:00:00Z"]);
        assert_eq!(Ticks::Every(1000).after(u64::MAX), None);
        assert_eq!(ticks("@daily", "").after(u64::MAX), None);
    }

    #[test]
    fn the_newest_tick_is_found_without_a_look_at_all_of_them() {
        let (first, year) = (millis("2026-01-01T00:00:00Z"), 365 * 86_400_000);
        for (of, until, newest) in [
            (Ticks::Every(1000), first + year + 999, first + year),
            (ticks("* * * * * *", ""), first + year + 999, first + year),
            (ticks("0 0 1 * *", ""), millis("2026-12-31T00:00:00Z"), millis("2026-12-01T00:00:00Z")),
            (ticks("0 0 1 * *", ""), first, first),
            (ticks("0 0 1 1 *", ""), millis("2029-06-01T00:00:00Z"), millis("2029-01-01T00:00:00Z")),
        ] {
            assert_eq!(text(of.newest(first, until)), text(newest), "{of:?}");
        }
        assert_eq!(Ticks::Every(1000).count(first, first + 5000), 6);
        assert_eq!(Ticks::Every(1000).count(first, first + year), COUNT_MAX);
        assert_eq!(Ticks::Every(1000).count(first, first), 1);
    }

    proptest! {
        /// Local times are compared with those of the library, which maps each of them to one time.
        #[test]
        fn daily_ticks_are_those_of_the_library(
            minute in 0_u32..60, hour in 0_u32..24, from in 1_600_000_000_i64..1_900_000_000,
            name in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Tokyo"]),
        ) {
            let zone = TimeZone::get(name).unwrap();
            let found = ticks(&format!("{minute} {hour} * * *"), name).after(u64::try_from(from).unwrap() * 1000).unwrap();
            let day = Timestamp::from_second(from).unwrap().to_zoned(zone.clone()).date();
            let (hour, minute) = (i8::try_from(hour).unwrap(), i8::try_from(minute).unwrap());
            let mut of_days = (-1..3).map(|days: i32| {
                let date = day.checked_add(jiff::Span::new().days(days)).unwrap();
                zone.to_timestamp(date.at(hour, minute, 0, 0)).unwrap().as_second()
            });
            let expected = of_days.find(|second| *second > from).unwrap();
            prop_assert_eq!(i64::try_from(found / 1000).unwrap(), expected);
        }

        #[test]
        fn ticks_only_grow(from in 1_500_000_000_000_u64..2_000_000_000_000, step in 1_u32..31) {
            for of in [ticks(&format!("*/{step} 1-3 * * *"), "Europe/Berlin"), ticks(&format!("*/{step} * * * *"), "Australia/Lord_Howe")] {
                let mut at = from;
                for _ in 0..20 {
                    let next = of.after(at).unwrap();
                    prop_assert!(next > at);
                    prop_assert_eq!(of.newest(next, next + 999), next);
                    at = next;
                }
            }
        }
    }
}
