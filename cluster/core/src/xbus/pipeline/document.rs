//! A pipeline as somebody wrote it.

use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

/// The input and the output of a node that names none.
pub const DEFAULT_PORT: &str = "default";

/// What the actors of a node do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum NodeKind {
    /// Not said, and not to be told from the inputs and outputs.
    Unknown = 0,
    /// Its actors send the envelopes with which processes begin.
    Emitter = 1,
    /// Its actors take envelopes and send envelopes.
    Worker = 2,
    /// Its actors take envelopes.
    Consumer = 3,
}

/// A pipeline as it was written. [`super::graph::Graph::parse`] says what is wrong with it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Document {
    /// The nodes in the order of the text.
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<NodeDocument>,
    /// The edges, `node.output->node.input`.
    #[prost(string, repeated, tag = "2")]
    pub edges: Vec<String>,
}

/// A node as it was written.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeDocument {
    /// The name of the node.
    #[prost(string, tag = "1")]
    pub id: String,
    /// What its actors do.
    #[prost(enumeration = "NodeKind", tag = "2")]
    pub kind: i32,
    /// Actors, each by id or name.
    #[prost(string, repeated, tag = "3")]
    pub actors: Vec<String>,
    /// Roles of actors.
    #[prost(string, repeated, tag = "4")]
    pub roles: Vec<String>,
    /// Whether each actor gets the envelopes, and not one of them.
    #[prost(bool, tag = "5")]
    pub role_broadcast: bool,
    /// Of an emitter: the types of events that it stands for; empty: all.
    #[prost(string, repeated, tag = "6")]
    pub event_types: Vec<String>,
    /// Names of the inputs.
    #[prost(string, repeated, tag = "7")]
    pub inputs: Vec<String>,
    /// Names of the outputs.
    #[prost(string, repeated, tag = "8")]
    pub outputs: Vec<String>,
}

impl NodeDocument {
    /// Fills in what the text of a node did not say. A missing kind follows from the inputs and outputs. A missing list
    /// of inputs or outputs is the port `default` where a node of the kind needs one.
    #[must_use]
    pub fn complete(self, kind: Option<NodeKind>, inputs: Option<Vec<String>>, outputs: Option<Vec<String>>) -> Self {
        let told = |ports: &Option<Vec<String>>| ports.as_ref().is_some_and(|ports| !ports.is_empty());
        let kind = kind.unwrap_or(match (told(&inputs), told(&outputs)) {
            (true, true) => NodeKind::Worker,
            (true, false) => NodeKind::Consumer,
            (false, true) => NodeKind::Emitter,
            (false, false) => NodeKind::Unknown,
        });
        let default = |needed: bool| if needed { vec![DEFAULT_PORT.to_string()] } else { Vec::new() };
        let takes = matches!(kind, NodeKind::Worker | NodeKind::Consumer);
        let sends = matches!(kind, NodeKind::Worker | NodeKind::Emitter);
        let inputs = inputs.unwrap_or_else(|| default(takes));
        let outputs = outputs.unwrap_or_else(|| default(sends));
        Self { kind: kind.into(), inputs, outputs, ..self }
    }
}
