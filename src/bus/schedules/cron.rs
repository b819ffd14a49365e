//! Cron expressions: the seconds of local time that match one. Pure, and without a time zone.
//!
//! Five fields (minute, hour, day of month, month, day of week), or six with the second in front; or `@hourly` and the
//! like. When both fields of days are restricted, a day matches that fits either of them, as in Vixie's cron.

use jiff::civil::Date;

/// Days that are searched for a match, 9 years: `0 0 29 2 *` waits for 8 years around 2100.
const DAYS_MAX: u32 = 9 * 366;
/// Seconds of a day.
const DAY: i64 = 86_400;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The short forms, and what they stand for.
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Neither five nor six fields, nor a known name.
    #[error(
        "a cron expression has 5 fields (minute hour day month weekday), 6 with the second in front, or is one of @hourly @daily @weekly @monthly @yearly"
    )]
    Form,
    /// A part of a field is not understood.
    #[error(
        "cron: `{part}` in the field {field}: numbers from {least} to {most}, a-b, */n, a-b/n, lists with commas{more}"
    )]
    Field {
        /// The name of the field.
        field: &'static str,
        /// The part that is wrong.
        part: String,
        /// The lowest number of the field.
        least: u32,
        /// The highest number of the field.
        most: u32,
        /// What else the field takes.
        more: &'static str,
    },
}

/// What a field may hold.
#[derive(Debug, Clone, Copy)]
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    /// Names of the numbers from `least` on.
    names: &'static [&'static str],
    more: &'static str,
}

const SECOND: Field = Field { name: "second", least: 0, most: 59, names: &[], more: "" };
const MINUTE: Field = Field { name: "minute", ..SECOND };
const HOUR: Field = Field { name: "hour", most: 23, ..SECOND };
const DAY_OF_MONTH: Field = Field { name: "day", least: 1, most: 31, names: &[], more: ", L for the last day" };
const MONTH: Field = Field { name: "month", least: 1, most: 12, names: &MONTHS, more: ", names such as jan" };
/// 7 is Sunday too.
const WEEKDAY: Field = Field { name: "weekday", least: 0, most: 7, names: &WEEKDAYS, more: ", names such as mon" };

impl Field {
    fn wrong(&self, part: &str) -> CronError {
        let Self { name: field, least, most, more, .. } = *self;
        CronError::Field { field, part: part.chars().take(32).collect(), least, most, more }
    }

    fn number(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().zip(self.least..).find(|(name, _)| name.eq_ignore_ascii_case(text));
        if let Some((_, number)) = named {
            return Some(number);
        }
        // `parse` would take a sign.
        let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number)?;
        (self.least..=self.most).contains(&number).then_some(number)
    }

    /// The bits of one part of a list.
    fn part(&self, part: &str) -> Option<u64> {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => (range, Some(step)),
        };
        let width = self.most.saturating_sub(self.least).saturating_add(1);
        let step = match step {
            None => None,
            Some(text) => {
                let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
                Some(text.parse::<u32>().ok().filter(|step| is_number && (1..=width).contains(step))?)
            }
        };
        let (from, to) = match (range, range.split_once('-')) {
            ("*", _) => (self.least, self.most),
            (_, Some((from, to))) => (self.number(from)?, self.number(to)?),
            (one, None) => {
                let from = self.number(one)?;
                (from, if step.is_some() { self.most } else { from })
            }
        };
        let steps = (from..=to).step_by(usize::try_from(step.unwrap_or(1)).ok()?);
        // An empty range is a mistake: `5-1`.
        (from <= to).then(|| steps.fold(0, |bits, number| bits | bit(number)))
    }

    fn bits(&self, text: &str) -> Result<u64, CronError> {
        text.split(',').try_fold(0, |bits, part| Ok(bits | self.part(part).ok_or_else(|| self.wrong(part))?))
    }
}

fn bit(number: u32) -> u64 {
    1_u64.checked_shl(number).unwrap_or_default()
}

/// The lowest set bit from `from` on.
fn first_from(bits: u64, from: u32) -> Option<u32> {
    let left = bits & u64::MAX.checked_shl(from).unwrap_or_default();
    (left != 0).then(|| left.trailing_zeros())
}

/// A cron expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    /// Whether the last day of a month matches.
    last_day: bool,
    months: u64,
    weekdays: u64,
    /// Whether a day has to match only one of the two fields of days.
    either_day: bool,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let text = text.trim();
        if text.starts_with('@') {
            let named = NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
            return Self::parse(named.ok_or(CronError::Form)?.1);
        }
        let fields: Vec<&str> = text.split_ascii_whitespace().take(7).collect();
        let (second, [minute, hour, day, month, weekday]) = match fields[..] {
            [minute, hour, day, month, weekday] => ("0", [minute, hour, day, month, weekday]),
            [second, minute, hour, day, month, weekday] => (second, [minute, hour, day, month, weekday]),
            _ => return Err(CronError::Form),
        };
        let is_last = |part: &&str| part.eq_ignore_ascii_case("l");
        let (last, numbers): (Vec<&str>, Vec<&str>) = day.split(',').partition(is_last);
        let days = if numbers.is_empty() { 0 } else { DAY_OF_MONTH.bits(&numbers.join(","))? };
        let weekdays = WEEKDAY.bits(weekday)?;
        let sunday = if weekdays & bit(7) == 0 { 0 } else { 1 };
        Ok(Self {
            seconds: SECOND.bits(second)?,
            minutes: MINUTE.bits(minute)?,
            hours: HOUR.bits(hour)?,
            days,
            last_day: !last.is_empty(),
            months: MONTH.bits(month)?,
            weekdays: weekdays | sunday,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        })
    }

    /// Whether each hour of the day matches: such an expression follows time as it passes, not the hands of a clock.
    #[must_use]
    pub const fn is_every_hour(&self) -> bool {
        self.hours == (1 << 24) - 1
    }

    /// The first match at `from` or later: seconds of local time since 1970. `None` when there is none for years.
    #[must_use]
    pub fn next(&self, from: i64) -> Option<i64> {
        let mut date = date_of(from)?;
        let mut earliest = u32::try_from(from.rem_euclid(DAY)).ok()?;
        for _ in 0..DAYS_MAX {
            if self.matches(date)
                && let Some(second) = self.second_of_day(earliest)
            {
                return seconds_of(date)?.checked_add(second.into());
            }
            earliest = 0;
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn matches(&self, date: Date) -> bool {
        let number = |number: i8| u32::try_from(number).map_or(0, bit);
        let by_number = self.days & number(date.day()) != 0;
        let by_end = self.last_day && date.day() == date.days_in_month();
        let of_month = by_number || by_end;
        let of_week = self.weekdays & number(date.weekday().to_sunday_zero_offset()) != 0;
        let fits = if self.either_day { of_month || of_week } else { of_month && of_week };
        fits && self.months & number(date.month()) != 0
    }

    /// The first matching second of a day, from `earliest` on.
    fn second_of_day(&self, earliest: u32) -> Option<u32> {
        let (hour, minute, second) = (earliest / 3600, earliest / 60 % 60, earliest % 60);
        let mut at = first_from(self.hours, hour);
        while let Some(found_hour) = at {
            let same_hour = found_hour == hour;
            let mut within = first_from(self.minutes, if same_hour { minute } else { 0 });
            while let Some(found_minute) = within {
                let least = if same_hour && found_minute == minute { second } else { 0 };
                if let Some(found_second) = first_from(self.seconds, least) {
                    return Some(found_hour * 3600 + found_minute * 60 + found_second);
                }
                within = first_from(self.minutes, found_minute + 1);
            }
            at = first_from(self.hours, found_hour + 1);
        }
        None
    }
}

/// The day of a second of local time.
fn date_of(second: i64) -> Option<Date> {
    let time = jiff::Timestamp::from_second(second).ok()?;
    Some(jiff::tz::Offset::UTC.to_datetime(time).date())
}

/// The first second of a day of local time.
fn seconds_of(date: Date) -> Option<i64> {
    let time = jiff::tz::Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
    Some(time.as_second())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn second(text: &str) -> i64 {
        format!("{text}Z").parse::<jiff::Timestamp>().unwrap().as_second()
    }

    fn text(second: i64) -> String {
        jiff::Timestamp::from_second(second).unwrap().to_string().trim_end_matches('Z').to_owned()
    }

    /// The first matches behind a time.
    #[track_caller]
    fn matches(expression: &str, after: &str, expected: &[&str]) {
        let cron = Cron::parse(expression).unwrap();
        let mut at = second(after);
        let mut found = Vec::new();
        for _ in expected {
            at = cron.next(at + 1).unwrap();
            found.push(text(at));
        }
        assert_eq!(found, expected, "{expression}");
    }

    #[test]
    fn minutes_hours_and_days_match_as_in_cron() {
        let from = "2026-01-30T23:58:30";
        matches("* * * * *", from, &["2026-01-30T23:59:00", "2026-01-31T00:00:00"]);
        matches("*/15 * * * *", from, &["2026-01-31T00:00:00", "2026-01-31T00:15:00"]);
        matches("30 3 * * *", from, &["2026-01-31T03:30:00", "2026-02-01T03:30:00"]);
        matches("0 9-17/4 * * mon-fri", from, &["2026-02-02T09:00:00", "2026-02-02T13:00:00", "2026-02-02T17:00:00"]);
        matches("5/20 1 1 JAN,Jul *", from, &["2026-07-01T01:05:00", "2026-07-01T01:25:00", "2026-07-01T01:45:00"]);
        matches("0 0 * * 7", from, &["2026-02-01T00:00:00", "2026-02-08T00:00:00"]);
        matches("0 0 * * 0", from, &["2026-02-01T00:00:00"]);
    }

    #[test]
    fn six_fields_begin_with_the_second() {
        matches("*/20 * * * * *", "2026-01-01T00:00:59", &["2026-01-01T00:01:00", "2026-01-01T00:01:20"]);
        matches("59 59 23 31 12 *", "2026-01-01T00:00:00", &["2026-12-31T23:59:59", "2027-12-31T23:59:59"]);
    }

    #[test]
    fn names_stand_for_expressions() {
        let from = "2026-01-30T23:58:30";
        matches("@hourly", from, &["2026-01-31T00:00:00", "2026-01-31T01:00:00"]);
        matches("@daily", from, &["2026-01-31T00:00:00", "2026-02-01T00:00:00"]);
        matches("@Weekly", from, &["2026-02-01T00:00:00", "2026-02-08T00:00:00"]);
        matches("@monthly", from, &["2026-02-01T00:00:00", "2026-03-01T00:00:00"]);
        matches("@yearly", from, &["2027-01-01T00:00:00", "2028-01-01T00:00:00"]);
    }

    #[test]
    fn months_end_where_they_end() {
        let from = "2026-01-30T00:00:01";
        matches("0 0 31 * *", from, &["2026-01-31T00:00:00", "2026-03-31T00:00:00", "2026-05-31T00:00:00"]);
        matches("0 0 L * *", from, &["2026-01-31T00:00:00", "2026-02-28T00:00:00", "2026-03-31T00:00:00"]);
        matches("0 0 1,l 2 *", from, &["2026-02-01T00:00:00", "2026-02-28T00:00:00", "2027-02-01T00:00:00"]);
        matches("0 0 29 2 *", from, &["2028-02-29T00:00:00", "2032-02-29T00:00:00"]);
        matches("0 0 29 2 *", "2096-03-01T00:00:00", &["2104-02-29T00:00:00"]);
    }

    #[test]
    fn a_day_fits_either_field_when_both_are_restricted() {
        // 2026-02-13 is a Friday.
        matches("0 0 13 * fri", "2026-02-06T00:00:00", &["2026-02-13T00:00:00", "2026-02-20T00:00:00"]);
        matches("0 0 20 * fri", "2026-04-17T00:00:00", &["2026-04-20T00:00:00", "2026-04-24T00:00:00"]);
        matches("0 0 */2 * fri", "2026-02-06T00:00:00", &["2026-02-13T00:00:00", "2026-02-27T00:00:00"]);
    }

    #[test]
    fn a_day_that_no_month_has_never_comes() {
        for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "* * * 31 feb *"] {
            assert_eq!(Cron::parse(never).unwrap().next(second("2026-01-01T00:00:00")), None, "{never}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused_and_the_field_is_named() {
        for text in ["", "* * * *", "* * * * * * *", "@often", "@every 5s", "0"] {
            assert_eq!(Cron::parse(text), Err(CronError::Form), "{text}");
        }
        for (text, field, part) in [
            ("60 * * * *", "minute", "60"),
            ("* 24 * * *", "hour", "24"),
            ("* * 0 * *", "day", "0"),
            ("* * 32 * *", "day", "32"),
            ("* * * 13 *", "month", "13"),
            ("* * * * 8", "weekday", "8"),
            ("* * * mon *", "month", "mon"),
            ("5-1 * * * *", "minute", "5-1"),
            ("*/0 * * * *", "minute", "*/0"),
            ("*/61 * * * *", "minute", "*/61"),
            ("+5 * * * *", "minute", "+5"),
            ("1,,2 * * * *", "minute", ""),
            ("1-2-3 * * * *", "minute", "1-2-3"),
            ("005 * * * *", "minute", "005"),
            ("* * L-1 * *", "day", "L-1"),
            ("99 * * * * *", "second", "99"),
            ("\u{664} * * * *", "minute", "\u{664}"),
        ] {
            match Cron::parse(text).unwrap_err() {
                CronError::Field { field: found, part: wrong, .. } => {
                    assert_eq!((found, &*wrong), (field, part), "{text}")
                }
                error @ CronError::Form => panic!("{text}: {error}"),
            }
        }
        assert!(Cron::parse(&"*".repeat(300)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_crash(text in "\\PC{0,30}|[-0-9*/,L@ a-z]{0,40}") {
            if let Ok(cron) = Cron::parse(&text) {
                prop_assert!(cron.next(1_750_000_000).is_none_or(|at| at >= 1_750_000_000));
            }
        }

        /// A search that looks at every minute finds the same.
        #[test]
        fn no_match_is_passed_by(
            minute in 0_u32..60, hour in 0_u32..24, step in 1_u32..30, weekday in 0_u32..7, from in 1_700_000_000_i64..1_800_000_000,
        ) {
            let cron = Cron::parse(&format!("{minute},*/{step} {hour} * * {weekday}")).unwrap();
            let found = cron.next(from).unwrap();
            let fits = |at: i64| {
                let of_day = at.rem_euclid(DAY);
                let (at_hour, at_minute) = (of_day / 3600, of_day / 60 % 60);
                let right_minute = at_minute == i64::from(minute) || at_minute % i64::from(step) == 0;
                // 1970-01-01 was a Thursday.
                let day = (at.div_euclid(DAY) + 4).rem_euclid(7);
                at % 60 == 0 && right_minute && at_hour == i64::from(hour) && day == i64::from(weekday)
            };
            let by_search = (from..).filter(|at| at % 60 == 0).find(|at| fits(*at)).unwrap();
            prop_assert_eq!(found, by_search);
        }
    }
}
