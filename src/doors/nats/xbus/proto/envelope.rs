//! Envelopes, and how they come in.

/// What became of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ReceptionStatus {
    /// Not said.
    NoStatus = 0,
    /// The fragment is stored; more are expected.
    Receiving = 1,
    /// The envelope is complete.
    Accepted = 2,
    /// The envelope is at fault.
    Error = 3,
}

/// An event, or a part of one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Event {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Its type.
    #[prost(string, tag = "2")]
    pub event_type: String,
    /// The number of the fragment of this event, from 1.
    #[prost(uint64, tag = "3")]
    pub index: u64,
    /// Items of the whole event; 0: not known yet.
    #[prost(uint64, tag = "4")]
    pub item_count: u64,
    /// CRC-32C of id, type and all items; 0: not known yet.
    #[prost(uint32, tag = "5")]
    pub checksum: u32,
    /// The items of this fragment.
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub items: Vec<Vec<u8>>,
}

/// An envelope, or a fragment of one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Envelope {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Ids of all events; empty: not known yet.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub event_ids: Vec<Vec<u8>>,
    /// The events of this fragment.
    #[prost(message, repeated, tag = "4")]
    pub events: Vec<Event>,
    /// Whether nothing follows.
    #[prost(bool, tag = "5")]
    pub last: bool,
}

/// How far an event is covered.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EventPosition {
    /// The event, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub event_id: Vec<u8>,
    /// The number of the last fragment that is covered.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// The items that are covered.
    #[prost(uint64, tag = "3")]
    pub item_count: u64,
}

/// How far an envelope is covered.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EnvelopePosition {
    /// The envelope, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub envelope_id: Vec<u8>,
    /// Whether this is the beginning.
    #[prost(bool, tag = "2")]
    pub start: bool,
    /// Whether the whole envelope is covered.
    #[prost(bool, tag = "3")]
    pub complete: bool,
    /// How far each event is covered.
    #[prost(message, repeated, tag = "4")]
    pub event_positions: Vec<EventPosition>,
}

/// A fragment and where it ends.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EnvelopeFragmentAndPosition {
    /// The fragment.
    #[prost(message, optional, tag = "1")]
    pub fragment: Option<Envelope>,
    /// What is covered up to this fragment.
    #[prost(message, optional, tag = "2")]
    pub position: Option<EnvelopePosition>,
}

/// What became of a fragment.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EnvelopeAck {
    /// The envelope, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// How far it is.
    #[prost(enumeration = "ReceptionStatus", tag = "2")]
    pub status: i32,
    /// What is wrong.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// An input of a node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EnvelopeTarget {
    /// The actor, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub actor_id: Vec<u8>,
    /// The name of the node.
    #[prost(string, tag = "2")]
    pub node_id: String,
    /// The name of the input.
    #[prost(string, tag = "3")]
    pub input: String,
}

/// A job.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessingContext {
    /// The process, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub process_id: Vec<u8>,
    /// The name of the node.
    #[prost(string, tag = "2")]
    pub node_id: String,
}

/// Something on an output: a fragment, a closing, or an envelope to forward.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OutputRequest {
    /// The job, copied from the request.
    #[prost(message, optional, tag = "1")]
    pub context: Option<ProcessingContext>,
    /// The name of the output.
    #[prost(string, tag = "2")]
    pub output: String,
    /// Whether nothing comes.
    #[prost(bool, tag = "3")]
    pub close: bool,
    /// The envelope, or its first fragment.
    #[prost(message, optional, tag = "4")]
    pub envelope: Option<Envelope>,
}
