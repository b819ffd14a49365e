//! An announcement: an event of the roll or a notification, shared by all clients of a node.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::base::slot::Slots;
use crate::bus::read::stored_event::StoredEvent;
use crate::bus::write::notification::NOTIFY;

/// Up to where a client was told: positions in the two namespaces of announcements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnnouncedUpTo {
    /// Position of the newest event of the roll.
    pub roll: u64,
    /// Position of the newest notification.
    pub notify: u64,
}

impl AnnouncedUpTo {
    /// The later position in each of the namespaces.
    #[must_use]
    pub fn latest(self, other: Self) -> Self {
        Self { roll: self.roll.max(other.roll), notify: self.notify.max(other.notify) }
    }

    /// Reads what [`std::fmt::Display`] wrote: `<roll>.<notify>`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (roll, notify) = text.split_once('.')?;
        Some(Self { roll: roll.parse().ok()?, notify: notify.parse().ok()? })
    }
}

impl std::fmt::Display for AnnouncedUpTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.roll, self.notify)
    }
}

/// The two namespaces of announcements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// Changes of the roll.
    Roll,
    /// Notifications.
    Notify,
}

impl Log {
    /// The namespace.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Roll => "roll",
            Self::Notify => NOTIFY,
        }
    }

    /// The part of a position that belongs to this namespace.
    #[must_use]
    pub const fn of(self, position: AnnouncedUpTo) -> u64 {
        match self {
            Self::Roll => position.roll,
            Self::Notify => position.notify,
        }
    }

    /// The position with another value in this namespace.
    #[must_use]
    pub const fn set(self, position: AnnouncedUpTo, to: u64) -> AnnouncedUpTo {
        match self {
            Self::Roll => AnnouncedUpTo { roll: to, ..position },
            Self::Notify => AnnouncedUpTo { notify: to, ..position },
        }
    }
}

/// How many encoders may keep a frame beside an announcement.
const FRAMES: usize = 4;
/// Hands out the slots of those frames.
pub static ANNOUNCEMENT_SLOTS: Slots = Slots::new();

/// How a door encodes announcements. Stateless, so that all clients of the door share the frames.
pub trait AnnouncementEncoder: Sync {
    /// The slot of [`ANNOUNCEMENT_SLOTS`] in which an [`Announcement`] keeps the frame of this encoder.
    fn slot(&self) -> usize;
    /// Appends the announcement; nothing when it does not concern the clients of this door.
    fn announce(&self, announcement: &Announcement, out: &mut Vec<u8>);
}

impl std::fmt::Debug for dyn AnnouncementEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tells").field("slot", &self.slot()).finish()
    }
}

/// An event for clients. Each door's frame is encoded once, when it is needed first.
#[derive(Debug)]
pub struct Announcement {
    /// The event.
    pub item: Arc<StoredEvent>,
    /// The namespace of the event, and the position of a client that has got it; `None` when the event is in no log.
    pub at: Option<(Log, AnnouncedUpTo)>,
    /// The encoded frames, by the slots of their encoders.
    frames: [OnceLock<Bytes>; FRAMES],
}

impl Announcement {
    /// An event of the book. `position` is the position of a client that has got it.
    #[must_use]
    pub fn stored(item: Arc<StoredEvent>, log: Log, position: AnnouncedUpTo) -> Self {
        Self { item, at: Some((log, position)), frames: Default::default() }
    }

    /// An event that is in no log.
    #[must_use]
    pub fn unstored(item: Arc<StoredEvent>) -> Self {
        Self { item, at: None, frames: Default::default() }
    }

    /// Whether a client at `position` has got the event.
    #[must_use]
    pub fn is_within(&self, position: AnnouncedUpTo) -> bool {
        self.at.is_some_and(|(log, at)| log.of(at) <= log.of(position))
    }

    /// The bytes that a door writes; empty when the event does not concern its clients.
    #[must_use]
    pub fn frame(&self, door: &'static dyn AnnouncementEncoder) -> Bytes {
        let encode = || {
            let mut out = Vec::new();
            door.announce(self, &mut out);
            Bytes::from(out)
        };
        match self.frames.get(door.slot()) {
            Some(slot) => slot.get_or_init(encode).clone(),
            None => encode(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back_and_nothing_else_is_one() {
        let position = AnnouncedUpTo { roll: 17, notify: u64::MAX };
        assert_eq!(AnnouncedUpTo::parse(&position.to_string()), Some(position));
        for wrong in ["", "1", ".", "1.", ".1", "1.2.3", "-1.2", "1.99999999999999999999", "a.b", "1 .2"] {
            assert_eq!(AnnouncedUpTo::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_event_is_known_to_whoever_was_told_of_its_namespace_up_to_it() {
        let item = || Arc::new(StoredEvent::stored(5, Bytes::new()));
        let at = AnnouncedUpTo { roll: 5, notify: 9 };
        let event = Announcement::stored(item(), Log::Roll, at);
        assert!(event.is_within(AnnouncedUpTo { roll: 5, notify: 0 }));
        assert!(!event.is_within(AnnouncedUpTo { roll: 4, notify: 9 }));
        assert!(!Announcement::unstored(item()).is_within(AnnouncedUpTo { roll: 9, notify: 9 }));
        assert_eq!(
            AnnouncedUpTo { roll: 1, notify: 9 }.latest(AnnouncedUpTo { roll: 4, notify: 2 }),
            AnnouncedUpTo { roll: 4, notify: 9 }
        );
    }
}
