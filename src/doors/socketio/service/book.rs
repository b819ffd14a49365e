//! Publishing, and streams of the book, for one client: by the rules of the door `sse`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::bus_socket::BusSocket;
use super::payloads::parse;
use crate::base::clock;
use crate::base::json::{Whole, or_default};
use crate::bus::client::call::CallError;
use crate::bus::client::clients::ClientMessage;
use crate::bus::delivery::messages::AckResult;
use crate::bus::subscribe::request::{Options, Subscribe};
use crate::bus::subscribe::streams::{Answered, StreamMessage, StreamRefusal, Streamed};
use crate::bus::write::draft::{Draft, Published, Rejected};
use crate::bus::write::headers::HeadersJson;
use crate::doors::socketio::session::Out;

/// Longest id of a stream, bytes.
const ID_BYTES_MAX: usize = 128;

/// `book:publish`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Publishes<'a> {
    #[serde(default, deserialize_with = "or_default")]
    subject: String,
    #[serde(default, deserialize_with = "or_default")]
    response_subject: String,
    #[serde(default, deserialize_with = "or_default")]
    key: String,
    #[serde(default, deserialize_with = "or_default")]
    trace_id: String,
    #[serde(default, deserialize_with = "or_default")]
    id: String,
    created_at: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    headers: HeadersJson,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// `book:subscribe`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscribes {
    id: String,
    subject: String,
    start: Option<String>,
    ack: Option<String>,
    consumer: Option<String>,
    group: Option<String>,
    redelivery: Option<Whole>,
    max_deliveries: Option<Whole>,
}

/// `book:ack` and `book:unsubscribe`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfStream {
    id: String,
    #[serde(default, deserialize_with = "or_default")]
    event_id: String,
}

fn bad(text: impl Into<String>) -> CallError {
    CallError::BadRequest(text.into())
}

impl Subscribes {
    fn wanted(&self) -> Result<Subscribe, CallError> {
        let options = Options {
            subject: &self.subject,
            start: self.start.as_deref(),
            ack: self.ack.as_deref(),
            consumer: self.consumer.as_deref(),
            group: self.group.as_deref(),
            redelivery_ms: self.redelivery.map(|Whole(millis)| millis),
            max_deliveries: self.max_deliveries.map(|Whole(count)| count),
        };
        options.subscribe().map_err(|rejected| bad(rejected.text))
    }
}

impl From<StreamRefusal> for CallError {
    fn from(unwilling: StreamRefusal) -> Self {
        match unwilling {
            StreamRefusal::Taken | StreamRefusal::Unknown => bad(format!("id: {unwilling}")),
            StreamRefusal::TooMany | StreamRefusal::Unanswered => Self::Overloaded(unwilling.to_string()),
        }
    }
}

impl BusSocket {
    pub(in crate::doors::socketio) fn publish(&mut self, ack: Option<u64>, arg: &str) -> Result<(), CallError> {
        let said: Publishes<'_> = parse(arg)?;
        let draft = Draft {
            id: said.id.into(),
            trace_id: said.trace_id.into(),
            key: said.key.into(),
            subject: said.subject.into(),
            response_subject: said.response_subject.into(),
            created_at: said.created_at.map(Into::into),
            headers: said.headers.0,
            payload: said.payload.map(Cow::Borrowed),
        };
        let access = self.access.clone();
        let parsed = draft.publish(clock::timestamp(), &|name| access.is_writable(name));
        let parsed = parsed.map_err(|rejected| bad(rejected.text))?;
        self.streams.begin()?;
        let tell = self.mailbox();
        // Not waited for: those of one client go into the book in their order, many at a time.
        actix_web::rt::spawn(async move { tell(ClientMessage::Published(ack, access.publish(parsed).await)) });
        Ok(())
    }

    pub(in crate::doors::socketio) fn published(
        &mut self,
        ack: Option<u64>,
        published: Result<Option<Published>, Rejected>,
        out: &mut Out,
    ) {
        self.streams.done();
        let said = published.map_err(Into::into).map(|published| match published {
            Some(Published { id, created_at, index }) => {
                json!({ "id": id, "index": index, "createdAt": created_at.to_string() })
            }
            None => json!({}),
        });
        Self::answer("book:publish", ack, said, out);
    }

    pub(in crate::doors::socketio) fn subscribe(&mut self, ack: Option<u64>, arg: &str) -> Result<(), CallError> {
        let said: Subscribes = parse(arg)?;
        if !(1..=ID_BYTES_MAX).contains(&said.id.len()) {
            return Err(bad(format!("id: 1 to {ID_BYTES_MAX} bytes")));
        }
        let wanted = said.wanted()?;
        let access = self.access.clone();
        let opening = async move { access.follow(wanted).await };
        let tell = self.stream_mailbox();
        Ok(self.streams.subscribe(said.id, ack, opening, tell)?)
    }

    fn stream_mailbox(&self) -> impl Fn(u64, Streamed) + use<> {
        let tell = self.mailbox();
        move |number, streamed| tell(ClientMessage::Stream(number, streamed))
    }

    /// A stream says something.
    pub(in crate::doors::socketio) fn streamed(&mut self, number: u64, streamed: Streamed, out: &mut Out) {
        let Some((id, words)) = self.streams.told(number, streamed) else { return };
        let id_json = serde_json::Value::from(&*id).to_string();
        words.into_iter().for_each(|word| Self::word((&id, &id_json), word, out));
    }

    /// Tells a client of a stream; the id is also there as JSON.
    fn word((id, id_json): (&str, &str), word: StreamMessage, out: &mut Out) {
        match word {
            StreamMessage::Opened(ack, opened) => {
                let said = opened.map(|consumer| json!({ "consumerId": consumer })).map_err(Into::into);
                Self::answer("book:subscribe", ack, said, out);
            }
            StreamMessage::Event(event) => {
                out.emit_paced("book:event", &[id_json, std::str::from_utf8(&event).unwrap_or("null")]);
            }
            StreamMessage::Told(turn) => out.turn = Some(turn),
            StreamMessage::Ended(end, reason) => {
                let end = json!({ "id": id, "code": end.code(), "retryable": end.is_retryable(), "reason": reason });
                out.emit(None, "book:end", &[&end.to_string()], Vec::new());
            }
            StreamMessage::Acknowledged(Answered { asked, done, .. }) => {
                let said = done.map(|done| json!({ "inFlight": done == AckResult::Yes })).map_err(Into::into);
                Self::answer("book:ack", asked, said, out);
            }
            StreamMessage::Left(ack) => Self::answer("book:unsubscribe", ack, Ok(json!({})), out),
        }
    }

    pub(in crate::doors::socketio) fn acknowledge(&mut self, ack: Option<u64>, arg: &str) -> Result<(), CallError> {
        let OfStream { id, event_id } = parse(arg)?;
        let (access, tell) = (self.access.clone(), self.stream_mailbox());
        let acknowledge = |consumer: String, event: String| async move { access.acknowledge(&consumer, &event).await };
        Ok(self.streams.acknowledge(&id, event_id, ack, acknowledge, tell)?)
    }

    pub(in crate::doors::socketio) fn unsubscribe(
        &mut self,
        ack: Option<u64>,
        arg: &str,
        out: &mut Out,
    ) -> Result<(), CallError> {
        let OfStream { id, .. } = parse(arg)?;
        let words = self.streams.unsubscribe(&id, ack)?;
        words.into_iter().for_each(|word| Self::word((&id, ""), word, out));
        Ok(())
    }
}
