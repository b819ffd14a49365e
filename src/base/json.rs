//! JSON as clients of all languages write it: how deep it may be nested, which numbers count as whole, and how a
//! document is passed on without a change of its bytes. Pure.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use rollbook_core::json::Members;
use serde::de::{IntoDeserializer as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Map;
use serde_json::value::RawValue;

use super::duration;

/// How deep arrays and objects in a document of a client may be nested. Parsers that go deeper are rare: .NET stops at
/// 64 by default, Python at about 1000.
pub const DEPTH_MAX: usize = 128;

/// The explanation for a document that fails [`is_shallow`].
pub const TOO_DEEP: &str = "nested deeper than 128 levels";

/// Whether no array or object of a JSON text is nested deeper than `depth_max`. Does not check that the text is JSON.
#[must_use]
pub fn is_shallow(json: &[u8], depth_max: usize) -> bool {
    // A string or a number has no depth, and nearly all other documents have no more brackets than that.
    let is_plain = json.first().is_some_and(|first| matches!(first, b'"' | b'-' | b'0'..=b'9'));
    if is_plain || memchr::memchr2_iter(b'[', b'{', json).take(depth_max.saturating_add(1)).count() <= depth_max {
        return true;
    }
    let (mut depth, mut at) = (0_usize, 0_usize);
    while let Some(byte) = json.get(at) {
        at = at.saturating_add(1);
        match byte {
            b'"' => at = end_of_string(json, at),
            b'[' | b'{' => depth = depth.saturating_add(1),
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > depth_max {
            return false;
        }
    }
    true
}

/// The position behind the string whose content begins at `at`.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    // Most bytes of most documents are in strings: this is many times faster than a look at each byte.
    while let Some(found) = json.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        let place = at.saturating_add(found);
        if json.get(place) == Some(&b'"') {
            return place.saturating_add(1);
        }
        at = place.saturating_add(2);
    }
    json.len()
}

/// The text behind a byte order mark, which some programs write before UTF-8.
#[must_use]
pub fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// A whole number from 0 in any notation: `5000`, `5000.0` and `5e3` are equal. Languages with one type of number write
/// the second or third form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole(pub u64);

/// Whole numbers up to this one are exact in every language.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Whole, E> {
                // A whole number has the digits of one; adding 0 takes the sign off a zero.
                let parsed = (number.abs() <= EXACT_MAX).then(|| (number + 0.0).to_string().parse().ok()).flatten();
                parsed.map(Whole).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Float(number), &self))
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// A time to wait: a text with units, `"1m30s"`, or milliseconds as a [`Whole`] number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(pub Duration);

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Time;
        impl Visitor<'_> for Time {
            type Value = Wait;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time, as \"5s\", \"1m30s\", or as a number of milliseconds")
            }

            fn visit_u64<E>(self, millis: u64) -> Result<Wait, E> {
                Ok(Wait(Duration::from_millis(millis)))
            }

            fn visit_f64<E: serde::de::Error>(self, millis: f64) -> Result<Wait, E> {
                let wrong = |_: E| E::invalid_value(serde::de::Unexpected::Float(millis), &self);
                let Whole(millis) = Whole::deserialize(millis.into_deserializer()).map_err(wrong)?;
                self.visit_u64(millis)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Wait, E> {
                let wrong = |_| E::invalid_value(serde::de::Unexpected::Str(text), &self);
                duration::parse(text).map(Wait).map_err(wrong)
            }
        }
        deserializer.deserialize_any(Time)
    }
}

/// Reads a member for which `null` means absent.
///
/// # Errors
/// It is there and is something else.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The text of a JSON string. Half of a surrogate pair, which no text can hold, becomes U+FFFD. `None` when the
/// document is not a string.
#[must_use]
pub fn text(json: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
    if let Ok(Borrowed(text)) = serde_json::from_str(json) {
        return Some(text);
    }
    serde_json::from_str::<&RawValue>(json).ok().filter(|raw| raw.get().starts_with('"'))?;
    serde_json::from_str(&whole_pairs(json)).ok().map(Cow::Owned)
}

/// A JSON string without halves of surrogate pairs.
fn whole_pairs(json: &str) -> String {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut out, mut rest) = (String::with_capacity(json.len()), json);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let pair = unit(escape).filter(|high| (0xd800..0xdc00).contains(high));
        let pair = pair.and_then(|_| unit(escape.get(6..)?)).filter(|low| (0xdc00..0xe000).contains(low));
        let half = unit(escape).is_some_and(|unit| (0xd800..0xe000).contains(&unit)) && pair.is_none();
        let length = if pair.is_some() {
            12
        } else if unit(escape).is_some() {
            6
        } else {
            2
        };
        let (escape, after) = escape.split_at_checked(length).unwrap_or((escape, ""));
        out.push_str(if half { "\\ufffd" } else { escape });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A document that is passed on as it was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Verbatim(Box<RawValue>);

impl Verbatim {
    /// Keeps a document; `None` when the text is not JSON.
    #[must_use]
    pub fn new(json: String) -> Option<Self> {
        RawValue::from_string(json).ok().map(Self)
    }

    /// The text of the document.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }
}

impl Default for Verbatim {
    /// An empty object.
    fn default() -> Self {
        Self(serde_json::value::to_raw_value(&Map::new()).unwrap_or_default())
    }
}

impl PartialEq for Verbatim {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

/// The members of an object in their order, with what their names stand for, see [`text`]; `None` when it is none.
#[must_use]
pub fn members(json: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    let Members(members) = serde_json::from_str(json).ok()?;
    members.into_iter().map(|(name, member)| Some((text(name.get())?, member))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_depth_is_that_of_arrays_and_objects_and_not_of_texts() {
        let nested = |levels: usize| format!("{}1{}", "[{\"a\":".repeat(levels / 2), "}]".repeat(levels / 2));
        let is_shallow = |json: &str, depth_max| is_shallow(json.as_bytes(), depth_max);
        assert!(is_shallow(&nested(128), 128) && !is_shallow(&nested(130), 128));
        assert!(is_shallow(&"[]".repeat(1000), 1), "side by side");
        let text = Value::from("[{\\\"".repeat(1000)).to_string();
        assert!(is_shallow(&text, 0) && is_shallow(&format!("[{text},{text}]"), 1));
        let quoted = format!("[\"\\\\\",\"\\\"[[\",{}]", nested(128));
        assert!(is_shallow(&quoted, 129) && !is_shallow(&quoted, 128), "escapes end where they end: {quoted}");
        assert!(is_shallow(&format!("\"{}", "[".repeat(1000)), 1), "a string without an end");
        assert!(TOO_DEEP.contains(&DEPTH_MAX.to_string()));
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        let whole = |json: &str| serde_json::from_str::<Option<Whole>>(json).ok().map(|whole| whole.map(|Whole(n)| n));
        for (json, number) in [
            ("5000", 5000),
            ("5000.0", 5000),
            ("5e3", 5000),
            ("0", 0),
            ("0.0", 0),
            ("-0.0", 0),
            ("1E+2", 100),
            ("9007199254740992.0", 1 << 53),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(whole(json), Some(Some(number)), "{json}");
        }
        assert_eq!(whole("null"), Some(None));
        for json in ["-1", "1.5", "\"5\"", "true", "1e30", "18446744073709551616", "[]", "{}"] {
            assert_eq!(whole(json), None, "{json}");
        }
    }

    #[test]
    fn a_time_is_a_text_with_units_or_milliseconds() {
        let wait = |json: &str| serde_json::from_str::<Wait>(json).map(|Wait(time)| time.as_millis());
        for (json, millis) in [("\"1m30s\"", 90_000), ("\"500ms\"", 500), ("300", 300), ("3e2", 300), ("0", 0)] {
            assert_eq!(wait(json).ok(), Some(millis), "{json}");
        }
        for json in ["\"5\"", "\"soon\"", "\"-5s\"", "-1", "0.5", "true", "[]"] {
            let refused = wait(json).unwrap_err().to_string();
            assert!(refused.contains("a time, as \"5s\""), "{json}: {refused}");
        }
    }

    #[test]
    fn null_is_none() {
        #[derive(Deserialize)]
        struct Options {
            #[serde(default, deserialize_with = "or_default")]
            text: String,
            #[serde(default, deserialize_with = "or_default")]
            list: Vec<u8>,
        }
        let read = |json: &str| serde_json::from_str::<Options>(json).map(|read| (read.text, read.list)).ok();
        assert_eq!(read("{\"text\":null,\"list\":null}"), Some((String::new(), vec![])));
        assert_eq!(read("{}"), Some((String::new(), vec![])));
        assert_eq!(read("{\"text\":\"a\",\"list\":[1]}"), Some(("a".to_owned(), vec![1])));
        assert_eq!(read("{\"text\":1}"), None);
    }

    #[test]
    fn half_of_a_pair_does_not_hide_the_rest_of_a_text() {
        let read = |json: &str| text(json).map(Cow::into_owned);
        assert_eq!(read("\"plain\"").as_deref(), Some("plain"));
        assert_eq!(read("\"a\\ud83d\"").as_deref(), Some("a\u{fffd}"));
        assert_eq!(
            read("\"\\ude00\\ud83d\\ude00\\n\\ud83d\\ud83d\\\\u\"").as_deref(),
            Some("\u{fffd}😀\n\u{fffd}\u{fffd}\\u")
        );
        assert_eq!(read("\"\\u00e9\\u0000é\"").as_deref(), Some("é\0é"));
        for json in ["7", "null", "\"open", "\"\\u12\"", "[\"a\"]", ""] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
