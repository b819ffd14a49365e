//! Nodes of the cluster as every one of them sees them: who was ever here, who is up.

use alloc::string::String;

/// The replicated state of a node. Rows are never removed: a number that was used once stays used.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Node {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Counts its starts, and its returns after it was given up. Only ever grows.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Where other nodes reach it.
    #[prost(string, tag = "3")]
    pub address: String,
    /// It is there now, as far as the cluster knows.
    #[prost(bool, tag = "4")]
    pub up: bool,
    /// It was taken out of the cluster for good.
    #[prost(bool, tag = "5")]
    pub removed: bool,
}

/// One life of a node: everything it holds belongs to it and ends with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct Owner {
    /// Number of the node.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Which of its lives.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
}
