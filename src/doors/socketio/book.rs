//! Publishing, and streams of the book, for one client: by the rules of the door `sse`.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::says::parse;
use super::service::{BusSocket, Said};
use super::session::Out;
use super::streams::Stream;
use crate::bus::access::{Access, STREAMS_MAX, UNANSWERED_MAX};
use crate::bus::call::CallError;
use crate::bus::client::{Streamed, Told};
use crate::bus::clock;
use crate::bus::draft::{Draft, Published, Rejected};
use crate::bus::message::Acknowledged;
use crate::bus::pieces::{self, Piece};
use crate::bus::subscribe::{Options, Subscribe};

/// Longest id of a stream, bytes.
const ID_BYTES_MAX: usize = 128;

/// `book:publish`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Publishes<'a> {
    #[serde(default)]
    subject: String,
    #[serde(default)]
    response_subject: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    trace_id: String,
    #[serde(default)]
    id: String,
    created_at: Option<String>,
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
    redelivery: Option<u64>,
    max_deliveries: Option<u32>,
}

/// `book:ack` and `book:unsubscribe`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfStream {
    id: String,
    #[serde(default)]
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
            redelivery_ms: self.redelivery,
            max_deliveries: self.max_deliveries.map(u64::from),
        };
        options.subscribe().map_err(|rejected| bad(rejected.text))
    }
}

/// Opens a stream and hands on what it says, at the pace of its client.
async fn run(access: Access, wanted: Subscribe, tell: impl Fn(Streamed) + Send) {
    let (consumer_id, mut body) = match access.follow(wanted).await {
        Ok(opened) => opened,
        Err(rejected) => return tell(Streamed::Opened(Err(rejected))),
    };
    tell(Streamed::Opened(Ok(consumer_id)));
    loop {
        let Some(chunk) = body.next().await else { return tell(Streamed::Ended) };
        let (room, there) = tokio::sync::oneshot::channel();
        tell(Streamed::Chunk(chunk, room));
        if there.await.is_err() {
            return;
        }
    }
}

impl BusSocket {
    fn takes_one_more(&mut self) -> Result<(), CallError> {
        if self.streams.unanswered >= UNANSWERED_MAX {
            return Err(CallError::Overloaded("too much of this client has no answer yet".to_owned()));
        }
        self.streams.unanswered = self.streams.unanswered.saturating_add(1);
        Ok(())
    }

    pub(super) fn publish(&mut self, ack: Option<u64>, arg: &str) -> Result<(), CallError> {
        let said: Publishes<'_> = parse(arg)?;
        let draft = Draft {
            id: said.id.into(),
            trace_id: said.trace_id.into(),
            key: said.key.into(),
            subject: said.subject.into(),
            response_subject: said.response_subject.into(),
            created_at: said.created_at.map(Into::into),
            payload: said.payload,
        };
        let access = self.access.clone();
        let parsed = draft.publish(clock::timestamp(), &|name| access.is_writable(name));
        let parsed = parsed.map_err(|rejected| bad(rejected.text))?;
        self.takes_one_more()?;
        let tell = self.mailbox();
        // Not waited for: those of one client go into the book in their order, many at a time.
        actix_web::rt::spawn(async move { tell(Told::Published(ack, access.publish(parsed).await)) });
        Ok(())
    }

    pub(super) fn published(
        &mut self,
        ack: Option<u64>,
        published: Result<Option<Published>, Rejected>,
        out: &mut Out,
    ) {
        self.streams.unanswered = self.streams.unanswered.saturating_sub(1);
        let said = published.map_err(Into::into).map(|published| match published {
            Some(Published { id, created_at, index }) => {
                json!({ "id": id, "index": index, "createdAt": created_at.to_string() })
            }
            None => json!({}),
        });
        Self::answer("book:publish", ack, said, out);
    }

    pub(super) fn subscribe(&mut self, ack: Option<u64>, arg: &str) -> Result<(), CallError> {
        let said: Subscribes = parse(arg)?;
        if !(1..=ID_BYTES_MAX).contains(&said.id.len()) {
            return Err(bad(format!("id: 1 to {ID_BYTES_MAX} bytes")));
        }
        if self.streams.open.contains_key(&said.id) {
            return Err(bad("id: a stream of this id is open"));
        }
        if self.streams.open.len() >= STREAMS_MAX {
            return Err(CallError::Overloaded(format!("at most {STREAMS_MAX} streams for each client")));
        }
        let wanted = said.wanted()?;
        self.streams.number = self.streams.number.wrapping_add(1);
        let (number, tell) = (self.streams.number, self.mailbox());
        let tell = move |streamed| tell(Told::Stream(number, streamed));
        let task = actix_web::rt::spawn(run(self.access.clone(), wanted, tell));
        self.streams.open.insert(said.id, Stream { number, ack, consumer: String::new(), task, acks: Vec::new() });
        Ok(())
    }

    /// A stream says something.
    pub(super) fn streamed(&mut self, number: u64, streamed: Streamed, out: &mut Out) {
        let found = self.streams.open.iter_mut().find(|(_, stream)| stream.number == number);
        let Some((id, stream)) = found else {
            // One that is ended goes on until what was acknowledged has its answer.
            if let Streamed::Chunk(_, room) = streamed {
                out.rooms.push(room);
            }
            return;
        };
        let id = id.clone();
        let ends = match streamed {
            Streamed::Opened(Ok(consumer)) => {
                Self::answer("book:subscribe", stream.ack, Ok(json!({ "consumerId": consumer })), out);
                stream.consumer = consumer;
                return;
            }
            Streamed::Opened(Err(rejected)) => {
                Self::answer("book:subscribe", stream.ack, Err(rejected.into()), out);
                self.streams.open.remove(&id);
                return;
            }
            Streamed::Chunk(chunk, room) => {
                out.rooms.push(room);
                deliver(&id, chunk, out)
            }
            Streamed::Ended => Some("the stream ended".to_owned()),
        };
        if let Some(reason) = ends {
            self.streams.open.remove(&id);
            out.emit(None, "book:end", &[&json!({ "id": id, "reason": reason }).to_string()], Vec::new());
        }
    }

    pub(super) fn acknowledge(&mut self, ack: Option<u64>, arg: &str) -> Result<(), CallError> {
        let OfStream { id, event_id } = parse(arg)?;
        let stream = self.streams.open.get(&id).filter(|stream| !stream.consumer.is_empty());
        let consumer = stream.map(|stream| stream.consumer.clone()).ok_or_else(|| bad("id: no such stream is open"))?;
        self.takes_one_more()?;
        let (access, tell) = (self.access.clone(), self.mailbox());
        let acknowledging = actix_web::rt::spawn(async move {
            tell(Told::Acknowledged(ack, access.acknowledge(&consumer, &event_id).await));
        });
        if let Some(stream) = self.streams.open.get_mut(&id) {
            stream.acks.retain(|before| !before.is_finished());
            stream.acks.push(acknowledging);
        }
        Ok(())
    }

    pub(super) fn acknowledged(&mut self, ack: Option<u64>, done: Result<Acknowledged, Rejected>, out: &mut Out) {
        self.streams.unanswered = self.streams.unanswered.saturating_sub(1);
        let said = done.map_err(Into::into).map(|done| json!({ "inFlight": done == Acknowledged::Yes }));
        Self::answer("book:ack", ack, said, out);
    }

    pub(super) fn unsubscribe(&mut self, arg: &str) -> Said {
        let OfStream { id, .. } = parse(arg)?;
        let stream = self.streams.open.remove(&id).ok_or_else(|| bad("id: no such stream is open"))?;
        stream.end();
        Ok(json!({}))
    }
}

/// Sends the pieces of a stream; why it has ended, if it has.
fn deliver(id: &str, chunk: Bytes, out: &mut Out) -> Option<String> {
    let id = serde_json::Value::from(id).to_string();
    for piece in pieces::split(chunk) {
        match piece {
            Piece::Event(event) => {
                let event = std::str::from_utf8(&event).unwrap_or("null");
                out.emit(None, "book:event", &[&id, event], Vec::new());
            }
            Piece::Failure(text) => return Some(String::from_utf8_lossy(&text).into_owned()),
            Piece::Farewell => return Some("node stopping".to_owned()),
        }
    }
    None
}
