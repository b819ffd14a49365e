//! Publishing, and streams of the book, over one connection: by the rules of the door `sse`.

use std::sync::Arc;

use actix::prelude::{AsyncContext, Context};
use actix::{ActorFutureExt as _, WrapFuture as _};
use futures_util::FutureExt as _;

use super::actor::Connection;
use super::codec::{Code, Publishes, Subscribes, Wrong};
use super::frames::{self, Text};
use crate::base::clock;
use crate::bus::client::clients::ClientMessage;
use crate::bus::delivery::messages::AckResult;
use crate::bus::error::Fault;
use crate::bus::subscribe::streams::{Answered, StreamMessage, StreamRefusal, Streamed, Turn};
use crate::bus::write::draft::Published;

impl Connection {
    fn unwilling(&mut self, id: &str, unwilling: StreamRefusal) {
        let code = match unwilling {
            StreamRefusal::Taken => Code::DuplicateId,
            StreamRefusal::Unknown => Code::UnknownRequest,
            StreamRefusal::TooMany | StreamRefusal::Unanswered => Code::Overloaded,
        };
        self.send(&Text::from(&Wrong::new(code, unwilling.to_string()).of(id)));
    }

    pub(super) fn publish(&mut self, publishes: &Publishes, ctx: &mut Context<Self>) {
        let id = publishes.id.clone();
        if let Err(unwilling) = self.streams.begin() {
            return self.unwilling(&id, unwilling);
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

    fn published(&mut self, id: &str, published: Result<Option<Published>, Fault>) {
        self.streams.done();
        match published {
            Ok(Some(published)) => self.send(&frames::published(id, &published)),
            // Only a batch has no event of its own.
            Ok(None) => {}
            Err(fault) => self.send(&frames::refused(id, &fault)),
        }
        self.end_if_idle();
    }

    /// What a stream says comes back by the mailbox of this connection.
    fn stream_mailbox(&self) -> impl Fn(u64, Streamed) + use<> {
        let client = Arc::clone(self.client());
        move |number, streamed| {
            if !client.tell(ClientMessage::Stream(number, streamed)) {
                client.loses();
            }
        }
    }

    pub(super) fn subscribe(&mut self, Subscribes { id, wanted }: Subscribes) {
        let (access, tell) = (self.shared.access.clone(), self.stream_mailbox());
        let opening = async move { access.follow(wanted).await };
        if let Err(unwilling) = self.streams.subscribe(id.clone(), None, opening, tell) {
            self.unwilling(&id, unwilling);
        }
    }

    /// A stream says something.
    pub(super) fn streamed(&mut self, number: u64, streamed: Streamed, ctx: &mut Context<Self>) {
        let Some((id, words)) = self.streams.told(number, streamed) else { return };
        self.words(&id, words, ctx);
    }

    fn words(&mut self, id: &str, words: Vec<StreamMessage>, ctx: &mut Context<Self>) {
        for word in words {
            match word {
                StreamMessage::Opened(_, Ok(consumer)) => self.send(&frames::subscribed(id, &consumer)),
                StreamMessage::Opened(_, Err(fault)) => self.send(&frames::refused(id, &fault)),
                StreamMessage::Event(event) => frames::write_paced(&self.sink, &frames::delivery(id, event)),
                StreamMessage::Told(turn) => self.keep(turn, ctx),
                StreamMessage::Ended(end, reason) => self.send(&frames::unsubscribed(id, Some((end, &reason)))),
                StreamMessage::Acknowledged(Answered { event, done: Ok(done), .. }) => {
                    self.send(&frames::acked(id, &event, done == AckResult::Yes));
                }
                StreamMessage::Acknowledged(Answered { done: Err(fault), .. }) => {
                    self.send(&frames::refused(id, &fault));
                }
                StreamMessage::Left(_) => self.send(&frames::unsubscribed(id, None)),
            }
        }
    }

    /// The next stream speaks when little of what this one has said waits for the client.
    fn keep(&self, turn: Turn, ctx: &mut Context<Self>) {
        let sink = self.sink.clone();
        let left = async move {
            sink.room().await;
            drop(turn);
        };
        ctx.spawn(left.into_actor(self));
    }

    pub(super) fn ack(&mut self, id: &str, event: String) {
        let (access, tell) = (self.shared.access.clone(), self.stream_mailbox());
        let acknowledge = |consumer: String, event: String| async move { access.acknowledge(&consumer, &event).await };
        if let Err(unwilling) = self.streams.acknowledge(id, event, None, acknowledge, tell) {
            self.unwilling(id, unwilling);
        }
    }

    pub(super) fn unsubscribe(&mut self, id: &str, ctx: &mut Context<Self>) {
        match self.streams.unsubscribe(id, None) {
            Ok(words) => self.words(id, words, ctx),
            Err(unwilling) => self.unwilling(id, unwilling),
        }
    }
}
