//! A good history, and one broken in each way: the checker names exactly what is broken.

use super::story::{DURABLE, REGISTER, Story, TAIL, fault, good, id_at, lab, payload};
use super::{Bounds, Property, Report, broken, check};
use crate::history::{History, LAB, Log, Op, Phase, Publish, Record};

/// Takes away every line about a payload that a consumer saw or a node keeps.
pub(super) fn erase(story: &mut Story, gone: u64) {
    story.records.retain(|record| match record.op {
        Op::Deliver { payload, .. } | Op::Stored { payload, .. } => payload != gone,
        _ => true,
    });
}

/// Takes an event out of the log `lab` and lets all that follow move up, as if it had never been there.
fn pull(story: &mut Story, gone: u64) {
    let place = lab().iter().find(|(_, payload)| *payload == gone).map(|(index, _)| *index).expect("a payload");
    erase(story, gone);
    for record in &mut story.records {
        match &mut record.op {
            Op::Deliver { log: Log::Lab, index, id, .. } | Op::Stored { log: Log::Lab, index, id, .. }
                if *index > place =>
            {
                *index -= 1;
                *id = id_at(*index);
            }
            Op::Publish(Publish { log: Log::Lab, index: Some(index), id, .. }) if *index > place => {
                *index -= 1;
                *id = Some(id_at(*index));
            }
            _ => {}
        }
    }
}

/// Exchanges what stands at two places of `lab`, for everybody and in the answers.
pub(super) fn swap(story: &mut Story, one: u64, two: u64) {
    let values = lab();
    let payload_at = |index: u64| values.iter().find(|(own, _)| *own == index).map(|(_, payload)| *payload);
    let (first, second) = (payload_at(one).expect("an event"), payload_at(two).expect("an event"));
    let other = |payload: u64| {
        if payload == first {
            second
        } else if payload == second {
            first
        } else {
            payload
        }
    };
    for record in &mut story.records {
        match &mut record.op {
            Op::Deliver { log: Log::Lab, payload, .. } | Op::Stored { log: Log::Lab, payload, .. } => {
                *payload = other(*payload);
            }
            Op::Publish(Publish { log: Log::Lab, payload, index: Some(index), id, .. })
                if other(*payload) != *payload =>
            {
                *index = if *payload == first { two } else { one };
                *id = Some(id_at(*index));
            }
            _ => {}
        }
    }
}

/// The records that keep `index` of a log on a node.
fn kept(story: &mut Story, wanted: Log, node: u64, place: u64) -> &mut Record {
    let mut records = story.records.iter_mut();
    let found = records.find(|record| {
        matches!(record.op, Op::Stored { log, index, .. } if log == wanted && index == place && record.node == node)
    });
    found.expect("a stored event")
}

pub(super) fn judge(story: Story) -> Vec<Property> {
    let history = History { records: story.records };
    let violations = check(&history, &Bounds::default());
    eprintln!("{}", Report(&violations));
    broken(&violations)
}

/// The good history with one thing wrong.
pub(super) fn spoiled(spoil: impl FnOnce(&mut Story)) -> Vec<Property> {
    let mut story = good();
    spoil(&mut story);
    judge(story)
}

#[test]
fn a_good_history_has_no_violations() {
    assert_eq!(judge(good()), []);
}

#[test]
fn an_acknowledged_write_that_is_nowhere_is_lost() {
    let found = spoiled(|story| {
        story.publish(Log::Lab, 2, 1, 99, 11);
        story.records.iter_mut().for_each(|record| {
            if let Op::Publish(publish) = &mut record.op
                && publish.payload == payload(2, 99)
            {
                (publish.index, publish.id) = (None, None);
            }
        });
    });
    assert_eq!(found, [Property::LostWrite]);
}

#[test]
fn an_acknowledged_write_before_a_visible_one_of_the_same_producer_is_a_hole() {
    // The second of the producer's; its answer told another position than anybody has now, so it goes as well.
    let found = spoiled(|story| {
        pull(story, payload(1, 2));
        story.records.iter_mut().for_each(|record| {
            if let Op::Publish(publish) = &mut record.op
                && publish.payload == payload(1, 2)
            {
                (publish.index, publish.id) = (None, None);
            }
        });
    });
    assert_eq!(found, [Property::Hole]);
}

#[test]
fn a_single_attempt_at_two_places_is_stored_twice() {
    let again = |story: &mut Story| {
        story.deliver(TAIL, Log::Lab, 1, 11, payload(1, 5));
        story.stored(Log::Lab, 11, payload(1, 5));
    };
    assert_eq!(spoiled(again), [Property::StoredTwice]);
    let with_a_key = spoiled(|story| {
        let second = Publish { attempt: 2, ..Publish::new(Log::Lab, payload(1, 5), 1, 2) };
        story.call(1, 1, Phase::Ok, &Op::Publish(second));
        again(story);
    });
    assert_eq!(with_a_key, [Property::Duplicate], "the key was to prevent that");
}

#[test]
fn a_position_that_a_tailing_consumer_gets_twice_is_a_duplicate() {
    assert_eq!(spoiled(|story| story.deliver(TAIL, Log::Lab, 1, 10, payload(1, 21))), [Property::Duplicate]);
}

#[test]
fn a_write_that_nobody_made_is_a_phantom() {
    let found = spoiled(|story| {
        story.deliver(TAIL, Log::Lab, 1, 11, payload(3, 1));
        story.stored(Log::Lab, 11, payload(3, 1));
    });
    assert_eq!(found, [Property::Phantom]);
}

#[test]
fn half_a_batch_is_torn() {
    let found = spoiled(|story| {
        erase(story, payload(1, 21));
        let batch = story.records.iter_mut().filter(|record| record.phase == Phase::Ok);
        let batch = batch.filter(|record| matches!(&record.op, Op::Publish(publish) if publish.count == 2));
        // Unknown: it need not be there, but not half of it.
        batch.for_each(|record| record.phase = Phase::Unknown);
    });
    assert_eq!(found, [Property::TornBatch]);
}

#[test]
fn two_values_at_one_position_are_inconsistent_offsets() {
    let other_node = spoiled(|story| {
        let record = kept(story, Log::Lab, 3, 4);
        // The unknown write, on one node with another id.
        if let Op::Stored { id, .. } = &mut record.op {
            "e_other".clone_into(id);
        }
    });
    assert_eq!(other_node, [Property::InconsistentOffsets]);
    let other_time = spoiled(|story| {
        let delivered = story.records.iter_mut().find_map(|record| match &mut record.op {
            Op::Deliver { index: 4, id, .. } => Some(id),
            _ => None,
        });
        "e_other".clone_into(delivered.expect("a delivery"));
    });
    assert_eq!(other_time, [Property::InconsistentOffsets]);
    let answer = spoiled(|story| {
        let told = story.records.iter_mut().find_map(|record| match &mut record.op {
            Op::Publish(Publish { log: Log::Work, index: Some(2), id: Some(id), .. }) => Some(id),
            _ => None,
        });
        "e_other".clone_into(told.expect("an answer"));
    });
    assert_eq!(answer, [Property::InconsistentOffsets]);
}

#[test]
fn a_consumer_that_sees_a_lower_position_travels_back() {
    let tailing = spoiled(|story| story.deliver(TAIL, Log::Lab, 1, 4, payload(1, 4)));
    assert_eq!(tailing, [Property::TravelBack]);
    let durable = spoiled(|story| {
        let acks = |record: &Record| matches!(record.op, Op::Ack { .. });
        story.records.retain(|record| !acks(record));
        story.deliver(DURABLE, Log::Work, 2, 1, payload(2, 1));
    });
    assert_eq!(durable, [Property::TravelBack]);
}

#[test]
fn a_page_that_jumps_over_a_position_is_a_skip() {
    let delivered = spoiled(|story| {
        story.records.retain(|record| !matches!(record.op, Op::Deliver { log: Log::Lab, index: 7, .. }));
    });
    assert_eq!(delivered, [Property::Skip]);
    let at_the_end = spoiled(|story| {
        // The unknown write: it may be missing, its position may not.
        erase(story, payload(1, 4));
        let tailing = |op: &Op| matches!(op, Op::Deliver { log: Log::Lab, .. } | Op::Subscribe { log: Log::Lab, .. });
        story.records.retain(|record| !tailing(&record.op));
    });
    assert_eq!(at_the_end, [Property::Skip]);
}

#[test]
fn writes_out_of_their_own_order_are_reported() {
    assert_eq!(spoiled(|story| swap(story, 1, 2)), [Property::ProducerOrder]);
}

#[test]
fn a_write_before_one_that_was_acknowledged_earlier_is_reported() {
    // Of two producers: the last of the first and the first of the second.
    let found = spoiled(|story| swap(story, 5, 6));
    assert_eq!(found, [Property::RealTimeOrder]);
}

#[test]
fn what_was_seen_and_is_gone_is_a_dirty_read() {
    let found = spoiled(|story| {
        let cut = Publish::new(Log::Lab, payload(1, 30), 1, 1);
        story.call(1, 2, Phase::Unknown, &Op::Publish(cut));
        story.deliver(TAIL, Log::Lab, 1, 11, payload(1, 30));
    });
    assert_eq!(found, [Property::DirtyRead]);
}

#[test]
fn a_read_of_what_was_overwritten_is_stale() {
    let read = |value| Op::Read { register: 0, value };
    assert_eq!(spoiled(|story| story.call(REGISTER, 1, Phase::Ok, &read(Some(1)))), [Property::StaleRead]);
    assert_eq!(spoiled(|story| story.call(REGISTER, 1, Phase::Ok, &read(Some(7)))), [Property::StaleRead]);
    let unknown = Op::Write { register: 0, value: 3 };
    let flip = spoiled(|story| {
        // It may take effect late, but it does not undo itself.
        story.call(REGISTER, 1, Phase::Unknown, &unknown);
        story.call(REGISTER, 2, Phase::Ok, &read(Some(3)));
        story.call(REGISTER, 1, Phase::Ok, &read(Some(2)));
    });
    assert_eq!(flip, [Property::StaleRead]);
    let late = spoiled(|story| {
        story.call(REGISTER, 1, Phase::Unknown, &unknown);
        story.call(REGISTER, 1, Phase::Ok, &read(Some(2)));
        story.call(REGISTER, 2, Phase::Ok, &read(Some(3)));
    });
    assert_eq!(late, []);
}

#[test]
fn an_event_that_comes_after_its_acknowledgement_is_a_redelivery() {
    let same = |millis: u64| {
        spoiled(move |story| {
            story.line(REGISTER, 3, Phase::Seen, Op::Floor { log: Log::Work, index: 3 });
            story.wait(millis);
            story.deliver(DURABLE, Log::Work, 2, 3, payload(2, 3));
        })
    };
    assert_eq!(same(1100), [Property::Redelivery], "on the same connection");
    assert_eq!(same(10), [], "it may have been on its way");
    let again = |story: &mut Story, index: u64| {
        story.call(DURABLE, 3, Phase::Ok, &Op::Subscribe { log: Log::Work, connection: 3, durable: true });
        story.deliver(DURABLE, Log::Work, 3, index, payload(2, index));
    };
    assert_eq!(spoiled(|story| again(story, 2)), [Property::Redelivery], "the connection had gone on behind it");
    assert_eq!(spoiled(|story| again(story, 3)), [], "an answer alone is no proof that it is committed");
    let told = spoiled(|story| {
        story.line(REGISTER, 3, Phase::Seen, Op::Floor { log: Log::Work, index: 3 });
        again(story, 3);
    });
    assert_eq!(told, [Property::Redelivery], "a node had told that it is committed");
    let unknown = spoiled(|story| {
        let acks = story.records.iter_mut().filter(|record| matches!(record.op, Op::Ack { index: 2, .. }));
        acks.filter(|record| record.phase == Phase::Ok).for_each(|record| record.phase = Phase::Unknown);
        again(story, 2);
    });
    assert_eq!(unknown, [], "before its acknowledgement is committed it may come again");
}

#[test]
fn a_replica_with_less_or_with_other_bytes_is_not_equal() {
    let shorter = spoiled(|story| {
        story.records.retain(|record| !(record.node == 3 && matches!(record.op, Op::Stored { index: 10, .. })));
    });
    assert_eq!(shorter, [Property::ReplicaEquality]);
    let unread = spoiled(|story| {
        story.records.retain(|record| !(record.node == 3 && matches!(record.op, Op::Stored { .. })));
    });
    assert_eq!(unread, [Property::ReplicaEquality]);
    let bytes = spoiled(|story| {
        if let Op::Stored { sum, .. } = &mut kept(story, Log::Roll, 2, 3).op {
            *sum = 77;
        }
    });
    assert_eq!(bytes, [Property::ReplicaEquality]);
}

#[test]
fn a_missing_and_a_double_lifecycle_event_are_reported() {
    let without = |wanted: u64| {
        spoiled(move |story| {
            story.records.retain(|record| !matches!(record.op, Op::Lifecycle { index, .. } if index == wanted));
        })
    };
    assert_eq!(without(4), [Property::Lifecycle], "the node went down");
    assert_eq!(without(5), [Property::Lifecycle], "it came back");
    assert_eq!(spoiled(|story| story.lifecycle(2, 6, 2, true)), [Property::Lifecycle], "twice up");
    let twice_down = spoiled(|story| {
        story.lifecycle(1, 6, 1, false);
        story.lifecycle(1, 7, 1, false);
        story.lifecycle(1, 8, 2, true);
    });
    assert_eq!(twice_down, [Property::Lifecycle]);
    let never_told = spoiled(|story| {
        story.line(LAB, 3, Phase::Seen, Op::Process { running: false });
        story.wait(9000);
        story.call(REGISTER, 1, Phase::Ok, &Op::Write { register: 0, value: 9 });
    });
    assert_eq!(never_told, [Property::Lifecycle], "gone for longer than the bound");
    let restarted = |worked: u64| {
        spoiled(move |story| {
            story.wait(4000);
            story.line(LAB, 3, Phase::Seen, Op::Process { running: false });
            story.line(LAB, 3, Phase::Seen, Op::Process { running: true });
            story.publish(Log::Lab, 2, 3, 90, 11);
            story.deliver(TAIL, Log::Lab, 1, 11, payload(2, 90));
            story.stored(Log::Lab, 11, payload(2, 90));
            story.wait(worked);
            story.call(REGISTER, 1, Phase::Ok, &Op::Write { register: 0, value: 9 });
        })
    };
    assert_eq!(restarted(4000), [Property::Lifecycle], "a second life that nobody was told of");
    assert_eq!(restarted(100), [], "a short one need not be told");
}

#[test]
fn a_node_that_takes_nothing_after_healing_is_reported() {
    let silent = spoiled(|story| {
        story.line(LAB, 2, Phase::Invoke, fault("pause", &[1, 3], false));
        story.line(LAB, 2, Phase::Ok, fault("pause", &[1, 3], false));
        for (node, index) in [(1, 11), (3, 12)] {
            story.publish(Log::Lab, 2, node, index + 30, index);
            story.deliver(TAIL, Log::Lab, 1, index, payload(2, index + 30));
            story.stored(Log::Lab, index, payload(2, index + 30));
        }
    });
    assert_eq!(silent, [Property::Liveness]);
    let stuck = spoiled(|story| {
        story.records.retain(|record| !matches!(record.op, Op::Deliver { log: Log::Lab, index: 9.., .. }));
    });
    assert_eq!(stuck, [Property::Liveness], "a consumer that does not get to the end");
}

#[test]
fn a_majority_without_acknowledgements_is_not_available() {
    let silent = |majority: &'static [u64]| {
        spoiled(move |story| {
            story.line(LAB, 2, Phase::Invoke, fault("partition", majority, false));
            story.wait(3100);
            story.line(LAB, 2, Phase::Ok, fault("partition", majority, false));
            for (node, index) in [(1, 11), (2, 12), (3, 13)] {
                story.publish(Log::Lab, 2, node, index + 30, index);
                story.deliver(TAIL, Log::Lab, 1, index, payload(2, index + 30));
                story.stored(Log::Lab, index, payload(2, index + 30));
            }
        })
    };
    assert_eq!(silent(&[1, 3]), [Property::Availability]);
    assert_eq!(silent(&[]), [], "without a majority nothing is promised");
}

#[test]
fn a_hand_over_that_a_second_attempt_still_notices_is_reported() {
    let found = spoiled(|story| {
        let during = story.records.iter().position(|record| {
            matches!(&record.op, Op::Publish(publish) if publish.payload == payload(2, 6))
                && record.phase == Phase::Fail
        });
        let at = story.records[during.expect("the refused publish")].at;
        let again = Publish::new(Log::Lab, payload(2, 6), 1, 2);
        let place = during.expect("the refused publish") + 1;
        for (offset, phase) in [(1, Phase::Fail), (0, Phase::Invoke)] {
            let op = Op::Publish(again.clone());
            story.records.insert(place, Record { at: at + offset, wall: 0, process: 2, node: 1, phase, op });
        }
    });
    assert_eq!(found, [Property::HandOver]);
}
