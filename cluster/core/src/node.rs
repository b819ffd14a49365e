//! Nodes in the replicated state: every node that was ever a member, and whether it is up.

use alloc::string::String;

/// The replicated state of a node. The row is never removed, so that the number of a removed node is never given to
/// another node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Node {
    /// Number of the node in the raft cluster.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Number of the node's present life. It grows with each start of the node, and each time the node returns after
    /// the cluster has given it up, so that a message of an earlier life can be told apart. It never gets smaller.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Address at which the other nodes reach this node.
    #[prost(string, tag = "3")]
    pub address: String,
    /// Whether the present life goes on. After the life has ended, everything that it owned counts as gone.
    #[prost(bool, tag = "4")]
    pub up: bool,
    /// Whether the node was removed from the cluster for good. A removed node can never come up again.
    #[prost(bool, tag = "5")]
    pub removed: bool,
}

/// One life of a node. Connections, instances and served consumers belong to a life and end with that life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct Owner {
    /// Number of the node.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Which life of the node: see [`Node::incarnation`].
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
}
