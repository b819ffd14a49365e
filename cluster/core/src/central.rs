//! The central configuration: one JSON document that all services share, with its history.

use alloc::string::String;
use alloc::vec::Vec;

/// The document as it was after one change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigRevision {
    /// Counts the changes, from 1.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    /// When it was changed, milliseconds since 1970. Set by the rules.
    #[prost(uint64, tag = "2")]
    pub millis: u64,
    /// The JSON text, as it was given.
    #[prost(bytes = "vec", tag = "3")]
    pub document: Vec<u8>,
    /// Why it was changed, for people; may be empty.
    #[prost(string, tag = "4")]
    pub reason: String,
}

impl ConfigRevision {
    /// The document; an empty object before anybody set one.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        if self.revision == 0 { b"{}" } else { &self.document }
    }
}

/// Replaces the document. See [`crate::command::Command::ConfigSet`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigSet {
    /// The new JSON text.
    #[prost(bytes = "vec", tag = "1")]
    pub document: Vec<u8>,
    /// Only when this is the present revision; 0 is the one before the first change.
    #[prost(uint64, optional, tag = "2")]
    pub if_revision: Option<u64>,
    /// Why, for people.
    #[prost(string, tag = "3")]
    pub reason: String,
}
