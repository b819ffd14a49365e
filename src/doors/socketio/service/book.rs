//! `book:publish` and `book:subscribe`: publishing and streams of one client. The rules are those of the door `sse`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::bus_socket::BusSocket;
use super::payloads::parse;
use crate::base::json::{Wait, or_default};
use crate::bus::delivery::acknowledgement::{Acknowledged, Parameters};
use crate::bus::error::Fault;
use crate::bus::subscribe::listener::{ID_BYTES_MAX, Listener, SubscribeJson};
use crate::bus::subscribe::streams::{AckOutcome, StreamMessage, StreamRefusal, StreamUpdate};
use crate::bus::write::draft::{Draft, Published};
use crate::bus::write::headers::HeadersJson;
use crate::doors::socketio::session::Out;

/// `book:publish`. The members have the names that HTTP uses; the aliases are the names of earlier releases.
#[derive(Deserialize)]
struct PublishPayload<'a> {
    #[serde(default, deserialize_with = "or_default")]
    subject: String,
    #[serde(default, deserialize_with = "or_default", alias = "responseSubject")]
    response_subject: String,
    #[serde(default, deserialize_with = "or_default")]
    key: String,
    #[serde(default, deserialize_with = "or_default", alias = "traceId")]
    trace_id: String,
    #[serde(default, deserialize_with = "or_default")]
    id: String,
    #[serde(alias = "createdAt")]
    created_at: Option<String>,
    delay: Option<Wait>,
    #[serde(default, deserialize_with = "or_default")]
    at: String,
    #[serde(default, deserialize_with = "or_default")]
    headers: HeadersJson,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl<'a> PublishPayload<'a> {
    fn into_draft(self) -> Draft<'a> {
        Draft {
            id: self.id.into(),
            trace_id: self.trace_id.into(),
            key: self.key.into(),
            subject: self.subject.into(),
            response_subject: self.response_subject.into(),
            created_at: self.created_at.map(Into::into),
            delay: self.delay.map(|Wait(time)| time),
            at: self.at.into(),
            headers: self.headers.0,
            payload: self.payload.map(Cow::Borrowed),
        }
    }
}

/// `book:unsubscribe`
#[derive(Deserialize)]
struct StreamPayload {
    id: String,
}

/// `book:ack`
#[derive(Deserialize)]
struct AckPayload {
    id: String,
    #[serde(alias = "eventId")]
    event_id: Option<String>,
    #[serde(alias = "eventIds")]
    event_ids: Option<Vec<String>>,
    #[serde(alias = "upTo")]
    up_to: Option<String>,
    action: Option<String>,
    delay: Option<Wait>,
    reason: Option<String>,
}

impl From<StreamRefusal> for Fault {
    fn from(refusal: StreamRefusal) -> Self {
        match refusal {
            StreamRefusal::Taken | StreamRefusal::Unknown => Self::bad(format!("id: {refusal}")),
            StreamRefusal::TooMany | StreamRefusal::Unanswered => Self::overloaded(refusal.to_string()),
        }
    }
}

/// The events that a client sends.
impl BusSocket {
    pub(in crate::doors::socketio) fn publish(
        &mut self,
        ack: Option<u64>,
        arg: &str,
        out: &mut Out,
    ) -> Result<(), Fault> {
        let draft = parse::<PublishPayload<'_>>(arg)?.into_draft();
        if let Some(message) = self.book.publish(String::new(), ack, draft)? {
            encode(&StreamId::new(String::new()), message, out);
        }
        Ok(())
    }

    pub(in crate::doors::socketio) fn subscribe(&mut self, ack: Option<u64>, arg: &str) -> Result<(), Fault> {
        let mut payload: SubscribeJson = parse(arg)?;
        let id = payload.id.take().filter(|id| (1..=ID_BYTES_MAX).contains(&id.len()));
        let id = id.ok_or_else(|| Fault::bad(format!("id: 1 to {ID_BYTES_MAX} bytes")))?;
        Ok(self.book.subscribe(id, ack, payload.wanted()?)?)
    }

    /// Opens the streams of a registration. Those of an earlier registration go on.
    pub(super) fn listen(&mut self) {
        for Listener { id, wanted } in std::mem::take(&mut self.listeners) {
            if let Err(refusal) = self.book.subscribe(id, None, wanted) {
                tracing::debug!(%refusal, "a listener is not opened");
            }
        }
    }

    pub(in crate::doors::socketio) fn acknowledge(&mut self, ack: Option<u64>, arg: &str) -> Result<(), Fault> {
        let AckPayload { id, event_id, event_ids, up_to, action, delay, reason } = parse(arg)?;
        let delay = delay.map(|Wait(time)| time);
        let said = Parameters { event_id, event_ids, up_to, action, delay, reason }.read()?;
        Ok(self.book.acknowledge(&id, said, ack)?)
    }

    pub(in crate::doors::socketio) fn unsubscribe(
        &mut self,
        ack: Option<u64>,
        arg: &str,
        out: &mut Out,
    ) -> Result<(), Fault> {
        let StreamPayload { id } = parse(arg)?;
        let messages = self.book.unsubscribe(&id, ack)?;
        let id = StreamId::new(id);
        messages.into_iter().for_each(|message| encode(&id, message, out));
        Ok(())
    }

    /// Sends the update of a stream or of a publish to the client.
    pub(in crate::doors::socketio) fn update(&mut self, number: u64, update: StreamUpdate, out: &mut Out) {
        let Some((id, messages)) = self.book.update(number, update) else { return };
        let id = StreamId::new(id);
        messages.into_iter().for_each(|message| encode(&id, message, out));
    }
}

/// The id of a stream, as text and as JSON. Each event of the stream carries the JSON.
struct StreamId {
    text: String,
    json: String,
}

impl StreamId {
    fn new(text: String) -> Self {
        let json = serde_json::Value::from(&*text).to_string();
        Self { text, json }
    }
}

/// Encodes the result of a publish, or a message of the stream `id`.
fn encode(id: &StreamId, message: StreamMessage, out: &mut Out) {
    match message {
        StreamMessage::Published(ack, published) => {
            let outcome = published.map_err(Into::into).map(|published| match published {
                Some(Published { id, due: Some(due), .. }) => {
                    json!({ "delayed_id": id, "delayed_until": due.to_string() })
                }
                Some(Published { id, created_at, index, due: None }) => {
                    json!({ "id": id, "index": index, "created_at": created_at.to_string() })
                }
                None => json!({}),
            });
            BusSocket::answer("book:publish", ack, outcome, out);
        }
        StreamMessage::Opened(ack, opened) => {
            let outcome = opened.map(|consumer| json!({ "consumer_id": consumer })).map_err(Into::into);
            BusSocket::answer("book:subscribe", ack, outcome, out);
        }
        StreamMessage::Event(event) => {
            out.emit_paced("book:event", &[&id.json, std::str::from_utf8(&event).unwrap_or("null")]);
        }
        StreamMessage::ChunkEnd(turn) => out.turn = Some(turn),
        StreamMessage::Ended(end, reason) => {
            let end = json!({ "id": id.text, "code": end.code(), "retryable": end.is_retryable(), "reason": reason });
            out.emit(None, "book:end", &[&end.to_string()], Vec::new());
        }
        StreamMessage::Acknowledged(AckOutcome { reply_to, event, done, .. }) => {
            let outcome = done.map_err(Into::into).map(|done| match event {
                Some(_) => json!({ "in_flight": done.is_any() }),
                None => {
                    let Acknowledged { count, not_in_flight } = done;
                    json!({ "count": count, "not_in_flight": not_in_flight })
                }
            });
            BusSocket::answer("book:ack", reply_to, outcome, out);
        }
        StreamMessage::Left(ack) => BusSocket::answer("book:unsubscribe", ack, Ok(json!({})), out),
    }
}
