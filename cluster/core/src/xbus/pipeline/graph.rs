//! A pipeline without faults.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::document::NodeKind;
use crate::xbus::id::Id;

/// How a node names an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActorName {
    /// By its id.
    Id(Id),
    /// By its name.
    Name(String),
}

impl ActorName {
    /// A text in the form of an id is an id, and any other text a name.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_string()), Self::Id)
    }
}

/// What a node needs to know of an actor.
#[derive(Debug, Clone, Copy)]
pub struct ActorView<'a> {
    /// The id.
    pub id: Id,
    /// The name.
    pub name: &'a str,
    /// The roles.
    pub roles: &'a [String],
}

/// A node. Actors are told by the numbers of nodes, inputs and outputs, which are their places in the text, from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The name, unique within the graph.
    pub id: String,
    /// What its actors do; never [`NodeKind::Unknown`].
    pub kind: NodeKind,
    /// The actors that the node names.
    pub actors: Vec<ActorName>,
    /// The roles that the node names.
    pub roles: Vec<String>,
    /// Whether each actor gets the envelopes, and not one of them.
    pub role_broadcast: bool,
    /// Of an emitter: the types of events that the node stands for; empty: all.
    pub event_types: Vec<String>,
    /// Names of the inputs.
    pub inputs: Vec<String>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
}

impl Node {
    /// Whether the node names this actor, by id, name or role.
    #[must_use]
    pub fn names(&self, actor: ActorView<'_>) -> bool {
        let named = |name: &ActorName| match name {
            ActorName::Id(id) => *id == actor.id,
            ActorName::Name(name) => name == actor.name,
        };
        self.actors.iter().any(named) || self.roles.iter().any(|role| actor.roles.contains(role))
    }

    /// The number of the output of this name.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|output| output == name)
    }

    /// The number of the input of this name.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|input| input == name)
    }
}

/// An input or output of a node, by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The node.
    pub node: usize,
    /// The input or output.
    pub port: usize,
}

/// An edge, from an output to an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The output.
    pub from: Port,
    /// The input.
    pub to: Port,
}

/// What a process begins with: a complete envelope of an emitter.
#[derive(Debug, Clone, Copy)]
pub struct Trigger<'a> {
    /// The emitter.
    pub emitter: ActorView<'a>,
    /// The output that the emitter named.
    pub output: &'a str,
    /// The types of the events of the envelope.
    pub event_types: &'a [String],
}

/// A directed acyclic graph of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<Edge>,
    pub(super) order: Vec<usize>,
}

impl Graph {
    /// The nodes, in the order of the text.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this number.
    #[must_use]
    pub fn node(&self, number: usize) -> Option<&Node> {
        self.nodes.get(number)
    }

    /// The number of the node of this name.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// All edges, in the order of the text.
    #[must_use]
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The inputs that the edges of an output lead to.
    pub fn targets(&self, from: Port) -> impl Iterator<Item = Port> {
        self.edges.iter().filter(move |edge| edge.from == from).map(|edge| edge.to)
    }

    /// How many edges lead to an input.
    #[must_use]
    pub fn feeders(&self, to: Port) -> usize {
        self.edges.iter().filter(|edge| edge.to == to).count()
    }

    /// The numbers of the nodes, each behind all nodes that feed it.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The emitter nodes from which the envelope of this trigger goes out. None: the pipeline does not match.
    ///
    /// A node matches that names the emitter, has the output, and stands for the type of every event.
    pub fn matching<'a>(&'a self, trigger: Trigger<'a>) -> impl Iterator<Item = usize> + 'a {
        let wanted = move |node: &Node| {
            let stands_for = |of: &String| node.event_types.is_empty() || node.event_types.contains(of);
            node.kind == NodeKind::Emitter
                && node.names(trigger.emitter)
                && node.output(trigger.output).is_some()
                && trigger.event_types.iter().all(stands_for)
        };
        self.nodes.iter().enumerate().filter(move |(_, node)| wanted(node)).map(|(number, _)| number)
    }
}
