//! What the window knows of one member: the events in flight, and how far each delivery is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::given::{Again, Given};
use crate::bus::delivery::policy::{DeliveryPolicy, IN_FLIGHT_BYTES_MAX};
use crate::bus::read::redelivery::Reason;
use crate::bus::read::stored_event::StoredEvent;

/// Stands for a redelivery wait that is too long for an `Instant`.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// An event that is neither acknowledged nor a dead letter.
#[derive(Debug, Clone)]
pub(super) struct PendingEvent {
    /// The event, shared with the feed and with other streams.
    pub(super) item: Arc<StoredEvent>,
    /// How often a client has taken the event without acknowledging it. The policy compares this number with
    /// `count_max`.
    pub(super) deliveries: u32,
    /// Events of the same key wait for each other, see [`super::keys`].
    pub(super) key: Option<u64>,
    /// When a client took the event first, as far as this window knows.
    pub(super) first: Option<Instant>,
    /// Why the last delivery failed, as far as this window knows.
    pub(super) reason: Option<Reason>,
}

impl PendingEvent {
    /// An event that was delivered so often by an earlier start of the consumer.
    pub(super) const fn new(item: Arc<StoredEvent>, deliveries: u32, key: Option<u64>) -> Self {
        Self { item, deliveries, key, first: None, reason: None }
    }

    /// The event, for a delivery that begins now.
    pub(super) fn given(&self, now: Instant) -> Given {
        let first = self.first.map(|first| now.saturating_duration_since(first));
        let again = Again { deliveries: self.deliveries, first, reason: self.reason };
        Given::new(Arc::clone(&self.item), (self.deliveries > 0).then_some(again))
    }
}

/// The steps of one delivery, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The delivery waits until the replicated state has its count. No client has the event yet.
    Recording,
    /// The stream of the member has the event, its client has not taken it. At this time another member may get the
    /// event.
    Handed(Instant),
    /// The client has taken the event and may acknowledge it until this time.
    Delivered(Instant),
}

/// An event that a member has, and how far its delivery is.
#[derive(Debug)]
pub(super) struct InFlight {
    /// The event, which returns to the queues when the delivery fails.
    pub(super) pending: PendingEvent,
    /// Decides what an answer, a departure or the end of the wait means.
    pub(super) stage: Stage,
    /// Whether the replicated state has counted this delivery before it began. [`super::Window::counts`] then reports
    /// one delivery more than the client has taken.
    pub(super) recorded: bool,
    /// Whether the member gets no other event meanwhile, see [`DeliveryPolicy::is_alone`].
    alone: bool,
}

impl InFlight {
    /// When the wait of this delivery ends; `None` while the delivery is being recorded.
    pub(super) const fn until(&self) -> Option<Instant> {
        match self.stage {
            Stage::Recording => None,
            Stage::Handed(until) | Stage::Delivered(until) => Some(until),
        }
    }

    /// The deliveries of the event that the replicated state has to know.
    pub(super) fn count(&self) -> u32 {
        let begun = self.recorded && !matches!(self.stage, Stage::Delivered(_));
        self.pending.deliveries.saturating_add(u32::from(begun))
    }
}

/// One member.
#[derive(Debug)]
pub(super) struct MemberWindow {
    /// The policy that the member chose when it joined.
    policy: DeliveryPolicy,
    /// The events that the member has, by position.
    flights: BTreeMap<u64, InFlight>,
    /// Bytes of the records of these.
    bytes: usize,
    /// Whether one of them is alone.
    alone: bool,
    /// Positions of which a copy waits in the stream of the member. No second copy is written behind it: a client that
    /// does not read would collect copies.
    unread: BTreeSet<u64>,
    /// How many of the copies are of events that the member does not have any more.
    stray: usize,
    /// Whether the member has ever acknowledged. A new member may crash on the first events it gets, so its deliveries
    /// are recorded before they begin.
    has_acked: bool,
    /// Whether the client has gone while its stream still had copies. The member stays until the stream says which of
    /// them the client took.
    leaving: bool,
    /// The newest acknowledgement: its position, and when it came. The wait of the events behind it begins anew then,
    /// because a client that works on one event after the other has not had its turn with them.
    last_ack: Option<(u64, Instant)>,
    /// How many deliveries the member may still get; `None`: as many as there are.
    quota: Option<u32>,
}

impl MemberWindow {
    pub(super) fn new(policy: DeliveryPolicy) -> Self {
        Self {
            quota: policy.quota,
            policy,
            flights: BTreeMap::new(),
            bytes: 0,
            alone: false,
            unread: BTreeSet::new(),
            stray: 0,
            has_acked: false,
            leaving: false,
            last_ack: None,
        }
    }

    pub(super) const fn policy(&self) -> &DeliveryPolicy {
        &self.policy
    }

    pub(super) const fn has_acked(&self) -> bool {
        self.has_acked
    }

    pub(super) const fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The client has gone; its last copies are still to be heard of.
    pub(super) const fn begin_leaving(&mut self) {
        self.leaving = true;
    }

    /// The member gets nothing any more, and keeps what it has until it acknowledges or is late.
    pub(super) const fn finish(&mut self) {
        self.quota = Some(0);
    }

    /// The events that the member has, by position.
    pub(super) const fn flights(&self) -> &BTreeMap<u64, InFlight> {
        &self.flights
    }

    /// An event that the member has.
    pub(super) fn flight_mut(&mut self, sequence: u64) -> Option<&mut InFlight> {
        self.flights.get_mut(&sequence)
    }

    /// How many events the member can take now.
    pub(super) fn room(&self) -> usize {
        let held = self.flights.len().saturating_add(self.stray);
        if self.leaving || self.alone || (held > 0 && self.bytes >= IN_FLIGHT_BYTES_MAX) {
            return 0;
        }
        let quota = self.quota.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        self.policy.room().saturating_sub(held).min(quota)
    }

    /// Whether the member may get this event now, behind those that it has.
    pub(super) fn may_take(&self, pending: &PendingEvent) -> bool {
        let sequence = pending.item.sequence();
        !self.unread.contains(&sequence)
            && (self.flights.is_empty() && self.stray == 0 || !self.policy.is_alone(pending.deliveries))
    }

    /// Whether a copy of the event waits in the stream of the member.
    pub(super) fn is_unread(&self, sequence: u64) -> bool {
        self.unread.contains(&sequence)
    }

    /// When the wait for an acknowledgement ends of a delivery that begins now, behind so many that failed.
    pub(super) fn until(&self, deliveries: u32, now: Instant) -> Instant {
        now.checked_add(self.policy.wait(deliveries.saturating_add(1))).unwrap_or_else(|| now + NEVER)
    }

    /// The oldest event that the client has taken.
    pub(super) fn oldest_delivered(&self) -> Option<u64> {
        let mut flights = self.flights.iter();
        flights.find(|(_, flight)| matches!(flight.stage, Stage::Delivered(_))).map(|(sequence, _)| *sequence)
    }

    /// The member has an event from now on. `recorded`: its delivery is counted before it begins.
    pub(super) fn begin(&mut self, pending: PendingEvent, stage: Stage, recorded: bool) {
        let (sequence, alone) = (pending.item.sequence(), self.policy.is_alone(pending.deliveries));
        self.bytes = self.bytes.saturating_add(pending.item.record_len());
        self.alone |= alone;
        self.quota = self.quota.map(|left| left.saturating_sub(1));
        if matches!(stage, Stage::Handed(_)) {
            self.unread.insert(sequence);
        }
        self.flights.insert(sequence, InFlight { pending, stage, recorded, alone });
    }

    /// The event is written to the stream of the member.
    pub(super) fn hand(&mut self, sequence: u64, until: Instant) {
        if let Some(flight) = self.flights.get_mut(&sequence) {
            flight.stage = Stage::Handed(until);
            self.unread.insert(sequence);
        }
    }

    /// The member does not have this event any more.
    pub(super) fn take(&mut self, sequence: u64) -> Option<InFlight> {
        let flight = self.flights.remove(&sequence)?;
        self.bytes = self.bytes.saturating_sub(flight.pending.item.record_len());
        self.alone &= !flight.alone;
        if self.unread.contains(&sequence) {
            self.stray = self.stray.saturating_add(1);
        }
        Some(flight)
    }

    /// No copy of this event waits any more in the stream of the member.
    pub(super) fn read(&mut self, sequence: u64) {
        if self.unread.remove(&sequence) && !self.flights.contains_key(&sequence) {
            self.stray = self.stray.saturating_sub(1);
        }
    }

    /// Whether no copy waits in the stream of the member.
    pub(super) fn has_read_all(&self) -> bool {
        self.unread.is_empty()
    }

    /// The client has acknowledged an event.
    pub(super) const fn acked(&mut self, sequence: u64, now: Instant) {
        self.has_acked = true;
        self.last_ack = Some((sequence, now));
    }

    /// When the wait of a delivery ends, as the newest acknowledgement has it.
    fn ends(&self, sequence: u64, flight: &InFlight) -> Option<Instant> {
        let until = flight.until()?;
        let again = self.last_ack.filter(|(acked, _)| *acked < sequence);
        let later = again.and_then(|(_, at)| at.checked_add(self.policy.wait(flight.pending.deliveries)));
        Some(later.map_or(until, |later| later.max(until)))
    }

    /// The first end of a wait.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.flights.iter().filter_map(|(sequence, flight)| self.ends(*sequence, flight)).min()
    }

    /// The events whose wait has ended.
    pub(super) fn late(&self, now: Instant) -> Vec<u64> {
        let is_late =
            |(sequence, flight): &(&u64, &InFlight)| self.ends(**sequence, flight).is_some_and(|end| end <= now);
        self.flights.iter().filter(is_late).map(|(sequence, _)| *sequence).collect()
    }

    /// The position of the event that the member has by this id.
    pub(super) fn find(&self, known: Option<u64>, id: &str) -> Option<u64> {
        let has = |sequence: &u64| self.flights.get(sequence).is_some_and(|flight| flight.pending.item.has_id(id));
        if let Some(sequence) = known.filter(has) {
            return Some(sequence);
        }
        // Whoever chooses ids by himself pays for the search.
        self.flights.iter().find(|(_, flight)| flight.pending.item.has_id(id)).map(|(sequence, _)| *sequence)
    }
}
