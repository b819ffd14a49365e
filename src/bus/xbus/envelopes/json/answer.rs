//! What clients are told, and envelopes that are delivered to them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rollbook_core::time::Timestamp;
use rollbook_core::xbus::account::register::Answer;
use rollbook_core::xbus::account::row::{AccountRow, AccountStatus, ActorRow};
use rollbook_core::xbus::envelope::assembly::Ack;
use rollbook_core::xbus::id::Id;
use serde::Serialize;
use serde_json::{Value, json};

use super::body::{Context, JsonEnvelope, JsonEvent};
use super::value::{Words, word};

/// The answer to a call that only has to be understood.
pub const SUCCESS: &str = r#"{"status":"success"}"#;

/// The answer to a fragment: the specification page names its status twice.
#[must_use]
pub fn envelope(id: Id, ack: &Ack) -> String {
    let (status, reception) = match ack {
        Ack::Receiving => ("success", "receiving"),
        Ack::Accepted => ("success", "accepted"),
        Ack::Error(_) => ("error", "error"),
    };
    let mut answer = json!({
        "status": status,
        "id": id.to_string(),
        "reception_status": reception,
        "registration_status": reception,
    });
    if let (Ack::Error(reason), Some(answer)) = (ack, answer.as_object_mut()) {
        answer.insert("reason".into(), reason.as_str().into());
        answer.insert("error".into(), reason.as_str().into());
    }
    answer.to_string()
}

impl Words for Answer {
    const WORDS: &'static [(&'static str, Self)] =
        &[("pending", Self::Pending), ("accepted", Self::Accepted), ("rejected", Self::Rejected)];
}

impl Words for AccountStatus {
    const WORDS: &'static [(&'static str, Self)] =
        &[("pending", Self::Pending), ("enabled", Self::Enabled), ("disabled", Self::Disabled)];
}

/// The answer to a registration. The certificate and that of the authority once it is accepted.
#[must_use]
pub fn registration(account: &AccountRow, answer: Answer, server_ca: &str, actors: &[ActorRow]) -> String {
    let mut told = json!({
        "status": if answer == Answer::Rejected { "error" } else { "success" },
        "registration_status": word(answer),
    });
    let fields = told.as_object_mut().filter(|_| answer != Answer::Rejected);
    if let Some(fields) = fields {
        fields.insert("id".into(), text(&account.id));
        if answer == Answer::Accepted {
            fields.insert("signed_certificate".into(), account.certificate.as_str().into());
            fields.insert("server_ca".into(), server_ca.into());
        }
        fields.insert("actor_list".into(), actors.iter().map(actor).collect());
    }
    told.to_string()
}

/// An account, as the answer to who somebody is.
#[must_use]
pub fn account(account: &AccountRow) -> String {
    json!({
        "status": "success",
        "account": {
            "id": text(&account.id),
            "name": account.name,
            "type": word(account.kind()),
            "status": word(account.status()),
        },
    })
    .to_string()
}

/// The actors of an account.
#[must_use]
pub fn actors(actors: &[ActorRow]) -> String {
    json!({"status": "success", "actors": actors.iter().map(actor).collect::<Value>()}).to_string()
}

/// An actor.
#[must_use]
pub fn actor(row: &ActorRow) -> Value {
    let seen = Some(row.last_seen).filter(|seen| *seen > 0);
    json!({
        "id": text(&row.id),
        "name": row.name,
        "kind": word(row.kind()),
        "status": word(row.status()),
        "account_id": text(&row.account),
        "roles": row.roles,
        "visible": true,
        "last_seen": seen.map(|seen| Timestamp::from_millis(seen).to_string()),
    })
}

/// An id of a row; null when there is none.
fn text(id: &[u8]) -> Value {
    Id::from_slice(id).map_or(Value::Null, |id| id.to_string().into())
}

/// A fragment that is delivered to an actor.
#[derive(Debug, Clone, Copy)]
pub struct Delivered<'a> {
    /// The envelope.
    pub envelope: Id,
    /// Ids of all its events.
    pub event_ids: &'a [Id],
    /// The events of the fragment.
    pub events: &'a [JsonEvent],
    /// Whether it is the last fragment.
    pub last: bool,
    /// The job of the actor.
    pub context: &'a Context,
}

/// A job as a program gets it in one piece: each input has a name, and its envelope unless it is closed.
#[must_use]
pub fn job(context: &Context, inputs: &[(String, Option<JsonEnvelope>)]) -> String {
    let envelope = |envelope: &JsonEnvelope| {
        let events: Vec<EventOut<'_>> = envelope.events.iter().map(EventOut::of).collect();
        let ids: Vec<String> = envelope.event_ids.iter().map(Id::to_string).collect();
        json!({ "id": envelope.id.map(|id| id.to_string()), "event_ids": ids, "events": events, "last": envelope.last })
    };
    let input = |(name, of): &(String, Option<JsonEnvelope>)| json!({ "name": name, "close": of.is_none(), "envelope": of.as_ref().map(envelope) });
    json!({
        "context": {"process_id": context.process.to_string(), "node_id": context.node},
        "inputs": inputs.iter().map(input).collect::<Value>(),
    })
    .to_string()
}

/// An event as it is written.
#[derive(Debug, Serialize)]
pub struct EventOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    count: u64,
    checksum: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    items: Vec<String>,
}

impl Delivered<'_> {
    /// The body of the message.
    #[must_use]
    pub fn body(&self) -> String {
        let events: Vec<EventOut<'_>> = self.events.iter().map(EventOut::of).collect();
        let ids: Vec<String> = self.event_ids.iter().map(Id::to_string).collect();
        json!({
            "id": self.envelope.to_string(),
            "event_ids": ids,
            "events": events,
            "last": self.last,
            "context": {"process_id": self.context.process.to_string(), "node_id": self.context.node},
        })
        .to_string()
    }
}

impl<'a> EventOut<'a> {
    /// Items that are no texts make all items of their event base64.
    #[must_use]
    pub fn of(event: &'a JsonEvent) -> Self {
        let texts: Option<Vec<String>> =
            event.items.iter().map(|item| std::str::from_utf8(item).ok().map(str::to_owned)).collect();
        let encoding = if texts.is_none() { Some("binary") } else { None };
        let items = texts.unwrap_or_else(|| event.items.iter().map(|item| STANDARD.encode(item)).collect());
        let JsonEvent { id, event_type, index, count, checksum, .. } = event;
        let id = id.map(|id| id.to_string());
        Self { id, event_type, index: *index, count: *count, checksum: *checksum, encoding, items }
    }
}
