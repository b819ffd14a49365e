//! The registry: the actor that supervises the durable consumers of this node and knows their members.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use actix::prelude::{Actor, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture};
use rollbook_core::error::Refusal;

use super::consumer::Consumer;
use crate::base::actors::{Belongs, Kind, must_tell};
use crate::base::clock;
use crate::base::supervisor::{Health, Supervised};
use crate::bus::delivery::acknowledgement::Acknowledged;
use crate::bus::delivery::messages::{
    EndReason, Finish, Join, Leave, MemberAck, MemberState, Members, StreamCommand, stopping,
};
use crate::bus::delivery::window::{Departure, Member};
use crate::bus::handle::Bus;

/// How often the consumers are checked.
const LOOK: Duration = Duration::from_millis(250);

/// Ends all streams of this node and accepts no new members. The clients are told to connect to another node.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Drain;

/// Ends all streams of this node now. New ones may be opened.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct EndStreams;

/// Asks for the members of a durable consumer.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Vec<MemberState>")]
pub struct ListMembers {
    /// Namespace of the consumer.
    pub namespace: String,
    /// Name of the consumer.
    pub consumer: String,
}

/// A durable consumer was deleted or reset: the streams of its members must end.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct EndConsumers {
    /// Namespace of the consumer.
    pub namespace: String,
    /// Name of the consumer; `None` for all consumers of the namespace.
    pub consumer: Option<String>,
    /// Why the streams end, which decides whether clients come back.
    pub reason: EndReason,
}

/// A consumer and its members.
struct Child {
    /// The actor, which is started again when it panics.
    consumer: Supervised<Consumer>,
    /// The generation of the cursor that the actor serves: after a reset the actor must end.
    generation: u64,
    /// The messages by which the members joined. A restarted actor gets them again.
    joins: BTreeMap<Member, Join>,
}

impl Child {
    /// Removes members whose stream actor has ended without a `Leave`.
    fn remove_disconnected(&mut self, key: &Key) {
        let disconnected: Vec<Member> =
            self.joins.iter().filter(|(_, join)| !join.commands.connected()).map(|(member, _)| *member).collect();
        for member in disconnected {
            self.joins.remove(&member);
            let (namespace, consumer) = key.clone();
            // Nobody knows whether its client had a chance to acknowledge.
            let departure = Departure::Returned;
            must_tell(self.consumer.child(), Leave { namespace, consumer, member, departure });
        }
    }

    /// Starts the actor again if it died. Returns why the child must end, if it must.
    fn check(&mut self, bus: &Bus, key: &Key) -> Option<EndReason> {
        let (namespace, consumer) = (&*key.0, &*key.1);
        if bus.consumer(namespace, consumer).is_none() {
            // Whoever deleted it says so too; that message may be lost on its way from another node.
            return Some(EndReason::Deleted);
        }
        if !bus.serves(namespace, consumer, self.generation) {
            tracing::warn!(
                namespace,
                consumer,
                "another node may serve this consumer now, or it was reset; its members must come again"
            );
            return Some(EndReason::Draining);
        }
        self.remove_disconnected(key);
        if self.joins.is_empty() {
            return Some(EndReason::Draining);
        }
        match self.consumer.check(clock::now()) {
            Health::Alive | Health::Waiting => None,
            Health::Restarted => {
                bus.metrics().restarts.inc();
                tracing::warn!(namespace, consumer, "a consumer was started again");
                self.joins.values().for_each(|join| must_tell(self.consumer.child(), join.clone()));
                None
            }
            Health::GivenUp => {
                tracing::error!(namespace, consumer, "a consumer died too often; its members must come again");
                Some(EndReason::Draining)
            }
        }
    }

    /// Tells all members why their streams end. The actor stops because its handle is dropped.
    fn stop(self, reason: EndReason) {
        self.joins.values().for_each(|join| must_tell(&join.commands, StreamCommand::Close(reason)));
    }
}

/// Namespace and name of a consumer.
type Key = (String, String);

/// The actor of the registry.
#[derive(Default)]
pub struct Registry {
    /// `None` once the node drains: no member is accepted any more.
    bus: Option<Bus>,
    /// The consumers that have members here.
    children: HashMap<Key, Child>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("children", &self.children.len()).finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry for this bus.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        Self { bus: Some(bus.clone()), children: HashMap::new() }
    }

    /// Ends the streams of all members and all other streams of this node.
    fn end_streams(&mut self) {
        self.children.drain().for_each(|(_, child)| child.stop(EndReason::Draining));
        if let Some(bus) = &self.bus {
            bus.all_live().iter().for_each(|live| must_tell(&live.commands, StreamCommand::Close(EndReason::Draining)));
        }
    }

    /// Checks all consumers, and ends those that must end.
    fn check_children(&mut self) {
        let Some(bus) = &self.bus else { return };
        let over = |(key, child): (&Key, &mut Child)| child.check(bus, key).map(|reason| (key.clone(), reason));
        let over: Vec<(Key, EndReason)> = self.children.iter_mut().filter_map(over).collect();
        for (key, reason) in over {
            if let Some(child) = self.children.remove(&key) {
                child.stop(reason);
            }
        }
    }
}

impl Belongs for Registry {
    const KIND: Kind = Kind::Registry;
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(4096);
        ctx.run_interval(LOOK, |act, _| act.check_children());
    }
}

impl Handler<Join> for Registry {
    type Result = ResponseFuture<Result<(), Refusal>>;

    fn handle(&mut self, join: Join, _: &mut Context<Self>) -> Self::Result {
        let Some(bus) = self.bus.clone() else {
            return Box::pin(std::future::ready(Err(stopping(()))));
        };
        let key = (join.spec.pattern.namespace().to_owned(), join.spec.name.clone());
        let child = self.children.entry(key.clone()).or_insert_with(|| {
            let generation = bus.consumer(&key.0, &key.1).map_or(0, |row| row.generation);
            let (spec, factory_bus) = (join.spec.clone(), bus.clone());
            let factory = move || Consumer::new(&factory_bus, spec.clone());
            let consumer = Supervised::start(&bus.metrics().actors, clock::now(), factory);
            Child { consumer, generation, joins: BTreeMap::new() }
        });
        child.joins.insert(join.member, join.clone());
        let answer = child.consumer.child().send(join);
        Box::pin(async move {
            answer.await.map_err(|_| Refusal::Unavailable("the consumer is being restarted".to_owned()))?
        })
    }
}

impl Handler<Leave> for Registry {
    type Result = ();

    fn handle(&mut self, leave: Leave, _: &mut Context<Self>) {
        let key = (leave.namespace.clone(), leave.consumer.clone());
        let Some(child) = self.children.get_mut(&key) else { return };
        child.joins.remove(&leave.member);
        must_tell(child.consumer.child(), leave);
        if child.joins.is_empty() {
            // The next member starts from the durable floor.
            self.children.remove(&key);
        }
    }
}

impl Handler<Finish> for Registry {
    type Result = ();

    fn handle(&mut self, finish: Finish, _: &mut Context<Self>) {
        if let Some(child) = self.children.get(&(finish.namespace.clone(), finish.consumer.clone())) {
            must_tell(child.consumer.child(), finish);
        }
    }
}

impl Handler<MemberAck> for Registry {
    type Result = ResponseFuture<Result<Acknowledged, Refusal>>;

    fn handle(&mut self, ack: MemberAck, _: &mut Context<Self>) -> Self::Result {
        let Some(child) = self.children.get(&(ack.namespace.clone(), ack.consumer.clone())) else {
            return Box::pin(std::future::ready(Ok(Acknowledged::nothing(&ack.said))));
        };
        let answer = child.consumer.child().send(ack);
        Box::pin(async move {
            answer.await.map_err(|_| Refusal::Unavailable("the consumer is being restarted".to_owned()))?
        })
    }
}

impl Handler<ListMembers> for Registry {
    type Result = ResponseFuture<Vec<MemberState>>;

    fn handle(&mut self, query: ListMembers, _: &mut Context<Self>) -> Self::Result {
        let Some(child) = self.children.get(&(query.namespace, query.consumer)) else {
            return Box::pin(std::future::ready(Vec::new()));
        };
        let answer = child.consumer.child().send(Members);
        Box::pin(async move { answer.await.unwrap_or_default() })
    }
}

impl Handler<EndConsumers> for Registry {
    type Result = ();

    fn handle(&mut self, end: EndConsumers, _: &mut Context<Self>) {
        let gone = |key: &Key| key.0 == end.namespace && end.consumer.as_ref().is_none_or(|name| *name == key.1);
        let keys: Vec<Key> = self.children.keys().filter(|key| gone(key)).cloned().collect();
        for key in keys {
            if let Some(child) = self.children.remove(&key) {
                child.stop(end.reason);
            }
        }
    }
}

impl Handler<Drain> for Registry {
    type Result = MessageResult<Drain>;

    fn handle(&mut self, _: Drain, _: &mut Context<Self>) -> Self::Result {
        self.end_streams();
        self.bus = None;
        MessageResult(())
    }
}

impl Handler<EndStreams> for Registry {
    type Result = MessageResult<EndStreams>;

    fn handle(&mut self, _: EndStreams, _: &mut Context<Self>) -> Self::Result {
        self.end_streams();
        MessageResult(())
    }
}
