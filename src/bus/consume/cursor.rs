//! The replicated cursor of a durable consumer, for the node that serves the consumer.

use std::time::Duration;

use rollbook_core::command::{Command, ConsumerAdvance, Done};
use rollbook_core::consumer::{Attempts, Consumer, ConsumerStart, Range};
use rollbook_core::error::Refusal;
use rollbook_core::level::FeatureLevel;
use rollbook_core::node::Owner;

use crate::bus::delivery::messages::{ConsumerSpec, stopping};
use crate::bus::handle::Bus;

/// How long this node may take to apply what the cluster has answered.
const SEEN_MAX: Duration = Duration::from_secs(5);

/// One start of a consumer. The rules accept updates of this start until the next one.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// Reads the replicated row and proposes updates.
    bus: Bus,
    /// Namespace of the consumer.
    namespace: String,
    /// Name of the consumer.
    name: String,
    /// This life of this node: an update of another owner is refused.
    owner: Owner,
    /// Counts the resets of the cursor. Updates from before a reset are refused.
    generation: u64,
    /// Counts the starts of the consumer. Updates of an earlier start are refused. 0 below feature level `COUNTED`.
    epoch: u64,
}

/// The changes of a cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CursorUpdate {
    /// The ack floor: every event up to it is done.
    pub floor: u64,
    /// Ranges above the floor that are done.
    pub done: Vec<Range>,
    /// Delivery counts that changed; 0 for those that are taken back.
    pub attempts: Vec<Attempts>,
}

impl Cursor {
    /// Starts to serve a consumer: from now on no earlier start moves the cursor. Returns the cursor and the row of the
    /// consumer.
    ///
    /// # Errors
    /// The consumer is gone, another node serves it, or the cluster does not answer.
    pub async fn start(bus: &Bus, spec: &ConsumerSpec) -> Result<(Self, Consumer), Refusal> {
        let namespace = spec.pattern.namespace().to_owned();
        let owner = bus.node().owner();
        let cursor = |epoch, generation| {
            let (bus, namespace, name) = (bus.clone(), namespace.clone(), spec.name.clone());
            Self { bus, namespace, name, owner, generation, epoch }
        };
        if !is_counted(bus) {
            let row = cursor(0, 0).row(Consumer::clone).unwrap_or_default();
            return Ok((cursor(row.epoch, row.generation), row));
        }
        let start = ConsumerStart { namespace: namespace.clone(), name: spec.name.clone(), owner };
        let Done::Consumer(row) = bus.proposer().command(Command::ConsumerStart(start)).await? else {
            return Err(Refusal::Malformed("the answer is not that of a start".to_owned()));
        };
        let started = cursor(row.epoch, row.generation);
        let behind = |_| Refusal::Unavailable("this node is behind".to_owned());
        tokio::time::timeout(SEEN_MAX, started.seen()).await.map_err(behind)??;
        Ok((started, row))
    }

    /// Waits until this node has applied the start.
    async fn seen(&self) -> Result<(), Refusal> {
        let mut applied = self.bus.node().state().applied();
        while !self.row(|row| row.epoch >= self.epoch).unwrap_or(false) {
            applied.changed().await.map_err(stopping)?;
        }
        Ok(())
    }

    /// The dedupe key of a dead letter for the event at this position. All starts of one generation use the same key,
    /// so the letter is stored once.
    #[must_use]
    pub fn unique(&self, sequence: u64) -> String {
        format!("{}/{}/{sequence}", self.name, self.generation)
    }

    /// Reads the row of the consumer as this node has applied it; `None` when there is none.
    fn row<T>(&self, read: impl FnOnce(&Consumer) -> T) -> Option<T> {
        self.bus.node().state().with_machine(|machine| {
            let head = machine.head(&self.namespace)?;
            machine.consumer(head.id, &self.name).map(read)
        })
    }

    /// Whether the replicated state still accepts this start, as far as this node has applied it.
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

    /// Makes an update durable. Below feature level `COUNTED` only the floor is stored.
    ///
    /// # Errors
    /// Any [`Refusal`], also when another start has taken over.
    pub async fn advance(&self, update: CursorUpdate) -> Result<(), Refusal> {
        let plain = update.done.is_empty() && update.attempts.is_empty();
        let CursorUpdate { floor, done, attempts } = if plain || self.counts() {
            update
        } else {
            CursorUpdate { floor: update.floor, ..CursorUpdate::default() }
        };
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

    /// Whether the cluster stores more than a floor.
    #[must_use]
    pub fn counts(&self) -> bool {
        is_counted(&self.bus)
    }
}

/// Whether the cluster follows feature level `COUNTED`.
fn is_counted(bus: &Bus) -> bool {
    bus.node().state().with_machine(|machine| machine.level() >= FeatureLevel::COUNTED)
}
