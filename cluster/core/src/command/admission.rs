//! Which frames may enter the log of a cluster at a feature level.

use super::attributed::Attributed;
use crate::entry::{self, FLAG_HEADERS, FLAG_TICK, FLAG_WAITS, Frame, KIND_COMMAND, KIND_PUBLISH};
use crate::error::Refusal;
use crate::level::FeatureLevel;

/// Whether this frame needs [`check_level`]: the frame holds a command, or a publish with parts that the first releases
/// could not read.
#[must_use]
pub fn needs_level(frame: &[u8]) -> bool {
    match frame.first_chunk() {
        Some([KIND_COMMAND, _]) => true,
        Some([KIND_PUBLISH, flags]) => flags & (FLAG_HEADERS | FLAG_TICK | FLAG_WAITS) != 0,
        _ => false,
    }
}

/// Checks that all of these `count` frames may be proposed in a cluster at `level`.
///
/// The leader must call this function before it puts frames into the log, also for frames that another node forwards:
/// once in the log, a command that is unknown or above the level stops nodes.
///
/// # Errors
/// [`Refusal::Malformed`] when this release does not know a command or frame, [`Refusal::Unavailable`] when a command,
/// an event with headers, one that waits, or a tick of a schedule needs a higher level.
pub fn check_level(frames: &[u8], count: u32, level: FeatureLevel) -> Result<(), Refusal> {
    entry::frames(frames, count).try_for_each(|frame| match frame {
        Frame::Command(body) => Attributed::decode(body)?.check_level(level),
        Frame::Unknown(kind) => Err(Refusal::Malformed(alloc::format!("frame of unknown kind {kind}"))),
        Frame::Publish(publish) if publish.flags & (FLAG_TICK | FLAG_WAITS) != 0 => level.check(FeatureLevel::TIMED),
        Frame::Publish(publish) if publish.flags & FLAG_HEADERS != 0 => level.check(FeatureLevel::HEADERS),
        Frame::Publish(_) | Frame::Batch(_) => Ok(()),
    })
}
