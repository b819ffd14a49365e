//! A durable consumer: a named cursor in the replicated state.

use alloc::string::String;

use crate::node::Owner;

/// The replicated state of a durable consumer or group.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Consumer {
    /// Name, unique in its namespace among consumers and groups.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Pattern it was created with.
    #[prost(string, tag = "2")]
    pub subject: String,
    /// Members share the cursor, and each event goes to one of them.
    #[prost(bool, tag = "3")]
    pub group: bool,
    /// Every event of the pattern up to here is done with: acknowledged, or dead-lettered.
    #[prost(uint64, tag = "4")]
    pub ack_floor: u64,
    /// The node that serves its members, wherever they are connected. Another takes over when that life of it ends.
    #[prost(message, optional, tag = "5")]
    pub owner: Option<Owner>,
    /// Its members get nothing until it goes on.
    #[prost(bool, tag = "6")]
    pub paused: bool,
    /// Counts the times its cursor was set by the operator.
    #[prost(uint64, tag = "7")]
    pub generation: u64,
}
