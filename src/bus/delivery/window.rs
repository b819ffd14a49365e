//! The window of deliveries: which member has which events, how often an event was delivered, and what happens when no
//! member acknowledges. A pure state machine.
//!
//! One window serves a manual-ack subscription with its single member, or a durable consumer or group with many
//! members.
//!
//! Invariants: a member has at most as many events in flight as its policy says, in events and in bytes. At most one
//! copy of an event waits to be read by the client of a member. A delivery counts when the connection of the client has
//! taken the event. An event on its last delivery is alone with its member, so that no other is given up with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use rollbook_core::consumer::{Attempts, Range};

use super::order::OrderBy;
use super::policy::DeliveryPolicy;
use crate::bus::read::redelivery::Reason;
use crate::bus::read::stored_event::StoredEvent;

mod acknowledge;
pub mod given;
mod keys;
mod member;
mod progress;

use given::Given;
use keys::Keys;
use member::{InFlight, MemberWindow, PendingEvent, Stage};

/// Number of a member. Numbers are unique in the cluster, so a late message about one member never reaches another.
pub type Member = u64;

/// Most events above the ack floor that the window remembers. The bound decides how far fast members may run ahead of
/// the slowest one.
pub const WINDOW_EVENTS_MAX: usize = 16_384;
/// Most events that one member gets in one step while others wait for some.
const SHARE_MAX: usize = 256;
/// Most events that are read ahead of the members that have many at a time.
const AHEAD_MAX: usize = 512;

/// How a member left, which decides whether its last deliveries count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The client closed its stream, or another connection took its place. The delivery of the event counts that the client
    /// was working on: the oldest.
    Gone,
    /// The bus ended the stream, or lost the link to its node. The client may have had no chance to acknowledge, so the
    /// last deliveries do not count.
    Returned,
}

/// Why an event becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenUp {
    /// It had its last delivery.
    Count,
    /// A client has rejected it, for this reason.
    Rejected(String),
}

/// What the caller of the window must do next. The window itself does no I/O.
#[derive(Debug)]
pub enum Step {
    /// Make the deliveries of the events at these positions to the member durable, then call [`Window::recorded`].
    Record(Member, Vec<u64>),
    /// Write the events to the member, then report the result with [`Window::answered`].
    Send(Member, Vec<Given>),
    /// Store the event as a dead letter after this many deliveries, then call [`Window::dead_letter_done`]. The member
    /// had the event last, or would have had it next.
    DeadLetter(Member, Arc<StoredEvent>, u32, GivenUp),
}

/// The deliveries of one consumer or subscription.
#[derive(Debug, Default)]
pub struct Window {
    /// The members, in the order of their numbers, which is the order of service.
    windows: BTreeMap<Member, MemberWindow>,
    /// The member that got events last. The search for a member with room begins behind it, so that all members get work.
    last_served: Member,
    /// Whether deliveries that may be repeated are recorded before they begin, so that a crash does not reset their
    /// count.
    records_deliveries: bool,
    /// Whether nothing is delivered while the window does not know which events a departed member took. A consumer with
    /// one member at a time keeps the order of events by this.
    in_order: bool,
    /// Events that this window has not sent yet, in order.
    unsent: VecDeque<PendingEvent>,
    /// Events to be delivered again, by position: the oldest is delivered first.
    redeliveries: BTreeMap<u64, PendingEvent>,
    /// Events to be delivered again at a time, by position.
    delayed: BTreeMap<u64, (Instant, PendingEvent)>,
    /// Events that are being stored as dead letters, with their deliveries and keys. The ack floor must not pass them before
    /// they are stored.
    dead_lettering: BTreeMap<u64, (u32, Option<u64>)>,
    /// Positions above the ack floor that are acknowledged or dead letters, while an event below them is not.
    done: BTreeSet<u64>,
    /// What an earlier start of the consumer was done with. Events that are offered later are compared with these
    /// ranges.
    done_earlier: Vec<Range>,
    /// Deliveries by an earlier start, of events that were not offered to this window yet.
    counts_earlier: BTreeMap<u64, u32>,
    /// Events that wait for others of their key.
    keys: Keys,
    /// How many events were sent again since [`Window::take_sent_again`].
    sent_again: u64,
    /// No wait ends before this; `None` while none is running.
    wake_at: Option<Instant>,
}

impl Window {
    /// A window for one member at a time. Its successor goes on with the events that were in flight.
    #[must_use]
    pub fn in_order() -> Self {
        Self { in_order: true, ..Self::default() }
    }

    /// The same window, for events that are kept in order by a key: of all events of one key, one is on its way at a time.
    #[must_use]
    pub fn ordered_by(self, by: Option<OrderBy>) -> Self {
        Self { keys: Keys::new(by), ..self }
    }

    /// Continues from the replicated state: the ranges that are done, and the deliveries of all other events.
    pub fn resume(&mut self, done: Vec<Range>, attempts: &[Attempts]) {
        self.done_earlier = done;
        self.counts_earlier = attempts.iter().map(|of| (of.sequence, of.count)).collect();
    }

    /// Sets whether deliveries are recorded before they begin: every delivery but the first of an event, and the first
    /// ones to a member that has not acknowledged yet.
    pub const fn set_records(&mut self, records_deliveries: bool) {
        self.records_deliveries = records_deliveries;
    }

    /// How many events were sent again since the last call.
    pub const fn take_sent_again(&mut self) -> u64 {
        std::mem::replace(&mut self.sent_again, 0)
    }

    /// Adds a member. A member of the same number is replaced, and its events are delivered again.
    pub fn join(&mut self, member: Member, policy: DeliveryPolicy) {
        if let Some(mut window) = self.windows.remove(&member) {
            self.release_all(&mut window, Departure::Returned);
        }
        self.windows.insert(member, MemberWindow::new(policy));
    }

    fn release_all(&mut self, window: &mut MemberWindow, departure: Departure) {
        let sequences: Vec<u64> = window.flights().keys().copied().collect();
        for flight in sequences.into_iter().filter_map(|sequence| window.take(sequence)) {
            self.release(flight, departure, Reason::Disconnected);
        }
    }

    /// A member gets nothing any more, and keeps what it has until it acknowledges, is late, or leaves.
    pub fn finish(&mut self, member: Member) {
        if let Some(window) = self.windows.get_mut(&member) {
            window.finish();
        }
    }

    /// Removes a member. Its events go to other members. When the client has gone, the delivery of the oldest event counts,
    /// which the client was working on, and that event becomes a dead letter when this was its last one.
    #[must_use]
    pub fn leave(&mut self, member: Member, departure: Departure) -> Vec<Step> {
        let Some(window) = self.windows.get_mut(&member) else { return Vec::new() };
        let is_handed = |flight: &InFlight| matches!(flight.stage, Stage::Handed(_));
        if departure == Departure::Gone && window.flights().values().any(is_handed) {
            window.begin_leaving();
            return Vec::new();
        }
        let Some(mut window) = self.windows.remove(&member) else { return Vec::new() };
        let worked_on = (departure == Departure::Gone).then(|| window.oldest_delivered()).flatten();
        if let Some(flight) = worked_on.and_then(|sequence| window.take(sequence)) {
            if window.policy().gives_up(flight.pending.deliveries) {
                let step = self.begin_dead_letter(member, flight.pending, GivenUp::Count);
                self.release_all(&mut window, Departure::Returned);
                return vec![step];
            }
            self.release(flight, departure, Reason::Disconnected);
        }
        self.release_all(&mut window, Departure::Returned);
        Vec::new()
    }

    /// Puts an event back into the queue. A `Returned` delivery is taken out of the count; another one that was begun has
    /// failed for this reason.
    fn release(&mut self, flight: InFlight, departure: Departure, reason: Reason) {
        let InFlight { mut pending, stage, .. } = flight;
        match (stage, departure) {
            (Stage::Delivered(_), Departure::Returned) => pending.deliveries = pending.deliveries.saturating_sub(1),
            (Stage::Delivered(_), Departure::Gone) => pending.reason = Some(reason),
            _ => {}
        }
        self.redeliveries.insert(pending.item.sequence(), pending);
    }

    /// Moves an event to the dead letters that are being stored.
    fn begin_dead_letter(&mut self, member: Member, pending: PendingEvent, why: GivenUp) -> Step {
        self.dead_lettering.insert(pending.item.sequence(), (pending.deliveries, pending.key));
        Step::DeadLetter(member, pending.item, pending.deliveries, why)
    }

    /// Adds events, in order, which members will get.
    pub fn offer(&mut self, items: Vec<Arc<StoredEvent>>) {
        for item in items {
            let sequence = item.sequence();
            let deliveries = self.counts_earlier.remove(&sequence).unwrap_or_default();
            if self.done_earlier.iter().any(|range| (range.first..=range.last).contains(&sequence)) {
                self.done.insert(sequence);
            } else {
                let key = self.keys.of(&item);
                self.unsent.extend(self.keys.begin(PendingEvent::new(item, deliveries, key)));
            }
        }
    }

    /// Whether the caller should fetch more events: a member has room and nothing waits for it, or members that have many
    /// at a time will soon; and the window has room.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        let beyond = self.done.len().saturating_add(self.redeliveries.len());
        let beyond = beyond.saturating_add(self.delayed.len()).saturating_add(self.dead_lettering.len());
        let beyond = beyond.saturating_add(self.keys.len());
        if beyond >= WINDOW_EVENTS_MAX || self.keys.is_full() || self.windows.is_empty() {
            return false;
        }
        let many = |window: &MemberWindow| window.policy().room().saturating_sub(1);
        let ahead = self.windows.values().map(many).max().unwrap_or_default().min(AHEAD_MAX);
        if self.unsent.len() < ahead {
            return true;
        }
        let waits = !self.unsent.is_empty() || !self.redeliveries.is_empty();
        !waits && self.windows.values().any(|window| window.room() > 0)
    }

    /// Gives events to members that have room, in turns that begin behind the member that was served last.
    #[must_use]
    pub fn assign(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        self.wake_delayed(now);
        if self.in_order && self.windows.values().any(MemberWindow::is_leaving) {
            return steps;
        }
        loop {
            let waiting = self.redeliveries.len().saturating_add(self.unsent.len());
            let members = self.with_room();
            if waiting == 0 || members.is_empty() {
                return steps;
            }
            let share = waiting.div_ceil(members.len()).min(SHARE_MAX);
            let given: usize = members.into_iter().map(|member| self.give(member, share, now, &mut steps)).sum();
            if given == 0 {
                return steps;
            }
        }
    }

    /// The members that can take events, in the order of service.
    fn with_room(&self) -> Vec<Member> {
        let behind = (Bound::Excluded(self.last_served), Bound::Unbounded);
        let around = self.windows.range(behind).chain(self.windows.range(..=self.last_served));
        around.filter(|(_, window)| window.room() > 0).map(|(member, _)| *member).collect()
    }

    /// The next event for a member, oldest first.
    fn next_for(&mut self, member: Member) -> Option<PendingEvent> {
        let window = self.windows.get(&member).filter(|window| window.room() > 0)?;
        let again = self.redeliveries.iter().find(|(_, pending)| window.may_take(pending)).map(|(at, _)| *at);
        if let Some(sequence) = again {
            self.sent_again = self.sent_again.saturating_add(1);
            return self.redeliveries.remove(&sequence);
        }
        // An event that waits to be alone holds those behind it back, or there might never be a moment for it.
        let blocked = self.redeliveries.values().any(|pending| window.policy().is_alone(pending.deliveries));
        let next = self.unsent.front().filter(|pending| !blocked && window.may_take(pending));
        next.is_some().then(|| self.unsent.pop_front())?
    }

    /// Begins the deliveries of at most so many events to a member. An event that has had its last delivery is given up
    /// instead, and does not use up the member's turn. Returns how many events have left the queues.
    fn give(&mut self, member: Member, most: usize, now: Instant, steps: &mut Vec<Step>) -> usize {
        let (mut record, mut send, mut given_up) = (Vec::new(), Vec::new(), 0_usize);
        while record.len().saturating_add(send.len()) < most {
            let Some(pending) = self.next_for(member) else { break };
            let Some(window) = self.windows.get_mut(&member) else { break };
            if window.policy().gives_up(pending.deliveries) {
                given_up = given_up.saturating_add(1);
                steps.push(self.begin_dead_letter(member, pending, GivenUp::Count));
                continue;
            }
            if self.records_deliveries && (pending.deliveries > 0 || !window.has_acked()) {
                record.push(pending.item.sequence());
                // Only the oldest counts when a client goes at its first events.
                let recorded = pending.deliveries > 0 || window.flights().is_empty();
                window.begin(pending, Stage::Recording, recorded);
            } else {
                send.push(pending.given(now));
                let until = window.until(pending.deliveries, now);
                window.begin(pending, Stage::Handed(until), false);
                self.wakes_by(until);
            }
        }
        let given = record.len().saturating_add(send.len());
        if given > 0 {
            self.last_served = member;
        }
        steps.extend((!record.is_empty()).then_some(Step::Record(member, record)));
        steps.extend((!send.is_empty()).then_some(Step::Send(member, send)));
        given.saturating_add(given_up)
    }

    /// The deliveries of a [`Step::Record`] are durable. Returns the events to write to the member: those that it still
    /// waits for.
    #[must_use]
    pub fn recorded(&mut self, member: Member, sequences: &[u64], now: Instant) -> Vec<Given> {
        let Some(window) = self.windows.get_mut(&member) else { return Vec::new() };
        let mut items = Vec::new();
        for sequence in sequences {
            let waits = |flight: &&mut InFlight| flight.stage == Stage::Recording;
            let Some(flight) = window.flight_mut(*sequence).filter(waits) else { continue };
            let (given, deliveries) = (flight.pending.given(now), flight.pending.deliveries);
            let until = window.until(deliveries, now);
            window.hand(*sequence, until);
            earliest(&mut self.wake_at, until);
            items.push(given);
        }
        items
    }

    /// A wait ends at this time.
    fn wakes_by(&mut self, until: Instant) {
        earliest(&mut self.wake_at, until);
    }

    /// Reports what became of events that were written to a member: its client has `taken` them, or nothing was written.
    /// Returns steps when the member has left meanwhile and these were the last deliveries.
    #[must_use]
    pub fn answered(&mut self, member: Member, sequences: &[u64], taken: bool, now: Instant) -> Vec<Step> {
        let Some(window) = self.windows.get_mut(&member) else { return Vec::new() };
        let mut back = Vec::new();
        for sequence in sequences {
            window.read(*sequence);
            let handed = |flight: &&mut InFlight| matches!(flight.stage, Stage::Handed(_));
            let Some(flight) = window.flight_mut(*sequence).filter(handed) else { continue };
            if taken {
                let before = flight.pending.deliveries;
                flight.pending.deliveries = before.saturating_add(1);
                flight.pending.first = flight.pending.first.or(Some(now));
                let until = window.until(before, now);
                if let Some(flight) = window.flight_mut(*sequence) {
                    flight.stage = Stage::Delivered(until);
                }
                earliest(&mut self.wake_at, until);
            } else {
                back.extend(window.take(*sequence));
            }
        }
        let left = window.is_leaving() && window.has_read_all();
        back.into_iter().for_each(|flight| self.release(flight, Departure::Gone, Reason::Disconnected));
        if left { self.leave(member, Departure::Gone) } else { Vec::new() }
    }

    /// Events whose time has come are delivered again.
    fn wake_delayed(&mut self, now: Instant) {
        if self.delayed.is_empty() {
            return;
        }
        let due: Vec<u64> = self.delayed.iter().filter(|(_, (at, _))| *at <= now).map(|(at, _)| *at).collect();
        for sequence in due {
            if let Some((_, pending)) = self.delayed.remove(&sequence) {
                self.redeliveries.insert(sequence, pending);
            }
        }
    }

    /// How many events each member has, and the oldest of them by position.
    pub fn in_flight(&self) -> impl Iterator<Item = (Member, usize, Option<u64>)> {
        let of = |(member, window): (&Member, &MemberWindow)| {
            (*member, window.flights().len(), window.flights().keys().next().copied())
        };
        self.windows.iter().map(of)
    }

    /// When to call [`Window::expire`] next, at the latest; `None` while no wait is running.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.wake_at
    }

    /// The first end of a wait.
    fn first_end(&self) -> Option<Instant> {
        let delayed = self.delayed.values().map(|(at, _)| *at).min();
        self.windows.values().filter_map(MemberWindow::deadline).chain(delayed).min()
    }

    /// Handles the events whose wait has ended: another member with room gets the event, else the same member again, or
    /// the event becomes a dead letter.
    #[must_use]
    pub fn expire(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        let late: Vec<(Member, Vec<u64>)> =
            self.windows.iter().map(|(member, window)| (*member, window.late(now))).collect();
        for (member, sequences) in late {
            let others = self.windows.iter().filter(|(id, _)| **id != member);
            let mut free: usize = others.map(|(_, window)| window.room()).sum();
            for sequence in sequences {
                steps.extend(self.expire_one(member, sequence, &mut free, now));
                // Another member is asked first.
                self.last_served = member;
            }
        }
        steps.extend(self.assign(now));
        self.wake_at = self.first_end();
        steps
    }

    fn expire_one(&mut self, member: Member, sequence: u64, free: &mut usize, now: Instant) -> Option<Step> {
        let window = self.windows.get_mut(&member)?;
        if window.is_unread(sequence) && *free == 0 {
            // Its client has a copy to read: it is waited for, and nothing is counted.
            let deliveries = window.flights().get(&sequence)?.pending.deliveries;
            let until = window.until(deliveries, now);
            window.hand(sequence, until);
            return None;
        }
        let policy = window.policy().clone();
        let flight = window.take(sequence)?;
        if matches!(flight.stage, Stage::Delivered(_)) && policy.gives_up(flight.pending.deliveries) {
            return Some(self.begin_dead_letter(member, flight.pending, GivenUp::Count));
        }
        *free = free.saturating_sub(1);
        self.release(flight, Departure::Gone, Reason::Timeout);
        None
    }
}

fn earliest(first: &mut Option<Instant>, other: Instant) {
    *first = Some(first.map_or(other, |first| first.min(other)));
}

#[cfg(test)]
mod tests;
