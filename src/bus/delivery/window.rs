//! The window of deliveries: which member has which event, how often an event was delivered, and what happens when no
//! member acknowledges. A pure state machine.
//!
//! One window serves a manual-ack subscription with its single member, or a durable consumer or group with many
//! members.
//!
//! Invariants: at most one event is in flight per member. At most one copy of an event waits to be read by the client
//! of a member. A delivery counts when the connection of the client has taken the event.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rollbook_core::consumer::{Attempts, Range};

use crate::bus::read::stored_event::StoredEvent;

/// Number of a member. Numbers are unique in the cluster, so a late message about one member never reaches another.
pub type Member = u64;

/// When an event is delivered to a member again, and how often at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedeliveryPolicy {
    /// Wait for an acknowledgement before the event is delivered again; at least [`REDELIVERY_MIN`] when the client
    /// acknowledges.
    pub redelivery: Duration,
    /// Most deliveries of one event; 0 means no bound.
    pub count_max: u32,
}

impl Default for RedeliveryPolicy {
    /// The policy of members that do not choose one: 5 seconds, 3 deliveries.
    fn default() -> Self {
        Self { redelivery: Duration::from_secs(5), count_max: 3 }
    }
}

/// Shortest redelivery wait that a client may choose.
pub const REDELIVERY_MIN: Duration = Duration::from_millis(100);
/// Most events above the ack floor that the window remembers. The bound decides how far fast members may run ahead of
/// the slowest one.
pub const WINDOW_EVENTS_MAX: usize = 4096;
/// Stands for a redelivery wait that is too long for an `Instant`.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How a member left, which decides whether its last delivery counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The client closed its stream, or another connection took its place. The delivery counts.
    Gone,
    /// The bus ended the stream, or lost the link to its node. The client may have had no chance to acknowledge, so the
    /// last delivery does not count.
    Returned,
}

/// An event that is neither acknowledged nor a dead letter.
#[derive(Debug, Clone)]
struct PendingEvent {
    /// The event, shared with the feed and with other streams.
    item: Arc<StoredEvent>,
    /// How often a client has taken the event without acknowledging it. The policy compares this number with
    /// `count_max`.
    deliveries: u32,
}

/// The steps of one delivery, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The delivery waits until the replicated state has its count. No client has the event yet.
    Recording,
    /// The stream of the member has the event, its client has not taken it. At this time another member may get the
    /// event.
    Handed(Instant),
    /// The client has taken the event and may acknowledge it until this time.
    Delivered(Instant),
}

/// The one event that a member has, and how far its delivery is.
#[derive(Debug)]
struct InFlight {
    /// The event, which returns to the queues when the delivery fails.
    pending: PendingEvent,
    /// Decides what an answer, a departure or the end of the wait means.
    stage: Stage,
    /// Whether the replicated state has counted this delivery before it began. [`Window::counts`] then reports one
    /// delivery more than the client has taken.
    recorded: bool,
}

/// What the window knows of one member.
#[derive(Debug)]
struct MemberWindow {
    /// The policy that the member chose when it joined.
    policy: RedeliveryPolicy,
    /// The event that the member has; `None` while it can take one.
    flight: Option<InFlight>,
    /// Whether a copy waits in the stream of the member. No second copy is written behind it: a client that does not
    /// read would collect copies.
    unread: bool,
    /// Whether the member has ever acknowledged. A new member may crash on the first event it gets, so its deliveries
    /// are recorded before they begin.
    has_acked: bool,
    /// Whether the client has gone while its stream still had the copy. The member stays until the stream says whether
    /// the client took the event.
    leaving: bool,
}

impl MemberWindow {
    /// Whether the member can take an event.
    const fn is_idle(&self) -> bool {
        self.flight.is_none() && !self.unread && !self.leaving
    }

    /// When the wait for an acknowledgement ends for a delivery that begins now.
    fn until(&self, now: Instant) -> Instant {
        now.checked_add(self.policy.redelivery).unwrap_or_else(|| now + NEVER)
    }

    /// Whether an event with this many deliveries has had its last one.
    const fn gives_up(&self, deliveries: u32) -> bool {
        self.policy.count_max != 0 && deliveries >= self.policy.count_max
    }
}

/// What the caller of the window must do next. The window itself does no I/O.
#[derive(Debug)]
pub enum Step {
    /// Make the delivery of the event at this position to the member durable, then call [`Window::recorded`].
    Record(Member, u64),
    /// Write the event to the member, then report the result with [`Window::answered`].
    Send(Member, Arc<StoredEvent>),
    /// Store the event as a dead letter after this many deliveries, then call [`Window::dead_letter_done`]. The member
    /// had the event last, or would have had it next.
    DeadLetter(Member, Arc<StoredEvent>, u32),
}

/// The deliveries of one consumer or subscription.
#[derive(Debug, Default)]
pub struct Window {
    /// The members, in the order of their numbers, which is the order of service.
    windows: BTreeMap<Member, MemberWindow>,
    /// The member that got an event last. The search for an idle member begins behind it, so that all members get work.
    last_served: Member,
    /// Whether deliveries that may be repeated are recorded before they begin, so that a crash does not reset their
    /// count.
    records_deliveries: bool,
    /// Whether nothing is delivered while the window does not know whether a departed member took its event. A consumer
    /// with one member at a time keeps the order of events by this.
    in_order: bool,
    /// Events that this window has not sent yet, in order.
    unsent: VecDeque<PendingEvent>,
    /// Events to be delivered again, by position: the oldest is delivered first.
    redeliveries: BTreeMap<u64, PendingEvent>,
    /// Events that are being stored as dead letters, with their deliveries. The ack floor must not pass them before
    /// they are stored.
    dead_lettering: BTreeMap<u64, u32>,
    /// Positions above the ack floor that are acknowledged or dead letters, while an event below them is not.
    done: BTreeSet<u64>,
    /// What an earlier start of the consumer was done with. Events that are offered later are compared with these
    /// ranges.
    done_earlier: Vec<Range>,
    /// Deliveries by an earlier start, of events that were not offered to this window yet.
    counts_earlier: BTreeMap<u64, u32>,
}

impl Window {
    /// A window for one member at a time. Its successor goes on with the event that was in flight.
    #[must_use]
    pub fn in_order() -> Self {
        Self { in_order: true, ..Self::default() }
    }

    /// Continues from the replicated state: the ranges that are done, and the deliveries of all other events.
    pub fn resume(&mut self, done: Vec<Range>, attempts: &[Attempts]) {
        self.done_earlier = done;
        self.counts_earlier = attempts.iter().map(|of| (of.sequence, of.count)).collect();
    }

    /// Sets whether deliveries are recorded before they begin: every delivery but the first of an event, and the first
    /// one to a member that has not acknowledged yet.
    pub const fn set_records(&mut self, records_deliveries: bool) {
        self.records_deliveries = records_deliveries;
    }

    /// Adds a member. A member of the same number is replaced, and its event is delivered again.
    pub fn join(&mut self, member: Member, policy: RedeliveryPolicy) {
        if let Some(flight) = self.windows.remove(&member).and_then(|window| window.flight) {
            self.release(flight, Departure::Returned);
        }
        let window = MemberWindow { policy, flight: None, unread: false, has_acked: false, leaving: false };
        self.windows.insert(member, window);
    }

    /// Removes a member. Its event goes to another member, or becomes a dead letter when this was the last delivery.
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
        if delivered && departure == Departure::Gone && window.gives_up(flight.pending.deliveries) {
            return Some(self.begin_dead_letter(member, flight.pending));
        }
        self.release(flight, departure);
        None
    }

    /// Puts an event back into the queue. A `Returned` delivery is taken out of the count.
    fn release(&mut self, flight: InFlight, departure: Departure) {
        let InFlight { mut pending, stage, .. } = flight;
        if departure == Departure::Returned && matches!(stage, Stage::Delivered(_)) {
            pending.deliveries = pending.deliveries.saturating_sub(1);
        }
        self.redeliveries.insert(pending.item.sequence(), pending);
    }

    /// Moves an event to the dead letters that are being stored.
    fn begin_dead_letter(&mut self, member: Member, pending: PendingEvent) -> Step {
        self.dead_lettering.insert(pending.item.sequence(), pending.deliveries);
        Step::DeadLetter(member, pending.item, pending.deliveries)
    }

    /// Adds events, in order, which members will get.
    pub fn offer(&mut self, items: Vec<Arc<StoredEvent>>) {
        for item in items {
            let sequence = item.sequence();
            let deliveries = self.counts_earlier.remove(&sequence).unwrap_or_default();
            if self.done_earlier.iter().any(|range| (range.first..=range.last).contains(&sequence)) {
                self.done.insert(sequence);
            } else {
                self.unsent.push_back(PendingEvent { item, deliveries });
            }
        }
    }

    /// Whether the caller should fetch more events: a member is idle, nothing waits for it, and the window has room.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        let idle = self.windows.values().any(MemberWindow::is_idle);
        let beyond = self.done.len().saturating_add(self.redeliveries.len()).saturating_add(self.dead_lettering.len());
        self.unsent.is_empty() && self.redeliveries.is_empty() && idle && beyond < WINDOW_EVENTS_MAX
    }

    /// Gives events to idle members, one each, behind the member that was served last.
    pub fn assign(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.in_order && self.windows.values().any(|window| window.leaving) {
            return steps;
        }
        let behind = (Bound::Excluded(self.last_served), Bound::Unbounded);
        let idle = |(member, window): (&Member, &MemberWindow)| window.is_idle().then_some(*member);
        let mut idle_members: Vec<Member> = self.windows.range(behind).filter_map(idle).collect();
        idle_members.extend(self.windows.range(..=self.last_served).filter_map(idle));
        for member in idle_members {
            // An event that becomes a dead letter does not use up the member's turn.
            while self.windows.get(&member).is_some_and(MemberWindow::is_idle) {
                let next =
                    self.redeliveries.pop_first().map(|(_, pending)| pending).or_else(|| self.unsent.pop_front());
                let Some(pending) = next else { return steps };
                self.send(member, pending, now, &mut steps);
            }
        }
        steps
    }

    /// Begins the delivery of an event to a member, or gives the event up when it has had its last delivery.
    fn send(&mut self, member: Member, pending: PendingEvent, now: Instant, steps: &mut Vec<Step>) {
        let Some(window) = self.windows.get_mut(&member) else { return };
        if window.gives_up(pending.deliveries) {
            steps.push(self.begin_dead_letter(member, pending));
            return;
        }
        self.last_served = member;
        if self.records_deliveries && (pending.deliveries > 0 || !window.has_acked) {
            steps.push(Step::Record(member, pending.item.sequence()));
            window.flight = Some(InFlight { pending, stage: Stage::Recording, recorded: true });
        } else {
            steps.push(Step::Send(member, Arc::clone(&pending.item)));
            window.unread = true;
            window.flight = Some(InFlight { pending, stage: Stage::Handed(window.until(now)), recorded: false });
        }
    }

    /// The delivery of a [`Step::Record`] is durable. Returns the event to write to the member; `None` when the member
    /// no longer waits for it.
    pub fn recorded(&mut self, member: Member, sequence: u64, now: Instant) -> Option<Arc<StoredEvent>> {
        let window = self.windows.get_mut(&member)?;
        let until = window.until(now);
        let waits =
            |flight: &&mut InFlight| flight.stage == Stage::Recording && flight.pending.item.sequence() == sequence;
        let flight = window.flight.as_mut().filter(waits)?;
        flight.stage = Stage::Handed(until);
        window.unread = true;
        Some(Arc::clone(&flight.pending.item))
    }

    /// Reports what became of an event that was written to a member: its client has `taken` it, or nothing was written.
    /// Returns a step when the member has left meanwhile and this was the last delivery.
    pub fn answered(&mut self, member: Member, sequence: u64, taken: bool, now: Instant) -> Option<Step> {
        let window = self.windows.get_mut(&member)?;
        window.unread = false;
        let until = window.until(now);
        let this = |flight: &mut InFlight| {
            matches!(flight.stage, Stage::Handed(_)) && flight.pending.item.sequence() == sequence
        };
        let Some(mut flight) = window.flight.take_if(this) else {
            if window.leaving && window.flight.is_none() {
                self.windows.remove(&member);
            }
            return None;
        };
        let leaving = window.leaving;
        if taken {
            flight.pending.deliveries = flight.pending.deliveries.saturating_add(1);
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

    /// A member acknowledges an event by id. Returns the position of the event; `None` when it was not in flight.
    pub fn ack(&mut self, member: Member, id: &str) -> Option<u64> {
        let window = self.windows.get_mut(&member)?;
        let own = window.flight.take_if(|flight| flight.pending.item.has_id(id));
        let sequence = match own {
            Some(flight) => flight.pending.item.sequence(),
            // The acknowledgement crossed the end of its time: the event waits for another, or has one.
            None => self.take_elsewhere(id)?,
        };
        if let Some(window) = self.windows.get_mut(&member) {
            window.has_acked = true;
        }
        self.done.insert(sequence);
        Some(sequence)
    }

    /// Finds an event that was taken away from the acknowledging member because its wait had ended: the event waits for
    /// another member, or another member has it.
    fn take_elsewhere(&mut self, id: &str) -> Option<u64> {
        let waiting =
            self.redeliveries.iter().find(|(_, pending)| pending.item.has_id(id)).map(|(sequence, _)| *sequence);
        if let Some(sequence) = waiting {
            self.redeliveries.remove(&sequence);
            return Some(sequence);
        }
        let flights = self.windows.values_mut().map(|window| &mut window.flight);
        let mut taken = flights.filter_map(|flight| flight.take_if(|flight| flight.pending.item.has_id(id)));
        taken.next().map(|flight| flight.pending.item.sequence())
    }

    /// The event in flight of each member, by position.
    pub fn in_flight(&self) -> impl Iterator<Item = (Member, Option<u64>)> {
        let of = |(member, window): (&Member, &MemberWindow)| {
            (*member, window.flight.as_ref().map(|of| of.pending.item.sequence()))
        };
        self.windows.iter().map(of)
    }

    /// When to call [`Window::expire`] next; `None` while no wait is running.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.windows.values().filter_map(|window| window.flight.as_ref()?.until()).min()
    }

    /// Handles the events whose wait has ended: another idle member gets the event, else the same member again, or the
    /// event becomes a dead letter.
    pub fn expire(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        let is_late =
            |window: &MemberWindow| window.flight.as_ref().and_then(InFlight::until).is_some_and(|until| until <= now);
        let late: Vec<Member> = self.windows.iter().filter(|(_, window)| is_late(window)).map(|(id, _)| *id).collect();
        for member in late {
            // Another member who is idle gets it, else the same one again.
            let other = self.next_idle();
            let Some(window) = self.windows.get_mut(&member) else { continue };
            let unread = window.unread;
            let until = window.until(now);
            let Some(mut flight) = window.flight.take() else { continue };
            if matches!(flight.stage, Stage::Delivered(_)) && window.gives_up(flight.pending.deliveries) {
                steps.push(self.begin_dead_letter(member, flight.pending));
                continue;
            }
            match other {
                Some(other) => self.send(other, flight.pending, now, &mut steps),
                None if unread => {
                    // Its client has a copy to read: it is waited for, and nothing is counted.
                    flight.stage = Stage::Handed(until);
                    window.flight = Some(flight);
                }
                None => self.send(member, flight.pending, now, &mut steps),
            }
        }
        steps
    }

    /// The next idle member behind the one that was served last.
    fn next_idle(&self) -> Option<Member> {
        let behind = self.windows.range((Bound::Excluded(self.last_served), Bound::Unbounded));
        let mut around = behind.chain(self.windows.range(..=self.last_served));
        around.find(|(_, window)| window.is_idle()).map(|(member, _)| *member)
    }

    /// The dead letter at this position is stored, or none will be stored. The event is done.
    pub fn dead_letter_done(&mut self, sequence: u64) {
        if self.dead_lettering.remove(&sequence).is_some() {
            self.done.insert(sequence);
        }
    }

    /// Positions that are not done, in no order. Of the unsent events only the first is included, because the floor
    /// needs no more.
    fn outstanding(&self) -> impl Iterator<Item = u64> {
        let flights = self.windows.values().filter_map(|window| Some(window.flight.as_ref()?.pending.item.sequence()));
        let waiting = self.redeliveries.keys().chain(self.dead_lettering.keys()).copied();
        flights.chain(waiting).chain(self.unsent.front().map(|pending| pending.item.sequence()))
    }

    /// Computes the ack floor: every event up to the floor is done. All events of the pattern before position
    /// `considered` must have been offered.
    pub fn floor(&mut self, considered: u64) -> u64 {
        let floor = self.outstanding().min().unwrap_or(considered).saturating_sub(1);
        let behind = floor.saturating_add(1);
        self.done = self.done.split_off(&behind);
        self.counts_earlier = self.counts_earlier.split_off(&behind);
        floor
    }

    /// The ranges that are done above the floor, in order. Two ranges are joined when no event between them is
    /// outstanding.
    #[must_use]
    pub fn done(&self) -> Vec<Range> {
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
        let pending =
            self.redeliveries.values().chain(&self.unsent).map(|pending| (pending.item.sequence(), pending.deliveries));
        let flights = self.windows.values().filter_map(|window| window.flight.as_ref()).map(|flight| {
            let begun = flight.recorded && !matches!(flight.stage, Stage::Delivered(_));
            (flight.pending.item.sequence(), flight.pending.deliveries.saturating_add(u32::from(begun)))
        });
        let rest = self.counts_earlier.iter().chain(&self.dead_lettering).map(|(sequence, count)| (*sequence, *count));
        pending.chain(flights).chain(rest).filter(|(_, count)| *count > 0).collect()
    }
}

impl InFlight {
    /// When the wait of this delivery ends; `None` while the delivery is being recorded.
    const fn until(&self) -> Option<Instant> {
        match self.stage {
            Stage::Recording => None,
            Stage::Handed(until) | Stage::Delivered(until) => Some(until),
        }
    }
}

#[cfg(test)]
mod tests;
