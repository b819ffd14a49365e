//! What items of a type of events have to look like. The rules keep the text of a schema; nodes read and apply it.

use alloc::string::String;

use super::change::SchemaSet;
use super::limits::{EVENT_TYPE_BYTES_MAX, SCHEMA_BYTES_MAX};

/// What becomes of an item that breaks the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SchemaMode {
    /// Nobody looks.
    Off = 0,
    /// The envelope is taken, and a log entry of it says what is wrong.
    Warn = 1,
    /// The fragment with the item is not taken.
    Enforce = 2,
}

/// The schema of a type of events.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SchemaRow {
    /// The type of the events.
    #[prost(string, tag = "1")]
    pub event_type: String,
    /// What becomes of items that break the schema.
    #[prost(enumeration = "SchemaMode", tag = "2")]
    pub mode: i32,
    /// The JSON Schema, as it was set.
    #[prost(string, tag = "3")]
    pub schema: String,
    /// When the type got a schema, milliseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub created: u64,
    /// When the schema or its mode was set last.
    #[prost(uint64, tag = "5")]
    pub changed: u64,
    /// Counts the changes, so that two operators do not overwrite each other.
    #[prost(uint64, tag = "6")]
    pub revision: u64,
}

/// Why a schema cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The type of the events cannot be one.
    #[error("a type of events is 1 to {EVENT_TYPE_BYTES_MAX} bytes without control characters")]
    EventType,
    /// The mode is none.
    #[error("the mode of a schema is off, warn or enforce")]
    Mode,
    /// The text is too long, or there is none.
    #[error("a schema has 1 to {SCHEMA_BYTES_MAX} bytes")]
    Length,
}

impl SchemaRow {
    /// The row of a schema that is set: a new one, or one in the place of `present`.
    ///
    /// # Errors
    /// Type, mode or length break a rule.
    pub fn set(present: Option<&Self>, set: SchemaSet, millis: u64) -> Result<Self, SchemaError> {
        let SchemaSet { event_type, mode, schema } = set;
        let is_control = |byte: u8| byte < b' ' || byte == 0x7f;
        if !(1..=EVENT_TYPE_BYTES_MAX).contains(&event_type.len()) || event_type.bytes().any(is_control) {
            return Err(SchemaError::EventType);
        }
        if SchemaMode::try_from(mode).is_err() {
            return Err(SchemaError::Mode);
        }
        if !(1..=SCHEMA_BYTES_MAX).contains(&schema.len()) {
            return Err(SchemaError::Length);
        }
        let created = present.map_or(millis, |present| present.created);
        let revision = present.map_or(1, |present| present.revision.saturating_add(1));
        Ok(Self { event_type, mode, schema, created, changed: millis, revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(event_type: &str, mode: i32, schema: &str) -> SchemaSet {
        SchemaSet { event_type: event_type.into(), mode, schema: schema.into() }
    }

    #[test]
    fn a_schema_that_is_set_again_keeps_its_age_and_counts_on() {
        let first = SchemaRow::set(None, set("order", 1, "{}"), 5).unwrap();
        assert_eq!((first.created, first.changed, first.revision), (5, 5, 1));
        let again = SchemaRow::set(Some(&first), set("order", 2, "true"), 9).unwrap();
        assert_eq!((again.created, again.changed, again.revision), (5, 9, 2));
        assert_eq!((again.mode(), again.schema.as_str()), (SchemaMode::Enforce, "true"));
    }

    #[test]
    fn type_mode_and_length_have_rules() {
        let refused = |event_type: &str, mode, schema: &str| SchemaRow::set(None, set(event_type, mode, schema), 1);
        assert_eq!(refused("", 1, "{}"), Err(SchemaError::EventType));
        assert_eq!(refused("a\n", 1, "{}"), Err(SchemaError::EventType));
        assert_eq!(refused(&"x".repeat(256), 1, "{}"), Err(SchemaError::EventType));
        assert_eq!(refused("a", 3, "{}"), Err(SchemaError::Mode));
        assert_eq!(refused("a", 1, ""), Err(SchemaError::Length));
        assert_eq!(refused("a", 1, &" ".repeat(SCHEMA_BYTES_MAX + 1)), Err(SchemaError::Length));
    }
}
