//! No announcements, for doors that have none: their clients subscribe to the subjects of the roll, or are not told of it.

use super::announcement::{ANNOUNCEMENT_SLOTS, Announcement, AnnouncementEncoder};
use crate::base::slot::Slot;

/// Encodes every announcement as nothing.
pub static NO_ANNOUNCEMENTS: NoAnnouncements = NoAnnouncements;

static SLOT: Slot = Slot::of(&ANNOUNCEMENT_SLOTS);

/// The encoder that encodes nothing.
#[derive(Debug)]
pub struct NoAnnouncements;

impl AnnouncementEncoder for NoAnnouncements {
    fn slot(&self) -> usize {
        SLOT.number()
    }

    fn announce(&self, _: &Announcement, _: &mut Vec<u8>) {}
}
