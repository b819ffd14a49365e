//! Publishing and streams of the book over one connection. The rules are those of the door `sse`.

use actix::WrapFuture as _;
use actix::prelude::{AsyncContext, Context};

use super::Connection;
use crate::bus::delivery::acknowledgement::Acknowledgement;
use crate::bus::subscribe::streams::{AckOutcome, StreamMessage, StreamRefusal, StreamUpdate, Turn};
use crate::doors::websocket::error::{ErrorCode, FrameError};
use crate::doors::websocket::outbound::{self, OutboundFrame};
use crate::doors::websocket::payloads::{PublishPayload, SubscribePayload};

impl Connection {
    pub(super) fn publish(&mut self, payload: &PublishPayload, ctx: &mut Context<Self>) {
        let id = &payload.id;
        match self.book.publish(id.clone(), None, payload.draft()) {
            Ok(message) => self.encode(id, message, ctx),
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    pub(super) fn subscribe(&mut self, SubscribePayload { id, wanted }: SubscribePayload) {
        if let Err(refusal) = self.book.subscribe(id.clone(), None, wanted) {
            self.refuse(&id, refusal);
        }
    }

    pub(super) fn ack(&mut self, id: &str, said: Acknowledgement) {
        if let Err(refusal) = self.book.acknowledge(id, said, None) {
            self.refuse(id, refusal);
        }
    }

    pub(super) fn unsubscribe(&mut self, id: &str, ctx: &mut Context<Self>) {
        match self.book.unsubscribe(id, None) {
            Ok(messages) => self.encode(id, messages, ctx),
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    /// Sends the update of a stream or of a publish to the client.
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

    /// Sends the results of the publish or stream `id`.
    fn encode(&mut self, id: &str, messages: impl IntoIterator<Item = StreamMessage>, ctx: &mut Context<Self>) {
        for message in messages {
            match message {
                StreamMessage::Published(_, Ok(Some(published))) => self.send(&outbound::published(id, &published)),
                // Only a batch has no event of its own, and this door has no batches.
                StreamMessage::Published(_, Ok(None)) => {}
                StreamMessage::Opened(_, Ok(consumer)) => self.send(&outbound::subscribed(id, &consumer)),
                StreamMessage::Event(event) => outbound::write_paced(&self.sink, &outbound::delivery(id, event)),
                StreamMessage::ChunkEnd(turn) => self.wait_for_room(turn, ctx),
                StreamMessage::Ended(end, reason) => self.send(&outbound::unsubscribed(id, Some((end, &reason)))),
                StreamMessage::Acknowledged(AckOutcome { event, done: Ok(done), .. }) => {
                    self.send(&outbound::acked(id, event.as_deref(), &done));
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

    /// Holds the turn until little waits for the client. Then the next stream sends.
    fn wait_for_room(&self, turn: Turn, ctx: &mut Context<Self>) {
        let sink = self.sink.clone();
        let room = async move {
            sink.room().await;
            drop(turn);
        };
        ctx.spawn(room.into_actor(self));
    }
}
