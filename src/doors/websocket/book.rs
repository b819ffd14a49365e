//! Publishing, and streams of the book, over one connection: by the rules of the door `sse`.

use actix::prelude::{AsyncContext, Context};
use actix::{ActorFutureExt as _, WrapFuture as _};
use bytes::Bytes;
use futures_util::FutureExt as _;

use super::actor::Connection;
use super::codec::{Code, Publishes, Subscribes, Wrong};
use super::frames::{self, Text};
use super::streams::Stream;
use crate::bus::access::{STREAMS_MAX, UNANSWERED_MAX};
use crate::bus::clock;
use crate::bus::draft::{Published, Rejected};
use crate::bus::message::Acknowledged;
use crate::bus::outlet::Body;
use crate::bus::pieces::{self, Piece};

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
        self.end_if_idle();
    }

    pub(super) fn publish(&mut self, publishes: &Publishes, ctx: &mut Context<Self>) {
        let id = publishes.id.clone();
        if !self.takes_one_more(&id) {
            return;
        }
        let access = self.shared.access.clone();
        let parsed = publishes.draft().publish(clock::timestamp(), &|name| access.is_writable(name));
        let mut publishing = Box::pin(async move { access.publish(parsed?).await });
        // Begun here: an actor does not begin its futures in the order in which it got them, and those of one
        // connection go into the book in theirs.
        match (&mut publishing).now_or_never() {
            Some(published) => self.published(&id, published),
            None => drop(ctx.spawn(publishing.into_actor(self).map(move |published, act, _| {
                act.published(&id, published);
            }))),
        }
    }

    fn published(&mut self, id: &str, published: Result<Option<Published>, Rejected>) {
        match published {
            Ok(Some(published)) => self.answers(&frames::published(id, &published)),
            // Only a batch has no event of its own.
            Ok(None) => {}
            Err(rejected) => self.answers(&frames::rejected(id, &rejected)),
        }
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
        let opening = async move { access.follow(wanted).await };
        let handle = ctx.spawn(opening.into_actor(self).map(move |opened, act, ctx| match opened {
            Ok((consumer, body)) => {
                act.send(&frames::subscribed(&name, &consumer));
                if let Some(stream) = act.streams.open.get_mut(&name) {
                    stream.consumer = consumer;
                }
                act.follow(name, body, ctx);
            }
            Err(rejected) => {
                act.streams.open.remove(&name);
                act.send(&frames::rejected(&name, &rejected));
            }
        }));
        let stream = Stream { consumer: String::new(), handle, acks: 0, leaving: false };
        self.streams.open.insert(id, stream);
    }

    /// Waits for what a stream has to say, as soon as everything before has left.
    fn follow(&mut self, id: String, mut body: Body, ctx: &mut Context<Self>) {
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
            if act.deliver(&name, chunk) {
                act.follow(name, body, ctx);
            }
        }));
        if let Some(stream) = self.streams.open.get_mut(&id) {
            stream.handle = handle;
        }
    }

    /// Writes the pieces of a stream; `false` when it has ended.
    fn deliver(&mut self, id: &str, chunk: Option<Bytes>) -> bool {
        let Some(stream) = self.streams.open.get(id) else { return false };
        if stream.leaving {
            return chunk.is_some();
        }
        let Some(chunk) = chunk else { return self.ended_by(id, "ended", "the stream ended") };
        for piece in pieces::split(chunk) {
            match piece {
                // Its own pace is that of the socket: it does not count as a client that does not read.
                Piece::Event(event) => frames::write(&self.sink, &frames::delivery(id, event)),
                Piece::Failure(text) => return self.ended_by(id, "failed", &String::from_utf8_lossy(&text)),
                Piece::Farewell => return self.ended_by(id, "node_stopping", "node stopping"),
            }
        }
        true
    }

    /// A stream has ended by itself.
    fn ended_by(&mut self, id: &str, code: &str, reason: &str) -> bool {
        self.streams.open.remove(id);
        self.send(&frames::unsubscribed(id, Some((code, reason))));
        false
    }

    fn unknown_stream(&mut self, id: &str) {
        let wrong = Wrong::new(Code::UnknownRequest, "no stream of this id is open");
        self.send(&Text::from(&wrong.of(id)));
    }

    pub(super) fn ack(&mut self, id: String, event: String, ctx: &mut Context<Self>) {
        let stream = self.streams.open.get(&id).filter(|stream| !stream.consumer.is_empty());
        let Some(consumer) = stream.map(|stream| stream.consumer.clone()) else { return self.unknown_stream(&id) };
        if !self.takes_one_more(&id) {
            return;
        }
        if let Some(stream) = self.streams.open.get_mut(&id) {
            stream.acks = stream.acks.saturating_add(1);
        }
        let (access, name) = (self.shared.access.clone(), event.clone());
        let acknowledging = async move { access.acknowledge(&consumer, &name).await };
        ctx.spawn(acknowledging.into_actor(self).map(move |acknowledged, act, ctx| {
            match acknowledged {
                Ok(done) => act.answers(&frames::acked(&id, &event, done == Acknowledged::Yes)),
                Err(rejected) => act.answers(&frames::rejected(&id, &rejected)),
            }
            if let Some(stream) = act.streams.open.get_mut(&id) {
                stream.acks = stream.acks.saturating_sub(1);
                act.leave_stream(&id, ctx);
            }
        }));
    }

    pub(super) fn unsubscribe(&mut self, id: &str, ctx: &mut Context<Self>) {
        match self.streams.open.get_mut(id) {
            Some(stream) => {
                stream.leaving = true;
                self.leave_stream(id, ctx);
            }
            None => self.unknown_stream(id),
        }
    }

    /// Ends a stream that is not wanted any more, when all that was acknowledged has its answer.
    fn leave_stream(&mut self, id: &str, ctx: &mut Context<Self>) {
        if self.streams.open.get(id).is_some_and(|stream| stream.leaving && stream.acks == 0)
            && let Some(stream) = self.streams.open.remove(id)
        {
            ctx.cancel_future(stream.handle);
            self.send(&frames::unsubscribed(id, None));
        }
    }
}
