//! Log messages, configuration entries and times.

use rollbook_core::xbus::log::LogLevel;

/// A log message.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogMessage {
    /// When it was written.
    #[prost(message, optional, tag = "1")]
    pub time: Option<Timestamp>,
    /// How grave it is.
    #[prost(enumeration = "LogLevel", tag = "2")]
    pub level: i32,
    /// The text.
    #[prost(string, tag = "3")]
    pub text: String,
}

/// An entry of the configuration of an actor.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigEntry {
    /// The key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A text.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StringReply {
    /// The value.
    #[prost(string, tag = "1")]
    pub value: String,
}

/// A point in time, as protobuf has it. One before 1970 or of no sense counts as 1970.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds within the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// The point in time that many milliseconds after 1970.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        let nanos = i32::try_from(millis % 1000).unwrap_or(0).saturating_mul(1_000_000);
        Self { seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX), nanos }
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn millis(&self) -> u64 {
        let seconds = u64::try_from(self.seconds).unwrap_or(0);
        let nanos = u64::try_from(self.nanos).unwrap_or(0).min(999_999_999);
        seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)
    }
}
