//! Events that wait for their time: their ids, counters and commands.
//!
//! A waiting event is in no namespace yet: it has no sequence number, and no subscription sees it. Its record is in a
//! row, sorted by namespace and time. Only counters are in memory, so a million waiting events cost no memory each.

use alloc::string::String;
use core::fmt;

/// The bit of [`DelayedId::mark`].
const MARK: u64 = 1 << 63;

/// The id of a waiting event, which its publisher is told: with the id the event can be cancelled.
///
/// The text is `d_`, then number of the namespace, time and number of the event in hexadecimal digits, with `_` between
/// them. Ids in their order are waiting events by namespace and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DelayedId {
    /// Number of the namespace.
    pub namespace: u32,
    /// When the event is due, milliseconds since 1970.
    pub due: u64,
    /// Number of the event among all that ever waited in its namespace, from 1.
    pub number: u64,
}

impl DelayedId {
    /// Stands for the sequence number in the rows of the dedupe key and of the chosen id while the event waits. No event
    /// has so large a sequence number.
    #[must_use]
    pub(crate) const fn mark(self) -> u64 {
        self.number | MARK
    }

    /// The number of the event that a [`DelayedId::mark`] stands for; `None` for a sequence number.
    #[must_use]
    pub(crate) const fn unmarked(mark: u64) -> Option<u64> {
        if mark & MARK == 0 { None } else { Some(mark & !MARK) }
    }

    /// The id of the event `position` behind this one: numbers of one publish are consecutive.
    #[must_use]
    pub(crate) const fn behind(self, position: u64) -> Self {
        Self { number: self.number.saturating_add(position), ..self }
    }

    /// Reads the text of an id; `None` for a text that [`DelayedId`] does not write.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("d_")?.split('_');
        let namespace = u32::try_from(hexadecimal(parts.next()?)?).ok()?;
        let (due, number) = (hexadecimal(parts.next()?)?, hexadecimal(parts.next()?)?);
        parts.next().is_none().then_some(Self { namespace, due, number })
    }
}

/// A number of 1 to 16 lower-case hexadecimal digits, without a zero in front.
fn hexadecimal(text: &str) -> Option<u64> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let padded = text.len() > 1 && text.starts_with('0');
    (text.bytes().all(is_digit) && !padded).then(|| u64::from_str_radix(text, 16).ok())?
}

impl fmt::Display for DelayedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d_{:x}_{:x}_{:x}", self.namespace, self.due, self.number)
    }
}

/// Counters over the waiting events of a namespace. The events themselves are in rows only.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DelayedState {
    /// Number of the newest waiting event that there ever was: numbers are never used twice.
    #[prost(uint64, tag = "1")]
    pub last: u64,
    /// How many events wait.
    #[prost(uint64, tag = "2")]
    pub events: u64,
    /// Bytes of their records.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// When the first of them is due, milliseconds since 1970. No meaning while none waits.
    #[prost(uint64, tag = "4")]
    pub first_due: u64,
    /// Number of the first of them: with the time, the place where a search begins. Rows before it were removed, and to
    /// iterate over what was removed is slow.
    #[prost(uint64, tag = "5")]
    pub first_number: u64,
}

impl DelayedState {
    /// When the first event is due, milliseconds since 1970; `None` while no event waits.
    #[must_use]
    pub const fn due(&self) -> Option<u64> {
        if self.events == 0 { None } else { Some(self.first_due) }
    }
}

/// The body of [`crate::command::Command::DelayedRelease`]: which events are due follows from the time of the entry.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DelayedRelease {}

/// The body of [`crate::command::Command::DelayedCancel`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DelayedCancel {
    /// Name of the namespace.
    #[prost(string, tag = "1")]
    pub name: String,
    /// See [`DelayedId::namespace`]. When the namespace of the name has another number by now, nothing is cancelled.
    #[prost(uint32, tag = "2")]
    pub namespace: u32,
    /// See [`DelayedId::due`].
    #[prost(uint64, tag = "3")]
    pub due: u64,
    /// See [`DelayedId::number`].
    #[prost(uint64, tag = "4")]
    pub number: u64,
}

impl DelayedCancel {
    /// Cancels the event that waits under this id for the namespace of this name.
    #[must_use]
    pub fn new(name: &str, id: DelayedId) -> Self {
        let DelayedId { namespace, due, number } = id;
        Self { name: name.into(), namespace, due, number }
    }

    /// The id of the event.
    #[must_use]
    pub const fn id(&self) -> DelayedId {
        DelayedId { namespace: self.namespace, due: self.due, number: self.number }
    }
}

/// The events that a publish made wait, or that a cancellation removed. Their numbers are consecutive.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DelayedDone {
    /// Number of the namespace.
    #[prost(uint32, tag = "1")]
    pub namespace: u32,
    /// When the events are due, milliseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub due: u64,
    /// Number of the first of the events.
    #[prost(uint64, tag = "3")]
    pub first: u64,
    /// How many events there are; 0 when no event to cancel waited any more.
    #[prost(uint32, tag = "4")]
    pub events: u32,
}

impl DelayedDone {
    /// The id of the first of the events.
    #[must_use]
    pub const fn id(&self) -> DelayedId {
        DelayedId { namespace: self.namespace, due: self.due, number: self.first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn an_id_reads_back_and_every_id_has_one_text() {
        for id in [
            DelayedId { namespace: 1, due: 0, number: 1 },
            DelayedId { namespace: u32::MAX, due: u64::MAX, number: u64::MAX },
            DelayedId { namespace: 0x1f, due: 1_764_600_000_000, number: 0xabc },
        ] {
            assert_eq!(DelayedId::parse(&id.to_string()), Some(id));
        }
        for text in [
            "",
            "d_",
            "d_1_2",
            "d_1_2_3_4",
            "d_1_2_3_",
            "d_01_2_3",
            "d_1_2_A",
            "d_1_+2_3",
            "d__2_3",
            "e_1_2_3",
            "d_100000000_2_3",
            "d_1_10000000000000000_3",
            "d_1_2_é",
        ] {
            assert_eq!(DelayedId::parse(text), None, "{text}");
        }
    }
}
