//! The relay: streams and durable consumers that concern two nodes.
//!
//! One node serves a durable consumer, wherever its members are connected. On that node a remote member stands in
//! for each member that is connected elsewhere. On the node of the client the relay remembers which node serves the
//! stream. Acknowledgements and inbox messages go to the node that the consumer id names, or to all nodes.
//!
//! Invariant: a member ends with its stream, and a stream with its member, a little later when messages are lost:
//! each side checks the other node at intervals.

pub(super) mod frame;
pub(super) mod live;
pub mod peer_client;
pub mod reachability;
mod remote_member;
mod remote_members;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult, Recipient, ResponseFuture};
use bytes::Bytes;
use futures_util::future::join_all;
use rollbook_cluster::node::Node;
use rollbook_core::error::Refusal;
use rollbook_core::event::EventId;
use rollbook_core::node::Owner;
use tokio_util::sync::CancellationToken;

use super::consume::registry::{EndConsumers, ListMembers, Registry};
use super::delivery::acknowledgement::{Acknowledged, Acknowledgement};
use super::delivery::messages::{
    Deliver, EndReason, Join, Leave, MemberAck, MemberState, StreamCommand, WriteResult, stopping,
};
use super::delivery::window::{Departure, Member};
use super::handle::{Bus, Live};
use super::read::stored_event::StoredEvent;
use crate::base::actors::{Belongs, Kind, must_tell};
use crate::base::clock;
use frame::acknowledgement::{Ack, RemoteAck, decode_acknowledged, encode_acknowledged};
use frame::{ConsumerKey, Frame, Post, RemoteJoin, RemoteLeave, SupersedeOwn};
use remote_member::RemoteMembers;

/// Longest wait for an answer of another node.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How often the nodes that serve streams of this node are checked.
const LOOK: Duration = Duration::from_millis(250);
/// How long a serving node may be out of reach before its streams end.
const REACH_MAX: Duration = Duration::from_secs(1);
/// How long an answer about events waits for a client that does not read them.
const UNREAD_MAX: Duration = Duration::from_secs(10);
/// How long a message that must arrive is sent again. The pauses grow from [`PAUSE_MIN`] to [`PAUSE_MAX`].
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Pause before the first repetition.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two repetitions.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// An acknowledgement for a stream of another node.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Acknowledged, Refusal>")]
pub struct AckElsewhere {
    /// Consumer id of the stream.
    pub consumer_id: String,
    /// What the client says.
    pub said: Arc<Acknowledgement>,
    /// Who acknowledges; empty when there is no authentication.
    pub principal: String,
}

/// A live message for listeners on other nodes.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct PostElsewhere {
    /// The inbox subject.
    pub subject: String,
    /// The event.
    pub record: Bytes,
}

/// A stream with this consumer id begins here. An older one on another node must end.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct SupersedeElsewhere {
    /// Consumer id of the stream.
    pub consumer_id: String,
    /// Whose stream it is; empty when there is no authentication.
    pub principal: String,
}

/// A durable consumer was deleted or reset: the streams of its members on all nodes must end.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct EndConsumersEverywhere(pub EndConsumers);

/// Asks for the members of a durable consumer, wherever it is served. The error is the number of the serving node that
/// did not answer.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<MemberState>, u64>")]
pub struct ListMembersAnywhere(pub ListMembers);

/// A message of another node.
#[derive(Debug, Message)]
#[rtype(result = "Result<Bytes, Refusal>")]
pub(super) struct Incoming {
    /// Number of the sending node.
    pub(super) from: u64,
    /// The message.
    pub(super) frame: Frame,
}

/// A stream of this node whose consumer another node serves.
struct Served {
    /// The serving node, in its present life.
    owner: Owner,
    /// Namespace of the consumer.
    namespace: String,
    /// Name of the consumer.
    consumer: String,
    /// Where events for the stream go.
    deliver: Recipient<Deliver>,
    /// Where commands to the stream go.
    commands: Recipient<StreamCommand>,
    /// Since when the serving node is out of reach.
    lost: Option<Instant>,
}

/// The actor of the relay.
pub struct Relay {
    /// The node and its live subscriptions.
    bus: Bus,
    /// The consumers that this node serves.
    registry: Addr<Registry>,
    /// Streams of this node whose consumers other nodes serve.
    served: HashMap<Member, Served>,
    /// Members of other nodes in consumers that this node serves.
    remote_members: RemoteMembers,
    /// Cancelled when the actor ends. Messages that are still being repeated end with it.
    end: CancellationToken,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (served, remote_members) = (self.served.len(), self.remote_members.len());
        f.debug_struct("Relay")
            .field("served", &served)
            .field("remote_members", &remote_members)
            .finish_non_exhaustive()
    }
}

/// A future that is ready.
fn done<T: Send + 'static>(value: T) -> ResponseFuture<T> {
    Box::pin(std::future::ready(value))
}

/// The node that made a consumer id. Ids that clients choose name no node.
fn issuing_node(consumer_id: &str) -> Option<u64> {
    let id = consumer_id.strip_prefix('c').map(|rest| format!("e{rest}"))?;
    EventId::parse(&id).map(|id| u64::from(id.second))
}

impl Relay {
    /// A relay of this bus.
    #[must_use]
    pub fn new(bus: &Bus, registry: Addr<Registry>) -> Self {
        Self {
            bus: bus.clone(),
            registry,
            served: HashMap::new(),
            remote_members: RemoteMembers::default(),
            end: CancellationToken::new(),
        }
    }

    fn node(&self) -> &Node {
        self.bus.node()
    }

    /// Sends a message to all other nodes that are up. A node that cannot take it now misses it.
    fn send_to_all(&self, frame: Frame, ctx: &mut Context<Self>) {
        let nodes = self.node().state().others_up();
        if nodes.is_empty() {
            return;
        }
        let (node, message, metrics) = (self.node().clone(), frame.into_bytes(), self.bus.metrics().clone());
        let tell = async move {
            for to in nodes {
                if let Err(refusal) = node.messages().tell(to, message.clone()).await {
                    metrics.inbox_dropped.inc();
                    tracing::debug!(to, %refusal, "a live message was dropped");
                }
            }
        };
        ctx.spawn(actix::fut::wrap_future(tell));
    }

    /// Sends a message that must arrive, because a member or a stream would be left behind otherwise. Repeats it until
    /// the node answers, its life ends, or [`RETRY_MAX`] has passed.
    fn send_until_answered(&self, to: u64, life: Option<Owner>, frame: Frame) {
        let (node, message, until) = (self.node().clone(), frame.into_bytes(), clock::now() + RETRY_MAX);
        let send_until_answered = async move {
            let mut pause = PAUSE_MIN;
            while life.is_none_or(|life| node.state().is_alive(life)) {
                let Err(refusal) = node.messages().ask(to, message.clone(), ANSWER_MAX).await else { return };
                if clock::now() >= until {
                    tracing::warn!(to, %refusal, "another node cannot be told that a member has left");
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
            }
        };
        // A task of its own: an actor polls all its futures whenever one of them wakes, and there may be thousands.
        let end = self.end.clone();
        actix_web::rt::spawn(async move { end.run_until_cancelled(send_until_answered).await });
    }

    /// Ends streams and remote members whose other node is gone.
    fn check(&mut self) {
        self.check_serving_nodes();
        for key in self.remote_members.lost(self.bus.node()) {
            self.end_remote_member(key, EndReason::Draining);
        }
    }

    /// Ends streams whose serving node is gone. Their clients come back and find the node that serves the consumer now.
    fn check_serving_nodes(&mut self) {
        let node = self.bus.node().clone();
        let now = clock::now();
        let mut left = Vec::new();
        for (member, served) in &mut self.served {
            let there = node.messages().reaches(served.owner.node) && node.state().is_alive(served.owner);
            served.lost = if there { None } else { Some(served.lost.unwrap_or(now)) };
            if served.lost.is_some_and(|lost| now.saturating_duration_since(lost) >= REACH_MAX) {
                left.push(*member);
            }
        }
        for member in left {
            if let Some(served) = self.leave(member, Departure::Returned) {
                must_tell(&served.commands, StreamCommand::Close(EndReason::Draining));
            }
        }
    }

    /// The node that serves a member of this node.
    fn owner_of(&self, member: Member) -> Option<Owner> {
        self.served.get(&member).map(|served| served.owner)
    }

    /// Removes a stream of this node from its consumer and tells the serving node.
    fn leave(&mut self, member: Member, departure: Departure) -> Option<Served> {
        let served = self.served.remove(&member)?;
        let (namespace, consumer) = (served.namespace.clone(), served.consumer.clone());
        let leave = RemoteLeave::new(Leave { namespace, consumer, member, departure });
        self.send_until_answered(served.owner.node, Some(served.owner), Frame::Leave(leave));
        Some(served)
    }

    /// Ends a stream of this node because a newer one elsewhere has its consumer id.
    fn supersede(&self, consumer_id: &str, principal: &str) {
        if let Some(live) = self.bus.find(consumer_id).filter(|live| is_own(live, principal)) {
            must_tell(&live.commands, StreamCommand::Close(EndReason::TakenOver));
        }
    }

    /// Handles an acknowledgement for a stream of this node.
    fn ack_here(&self, ack: Ack) -> ResponseFuture<Result<Bytes, Refusal>> {
        let live = self.bus.find(&ack.consumer_id).filter(|live| is_own(live, &ack.principal));
        let Some(live) = live else {
            return done(Ok(encode_acknowledged(None)));
        };
        let answer = live.commands.send(StreamCommand::Acknowledge(ack.said().into()));
        Box::pin(async move {
            match answer.await {
                Ok(acknowledged) => acknowledged.map(|acknowledged| encode_acknowledged(Some(acknowledged))),
                Err(_) => Ok(encode_acknowledged(None)),
            }
        })
    }
}

/// Whether a stream belongs to this principal. Without a name there is no authentication where the message comes from,
/// and all streams are everybody's.
fn is_own(live: &Live, principal: &str) -> bool {
    principal.is_empty() || live.identity.name() == principal
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Actor for Relay {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(4096);
        ctx.run_interval(LOOK, |act, _| act.check());
    }
}

impl Belongs for Relay {
    const KIND: Kind = Kind::Relay;
}

impl Handler<Incoming> for Relay {
    type Result = ResponseFuture<Result<Bytes, Refusal>>;

    fn handle(&mut self, incoming: Incoming, ctx: &mut Context<Self>) -> Self::Result {
        let registry = self.registry.clone();
        match incoming.frame {
            Frame::Post(Post { subject, record }) => {
                let item = Arc::new(StoredEvent::unstored(record));
                self.bus.reply_subjects().post(&subject, &item, self.bus.metrics());
            }
            Frame::Ack(ack) => return self.ack_here(ack),
            Frame::Supersede(consumer_id) => self.supersede(&consumer_id, ""),
            Frame::SupersedeOwn(own) => self.supersede(&own.consumer_id, &own.principal),
            Frame::EndConsumers(ConsumerKey { namespace, consumer, again }) => {
                let reason = if again { EndReason::Draining } else { EndReason::Deleted };
                must_tell(&registry, EndConsumers { namespace, consumer, reason });
            }
            Frame::Join(join) => return self.join_here(incoming.from, join, ctx.address()),
            Frame::Leave(leave) => self.remote_member_leaves(incoming.from, leave),
            Frame::MemberAck(ack) => {
                return Box::pin(async move {
                    let acknowledged = registry.send(ack.into_ack()).await.map_err(stopping)??;
                    Ok(encode_acknowledged(Some(acknowledged)))
                });
            }
            Frame::Deliver(delivery) => {
                let Some(served) = self.served.get(&delivery.member) else {
                    return done(Ok(frame::encode_written(Some(WriteResult::Gone))));
                };
                let written = served.deliver.send(Deliver { items: delivery.into_items() });
                return Box::pin(async move {
                    // The serving node asks again: a client that does not read is not a lost link.
                    let written = tokio::time::timeout(UNREAD_MAX, written).await;
                    Ok(frame::encode_written(written.ok().map(|written| written.unwrap_or(WriteResult::Gone))))
                });
            }
            Frame::Close(closing) => {
                if let Some(served) = self.served.remove(&closing.member) {
                    must_tell(&served.commands, StreamCommand::Close(closing.reason()));
                }
            }
            Frame::ListMembers(ConsumerKey { namespace, consumer, .. }) => {
                let query = ListMembers { namespace, consumer: consumer.unwrap_or_default() };
                return Box::pin(async move {
                    registry.send(query).await.map(|members| frame::encode_members(&members)).map_err(stopping)
                });
            }
            // The call handler has taken what is for clients and doors.
            _ => return done(Err(frame::malformed())),
        }
        done(Ok(Bytes::new()))
    }
}

/// Joins a durable consumer that another node serves.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct JoinElsewhere {
    /// The serving node.
    pub owner: Owner,
    /// The member.
    pub join: Join,
}

impl Handler<JoinElsewhere> for Relay {
    type Result = ResponseFuture<Result<(), Refusal>>;

    fn handle(&mut self, JoinElsewhere { owner, join }: JoinElsewhere, _: &mut Context<Self>) -> Self::Result {
        let seen = *self.node().state().applied().borrow();
        let message = Frame::Join(RemoteJoin::new(&join, seen, self.node().owner().incarnation)).into_bytes();
        let (namespace, consumer) = (join.spec.pattern.namespace().to_owned(), join.spec.name);
        let served = Served { owner, namespace, consumer, deliver: join.deliver, commands: join.commands, lost: None };
        // Before the answer, because events may come first.
        self.served.insert(join.member, served);
        let node = self.node().clone();
        Box::pin(async move { node.messages().ask(owner.node, message, ANSWER_MAX).await.map(drop) })
    }
}

impl Handler<Leave> for Relay {
    type Result = ();

    fn handle(&mut self, leave: Leave, _: &mut Context<Self>) {
        drop(self.leave(leave.member, leave.departure));
    }
}

impl Handler<MemberAck> for Relay {
    type Result = ResponseFuture<Result<Acknowledged, Refusal>>;

    fn handle(&mut self, ack: MemberAck, _: &mut Context<Self>) -> Self::Result {
        let Some(served) = self.served.get(&ack.member) else { return done(Ok(Acknowledged::nothing(&ack.said))) };
        let (node, owner) = (self.node().clone(), served.owner.node);
        let message = Frame::MemberAck(RemoteAck::new(&ack)).into_bytes();
        Box::pin(async move {
            let answer = node.messages().ask(owner, message, ANSWER_MAX).await?;
            Ok(decode_acknowledged(answer, &ack.said).unwrap_or_else(|| Acknowledged::nothing(&ack.said)))
        })
    }
}

impl Handler<AckElsewhere> for Relay {
    type Result = ResponseFuture<Result<Acknowledged, Refusal>>;

    fn handle(&mut self, ack: AckElsewhere, _: &mut Context<Self>) -> Self::Result {
        let node = self.node().clone();
        let others = node.state().others_up();
        if issuing_node(&ack.consumer_id).is_some_and(|issuing_node| node.state().is_down(issuing_node)) {
            // The stream ended with its node, so the event is delivered again: "acknowledged" would be wrong.
            return done(Err(Refusal::Unavailable("the node of that stream is gone".to_owned())));
        }
        let asked = match issuing_node(&ack.consumer_id).filter(|issuing_node| others.contains(issuing_node)) {
            Some(issuing_node) => vec![issuing_node],
            None => others,
        };
        let AckElsewhere { consumer_id, said, principal } = ack;
        let message = Frame::Ack(Ack::new(consumer_id, principal, &said)).into_bytes();
        Box::pin(async move {
            let answers =
                join_all(asked.into_iter().map(|to| node.messages().ask(to, message.clone(), ANSWER_MAX))).await;
            let mut refused = None;
            for answer in answers {
                match answer.map(|answer| decode_acknowledged(answer, &said)) {
                    Ok(Some(acknowledged)) => return Ok(acknowledged),
                    Ok(None) => {}
                    Err(refusal) => refused = Some(refusal),
                }
            }
            // A node that did not answer may have the stream.
            refused.map_or(Ok(Acknowledged::nothing(&said)), |refusal| Err(Refusal::Unavailable(refusal.to_string())))
        })
    }
}

impl Handler<PostElsewhere> for Relay {
    type Result = ();

    fn handle(&mut self, post: PostElsewhere, ctx: &mut Context<Self>) {
        self.send_to_all(Frame::Post(Post { subject: post.subject, record: post.record }), ctx);
    }
}

impl Handler<SupersedeElsewhere> for Relay {
    type Result = ();

    fn handle(&mut self, supersede: SupersedeElsewhere, ctx: &mut Context<Self>) {
        let SupersedeElsewhere { consumer_id, principal } = supersede;
        self.send_to_all(Frame::SupersedeOwn(SupersedeOwn { consumer_id, principal }), ctx);
    }
}

impl Handler<EndConsumersEverywhere> for Relay {
    type Result = MessageResult<EndConsumersEverywhere>;

    fn handle(&mut self, EndConsumersEverywhere(end): EndConsumersEverywhere, ctx: &mut Context<Self>) -> Self::Result {
        let frame = Frame::EndConsumers(ConsumerKey {
            namespace: end.namespace.clone(),
            consumer: end.consumer.clone(),
            again: end.reason == EndReason::Draining,
        });
        self.send_to_all(frame, ctx);
        must_tell(&self.registry, end);
        MessageResult(())
    }
}

impl Handler<ListMembersAnywhere> for Relay {
    type Result = ResponseFuture<Result<Vec<MemberState>, u64>>;

    fn handle(&mut self, ListMembersAnywhere(query): ListMembersAnywhere, _: &mut Context<Self>) -> Self::Result {
        let node = self.node().clone();
        let head = node.state().namespace(&query.namespace);
        let owner =
            head.and_then(|head| node.state().consumer(&head, &query.consumer)).and_then(|consumer| consumer.owner);
        let registry = self.registry.clone();
        match owner.filter(|owner| owner.node != node.id()) {
            None => Box::pin(async move { Ok(registry.send(query).await.unwrap_or_default()) }),
            Some(owner) => Box::pin(async move {
                let frame = Frame::ListMembers(ConsumerKey {
                    namespace: query.namespace,
                    consumer: Some(query.consumer),
                    again: false,
                });
                let answer = node.messages().ask(owner.node, frame.into_bytes(), ANSWER_MAX).await;
                answer.map(frame::decode_members).map_err(|_| owner.node)
            }),
        }
    }
}
