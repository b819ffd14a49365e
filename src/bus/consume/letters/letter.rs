//! A dead letter, as it is read back from the namespace `_dead_`. Pure.

use std::borrow::Cow;

use rollbook_core::event::Event;
use rollbook_core::event::headers::HeaderList;
use rollbook_core::subjects::subject::Namespace;
use rollbook_core::time::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::bus::write::headers::HeadersJson;

/// How the subjects of dispositions begin ([`super::disposition`]). No letter has such a subject, because an event of
/// `_dead_` never becomes a letter.
const DISPOSITIONS: &str = "_dead_._dead_.";

/// Whether an event of the namespace `_dead_` is the disposition of a letter.
#[must_use]
pub fn is_disposition(subject: &str) -> bool {
    subject.starts_with(DISPOSITIONS)
}

/// A dead letter, without the payload of its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Id of the letter.
    pub id: String,
    /// Position of the letter in the namespace `_dead_`.
    pub index: u64,
    /// When the event was given up.
    pub at: Timestamp,
    /// Subject of the event.
    pub subject: String,
    /// Id of the event.
    pub event_id: String,
    /// Position of the event in its namespace; -1 for a message of an inbox.
    pub event_index: i64,
    /// The stream that got the event last, if it is known.
    pub consumer_id: Option<String>,
    /// Name of the durable consumer, if there was one.
    pub consumer: Option<String>,
    /// Name of the group, if there was one.
    pub group: Option<String>,
    /// How often a client got the event.
    pub deliveries: u32,
    /// Why it is given up.
    pub reason: String,
}

/// The payload of a letter.
#[derive(Deserialize)]
struct LetterJson<'a> {
    #[serde(borrow)]
    event: &'a RawValue,
    index: i64,
    consumer_id: Option<String>,
    consumer: Option<String>,
    group: Option<String>,
    deliveries: u32,
    reason: String,
}

/// The member of an event that a list shows.
#[derive(Deserialize)]
struct IdJson {
    id: String,
}

/// The event of a letter, as far as it is published again. Id, time and index are those of the first publish, and the
/// dedupe key would refuse the event as a duplicate of that.
#[derive(Debug, Deserialize)]
pub(super) struct LetterEvent<'a> {
    #[serde(borrow, default)]
    pub(super) trace_id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) response_subject: Cow<'a, str>,
    #[serde(default, deserialize_with = "headers")]
    pub(super) headers: HeaderList,
    /// The payload, byte for byte.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) payload: Option<&'a RawValue>,
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderList, D::Error> {
    HeadersJson::deserialize(deserializer).map(|headers| headers.0)
}

/// A payload `null` is a payload.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Letter {
    /// Reads an event of the namespace `_dead_`; `None` for an event that is no letter, such as a disposition.
    #[must_use]
    pub fn read(index: u64, stored: &Event<'_>) -> Option<Self> {
        Self::read_whole(index, stored).map(|(letter, _)| letter)
    }

    /// Like [`Letter::read`], with the JSON of the event.
    #[must_use]
    pub fn read_whole(index: u64, stored: &Event<'_>) -> Option<(Self, Box<RawValue>)> {
        if is_disposition(stored.subject) {
            return None;
        }
        let subject = stored.subject.strip_prefix(Namespace::DEAD)?.strip_prefix('.')?;
        let json: LetterJson<'_> = serde_json::from_slice(stored.payload?).ok()?;
        let event: IdJson = serde_json::from_str(json.event.get()).ok()?;
        let mut id = Vec::with_capacity(24);
        stored.write_id(index, &mut id);
        let letter = Self {
            id: String::from_utf8(id).ok()?,
            index,
            at: stored.created_at,
            subject: subject.to_owned(),
            event_id: event.id,
            event_index: json.index,
            consumer_id: json.consumer_id,
            consumer: json.consumer,
            group: json.group,
            deliveries: json.deliveries,
            reason: json.reason,
        };
        Some((letter, json.event.to_owned()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A letter of this subject with this reason, from a group.
    pub(in crate::bus::consume::letters) fn letter(index: u64, subject: &str, reason: &str) -> Letter {
        Letter {
            id: format!("e_{index:020}"),
            index,
            at: Timestamp::default(),
            subject: subject.to_owned(),
            event_id: "job-1".to_owned(),
            event_index: 7,
            consumer_id: None,
            consumer: None,
            group: Some("workers".to_owned()),
            deliveries: 3,
            reason: reason.to_owned(),
        }
    }

    const PAYLOAD: &str = r#"{"event":{"id":"job-1","trace_id":"t\"1","key":"k","subject":"work.a","created_at":"2026-01-01T00:00:00Z","headers":{"a":["1","2"],"b":"x"},"payload":{ "n":1e400 },"index":7},"index":7,"consumer_id":null,"consumer":null,"group":"workers","deliveries":3,"reason":"bad"}"#;

    fn stored(subject: &'static str, payload: &'static str) -> Event<'static> {
        Event { subject, payload: Some(payload.as_bytes()), ..Event::default() }
    }

    #[test]
    fn a_letter_reads_back_with_the_event_byte_for_byte() {
        let (read, event) = Letter::read_whole(5, &stored("_dead_.work.a", PAYLOAD)).unwrap();
        assert_eq!(Letter { id: letter(5, "", "").id, ..read.clone() }, letter(5, "work.a", "bad"));
        let event: LetterEvent<'_> = serde_json::from_str(event.get()).unwrap();
        assert_eq!((&*event.trace_id, &*event.response_subject), ("t\"1", ""));
        assert_eq!(event.payload.map(RawValue::get), Some(r#"{ "n":1e400 }"#));
        let headers: Vec<_> = event.headers.headers().iter().collect();
        assert_eq!(headers, [("a", "1"), ("a", "2"), ("b", "x")]);
    }

    #[test]
    fn a_payload_of_null_is_not_the_same_as_none() {
        let read = |text| serde_json::from_str::<LetterEvent<'_>>(text).unwrap().payload.map(RawValue::get);
        assert_eq!([read(r#"{"payload":null}"#), read("{}")], [Some("null"), None]);
    }

    #[test]
    fn what_is_no_letter_is_passed_by() {
        for (subject, payload) in [
            ("_dead_._dead_.retried", PAYLOAD),
            ("other.work.a", PAYLOAD),
            ("_dead_", PAYLOAD),
            ("_dead_.work.a", "{}"),
            ("_dead_.work.a", r#"{"event":7,"index":1,"deliveries":1,"reason":""}"#),
            ("_dead_.work.a", "not JSON"),
        ] {
            assert_eq!(Letter::read(1, &stored(subject, payload)), None, "{subject} {payload}");
        }
        assert_eq!(Letter::read(1, &Event { subject: "_dead_.a.b", ..Event::default() }), None);
    }
}
