//! The measure of events: what the rules need to know of a fragment.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::xbus::id::Id;

/// An event as one fragment has it, with its items.
#[derive(Debug, Clone, Copy)]
pub struct EventView<'a, I> {
    /// The id; `None` when the sender leaves the id to the server.
    pub id: Option<Id>,
    /// The type.
    pub event_type: &'a str,
    /// The number of the fragment of this event, from 0 or 1; `None` when the sender does not count.
    pub index: Option<u64>,
    /// Items of the whole event; 0: not known yet.
    pub item_count: u64,
    /// CRC-32C of id, type and all items; 0: not known yet.
    pub checksum: u32,
    /// The items of this fragment.
    pub items: I,
}

/// The measure of one event in one fragment.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Part {
    /// Id of the event, 16 bytes; empty when the server gives the id.
    #[prost(bytes = "vec", tag = "1")]
    pub event: Vec<u8>,
    /// Its type.
    #[prost(string, tag = "2")]
    pub event_type: String,
    /// The number of the fragment of this event, from 0 or 1; absent when the sender does not count.
    #[prost(uint64, optional, tag = "3")]
    pub index: Option<u64>,
    /// Items of the whole event; 0: not known yet.
    #[prost(uint64, tag = "4")]
    pub item_count: u64,
    /// CRC-32C of id, type and all items; 0: not known yet.
    #[prost(fixed32, tag = "5")]
    pub checksum: u32,
    /// Items in this fragment.
    #[prost(uint64, tag = "6")]
    pub items: u64,
    /// Bytes of these items.
    #[prost(uint64, tag = "7")]
    pub bytes: u64,
    /// CRC-32C of the bytes of these items, one behind the other.
    #[prost(fixed32, tag = "8")]
    pub crc: u32,
    /// CRC-32C of the items with their lengths. The same bytes in other items have another one.
    #[prost(fixed32, tag = "9")]
    pub digest: u32,
}

impl Part {
    /// Measures an event. The work grows with the bytes of its items.
    pub fn measure<'a, I>(event: EventView<'_, I>) -> Self
    where
        I: IntoIterator<Item = &'a [u8]>,
    {
        let mut part = Self {
            event: event.id.map(Id::to_vec).unwrap_or_default(),
            event_type: event.event_type.to_string(),
            index: event.index,
            item_count: event.item_count,
            checksum: event.checksum,
            ..Self::default()
        };
        for item in event.items {
            let length = u64::try_from(item.len()).unwrap_or(u64::MAX);
            part.items = part.items.saturating_add(1);
            part.bytes = part.bytes.saturating_add(length);
            part.crc = crc32c::crc32c_append(part.crc, item);
            part.digest = crc32c::crc32c_append(part.digest, &length.to_be_bytes());
            part.digest = crc32c::crc32c_append(part.digest, item);
        }
        part
    }

    /// The eight bytes by which the part is recognised when it comes again.
    pub(super) fn fingerprint(&self) -> u64 {
        // Only the low half of the number of bytes: the fragment of a message has fewer than 4 GiB.
        u64::from(self.digest) << 32 | self.bytes & u64::from(u32::MAX)
    }
}

/// The measure of one fragment.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Fragment {
    /// Ids of all events of the envelope, 16 bytes each; empty: not known yet.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub event_ids: Vec<Vec<u8>>,
    /// The events of this fragment.
    #[prost(message, repeated, tag = "2")]
    pub parts: Vec<Part>,
    /// Whether the sender says that nothing follows.
    #[prost(bool, tag = "3")]
    pub last: bool,
}

/// The checksum of an event before its first item.
#[must_use]
pub fn checksum_start(event: Id, event_type: &str) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(event.as_bytes()), event_type.as_bytes())
}

/// The checksum of an event: CRC-32C of id, type and all items.
#[must_use]
pub fn checksum<'a>(event: Id, event_type: &str, items: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    items.into_iter().fold(checksum_start(event, event_type), crc32c::crc32c_append)
}
