//! An event on its way to the clients of a node, shared by all of them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::base::slot::Slots;
use crate::bus::read::stored_event::StoredEvent;
use crate::bus::write::notification::NOTIFY;

/// How much of the book a client has been told: positions in the two namespaces that clients are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnnouncedUpTo {
    /// Of the newest event of the roll.
    pub roll: u64,
    /// Of the newest notification.
    pub notify: u64,
}

impl AnnouncedUpTo {
    /// The later one in each of the namespaces.
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

/// Which of the two an event is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// The roll.
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

    /// The position in this one.
    #[must_use]
    pub const fn of(self, position: AnnouncedUpTo) -> u64 {
        match self {
            Self::Roll => position.roll,
            Self::Notify => position.notify,
        }
    }

    /// `position` with another one in this.
    #[must_use]
    pub const fn set(self, position: AnnouncedUpTo, to: u64) -> AnnouncedUpTo {
        match self {
            Self::Roll => AnnouncedUpTo { roll: to, ..position },
            Self::Notify => AnnouncedUpTo { notify: to, ..position },
        }
    }
}

/// How many encoders may keep an encoded frame beside an announcement.
const FRAMES: usize = 4;
/// The places of those frames.
pub static ANNOUNCEMENT_SLOTS: Slots = Slots::new();

/// How a door tells its clients an event. Stateless, so that frames can be shared by all of them.
pub trait AnnouncementEncoder: Sync {
    /// Which of the frames of an [`Announcement`] is this encoder's: the number of a slot of [`ANNOUNCEMENT_SLOTS`].
    fn slot(&self) -> usize;
    /// Appends the event; nothing when it means nothing to the clients of this door.
    fn announce(&self, announcement: &Announcement, out: &mut Vec<u8>);
}

impl std::fmt::Debug for dyn AnnouncementEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tells").field("slot", &self.slot()).finish()
    }
}

/// An event for clients. Each door's frame is encoded once, by whoever needs it first.
#[derive(Debug)]
pub struct Announcement {
    /// The event.
    pub item: Arc<StoredEvent>,
    /// The namespace it is in, and how much of the book who has got it has been told; `None` when it is in no log.
    pub at: Option<(Log, AnnouncedUpTo)>,
    frames: [OnceLock<Bytes>; FRAMES],
}

impl Announcement {
    /// An event of the book, after which clients have been told everything up to `position`.
    #[must_use]
    pub fn stored(item: Arc<StoredEvent>, log: Log, position: AnnouncedUpTo) -> Self {
        Self { item, at: Some((log, position)), frames: Default::default() }
    }

    /// An event that is in no log.
    #[must_use]
    pub fn unstored(item: Arc<StoredEvent>) -> Self {
        Self { item, at: None, frames: Default::default() }
    }

    /// Whether somebody who was told everything up to `position` knows it.
    #[must_use]
    pub fn is_within(&self, position: AnnouncedUpTo) -> bool {
        self.at.is_some_and(|(log, at)| log.of(at) <= log.of(position))
    }

    /// The bytes that a door writes for it; empty when it means nothing to the clients of that door.
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
