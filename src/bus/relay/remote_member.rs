//! Members of durable consumers of this node whose clients are connected to other nodes: an actor stands in for each.

use std::collections::HashMap;
use std::time::Duration;

use actix::WrapFuture as _;
use actix::prelude::{Actor, Addr, Context, Handler, Message, Recipient, ResponseActFuture};
use rollbook_cluster::node::Node;
use rollbook_cluster::node::peer_messages::PeerMessages;
use rollbook_core::error::Refusal;
use rollbook_core::node::Owner;

use super::frame::{self, Delivery, Frame, MemberPlace};
use super::reachability::PeerReachability;
use crate::base::actors::{Belongs, Kind, Owned, must_tell};
use crate::bus::delivery::messages::{AckResult, Deliver, EndReason, Leave, StreamCommand, WriteResult};
use crate::bus::delivery::window::{Departure, Member};

/// How long the other node may take to say that its client has taken events, or that it has not yet.
const DELIVER_MAX: Duration = Duration::from_secs(30);
/// After this many looks of the relay in vain a node is lost.
const MISSED_MAX: u32 = 6;

/// The node where a client is, and the number that it has there as a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RemoteMemberKey {
    pub(super) at: u64,
    pub(super) member: Member,
}

/// The consumer wants a remote member to go.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct RemoteMemberEnds {
    pub(super) key: RemoteMemberKey,
    pub(super) reason: EndReason,
}

/// The actor. It ends when the relay lets go of it.
pub(super) struct RemoteMember {
    pub(super) messages: PeerMessages,
    pub(super) key: RemoteMemberKey,
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
                    // Its client has it and reads slowly: only room is asked for from now on.
                    Ok(None) => message = Frame::Deliver(Delivery::new(member, &[])).into_bytes(),
                    Err(refusal) => {
                        tracing::debug!(node = at, member, %refusal, "a member at another node does not answer");
                        return WriteResult::Unreachable;
                    }
                }
            }
        };
        // Of the actor: whoever lets go of the remote member does not wait for its client any more.
        Box::pin(deliver.into_actor(self))
    }
}

impl Handler<StreamCommand> for RemoteMember {
    type Result = Result<AckResult, Refusal>;

    fn handle(&mut self, command: StreamCommand, _: &mut Context<Self>) -> Self::Result {
        // Its acknowledgements come from its own node, to the registry.
        if let StreamCommand::Close(reason) = command {
            must_tell(&self.ends, RemoteMemberEnds { key: self.key, reason });
        }
        Ok(AckResult::NotInFlight)
    }
}

/// A remote member in the table.
struct Entry {
    owned: Owned<RemoteMember>,
    place: MemberPlace,
    /// The life of the node where the client is; nodes of an older release do not say it.
    life: Option<Owner>,
    /// It was handed to its consumer.
    admitted: bool,
}

/// All remote members of this node, which end when they leave the table.
#[derive(Default)]
pub(super) struct RemoteMembers {
    table: HashMap<RemoteMemberKey, Entry>,
    reach: HashMap<u64, PeerReachability>,
}

impl RemoteMembers {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// A member has asked for a place; it is not handed to its consumer yet.
    pub(super) fn expect(
        &mut self,
        owned: Owned<RemoteMember>,
        key: RemoteMemberKey,
        place: MemberPlace,
        life: Option<Owner>,
    ) -> Addr<RemoteMember> {
        let addr = owned.addr().clone();
        self.table.insert(key, Entry { owned, place, life, admitted: false });
        addr
    }

    /// The remote member is handed to its consumer now; `false` when it has left meanwhile.
    pub(super) fn admit(&mut self, key: RemoteMemberKey) -> bool {
        let entry = self.table.get_mut(&key);
        entry.map(|entry| entry.admitted = true).is_some()
    }

    /// The remote member goes in this way; what its consumer is to be told, and the life of its node.
    pub(super) fn remove(&mut self, key: RemoteMemberKey, departure: Departure) -> Option<(Leave, Option<Owner>)> {
        let Entry { place: MemberPlace { namespace, consumer, member }, life, .. } = self.table.remove(&key)?;
        Some((Leave { namespace, consumer, member, departure }, life))
    }

    /// Remote members whose node cannot be reached any more, or lives another life.
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
