//! The time that is stored with an event, and its RFC 3339 text.

use alloc::vec::Vec;
use core::fmt;

/// A point in time: seconds since 1970-01-01T00:00:00Z and nanoseconds within the second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Timestamp {
    /// Whole seconds, negative before 1970. Years 0001 to 9999.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// 0 to 999,999,999.
    #[prost(uint32, tag = "2")]
    pub nanos: u32,
}

/// 0001-01-01T00:00:00Z, which Go programs send for "not set".
pub const ZERO_YEAR_SECONDS: i64 = -62_135_596_800;

impl Timestamp {
    /// The point in time that many milliseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        let nanos = u32::try_from(millis % 1000).unwrap_or(0).saturating_mul(1_000_000);
        Self { seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX), nanos }
    }

    /// Appends the RFC 3339 text in UTC, with a fraction without trailing zeros: `2024-03-15T10:30:45.5Z`.
    pub fn write(&self, out: &mut impl Extend<u8>) {
        let days = self.seconds.div_euclid(86_400);
        let in_day = self.seconds.rem_euclid(86_400);
        let (year, month, day) = civil(days);
        digits(out, year, 4);
        out.extend(*b"-");
        digits(out, month, 2);
        out.extend(*b"-");
        digits(out, day, 2);
        out.extend(*b"T");
        digits(out, in_day / 3600, 2);
        out.extend(*b":");
        digits(out, in_day / 60 % 60, 2);
        out.extend(*b":");
        digits(out, in_day % 60, 2);
        if self.nanos != 0 {
            let (mut fraction, mut width) = (i64::from(self.nanos), 9);
            while fraction % 10 == 0 {
                fraction /= 10;
                width -= 1;
            }
            out.extend(*b".");
            digits(out, fraction, width);
        }
        out.extend(*b"Z");
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(32);
        self.write(&mut text);
        f.write_str(core::str::from_utf8(&text).unwrap_or_default())
    }
}

/// Writes `value` in decimal, padded with zeros to `width` digits.
fn digits(out: &mut impl Extend<u8>, value: i64, width: usize) {
    let mut text = [b'0'; 20];
    let mut rest = value.unsigned_abs();
    for slot in text.iter_mut().rev() {
        *slot = b'0'.wrapping_add(u8::try_from(rest % 10).unwrap_or(0));
        rest /= 10;
    }
    out.extend(text.iter().skip(text.len().saturating_sub(width)).copied());
}

/// Year, month, day of a day number counted from 1970-01-01 (proleptic Gregorian).
///
/// The calculation uses cycles of 400 years that begin on 1 March, so that the leap day is the last day of a cycle.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let cycle = shifted.div_euclid(146_097);
    let day_of_cycle = shifted.rem_euclid(146_097);
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_cycle + cycle * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::String, vec::Vec};

    fn text(seconds: i64, nanos: u32) -> String {
        let mut out = Vec::new();
        Timestamp { seconds, nanos }.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_moments_have_their_rfc_3339_text() {
        assert_eq!(text(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(text(1_710_498_645, 123_456_789), "2024-03-15T10:30:45.123456789Z");
        assert_eq!(text(1_709_164_800, 500_000_000), "2024-02-29T00:00:00.5Z");
        assert_eq!(text(1_709_164_800, 1), "2024-02-29T00:00:00.000000001Z");
        assert_eq!(text(-1, 0), "1969-12-31T23:59:59Z");
        assert_eq!(text(ZERO_YEAR_SECONDS, 0), "0001-01-01T00:00:00Z");
        assert_eq!(text(253_402_300_799, 0), "9999-12-31T23:59:59Z");
    }
}
