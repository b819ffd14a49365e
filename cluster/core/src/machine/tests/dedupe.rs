//! Dedupe keys and chosen ids from feature level `BOUNDED` on: the replies that clients get.

use super::*;
use crate::command::Tidy;
use crate::entry::FLAG_RESTORE;
use crate::error::Repeated;
use crate::limits::{DEDUPE_KEY_BYTES_MAX, DEDUPE_KEYS_MAX, DEDUPE_WINDOW_MS};
use crate::namespace::DedupeState;

/// A replica that follows the rules of level `BOUNDED`.
pub(super) fn bounded() -> Replica {
    let mut replica = Replica::default();
    raise(&mut replica);
    replica
}

/// Raises the level to `BOUNDED` between two entries. A higher level stays: none is ever lowered.
pub(super) fn raise(replica: &mut Replica) {
    replica.machine.level = replica.machine.level.max(FeatureLevel::BOUNDED);
    let level = u64::from(replica.machine.level.get());
    replica.memory.rows.insert((Family::Meta, META_LEVEL.into()), level.to_be_bytes().into());
}

pub(super) fn tidy_up() -> Vec<u8> {
    Command::Tidy(Tidy {}).frame().unwrap()
}

pub(super) fn trim(name: &str, first: u64) -> Vec<u8> {
    Command::Trim(Trim { name: name.into(), first, bytes_first: 0 }).frame().unwrap()
}

pub(super) fn set_window(name: &str, dedupe_window_ms: u64) -> Vec<u8> {
    let retention = Retention { dedupe_window_ms, ..Retention::default() };
    Command::NamespaceRetain(NamespaceRetain { name: name.into(), retention }).frame().unwrap()
}

/// Changes the counters of the namespace `app`, and returns them.
fn change_dedupe(replica: &mut Replica, change: impl FnOnce(&mut DedupeState)) -> DedupeState {
    let dedupe = replica.machine.heads.get_mut("app").and_then(|head| head.dedupe.as_mut()).unwrap();
    change(dedupe);
    let now = *dedupe;
    replica.machine.due =
        replica.machine.heads().filter_map(|head| Some((tidy::due(head)?, head.name.clone()))).collect();
    now
}

fn apply_frame_at(replica: &mut Replica, millis: u64, frame: Vec<u8>) -> Reply {
    replica.apply_at(millis, &[frame]).pop().unwrap()
}

fn key_processed(position: u32, sequence: u64, id: &str) -> Reply {
    let created_at = (sequence > 0).then_some(Timestamp { seconds: 5, nanos: 0 });
    Err(Refusal::KeyProcessed(Some(Repeated { position, sequence, id: id.into(), created_at, waits: false }.into())))
}

#[test]
fn a_key_is_remembered_for_two_minutes_however_many_come_meanwhile() {
    let mut replica = bounded();
    assert_eq!(apply_frame_at(&mut replica, 1000, keyed("first")), published(1, 1));
    let keys: Vec<_> = (0..5000).map(|n| n.to_string()).collect();
    let events: Vec<_> = keys.iter().map(|key| event("app.x", key, "")).collect();
    assert_eq!(apply_frame_at(&mut replica, 1000, publish("app", &events, 0)), published(2, 5000));
    let id = replica.memory.events(1)[0].1.clone();
    assert_eq!(apply_frame_at(&mut replica, 1000, keyed("first")), key_processed(0, 1, &id));
    assert_eq!(apply_frame_at(&mut replica, 999 + DEDUPE_WINDOW_MS, keyed("first")), key_processed(0, 1, &id));
    assert_eq!(
        apply_frame_at(&mut replica, 1000 + DEDUPE_WINDOW_MS, keyed("first")),
        published(5002, 1),
        "its time is over"
    );
    assert_eq!(
        apply_frame_at(&mut replica, 0, keyed("first")),
        key_processed(0, 5002, &replica.memory.events(1)[5001].1.clone())
    );
}

#[test]
fn a_namespace_may_say_how_long() {
    let mut replica = bounded();
    let retention = Retention { dedupe_window_ms: 600_000, ..Retention::default() };
    let create = NamespaceCreate { name: "app".into(), retention };
    drop(apply_frame_at(&mut replica, 0, Command::NamespaceCreate(create).frame().unwrap()));
    assert_eq!(apply_frame_at(&mut replica, 0, keyed("k")), published(1, 1));
    assert!(apply_frame_at(&mut replica, 599_999, keyed("k")).is_err());
    assert!(apply_frame_at(&mut replica, 599_999, set_window("app", 700_000)).is_ok());
    assert!(apply_frame_at(&mut replica, 650_000, keyed("k")).is_err(), "a longer time counts for what is remembered");
    assert!(apply_frame_at(&mut replica, 650_000, set_window("app", 1000)).is_ok());
    assert_eq!(apply_frame_at(&mut replica, 650_000, keyed("k")), published(2, 1), "and a shorter one");
}

#[test]
fn nodes_of_the_release_before_do_not_know_a_window() {
    let mut replica = Replica::default();
    drop(replica.apply_one(keyed("k")));
    drop(replica.apply_one(set_window("app", 5000)));
    assert_eq!(replica.machine.head("app").unwrap().retention, Retention::default());
    assert_eq!(replica.apply_one(tidy_up()), Err(Refusal::Malformed("unknown command".into())));
    assert!(replica.machine.head("app").unwrap().dedupe.is_none() && replica.machine.tidy_due().is_none());
    let retention = Retention { dedupe_window_ms: 5000, ..Retention::default() };
    let retain = NamespaceRetain { name: "app".into(), retention };
    assert_eq!(Command::NamespaceRetain(retain).required_level(), FeatureLevel::BOUNDED);
    let retain = NamespaceRetain { name: "app".into(), retention: Retention::default() };
    assert_eq!(Command::NamespaceRetain(retain).required_level(), FeatureLevel::FIRST);
}

#[test]
fn a_repetition_is_told_where_the_first_one_is() {
    let mut replica = bounded();
    let named = publish("app", &[event("app.x", "k", "order-1")], FLAG_CREATE);
    assert_eq!(replica.apply_one(named.clone()), published(1, 1));
    assert_eq!(replica.apply_one(keyed("k")), key_processed(0, 1, "order-1"));
    assert_eq!(replica.apply_one(named), key_processed(0, 1, "order-1"), "the key comes before the id");
    let first = Repeated {
        position: 0,
        sequence: 1,
        id: "order-1".into(),
        created_at: Some(Timestamp { seconds: 5, nanos: 0 }),
        waits: false,
    };
    let again = publish("app", &[event("app.y", "", "order-1")], 0);
    assert_eq!(replica.apply_one(again), Err(Refusal::EventIdExists(Some(first.clone().into()))));
    let batch = [event("app.y", "a", ""), event("app.y", "b", "order-1")];
    let refused = Err(Refusal::EventIdExists(Some(Repeated { position: 1, ..first }.into())));
    assert_eq!(replica.apply_one(publish("app", &batch, 0)), refused);
    let batch = [event("app.y", "a", ""), event("app.x", "c", ""), event("app.x", "k", "")];
    assert_eq!(replica.apply_one(publish("app", &batch, 0)), key_processed(2, 1, "order-1"));
    let twice = [event("app.y", "a", ""), event("app.y", "a", "")];
    assert_eq!(
        replica.apply_one(publish("app", &twice, 0)),
        key_processed(1, 0, ""),
        "the first one is in the same batch"
    );
    assert_eq!(replica.apply_one(publish("app", &[event("app.y", "a", "")], 0)), published(2, 1), "no key was burnt");
    let own = replica.memory.events(1)[1].1.clone();
    let Err(refusal) = replica.apply_one(publish("app", &[event("app.y", "", &own)], 0)) else { panic!("it is there") };
    let repeated = refusal.repeated().unwrap();
    assert_eq!((repeated.sequence, repeated.id.as_str(), repeated.created_at), (2, own.as_str(), None));
}

#[test]
fn a_restore_stores_events_whose_keys_came_again_later_than_they_do_now() {
    let mut replica = bounded();
    drop(replica.apply_one(keyed("k")));
    let copies = [event("app.x", "k", "one"), event("app.x", "k", "two"), event("app.x", "l", "three")];
    let restore = publish("app", &copies, FLAG_RESTORE);
    assert_eq!(replica.apply_one(restore.clone()), published(2, 3));
    assert_eq!(replica.apply_one(keyed("k")), key_processed(0, 3, "two"), "the last one of the key");
    let again = replica.apply_one(restore).unwrap_err();
    assert_eq!((again.number(), again.repeated().unwrap().sequence), (6, 2), "ids are looked up");
    assert_eq!(apply_frame_at(&mut replica, 100 + DEDUPE_WINDOW_MS, tidy_up()), Ok(Done::Nothing));
    assert!(!replica.memory.rows.keys().any(|(family, _)| matches!(family, Family::Keys | Family::KeyRing)));
    assert_eq!(change_dedupe(&mut replica, |_| ()).key_bytes, 0);
}

#[test]
fn an_answer_outlives_the_event() {
    let mut replica = bounded();
    drop(replica.apply_one(keyed("k")));
    let id = replica.memory.events(1)[0].1.clone();
    drop(replica.apply_one(trim("app", 2)));
    assert_eq!(replica.apply_one(keyed("k")), key_processed(0, 1, &id));
}

#[test]
fn the_oldest_keys_go_before_their_time_when_there_are_too_many() {
    let mut replica = bounded();
    (0..3).for_each(|n| drop(replica.apply_one(keyed(&n.to_string()))));
    // As if so many had come in between.
    change_dedupe(&mut replica, |memory| memory.keys_next = DEDUPE_KEYS_MAX);
    assert_eq!(replica.apply_one(keyed("more")), published(4, 1));
    assert_eq!(change_dedupe(&mut replica, |_| ()).keys_evicted, 1);
    assert!(replica.apply_one(keyed("0")).is_ok(), "forgotten");
    assert!(replica.apply_one(keyed("2")).is_err(), "remembered");
    assert_eq!(change_dedupe(&mut replica, |_| ()).keys(), DEDUPE_KEYS_MAX);
}

#[test]
fn the_oldest_keys_go_before_their_time_when_they_are_too_large() {
    let mut replica = bounded();
    (0..3).for_each(|n| drop(replica.apply_one(keyed(&n.to_string()))));
    let before = change_dedupe(&mut replica, |memory| memory.key_bytes += DEDUPE_KEY_BYTES_MAX).key_bytes;
    assert!(replica.apply_one(keyed("more")).is_ok());
    assert_eq!(change_dedupe(&mut replica, |_| ()).keys_evicted, 2, "two go for one that comes");
    assert_eq!(replica.machine.tidy_due(), Some(0), "and the others by and by");
    let after = change_dedupe(&mut replica, |memory| memory.key_bytes -= DEDUPE_KEY_BYTES_MAX).key_bytes;
    assert!(after + DEDUPE_KEY_BYTES_MAX < before);
    assert!(replica.apply_one(keyed("more")).is_err() && replica.apply_one(keyed("2")).is_err());
}

#[test]
fn a_refused_publish_in_a_reserved_namespace_is_no_event() {
    let of = |flags| publish("_dead_", &[event("_dead_.a.b", "", "")], FLAG_CREATE | flags);
    let frames = [of(FLAG_INTERNAL), of(0), of(FLAG_INTERNAL)];
    let mut replica = bounded();
    let replies = replica.apply(&frames);
    assert_eq!(replies, [published(1, 1), Err(Refusal::NamespaceReserved("_dead_".into())), published(2, 1)]);
    let row = replica.memory.rows.iter().find(|((family, _), _)| *family == Family::Index).unwrap().1;
    assert_eq!(IndexRow::decode(row.as_slice()).unwrap().refused, [1]);
    let mut first = Replica::default();
    first.apply(&frames);
    let row = first.memory.rows.iter().find(|((family, _), _)| *family == Family::Index).unwrap().1;
    assert!(IndexRow::decode(row.as_slice()).unwrap().refused.is_empty(), "as nodes of the release before do it");
}

#[test]
fn keys_and_ids_from_before_the_raise_count_until_their_time_is_over() {
    let mut replica = Replica::default();
    let named = |id| publish("app", &[event("app.x", "", id)], FLAG_CREATE);
    assert_eq!(apply_frame_at(&mut replica, 1000, keyed("k")), published(1, 1));
    assert_eq!(apply_frame_at(&mut replica, 1000, named("one")), published(2, 1));
    assert_eq!(apply_frame_at(&mut replica, 1000, named("two")), published(3, 1));
    raise(&mut replica);
    let old = Err(Refusal::KeyProcessed(Some(Repeated::default().into())));
    assert_eq!(apply_frame_at(&mut replica, 1001, keyed("k")), old, "repeated just after");
    let taken = |reply: Reply| reply.unwrap_err().repeated().unwrap().sequence;
    assert_eq!(taken(apply_frame_at(&mut replica, 1001, named("one"))), 2);
    assert_eq!(apply_frame_at(&mut replica, 1001, tidy_up()), Ok(Done::Nothing));
    assert_eq!(replica.machine.tidy_due(), Some(1001 + DEDUPE_WINDOW_MS), "keys count for a while, ids are done");
    assert_eq!(taken(apply_frame_at(&mut replica, 1001, named("two"))), 3, "converted");
    assert!(apply_frame_at(&mut replica, 1001, trim("app", 3)).is_ok());
    assert_eq!(apply_frame_at(&mut replica, 1001, named("one")), published(4, 1), "its event is gone");
    assert_eq!(apply_frame_at(&mut replica, 1000 + DEDUPE_WINDOW_MS, keyed("k")), old);
    assert_eq!(apply_frame_at(&mut replica, 1001 + DEDUPE_WINDOW_MS, keyed("k")), published(5, 1));
    assert!(apply_frame_at(&mut replica, 1001 + DEDUPE_WINDOW_MS, keyed("k")).is_err(), "remembered anew");
}
