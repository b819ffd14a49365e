//! The central configuration: one JSON document that all services share, with its revisions.

use alloc::string::String;
use alloc::vec::Vec;

/// One revision: the document after one change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigRevision {
    /// Number of the revision, from 1; 0 stands for the empty document before the first change.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    /// Time of the change, milliseconds since 1970. The rules set the time of the log.
    #[prost(uint64, tag = "2")]
    pub millis: u64,
    /// The JSON text, byte for byte as the operator sent it.
    #[prost(bytes = "vec", tag = "3")]
    pub document: Vec<u8>,
    /// The operator's reason for the change, for people; may be empty.
    #[prost(string, tag = "4")]
    pub reason: String,
}

impl ConfigRevision {
    /// The JSON text; an empty object before the first change.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        if self.revision == 0 { b"{}" } else { &self.document }
    }
}

/// Replaces the document: the body of [`crate::command::Command::ConfigSet`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigSet {
    /// The new JSON text.
    #[prost(bytes = "vec", tag = "1")]
    pub document: Vec<u8>,
    /// When set, the command applies only if this is the current revision, so that two operators do not overwrite each
    /// other's change; 0 is the revision before the first change.
    #[prost(uint64, optional, tag = "2")]
    pub if_revision: Option<u64>,
    /// The reason for the change, for people.
    #[prost(string, tag = "3")]
    pub reason: String,
}
