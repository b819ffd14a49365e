//! What a schedule publishes, and when.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::limits::{
    CRON_BYTES_MAX, EVERY_MS_MAX, EVERY_MS_MIN, HEADER_BYTES_MAX, HEADERS_MAX, JITTER_MS_MAX, NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX, ZONE_BYTES_MAX,
};
use crate::event::headers::HeaderList;
use crate::subjects::subject::Subject;

/// What becomes of ticks whose time passed while nobody could publish them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Missed {
    /// One event stands for all of them.
    Once = 0,
    /// They are left out.
    Skip = 1,
}

/// A header of each event.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ScheduleHeader {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// What a schedule publishes, and when.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ScheduleDefinition {
    /// Subject of each event.
    #[prost(string, tag = "1")]
    pub subject: String,
    /// JSON payload of each event; `None` for none.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub payload: Option<Vec<u8>>,
    /// Headers of each event.
    #[prost(message, repeated, tag = "3")]
    pub headers: Vec<ScheduleHeader>,
    /// The cron expression, which the rules do not read; empty for a schedule with an interval.
    #[prost(string, tag = "4")]
    pub cron: String,
    /// The interval in milliseconds; 0 for a schedule with an expression.
    #[prost(uint64, tag = "5")]
    pub every_ms: u64,
    /// Name of the time zone of the expression, which the rules do not read; empty for UTC.
    #[prost(string, tag = "6")]
    pub time_zone: String,
    /// Each event leaves up to so many milliseconds behind its tick.
    #[prost(uint64, tag = "7")]
    pub jitter_ms: u64,
    /// What becomes of missed ticks.
    #[prost(enumeration = "Missed", tag = "8")]
    pub missed: i32,
    /// Whether nothing is published for now.
    #[prost(bool, tag = "9")]
    pub paused: bool,
}

/// Whether a text can be the name of a schedule.
#[must_use]
pub fn is_schedule_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

impl ScheduleDefinition {
    /// Bytes that the definition takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        prost::Message::encoded_len(self)
    }

    /// Whether both have the same ticks.
    #[must_use]
    pub fn has_ticks_of(&self, other: &Self) -> bool {
        self.cron == other.cron && self.every_ms == other.every_ms && self.time_zone == other.time_zone
    }

    /// Checks everything that the rules know about: lengths, the subject, headers, numbers.
    ///
    /// # Errors
    /// A text that names the member and what it must be.
    pub fn check(&self) -> Result<(), String> {
        Subject::validate(&self.subject).map_err(|error| format!("subject: {error}"))?;
        if self.payload.as_ref().is_some_and(|payload| payload.len() > PAYLOAD_BYTES_MAX) {
            return Err(format!("payload: at most {PAYLOAD_BYTES_MAX} bytes"));
        }
        self.check_headers()?;
        if self.cron.is_empty() == (self.every_ms == 0) {
            return Err("either cron or every says when".to_string());
        }
        if self.cron.len() > CRON_BYTES_MAX {
            return Err(format!("cron: at most {CRON_BYTES_MAX} bytes"));
        }
        if self.every_ms != 0 && !(EVERY_MS_MIN..=EVERY_MS_MAX).contains(&self.every_ms) {
            return Err("every: from 1s to 366 days".to_string());
        }
        if self.time_zone.len() > ZONE_BYTES_MAX {
            return Err(format!("time_zone: at most {ZONE_BYTES_MAX} bytes"));
        }
        if self.jitter_ms > JITTER_MS_MAX {
            return Err("jitter: at most 24h".to_string());
        }
        Missed::try_from(self.missed).map(drop).map_err(|_| "missed: once or skip".to_string())
    }

    /// Checks the headers as an event does, and leaves room for those that the bus adds.
    fn check_headers(&self) -> Result<(), String> {
        let mut list = HeaderList::default();
        for header in &self.headers {
            list.push(&header.name, &header.value).map_err(|error| format!("headers: {error}"))?;
        }
        let bytes = |header: &ScheduleHeader| header.name.len().saturating_add(header.value.len());
        let total = self.headers.iter().fold(0_usize, |sum, header| sum.saturating_add(bytes(header)));
        if self.headers.len() > HEADERS_MAX || total > HEADER_BYTES_MAX {
            return Err(format!("headers: at most {HEADERS_MAX}, of at most {HEADER_BYTES_MAX} bytes together"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn hourly() -> ScheduleDefinition {
        ScheduleDefinition { subject: "app.tick".into(), cron: "@hourly".into(), ..ScheduleDefinition::default() }
    }

    #[test]
    fn a_name_is_a_word() {
        for name in ["a", "nightly-report_2.eu", &"x".repeat(NAME_BYTES_MAX)] {
            assert!(is_schedule_name(name), "{name}");
        }
        for name in ["", "a b", "a/b", "ä", "a>", "a\0", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(!is_schedule_name(name), "{name}");
        }
    }

    #[test]
    fn what_a_definition_must_not_be_is_named() {
        assert_eq!(hourly().check(), Ok(()));
        let header = |name: &str, value: &str| ScheduleHeader { name: name.into(), value: value.into() };
        let wrong = [
            ("subject", ScheduleDefinition { subject: "app.*".into(), ..hourly() }),
            ("subject", ScheduleDefinition { subject: String::new(), ..hourly() }),
            ("payload", ScheduleDefinition { payload: Some(vec![b' '; PAYLOAD_BYTES_MAX + 1]), ..hourly() }),
            ("headers", ScheduleDefinition { headers: vec![header("a b", "c")], ..hourly() }),
            ("headers", ScheduleDefinition { headers: vec![header("a", "c\nd")], ..hourly() }),
            ("headers", ScheduleDefinition { headers: vec![header("a", "c"); HEADERS_MAX + 1], ..hourly() }),
            ("headers", ScheduleDefinition { headers: vec![header("a", &"c".repeat(HEADER_BYTES_MAX))], ..hourly() }),
            ("either cron or every", ScheduleDefinition { cron: String::new(), ..hourly() }),
            ("either cron or every", ScheduleDefinition { every_ms: 1000, ..hourly() }),
            ("cron", ScheduleDefinition { cron: "*".repeat(CRON_BYTES_MAX + 1), ..hourly() }),
            ("every", ScheduleDefinition { cron: String::new(), every_ms: EVERY_MS_MIN - 1, ..hourly() }),
            ("every", ScheduleDefinition { cron: String::new(), every_ms: EVERY_MS_MAX + 1, ..hourly() }),
            ("time_zone", ScheduleDefinition { time_zone: "x".repeat(ZONE_BYTES_MAX + 1), ..hourly() }),
            ("jitter", ScheduleDefinition { jitter_ms: JITTER_MS_MAX + 1, ..hourly() }),
            ("missed", ScheduleDefinition { missed: 2, ..hourly() }),
        ];
        for (member, definition) in wrong {
            let error = definition.check().unwrap_err();
            assert!(error.starts_with(member), "{member}: {error}");
        }
    }
}
