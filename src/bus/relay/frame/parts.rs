//! Parts of messages between nodes, and the answer to any of them.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

/// A member of a durable consumer.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct MemberKey {
    #[prost(string, tag = "1")]
    pub(in crate::bus) namespace: String,
    #[prost(string, tag = "2")]
    pub(in crate::bus) consumer: String,
    #[prost(uint64, tag = "3")]
    pub(in crate::bus) member: u64,
}

/// Milliseconds, rounded up, so that a wait never becomes none.
pub(in crate::bus) fn whole_millis(wait: Duration) -> u64 {
    let millis = wait.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).unwrap_or(u64::MAX)
}

/// The answer to any frame.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct Reply {
    /// The meaning depends on the frame, see the functions below.
    #[prost(uint32, tag = "1")]
    pub(in crate::bus) number: u32,
    /// The answer to `Frame::ListMembers`.
    #[prost(message, repeated, tag = "2")]
    pub(in crate::bus) members: Vec<Member>,
    /// The answer to an acknowledgement: how many events were in flight.
    #[prost(uint32, tag = "3")]
    pub(in crate::bus) count: u32,
    /// The answer to an acknowledgement: the ids that were not.
    #[prost(string, repeated, tag = "4")]
    pub(in crate::bus) not_in_flight: Vec<String>,
}

/// One member in a [`Reply`].
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct Member {
    #[prost(string, tag = "1")]
    pub(in crate::bus) consumer_id: String,
    #[prost(uint64, optional, tag = "2")]
    pub(in crate::bus) in_flight: Option<u64>,
    #[prost(uint32, tag = "3")]
    pub(in crate::bus) in_flight_count: u32,
}

/// An answer that is a number.
pub(in crate::bus) fn number(number: u32) -> Bytes {
    Reply { number, ..Reply::default() }.encode_to_vec().into()
}

/// Reads [`number`] back; 0 when the bytes are invalid.
pub(in crate::bus) fn read_number(bytes: Bytes) -> u32 {
    Reply::decode(bytes).map_or(0, |reply| reply.number)
}
