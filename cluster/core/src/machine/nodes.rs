//! Nodes come and go: who is up, and the events that tell of it.

use alloc::format;
use alloc::string::String;
use prost::Message as _;

use super::effects::{Effects, Touched};
use super::{META_NEXT_NODE, Machine, saved};
use crate::command::{Done, NodeAllocate, NodeDown, NodeRemove, NodeUp, Reply};
use crate::error::Refusal;
use crate::event::Event;
use crate::limits;
use crate::namespace::Retention;
use crate::node::{Node, Owner};
use crate::rows::{self, Family, IndexRow, Writes};
use crate::subject::Namespace;
use crate::time::Timestamp;

impl Machine {
    /// A node that was ever here.
    #[must_use]
    pub fn node(&self, id: u64) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// All nodes that were ever here, by number.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Whether this life of a node has not ended.
    #[must_use]
    pub fn is_alive(&self, owner: Owner) -> bool {
        self.nodes.get(&owner.node).is_some_and(|node| node.up && node.incarnation == owner.incarnation)
    }

    pub(super) fn node_up(&mut self, up: NodeUp, effects: &mut Effects<'_>) -> Reply {
        if !is_address(&up.address) {
            return Err(Refusal::Malformed("address of a node".into()));
        }
        let known = self.nodes.get(&up.id).cloned();
        if known.is_none() && self.nodes.len() >= limits::NODES_MAX {
            return Err(Refusal::Membership("too many nodes".into()));
        }
        let mut node = known.unwrap_or(Node { id: up.id, ..Node::default() });
        if node.removed {
            return Err(Refusal::Membership(format!("node {} was removed", up.id)));
        }
        let again = node.up && node.incarnation == up.incarnation;
        if up.incarnation < node.incarnation || (up.incarnation == node.incarnation && !node.up) {
            return Err(Refusal::Membership(format!("that life of node {} has ended", up.id)));
        }
        if node.up && !again {
            self.tell("down", &node, Some("restarted"), effects);
        }
        (node.incarnation, node.address, node.up) = (up.incarnation, up.address, true);
        self.save_node(&node, effects.writes);
        if !again {
            self.tell("up", &node, None, effects);
        }
        Ok(Done::Node(node))
    }

    pub(super) fn node_down(&mut self, down: &NodeDown, effects: &mut Effects<'_>) -> Reply {
        let Some(node) = self.nodes.get(&down.id) else { return Err(Refusal::NodeNotFound(format!("{}", down.id))) };
        let mut node = node.clone();
        if node.up && node.incarnation == down.incarnation {
            node.up = false;
            self.save_node(&node, effects.writes);
            let reason = if down.reason == "stopped" { "stopped" } else { "lost" };
            self.tell("down", &node, Some(reason), effects);
        }
        Ok(Done::Node(node))
    }

    pub(super) fn node_allocate(&mut self, allocate: NodeAllocate, writes: &mut Writes) -> Reply {
        if !is_address(&allocate.address) {
            return Err(Refusal::Malformed("address of a node".into()));
        }
        if self.nodes.len() >= limits::NODES_MAX {
            return Err(Refusal::Membership("too many nodes".into()));
        }
        let known = self.nodes.keys().next_back().copied().unwrap_or(0);
        let id = self.next_node.max(known.max(allocate.above).saturating_add(1));
        self.next_node = id.saturating_add(1);
        writes.put(Family::Meta, META_NEXT_NODE.into(), self.next_node.to_be_bytes().into());
        let node = Node { id, address: allocate.address, ..Node::default() };
        self.save_node(&node, writes);
        Ok(Done::Node(node))
    }

    pub(super) fn node_remove(&mut self, remove: &NodeRemove, effects: &mut Effects<'_>) -> Reply {
        let mut node = self.nodes.get(&remove.id).cloned().unwrap_or(Node { id: remove.id, ..Node::default() });
        let was_up = node.up;
        (node.up, node.removed) = (false, true);
        self.save_node(&node, effects.writes);
        if was_up {
            self.tell("down", &node, Some("removed"), effects);
        }
        Ok(Done::Node(node))
    }

    fn save_node(&mut self, node: &Node, writes: &mut Writes) {
        writes.put(Family::Nodes, node.id.to_be_bytes().into(), node.encode_to_vec());
        self.nodes.insert(node.id, node.clone());
    }

    fn tell(&mut self, what: &str, node: &Node, reason: Option<&str>, effects: &mut Effects<'_>) {
        let Node { id, incarnation, address, .. } = node;
        let reason = reason.map(|reason| format!(r#","reason":"{reason}""#)).unwrap_or_default();
        let mut at = alloc::vec::Vec::new();
        Timestamp::from_millis(self.millis).write(&mut at);
        let at = String::from_utf8(at).unwrap_or_default();
        let payload = format!(
            r#"{{"node":{{"id":{id},"incarnation":{incarnation},"address":"{address}"}}{reason},"at":"{at}"}}"#
        );
        self.make_event(&format!("{}.node.{what}", Namespace::ROLL), payload.as_bytes(), effects);
    }

    /// Appends an event to the roll: part of the very change that it tells of.
    fn make_event(&mut self, subject: &str, payload: &[u8], effects: &mut Effects<'_>) {
        let millis = self.millis;
        let event =
            Event { subject, created_at: Timestamp::from_millis(millis), payload: Some(payload), ..Event::default() };
        let mut record = alloc::vec::Vec::new();
        if event.encode(&mut record).is_err() {
            return;
        }
        if self.head(Namespace::ROLL).is_none()
            && self.create_namespace(Namespace::ROLL, Retention::default(), true, effects.writes).is_err()
        {
            return;
        }
        let Some(head) = self.heads.get_mut(Namespace::ROLL) else { return };
        let bytes = u64::try_from(record.len()).unwrap_or(u64::MAX);
        let touched = effects.touched.entry(head.id).or_insert_with(|| Touched {
            first: head.next,
            row: IndexRow {
                entry: effects.entry,
                millis,
                bytes_first: head.bytes_end,
                made: true,
                ..IndexRow::default()
            },
        });
        touched.row.events = touched.row.events.saturating_add(1);
        touched.row.bytes = touched.row.bytes.saturating_add(bytes);
        effects.writes.put(Family::Made, rows::index_key(head.id, head.next), record);
        head.next = head.next.saturating_add(1);
        head.bytes_end = head.bytes_end.saturating_add(bytes);
        saved(head, effects.writes);
    }
}

/// What may stand in JSON and in a log line as it is.
fn is_address(address: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    (1..=limits::ADDRESS_BYTES_MAX).contains(&address.len()) && address.bytes().all(plain)
}
