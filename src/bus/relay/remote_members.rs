//! What this node does for members of its durable consumers whose clients are connected to other nodes.

use std::time::Duration;

use actix::prelude::{Addr, Context, Handler, Message, ResponseFuture};
use bytes::Bytes;
use rollbook_cluster::wait::wait_until;
use rollbook_core::error::Refusal;
use rollbook_core::node::Owner;

use super::frame::{self, Closing, Frame, MemberPlace, RemoteJoin};
use super::remote_member::{RemoteMember, RemoteMemberEnds, RemoteMemberKey};
use super::{Relay, done};
use crate::base::actors::{Owned, must_tell};
use crate::bus::delivery::messages::{EndReason, Join, stopping};
use crate::bus::delivery::window::Departure;

/// How long this node may take to see what another has seen.
const SEEN_MAX: Duration = Duration::from_secs(2);

/// A guest goes to its consumer, now that this node has seen what the other one has.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Refusal>")]
struct AdmitRemoteMember {
    key: RemoteMemberKey,
    join: Join,
}

/// A guest was not accepted.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct RemoteMemberRefused(RemoteMemberKey);

impl Relay {
    /// A guest leaves its consumer.
    pub(super) fn dismiss_guest(&mut self, key: RemoteMemberKey, departure: Departure) {
        if let Some((leave, _)) = self.guests.remove(key, departure) {
            must_tell(&self.registry, leave);
        }
    }

    /// A guest leaves its consumer, and its stream ends at the node where that is. That is no failure of its client.
    pub(super) fn end_guest(&mut self, key: RemoteMemberKey, reason: EndReason) {
        let Some((leave, life)) = self.guests.remove(key, Departure::Returned) else { return };
        must_tell(&self.registry, leave);
        self.insist(key.at, life, Frame::Close(Closing::new(key.member, reason)));
    }

    /// A member of another node comes to a consumer that this node serves.
    pub(super) fn join_here(
        &mut self,
        from: u64,
        wanted: RemoteJoin,
        relay: Addr<Self>,
    ) -> ResponseFuture<Result<Bytes, Refusal>> {
        let Some((terms, patience)) = wanted.terms() else { return done(Err(frame::malformed())) };
        let namespace = terms.pattern.namespace().to_owned();
        let seat = MemberPlace { namespace, consumer: terms.name.clone(), member: wanted.member };
        let key = RemoteMemberKey { at: from, member: wanted.member };
        let life = wanted.incarnation.map(|incarnation| Owner { node: from, incarnation });
        let guest = RemoteMember { messages: self.node().messages().clone(), key, ends: relay.clone().recipient() };
        let guest = Owned::start(&self.bus.metrics().actors, guest);
        let guest = self.guests.expect(guest, key, seat, life);
        let join = Join {
            terms,
            member: wanted.member,
            consumer_id: wanted.consumer_id,
            name: wanted.name,
            patience,
            deliver: guest.clone().recipient(),
            tell: guest.recipient(),
        };
        let (mut applied, seen) = (self.node().state().applied(), wanted.seen);
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
        if !self.guests.seat(key) {
            return done(Err(Refusal::Unavailable("the member has left".to_owned())));
        }
        let joined = self.registry.send(join);
        Box::pin(async move { joined.await.map_err(stopping)? })
    }
}

impl Handler<RemoteMemberRefused> for Relay {
    type Result = ();

    fn handle(&mut self, RemoteMemberRefused(key): RemoteMemberRefused, _: &mut Context<Self>) {
        self.dismiss_guest(key, Departure::Returned);
    }
}

impl Handler<RemoteMemberEnds> for Relay {
    type Result = ();

    fn handle(&mut self, RemoteMemberEnds { key, reason }: RemoteMemberEnds, _: &mut Context<Self>) {
        self.end_guest(key, reason);
    }
}
