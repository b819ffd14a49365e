//! Durations in the notation of Go, for the configuration and the command line.

use std::fmt;
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserializer, Serializer};

/// Why a text is not a usable duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not in Go's notation.
    #[error("`{0}` is not a duration; write a number and a unit, such as 30s, 100ms or 1h30m")]
    Malformed(String),
    /// A sign in front: no setting means a time in the past.
    #[error("`{0}` is negative; a duration here must not be")]
    Negative(String),
    /// More nanoseconds than Go's signed 64 bits hold (about 292 years).
    #[error("`{0}` is too long a duration; the longest is about 292 years")]
    TooLong(String),
}

/// Units from the longest to the shortest, in nanoseconds.
const UNITS: [(&str, u128); 8] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("\u{b5}s", 1_000),  // micro sign
    ("\u{3bc}s", 1_000), // Greek letter mu
    ("ns", 1),
];

/// Digits after the point that can still make a nanosecond of an hour, with room to spare.
const FRACTION_DIGITS: usize = 18;

/// Reads a Go duration: `30s`, `1.5h`, `1h15m30.918s`, `0`. What lies below a nanosecond is cut off.
///
/// # Errors
///
/// When the text is not a duration, is negative, or is longer than Go can hold.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed(text.to_owned());
    if let Some(rest) = text.strip_prefix('-') {
        return match parse(rest) {
            Ok(Duration::ZERO) => Ok(Duration::ZERO),
            Ok(_) => Err(DurationError::Negative(text.to_owned())),
            Err(_) => Err(malformed()),
        };
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(malformed());
    }
    let too_long = || DurationError::TooLong(text.to_owned());
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), split_digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(malformed());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (name, after) = after.split_at_checked(end).ok_or_else(malformed)?;
        let unit = UNITS.iter().find(|(unit, _)| *unit == name).ok_or_else(malformed)?.1;
        let part = scale(whole, fraction, unit).ok_or_else(too_long)?;
        nanos = nanos.checked_add(part).ok_or_else(too_long)?;
        rest = after;
    }
    let nanos = i64::try_from(nanos).ok().and_then(|n| u64::try_from(n).ok());
    nanos.map(Duration::from_nanos).ok_or_else(too_long)
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// `whole.fraction` times `unit`, in nanoseconds; `None` when it does not fit.
fn scale(whole: &str, fraction: &str, unit: u128) -> Option<u128> {
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u128>().ok()? };
    let fraction = fraction.get(..FRACTION_DIGITS).unwrap_or(fraction);
    let below = if fraction.is_empty() {
        0
    } else {
        let ten_power = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        fraction.parse::<u128>().ok()?.checked_mul(unit)?.checked_div(ten_power)?
    };
    whole.checked_mul(unit)?.checked_add(below)
}

/// Writes a duration so that [`parse`] (and Go) reads the same value back: `1h30m`, `30s`, `1.5ms`, `0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000_000_000 {
        let (unit, size) = match nanos {
            1_000_000.. => ("ms", 1_000_000),
            1_000.. => ("us", 1_000),
            _ => ("ns", 1),
        };
        return format!("{}{unit}", decimal(nanos, size));
    }
    let mut text = String::new();
    let (hours, rest) = (nanos / 3_600_000_000_000, nanos % 3_600_000_000_000);
    let (minutes, seconds) = (rest / 60_000_000_000, rest % 60_000_000_000);
    if hours > 0 {
        text.push_str(&format!("{hours}h"));
    }
    if minutes > 0 {
        text.push_str(&format!("{minutes}m"));
    }
    if seconds > 0 {
        text.push_str(&format!("{}s", decimal(seconds, 1_000_000_000)));
    }
    text
}

/// `nanos / size` as a decimal number without trailing zeros; `size` is a power of ten.
fn decimal(nanos: u128, size: u128) -> String {
    let digits = usize::try_from(size.ilog10()).unwrap_or(0);
    let (whole, below) = (nanos / size, nanos % size);
    if below == 0 {
        return whole.to_string();
    }
    format!("{whole}.{}", format!("{below:0digits$}").trim_end_matches('0'))
}

/// For `#[serde(with = "duration")]`: writes [`format`].
pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*value))
}

/// For `#[serde(with = "duration")]`: reads [`parse`].
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration, as in \"30s\", \"100ms\" or \"1h30m\"")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_without_a_unit_is_told_what_to_write() {
        let read = |json: &str| deserialize(&mut serde_json::Deserializer::from_str(json));
        assert_eq!(read("\"1m30s\"").unwrap(), Duration::from_secs(90));
        let refused = read("30").unwrap_err().to_string();
        assert!(refused.contains("integer `30`, expected a duration, as in \"30s\""), "{refused}");
    }

    #[test]
    fn reads_what_go_reads() {
        let cases: [(&str, u64); 20] = [
            ("0", 0),
            ("+0", 0),
            ("-0", 0),
            ("0s", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("5.0s", 5_000_000_000),
            ("5.6s", 5_600_000_000),
            ("5.s", 5_000_000_000),
            (".5s", 500_000_000),
            ("1.004s", 1_004_000_000),
            ("100.00100s", 100_001_000_000),
            ("11us", 11_000),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s10ns", 12_010),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("1h15m30.918s", 4_530_918_000_000),
            ("0.3333333333333333333h", 1_200_000_000_000 - 1),
            ("9223372036854775807ns", 9_223_372_036_854_775_807),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in
            ["", "3", "-", "s", ".", "-.", ".s", "+.s", "1d", "2d", "1 s", " 1s", "1s ", "1h-5m", "1e3s", "\u{661}s"]
        {
            assert!(matches!(parse(text), Err(DurationError::Malformed(_))), "{text}: {:?}", parse(text));
        }
        assert!(matches!(parse("-5s"), Err(DurationError::Negative(_))));
        for text in ["9223372036854775808ns", "3000000h", "99999999999999999999999999999999999999999999h"] {
            assert!(matches!(parse(text), Err(DurationError::TooLong(_))), "{text}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5us"),
            (1_050_000, "1.05ms"),
            (100_000_000, "100ms"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (86_400_000_000_000, "24h"),
            (4_530_918_000_000, "1h15m30.918s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(format(Duration::from_nanos(nanos)), text);
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)));
        }
    }
}
