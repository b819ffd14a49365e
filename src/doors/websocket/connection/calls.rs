//! Messages between services, and commands of the operator, over one connection.

use std::sync::Arc;
use std::time::Duration;

use super::Connection;
use crate::base::clock;
use crate::bus::call::types::{Answered, Key, Requester};
use crate::bus::client::call::{Answer, Caller, HandedPayload, Outcome, Payload, Request};
use crate::bus::client::clients::{ClientMessage, Command};
use crate::doors::websocket::error::{ErrorCode, FrameError};
use crate::doors::websocket::outbound::{self, OutboundFrame};
use crate::doors::websocket::payloads::MessagePayload;

impl Connection {
    pub(super) fn call(&self, ticket: u64, message: MessagePayload, timeout: Duration) {
        let MessagePayload { id, service, method, consumer, responder, payload, key, traceparent, .. } = message;
        let instance = self.session.identity().map(|identity| identity.instance.clone()).unwrap_or_default();
        let payload = Payload::json(payload);
        let request = Request {
            id,
            capability: service,
            action: method,
            // A connection id would exclude the sender, and a service may send to itself.
            from: Caller { service: consumer.unwrap_or_default(), instance, connection: None },
            deadline: clock::now() + timeout,
            retries: 0,
            key,
            responder,
            traceparent,
        };
        let client = Arc::clone(self.handle.client());
        let reply = move |outcome| client.must_tell(ClientMessage::Outcome(ticket, outcome));
        let identity = self.handle.client().identity();
        let requester = Requester::Client(self.serial());
        self.context.services.router.call(identity, requester, (request, payload), Box::new(reply));
    }

    /// Handles the outcome of a message of this client.
    pub(super) fn message_ended(&mut self, ticket: u64, outcome: Outcome) {
        let reason = outcome.as_ref().err().and_then(outbound::unhandled_reason);
        let Some((message, frame)) = self.session.ended(ticket, outcome, clock::now()) else { return };
        if let Some(reason) = reason {
            self.unhandled(&message, reason);
        }
        if let Some(frame) = frame {
            self.send(&frame);
        }
    }

    pub(super) fn answer(&mut self, id: &str, answer: Answer) {
        match self.context.services.router.answer(self.serial(), Key::Id(id), answer) {
            Answered::Yes => {}
            Answered::Late | Answered::NotAwaited | Answered::CallerGone | Answered::Unknown => {
                let error = FrameError::new(ErrorCode::UnknownRequest, "nobody waits for that").of(id);
                self.send(&OutboundFrame::from(&error));
            }
        }
    }

    /// Gives the client a request, unless the client does not read.
    pub(super) fn deliver(&mut self, handed: &HandedPayload) {
        let router = &self.context.services.router;
        if self.is_full() {
            return router.decline(self.serial(), handed.number);
        }
        match outbound::delivered(handed) {
            Ok(message) => outbound::write(&self.sink, &message),
            Err(error) => return router.refuse(self.serial(), handed.number, error),
        }
        router.taken(self.serial(), handed);
    }

    pub(super) fn command(&mut self, Command { name, json, done }: Command) {
        if self.session.is_registered()
            && let Some(number) = self.commands.give(done)
        {
            self.send(&outbound::command(number, name, &json));
        }
    }
}
