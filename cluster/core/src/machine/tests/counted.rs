//! From feature level `COUNTED` on, a durable consumer remembers deliveries, and takes progress only from its newest
//! start.

use super::level::{latest_replica, raise};
use super::*;
use crate::command::admission::check_level;
use crate::consumer::{Attempts, ConsumerStart, Range};
use crate::limits::{CONSUMER_ATTEMPTS_MAX, CONSUMER_RANGES_MAX};

const OWNER: Owner = Owner { node: 1, incarnation: 2 };

fn range((first, last): (u64, u64)) -> Range {
    Range { first, last }
}

fn attempts((sequence, count): (u64, u32)) -> Attempts {
    Attempts { sequence, count }
}

fn open() -> Vec<u8> {
    let consumer = Consumer { name: "c".into(), subject: "app.>".into(), ..Consumer::default() };
    Command::ConsumerOpen(ConsumerOpen { namespace: "app".into(), consumer, claimant: Some(OWNER) }).frame().unwrap()
}

fn start(owner: Owner) -> Vec<u8> {
    Command::ConsumerStart(ConsumerStart { namespace: "app".into(), name: "c".into(), owner }).frame().unwrap()
}

fn advance(ack_floor: u64, epoch: u64, done: &[(u64, u64)], counts: &[(u64, u32)]) -> Vec<u8> {
    let advance = ConsumerAdvance {
        namespace: "app".into(),
        name: "c".into(),
        ack_floor,
        owner: Some(OWNER),
        generation: 0,
        epoch,
        done: done.iter().copied().map(range).collect(),
        attempts: counts.iter().copied().map(attempts).collect(),
    };
    Command::ConsumerAdvance(advance).frame().unwrap()
}

/// Steps of the random test: starts, and advances with ranges and counts.
pub(super) fn step() -> impl Strategy<Value = Vec<u8>> {
    let pairs = proptest::collection::vec((0_u64..14, 0_u64..14), 0..4);
    let counts = proptest::collection::vec((0_u64..14, 0_u32..4), 0..4);
    let advances = (0_u64..10, 0_u64..3, pairs, counts);
    prop_oneof![
        2 => advances.prop_map(|(floor, epoch, done, counts)| advance(floor, epoch, &done, &counts)),
        1 => (1_u64..3).prop_map(|incarnation| start(Owner { node: 1, incarnation })),
    ]
}

/// A replica with ten events and a consumer that the node serves.
fn with_served_consumer(mut replica: Replica) -> Replica {
    drop(replica.apply_one(node_up(OWNER.node, OWNER.incarnation)));
    (0..10).for_each(|_| drop(replica.apply_one(plain("app"))));
    assert!(replica.apply_one(open()).is_ok());
    replica
}

fn consumer_row(replica: &Replica) -> &Consumer {
    replica.machine.consumer(replica.machine.head("app").unwrap().id, "c").unwrap()
}

/// An ack floor, the ranges of done events beyond it, and the delivery counts.
type Progress = (u64, Vec<(u64, u64)>, Vec<(u64, u32)>);

fn progress(replica: &Replica) -> Progress {
    let row = consumer_row(replica);
    let done = row.done.iter().map(|of| (of.first, of.last)).collect();
    (row.ack_floor, done, row.attempts.iter().map(|of| (of.sequence, of.count)).collect())
}

fn epoch(reply: Reply) -> u64 {
    match reply {
        Ok(Done::Consumer(consumer)) => consumer.epoch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_done_behind_the_floor_and_the_counts_are_kept_until_the_floor_passes_them() {
    let mut replica = with_served_consumer(latest_replica());
    assert_eq!(epoch(replica.apply_one(start(OWNER))), 1);
    let mut advance_and_read = |floor, done: &[(u64, u64)], counts: &[(u64, u32)]| {
        assert_eq!(replica.apply_one(advance(floor, 1, done, counts)), Ok(Done::Nothing));
        assert_eq!(&replica.machine, &replica.reloaded());
        progress(&replica)
    };
    assert_eq!(
        advance_and_read(1, &[(3, 3), (6, 7)], &[(2, 1), (4, 2)]),
        (1, vec![(3, 3), (6, 7)], vec![(2, 1), (4, 2)])
    );
    assert_eq!(advance_and_read(1, &[(4, 5)], &[(2, 3)]), (1, vec![(3, 7)], vec![(2, 3)]), "ranges that touch are one");
    assert_eq!(advance_and_read(1, &[], &[(2, 0), (8, 1)]), (1, vec![(3, 7)], vec![(8, 1)]), "a count is taken back");
    assert_eq!(advance_and_read(4, &[], &[]), (4, vec![(5, 7)], vec![(8, 1)]), "the floor is in the middle of a range");
    assert_eq!(
        advance_and_read(0, &[(9, 99), (3, 2)], &[(99, 1), (6, 1)]),
        (4, vec![(5, 7), (9, 10)], vec![(8, 1)]),
        "not more than there is"
    );
    assert_eq!(advance_and_read(10, &[], &[]), (10, vec![], vec![]));
}

#[test]
fn an_older_start_of_the_same_node_is_not_heard_any_more() {
    let mut replica = with_served_consumer(latest_replica());
    assert!(replica.apply_one(advance(1, 0, &[], &[])).is_ok(), "begun before the cluster was at this level");
    assert_eq!(epoch(replica.apply_one(start(OWNER))), 1);
    assert_eq!(epoch(replica.apply_one(start(OWNER))), 2);
    assert_eq!(epoch(replica.apply_one(open())), 2, "a member that comes is no start");
    for old in [0, 1, 3] {
        assert!(
            matches!(replica.apply_one(advance(9, old, &[(5, 5)], &[(6, 1)])), Err(Refusal::Unavailable(_))),
            "{old}"
        );
        assert_eq!(progress(&replica), (1, vec![], vec![]));
    }
    assert!(replica.apply_one(advance(2, 2, &[], &[(3, 1)])).is_ok());
    assert_eq!(progress(&replica), (2, vec![], vec![(3, 1)]));
}

#[test]
fn only_a_living_node_that_takes_nothing_from_another_begins_to_serve() {
    let mut replica = with_served_consumer(latest_replica());
    let other = Owner { node: 2, incarnation: 1 };
    assert!(matches!(replica.apply_one(start(other)), Err(Refusal::Unavailable(_))), "it is not here");
    drop(replica.apply_one(node_up(2, 1)));
    assert!(matches!(replica.apply_one(start(other)), Err(Refusal::Unavailable(_))), "it is served");
    assert_eq!(epoch(replica.apply_one(start(OWNER))), 1);
    assert!(replica.apply_one(advance(1, 1, &[(3, 4)], &[(2, 2)])).is_ok());
    drop(replica.apply_one(node_down(OWNER.node, OWNER.incarnation)));
    assert_eq!(epoch(replica.apply_one(start(other))), 2);
    assert_eq!(consumer_row(&replica).owner, Some(other));
    assert_eq!(progress(&replica), (1, vec![(3, 4)], vec![(2, 2)]), "and goes on with what the first one counted");
    let delete = Command::ConsumerDelete(ConsumerDelete { namespace: "app".into(), name: "c".into() });
    drop(replica.apply_one(delete.frame().unwrap()));
    assert_eq!(replica.apply_one(start(other)), Err(Refusal::ConsumerNotFound("c".into())), "what is deleted stays so");
}

#[test]
fn a_reset_forgets_the_counts_and_what_was_done() {
    let mut replica = with_served_consumer(latest_replica());
    assert_eq!(epoch(replica.apply_one(start(OWNER))), 1);
    assert!(replica.apply_one(advance(4, 1, &[(6, 7)], &[(5, 2)])).is_ok());
    let set = |ack_floor, paused| {
        let set = ConsumerSet { namespace: "app".into(), name: "c".into(), ack_floor, paused };
        Command::ConsumerSet(set).frame().unwrap()
    };
    drop(replica.apply_one(set(None, Some(true))));
    assert_eq!(progress(&replica), (4, vec![(6, 7)], vec![(5, 2)]), "a pause does not");
    drop(replica.apply_one(set(Some(4), None)));
    assert_eq!(progress(&replica), (4, vec![], vec![]));
}

#[test]
fn a_row_is_bounded_whatever_is_said() {
    let mut replica = with_served_consumer(latest_replica());
    let many = u64::try_from(CONSUMER_RANGES_MAX.max(CONSUMER_ATTEMPTS_MAX)).unwrap();
    let events: Vec<_> = (0..1000).map(|_| event_of("app.x", "", "")).collect();
    (0..6).for_each(|_| drop(replica.apply_one(publish("app", &events, 0))));
    assert_eq!(epoch(replica.apply_one(start(OWNER))), 1);
    let done: Vec<(u64, u64)> = (1..=many).map(|at| (at * 4, at * 4)).collect();
    let counts: Vec<(u64, u32)> = (1..=many).map(|at| (at * 4 + 1, u32::MAX)).collect();
    assert!(replica.apply_one(advance(0, 1, &done, &counts)).is_ok());
    assert!(replica.apply_one(advance(0, 1, &[(2, 2)], &[(3, 1)])).is_ok());
    let row = consumer_row(&replica);
    assert_eq!((row.done.len(), row.attempts.len()), (CONSUMER_RANGES_MAX, CONSUMER_ATTEMPTS_MAX));
    assert!(row.is_done(2) && !row.is_done(many * 4), "what is last goes");
    let bytes = row.encoded_len();
    assert!(bytes < 45 << 10, "{bytes} bytes");
    let more: Vec<(u64, u64)> = (0..=many).map(|at| (at * 4 + 2, at * 4 + 2)).collect();
    let malformed = |reply: Reply| matches!(reply, Err(Refusal::Malformed(_)));
    assert!(malformed(replica.apply_one(advance(0, 1, &more, &[]))));
}

#[test]
fn below_the_level_all_is_as_before_byte_for_byte_and_nothing_new_is_proposed() {
    for level in [FeatureLevel::FIRST, FeatureLevel::BOUNDED] {
        let [mut old, mut new] = [(), ()].map(|()| {
            let mut replica = Replica::default();
            drop(replica.apply_one(raise(level.get())));
            with_served_consumer(replica)
        });
        for (floor, done, counts) in [(2, [(4, 5)], [(3, 1)]), (1, [(9, 9)], [(3, 2)]), (6, [(8, 8)], [(7, 1)])] {
            let reply = new.apply_one(advance(floor, 7, &done, &counts));
            assert_eq!(
                old.apply_one(advance(floor, 0, &[], &[])),
                reply,
                "a release before does not see the new fields"
            );
            assert_eq!(old.memory.rows, new.memory.rows);
        }
        assert_eq!(progress(&new), (6, vec![], vec![]));
        for frame in
            [start(OWNER), advance(1, 1, &[], &[]), advance(1, 0, &[(2, 2)], &[]), advance(1, 0, &[], &[(2, 1)])]
        {
            assert!(matches!(check_level(&frame, 1, level), Err(Refusal::Unavailable(_))));
            assert_eq!(check_level(&frame, 1, FeatureLevel::COUNTED), Ok(()));
        }
        assert_eq!(check_level(&advance(1, 0, &[], &[]), 1, level), Ok(()));
    }
}

#[test]
fn a_row_of_a_release_before_reads_as_before() {
    let mut replica = Replica::default();
    replica = with_served_consumer(replica);
    assert!(replica.apply_one(advance(3, 0, &[], &[])).is_ok());
    let before = consumer_row(&replica).encode_to_vec();
    replica.machine = replica.reloaded();
    drop(replica.apply_one(raise(FeatureLevel::COUNTED.get())));
    assert_eq!(consumer_row(&replica).encode_to_vec(), before, "the raise alone changes no row");
    assert_eq!(epoch(replica.apply_one(start(OWNER))), 1);
    assert_eq!(progress(&replica), (3, vec![], vec![]));
}

#[test]
fn what_a_client_says_of_a_new_consumer_is_not_believed() {
    let mut replica = with_served_consumer(latest_replica());
    let consumer = Consumer {
        name: "d".into(),
        subject: "app.>".into(),
        done: vec![range((1, 9))],
        attempts: vec![attempts((3, 9))],
        epoch: 9,
        ..Consumer::default()
    };
    let open = ConsumerOpen { namespace: "app".into(), consumer, claimant: None };
    let Ok(Done::Consumer(made)) = replica.apply_one(Command::ConsumerOpen(open).frame().unwrap()) else {
        panic!("made")
    };
    assert_eq!((made.done, made.attempts, made.epoch), (vec![], vec![], 0));
}
