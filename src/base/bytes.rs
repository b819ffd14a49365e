//! Numbers of bytes in configuration: `8388608`, `8MB`, `64MiB`.

use std::fmt;

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserializer, Serialize, Serializer};

/// Reads a whole number with a unit, or without one for bytes. Units of 1000 are kB, MB, GB, TB, those of 1024 KiB, MiB,
/// GiB, TiB.
///
/// # Errors
/// Says what to write.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end).unwrap_or((text, ""));
    let factor: Option<u64> = match unit.trim() {
        "" | "B" => Some(1),
        "kB" | "KB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        "TB" => Some(1_000_000_000_000),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1 << 40),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    bytes.ok_or_else(|| {
        format!("`{text}` is no number of bytes; write a whole number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")
    })
}

/// Writes the plain number.
///
/// # Errors
/// What the serializer says.
pub fn serialize<N: Serialize, S: Serializer>(bytes: &N, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.serialize(serializer)
}

/// Reads a number, or a text with a unit.
///
/// # Errors
/// It is neither, or too large.
pub fn deserialize<'de, N: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<N, D::Error> {
    struct Bytes;
    impl Visitor<'_> for Bytes {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes, as in 8388608 or \"8MiB\"")
        }

        fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<u64, E> {
            Ok(bytes)
        }

        fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<u64, E> {
            u64::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
            parse(text).map_err(E::custom)
        }
    }
    let bytes = deserializer.deserialize_any(Bytes)?;
    N::try_from(bytes).map_err(|_| D::Error::invalid_value(Unexpected::Unsigned(bytes), &Bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_1000_and_of_1024_are_read() {
        for (text, bytes) in
            [("0", 0), ("7", 7), ("7 B", 7), ("8MB", 8_000_000), (" 8 MiB ", 8 << 20), ("1TiB", 1 << 40)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for bad in ["", "-1", "1.5GiB", "GiB", "1X", "8mb", "99999999999TiB"] {
            assert!(parse(bad).unwrap_err().contains("write a whole number with B, kB, "), "{bad}");
        }
    }
}
