//! Durable consumers: created and deleted, served by one node at a time, moved forward and reset.
//!
//! Invariant: the rules take progress only from the node that serves the consumer now. Owner, generation and epoch must
//! match the row.

use prost::Message as _;

use super::Machine;
use crate::command::{ConsumerAdvance, ConsumerDelete, ConsumerOpen, ConsumerSet, Done, Reply};
use crate::consumer::{Consumer, ConsumerStart};
use crate::error::Refusal;
use crate::level::FeatureLevel;
use crate::limits;
use crate::rows::{self, Family, Writes};
use crate::subjects::pattern::Pattern;
use crate::subjects::subject::has_marks;

impl Machine {
    /// Creates a consumer, or returns the existing one. A consumer whose node has ended gets the claimant as its new
    /// owner.
    pub(super) fn open_consumer(&mut self, open: ConsumerOpen, writes: &mut Writes) -> Reply {
        let namespace = self.require_head(&open.namespace)?.id;
        let mut wanted = open.consumer;
        // Only a node that is up may serve.
        let claimant = open.claimant.filter(|claimant| self.is_alive(*claimant));
        if let Some(present) = self.consumer(namespace, &wanted.name).cloned() {
            if present.subject != wanted.subject {
                return Err(Refusal::ConsumerSubject { name: wanted.name, subject: present.subject.clone() });
            }
            if present.group != wanted.group {
                return Err(Refusal::ConsumerKind(wanted.name));
            }
            let served = present.owner.is_some_and(|owner| self.is_alive(owner));
            if served || claimant.is_none() {
                return Ok(Done::Consumer(present));
            }
            let taken = Consumer { owner: claimant, ..present };
            writes.put(Family::Consumers, rows::key(namespace, &[wanted.name.as_bytes()]), taken.encode_to_vec());
            self.put_consumer(namespace, taken.clone());
            return Ok(Done::Consumer(taken));
        }
        wanted.owner = claimant;
        // Only those who serve it can say these.
        (wanted.done, wanted.attempts, wanted.epoch) = Default::default();
        let named = (1..=limits::CONSUMER_NAME_BYTES_MAX).contains(&wanted.name.len());
        let unmarked = self.level >= FeatureLevel::COUNTED || !has_marks(&wanted.subject);
        if !named || !unmarked || Pattern::parse(&wanted.subject).is_err() {
            return Err(Refusal::Malformed("consumer".into()));
        }
        let present = self.consumers.get(&namespace).map_or(0, |of| of.size());
        if present >= self.limits().consumers_per_namespace {
            return Err(Refusal::ConsumersExhausted(open.namespace));
        }
        writes.put(Family::Consumers, rows::key(namespace, &[wanted.name.as_bytes()]), wanted.encode_to_vec());
        self.put_consumer(namespace, wanted.clone());
        Ok(Done::Consumer(wanted))
    }

    /// Lets a node begin to serve a consumer, also if the node served it before. The reply is the row with a new epoch.
    pub(super) fn start_consumer(&mut self, start: ConsumerStart, writes: &mut Writes) -> Reply {
        let namespace = self.require_head(&start.namespace)?.id;
        let Some(present) = self.consumer(namespace, &start.name) else {
            return Err(Refusal::ConsumerNotFound(start.name));
        };
        let served = present.owner.is_some_and(|owner| owner != start.owner && self.is_alive(owner));
        if served || !self.is_alive(start.owner) {
            return Err(Refusal::Unavailable(alloc::format!("another node serves consumer {}", start.name)));
        }
        let mut started = present.clone();
        started.owner = Some(start.owner);
        started.epoch = started.epoch.saturating_add(1);
        writes.put(Family::Consumers, rows::key(namespace, &[start.name.as_bytes()]), started.encode_to_vec());
        self.put_consumer(namespace, started.clone());
        Ok(Done::Consumer(started))
    }

    /// Stores progress of a consumer, if owner, generation and epoch match the row.
    pub(super) fn advance_consumer(&mut self, advance: ConsumerAdvance, writes: &mut Writes) -> Reply {
        let (quiet, counted) = (self.level >= FeatureLevel::BOUNDED, self.level >= FeatureLevel::COUNTED);
        if counted && !is_bounded(&advance) {
            return Err(Refusal::Malformed("advance of a consumer".into()));
        }
        let head = self.require_head(&advance.namespace)?;
        let (namespace, last) = (head.id, head.last());
        let Some(consumer) = self.consumers.get_mut(&namespace).and_then(|of| of.get_mut(&advance.name)) else {
            return Err(Refusal::ConsumerNotFound(advance.name));
        };
        if advance.owner.is_some() && consumer.owner.is_some() && advance.owner != consumer.owner {
            return Err(Refusal::Unavailable(alloc::format!("another node serves consumer {}", advance.name)));
        }
        if advance.generation != consumer.generation {
            // Progress from before the reset would undo the reset.
            return Err(Refusal::Unavailable(alloc::format!("consumer {} was reset", advance.name)));
        }
        if counted && advance.epoch != consumer.epoch {
            return Err(Refusal::Unavailable(alloc::format!("consumer {} was started anew", advance.name)));
        }
        let floor = advance.ack_floor.min(last);
        let mut changed = floor > consumer.ack_floor;
        consumer.ack_floor = consumer.ack_floor.max(floor);
        if counted {
            changed |= consumer.record_progress(&advance.done, &advance.attempts, last);
        }
        if changed {
            writes.put(Family::Consumers, rows::key(namespace, &[advance.name.as_bytes()]), consumer.encode_to_vec());
        }
        // No caller reads the whole consumer, and this command comes with every few acknowledgements.
        Ok(if quiet { Done::Nothing } else { Done::Consumer(consumer.clone()) })
    }

    /// Deletes a consumer and its row.
    pub(super) fn delete_consumer(&mut self, delete: ConsumerDelete, writes: &mut Writes) -> Reply {
        let namespace = self.require_head(&delete.namespace)?.id;
        let of = self.consumers.get_mut(&namespace);
        if !of.is_some_and(|of| of.remove_mut(&delete.name)) {
            return Err(Refusal::ConsumerNotFound(delete.name));
        }
        if self.consumers.get(&namespace).is_some_and(|of| of.is_empty()) {
            self.consumers.remove_mut(&namespace);
        }
        writes.delete(Family::Consumers, rows::key(namespace, &[delete.name.as_bytes()]));
        Ok(Done::Nothing)
    }

    /// Resets the cursor, or pauses and resumes delivery, for the operator.
    pub(super) fn set_consumer(&mut self, set: ConsumerSet, writes: &mut Writes) -> Reply {
        let head = self.require_head(&set.namespace)?;
        let (namespace, last) = (head.id, head.last());
        let Some(consumer) = self.consumers.get_mut(&namespace).and_then(|of| of.get_mut(&set.name)) else {
            return Err(Refusal::ConsumerNotFound(set.name));
        };
        if let Some(floor) = set.ack_floor {
            consumer.ack_floor = floor.min(last);
            consumer.generation = consumer.generation.saturating_add(1);
            // Every event beyond the new floor is delivered as if for the first time.
            (consumer.done, consumer.attempts) = Default::default();
        }
        consumer.paused = set.paused.unwrap_or(consumer.paused);
        writes.put(Family::Consumers, rows::key(namespace, &[set.name.as_bytes()]), consumer.encode_to_vec());
        Ok(Done::Consumer(consumer.clone()))
    }
}

/// Whether the command holds at most as many ranges and counts as a row may hold.
fn is_bounded(advance: &ConsumerAdvance) -> bool {
    advance.done.len() <= limits::CONSUMER_RANGES_MAX && advance.attempts.len() <= limits::CONSUMER_ATTEMPTS_MAX
}
