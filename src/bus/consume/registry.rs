//! The registry: supervises the durable consumers of this node and knows who is in them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use actix::prelude::{Actor, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture};
use rollbook_core::error::Refusal;

use super::consumer::Consumer;
use crate::base::actors::{Belongs, Kind, must_tell};
use crate::base::clock;
use crate::base::supervisor::{Health, Supervised};
use crate::bus::delivery::messages::{
    AckResult, EndReason, Join, Leave, MemberAck, MemberState, Members, StreamCommand, stopping,
};
use crate::bus::delivery::window::{Departure, Member};
use crate::bus::handle::Bus;

/// How often the children are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// End all streams of this node, with a hint to come back elsewhere.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Drain;

/// End all streams of this node now; new ones may come.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct EndStreams;

/// Who is in a durable consumer now.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Vec<MemberState>")]
pub struct ListMembers {
    /// Namespace of the consumer.
    pub namespace: String,
    /// Name of the consumer.
    pub consumer: String,
}

/// A durable consumer was deleted or reset: its members must go.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct EndConsumers {
    /// Namespace of the consumer.
    pub namespace: String,
    /// Name of the consumer, or all of the namespace.
    pub consumer: Option<String>,
    /// Why, which says whether they may come again.
    pub reason: EndReason,
}

struct Child {
    consumer: Supervised<Consumer>,
    /// Which life of the cursor it serves: a reset begins the next.
    generation: u64,
    /// The members as they came, so that a new child gets them back.
    joins: BTreeMap<Member, Join>,
}

impl Child {
    /// Members whose stream is no more have left, also when nobody could say so.
    fn dismiss_the_dead(&mut self, key: &Key) {
        let dead: Vec<Member> =
            self.joins.iter().filter(|(_, join)| !join.commands.connected()).map(|(member, _)| *member).collect();
        for member in dead {
            self.joins.remove(&member);
            let (namespace, consumer) = key.clone();
            // Nobody knows whether its client had a chance to acknowledge.
            let departure = Departure::Returned;
            must_tell(self.consumer.child(), Leave { namespace, consumer, member, departure });
        }
    }

    /// Starts the consumer again if it died; why it must go, if it must.
    fn look(&mut self, bus: &Bus, key: &Key) -> Option<EndReason> {
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
        self.dismiss_the_dead(key);
        if self.joins.is_empty() {
            return Some(EndReason::Draining);
        }
        match self.consumer.look(clock::now()) {
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

    /// Tells all members why they must go; the consumer stops as its handle is dropped.
    fn stop(self, reason: EndReason) {
        self.joins.values().for_each(|join| must_tell(&join.commands, StreamCommand::Close(reason)));
    }
}

type Key = (String, String);

/// The actor.
#[derive(Default)]
pub struct Registry {
    bus: Option<Bus>,
    children: HashMap<Key, Child>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("children", &self.children.len()).finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry of this bus.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        Self { bus: Some(bus.clone()), children: HashMap::new() }
    }

    fn end_streams(&mut self) {
        self.children.drain().for_each(|(_, child)| child.stop(EndReason::Draining));
        if let Some(bus) = &self.bus {
            bus.all_live().iter().for_each(|live| must_tell(&live.commands, StreamCommand::Close(EndReason::Draining)));
        }
    }

    fn look(&mut self) {
        let Some(bus) = &self.bus else { return };
        let over = |(key, child): (&Key, &mut Child)| child.look(bus, key).map(|reason| (key.clone(), reason));
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
        ctx.run_interval(LOOK, |act, _| act.look());
    }
}

impl Handler<Join> for Registry {
    type Result = ResponseFuture<Result<(), Refusal>>;

    fn handle(&mut self, join: Join, _: &mut Context<Self>) -> Self::Result {
        let Some(bus) = self.bus.clone() else {
            return Box::pin(std::future::ready(Err(stopping(()))));
        };
        let key = (join.terms.pattern.namespace().to_owned(), join.terms.name.clone());
        let child = self.children.entry(key.clone()).or_insert_with(|| {
            let generation = bus.consumer(&key.0, &key.1).map_or(0, |known| known.generation);
            let (terms, factory_bus) = (join.terms.clone(), bus.clone());
            let factory = move || Consumer::new(&factory_bus, terms.clone());
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

impl Handler<MemberAck> for Registry {
    type Result = ResponseFuture<Result<AckResult, Refusal>>;

    fn handle(&mut self, ack: MemberAck, _: &mut Context<Self>) -> Self::Result {
        let Some(child) = self.children.get(&(ack.namespace.clone(), ack.consumer.clone())) else {
            return Box::pin(std::future::ready(Ok(AckResult::NotInFlight)));
        };
        let answer = child.consumer.child().send(ack);
        Box::pin(async move {
            answer.await.map_err(|_| Refusal::Unavailable("the consumer is being restarted".to_owned()))?
        })
    }
}

impl Handler<ListMembers> for Registry {
    type Result = ResponseFuture<Vec<MemberState>>;

    fn handle(&mut self, who: ListMembers, _: &mut Context<Self>) -> Self::Result {
        let Some(child) = self.children.get(&(who.namespace, who.consumer)) else {
            return Box::pin(std::future::ready(Vec::new()));
        };
        let answer = child.consumer.child().send(Members);
        Box::pin(async move { answer.await.unwrap_or_default() })
    }
}

impl Handler<EndConsumers> for Registry {
    type Result = ();

    fn handle(&mut self, forget: EndConsumers, _: &mut Context<Self>) {
        let gone = |key: &Key| key.0 == forget.namespace && forget.consumer.as_ref().is_none_or(|name| *name == key.1);
        let keys: Vec<Key> = self.children.keys().filter(|key| gone(key)).cloned().collect();
        for key in keys {
            if let Some(child) = self.children.remove(&key) {
                child.stop(forget.reason);
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
