//! A document becomes a graph, or a list of faults.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use prost::Message as _;

use super::document::{Document, NodeDocument, NodeKind};
use super::graph::{ActorName, Edge, Graph, Node, Port};
use super::order::topological;
use crate::xbus::limits::{
    EDGES_MAX, EVENT_TYPE_BYTES_MAX, FAULTS_MAX, NAME_BYTES_MAX, NODES_MAX, PIPELINE_BYTES_MAX, PORTS_MAX,
    SELECTORS_MAX,
};

/// What is wrong with a pipeline. The texts go to whoever wrote the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Edges lead from the node back to the node.
    #[error("cycle through {0}")]
    Cycle(String),
    /// An edge names a node that is not there.
    #[error("unknown node {0}")]
    UnknownNode(String),
    /// An edge begins at an output that its node does not have.
    #[error("unknown output {0}.{1}")]
    UnknownOutput(String, String),
    /// An edge ends at an input that its node does not have.
    #[error("unknown input {0}.{1}")]
    UnknownInput(String, String),
    /// No process could ever begin.
    #[error("no emitter node")]
    NoEmitter,
    /// Nobody could ever work for the node.
    #[error("node {0} names no actor or role")]
    NoActor(String),
    /// Two nodes have the same name.
    #[error("duplicate node {0}")]
    DuplicateNode(String),
    /// The name of a node cannot be one.
    #[error(
        "invalid node name `{0}`: write 1 to 128 bytes without blanks, control characters, dots, asterisks and `>`"
    )]
    NodeName(String),
    /// The name of an input or output cannot be one: it becomes a part of a subject.
    #[error(
        "invalid name `{1}` of an input or output of node {0}: write 1 to 128 bytes without blanks, control characters, dots, asterisks and `>`"
    )]
    PortName(String, String),
    /// A node has two inputs or two outputs of one name.
    #[error("duplicate {2} {0}.{1}")]
    DuplicatePort(String, String, &'static str),
    /// Neither the type nor the inputs and outputs say what the node is.
    #[error("node {0} has no type: write emitter, worker or consumer")]
    NoKind(String),
    /// Nothing can be sent to an emitter.
    #[error("emitter {0} has inputs")]
    EmitterInputs(String),
    /// A consumer sends nothing.
    #[error("consumer {0} has outputs")]
    ConsumerOutputs(String),
    /// A worker or consumer that takes nothing would never work.
    #[error("{1} {0} has no input")]
    NoInput(String, &'static str),
    /// An emitter or worker that sends nothing is none.
    #[error("{1} {0} has no output")]
    NoOutput(String, &'static str),
    /// No envelope could ever come in.
    #[error("no edge leads to input {0}.{1}")]
    InputWithoutEdge(String, String),
    /// The edge is not written as an edge.
    #[error("malformed edge `{0}`: write node.output->node.input")]
    MalformedEdge(String),
    /// The same edge twice would bring every envelope twice.
    #[error("duplicate edge {0}")]
    DuplicateEdge(String),
    /// Only emitters are chosen by the types of events.
    #[error("node {0} is no emitter and cannot have sourcematch.eventtypes")]
    EventTypes(String),
    /// An emitter gets no envelopes.
    #[error("emitter {0} cannot have rolebroadcast")]
    EmitterBroadcast(String),
    /// Broadcast goes to the actors of roles.
    #[error("node {0} has rolebroadcast and names no role")]
    BroadcastWithoutRole(String),
    /// A name of an actor or role, or a type of events, is empty or too long.
    #[error("node {0} has an invalid {2} `{1}`")]
    Selector(String, String, &'static str),
    /// A maximum is passed.
    #[error("too many {0}: at most {1}")]
    TooMany(&'static str, usize),
}

impl Graph {
    /// The graph of a document.
    ///
    /// # Errors
    /// What is wrong with the document, in the order of its text: at most [`FAULTS_MAX`] faults.
    pub fn parse(document: &Document) -> Result<Self, Vec<Fault>> {
        let mut check = Check { document, faults: Vec::new() };
        check.bounds();
        // The work below grows with the size of the document.
        if check.faults.is_empty() {
            check.nodes();
            let edges = check.edges();
            check.wiring(&edges);
            let pairs: Vec<(usize, usize)> = edges.iter().map(|edge| (edge.from.node, edge.to.node)).collect();
            match topological(document.nodes.len(), &pairs) {
                Ok(order) if check.faults.is_empty() => {
                    let nodes = document.nodes.iter().map(parsed).collect();
                    return Ok(Self { nodes, edges, order });
                }
                Ok(_) => {}
                Err(node) => check.fault(Fault::Cycle(check.name(node))),
            }
        }
        check.faults.truncate(FAULTS_MAX);
        Err(check.faults)
    }
}

fn parsed(node: &NodeDocument) -> Node {
    Node {
        id: node.id.clone(),
        kind: node.kind(),
        actors: node.actors.iter().map(|actor| ActorName::parse(actor)).collect(),
        roles: node.roles.clone(),
        role_broadcast: node.role_broadcast,
        event_types: node.event_types.clone(),
        inputs: node.inputs.clone(),
        outputs: node.outputs.clone(),
    }
}

/// Whether a text can be the name of a node, input or output.
fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte > b' ' && byte != 0x7f && !matches!(byte, b'.' | b'*' | b'>');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(legal)
}

/// A text of the document as a fault shows it. Faults are replies, which must be the same on all replicas, so nothing here
/// may depend on the version of Unicode that a compiler knows.
fn shown(text: &str) -> String {
    let cut = text.get(..text.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or_default();
    let mut shown = String::with_capacity(cut.len());
    for c in cut.chars() {
        if c.is_ascii_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

struct Check<'a> {
    document: &'a Document,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn fault(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    fn name(&self, node: usize) -> String {
        self.document.nodes.get(node).map_or_else(String::new, |node| shown(&node.id))
    }

    fn bounds(&mut self) {
        let document = self.document;
        let ports = |node: &NodeDocument| node.inputs.len().max(node.outputs.len());
        let selectors = |node: &NodeDocument| node.actors.len().max(node.roles.len()).max(node.event_types.len());
        let most = |of: &dyn Fn(&NodeDocument) -> usize| document.nodes.iter().map(of).max().unwrap_or(0);
        let counts = [
            ("nodes", document.nodes.len(), NODES_MAX),
            ("edges", document.edges.len(), EDGES_MAX),
            ("inputs or outputs of a node", most(&ports), PORTS_MAX),
            ("actors, roles or event types of a node", most(&selectors), SELECTORS_MAX),
            ("bytes", document.encoded_len(), PIPELINE_BYTES_MAX),
        ];
        for (what, count, max) in counts {
            if count > max {
                self.fault(Fault::TooMany(what, max));
            }
        }
    }

    fn nodes(&mut self) {
        let mut seen = BTreeSet::new();
        for node in &self.document.nodes {
            if !is_name(&node.id) {
                self.fault(Fault::NodeName(shown(&node.id)));
            } else if !seen.insert(&node.id) {
                self.fault(Fault::DuplicateNode(node.id.clone()));
            }
            self.ports(node, &node.inputs, "input");
            self.ports(node, &node.outputs, "output");
            self.kind(node);
            self.selectors(node);
        }
        if !self.document.nodes.iter().any(|node| node.kind() == NodeKind::Emitter) {
            self.fault(Fault::NoEmitter);
        }
    }

    fn ports(&mut self, node: &NodeDocument, names: &[String], what: &'static str) {
        let mut seen = BTreeSet::new();
        for name in names {
            if !is_name(name) {
                self.fault(Fault::PortName(shown(&node.id), shown(name)));
            } else if !seen.insert(name) {
                self.fault(Fault::DuplicatePort(shown(&node.id), name.clone(), what));
            }
        }
    }

    fn kind(&mut self, node: &NodeDocument) {
        let id = || shown(&node.id);
        let (inputs, outputs) = (!node.inputs.is_empty(), !node.outputs.is_empty());
        match node.kind() {
            NodeKind::Unknown => self.fault(Fault::NoKind(id())),
            NodeKind::Emitter if inputs => self.fault(Fault::EmitterInputs(id())),
            NodeKind::Emitter if !outputs => self.fault(Fault::NoOutput(id(), "emitter")),
            NodeKind::Worker if !inputs => self.fault(Fault::NoInput(id(), "worker")),
            NodeKind::Worker if !outputs => self.fault(Fault::NoOutput(id(), "worker")),
            NodeKind::Consumer if outputs => self.fault(Fault::ConsumerOutputs(id())),
            NodeKind::Consumer if !inputs => self.fault(Fault::NoInput(id(), "consumer")),
            NodeKind::Emitter | NodeKind::Worker | NodeKind::Consumer => {}
        }
        if node.kind() == NodeKind::Emitter && node.role_broadcast {
            self.fault(Fault::EmitterBroadcast(id()));
        } else if node.role_broadcast && node.roles.is_empty() {
            self.fault(Fault::BroadcastWithoutRole(id()));
        }
        if node.kind() != NodeKind::Emitter && !node.event_types.is_empty() {
            self.fault(Fault::EventTypes(id()));
        }
    }

    fn selectors(&mut self, node: &NodeDocument) {
        if node.actors.is_empty() && node.roles.is_empty() {
            self.fault(Fault::NoActor(shown(&node.id)));
        }
        let lists = [
            (&node.actors, "actor", NAME_BYTES_MAX),
            (&node.roles, "role", NAME_BYTES_MAX),
            (&node.event_types, "event type", EVENT_TYPE_BYTES_MAX),
        ];
        for (names, what, max) in lists {
            let wrong =
                |name: &&String| !(1..=max).contains(&name.len()) || name.bytes().any(|b| b < b' ' || b == 0x7f);
            for name in names.iter().filter(wrong) {
                self.fault(Fault::Selector(shown(&node.id), shown(name), what));
            }
        }
    }

    /// The edges whose ends are there.
    fn edges(&mut self) -> Vec<Edge> {
        let mut edges = Vec::with_capacity(self.document.edges.len());
        let mut seen = BTreeSet::new();
        for text in &self.document.edges {
            match self.edge(text) {
                Ok(edge) if seen.insert(edge) => edges.push(edge),
                Ok(_) => self.fault(Fault::DuplicateEdge(shown(text))),
                Err(faults) => faults.into_iter().for_each(|fault| self.fault(fault)),
            }
        }
        edges
    }

    fn edge(&self, text: &str) -> Result<Edge, Vec<Fault>> {
        let ends = text.split_once("->").and_then(|(from, to)| {
            let end = |text: &'_ str| {
                text.trim_ascii().split_once('.').map(|(node, port)| (node.to_string(), port.to_string()))
            };
            Some((end(from)?, end(to)?))
        });
        let Some(((from_node, output), (to_node, input))) =
            ends.filter(|(from, to)| [&from.0, &from.1, &to.0, &to.1].into_iter().all(|name| is_name(name)))
        else {
            return Err(alloc::vec![Fault::MalformedEdge(shown(text))]);
        };
        let from = self.port(&from_node, &output, |node| &node.outputs, Fault::UnknownOutput);
        let to = self.port(&to_node, &input, |node| &node.inputs, Fault::UnknownInput);
        match (from, to) {
            (Ok(from), Ok(to)) => Ok(Edge { from, to }),
            (from, to) => Err([from.err(), to.err()].into_iter().flatten().collect()),
        }
    }

    fn port(
        &self,
        id: &str,
        name: &str,
        ports: fn(&NodeDocument) -> &Vec<String>,
        unknown: fn(String, String) -> Fault,
    ) -> Result<Port, Fault> {
        let node = self.document.nodes.iter().position(|node| node.id == id);
        let node = node.ok_or_else(|| Fault::UnknownNode(id.into()))?;
        let port = self.document.nodes.get(node).and_then(|node| ports(node).iter().position(|port| port == name));
        port.map(|port| Port { node, port }).ok_or_else(|| unknown(id.into(), name.into()))
    }

    /// Every input must be fed.
    fn wiring(&mut self, edges: &[Edge]) {
        let fed: BTreeSet<Port> = edges.iter().map(|edge| edge.to).collect();
        for (number, node) in self.document.nodes.iter().enumerate() {
            // An emitter with inputs is reported already.
            let takes = node.kind() != NodeKind::Emitter;
            for (port, name) in node.inputs.iter().enumerate().filter(|_| takes) {
                if !fed.contains(&Port { node: number, port }) {
                    self.fault(Fault::InputWithoutEdge(shown(&node.id), shown(name)));
                }
            }
        }
    }
}
