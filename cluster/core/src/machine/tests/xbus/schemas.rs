//! Schemas of types of events.

use super::*;
use crate::xbus::change::SchemaSet;
use crate::xbus::limits::{SCHEMA_BYTES_MAX, SCHEMAS_BYTES_MAX};
use crate::xbus::schema::SchemaMode;

fn set(event_type: &str, schema: &str) -> Change {
    let mode = SchemaMode::Enforce.into();
    Change::SchemaSet(SchemaSet { event_type: event_type.into(), mode, schema: schema.into() })
}

#[test]
fn a_type_of_events_has_one_schema_until_it_is_deleted() {
    let mut story = Story::empty();
    let before = story.replica.machine.xbus().revision();
    assert_eq!(story.done(set("order", "{}")).schema.unwrap().revision, 1);
    assert_eq!(story.done(set("order", "true")).schema.unwrap().revision, 2);
    story.done(set("bill", "false"));
    let xbus = story.replica.machine.xbus();
    let all: Vec<&str> = xbus.schemas().map(|row| row.event_type.as_str()).collect();
    assert_eq!((all, xbus.revision() - before), (vec!["bill", "order"], 3));
    assert_eq!(xbus.schema("order").unwrap().schema, "true");
    assert!(story.propose(Some(1), Change::SchemaDelete("order".into())).is_err(), "another operator was there");
    story.propose(Some(2), Change::SchemaDelete("order".into())).unwrap();
    assert!(story.refused(Change::SchemaDelete("order".into())).starts_with("not found: schema order"));
    assert!(story.propose(Some(1), set("order", "{}")).is_err());
    story.propose(Some(0), set("order", "{}")).unwrap();
}

#[test]
fn schemas_are_bounded_one_by_one_and_together() {
    let mut story = Story::empty();
    assert!(story.refused(set("", "{}")).contains("type of events"));
    assert!(story.refused(set("a", &"x".repeat(SCHEMA_BYTES_MAX + 1))).contains("65536 bytes"));
    let text = "x".repeat(SCHEMA_BYTES_MAX);
    let fit = SCHEMAS_BYTES_MAX / (SCHEMA_BYTES_MAX + 20);
    let frames: Vec<Vec<u8>> =
        (0..fit).map(|number| Command::xbus(None, set(&number.to_string(), &text)).frame().unwrap()).collect();
    for frames in frames.chunks(16) {
        story.millis += 10;
        assert!(story.replica.apply_at(story.millis, frames).iter().all(Result::is_ok));
    }
    assert!(story.refused(set("one more", &text)).contains("all schemas have at most"));
    story.done(set("0", "{}"));
    story.done(set("one more", &text));
}
