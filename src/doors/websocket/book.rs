//! Publishing, and streams of the book, over one connection: by the rules of the door `sse`.

use std::time::Duration;

use actix::prelude::{AsyncContext, Context};
use actix::{ActorFutureExt as _, WrapFuture as _};
use bytes::Bytes;

use super::actor::Connection;
use super::codec::{Code, Publishes, Subscribes, Wrong};
use super::frames::{self, Text};
use super::streams::Stream;
use crate::bus::access::{Access, Subscribe, Way};
use crate::bus::clock;
use crate::bus::draft::Rejected;
use crate::bus::message::Acknowledged;
use crate::bus::outlet::{self, Body};
use crate::bus::pieces::{self, PIECES, Piece};

/// Most streams of one connection, and most publishes and acknowledgements that have no end yet.
const STREAMS_MAX: usize = 100;
const UNANSWERED_MAX: usize = 1000;
/// A stream notices that its client is gone at least this often; nothing is written.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

async fn open(access: Access, wanted: Subscribe) -> Result<(String, Body), Rejected> {
    access.check(&wanted.pattern)?;
    let consumer_id = access.consumer_id(None)?;
    let (outlet, body) = outlet::pair();
    let way = Way { consumer_id: consumer_id.clone(), wire: &PIECES, outlet, keep_alive: KEEP_ALIVE };
    access.open(wanted, way).await?;
    Ok((consumer_id, body))
}

impl Connection {
    /// Takes note of something that will be answered; `false` when there is too much of it.
    fn takes_one_more(&mut self, id: &str) -> bool {
        if self.streams.unanswered >= UNANSWERED_MAX {
            let wrong = Wrong::new(Code::Overloaded, "too much of this connection has no answer yet");
            self.send(&Text::from(&wrong.of(id)));
            return false;
        }
        self.streams.unanswered = self.streams.unanswered.saturating_add(1);
        true
    }

    fn answers(&mut self, text: &Text) {
        self.streams.unanswered = self.streams.unanswered.saturating_sub(1);
        self.send(text);
    }

    pub(super) fn publish(&mut self, publishes: &Publishes, ctx: &mut Context<Self>) {
        let id = publishes.id.clone();
        if !self.takes_one_more(&id) {
            return;
        }
        let access = self.shared.access.clone();
        let parsed = publishes.draft().publish(clock::timestamp(), &|name| access.is_writable(name));
        let publishing = async move { access.publish(parsed?).await };
        ctx.spawn(publishing.into_actor(self).map(move |published, act, _| match published {
            Ok(Some(published)) => act.answers(&frames::published(&id, &published)),
            // Only a batch has no event of its own.
            Ok(None) => {}
            Err(rejected) => act.answers(&frames::rejected(&id, &rejected)),
        }));
    }

    pub(super) fn subscribe(&mut self, Subscribes { id, wanted }: Subscribes, ctx: &mut Context<Self>) {
        let refused = match self.streams.open.len() {
            _ if self.streams.open.contains_key(&id) => Some((Code::DuplicateId, "a stream of this id is open")),
            STREAMS_MAX.. => Some((Code::Overloaded, "too many streams of this connection")),
            _ => None,
        };
        if let Some((code, text)) = refused {
            return self.send(&Text::from(&Wrong::new(code, text).of(&id)));
        }
        let (access, name) = (self.shared.access.clone(), id.clone());
        let opening = async move { open(access, wanted).await };
        let handle = ctx.spawn(opening.into_actor(self).map(move |opened, act, ctx| match opened {
            Ok((consumer, body)) => {
                act.send(&frames::subscribed(&name, &consumer));
                act.follow(name, consumer, body, ctx);
            }
            Err(rejected) => {
                act.streams.open.remove(&name);
                act.send(&frames::rejected(&name, &rejected));
            }
        }));
        self.streams.open.insert(id, Stream { consumer: String::new(), handle });
    }

    /// Waits for what a stream has to say, as soon as everything before has left.
    fn follow(&mut self, id: String, consumer: String, mut body: Body, ctx: &mut Context<Self>) {
        if self.is_over() {
            return;
        }
        let (sink, name) = (self.sink.clone(), id.clone());
        let next = async move {
            sink.drained().await;
            let chunk = body.next().await;
            (body, chunk)
        };
        let handle = ctx.spawn(next.into_actor(self).map(move |(body, chunk), act, ctx| {
            let Some(Stream { consumer, .. }) = act.streams.open.remove(&name) else { return };
            match chunk {
                Some(chunk) => {
                    if act.deliver(&name, chunk) {
                        act.follow(name, consumer, body, ctx);
                    }
                }
                None => act.send(&frames::unsubscribed(&name, Some("the stream ended"))),
            }
        }));
        self.streams.open.insert(id, Stream { consumer, handle });
    }

    /// Writes the pieces of a stream; `false` when it has ended with them.
    fn deliver(&mut self, id: &str, chunk: Bytes) -> bool {
        for piece in pieces::split(chunk) {
            let reason = match piece {
                Piece::Event(event) => {
                    // Its own pace is that of the socket: it does not count as a client that does not read.
                    frames::write(&self.sink, &frames::delivery(id, event));
                    continue;
                }
                Piece::Failure(text) => String::from_utf8_lossy(&text).into_owned(),
                Piece::Farewell => "node stopping".to_owned(),
            };
            self.send(&frames::unsubscribed(id, Some(&reason)));
            return false;
        }
        true
    }

    pub(super) fn ack(&mut self, id: String, event: String, ctx: &mut Context<Self>) {
        let stream = self.streams.open.get(&id).filter(|stream| !stream.consumer.is_empty());
        let Some(consumer) = stream.map(|stream| stream.consumer.clone()) else {
            let wrong = Wrong::new(Code::UnknownRequest, "no stream of this id is open");
            return self.send(&Text::from(&wrong.of(&id)));
        };
        if !self.takes_one_more(&id) {
            return;
        }
        let (access, name) = (self.shared.access.clone(), event.clone());
        let acknowledging = async move { access.acknowledge(&consumer, &name).await };
        ctx.spawn(acknowledging.into_actor(self).map(move |acknowledged, act, _| match acknowledged {
            Ok(done) => act.answers(&frames::acked(&id, &event, done == Acknowledged::Yes)),
            Err(rejected) => act.answers(&frames::rejected(&id, &rejected)),
        }));
    }

    pub(super) fn unsubscribe(&mut self, id: &str, ctx: &mut Context<Self>) {
        match self.streams.open.remove(id) {
            Some(stream) => {
                ctx.cancel_future(stream.handle);
                self.send(&frames::unsubscribed(id, None));
            }
            None => {
                let wrong = Wrong::new(Code::UnknownRequest, "no stream of this id is open");
                self.send(&Text::from(&wrong.of(id)));
            }
        }
    }
}
