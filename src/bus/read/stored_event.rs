//! One stored event on its way to subscribers, shared by all of them.

use std::sync::OnceLock;

use bytes::Bytes;
use rollbook_core::event::Event;

use super::encoder::EventEncoder;

/// How many encoders may keep an encoded frame beside the event; the frame of another is encoded each time.
const FRAMES: usize = 4;

/// An event with its position. Each door's frame is encoded once, by whoever needs it first.
#[derive(Debug)]
pub struct StoredEvent {
    sequence: i64,
    record: Bytes,
    frames: [OnceLock<Bytes>; FRAMES],
}

impl StoredEvent {
    /// A stored event at `sequence` of its namespace; `record` is a valid record.
    #[must_use]
    pub fn stored(sequence: u64, record: Bytes) -> Self {
        Self { sequence: i64::try_from(sequence).unwrap_or(i64::MAX), record, frames: Default::default() }
    }

    /// An event that is in no log: an inbox message. Its index is -1.
    #[must_use]
    pub fn unstored(record: Bytes) -> Self {
        Self { sequence: -1, record, frames: Default::default() }
    }

    /// Position in the namespace; 0 for an event that is in no log.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        u64::try_from(self.sequence).unwrap_or(0)
    }

    /// Index as clients see it: the position, or -1.
    #[must_use]
    pub const fn index(&self) -> i64 {
        self.sequence
    }

    /// Its bytes.
    #[must_use]
    pub fn record(&self) -> Bytes {
        self.record.clone()
    }

    /// How many bytes that is.
    #[must_use]
    pub const fn record_len(&self) -> usize {
        self.record.len()
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> Event<'_> {
        Event::decode(&self.record).map(|(event, _)| event).unwrap_or_default()
    }

    /// The id that clients see.
    #[must_use]
    pub fn id(&self) -> String {
        let mut id = Vec::with_capacity(24);
        self.event().write_id(self.sequence(), &mut id);
        String::from_utf8(id).unwrap_or_default()
    }

    /// Whether clients know it by this id. Nothing is allocated.
    #[must_use]
    pub fn has_id(&self, id: &str) -> bool {
        let mut compared = Compared { rest: id.as_bytes(), same: true };
        self.event().write_id(self.sequence(), &mut compared);
        compared.same && compared.rest.is_empty()
    }

    /// The bytes that a door writes for this event.
    #[must_use]
    pub fn frame(&self, wire: &'static dyn EventEncoder) -> Bytes {
        let encode = || {
            let mut out = Vec::with_capacity(self.record.len().saturating_add(192));
            wire.event(self.sequence, &self.event(), &mut out);
            Bytes::from(out)
        };
        match self.frames.get(wire.slot()) {
            Some(slot) => slot.get_or_init(encode).clone(),
            None => encode(),
        }
    }
}

/// Takes bytes as a `Vec` would, and compares them instead of keeping them.
struct Compared<'a> {
    rest: &'a [u8],
    same: bool,
}

impl Extend<u8> for Compared<'_> {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        for byte in bytes {
            match self.rest.split_first() {
                Some((first, rest)) if *first == byte => self.rest = rest,
                _ => self.same = false,
            }
        }
    }
}
