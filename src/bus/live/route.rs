//! Where the messages of one subject go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::message::{Delivered, LiveMessage, LiveSink};

/// One subscription of a client of this node.
#[derive(Debug, Clone)]
pub(in crate::bus) struct Target {
    /// The queue of the client.
    pub(in crate::bus) sink: Arc<dyn LiveSink>,
    /// The number that the client gave the subscription.
    pub(in crate::bus) subscription: u64,
}

/// The members of a queue group that want a subject.
#[derive(Debug, Default)]
pub(in crate::bus) struct QueueGroup {
    /// The name of the group.
    pub(in crate::bus) name: Box<str>,
    /// The members at this node.
    pub(in crate::bus) members: Vec<Target>,
    /// Other nodes with members.
    pub(in crate::bus) nodes: Vec<u64>,
    /// Whose turn it is. Members take turns, so that the load of each is the same.
    pub(in crate::bus) turn: AtomicUsize,
}

/// Where the messages of one subject go. Compiled from the interest of all nodes, and shared until the interest changes.
#[derive(Debug, Default)]
pub struct Route {
    /// The group of the first token of the subject.
    pub(in crate::bus) group: usize,
    /// The changes of interest in that group that the route was made from.
    pub(in crate::bus) generation: u64,
    /// Subscriptions of this node without a group.
    pub(in crate::bus) plain: Vec<Target>,
    /// Queue groups.
    pub(in crate::bus) groups: Vec<QueueGroup>,
    /// Other nodes with subscriptions without a group.
    pub(in crate::bus) nodes: Vec<u64>,
}

/// Connections that sleep and have got messages. Each is woken once, at the end of a batch.
#[derive(Debug, Default)]
pub struct Wakes(Vec<Arc<dyn LiveSink>>);

impl Wakes {
    /// Wakes the connections.
    pub fn wake(&mut self) {
        self.0.drain(..).for_each(|sink| sink.wake());
    }

    /// Whether there is nobody to wake.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.wake();
    }
}

impl Target {
    /// Gives the subscription a message. Returns whether the subscription took the message.
    pub(in crate::bus) fn give(&self, message: &LiveMessage, wakes: &mut Wakes) -> bool {
        match self.sink.deliver(self.subscription, message) {
            Delivered::Queued => true,
            Delivered::Sleeping => {
                wakes.0.push(Arc::clone(&self.sink));
                true
            }
            Delivered::Refused => false,
        }
    }
}

impl QueueGroup {
    /// Gives a message to one member of this node: the next in turn that takes it. `except` does not get its own
    /// messages. Returns whether a member took the message.
    pub(in crate::bus) fn give(&self, message: &LiveMessage, except: Option<u64>, wakes: &mut Wakes) -> bool {
        let count = self.members.len();
        if count == 0 {
            return false;
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..count).any(|step| {
            let member = first.wrapping_add(step).checked_rem(count).and_then(|at| self.members.get(at));
            member.is_some_and(|member| Some(member.sink.client()) != except && member.give(message, wakes))
        })
    }

    /// The other node whose turn it is.
    pub(in crate::bus) fn node_in_turn(&self) -> Option<u64> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        turn.checked_rem(self.nodes.len()).and_then(|at| self.nodes.get(at)).copied()
    }
}

impl Route {
    /// Whether nobody wants the subject.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty() && self.nodes.is_empty()
    }

    /// The number of subscriptions of this node, for bounds of caches.
    pub(in crate::bus) fn weight(&self) -> usize {
        self.groups.iter().map(|group| group.members.len()).sum::<usize>().saturating_add(self.plain.len())
    }
}
