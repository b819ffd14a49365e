//! Dedupe keys and chosen ids at the first feature level.

use super::*;
use crate::limits::DEDUPE_KEYS_PER_SUBJECT;

#[test]
fn a_key_is_taken_once_per_subject_and_a_refused_publish_burns_none() {
    let mut replica = Replica::default();
    assert_eq!(replica.apply_one(keyed("k")), published(1, 1));
    assert_eq!(replica.apply_one(keyed("k")), Err(Refusal::KeyProcessed(None)));
    assert_eq!(replica.apply_one(publish("app", &[event("app.other", "k", "")], 0)), published(2, 1));
    let half = publish("app", &[event("app.x", "new", ""), event("app.x", "k", "")], 0);
    assert_eq!(replica.apply_one(half), Err(Refusal::KeyProcessed(None)));
    assert_eq!(replica.apply_one(keyed("new")), published(3, 1));
    let twice = publish("app", &[event("app.x", "t", ""), event("app.x", "t", "")], 0);
    assert_eq!(replica.apply_one(twice), Err(Refusal::KeyProcessed(None)));
}

#[test]
fn frames_of_one_entry_see_each_others_keys_and_only_the_accepted_ones_are_events() {
    let mut replica = Replica::default();
    let replies = replica.apply(&[keyed("a"), keyed("a"), keyed("b"), keyed("b"), keyed("c")]);
    let refused = Err(Refusal::KeyProcessed(None));
    assert_eq!(replies, [published(1, 1), refused.clone(), published(2, 1), refused, published(3, 1)]);
    assert_eq!(replica.memory.events(1).len(), 3);
}

#[test]
fn the_newest_thousand_keys_of_a_subject_are_remembered() {
    let mut replica = Replica::default();
    let window = u64::from(DEDUPE_KEYS_PER_SUBJECT);
    for at in 0..=window {
        assert!(replica.apply_one(keyed(&at.to_string())).is_ok());
    }
    assert_eq!(replica.apply_one(keyed("1")), Err(Refusal::KeyProcessed(None)), "the oldest of the window");
    assert!(replica.apply_one(keyed("0")).is_ok(), "the first one has left the window");
    let rows = replica.memory.rows.keys().filter(|(family, _)| *family == Family::Keys).count();
    assert_eq!(rows, usize::try_from(window).unwrap(), "no row is left behind");
}

#[test]
fn a_chosen_id_is_unique_in_its_namespace() {
    let mut replica = Replica::default();
    let with = |namespace: &str, id: &str| publish(namespace, &[event(&format!("{namespace}.x"), "", id)], FLAG_CREATE);
    assert_eq!(replica.apply_one(with("app", "mine")), published(1, 1));
    assert_eq!(replica.apply_one(with("app", "mine")), Err(Refusal::EventIdExists(None)));
    assert_eq!(replica.apply_one(with("web", "mine")), published(1, 1));
}

#[test]
fn an_id_that_the_server_made_is_recognised_when_it_comes_back_as_a_chosen_one() {
    let mut replica = Replica::default();
    replica.apply(&[plain("app"), plain("app")]);
    let id = replica.memory.events(1)[1].1.clone();
    let again = publish("app", &[event("app.x", "", &id)], 0);
    assert_eq!(replica.apply_one(again.clone()), Err(Refusal::EventIdExists(None)));
    let mut elsewhere = Replica::default();
    elsewhere.apply(&[plain("app")]);
    assert_eq!(elsewhere.apply_one(again.clone()), published(2, 1), "a restore into an empty place keeps the id");
    assert_eq!(elsewhere.apply_one(again), Err(Refusal::EventIdExists(None)), "and is refused the second time");
}
