//! Whether another node is in reach. A single failed check proves nothing, so failures in a row are counted.

use rollbook_cluster::node::peer_messages::PeerMessages;

/// Counts the failed checks of one node.
#[derive(Debug)]
pub struct PeerReachability {
    /// Knows the connections to other nodes.
    messages: PeerMessages,
    /// The node.
    to: u64,
    /// Failed checks in a row.
    missed: u32,
    /// The number at which the node counts as lost.
    missed_max: u32,
}

impl PeerReachability {
    /// Checks node `to`, which is lost after `missed_max` failed checks in a row.
    #[must_use]
    pub const fn new(messages: PeerMessages, to: u64, missed_max: u32) -> Self {
        Self { messages, to, missed: 0, missed_max }
    }

    /// Checks once more. Returns whether the node is lost.
    pub fn is_lost(&mut self) -> bool {
        self.missed = if self.messages.reaches(self.to) { 0 } else { self.missed.saturating_add(1) };
        self.missed >= self.missed_max
    }
}
