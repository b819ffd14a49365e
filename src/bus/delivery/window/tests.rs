//! What the window promises, step by step and in random orders.

use std::time::Duration;

use bytes::Bytes;
use rollbook_core::event::Event;

use super::*;
use crate::bus::delivery::acknowledgement::{Acknowledgement, Outcome, Which};

mod keys;
mod many;
mod random;

const REDELIVERY: Duration = Duration::from_secs(5);

fn item(sequence: u64) -> Arc<StoredEvent> {
    let mut record = Vec::new();
    Event { subject: "a.b", ..Event::default() }.encode(&mut record).unwrap();
    Arc::new(StoredEvent::stored(sequence, Bytes::from(record)))
}

fn policy(count_max: u32) -> DeliveryPolicy {
    DeliveryPolicy { redelivery: REDELIVERY, count_max, ..DeliveryPolicy::default() }
}

fn many(count_max: u32, in_flight_max: u32) -> DeliveryPolicy {
    DeliveryPolicy { in_flight_max, ..policy(count_max) }
}

/// Acknowledges an event, which leads to no step. Its position if it was in flight.
fn ack(window: &mut Window, member: Member, sequence: u64, now: Instant) -> Option<u64> {
    let (acknowledged, steps) = window.acknowledge(member, &Acknowledgement::of(item(sequence).id()), now);
    assert!(steps.is_empty());
    acknowledged.is_any().then_some(sequence)
}

fn said(sequences: &[u64], outcome: Outcome) -> Acknowledgement {
    let ids = sequences.iter().map(|sequence| item(*sequence).id()).collect();
    Acknowledgement { which: Which::Ids(ids), outcome }
}

/// The steps as numbers: the member, plus 1000 for a dead letter and plus 2000 for a delivery to record, and the
/// position.
fn summary<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Vec<(Member, u64)> {
    let of = |step: &Step| match step {
        Step::Send(member, items) => items.iter().map(|item| (*member, item.sequence())).collect(),
        Step::DeadLetter(member, item, ..) => vec![(*member + 1000, item.sequence())],
        Step::Record(member, sequences) => sequences.iter().map(|sequence| (*member + 2000, *sequence)).collect(),
    };
    steps.into_iter().flat_map(of).collect()
}

/// A window whose clients take every event at once.
struct EagerClients {
    window: Window,
    now: Instant,
}

impl EagerClients {
    fn new(members: impl IntoIterator<Item = (Member, u32)>, events: u64) -> Self {
        let mut window = Window::default();
        members.into_iter().for_each(|(member, count_max)| window.join(member, policy(count_max)));
        window.offer((1..=events).map(item).collect());
        Self { window, now: Instant::now() }
    }

    fn taken(&mut self, steps: Vec<Step>) -> Vec<(Member, u64)> {
        for step in &steps {
            if let Step::Send(member, items) = step {
                let sequences: Vec<u64> = items.iter().map(|item| item.sequence()).collect();
                assert!(self.window.answered(*member, &sequences, true, self.now).is_empty());
            }
        }
        summary(&steps)
    }

    fn assign(&mut self) -> Vec<(Member, u64)> {
        let steps = self.window.assign(self.now);
        self.taken(steps)
    }

    fn expire_after(&mut self, wait: Duration) -> Vec<(Member, u64)> {
        self.now += wait;
        let steps = self.window.expire(self.now);
        self.taken(steps)
    }
}

#[test]
fn one_member_gets_one_event_at_a_time() {
    let mut clients = EagerClients::new([(1, 3)], 2);
    assert_eq!(clients.assign(), [(1, 1)]);
    assert!(clients.assign().is_empty());
    assert_eq!(ack(&mut clients.window, 1, 2, clients.now), None, "not sent yet");
    assert_eq!(ack(&mut clients.window, 1, 1, clients.now), Some(1));
    assert_eq!(clients.assign(), [(1, 2)]);
    assert_eq!(clients.window.floor(3), 1);
}

#[test]
fn an_event_is_sent_again_and_buried_after_the_last_time() {
    let mut clients = EagerClients::new([(1, 2)], 2);
    clients.assign();
    assert!(clients.expire_after(Duration::ZERO).is_empty());
    assert_eq!(clients.expire_after(REDELIVERY), [(1, 1)]);
    assert_eq!(clients.expire_after(REDELIVERY), [(1001, 1), (1, 2)]);
    assert_eq!(clients.window.floor(3), 0, "not done with before the dead letter is stored");
    clients.window.dead_letter_done(1);
    assert_eq!(clients.window.floor(3), 1);
}

#[test]
fn what_a_lost_member_had_goes_to_another_at_once_and_what_a_late_one_had_after_its_time() {
    let mut clients = EagerClients::new([(1, 0), (2, 0)], 2);
    assert_eq!(clients.assign(), [(1, 1), (2, 2)]);
    assert!(clients.window.leave(1, Departure::Gone).is_empty());
    assert_eq!(ack(&mut clients.window, 2, 2, clients.now), Some(2));
    assert_eq!(clients.window.floor(3), 0);
    assert_eq!(clients.assign(), [(2, 1)]);
    clients.window.join(3, policy(0));
    assert_eq!(clients.expire_after(REDELIVERY), [(3, 1)]);
    assert_eq!(ack(&mut clients.window, 2, 1, clients.now), Some(1), "a late acknowledgement counts all the same");
    assert_eq!(clients.window.floor(3), 2);
}

#[test]
fn whoever_comes_after_another_goes_on_with_the_event_that_was_out() {
    for taken in [false, true] {
        let (mut window, now) = (Window::in_order(), Instant::now());
        window.offer((1..=2).map(item).collect());
        window.join(1, policy(0));
        assert_eq!(summary(&window.assign(now)), [(1, 1)]);
        // Its client goes, and it is still to be said whether it has taken the event.
        assert!(window.leave(1, Departure::Gone).is_empty());
        window.join(2, policy(0));
        assert!(window.assign(now).is_empty(), "not what is behind it");
        assert!(window.answered(1, &[1], taken, now).is_empty());
        assert_eq!(summary(&window.assign(now)), [(2, 1)]);
    }
}

#[test]
fn members_take_turns_when_there_is_little_to_do() {
    let mut clients = EagerClients::new([(7, 3), (8, 3), (9, 3)], 7);
    let mut order = Vec::new();
    // One at a time: all but one are busy with nothing.
    for sequence in 1..=7 {
        let rest = clients.window.unsent.split_off(1);
        let sent = clients.assign();
        clients.window.unsent.extend(rest);
        assert_eq!((sent.len(), sent[0].1), (1, sequence));
        order.push(sent[0].0);
        assert_eq!(ack(&mut clients.window, sent[0].0, sequence, clients.now), Some(sequence));
    }
    assert_eq!(order, [7, 8, 9, 7, 8, 9, 7]);
}

#[test]
fn an_event_whose_members_die_of_it_is_given_up_after_its_count() {
    let mut clients = EagerClients::new([], 2);
    for member in 1..=2 {
        clients.window.join(member, policy(3));
        assert_eq!(clients.assign(), [(member, 1)]);
        assert!(clients.window.leave(member, Departure::Gone).is_empty());
    }
    clients.window.join(3, policy(3));
    assert_eq!(clients.assign(), [(3, 1)]);
    let last = clients.window.leave(3, Departure::Gone);
    assert!(matches!(&last[..], [Step::DeadLetter(3, item, 3, GivenUp::Count)] if item.sequence() == 1), "{last:?}");
    clients.window.join(4, policy(3));
    assert_eq!(clients.assign(), [(4, 2)]);
}

#[test]
fn a_lost_link_or_a_drain_is_no_failed_delivery() {
    let mut clients = EagerClients::new([], 1);
    for member in 1..20 {
        clients.window.join(member, policy(2));
        assert_eq!(clients.assign(), [(member, 1)]);
        assert!(clients.window.leave(member, Departure::Returned).is_empty());
        assert_eq!(clients.window.counts(), BTreeMap::new());
    }
}

#[test]
fn what_no_client_has_taken_does_not_count_and_no_second_copy_is_written() {
    let (mut window, mut now) = (Window::default(), Instant::now());
    window.join(1, policy(1));
    window.offer(vec![item(1), item(2)]);
    assert_eq!(summary(&window.assign(now)), [(1, 1)]);
    for _ in 0..50 {
        now += REDELIVERY;
        assert!(window.expire(now).is_empty() && window.assign(now).is_empty());
    }
    window.join(2, policy(1));
    assert_eq!(summary(&window.assign(now)), [(2, 2)]);
    assert!(window.answered(2, &[2], true, now).is_empty());
    assert_eq!(ack(&mut window, 2, 2, now), Some(2));
    now += REDELIVERY;
    assert_eq!(summary(&window.expire(now)), [(2, 1)], "another one is not asleep");
    assert!(window.answered(2, &[1], true, now).is_empty());
    window.offer(vec![item(3)]);
    assert!(window.assign(now).is_empty(), "a copy of the first still waits for the sleeper");
    assert!(window.answered(1, &[1], true, now).is_empty());
    assert_eq!(summary(&window.assign(now)), [(1, 3)]);
    assert_eq!(window.counts(), BTreeMap::from([(1, 1)]));
}

#[test]
fn whether_a_client_that_left_took_its_event_is_waited_for() {
    for (taken, wanted) in [(true, vec![(1001, 1)]), (false, vec![])] {
        let (mut window, now) = (Window::default(), Instant::now());
        window.join(1, policy(1));
        window.offer(vec![item(1)]);
        assert_eq!(summary(&window.assign(now)), [(1, 1)]);
        assert!(window.leave(1, Departure::Gone).is_empty());
        window.join(2, policy(1));
        assert!(window.assign(now).is_empty());
        assert_eq!(summary(&window.answered(1, &[1], taken, now)), wanted);
        let next = if taken { vec![] } else { vec![(2, 1)] };
        assert_eq!(summary(&window.assign(now)), next);
    }
}

#[test]
fn a_delivery_that_may_be_one_of_many_is_made_durable_before_it_begins() {
    let (mut window, now) = (Window::default(), Instant::now());
    window.set_records(true);
    window.join(1, policy(3));
    window.offer(vec![item(1), item(2)]);
    assert_eq!(summary(&window.assign(now)), [(2001, 1)], "nobody knows yet whether this member lives long");
    assert_eq!(window.counts(), BTreeMap::from([(1, 1)]), "what is to be stored");
    assert!(window.recorded(1, &[2], now).is_empty() && window.recorded(2, &[1], now).is_empty());
    assert_eq!(window.recorded(1, &[1], now).iter().map(|item| item.sequence()).collect::<Vec<_>>(), [1]);
    assert!(window.recorded(1, &[1], now).is_empty(), "once");
    assert!(window.answered(1, &[1], true, now).is_empty());
    assert_eq!(window.counts(), BTreeMap::from([(1, 1)]));
    assert_eq!(ack(&mut window, 1, 1, now), Some(1));
    assert_eq!(summary(&window.assign(now)), [(1, 2)], "the healthy way has no such step");
    assert!(window.answered(1, &[2], true, now).is_empty());
    assert_eq!(summary(&window.expire(now + REDELIVERY)), [(2001, 2)], "a second delivery has");
    assert_eq!(window.counts(), BTreeMap::from([(2, 2)]));
    assert!(window.leave(1, Departure::Gone).is_empty());
    assert_eq!(window.counts(), BTreeMap::from([(2, 1)]), "it did not begin");
}

#[test]
fn a_window_goes_on_where_the_one_before_has_stopped() {
    let (mut window, now) = (Window::default(), Instant::now());
    window.resume(
        vec![Range { first: 3, last: 4 }],
        &[Attempts { sequence: 2, count: 2 }, Attempts { sequence: 9, count: 1 }],
    );
    assert_eq!(window.counts(), BTreeMap::from([(2, 2), (9, 1)]), "also what was not offered yet");
    window.join(1, policy(2));
    window.offer((1..=5).map(item).collect());
    assert_eq!(window.done(), [Range { first: 3, last: 4 }]);
    assert_eq!(summary(&window.assign(now)), [(1, 1)]);
    assert!(window.answered(1, &[1], true, now).is_empty());
    assert_eq!(ack(&mut window, 1, 1, now), Some(1));
    assert_eq!(summary(&window.assign(now)), [(1001, 2), (1, 5)], "had its two deliveries before");
    window.dead_letter_done(2);
    assert_eq!(window.floor(6), 4);
    assert_eq!(window.done(), []);
}

#[test]
fn ranges_do_not_cover_what_is_not_done() {
    let mut clients = EagerClients::new([(1, 0), (2, 0)], 9);
    clients.window.resume(vec![Range { first: 12, last: 12 }, Range { first: 14, last: 14 }], &[]);
    clients.window.offer((10..=15).map(item).collect());
    assert_eq!(clients.assign(), [(1, 1), (2, 2)]);
    for sequence in [2, 3, 5] {
        // Position 4 is no event of this pattern.
        clients.window.unsent.retain(|pending| pending.item.sequence() != 4);
        assert_eq!(ack(&mut clients.window, 2, sequence, clients.now), Some(sequence));
        clients.assign();
    }
    assert_eq!(clients.window.floor(16), 0);
    let wanted = [(2, 5), (12, 12), (14, 14)].map(|(first, last)| Range { first, last });
    assert_eq!(clients.window.done(), wanted);
}
