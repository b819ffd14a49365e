//! What clients of services tell each other, as it is in the book: the namespace `notify`. Pure.
//!
//! Any client of the book may publish there too. Who a notification is from is said by the node that a registered
//! client is connected to, and by nobody else: a publish that says so is refused.

use std::collections::BTreeMap;

use rollbook_core::event::Event;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The namespace of notifications.
pub const NOTIFY: &str = "notify";

/// The notification that a message could not be delivered. No client may send one of this name.
pub const UNHANDLED: &str = "bus:unhandled";

/// The member of a payload that says who it is from.
const FROM: &str = "from";

/// Payload of a notification.
#[derive(Debug, Serialize, Deserialize)]
pub struct Notification<'a> {
    /// The name that it has for clients.
    pub event: String,
    /// What its sender calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it says.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
    /// Who says it; absent when it was published by no client of the roll.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<From>,
}

/// Who notifies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct From {
    /// Its service.
    pub service: String,
    /// Its instance.
    pub instance: String,
}

/// The subject of a notification: its name in the characters that subjects have.
#[must_use]
pub fn subject(event: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let name: String = event.chars().take(128).map(legal).collect();
    format!("{NOTIFY}.{name}")
}

/// Whether events of that subject are notifications.
#[must_use]
pub fn is_notification(subject: &str) -> bool {
    subject.strip_prefix(NOTIFY).is_some_and(|rest| rest.starts_with('.'))
}

/// What an event of the book says if it is a notification.
#[must_use]
pub fn notification<'e>(event: &Event<'e>) -> Option<Notification<'e>> {
    serde_json::from_slice(event.payload.filter(|_| is_notification(event.subject))?).ok()
}

/// Whether a payload that a client publishes says who it is from, in any way that some reader might see.
#[must_use]
pub fn says_from(payload: &RawValue) -> bool {
    let members = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(payload.get());
    members.is_ok_and(|members| members.contains_key(FROM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_event_name_has_a_subject() {
        assert_eq!(subject("order:created"), "notify.order_created");
        assert_eq!(subject("a.b >*"), "notify.a_b___");
        for name in ["x", "ñ€😀", &"x".repeat(1000)] {
            assert!(rollbook_core::subjects::subject::Subject::validate(&subject(name)).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_sender_is_seen_however_it_is_written() {
        let says = |text: &str| serde_json::from_str::<&RawValue>(text).is_ok_and(says_from);
        for forged in [
            r#"{"event":"x","from":{"service":"a","instance":"b"}}"#,
            r#"{"from":null}"#,
            r#"{"event":"x","from":1,"from":2}"#,
            r#"{"event":"x", "\u0066rom" : {}}"#,
            r#"{"event":"x","event":"y","from":{}}"#,
        ] {
            assert!(says(forged), "{forged}");
        }
        for fair in ["1", "[\"from\"]", r#"{"event":"from","data":{"from":1}}"#, r#"{"From":1}"#, "{}"] {
            assert!(!says(fair), "{fair}");
        }
        assert!(is_notification("notify.x") && !is_notification("notify") && !is_notification("notifying.x"));
    }
}
