//! Many events in flight, and what clients say of them.

use super::*;

#[test]
fn a_member_gets_as_many_events_as_it_wants_and_more_for_each_that_is_done() {
    let (mut window, now) = (Window::default(), Instant::now());
    window.join(1, many(3, 4));
    window.offer((1..=10).map(item).collect());
    let steps = window.assign(now);
    assert_eq!((steps.len(), summary(&steps)), (1, vec![(1, 1), (1, 2), (1, 3), (1, 4)]), "in one write");
    assert!(window.answered(1, &[1, 2, 3, 4], true, now).is_empty());
    assert!(window.assign(now).is_empty());
    assert_eq!(ack(&mut window, 1, 2, now), Some(2));
    assert_eq!((window.floor(11), window.done()), (0, vec![Range { first: 2, last: 2 }]));
    assert_eq!(summary(&window.assign(now)), [(1, 5)]);
    let up_to = Acknowledgement { which: Which::UpTo(item(4).id()), outcome: Outcome::Ack };
    assert_eq!(window.acknowledge(1, &up_to, now).0.count, 3);
    assert_eq!(window.floor(11), 4);
    let both = said(&[5, 9], Outcome::Ack);
    let acknowledged = window.acknowledge(1, &both, now).0;
    assert_eq!((acknowledged.count, acknowledged.not_in_flight), (1, vec![item(9).id()]), "9 is not sent yet");
}

#[test]
fn bytes_in_flight_are_bounded_too() {
    let large = |sequence| {
        let (mut record, payload) = (Vec::new(), vec![b'1'; 300 << 10]);
        Event { subject: "a.b", payload: Some(&payload), ..Event::default() }.encode(&mut record).unwrap();
        Arc::new(StoredEvent::stored(sequence, Bytes::from(record)))
    };
    let (mut window, now) = (Window::default(), Instant::now());
    window.join(1, many(3, 100));
    window.offer((1..=10).map(large).collect());
    assert_eq!(summary(&window.assign(now)).len(), 4);
    assert!(window.answered(1, &[1, 2, 3, 4], true, now).is_empty());
    assert_eq!(window.acknowledge(1, &said(&[1, 2], Outcome::Ack), now).0.count, 2);
    assert_eq!(summary(&window.assign(now)), [(1, 5), (1, 6)]);
}

#[test]
fn members_with_room_share_what_waits() {
    let (mut window, now) = (Window::default(), Instant::now());
    (1..=3).for_each(|member| window.join(member, many(3, 100)));
    window.offer((1..=9).map(item).collect());
    let given = summary(&window.assign(now));
    for member in 1..=3 {
        assert_eq!(given.iter().filter(|(to, _)| *to == member).count(), 3, "{given:?}");
    }
}

/// A client that dies of an event has many others at that time. They are not given up with that event.
#[test]
fn only_the_event_that_its_members_die_of_is_given_up() {
    let (mut window, now) = (Window::default(), Instant::now());
    window.offer((1..=10).map(item).collect());
    let (mut given_up, mut done) = (Vec::new(), BTreeSet::new());
    for member in 1..100 {
        window.join(member, many(3, 100));
        // The client takes what comes, one after the other, and dies when it takes event 5.
        loop {
            let steps = window.assign(now);
            let taken = summary(&steps);
            let sequences: Vec<u64> = taken.iter().map(|(_, sequence)| *sequence).collect();
            assert!(window.answered(member, &sequences, true, now).is_empty());
            let Some(sequence) = window.windows.get(&member).unwrap().flights().keys().next().copied() else { break };
            if sequence == 5 {
                break;
            }
            assert_eq!(ack(&mut window, member, sequence, now), Some(sequence));
            done.insert(sequence);
        }
        for step in window.leave(member, Departure::Gone) {
            let Step::DeadLetter(_, item, ..) = step else { panic!("{step:?}") };
            window.dead_letter_done(item.sequence());
            given_up.push(item.sequence());
        }
    }
    assert_eq!((given_up, done.len(), window.floor(11)), (vec![5], 9, 10));
}

#[test]
fn what_is_not_processed_comes_again_at_once_or_later_or_as_the_backoff_says() {
    let (mut window, mut now) = (Window::default(), Instant::now());
    let seconds = Duration::from_secs;
    window.join(1, DeliveryPolicy { backoff: [seconds(1), seconds(10)].into(), ..many(4, 1) });
    window.offer(vec![item(1)]);
    assert_eq!(summary(&window.assign(now)), [(1, 1)]);
    assert!(window.answered(1, &[1], true, now).is_empty());
    assert!(window.acknowledge(1, &said(&[1], Outcome::Nack(Some(Duration::ZERO))), now).1.is_empty());
    assert_eq!(summary(&window.assign(now)), [(1, 1)], "at once");
    assert!(window.answered(1, &[1], true, now).is_empty());
    assert!(window.acknowledge(1, &said(&[1], Outcome::Nack(None)), now).1.is_empty());
    assert!(window.assign(now).is_empty());
    assert_eq!((window.deadline(), window.floor(2)), (Some(now + seconds(1)), 0));
    now += seconds(10);
    assert_eq!(summary(&window.expire(now)), [(1, 1)], "the second wait of the back-off is over");
    assert!(window.answered(1, &[1], true, now).is_empty());
    assert_eq!(window.take_sent_again(), 2);
    assert!(window.acknowledge(1, &said(&[1], Outcome::Nack(Some(seconds(7)))), now).1.is_empty());
    assert!(window.expire(now + seconds(6)).is_empty());
    assert_eq!(summary(&window.expire(now + seconds(7))), [(1, 1)]);
    assert!(window.answered(1, &[1], true, now).is_empty());
    let last = window.acknowledge(1, &said(&[1], Outcome::Nack(None)), now).1;
    assert!(matches!(&last[..], [Step::DeadLetter(1, _, 4, GivenUp::Count)]), "{last:?}");
}

#[test]
fn what_is_rejected_is_a_dead_letter_now_and_what_is_in_progress_is_waited_for() {
    let (mut window, now) = (Window::default(), Instant::now());
    window.join(1, many(3, 2));
    window.offer(vec![item(1), item(2)]);
    assert_eq!(summary(&window.assign(now)), [(1, 1), (1, 2)]);
    assert!(window.answered(1, &[1, 2], true, now).is_empty());
    let steps = window.acknowledge(1, &said(&[1], Outcome::Reject("bad".to_owned())), now).1;
    assert!(matches!(&steps[..], [Step::DeadLetter(1, _, 1, GivenUp::Rejected(why))] if why == "bad"), "{steps:?}");
    let later = now + REDELIVERY / 2;
    assert!(window.acknowledge(1, &said(&[2], Outcome::InProgress), later).0.is_any());
    assert!(window.expire(now + REDELIVERY).is_empty(), "its time began anew");
    assert_eq!(summary(&window.expire(later + REDELIVERY)), [(1, 2)]);
}

/// A client that works on one event after the other has not had its turn with those behind.
#[test]
fn an_acknowledgement_begins_the_wait_of_the_events_behind_it_anew() {
    let (mut window, now) = (Window::default(), Instant::now());
    window.join(1, many(3, 3));
    window.offer((1..=3).map(item).collect());
    assert_eq!(summary(&window.assign(now)).len(), 3);
    assert!(window.answered(1, &[1, 2, 3], true, now).is_empty());
    let later = now + REDELIVERY - Duration::from_secs(1);
    assert_eq!(ack(&mut window, 1, 2, later), Some(2));
    assert_eq!(summary(&window.expire(now + REDELIVERY)), [(1, 1)], "the one before it was passed over");
    assert_eq!(summary(&window.expire(later + REDELIVERY)), [(1, 3)]);
}
