//! The central configuration.

use super::*;
use crate::central::ConfigSet;

pub(super) fn config(document: &str, if_revision: Option<u64>) -> Vec<u8> {
    let set = ConfigSet { document: document.into(), if_revision, reason: String::new() };
    Command::ConfigSet(set).frame().unwrap()
}

#[test]
fn each_change_of_the_configuration_is_a_revision_and_an_event_with_the_whole_document() {
    let mut replica = Replica::default();
    assert_eq!(replica.machine.config().revision, 0);
    assert_eq!(replica.apply_one(config(r#"{"b": 1.0}"#, Some(0))), Ok(Done::Config(1)));
    assert!(
        matches!(replica.apply_one(config("{}", Some(0))), Err(Refusal::RevisionMismatch(_))),
        "somebody was first"
    );
    assert_eq!(replica.apply_one(config("{}", Some(1))), Ok(Done::Config(2)));
    assert_eq!(replica.apply_one(config("{}", None)), Ok(Done::Config(3)), "the same again tells everybody again");
    assert_eq!(roll_subjects(&replica), ["roll.config.updated"; 3]);
    let id = replica.machine.head("roll").unwrap().id;
    let record = replica.memory.rows.get(&(Family::Made, rows::index_key(id, 1))).unwrap();
    let (event, _) = Event::decode(record).unwrap();
    let payload = core::str::from_utf8(event.payload.unwrap()).unwrap();
    assert!(payload.starts_with(r#"{"revision":1,"config":{"b": 1.0},"at":"#), "{payload}");
}

#[test]
fn what_is_no_configuration_is_refused_and_changes_nothing() {
    let mut replica = Replica::default();
    let long = format!("\"{}\"", "x".repeat(limits::CONFIG_BYTES_MAX));
    for document in ["", "{", "{} {}", "nonsense", long.as_str()] {
        assert!(matches!(replica.apply_one(config(document, None)), Err(Refusal::Malformed(_))), "{document:.20}");
    }
    assert_eq!(replica.machine.config().revision, 0);
    assert!(replica.machine.head("roll").is_none());
}

#[test]
fn the_newest_hundred_revisions_are_remembered() {
    let mut replica = Replica::default();
    for number in 1..=130 {
        assert_eq!(replica.apply_one(config(&number.to_string(), None)), Ok(Done::Config(number)));
    }
    let kept: Vec<_> = replica.memory.rows.keys().filter(|(family, _)| *family == Family::Config).collect();
    assert_eq!(kept.len(), 100);
    assert_eq!(kept[0].1, 31_u64.to_be_bytes());
    assert_eq!(replica.reloaded().config(), replica.machine.config());
}
