//! Members of durable consumers of this node whose clients are connected to other nodes. An actor stands in for each.

use std::collections::HashMap;
use std::time::Duration;

use actix::WrapFuture as _;
use actix::prelude::{Actor, Addr, Context, Handler, Message, Recipient, ResponseActFuture};
use rollbook_cluster::node::Node;
use rollbook_cluster::node::peer_messages::PeerMessages;
use rollbook_core::error::Refusal;
use rollbook_core::node::Owner;

use super::frame::parts::MemberKey;
use super::frame::{self, Delivery, Frame};
use super::reachability::PeerReachability;
use crate::base::actors::{Belongs, Kind, Owned, must_tell};
use crate::bus::delivery::acknowledgement::Acknowledged;
use crate::bus::delivery::messages::{Deliver, EndReason, Leave, StreamCommand, WriteResult};
use crate::bus::delivery::window::{Departure, Member};

/// Longest wait until the other node says that its client has taken the events, or has not taken them yet.
const DELIVER_MAX: Duration = Duration::from_secs(30);
/// After this many failed checks in a row a node counts as lost.
const MISSED_MAX: u32 = 6;

/// The node of a client, and the number of the member there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RemoteMemberKey {
    /// The node.
    pub(super) at: u64,
    /// The member.
    pub(super) member: Member,
}

/// The consumer ends the stream of a remote member.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct RemoteMemberEnds {
    pub(super) key: RemoteMemberKey,
    pub(super) reason: EndReason,
}

/// The actor. It ends when the relay drops its handle.
pub(super) struct RemoteMember {
    /// Sends events to the node of the client.
    pub(super) messages: PeerMessages,
    /// The member.
    pub(super) key: RemoteMemberKey,
    /// The relay, which removes the member.
    pub(super) ends: Recipient<RemoteMemberEnds>,
}

impl Actor for RemoteMember {
    type Context = Context<Self>;
}

impl Belongs for RemoteMember {
    const KIND: Kind = Kind::RemoteMember;
}

impl Handler<Deliver> for RemoteMember {
    type Result = ResponseActFuture<Self, WriteResult>;

    fn handle(&mut self, deliver: Deliver, _: &mut Context<Self>) -> Self::Result {
        let (messages, RemoteMemberKey { at, member }) = (self.messages.clone(), self.key);
        let mut message = Frame::Deliver(Delivery::new(member, &deliver.items)).into_bytes();
        let deliver = async move {
            loop {
                match messages.ask(at, message, DELIVER_MAX).await.map(frame::decode_written) {
                    Ok(Some(written)) => return written,
                    // The client has the events and reads slowly. From now on the question is only whether there is
                    // room.
                    Ok(None) => message = Frame::Deliver(Delivery::new(member, &[])).into_bytes(),
                    Err(refusal) => {
                        tracing::debug!(node = at, member, %refusal, "a member at another node does not answer");
                        return WriteResult::Unreachable;
                    }
                }
            }
        };
        // The future belongs to the actor: when the relay drops the member, nothing waits for its client any more.
        Box::pin(deliver.into_actor(self))
    }
}

impl Handler<StreamCommand> for RemoteMember {
    type Result = Result<Acknowledged, Refusal>;

    fn handle(&mut self, command: StreamCommand, _: &mut Context<Self>) -> Self::Result {
        // Acknowledgements come from the node of the client directly to the registry.
        if let StreamCommand::Close(reason) = command {
            must_tell(&self.ends, RemoteMemberEnds { key: self.key, reason });
        }
        Ok(Acknowledged::default())
    }
}

/// A remote member in the table.
struct Entry {
    /// The actor.
    owned: Owned<RemoteMember>,
    /// The member as its consumer knows it.
    member_key: MemberKey,
    /// The life of the node of the client; older releases do not send it.
    life: Option<Owner>,
    /// Whether the consumer has the member. Before that the life of the node may not be known here yet.
    admitted: bool,
}

/// All remote members of this node. Their actors end when they leave the table.
#[derive(Default)]
pub(super) struct RemoteMembers {
    /// The members.
    table: HashMap<RemoteMemberKey, Entry>,
    /// Whether the nodes of the members are in reach.
    reach: HashMap<u64, PeerReachability>,
}

impl RemoteMembers {
    /// How many remote members there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Adds a member that is not handed to its consumer yet.
    pub(super) fn reserve(
        &mut self,
        owned: Owned<RemoteMember>,
        key: RemoteMemberKey,
        member_key: MemberKey,
        life: Option<Owner>,
    ) -> Addr<RemoteMember> {
        let addr = owned.addr().clone();
        self.table.insert(key, Entry { owned, member_key, life, admitted: false });
        addr
    }

    /// The member is handed to its consumer now. Returns `false` when it has left meanwhile.
    pub(super) fn admit(&mut self, key: RemoteMemberKey) -> bool {
        let entry = self.table.get_mut(&key);
        entry.map(|entry| entry.admitted = true).is_some()
    }

    /// Removes a member. Returns the message for its consumer, and the life of its node.
    pub(super) fn remove(&mut self, key: RemoteMemberKey, departure: Departure) -> Option<(Leave, Option<Owner>)> {
        let Entry { member_key: MemberKey { namespace, consumer, member }, life, .. } = self.table.remove(&key)?;
        Some((Leave { namespace, consumer, member, departure }, life))
    }

    /// Members whose node is out of reach, or has begun another life.
    pub(super) fn lost(&mut self, node: &Node) -> Vec<RemoteMemberKey> {
        self.reach.retain(|at, _| self.table.keys().any(|key| key.at == *at));
        for key in self.table.keys() {
            self.reach
                .entry(key.at)
                .or_insert_with(|| PeerReachability::new(node.messages().clone(), key.at, MISSED_MAX));
        }
        let lost: Vec<u64> = self.reach.iter_mut().filter_map(|(at, reach)| reach.is_lost().then_some(*at)).collect();
        let is_lost = |(key, entry): &(&RemoteMemberKey, &Entry)| {
            let over = entry.admitted && entry.life.is_some_and(|life| !node.state().is_alive(life));
            over || lost.contains(&key.at) || !entry.owned.addr().connected()
        };
        self.table.iter().filter(is_lost).map(|(key, _)| *key).collect()
    }
}
