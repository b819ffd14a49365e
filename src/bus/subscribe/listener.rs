//! The parameters of a subscription as a JSON object, and the listeners of a registration: subscriptions that the bus
//! opens for a client when it registers. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::request::{Options, Subscribe};
use crate::base::json::{Wait, Whole, or_default};
use crate::bus::error::Fault;

/// Most listeners of one registration.
pub const LISTENERS_MAX: usize = 16;
/// Longest id of a stream, bytes.
pub const ID_BYTES_MAX: usize = 128;
/// The member of the metadata of an instance that names its listeners.
const MEMBER: &str = "listeners";

/// A subscription as an object. The members have the names that HTTP uses; the aliases are other spellings.
#[derive(Debug, Clone, Deserialize)]
pub struct SubscribeJson {
    /// The id under which the client knows the stream.
    pub id: Option<String>,
    subject: String,
    start: Option<String>,
    since: Option<Wait>,
    #[serde(default, deserialize_with = "or_default")]
    headers: BTreeMap<String, String>,
    #[serde(alias = "orderBy")]
    order_by: Option<String>,
    ack: Option<String>,
    consumer: Option<String>,
    group: Option<String>,
    redelivery: Option<Wait>,
    backoff: Option<String>,
    #[serde(alias = "maxDeliveries")]
    redelivery_count: Option<Whole>,
    #[serde(alias = "maxInFlight", alias = "in_flight")]
    max_in_flight: Option<Whole>,
    #[serde(alias = "deadLetter")]
    dead_letter: Option<String>,
}

impl SubscribeJson {
    /// Checks the parameters.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn wanted(&self) -> Result<Subscribe, Fault> {
        let headers: Vec<(String, String)> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let options = Options {
            subject: &self.subject,
            start: self.start.as_deref(),
            since: self.since.map(|Wait(time)| time),
            headers: &headers,
            order_by: self.order_by.as_deref(),
            ack: self.ack.as_deref(),
            consumer: self.consumer.as_deref(),
            group: self.group.as_deref(),
            redelivery: self.redelivery.map(|Wait(time)| time),
            backoff: self.backoff.as_deref(),
            redelivery_count: self.redelivery_count.map(|Whole(count)| count),
            max_in_flight: self.max_in_flight.map(|Whole(count)| count),
            dead_letter: self.dead_letter.as_deref(),
        };
        options.subscribe()
    }
}

/// A subscription that the bus opens for a client when it registers.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The id of the stream: the client's, or the subject.
    pub id: String,
    /// The subscription.
    pub wanted: Subscribe,
}

impl Listener {
    /// Checks the listeners of a registration.
    ///
    /// # Errors
    /// Which one is wrong, and what is wrong with it.
    pub fn all(listeners: &[SubscribeJson]) -> Result<Vec<Self>, Fault> {
        if listeners.len() > LISTENERS_MAX {
            return Err(Fault::bad(format!("listeners: at most {LISTENERS_MAX}")));
        }
        let mut checked: Vec<Self> = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let id = listener.id.clone().unwrap_or_else(|| listener.subject.clone());
            if !(1..=ID_BYTES_MAX).contains(&id.len()) || checked.iter().any(|other| other.id == id) {
                return Err(Fault::bad(format!("listeners: each has an id of its own, 1 to {ID_BYTES_MAX} bytes")));
            }
            let of = |fault: Fault| Fault { text: format!("listeners: {id}: {}", fault.text).into(), ..fault };
            let wanted = listener.wanted().map_err(of)?;
            checked.push(Self { id, wanted });
        }
        Ok(checked)
    }

    /// Adds what a client listens to, to the metadata of its instance, where the roll shows it. Metadata that is no object
    /// stays as it is: the rules refuse it.
    #[must_use]
    pub fn show(listeners: &[Self], metadata: String) -> String {
        if listeners.is_empty() {
            return metadata;
        }
        let shown: Vec<Value> = listeners.iter().map(Self::to_json).collect();
        let parsed = if metadata.is_empty() { Ok(json!({})) } else { serde_json::from_str(&metadata) };
        match parsed {
            Ok(Value::Object(mut members)) => {
                members.insert(MEMBER.to_owned(), shown.into());
                Value::Object(members).to_string()
            }
            _ => metadata,
        }
    }

    fn to_json(&self) -> Value {
        let mut out = serde_json::Map::new();
        out.insert("subject".to_owned(), self.wanted.pattern.as_str().into());
        out.insert("ack".to_owned(), if self.wanted.manual.is_some() { "manual" } else { "none" }.into());
        if let Some(durable) = &self.wanted.durable {
            out.insert(if durable.group { "group" } else { "consumer" }.to_owned(), durable.name.clone().into());
        }
        Value::Object(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Listener>, Fault> {
        Listener::all(&serde_json::from_str::<Vec<SubscribeJson>>(text).unwrap())
    }

    #[test]
    fn a_listener_is_a_subscription_and_its_id_is_its_subject_unless_it_has_one() {
        let listeners = parse(
            r#"[{"subject":"app.x"},{"id":"y","subject":"app.>","group":"g","ack":"manual","in_flight":7,"start":"oldest"}]"#,
        )
        .unwrap();
        let ids: Vec<&str> = listeners.iter().map(|listener| listener.id.as_str()).collect();
        assert_eq!(ids, ["app.x", "y"]);
        assert_eq!(listeners[1].wanted.manual.as_ref().unwrap().in_flight_max, 7);
        let shown = Listener::show(&listeners, r#"{"team":"a"}"#.to_owned());
        assert_eq!(
            serde_json::from_str::<Value>(&shown).unwrap(),
            json!({"team": "a", "listeners": [
                {"subject": "app.x", "ack": "none"}, {"subject": "app.>", "ack": "manual", "group": "g"}]})
        );
        assert_eq!(Listener::show(&[], String::new()), "");
        assert_eq!(Listener::show(&listeners, "[]".to_owned()), "[]");
    }

    #[test]
    fn a_wrong_listener_is_named() {
        let text = |listeners| parse(listeners).unwrap_err().text.into_owned();
        assert_eq!(text(r#"[{"subject":"app"}]"#), "listeners: app: invalid subject: missing namespace");
        let twice = r#"[{"subject":"app.x"},{"subject":"app.x"}]"#;
        assert!(text(twice).starts_with("listeners: each has an id of its own"));
        let many = format!("[{}]", vec![r#"{"subject":"app.x"}"#; LISTENERS_MAX + 1].join(","));
        assert_eq!(text(&many), "listeners: at most 16");
    }
}
