//! A client: publishes bursts of events through a node of its choice, each event once, and remembers the answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollbook_core::command::{Done, Reply};
use rollbook_core::entry::{FLAG_CREATE, FLAG_KEYED, Wait, begin_publish, delay_publish, finish_publish};
use rollbook_core::error::Refusal;
use rollbook_core::event::Event;

use super::world::{NODES, Reachable, World};
use super::{roll, ticks};

/// Most events that a client sends without waiting for answers.
const BURST_MAX: u64 = 6;
/// A client that has no answer by then gives up: what became of its event is unknown.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client knows of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Stored there.
    Acknowledged { namespace: String, sequence: u64 },
    /// The answer says that the event was not stored and will not be.
    Refused(String),
    /// Stored or not.
    Unknown,
}

/// The answers to all events, by their ids, and which events were sent one behind the other.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) outcomes: BTreeMap<String, Outcome>,
    pub(super) bursts: Vec<Vec<String>>,
}

impl Story {
    pub(super) fn extend(&mut self, other: Self) {
        self.outcomes.extend(other.outcomes);
        self.bursts.extend(other.bursts);
    }
}

pub(super) struct Client {
    id: u64,
    world: Arc<World>,
}

impl Client {
    pub(super) fn new(id: u64, world: Arc<World>) -> Self {
        Self { id, world }
    }

    pub(super) async fn run(self) -> Story {
        let mut story = Story::default();
        let mut number = 0;
        while !self.world.clients_stopped() {
            let namespace = if self.world.dice.below(3) == 0 { "b" } else { "a" };
            let burst: Vec<String> = (0..=self.world.dice.below(BURST_MAX))
                .map(|_| {
                    number += 1;
                    format!("{}-{number}", self.id)
                })
                .collect();
            let outcomes = self.publish(namespace, &burst).await;
            story.outcomes.extend(burst.iter().cloned().zip(outcomes));
            story.bursts.push(burst);
            self.change_roll().await;
            if let Some(Reachable { node, .. }) = self.world.node(1 + self.world.dice.below(NODES)) {
                ticks::propose(&node).await;
            }
            self.delay_event().await;
            tokio::time::sleep(Duration::from_millis(self.world.dice.below(120))).await;
        }
        story
    }

    /// Something about services and nodes changes; nobody waits for it to be done.
    async fn change_roll(&self) {
        let Some(Reachable { node, .. }) = self.world.node(1 + self.world.dice.below(NODES)) else { return };
        let changed = node.proposals().command(roll::change(&self.world.dice));
        drop(tokio::time::timeout(Duration::from_millis(200), changed).await);
    }

    /// An event waits for a namespace that is made and deleted all the time; nobody waits for the answer. The leaders
    /// release the events, and all nodes must have the same of them.
    async fn delay_event(&self) {
        let Some(Reachable { node, .. }) = self.world.node(1 + self.world.dice.below(NODES)) else { return };
        let mut delayed = frame("made", &format!("{}-waits", self.id), self.world.dice.below(4) == 0).to_vec();
        delay_publish(&mut delayed, Wait::For(self.world.dice.below(3000))).unwrap();
        if let Ok(reply) = node.proposals().propose(delayed.into()) {
            drop(tokio::time::timeout(Duration::from_millis(200), reply).await);
        }
    }

    /// Sends all events of a burst to one node before it waits for the first answer.
    async fn publish(&self, namespace: &str, burst: &[String]) -> Vec<Outcome> {
        let Some(Reachable { node, killed }) = self.world.node(1 + self.world.dice.below(NODES)) else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            return vec![Outcome::Refused("no connection".to_owned()); burst.len()];
        };
        let waiting: Vec<_> = burst
            .iter()
            .map(|id| node.proposals().propose(frame(namespace, id, self.world.dice.below(4) == 0)))
            .collect();
        let mut outcomes = Vec::new();
        for proposed in waiting {
            let answer = async {
                match proposed {
                    Ok(reply) => outcome(namespace, tokio::time::timeout(PATIENCE, reply).await.ok()?.ok()?),
                    Err(refusal) => Some(Outcome::Refused(refusal.to_string())),
                }
            };
            // A process that was killed says nothing more.
            outcomes.push(killed.run_until_cancelled(answer).await.flatten().unwrap_or(Outcome::Unknown));
        }
        outcomes
    }
}

/// What an answer says of an event; nothing when it is an error that leaves it open.
fn outcome(namespace: &str, reply: Reply) -> Option<Outcome> {
    match reply {
        Ok(Done::Published { first, events: 1 }) => {
            Some(Outcome::Acknowledged { namespace: namespace.to_owned(), sequence: first })
        }
        Ok(other) => panic!("an answer of another kind: {other:?}"),
        Err(Refusal::OutcomeUnknown(_)) => None,
        Err(refusal) => Some(Outcome::Refused(refusal.to_string())),
    }
}

fn frame(namespace: &str, id: &str, keyed: bool) -> Bytes {
    let mut frame = Vec::new();
    begin_publish(&mut frame, namespace).unwrap();
    let subject = format!("{namespace}.{id}");
    let (key, flags) = if keyed { (id, FLAG_CREATE | FLAG_KEYED) } else { ("", FLAG_CREATE) };
    Event { subject: &subject, key, payload: Some(b"1"), ..Event::default() }.encode(&mut frame).unwrap();
    finish_publish(&mut frame, 0, flags, 1).unwrap();
    frame.into()
}
