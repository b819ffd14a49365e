//! Whether another node is in reach: one look in vain says nothing.

use rollbook_cluster::node::peer_messages::PeerMessages;

/// Counts the looks in vain.
#[derive(Debug)]
pub struct PeerReachability {
    messages: PeerMessages,
    to: u64,
    missed: u32,
    missed_max: u32,
}

impl PeerReachability {
    /// Of node `to`, which is lost after so many looks in vain.
    #[must_use]
    pub const fn new(messages: PeerMessages, to: u64, missed_max: u32) -> Self {
        Self { messages, to, missed: 0, missed_max }
    }

    /// Looks once more, and says whether the node is lost.
    pub fn is_lost(&mut self) -> bool {
        self.missed = if self.messages.reaches(self.to) { 0 } else { self.missed.saturating_add(1) };
        self.missed >= self.missed_max
    }
}
