//! A stream of the book through any of the three doors, with the same words for all of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::clients::{Plain, SocketIo};
use super::{At, BOUND, left, told};
use crate::harness::http::Http;
use crate::harness::node::target;
use crate::harness::sse::Sse;

/// The id of the stream on its connection, where a door wants one.
const ID: &str = "s";

/// The doors that have streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Sse,
    Plain,
    SocketIo,
}

pub(super) const DOORS: [Door; 3] = [Door::Sse, Door::Plain, Door::SocketIo];

/// What a client wants of a stream.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) subject: String,
    pub(super) start: &'static str,
    /// Whether the client acknowledges.
    pub(super) manual: bool,
    pub(super) consumer: Option<String>,
    pub(super) group: Option<String>,
}

impl Wanted {
    /// What comes from now on, under no name.
    pub(super) fn of(subject: &str) -> Self {
        Self { subject: subject.to_owned(), start: "newest", manual: false, consumer: None, group: None }
    }

    const fn ack(&self) -> &'static str {
        if self.manual { "manual" } else { "none" }
    }

    /// The subscription as the doors for sockets read it: both have the same names for what is said here.
    fn document(&self) -> Value {
        json!({
            "id": ID, "subject": self.subject, "start": self.start, "ack": self.ack(),
            "consumer": self.consumer, "group": self.group,
        })
    }
}

/// An event that was delivered.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) index: i64,
    pub(super) payload: Value,
}

impl Event {
    fn of(json: &Value) -> Self {
        let id = json["id"].as_str().unwrap_or_default().to_owned();
        Self { id, index: json["index"].as_i64().unwrap_or(-1), payload: json["payload"].clone() }
    }
}

/// What a stream says within a time.
#[derive(Debug)]
pub(super) enum Said {
    Event(Event),
    Nothing,
    /// And why.
    Ended(String),
}

/// A stream that is open. The connection is cut without a word when it is dropped.
pub(super) enum Stream {
    Sse(Box<Listener>),
    Plain(Plain),
    SocketIo(SocketIo),
}

impl Stream {
    pub(super) fn open(door: Door, at: At, wanted: &Wanted) -> Result<Self, String> {
        match door {
            Door::Sse => Listener::open(at.log, wanted).map(|listener| Self::Sse(Box::new(listener))),
            Door::Plain => {
                let mut client = Plain::connect(at.web, "soak", &[])?;
                let mut frame = wanted.document();
                frame["type"] = json!("subscribe");
                client.send(&frame)?;
                let answer = client.wait(|frame| frame["id"] == ID)?;
                if answer["type"] == "subscribed" { Ok(Self::Plain(client)) } else { Err(answer.to_string()) }
            }
            Door::SocketIo => {
                let mut client = SocketIo::connect(at.web)?;
                client.ask("book:subscribe", &wanted.document())?;
                Ok(Self::SocketIo(client))
            }
        }
    }

    pub(super) fn next(&mut self, bound: Duration) -> Said {
        match self {
            Self::Sse(listener) => listener.next(bound),
            Self::Plain(client) => delivered(client, bound).unwrap_or_else(Said::Ended),
            Self::SocketIo(client) => emitted(client, bound).unwrap_or_else(Said::Ended),
        }
    }

    /// Acknowledges an event. Over SSE the answer is waited for, which is the way of that door.
    pub(super) fn ack(&mut self, event_id: &str) -> Result<(), String> {
        match self {
            Self::Sse(listener) => listener.ack(event_id),
            Self::Plain(client) => client.send(&json!({ "type": "ack", "id": ID, "event_id": event_id })),
            Self::SocketIo(client) => client.emit("book:ack", &json!({ "id": ID, "eventId": event_id })),
        }
    }

    /// Leaves with a word, where the door has one.
    pub(super) fn leave(self) -> Result<(), String> {
        match self {
            Self::Sse(_) => Ok(()),
            Self::Plain(mut client) => {
                client.send(&json!({ "type": "unsubscribe", "id": ID }))?;
                client.wait(|frame| frame["type"] == "unsubscribed")?;
                client.send(&json!({ "type": "disconnect" }))
            }
            Self::SocketIo(mut client) => {
                client.ask("book:unsubscribe", &json!({ "id": ID }))?;
                client.send("41")
            }
        }
    }
}

fn delivered(client: &mut Plain, bound: Duration) -> Result<Said, String> {
    let deadline = Instant::now() + bound;
    loop {
        let Some(frame) = client.next(left(deadline))? else { return Ok(Said::Nothing) };
        match frame["type"].as_str() {
            Some("delivery") => return Ok(Said::Event(Event::of(&frame["event"]))),
            Some("unsubscribed") => return Err(frame.to_string()),
            // Others: the roll, and answers to acknowledgements.
            _ => {}
        }
    }
}

fn emitted(client: &mut SocketIo, bound: Duration) -> Result<Said, String> {
    let deadline = Instant::now() + bound;
    loop {
        let Some(args) = client.event(left(deadline))? else { return Ok(Said::Nothing) };
        let arg = |at: usize| args.get(at).unwrap_or(&Value::Null);
        match arg(0).as_str() {
            Some("book:event") => return Ok(Said::Event(Event::of(arg(2)))),
            Some("book:end") => return Err(arg(1).to_string()),
            _ => {}
        }
    }
}

/// A stream over SSE, and the connection on which its events are acknowledged.
pub(super) struct Listener {
    sse: Sse,
    log: SocketAddr,
    consumer_id: String,
    http: Option<Http>,
}

impl Listener {
    fn open(log: SocketAddr, wanted: &Wanted) -> Result<Self, String> {
        let mut query = vec![("subject", wanted.subject.as_str()), ("start", wanted.start), ("ack", wanted.ack())];
        query.extend(wanted.consumer.as_deref().map(|name| ("consumer", name)));
        query.extend(wanted.group.as_deref().map(|name| ("group", name)));
        let sse = Sse::try_open(log, &target(&query), &[], BOUND).map_err(told)?;
        if sse.head.status != 200 {
            return Err(format!("status {}", sse.head.status));
        }
        let consumer_id = sse.consumer_id();
        Ok(Self { sse, log, consumer_id, http: None })
    }

    fn next(&mut self, bound: Duration) -> Said {
        match self.sse.try_event(bound) {
            Some(frame) if frame.kind.as_deref() == Some("error") => Said::Ended(frame.text().to_owned()),
            Some(frame) => Said::Event(Event::of(&frame.json())),
            None => self.sse.end.map_or(Said::Nothing, |end| Said::Ended(format!("{end:?}"))),
        }
    }

    fn ack(&mut self, event_id: &str) -> Result<(), String> {
        let target = target(&[("consumer_id", &self.consumer_id), ("event_id", event_id)]);
        // A connection that was idle for long may have been closed: then a new one.
        let kept = self.http.take().and_then(|mut http| {
            let answer = http.try_request("PUT", &target, &[], b"").ok()?;
            Some((http, answer))
        });
        let (http, answer) = match kept {
            Some(answered) => answered,
            None => {
                let mut http = Http::connect_within(self.log, BOUND).map_err(told)?;
                let answer = http.try_request("PUT", &target, &[], b"").map_err(told)?;
                (http, answer)
            }
        };
        self.http = Some(http);
        if answer.status == 202 { Ok(()) } else { Err(format!("status {}: {}", answer.status, answer.text())) }
    }
}
