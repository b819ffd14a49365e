//! What the relay does for members of this node's durable consumers whose clients are connected to other nodes.

use std::time::Duration;

use actix::prelude::{Addr, Context, Handler, Message, ResponseFuture};
use bytes::Bytes;
use rollbook_cluster::wait::wait_until;
use rollbook_core::error::Refusal;
use rollbook_core::node::Owner;

use super::frame::parts::MemberKey;
use super::frame::{self, CloseMember, Frame, RemoteJoin, RemoteLeave};
use super::remote_member::{RemoteMember, RemoteMemberEnds, RemoteMemberKey};
use super::{Relay, done};
use crate::base::actors::{Owned, must_tell};
use crate::bus::delivery::messages::{EndReason, Finish, Join, Leave, stopping};
use crate::bus::delivery::window::Departure;

/// How long this node may take to apply what the other node has applied.
const SEEN_MAX: Duration = Duration::from_secs(2);

/// Hands a remote member to its consumer, now that this node has applied what the other one has.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Refusal>")]
struct AdmitRemoteMember {
    key: RemoteMemberKey,
    join: Join,
}

/// The consumer has not accepted a remote member.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct RemoteMemberRefused(RemoteMemberKey);

impl Relay {
    /// Removes a remote member from its consumer.
    pub(super) fn remove_remote_member(&mut self, key: RemoteMemberKey, departure: Departure) {
        if let Some((leave, _)) = self.remote_members.remove(key, departure) {
            must_tell(&self.registry, leave);
        }
    }

    /// A member of another node leaves, or gets nothing any more.
    pub(super) fn remote_member_leaves(&mut self, from: u64, leave: RemoteLeave) {
        let finished = leave.is_finished();
        let Leave { namespace, consumer, member, departure } = leave.into_leave();
        if finished {
            must_tell(&self.registry, Finish { namespace, consumer, member });
        } else {
            self.remove_remote_member(RemoteMemberKey { at: from, member }, departure);
        }
    }

    /// Removes a remote member from its consumer and ends its stream on the other node. The last delivery does not
    /// count, because the client did not fail.
    pub(super) fn end_remote_member(&mut self, key: RemoteMemberKey, reason: EndReason) {
        let Some((leave, life)) = self.remote_members.remove(key, Departure::Returned) else { return };
        must_tell(&self.registry, leave);
        self.send_until_answered(key.at, life, Frame::Close(CloseMember::new(key.member, reason)));
    }

    /// A member of another node joins a consumer that this node serves.
    pub(super) fn join_here(
        &mut self,
        from: u64,
        join_request: RemoteJoin,
        relay: Addr<Self>,
    ) -> ResponseFuture<Result<Bytes, Refusal>> {
        let Some((spec, policy)) = join_request.spec() else { return done(Err(frame::malformed())) };
        let namespace = spec.pattern.namespace().to_owned();
        let member_key = MemberKey { namespace, consumer: spec.name.clone(), member: join_request.member };
        let key = RemoteMemberKey { at: from, member: join_request.member };
        let life = join_request.incarnation.map(|incarnation| Owner { node: from, incarnation });
        let remote_member =
            RemoteMember { messages: self.node().messages().clone(), key, ends: relay.clone().recipient() };
        let remote_member = Owned::start(&self.bus.metrics().actors, remote_member);
        let remote_member = self.remote_members.reserve(remote_member, key, member_key, life);
        let join = Join {
            spec,
            member: join_request.member,
            consumer_id: join_request.consumer_id,
            name: join_request.name,
            policy,
            deliver: remote_member.clone().recipient(),
            commands: remote_member.recipient(),
        };
        let (mut applied, seen) = (self.node().state().applied(), join_request.seen);
        Box::pin(async move {
            let sees = tokio::time::timeout(SEEN_MAX, wait_until(&mut applied, |next| *next >= seen)).await;
            let joined = match sees {
                Ok(Ok(())) => {
                    relay.send(AdmitRemoteMember { key, join }).await.unwrap_or_else(|error| Err(stopping(error)))
                }
                Ok(Err(error)) => Err(stopping(error)),
                Err(_) => Err(Refusal::Unavailable("the serving node is behind".to_owned())),
            };
            if joined.is_err() {
                must_tell(&relay, RemoteMemberRefused(key));
            }
            joined.map(|()| Bytes::new())
        })
    }
}

impl Handler<AdmitRemoteMember> for Relay {
    type Result = ResponseFuture<Result<(), Refusal>>;

    fn handle(&mut self, AdmitRemoteMember { key, join }: AdmitRemoteMember, _: &mut Context<Self>) -> Self::Result {
        if !self.remote_members.admit(key) {
            return done(Err(Refusal::Unavailable("the member has left".to_owned())));
        }
        let joined = self.registry.send(join);
        Box::pin(async move { joined.await.map_err(stopping)? })
    }
}

impl Handler<Finish> for Relay {
    type Result = ();

    fn handle(&mut self, finish: Finish, _: &mut Context<Self>) {
        if let Some(owner) = self.owner_of(finish.member) {
            self.send_until_answered(owner.node, Some(owner), Frame::Leave(RemoteLeave::finished(finish)));
        }
    }
}

impl Handler<RemoteMemberRefused> for Relay {
    type Result = ();

    fn handle(&mut self, RemoteMemberRefused(key): RemoteMemberRefused, _: &mut Context<Self>) {
        self.remove_remote_member(key, Departure::Returned);
    }
}

impl Handler<RemoteMemberEnds> for Relay {
    type Result = ();

    fn handle(&mut self, RemoteMemberEnds { key, reason }: RemoteMemberEnds, _: &mut Context<Self>) {
        self.end_remote_member(key, reason);
    }
}
