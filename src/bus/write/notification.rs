//! Notifications between clients of services, as they are stored in the namespace `notify`. Pure.
//!
//! Any client of the book may publish to the namespace too. Invariant: only the node of a registered client sets the
//! sender of a notification. A publish that contains a sender is refused.

use std::collections::BTreeMap;

use rollbook_core::event::Event;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The namespace of notifications.
pub const NOTIFY: &str = "notify";

/// The name of the notification that a message could not be delivered. Clients may not use it.
pub const UNHANDLED: &str = "bus:unhandled";

/// The member of the payload that names the sender.
const FROM: &str = "from";

/// Payload of a notification.
#[derive(Debug, Serialize, Deserialize)]
pub struct Notification<'a> {
    /// The name of the notification.
    pub event: String,
    /// The id that the sender gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The content.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
    /// The sender; absent when the event was not published by a registered client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<From>,
}

/// The sender of a notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct From {
    /// Id of its service.
    pub service: String,
    /// Id of its instance.
    pub instance: String,
}

/// The subject of a notification: its name, with the characters that subjects do not allow replaced.
#[must_use]
pub fn subject(event: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let name: String = event.chars().take(128).map(legal).collect();
    format!("{NOTIFY}.{name}")
}

/// Whether a subject is that of a notification.
#[must_use]
pub fn is_notification(subject: &str) -> bool {
    subject.strip_prefix(NOTIFY).is_some_and(|rest| rest.starts_with('.'))
}

/// The notification in an event; `None` when the event is none.
#[must_use]
pub fn notification<'e>(event: &Event<'e>) -> Option<Notification<'e>> {
    serde_json::from_slice(event.payload.filter(|_| is_notification(event.subject))?).ok()
}

/// Whether the payload of a publish names a sender, in any spelling that a reader might accept.
#[must_use]
pub fn claims_sender(payload: &RawValue) -> bool {
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
        let claims = |text: &str| serde_json::from_str::<&RawValue>(text).is_ok_and(claims_sender);
        for forged in [
            r#"{"event":"x","from":{"service":"a","instance":"b"}}"#,
            r#"{"from":null}"#,
            r#"{"event":"x","from":1,"from":2}"#,
            r#"{"event":"x", "\u0066rom" : {}}"#,
            r#"{"event":"x","event":"y","from":{}}"#,
        ] {
            assert!(claims(forged), "{forged}");
        }
        for fair in ["1", "[\"from\"]", r#"{"event":"from","data":{"from":1}}"#, r#"{"From":1}"#, "{}"] {
            assert!(!claims(fair), "{fair}");
        }
        assert!(is_notification("notify.x") && !is_notification("notify") && !is_notification("notifying.x"));
    }
}
