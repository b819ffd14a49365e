//! The registry: supervises the durable consumers of this node and knows who is in them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use actix::prelude::{Actor, AsyncContext, Context, Handler, Message, MessageResult, Recipient, ResponseFuture};
use rollbook_core::error::Refusal;

use super::clock;
use super::consumer::Consumer;
use super::handle::Bus;
use super::message::{Acknowledged, Dismiss, Join, Leave, MemberAck, MemberState, Members, Reason, Tell, stopping};
use super::supervisor::{Health, Supervised};
use super::window::Member;

/// How often the children are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// End all streams of this node, with a hint to come back elsewhere.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Drain;

/// End all streams of this node now; new ones may come.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Scatter;

/// Who is in a durable consumer now.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Vec<MemberState>")]
pub struct Who {
    /// Namespace of the consumer.
    pub namespace: String,
    /// Name of the consumer.
    pub consumer: String,
}

/// A durable consumer was deleted or reset: its members must go.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Forget {
    /// Namespace of the consumer.
    pub namespace: String,
    /// Name of the consumer, or all of the namespace.
    pub consumer: Option<String>,
    /// Why, which says whether they may come again.
    pub reason: Reason,
}

struct Child {
    consumer: Supervised<Consumer>,
    /// The members as they came, so that a new child gets them back.
    joins: BTreeMap<Member, Join>,
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
        for child in std::mem::take(&mut self.children).into_values() {
            // One whose mailbox is full notices that it cannot write to its members.
            child.consumer.child().try_send(Dismiss(Reason::Draining)).ok();
        }
        if let Some(bus) = &self.bus {
            bus.all_live().iter().for_each(|live| send_close(&live.tell));
        }
    }

    fn look(&mut self) {
        let Some(bus) = &self.bus else { return };
        let mut lost = Vec::new();
        for (key, child) in &mut self.children {
            if !serves(bus, key) {
                tracing::warn!(namespace = %key.0, consumer = %key.1, "another node may serve this consumer now; its members must come again");
                child.joins.values().for_each(|join| send_close(&join.tell));
                lost.push(key.clone());
                continue;
            }
            match child.consumer.look(clock::now()) {
                Health::Alive | Health::Waiting => {}
                Health::Restarted => {
                    bus.metrics().restarts.inc();
                    tracing::warn!(namespace = %key.0, consumer = %key.1, "a consumer was started again");
                    for join in child.joins.values() {
                        // The mailbox of a new actor has room; if not, the next look tries again.
                        child.consumer.child().try_send(join.clone()).ok();
                    }
                }
                Health::GivenUp => {
                    tracing::error!(namespace = %key.0, consumer = %key.1, "a consumer died too often; its members must come again");
                    child.joins.values().for_each(|join| send_close(&join.tell));
                    lost.push(key.clone());
                }
            }
        }
        lost.iter().for_each(|key| drop(self.children.remove(key)));
    }
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
        let child = self.children.entry(key).or_insert_with(|| {
            let (terms, factory_bus) = (join.terms.clone(), bus.clone());
            let factory = move || Consumer::new(&factory_bus, terms.clone());
            Child { consumer: Supervised::start(clock::now(), factory), joins: BTreeMap::new() }
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
        if child.joins.is_empty() {
            // Stops by itself when its last member leaves.
            child.consumer.child().try_send(leave).ok();
            self.children.remove(&key);
        } else {
            child.consumer.child().try_send(leave).ok();
        }
    }
}

impl Handler<MemberAck> for Registry {
    type Result = ResponseFuture<Result<Acknowledged, Refusal>>;

    fn handle(&mut self, ack: MemberAck, _: &mut Context<Self>) -> Self::Result {
        let Some(child) = self.children.get(&(ack.namespace.clone(), ack.consumer.clone())) else {
            return Box::pin(std::future::ready(Ok(Acknowledged::NotInFlight)));
        };
        let answer = child.consumer.child().send(ack);
        Box::pin(async move {
            answer.await.map_err(|_| Refusal::Unavailable("the consumer is being restarted".to_owned()))?
        })
    }
}

impl Handler<Who> for Registry {
    type Result = ResponseFuture<Vec<MemberState>>;

    fn handle(&mut self, who: Who, _: &mut Context<Self>) -> Self::Result {
        let Some(child) = self.children.get(&(who.namespace, who.consumer)) else {
            return Box::pin(std::future::ready(Vec::new()));
        };
        let answer = child.consumer.child().send(Members);
        Box::pin(async move { answer.await.unwrap_or_default() })
    }
}

impl Handler<Forget> for Registry {
    type Result = ();

    fn handle(&mut self, forget: Forget, _: &mut Context<Self>) {
        let gone = |key: &Key| key.0 == forget.namespace && forget.consumer.as_ref().is_none_or(|name| *name == key.1);
        let keys: Vec<Key> = self.children.keys().filter(|key| gone(key)).cloned().collect();
        for key in keys {
            if let Some(child) = self.children.remove(&key) {
                child.consumer.child().try_send(Dismiss(forget.reason)).ok();
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

impl Handler<Scatter> for Registry {
    type Result = MessageResult<Scatter>;

    fn handle(&mut self, _: Scatter, _: &mut Context<Self>) -> Self::Result {
        self.end_streams();
        MessageResult(())
    }
}

/// Whether this life of this node serves the consumer, or nobody has claimed it yet.
fn serves(bus: &Bus, key: &Key) -> bool {
    let node = bus.node();
    let consumer = node.namespace(&key.0).and_then(|head| node.consumer(&head, &key.1));
    consumer.and_then(|consumer| consumer.owner).is_none_or(|owner| owner == node.owner())
}

/// A stream that died needs no word.
fn send_close(tell: &Recipient<Tell>) {
    tell.try_send(Tell::Close(Reason::Draining)).ok();
}
