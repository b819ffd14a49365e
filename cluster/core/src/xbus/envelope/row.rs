//! What is kept of an envelope and of its events.

use alloc::string::String;
use alloc::vec::Vec;

use crate::xbus::id::Id;

/// How far an envelope is. The numbers are those of the Xbus protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EnvelopeStatus {
    /// No such envelope.
    Unknown = 0,
    /// Fragments are coming in.
    Receiving = 1,
    /// All events are there.
    Complete = 3,
    /// The envelope has a fault, and never becomes complete.
    Error = 4,
    /// No fragment came in for a while.
    Stalled = 5,
}

/// An envelope. The rows of its events stand beside it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EnvelopeRow {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// The actor that sends the envelope.
    #[prost(bytes = "vec", tag = "2")]
    pub actor: Vec<u8>,
    /// The output that the actor sends the envelope on.
    #[prost(string, tag = "3")]
    pub output: String,
    /// Of a worker: the process of its job; empty for an emitter.
    #[prost(bytes = "vec", tag = "4")]
    pub process: Vec<u8>,
    /// Of a worker: the node of its job.
    #[prost(string, tag = "5")]
    pub node: String,
    /// How far the envelope is.
    #[prost(enumeration = "EnvelopeStatus", tag = "6")]
    pub status: i32,
    /// What is wrong with an envelope in error.
    #[prost(string, tag = "7")]
    pub reason: String,
    /// When the first fragment came, milliseconds since 1970.
    #[prost(uint64, tag = "8")]
    pub created: u64,
    /// When the newest fragment came.
    #[prost(uint64, tag = "9")]
    pub touched: u64,
    /// Fragments with something new.
    #[prost(uint32, tag = "10")]
    pub fragments: u32,
    /// Bytes of all items.
    #[prost(uint64, tag = "11")]
    pub bytes: u64,
    /// Events of which something came.
    #[prost(uint32, tag = "12")]
    pub seen: u32,
    /// Events that are complete.
    #[prost(uint32, tag = "13")]
    pub complete: u32,
    /// How many events the envelope has, once the sender has said so.
    #[prost(uint32, optional, tag = "14")]
    pub announced: Option<u32>,
    /// CRC-32C of the list of events as it was announced, so that the same list is not compared again.
    #[prost(fixed32, tag = "15")]
    pub announced_crc: u32,
    /// Sequence number of the event of the book with its first fragment; 0: nothing is stored yet.
    #[prost(uint64, tag = "16")]
    pub first_sequence: u64,
    /// Parts of all events.
    #[prost(uint32, tag = "17")]
    pub parts: u32,
}

/// An event of an envelope.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EventRow {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Its type; empty as long as it is only announced.
    #[prost(string, tag = "2")]
    pub event_type: String,
    /// The number of its first fragment, 0 or 1.
    #[prost(uint64, tag = "3")]
    pub first: u64,
    /// Digest and bytes of the part in each of its fragments.
    #[prost(fixed64, repeated, tag = "4")]
    pub parts: Vec<u64>,
    /// Items so far.
    #[prost(uint64, tag = "5")]
    pub items: u64,
    /// Bytes of them.
    #[prost(uint64, tag = "6")]
    pub bytes: u64,
    /// CRC-32C of id, type and items so far.
    #[prost(fixed32, tag = "7")]
    pub crc: u32,
    /// Items of the whole event; 0: not known yet.
    #[prost(uint64, tag = "8")]
    pub item_count: u64,
    /// Checksum of the whole event; 0: not known yet.
    #[prost(fixed32, tag = "9")]
    pub checksum: u32,
    /// Whether the event is whole.
    #[prost(bool, tag = "10")]
    pub complete: bool,
}

impl EnvelopeRow {
    /// The id.
    #[must_use]
    pub fn id(&self) -> Id {
        Id::from_slice(&self.id).unwrap_or_default()
    }

    /// Whether no fragment can change the envelope any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.status(), EnvelopeStatus::Complete | EnvelopeStatus::Error)
    }
}

impl EventRow {
    /// The id.
    #[must_use]
    pub fn id(&self) -> Id {
        Id::from_slice(&self.id).unwrap_or_default()
    }

    /// Whether anything of the event came, beyond its id in the list of events.
    #[must_use]
    pub const fn is_seen(&self) -> bool {
        !self.parts.is_empty()
    }
}
