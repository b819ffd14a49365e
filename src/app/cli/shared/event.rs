//! The JSON of an event, with the fields as the bytes that came, in the order of the wire format.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// An event of the log. Its JSON is the record of a dump. The record has no index, because the index belongs to the
/// log.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::app::cli) struct Event<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(in crate::app::cli) id: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(in crate::app::cli) trace_id: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(in crate::app::cli) key: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(in crate::app::cli) subject: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(in crate::app::cli) response_subject: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(in crate::app::cli) created_at: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(in crate::app::cli) headers: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(in crate::app::cli) payload: Option<&'a RawValue>,
    #[serde(default, skip_serializing)]
    pub(in crate::app::cli) index: Option<i64>,
}

/// `"payload":null` is a payload. Only a missing field means no payload.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Event<'a> {
    /// Reads the JSON of one event.
    pub(in crate::app::cli) fn parse(json: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// First token of the subject.
    pub(in crate::app::cli) fn namespace(&self) -> &str {
        self.subject.split('.').next().unwrap_or_default()
    }
}

/// The same JSON on one line. Line breaks in JSON stand only between tokens, where a space means the same.
pub(in crate::app::cli) fn one_line(json: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'\n', b'\r', json.as_bytes()).is_none() {
        Cow::Borrowed(json)
    } else {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_the_event_without_its_index() {
        let json = r#"{"id":"e_1","trace_id":"t\t1","key":"k\"1","subject":"app.a","response_subject":"_bus_.x","created_at":"2026-01-01T00:00:00Z","headers":{"a":["1","2"],"B":"\u00e9"},"payload":{"n":1.50,"big":12345678901234567890123},"index":7}"#;
        let event = Event::parse(json).unwrap();
        assert_eq!((event.index, event.namespace()), (Some(7), "app"));
        assert_eq!(serde_json::to_string(&event).unwrap(), json.replace(",\"index\":7", ""));
    }

    #[test]
    fn a_null_payload_is_not_a_missing_one() {
        let record = |json| serde_json::to_string(&Event::parse(json).unwrap()).unwrap();
        assert_eq!(record(r#"{"subject":"a.b","payload":null}"#), r#"{"subject":"a.b","payload":null}"#);
        assert_eq!(record(r#"{"subject":"a.b"}"#), r#"{"subject":"a.b"}"#);
    }

    #[test]
    fn line_breaks_between_tokens_become_spaces() {
        assert_eq!(one_line("{\"a\":\r\n \"x\\n\"}"), "{\"a\":   \"x\\n\"}");
        assert!(matches!(one_line("{}"), Cow::Borrowed(_)));
    }
}
