//! Publishing, and streams of the book, over one connection: what its client is told, by the rules of the door `sse`.

use actix::WrapFuture as _;
use actix::prelude::{AsyncContext, Context};

use super::Connection;
use crate::bus::delivery::messages::AckResult;
use crate::bus::subscribe::streams::{AckOutcome, StreamMessage, StreamRefusal, StreamUpdate, Turn};
use crate::doors::websocket::error::{ErrorCode, FrameError};
use crate::doors::websocket::outbound::{self, OutboundFrame};
use crate::doors::websocket::payloads::{PublishPayload, SubscribePayload};

impl Connection {
    pub(super) fn publish(&mut self, publishes: &PublishPayload, ctx: &mut Context<Self>) {
        let id = &publishes.id;
        match self.book.publish(id.clone(), None, publishes.draft()) {
            Ok(message) => self.encode(id, message, ctx),
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    pub(super) fn subscribe(&mut self, SubscribePayload { id, wanted }: SubscribePayload) {
        if let Err(refusal) = self.book.subscribe(id.clone(), None, wanted) {
            self.refuse(&id, refusal);
        }
    }

    pub(super) fn ack(&mut self, id: &str, event: String) {
        if let Err(refusal) = self.book.acknowledge(id, event, None) {
            self.refuse(id, refusal);
        }
    }

    pub(super) fn unsubscribe(&mut self, id: &str, ctx: &mut Context<Self>) {
        match self.book.unsubscribe(id, None) {
            Ok(messages) => self.encode(id, messages, ctx),
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    /// A stream, or a publish, of this connection says something.
    pub(super) fn update(&mut self, number: u64, update: StreamUpdate, ctx: &mut Context<Self>) {
        if let Some((id, messages)) = self.book.update(number, update) {
            self.encode(&id, messages, ctx);
        }
    }

    fn refuse(&mut self, id: &str, refusal: StreamRefusal) {
        let code = match refusal {
            StreamRefusal::Taken => ErrorCode::DuplicateId,
            StreamRefusal::Unknown => ErrorCode::UnknownRequest,
            StreamRefusal::TooMany | StreamRefusal::Unanswered => ErrorCode::Overloaded,
        };
        self.send(&OutboundFrame::from(&FrameError::new(code, refusal.to_string()).of(id)));
    }

    /// Tells the client what became of what it calls `id`.
    fn encode(&mut self, id: &str, messages: impl IntoIterator<Item = StreamMessage>, ctx: &mut Context<Self>) {
        for message in messages {
            match message {
                StreamMessage::Published(_, Ok(Some(published))) => self.send(&outbound::published(id, &published)),
                // Only a batch has no event of its own.
                StreamMessage::Published(_, Ok(None)) => {}
                StreamMessage::Opened(_, Ok(consumer)) => self.send(&outbound::subscribed(id, &consumer)),
                StreamMessage::Event(event) => outbound::write_paced(&self.sink, &outbound::delivery(id, event)),
                StreamMessage::ChunkEnd(turn) => self.keep(turn, ctx),
                StreamMessage::Ended(end, reason) => self.send(&outbound::unsubscribed(id, Some((end, &reason)))),
                StreamMessage::Acknowledged(AckOutcome { event, done: Ok(done), .. }) => {
                    self.send(&outbound::acked(id, &event, done == AckResult::Yes));
                }
                StreamMessage::Left(_) => self.send(&outbound::unsubscribed(id, None)),
                StreamMessage::Published(_, Err(fault))
                | StreamMessage::Opened(_, Err(fault))
                | StreamMessage::Acknowledged(AckOutcome { done: Err(fault), .. }) => {
                    self.send(&outbound::refused(id, &fault));
                }
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
}
