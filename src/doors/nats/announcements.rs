//! The door has no announcements: its clients subscribe to the subjects of the roll.

use crate::base::slot::Slot;
use crate::bus::client::announcement::{ANNOUNCEMENT_SLOTS, Announcement, AnnouncementEncoder};

/// Encodes every announcement as nothing.
pub(super) static NO_ANNOUNCEMENTS: NoAnnouncements = NoAnnouncements;

static SLOT: Slot = Slot::of(&ANNOUNCEMENT_SLOTS);

/// The encoder.
#[derive(Debug)]
pub(super) struct NoAnnouncements;

impl AnnouncementEncoder for NoAnnouncements {
    fn slot(&self) -> usize {
        SLOT.number()
    }

    fn announce(&self, _: &Announcement, _: &mut Vec<u8>) {}
}
