//! Nodes: their lives begin and end, and roll events announce both.

use alloc::format;
use alloc::string::String;
use prost::Message as _;
use serde::Serialize;

use super::effects::Effects;
use super::{META_NEXT_NODE, Machine};
use crate::command::{Done, NodeAllocate, NodeDown, NodeRemove, NodeUp, Reply};
use crate::error::Refusal;
use crate::limits;
use crate::node::{Node, Owner};
use crate::rows::{Family, Writes};

impl Machine {
    /// The node of this number, also when it is down or removed.
    #[must_use]
    pub fn node(&self, id: u64) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// All nodes that were ever members, by number.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Whether this life of a node goes on.
    #[must_use]
    pub fn is_alive(&self, owner: Owner) -> bool {
        self.nodes.get(&owner.node).is_some_and(|node| node.up && node.incarnation == owner.incarnation)
    }

    /// Begins a life of a node. A life that goes on already may be announced again, for example with a new address; a
    /// later life ends the present one.
    pub(super) fn node_up(&mut self, up: NodeUp, effects: &mut Effects<'_>) -> Reply {
        if !is_address(&up.address) {
            return Err(Refusal::Malformed("address of a node".into()));
        }
        let known = self.nodes.get(&up.id).cloned();
        if known.is_none() && self.nodes.size() >= limits::NODES_MAX {
            return Err(Refusal::Membership("too many nodes".into()));
        }
        let mut node = known.unwrap_or(Node { id: up.id, ..Node::default() });
        if node.removed {
            return Err(Refusal::Membership(format!("node {} was removed", up.id)));
        }
        let repeated = node.up && node.incarnation == up.incarnation;
        if up.incarnation < node.incarnation || (up.incarnation == node.incarnation && !node.up) {
            return Err(Refusal::Membership(format!("that life of node {} has ended", up.id)));
        }
        if node.up && !repeated {
            self.end_life(&node, "restarted", effects);
        }
        (node.incarnation, node.address, node.up) = (up.incarnation, up.address, true);
        self.save_node(&node, effects.writes);
        if !repeated {
            self.append_node_event("up", &node, None, effects);
        }
        Ok(Done::Node(node))
    }

    /// Ends a life of a node. A command for another life than the present one changes nothing.
    pub(super) fn node_down(&mut self, down: &NodeDown, effects: &mut Effects<'_>) -> Reply {
        let Some(node) = self.nodes.get(&down.id) else { return Err(Refusal::NodeNotFound(format!("{}", down.id))) };
        let mut node = node.clone();
        if node.up && node.incarnation == down.incarnation {
            node.up = false;
            self.save_node(&node, effects.writes);
            let reason = if down.reason == "stopped" { "stopped" } else { "lost" };
            self.end_life(&node, reason, effects);
        }
        Ok(Done::Node(node))
    }

    /// Gives a joining node a number that no node ever had.
    pub(super) fn node_allocate(&mut self, allocate: NodeAllocate, writes: &mut Writes) -> Reply {
        if !is_address(&allocate.address) {
            return Err(Refusal::Malformed("address of a node".into()));
        }
        if self.nodes.size() >= limits::NODES_MAX {
            return Err(Refusal::Membership("too many nodes".into()));
        }
        let known = self.nodes.last().map(|(id, _)| *id).unwrap_or(0);
        let id = self.next_node.max(known.max(allocate.above).saturating_add(1));
        self.next_node = id.saturating_add(1);
        writes.put(Family::Meta, META_NEXT_NODE.into(), self.next_node.to_be_bytes().into());
        let node = Node { id, address: allocate.address, ..Node::default() };
        self.save_node(&node, writes);
        Ok(Done::Node(node))
    }

    /// Removes a node for good, and ends its life. A node without a row gets one, so that its number stays taken.
    pub(super) fn node_remove(&mut self, remove: &NodeRemove, effects: &mut Effects<'_>) -> Reply {
        let mut node = self.nodes.get(&remove.id).cloned().unwrap_or(Node { id: remove.id, ..Node::default() });
        let was_up = node.up;
        (node.up, node.removed) = (false, true);
        self.save_node(&node, effects.writes);
        if was_up {
            self.end_life(&node, "removed", effects);
        }
        Ok(Done::Node(node))
    }

    /// Announces that a life of a node has ended, and begins to remove the instances that belong to it.
    fn end_life(&mut self, node: &Node, reason: &str, effects: &mut Effects<'_>) {
        self.append_node_event("down", node, Some(reason), effects);
        self.expire_instances(Owner { node: node.id, incarnation: node.incarnation }, effects);
    }

    /// Writes the row of a node and updates the machine.
    fn save_node(&mut self, node: &Node, writes: &mut Writes) {
        writes.put(Family::Nodes, node.id.to_be_bytes().into(), node.encode_to_vec());
        self.nodes.insert_mut(node.id, node.clone());
    }

    /// Appends the roll event `roll.node.<what>`.
    fn append_node_event(&mut self, what: &str, node: &Node, reason: Option<&str>, effects: &mut Effects<'_>) {
        let Node { id, incarnation, address, .. } = node;
        let payload =
            NodeEvent { node: NodeJson { id: *id, incarnation: *incarnation, address }, reason, at: self.time_text() };
        self.append_roll_event(&format!("node.{what}"), &payload, effects);
    }
}

/// Payload of `roll.node.*`.
#[derive(Serialize)]
struct NodeEvent<'a> {
    node: NodeJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    at: String,
}

/// A node in roll events.
#[derive(Serialize)]
struct NodeJson<'a> {
    id: u64,
    incarnation: u64,
    address: &'a str,
}

/// Whether an address is short enough and needs no escaping in JSON or in a log line.
fn is_address(address: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    (1..=limits::ADDRESS_BYTES_MAX).contains(&address.len()) && address.bytes().all(plain)
}
