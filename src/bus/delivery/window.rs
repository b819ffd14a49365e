//! Who has which event, how often it was delivered, and what happens when nobody acknowledges: a pure state machine.
//!
//! One window serves a manual-ack subscription with its single member, and a durable
//! consumer or group with many. At most one event is in flight per member, and at most one
//! copy of an event waits for the client of a member to read it. What counts as a delivery
//! is what the client's connection has taken. Time comes in as a parameter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rollbook_core::consumer::{Attempts, Range};

use crate::bus::read::stored_event::StoredEvent;

/// Number of a member in its window.
pub type Member = u64;

/// How a member wants to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long to wait for an acknowledgement; at least [`REDELIVERY_MIN`] where a client acknowledges.
    pub redelivery: Duration,
    /// How often to deliver at most; 0 means for ever.
    pub count_max: u32,
}

impl Default for Patience {
    /// What members get that say nothing.
    fn default() -> Self {
        Self { redelivery: Duration::from_secs(5), count_max: 3 }
    }
}

/// Shortest time between two deliveries of an event.
pub const REDELIVERY_MIN: Duration = Duration::from_millis(100);
/// Most events that may be beyond the floor at once; hides how slow the slowest member is.
pub const WINDOW_EVENTS_MAX: usize = 4096;
/// An end of time that never comes, for a wait that no clock can express.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How a member left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// Its client went, or another connection took its place: what the client had counts as delivered.
    Gone,
    /// The bus ended its stream, or lost the link to its node: the client may have had no chance to acknowledge, so
    /// its last delivery does not count.
    Returned,
}

/// An event that is not done with.
#[derive(Debug, Clone)]
struct Held {
    item: Arc<StoredEvent>,
    /// How often a client has taken it without acknowledging.
    deliveries: u32,
}

/// Where a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It waits until the cluster knows of it.
    Recording,
    /// The stream of the member has it, the client not yet. At this time another member may get it.
    Handed(Instant),
    /// The client has it until this time.
    Delivered(Instant),
}

#[derive(Debug)]
struct Flight {
    held: Held,
    stage: Stage,
    /// The cluster was told of this delivery before it began, so a count of one more is stored.
    recorded: bool,
}

#[derive(Debug)]
struct MemberWindow {
    patience: Patience,
    flight: Option<Flight>,
    /// A copy waits in its stream. No other is put behind that: copies would pile up.
    unread: bool,
    /// Has acknowledged something. Whoever has not may be dying of what it gets.
    proven: bool,
    /// Its client went while its stream had the copy: whether the client took it is still to be said.
    leaving: bool,
}

impl MemberWindow {
    const fn is_idle(&self) -> bool {
        self.flight.is_none() && !self.unread && !self.leaving
    }

    fn until(&self, now: Instant) -> Instant {
        now.checked_add(self.patience.redelivery).unwrap_or_else(|| now + NEVER)
    }

    const fn gives_up(&self, deliveries: u32) -> bool {
        self.patience.count_max != 0 && deliveries >= self.patience.count_max
    }
}

/// What the caller must do.
#[derive(Debug)]
pub enum Step {
    /// Make the delivery of the event at this position to the member durable, then call [`Window::recorded`].
    Record(Member, u64),
    /// Hand this event to the member, and say with [`Window::answered`] what became of that.
    Send(Member, Arc<StoredEvent>),
    /// Nobody acknowledged after so many deliveries; the member had it last, or would have it next. Report it with
    /// [`Window::buried`] once it is stored as a dead letter.
    Bury(Member, Arc<StoredEvent>, u32),
}

/// The window.
#[derive(Debug, Default)]
pub struct Window {
    windows: BTreeMap<Member, MemberWindow>,
    /// Who got an event last: the next one goes to whoever comes behind, so that all have work.
    turn: Member,
    /// Deliveries that may be one of many are made durable before they begin.
    records: bool,
    /// Nobody gets what is behind an event of which it is not known yet whether a member who left has taken it.
    in_order: bool,
    /// Not sent yet by this window, in order.
    fresh: VecDeque<Held>,
    /// To be sent again, oldest first.
    again: BTreeMap<u64, Held>,
    /// Dead letters being stored, and how often each was delivered.
    burying: BTreeMap<u64, u32>,
    /// Done with, but something before is not.
    done: BTreeSet<u64>,
    /// Done with as a window before this one has seen it, in order.
    done_before: Vec<Range>,
    /// Deliveries by a window before this one of events that were not offered yet.
    counted_before: BTreeMap<u64, u32>,
}

impl Window {
    /// A window for one member at a time, whose successor goes on with the event that was out.
    #[must_use]
    pub fn in_order() -> Self {
        Self { in_order: true, ..Self::default() }
    }

    /// Goes on where a window before has stopped: what it knew to be done with, and how often it delivered the rest.
    pub fn resume(&mut self, done: Vec<Range>, attempts: &[Attempts]) {
        self.done_before = done;
        self.counted_before = attempts.iter().map(|of| (of.sequence, of.count)).collect();
    }

    /// Whether deliveries are made durable: each but the first of an event, and the first to a member that has not
    /// acknowledged anything yet.
    pub const fn set_records(&mut self, records: bool) {
        self.records = records;
    }

    /// A member comes; one that is there already is replaced.
    pub fn join(&mut self, member: Member, patience: Patience) {
        if let Some(flight) = self.windows.remove(&member).and_then(|window| window.flight) {
            self.release(flight, Departure::Returned);
        }
        let window = MemberWindow { patience, flight: None, unread: false, proven: false, leaving: false };
        self.windows.insert(member, window);
    }

    /// A member goes; what it had goes to another at once, or is given up when that was the last time.
    pub fn leave(&mut self, member: Member, departure: Departure) -> Option<Step> {
        let window = self.windows.get_mut(&member)?;
        let handed = window.flight.as_ref().is_some_and(|flight| matches!(flight.stage, Stage::Handed(_)));
        if handed && departure == Departure::Gone {
            window.leaving = true;
            return None;
        }
        let mut window = self.windows.remove(&member)?;
        let flight = window.flight.take()?;
        let delivered = matches!(flight.stage, Stage::Delivered(_));
        if delivered && departure == Departure::Gone && window.gives_up(flight.held.deliveries) {
            return Some(self.bury(member, flight.held));
        }
        self.release(flight, departure);
        None
    }

    fn release(&mut self, flight: Flight, departure: Departure) {
        let Flight { mut held, stage, .. } = flight;
        if departure == Departure::Returned && matches!(stage, Stage::Delivered(_)) {
            held.deliveries = held.deliveries.saturating_sub(1);
        }
        self.again.insert(held.item.sequence(), held);
    }

    fn bury(&mut self, member: Member, held: Held) -> Step {
        self.burying.insert(held.item.sequence(), held.deliveries);
        Step::Bury(member, held.item, held.deliveries)
    }

    /// Events to give out, in order.
    pub fn offer(&mut self, items: Vec<Arc<StoredEvent>>) {
        for item in items {
            let sequence = item.sequence();
            let deliveries = self.counted_before.remove(&sequence).unwrap_or_default();
            if self.done_before.iter().any(|range| (range.first..=range.last).contains(&sequence)) {
                self.done.insert(sequence);
            } else {
                self.fresh.push_back(Held { item, deliveries });
            }
        }
    }

    /// Whether more events should be fetched.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        let idle = self.windows.values().any(MemberWindow::is_idle);
        let beyond = self.done.len().saturating_add(self.again.len()).saturating_add(self.burying.len());
        self.fresh.is_empty() && self.again.is_empty() && idle && beyond < WINDOW_EVENTS_MAX
    }

    /// Gives events to members who have none, in turn.
    pub fn assign(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.in_order && self.windows.values().any(|window| window.leaving) {
            return steps;
        }
        let behind = (Bound::Excluded(self.turn), Bound::Unbounded);
        let idle = |(member, window): (&Member, &MemberWindow)| window.is_idle().then_some(*member);
        let mut idle_members: Vec<Member> = self.windows.range(behind).filter_map(idle).collect();
        idle_members.extend(self.windows.range(..=self.turn).filter_map(idle));
        for member in idle_members {
            // An event that was delivered often enough takes nobody's turn.
            while self.windows.get(&member).is_some_and(MemberWindow::is_idle) {
                let next = self.again.pop_first().map(|(_, held)| held).or_else(|| self.fresh.pop_front());
                let Some(held) = next else { return steps };
                self.send(member, held, now, &mut steps);
            }
        }
        steps
    }

    fn send(&mut self, member: Member, held: Held, now: Instant, steps: &mut Vec<Step>) {
        let Some(window) = self.windows.get_mut(&member) else { return };
        if window.gives_up(held.deliveries) {
            steps.push(self.bury(member, held));
            return;
        }
        self.turn = member;
        if self.records && (held.deliveries > 0 || !window.proven) {
            steps.push(Step::Record(member, held.item.sequence()));
            window.flight = Some(Flight { held, stage: Stage::Recording, recorded: true });
        } else {
            steps.push(Step::Send(member, Arc::clone(&held.item)));
            window.unread = true;
            window.flight = Some(Flight { held, stage: Stage::Handed(window.until(now)), recorded: false });
        }
    }

    /// The delivery that [`Step::Record`] told of is durable: the event to hand to the member, unless it is not
    /// waiting for that any more.
    pub fn recorded(&mut self, member: Member, sequence: u64, now: Instant) -> Option<Arc<StoredEvent>> {
        let window = self.windows.get_mut(&member)?;
        let until = window.until(now);
        let waits = |flight: &&mut Flight| flight.stage == Stage::Recording && flight.held.item.sequence() == sequence;
        let flight = window.flight.as_mut().filter(waits)?;
        flight.stage = Stage::Handed(until);
        window.unread = true;
        Some(Arc::clone(&flight.held.item))
    }

    /// What became of an event that was handed to a member: its client has `taken` it, or nothing was written. For a
    /// member that left meanwhile this may have been the last time.
    pub fn answered(&mut self, member: Member, sequence: u64, taken: bool, now: Instant) -> Option<Step> {
        let window = self.windows.get_mut(&member)?;
        window.unread = false;
        let until = window.until(now);
        let this =
            |flight: &mut Flight| matches!(flight.stage, Stage::Handed(_)) && flight.held.item.sequence() == sequence;
        let Some(mut flight) = window.flight.take_if(this) else {
            if window.leaving && window.flight.is_none() {
                self.windows.remove(&member);
            }
            return None;
        };
        let leaving = window.leaving;
        if taken {
            flight.held.deliveries = flight.held.deliveries.saturating_add(1);
            flight.stage = Stage::Delivered(until);
            window.flight = Some(flight);
            return if leaving { self.leave(member, Departure::Gone) } else { None };
        }
        if leaving {
            self.windows.remove(&member);
        }
        self.release(flight, Departure::Gone);
        None
    }

    /// The member acknowledges an event by id. Position of the event when it was out, else `None`.
    pub fn ack(&mut self, member: Member, id: &str) -> Option<u64> {
        let window = self.windows.get_mut(&member)?;
        let own = window.flight.take_if(|flight| flight.held.item.has_id(id));
        let sequence = match own {
            Some(flight) => flight.held.item.sequence(),
            // The acknowledgement crossed the end of its time: the event waits for another, or has one.
            None => self.take_elsewhere(id)?,
        };
        if let Some(window) = self.windows.get_mut(&member) {
            window.proven = true;
        }
        self.done.insert(sequence);
        Some(sequence)
    }

    fn take_elsewhere(&mut self, id: &str) -> Option<u64> {
        let waiting = self.again.iter().find(|(_, held)| held.item.has_id(id)).map(|(sequence, _)| *sequence);
        if let Some(sequence) = waiting {
            self.again.remove(&sequence);
            return Some(sequence);
        }
        let flights = self.windows.values_mut().map(|window| &mut window.flight);
        let mut taken = flights.filter_map(|flight| flight.take_if(|flight| flight.held.item.has_id(id)));
        taken.next().map(|flight| flight.held.item.sequence())
    }

    /// Positions in flight, by member.
    pub fn in_flight(&self) -> impl Iterator<Item = (Member, Option<u64>)> {
        let of = |(member, window): (&Member, &MemberWindow)| {
            (*member, window.flight.as_ref().map(|of| of.held.item.sequence()))
        };
        self.windows.iter().map(of)
    }

    /// When to call [`Window::expire`] next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.windows.values().filter_map(|window| window.flight.as_ref()?.until()).min()
    }

    /// Deals with the events whose time is over.
    pub fn expire(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        let is_late =
            |window: &MemberWindow| window.flight.as_ref().and_then(Flight::until).is_some_and(|until| until <= now);
        let late: Vec<Member> = self.windows.iter().filter(|(_, window)| is_late(window)).map(|(id, _)| *id).collect();
        for member in late {
            // Another member who is idle gets it, else the same one again.
            let other = self.next_idle();
            let Some(window) = self.windows.get_mut(&member) else { continue };
            let unread = window.unread;
            let until = window.until(now);
            let Some(mut flight) = window.flight.take() else { continue };
            if matches!(flight.stage, Stage::Delivered(_)) && window.gives_up(flight.held.deliveries) {
                steps.push(self.bury(member, flight.held));
                continue;
            }
            match other {
                Some(other) => self.send(other, flight.held, now, &mut steps),
                None if unread => {
                    // Its client has a copy to read: it is waited for, and nothing is counted.
                    flight.stage = Stage::Handed(until);
                    window.flight = Some(flight);
                }
                None => self.send(member, flight.held, now, &mut steps),
            }
        }
        steps
    }

    fn next_idle(&self) -> Option<Member> {
        let behind = self.windows.range((Bound::Excluded(self.turn), Bound::Unbounded));
        let mut around = behind.chain(self.windows.range(..=self.turn));
        around.find(|(_, window)| window.is_idle()).map(|(member, _)| *member)
    }

    /// A dead letter was stored, or there will be none: the event is done with.
    pub fn buried(&mut self, sequence: u64) {
        if self.burying.remove(&sequence).is_some() {
            self.done.insert(sequence);
        }
    }

    /// Positions that are not done with, of the events that were not sent yet only the first; in no order.
    fn outstanding(&self) -> impl Iterator<Item = u64> {
        let flights = self.windows.values().filter_map(|window| Some(window.flight.as_ref()?.held.item.sequence()));
        let waiting = self.again.keys().chain(self.burying.keys()).copied();
        flights.chain(waiting).chain(self.fresh.front().map(|held| held.item.sequence()))
    }

    /// The ack floor: every event up to it is done with, given that all events of the pattern before
    /// position `considered` were offered.
    pub fn floor(&mut self, considered: u64) -> u64 {
        let floor = self.outstanding().min().unwrap_or(considered).saturating_sub(1);
        let behind = floor.saturating_add(1);
        self.done = self.done.split_off(&behind);
        self.counted_before = self.counted_before.split_off(&behind);
        floor
    }

    /// What is done with behind the floor, in order: as few ranges as there is something not done with between them.
    #[must_use]
    pub fn done(&self) -> Vec<Range> {
        let fresh = self.fresh.iter().map(|held| held.item.sequence());
        let outstanding: BTreeSet<u64> = self.outstanding().chain(fresh).collect();
        let mut ranges: Vec<Range> = Vec::new();
        for sequence in self.done.iter().copied() {
            match ranges.last_mut() {
                Some(range) if outstanding.range(range.last..sequence).next().is_none() => range.last = sequence,
                _ => ranges.push(Range { first: sequence, last: sequence }),
            }
        }
        ranges
    }

    /// How often each event was delivered that is not done with, if it was.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<u64, u32> {
        let held = self.again.values().chain(&self.fresh).map(|held| (held.item.sequence(), held.deliveries));
        let flights = self.windows.values().filter_map(|window| window.flight.as_ref()).map(|flight| {
            let begun = flight.recorded && !matches!(flight.stage, Stage::Delivered(_));
            (flight.held.item.sequence(), flight.held.deliveries.saturating_add(u32::from(begun)))
        });
        let rest = self.counted_before.iter().chain(&self.burying).map(|(sequence, count)| (*sequence, *count));
        held.chain(flights).chain(rest).filter(|(_, count)| *count > 0).collect()
    }
}

impl Flight {
    const fn until(&self) -> Option<Instant> {
        match self.stage {
            Stage::Recording => None,
            Stage::Handed(until) | Stage::Delivered(until) => Some(until),
        }
    }
}

#[cfg(test)]
mod tests;
