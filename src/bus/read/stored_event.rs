//! An event and its encoded frames, shared by all subscriptions that deliver the event.

use std::sync::OnceLock;

use bytes::Bytes;
use rollbook_core::event::Event;

use super::encoder::EventEncoder;
use super::redelivery::Redelivery;

/// How many encoders may keep a frame beside the event. The frame of any further encoder is encoded each time.
const FRAMES: usize = 4;

/// An event with its position. Each door's frame is encoded once, when it is needed first.
#[derive(Debug)]
pub struct StoredEvent {
    /// Position in the namespace; -1 when the event is in no log.
    sequence: i64,
    /// The stored bytes.
    record: Bytes,
    /// What clients are told when this is not the first delivery of the event.
    again: Option<Box<Redelivery>>,
    /// The encoded frames, by the slots of their encoders.
    frames: [OnceLock<Bytes>; FRAMES],
}

impl StoredEvent {
    /// An event at `sequence` of its namespace; `record` must be valid.
    #[must_use]
    pub fn stored(sequence: u64, record: Bytes) -> Self {
        Self { sequence: i64::try_from(sequence).unwrap_or(i64::MAX), record, again: None, frames: Default::default() }
    }

    /// An event that is in no log, such as an inbox message. Its index is -1.
    #[must_use]
    pub fn unstored(record: Bytes) -> Self {
        Self { sequence: -1, record, again: None, frames: Default::default() }
    }

    /// The same event, for a delivery that is not its first one.
    #[must_use]
    pub fn redelivered(&self, again: Redelivery) -> Self {
        let (sequence, record) = (self.sequence, self.record.clone());
        Self { sequence, record, again: Some(Box::new(again)), frames: Default::default() }
    }

    /// What clients are told when this is not the first delivery of the event.
    #[must_use]
    pub fn again(&self) -> Option<&Redelivery> {
        self.again.as_deref()
    }

    /// Position in the namespace; 0 for an event that is in no log.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        u64::try_from(self.sequence).unwrap_or(0)
    }

    /// The index that clients get: the position, or -1.
    #[must_use]
    pub const fn index(&self) -> i64 {
        self.sequence
    }

    /// The stored bytes.
    #[must_use]
    pub fn record(&self) -> Bytes {
        self.record.clone()
    }

    /// How many bytes the record has.
    #[must_use]
    pub const fn record_len(&self) -> usize {
        self.record.len()
    }

    /// The decoded event, borrowed from the record.
    #[must_use]
    pub fn event(&self) -> Event<'_> {
        Event::decode(&self.record).map(|(event, _)| event).unwrap_or_default()
    }

    /// The id that clients get.
    #[must_use]
    pub fn id(&self) -> String {
        let mut id = Vec::with_capacity(24);
        self.event().write_id(self.sequence(), &mut id);
        String::from_utf8(id).unwrap_or_default()
    }

    /// Whether clients know the event by this id. Allocates nothing.
    #[must_use]
    pub fn has_id(&self, id: &str) -> bool {
        let mut compared = Compared { rest: id.as_bytes(), same: true };
        self.event().write_id(self.sequence(), &mut compared);
        compared.same && compared.rest.is_empty()
    }

    /// The bytes that a door writes for this event.
    #[must_use]
    pub fn frame(&self, encoder: &'static dyn EventEncoder) -> Bytes {
        let encode = || {
            let mut out = Vec::with_capacity(self.record.len().saturating_add(192));
            encoder.event(self.sequence, &self.event(), self.again(), &mut out);
            Bytes::from(out)
        };
        match self.frames.get(encoder.slot()) {
            Some(slot) => slot.get_or_init(encode).clone(),
            None => encode(),
        }
    }
}

/// Compares written bytes with a text, and keeps none of them.
struct Compared<'a> {
    /// What the text has left.
    rest: &'a [u8],
    /// Whether all bytes were equal until now.
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
