//! What is done, and what is not: the part of the window that outlives its consumer.

use std::collections::{BTreeMap, BTreeSet};

use rollbook_core::consumer::Range;

use super::Window;

impl Window {
    /// The dead letter at this position is stored, or none will be stored. The event is done.
    pub fn dead_letter_done(&mut self, sequence: u64) {
        if let Some((_, key)) = self.dead_lettering.remove(&sequence) {
            self.concluded(sequence, key);
        }
    }

    /// The event at this position is done, and the next one of its key can be delivered.
    pub(super) fn concluded(&mut self, sequence: u64, key: Option<u64>) {
        self.done.insert(sequence);
        if let Some(next) = self.keys.done(key) {
            let at = self.unsent.partition_point(|pending| pending.item.sequence() < next.item.sequence());
            self.unsent.insert(at, next);
        }
    }

    /// Positions that are not done, in no order. Of the unsent events only the first is included, because the floor
    /// needs no more.
    fn outstanding(&self) -> impl Iterator<Item = u64> {
        let flights = self.windows.values().flat_map(|window| window.flights().keys().copied());
        let waiting = self.redeliveries.keys().chain(self.delayed.keys()).chain(self.dead_lettering.keys());
        flights
            .chain(waiting.chain(self.keys.held().keys()).copied())
            .chain(self.unsent.front().map(|pending| pending.item.sequence()))
    }

    /// Computes the ack floor: every event up to the floor is done. All events of the pattern before position
    /// `considered` must have been offered.
    pub fn floor(&mut self, considered: u64) -> u64 {
        let flights = self.windows.values().filter_map(|window| window.flights().keys().next());
        let waiting = self.redeliveries.keys().next().into_iter().chain(self.delayed.keys().next());
        let waiting = waiting.chain(self.dead_lettering.keys().next()).chain(self.keys.held().keys().next());
        let first = flights.chain(waiting).copied();
        let first = first.chain(self.unsent.front().map(|pending| pending.item.sequence())).min();
        let floor = first.unwrap_or(considered).saturating_sub(1);
        while self.done.first().is_some_and(|first| *first <= floor) {
            self.done.pop_first();
        }
        while self.counts_earlier.first_key_value().is_some_and(|(first, _)| *first <= floor) {
            self.counts_earlier.pop_first();
        }
        floor
    }

    /// The ranges that are done above the floor, in order. Two ranges are joined when no event between them is
    /// outstanding.
    #[must_use]
    pub fn done(&self) -> Vec<Range> {
        if self.done.is_empty() {
            return Vec::new();
        }
        let unsent = self.unsent.iter().map(|pending| pending.item.sequence());
        let outstanding: BTreeSet<u64> = self.outstanding().chain(unsent).collect();
        let mut ranges: Vec<Range> = Vec::new();
        for sequence in self.done.iter().copied() {
            match ranges.last_mut() {
                Some(range) if outstanding.range(range.last..sequence).next().is_none() => range.last = sequence,
                _ => ranges.push(Range { first: sequence, last: sequence }),
            }
        }
        ranges
    }

    /// How often each outstanding event was delivered; events that were never delivered are left out.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<u64, u32> {
        let delayed = self.delayed.values().map(|(_, pending)| pending);
        let waiting = self.redeliveries.values().chain(delayed).chain(&self.unsent).chain(self.keys.held().values());
        let pending = waiting.map(|pending| (pending.item.sequence(), pending.deliveries));
        let flights = self.windows.values().flat_map(|window| window.flights());
        let flights = flights.map(|(sequence, flight)| (*sequence, flight.count()));
        let letters = self.dead_lettering.iter().map(|(sequence, (count, _))| (sequence, count));
        let rest = self.counts_earlier.iter().chain(letters).map(|(sequence, count)| (*sequence, *count));
        pending.chain(flights).chain(rest).filter(|(_, count)| *count > 0).collect()
    }
}
