//! Ids, numbers, words and times as clients write them.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rollbook_core::xbus::id::Id;
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// An id: with dashes, or as proto3 JSON writes 16 bytes, in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdText {
    /// The id.
    pub id: Id,
    /// Whether it was in base64. Whoever writes ids so writes items so too.
    pub is_base64: bool,
}

impl<'de> Deserialize<'de> for IdText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = IdText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UUID with dashes, or 16 bytes in base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<IdText, E> {
                if let Ok(id) = text.parse() {
                    return Ok(IdText { id, is_base64: false });
                }
                let bytes = Some(text).filter(|text| text.len() == 24).and_then(|text| STANDARD.decode(text).ok());
                let id = bytes.and_then(|bytes| Id::from_slice(&bytes).ok());
                id.map(|id| IdText { id, is_base64: true })
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Other("another text"), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A whole number: proto3 JSON writes large ones as texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Number(pub u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
                Ok(Number(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                let number = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
                number.map(Number).ok_or_else(|| E::invalid_value(de::Unexpected::Other("another text"), &self))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// An enumeration whose values have names.
pub trait Words: Copy + 'static {
    /// The values by name, in lower case.
    const WORDS: &'static [(&'static str, Self)];
}

/// A value of an enumeration, in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<T>(pub T);

impl<'de, T: Words> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOf<T>(PhantomData<T>);
        impl<T: Words> Visitor<'_> for OneOf<T> {
            type Value = Word<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let names: Vec<&str> = T::WORDS.iter().map(|(name, _)| *name).collect();
                write!(f, "one of {}", names.join(", "))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Word<T>, E> {
                let found = T::WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
                found
                    .map(|(_, value)| Word(*value))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Other("another word"), &self))
            }
        }
        deserializer.deserialize_str(OneOf(PhantomData))
    }
}

/// The name of a value.
#[must_use]
pub fn word<T: Words + PartialEq>(value: T) -> &'static str {
    T::WORDS.iter().find(|(_, known)| *known == value).map_or("unknown", |(name, _)| name)
}

/// A point in time, milliseconds since 1970: ISO 8601, without an offset in UTC. One before 1970 counts as 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time(pub u64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a date and time of ISO 8601")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                let with_offset = text.parse::<jiff::Timestamp>().ok();
                let without = || {
                    let civil = text.parse::<jiff::civil::DateTime>().ok()?;
                    jiff::tz::Offset::UTC.to_timestamp(civil).ok()
                };
                let time = with_offset.or_else(without).map(jiff::Timestamp::as_millisecond);
                let time = time.ok_or_else(|| E::invalid_value(de::Unexpected::Other("another text"), &self))?;
                Ok(Time(u64::try_from(time).unwrap_or(0)))
            }
        }
        deserializer.deserialize_str(Text)
    }
}
