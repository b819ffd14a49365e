//! Log messages of actors, as rows keep them.

use alloc::string::String;
use alloc::vec::Vec;

use super::limits::{JOB_MESSAGES_MAX, MESSAGE_BYTES_MAX};

/// How grave a log message is. The numbers are those of the Xbus protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum LogLevel {
    /// Good to know.
    Notice = 0,
    /// Something to look at.
    Warning = 1,
    /// The reason of a failure.
    Error = 2,
}

/// A log message of an actor.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogLine {
    /// When the actor wrote the message, milliseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub millis: u64,
    /// How grave the message is.
    #[prost(enumeration = "LogLevel", tag = "2")]
    pub level: i32,
    /// The text.
    #[prost(string, tag = "3")]
    pub text: String,
}

/// The messages that are kept of these: the newest [`JOB_MESSAGES_MAX`], with their texts cut.
#[must_use]
pub fn bounded(mut lines: Vec<LogLine>) -> Vec<LogLine> {
    lines.drain(..lines.len().saturating_sub(JOB_MESSAGES_MAX));
    for line in &mut lines {
        cut(&mut line.text);
    }
    lines
}

/// About how many bytes these messages take.
#[must_use]
pub fn bytes(lines: &[LogLine]) -> usize {
    lines.iter().map(|line| line.text.len().saturating_add(16)).sum()
}

/// The newest of these messages that take at most so many bytes.
#[must_use]
pub fn within(mut lines: Vec<LogLine>, most: usize) -> Vec<LogLine> {
    while bytes(&lines) > most {
        lines.remove(0);
    }
    lines
}

/// Cuts a text to [`MESSAGE_BYTES_MAX`] bytes, at the border of a character.
pub fn cut(text: &mut String) {
    if text.len() > MESSAGE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_messages_are_kept_and_long_ones_cut() {
        let line = |at: u64| LogLine { millis: at, level: LogLevel::Error.into(), text: "é".repeat(1000) };
        let kept = bounded((0..100).map(line).collect());
        assert_eq!(kept.len(), JOB_MESSAGES_MAX);
        assert_eq!((kept[0].millis, kept[15].millis), (84, 99));
        assert_eq!(kept[0].text.len(), MESSAGE_BYTES_MAX);
    }
}
