//! The hello: the first message of a connection, in which a node describes itself, and its answer.

use prost::Message;
use rollbook_core::level::FeatureLevel;

/// Version of the peer protocol.
pub(crate) const VERSION: u32 = 1;

/// First frame of a connection.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    /// Empty before the cluster was founded.
    #[prost(string, tag = "2")]
    pub(crate) cluster_id: String,
    /// [`super::link::Purpose`] as a number.
    #[prost(uint32, tag = "3")]
    pub(crate) purpose: u32,
    #[prost(uint64, tag = "4")]
    pub(crate) from: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) to: u64,
    /// Which life of the node calls.
    #[prost(uint64, tag = "6")]
    pub(crate) incarnation: u64,
    /// Random for each process.
    #[prost(uint64, tag = "7")]
    pub(crate) process: u64,
    /// The address at which the caller listens.
    #[prost(string, tag = "8")]
    pub(crate) address: String,
    /// The highest feature level that the release of the caller knows; 0 from releases before there were levels.
    #[prost(uint32, tag = "20")]
    pub(crate) level: u32,
    /// The replicated state of the caller says that the cluster was founded, so that every founding node had the id of
    /// the cluster on its disk before; false from releases that do not say so.
    #[prost(bool, tag = "21")]
    pub(crate) founded: bool,
}

/// The call is taken.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Welcome {
    /// Random for each process.
    #[prost(uint64, tag = "1")]
    pub(crate) process: u64,
    /// As [`Hello::level`], of the node that was called.
    #[prost(uint32, tag = "20")]
    pub(crate) level: u32,
    /// Recorded writes that are forwarded on this connection are taken in the order in which they come.
    #[prost(bool, tag = "2")]
    pub(crate) in_order: bool,
}

/// The level that a hello or its answer names.
pub(crate) fn level(number: u32) -> FeatureLevel {
    FeatureLevel::new(number).unwrap_or_default()
}

/// Why a node of that level cannot take part at `needed`.
pub(crate) fn too_low(node: u64, known: FeatureLevel, needed: FeatureLevel) -> String {
    let (known, needed) = (known.get(), needed.get());
    format!(
        "node {node} runs a release that knows feature level {known} and the cluster follows level {needed}: upgrade node {node}"
    )
}

/// Why a node has no place in a cluster under its number: the cluster knows the number, the node has no data.
pub(crate) fn lost_data(node: u64, cluster: &str) -> String {
    format!(
        "node {node} has no data of cluster {cluster}: a new node, or one that lost its disk, must get a new number with `rollbook cluster join`"
    )
}

/// Why a call is refused. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum HelloRefusal {
    Unknown = 0,
    /// The caller uses another version of the protocol.
    Version = 1,
    /// The node is another one than the caller wanted.
    WrongNode = 2,
    /// The caller is of another cluster.
    WrongCluster = 3,
    /// The caller is no founder and no member.
    Stranger = 4,
    /// The cluster knows the caller, but the caller does not know the cluster: its disk was lost.
    LostData = 5,
    /// Another process has this node number now.
    InUse = 6,
    /// A later life of the caller is known.
    OldLife = 7,
    /// The caller was taken out of the cluster.
    Removed = 8,
    /// The certificate is not that of the caller.
    Certificate = 9,
    /// The node that was called has no data of the cluster.
    NotFounded = 10,
    /// The cluster follows rules that the release of the caller does not know.
    Level = 20,
}

impl HelloRefusal {
    /// Whether the refusal is final: the caller can never be accepted in its present state, and must stop.
    pub(crate) const fn ends_the_caller(self) -> bool {
        matches!(self, Self::LostData | Self::InUse | Self::OldLife | Self::Removed | Self::Level)
    }
}

/// The call is refused.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct HelloRefused {
    #[prost(enumeration = "HelloRefusal", tag = "1")]
    reason: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub(crate) text: String,
}

impl HelloRefused {
    pub(crate) fn because(reason: HelloRefusal, text: impl Into<String>) -> Self {
        Self { reason: reason.into(), text: text.into() }
    }

    pub(crate) fn why(&self) -> HelloRefusal {
        HelloRefusal::try_from(self.reason).unwrap_or(HelloRefusal::Unknown)
    }
}
