//! The replicated cursor of a durable consumer, for the node that serves it.

use std::time::Duration;

use rollbook_core::command::{Command, ConsumerAdvance, Done};
use rollbook_core::consumer::{Attempts, Consumer, ConsumerStart, Range};
use rollbook_core::error::Refusal;
use rollbook_core::level::FeatureLevel;
use rollbook_core::node::Owner;

use crate::bus::delivery::messages::{ConsumerTerms, stopping};
use crate::bus::handle::Bus;

/// How long this node may take to see what the cluster has answered.
const SEEN_MAX: Duration = Duration::from_secs(5);

/// One start of a consumer: the cluster hears it until the next one.
#[derive(Debug, Clone)]
pub struct Cursor {
    bus: Bus,
    namespace: String,
    name: String,
    owner: Owner,
    /// Which life of the cursor this is: a reset begins the next.
    generation: u64,
    /// Which start this is, 0 below feature level `COUNTED`.
    epoch: u64,
}

/// What is new of a cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CursorUpdate {
    /// Everything up to here is done with.
    pub floor: u64,
    /// What is done with behind that.
    pub done: Vec<Range>,
    /// Delivery counts that changed; 0 for those that are taken back.
    pub attempts: Vec<Attempts>,
}

impl Cursor {
    /// Begins to serve a consumer: from now on no start before this one moves its cursor. The cursor, and the consumer
    /// as it is.
    ///
    /// # Errors
    /// The consumer is gone, another node serves it, or the cluster does not answer.
    pub async fn start(bus: &Bus, terms: &ConsumerTerms) -> Result<(Self, Consumer), Refusal> {
        let namespace = terms.pattern.namespace().to_owned();
        let owner = bus.node().owner();
        let cursor = |epoch, generation| {
            let (bus, namespace, name) = (bus.clone(), namespace.clone(), terms.name.clone());
            Self { bus, namespace, name, owner, generation, epoch }
        };
        if !is_counted(bus) {
            let known = cursor(0, 0).row(Consumer::clone).unwrap_or_default();
            return Ok((cursor(known.epoch, known.generation), known));
        }
        let start = ConsumerStart { namespace: namespace.clone(), name: terms.name.clone(), owner };
        let Done::Consumer(known) = bus.proposer().command(Command::ConsumerStart(start)).await? else {
            return Err(Refusal::Malformed("the answer is not that of a start".to_owned()));
        };
        let started = cursor(known.epoch, known.generation);
        let behind = |_| Refusal::Unavailable("this node is behind".to_owned());
        tokio::time::timeout(SEEN_MAX, started.seen()).await.map_err(behind)??;
        Ok((started, known))
    }

    /// Waits until this node has seen the start.
    async fn seen(&self) -> Result<(), Refusal> {
        let mut applied = self.bus.node().state().applied();
        while !self.row(|row| row.epoch >= self.epoch).unwrap_or(false) {
            applied.changed().await.map_err(stopping)?;
        }
        Ok(())
    }

    /// A name for the delivery of the event at this position under this cursor, the same for all starts.
    #[must_use]
    pub fn unique(&self, sequence: u64) -> String {
        format!("{}/{}/{sequence}", self.name, self.generation)
    }

    fn row<T>(&self, look: impl FnOnce(&Consumer) -> T) -> Option<T> {
        self.bus.node().state().with_machine(|machine| {
            let head = machine.head(&self.namespace)?;
            machine.consumer(head.id, &self.name).map(look)
        })
    }

    /// Whether this is still the start that the cluster hears, as far as this node has seen.
    #[must_use]
    pub fn holds(&self) -> bool {
        let same = |row: &Consumer| {
            row.epoch == self.epoch
                && row.generation == self.generation
                && row.owner.is_none_or(|owner| owner == self.owner)
        };
        self.row(same).unwrap_or(false)
    }

    /// Whether the operator has stopped delivery.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.row(|row| row.paused).unwrap_or(false)
    }

    /// Makes durable what is new. Below feature level `COUNTED` that is the floor alone.
    ///
    /// # Errors
    /// Any [`Refusal`], also when another start has taken over.
    pub async fn advance(&self, news: CursorUpdate) -> Result<(), Refusal> {
        let plain = news.done.is_empty() && news.attempts.is_empty();
        let CursorUpdate { floor, done, attempts } =
            if plain || self.counts() { news } else { CursorUpdate { floor: news.floor, ..CursorUpdate::default() } };
        let command = Command::ConsumerAdvance(ConsumerAdvance {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            ack_floor: floor,
            owner: Some(self.owner),
            generation: self.generation,
            epoch: self.epoch,
            done,
            attempts,
        });
        self.bus.proposer().command(command).await.map(drop)
    }

    /// Whether the cluster remembers more than a floor.
    #[must_use]
    pub fn counts(&self) -> bool {
        is_counted(&self.bus)
    }
}

fn is_counted(bus: &Bus) -> bool {
    bus.node().state().with_machine(|machine| machine.level() >= FeatureLevel::COUNTED)
}
