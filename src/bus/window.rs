//! Who has which event, and what happens when nobody acknowledges: a pure state machine.
//!
//! One window serves a manual-ack subscription with its single member, and a durable
//! consumer or group with many. At most one event is in flight per member. Time comes
//! in as a parameter.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::item::Item;

/// Number of a member in its window.
pub type Member = u64;

/// How a member wants to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long to wait for an acknowledgement.
    pub redelivery: Duration,
    /// How often to send at most; 0 means for ever.
    pub count_max: u32,
}

impl Default for Patience {
    /// What members get that say nothing.
    fn default() -> Self {
        Self { redelivery: Duration::from_secs(5), count_max: 3 }
    }
}

/// Most events that may be beyond the floor at once; hides how slow the slowest member is.
pub const WINDOW_EVENTS_MAX: usize = 4096;

#[derive(Debug, Clone)]
struct Held {
    item: Arc<Item>,
    deliveries: u32,
}

#[derive(Debug)]
struct Seat {
    patience: Patience,
    flight: Option<(Held, Instant)>,
}

/// What the caller must do.
#[derive(Debug)]
pub enum Step {
    /// Write this event to the member.
    Send(Member, Arc<Item>),
    /// Nobody acknowledged after so many deliveries; last sent to the member. Report it with
    /// [`Window::buried`] once it is stored as a dead letter.
    Bury(Member, Arc<Item>, u32),
}

/// The window.
#[derive(Debug, Default)]
pub struct Window {
    seats: HashMap<Member, Seat>,
    /// Never sent yet, in order.
    fresh: VecDeque<Arc<Item>>,
    /// To be sent again, oldest first.
    again: BTreeMap<u64, Held>,
    /// Dead letters being stored.
    burying: BTreeSet<u64>,
    /// Done with, but something before is not.
    done: BTreeSet<u64>,
}

impl Window {
    /// A member comes; one that is there already is replaced.
    pub fn join(&mut self, member: Member, patience: Patience) {
        self.leave(member);
        self.seats.insert(member, Seat { patience, flight: None });
    }

    /// A member goes; what it had goes to another at once.
    pub fn leave(&mut self, member: Member) {
        if let Some((held, _)) = self.seats.remove(&member).and_then(|seat| seat.flight) {
            self.again.insert(held.item.sequence(), held);
        }
    }

    /// Whether nobody is there.
    #[must_use]
    pub fn is_deserted(&self) -> bool {
        self.seats.is_empty()
    }

    /// Events to give out, in order.
    pub fn offer(&mut self, items: Vec<Arc<Item>>) {
        self.fresh.extend(items);
    }

    /// Whether more events should be fetched.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        let idle = self.seats.values().any(|seat| seat.flight.is_none());
        let beyond = self.done.len().saturating_add(self.again.len()).saturating_add(self.burying.len());
        self.fresh.is_empty() && self.again.is_empty() && idle && beyond < WINDOW_EVENTS_MAX
    }

    /// Gives events to members who have none.
    pub fn assign(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut idle: Vec<Member> =
            self.seats.iter().filter(|(_, seat)| seat.flight.is_none()).map(|(member, _)| *member).collect();
        idle.sort_unstable();
        for member in idle {
            let held = match self.again.pop_first() {
                Some((_, held)) => held,
                None => match self.fresh.pop_front() {
                    Some(item) => Held { item, deliveries: 0 },
                    None => break,
                },
            };
            self.send(member, held, now, &mut steps);
        }
        steps
    }

    fn send(&mut self, member: Member, mut held: Held, now: Instant, steps: &mut Vec<Step>) {
        let Some(seat) = self.seats.get_mut(&member) else { return };
        held.deliveries = held.deliveries.saturating_add(1);
        steps.push(Step::Send(member, Arc::clone(&held.item)));
        seat.flight = Some((held, now + seat.patience.redelivery));
    }

    /// The member acknowledges an event by id. Position of the event when it was out, else `None`.
    pub fn ack(&mut self, member: Member, id: &str) -> Option<u64> {
        let flight = self.seats.get_mut(&member)?.flight.take_if(|(held, _)| held.item.id() == id);
        let sequence = match flight {
            Some((held, _)) => held.item.sequence(),
            // The acknowledgement crossed the end of its time: the event waits for another, or has one.
            None => self.take_elsewhere(id)?,
        };
        self.done.insert(sequence);
        Some(sequence)
    }

    fn take_elsewhere(&mut self, id: &str) -> Option<u64> {
        let waiting = self.again.iter().find(|(_, held)| held.item.id() == id).map(|(sequence, _)| *sequence);
        if let Some(sequence) = waiting {
            self.again.remove(&sequence);
            return Some(sequence);
        }
        let seat =
            self.seats.values_mut().find(|seat| seat.flight.as_ref().is_some_and(|(held, _)| held.item.id() == id))?;
        seat.flight.take().map(|(held, _)| held.item.sequence())
    }

    /// Whether the event is in flight to that member.
    #[must_use]
    pub fn is_in_flight(&self, member: Member, id: &str) -> bool {
        self.seats.get(&member).and_then(|seat| seat.flight.as_ref()).is_some_and(|(held, _)| held.item.id() == id)
    }

    /// Positions in flight, by member.
    #[must_use]
    pub fn in_flight(&self) -> Vec<(Member, Option<u64>)> {
        let of =
            |(member, seat): (&Member, &Seat)| (*member, seat.flight.as_ref().map(|(held, _)| held.item.sequence()));
        self.seats.iter().map(of).collect()
    }

    /// When to call [`Window::expire`] next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.seats.values().filter_map(|seat| seat.flight.as_ref().map(|(_, until)| *until)).min()
    }

    /// Deals with the events whose time is over.
    pub fn expire(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut late: Vec<Member> = Vec::new();
        for (member, seat) in &self.seats {
            if seat.flight.as_ref().is_some_and(|(_, until)| *until <= now) {
                late.push(*member);
            }
        }
        late.sort_unstable();
        for member in late {
            let Some(seat) = self.seats.get_mut(&member) else { continue };
            let (count_max, Some((held, _))) = (seat.patience.count_max, seat.flight.take()) else { continue };
            if count_max != 0 && held.deliveries >= count_max {
                self.burying.insert(held.item.sequence());
                steps.push(Step::Bury(member, held.item, held.deliveries));
                continue;
            }
            // Another member who is idle gets it, else the same one again.
            let other = self.seats.iter().filter(|(id, seat)| **id != member && seat.flight.is_none());
            let next = other.map(|(id, _)| *id).min().unwrap_or(member);
            self.send(next, held, now, &mut steps);
        }
        steps
    }

    /// A dead letter was stored, or there will be none: the event is done with.
    pub fn buried(&mut self, sequence: u64) {
        if self.burying.remove(&sequence) {
            self.done.insert(sequence);
        }
    }

    /// The ack floor: every event up to it is done with, given that all events of the pattern before
    /// position `considered` were offered.
    pub fn floor(&mut self, considered: u64) -> u64 {
        let flights = self.seats.values().filter_map(|seat| seat.flight.as_ref().map(|(held, _)| held.item.sequence()));
        let waiting = self.again.keys().copied().chain(self.burying.iter().copied());
        let fresh = self.fresh.front().map(|item| item.sequence());
        let outstanding = flights.chain(waiting).chain(fresh).min();
        let floor = outstanding.unwrap_or(considered).saturating_sub(1);
        self.done = self.done.split_off(&floor.saturating_add(1));
        floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use rollbook_core::event::Event;

    fn item(sequence: u64) -> Arc<Item> {
        let mut record = Vec::new();
        Event { subject: "a.b", ..Event::default() }.encode(&mut record).unwrap();
        Arc::new(Item::stored(sequence, Bytes::from(record)))
    }

    fn patience(count_max: u32) -> Patience {
        Patience { redelivery: Duration::from_secs(5), count_max }
    }

    fn sent(steps: &[Step]) -> Vec<(Member, u64)> {
        let of = |step: &Step| match step {
            Step::Send(member, item) => (*member, item.sequence()),
            Step::Bury(member, item, _) => (*member + 1000, item.sequence()),
        };
        steps.iter().map(of).collect()
    }

    #[test]
    fn one_member_gets_one_event_at_a_time() {
        let (mut window, now) = (Window::default(), Instant::now());
        window.join(1, patience(3));
        window.offer(vec![item(1), item(2)]);
        assert_eq!(sent(&window.assign(now)), [(1, 1)]);
        assert!(window.assign(now).is_empty());
        assert_eq!(window.ack(1, &item(2).id()), None, "not sent yet");
        assert_eq!(window.ack(1, &item(1).id()), Some(1));
        assert_eq!(sent(&window.assign(now)), [(1, 2)]);
        assert_eq!(window.floor(3), 1);
    }

    #[test]
    fn an_event_is_sent_again_and_buried_after_the_last_time() {
        let (mut window, mut now) = (Window::default(), Instant::now());
        window.join(1, patience(2));
        window.offer(vec![item(1), item(2)]);
        window.assign(now);
        assert!(window.expire(now).is_empty());
        now += Duration::from_secs(5);
        assert_eq!(sent(&window.expire(now)), [(1, 1)]);
        now += Duration::from_secs(5);
        assert_eq!(sent(&window.expire(now)), [(1001, 1)]);
        assert_eq!(window.floor(3), 0, "not done with before the dead letter is stored");
        window.buried(1);
        assert_eq!(window.floor(3), 1);
        assert_eq!(sent(&window.assign(now)), [(1, 2)]);
    }

    #[test]
    fn what_a_lost_member_had_goes_to_another_at_once_and_what_a_late_one_had_after_its_time() {
        let (mut window, mut now) = (Window::default(), Instant::now());
        window.join(1, patience(0));
        window.join(2, patience(0));
        window.offer(vec![item(1), item(2)]);
        assert_eq!(sent(&window.assign(now)), [(1, 1), (2, 2)]);
        window.leave(1);
        assert_eq!(window.ack(2, &item(2).id()), Some(2));
        assert_eq!(window.floor(3), 0);
        assert_eq!(sent(&window.assign(now)), [(2, 1)]);
        window.join(3, patience(0));
        now += Duration::from_secs(5);
        assert_eq!(sent(&window.expire(now)), [(3, 1)]);
        assert_eq!(window.ack(2, &item(1).id()), Some(1), "a late acknowledgement counts all the same");
        assert_eq!(window.floor(3), 2);
    }

    proptest! {
        /// Whatever happens, an event is with one member at most, and the floor passes no event
        /// that nobody acknowledged.
        #[test]
        fn no_event_is_lost_or_doubled(steps in proptest::collection::vec((0_u8..6, 0_u64..4), 1..200)) {
            let (mut window, mut now) = (Window::default(), Instant::now());
            let (mut offered, mut acked) = (0_u64, BTreeSet::new());
            for (what, which) in steps {
                match what {
                    0 => window.join(which, patience(0)),
                    1 => window.leave(which),
                    2 => { offered += 1; window.offer(vec![item(offered)]); }
                    3 => drop(window.assign(now)),
                    4 => { now += Duration::from_secs(3); drop(window.expire(now)); }
                    _ => {
                        let out = window.in_flight().into_iter().find(|(member, _)| *member == which);
                        if let Some((member, Some(sequence))) = out {
                            prop_assert_eq!(window.ack(member, &item(sequence).id()), Some(sequence));
                            prop_assert!(acked.insert(sequence), "{} twice", sequence);
                        }
                    }
                }
                let flights: Vec<u64> = window.in_flight().into_iter().filter_map(|(_, s)| s).collect();
                prop_assert_eq!(flights.iter().collect::<BTreeSet<_>>().len(), flights.len());
                let floor = window.floor(offered + 1);
                prop_assert!((1..=floor).all(|sequence| acked.contains(&sequence)), "floor {} of {:?}", floor, acked);
            }
        }
    }
}
