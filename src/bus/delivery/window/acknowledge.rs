//! What clients say of the events that they were given.

use std::time::Instant;

use rollbook_core::event::EventId;

use super::member::{PendingEvent, Stage};
use super::{GivenUp, Member, Step, Window};
use crate::bus::delivery::acknowledgement::{Acknowledged, Acknowledgement, Outcome, Which};
use crate::bus::read::redelivery::Reason;

impl Window {
    /// A client says what has become of its events.
    #[must_use]
    pub fn acknowledge(&mut self, member: Member, said: &Acknowledgement, now: Instant) -> (Acknowledged, Vec<Step>) {
        let mut acknowledged = Acknowledged::default();
        let mut steps = Vec::new();
        let positions = match &said.which {
            Which::Ids(ids) => ids.iter().map(|id| (id, self.find(member, id))).collect(),
            Which::UpTo(id) => self.up_to(member, id),
        };
        for (id, position) in positions {
            match position {
                Some(sequence) => {
                    acknowledged.count = acknowledged.count.saturating_add(1);
                    steps.extend(self.conclude(member, sequence, &said.outcome, now));
                }
                None => acknowledged.not_in_flight.push(id.clone()),
            }
        }
        (acknowledged, steps)
    }

    /// The positions of all events of a member up to one of them.
    fn up_to<'i>(&self, member: Member, id: &'i String) -> Vec<(&'i String, Option<u64>)> {
        let Some(last) = self.find(member, id) else { return vec![(id, None)] };
        let own = self.windows.get(&member).into_iter().flat_map(|window| window.flights().range(..last));
        let mut positions: Vec<_> = own.map(|(sequence, _)| (id, Some(*sequence))).collect();
        positions.push((id, Some(last)));
        positions
    }

    /// The position of an event that a member has, or had until its wait ended: the event waits for another member, or
    /// another member has it.
    fn find(&self, member: Member, id: &str) -> Option<u64> {
        let known = EventId::parse(id).map(|id| id.sequence);
        if let Some(sequence) = self.windows.get(&member)?.find(known, id) {
            return Some(sequence);
        }
        let waiting = self.redeliveries.iter().chain(self.delayed.iter().map(|(at, (_, pending))| (at, pending)));
        let mut waiting = waiting.filter(|(_, pending)| pending.item.has_id(id)).map(|(sequence, _)| *sequence);
        waiting.next().or_else(|| self.windows.values().find_map(|window| window.find(known, id)))
    }

    /// Takes an event from whoever has it.
    fn take(&mut self, member: Member, sequence: u64) -> Option<PendingEvent> {
        let own = self.windows.get_mut(&member).and_then(|window| window.take(sequence));
        let found = own.or_else(|| self.windows.values_mut().find_map(|window| window.take(sequence)));
        let waiting = |window: &mut Self| {
            let delayed = |window: &mut Self| window.delayed.remove(&sequence).map(|(_, pending)| pending);
            window.redeliveries.remove(&sequence).or_else(|| delayed(window))
        };
        found.map(|flight| flight.pending).or_else(|| waiting(self))
    }

    /// Carries out what a client said of one event.
    fn conclude(&mut self, member: Member, sequence: u64, outcome: &Outcome, now: Instant) -> Option<Step> {
        let window = self.windows.get_mut(&member)?;
        match outcome {
            Outcome::Ack => {
                window.acked(sequence, now);
                let pending = self.take(member, sequence)?;
                self.concluded(sequence, pending.key);
                None
            }
            Outcome::InProgress => {
                let deliveries = window.flights().get(&sequence)?.pending.deliveries.saturating_sub(1);
                let until = window.until(deliveries, now);
                let flight = window.flight_mut(sequence)?;
                if matches!(flight.stage, Stage::Delivered(_)) {
                    flight.stage = Stage::Delivered(until);
                }
                self.wakes_by(until);
                None
            }
            Outcome::Reject(reason) => {
                let pending = self.take(member, sequence)?;
                Some(self.begin_dead_letter(member, pending, GivenUp::Rejected(reason.clone())))
            }
            Outcome::Nack(delay) => {
                let policy = window.policy().clone();
                let mut pending = self.take(member, sequence)?;
                pending.reason = Some(Reason::Nack);
                if policy.gives_up(pending.deliveries) {
                    return Some(self.begin_dead_letter(member, pending, GivenUp::Count));
                }
                let own = (!policy.backoff.is_empty()).then(|| policy.wait(pending.deliveries));
                match delay.or(own).and_then(|wait| now.checked_add(wait)) {
                    Some(at) if at > now => {
                        self.delayed.insert(sequence, (at, pending));
                        self.wakes_by(at);
                    }
                    _ => drop(self.redeliveries.insert(sequence, pending)),
                }
                None
            }
        }
    }
}
