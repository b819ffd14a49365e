//! Answers of many messages: bounded in what waits for the client, and never silent for long.

use std::time::Duration;

use super::reply::Answer;
use super::request::Request;
use crate::doors::nats::xbus::json::control::ToJson;
use crate::doors::nats::xbus::proto::nrpc::KEEP_ALIVE;

/// Bytes that wait for the client before a stream pauses.
const BACKLOG_MAX: usize = 4 * 1024 * 1024;
/// Such a pause.
const PAUSE: Duration = Duration::from_millis(5);

/// A stream of replies to one call.
#[derive(Debug)]
pub struct ReplyStream<'a> {
    request: &'a Request,
    sent: u32,
}

impl<'a> ReplyStream<'a> {
    /// The replies of this call.
    #[must_use]
    pub const fn of(request: &'a Request) -> Self {
        Self { request, sent: 0 }
    }

    /// Sends one message, and waits while much is on its way to the client. Returns `false` when nobody listens any
    /// more: then the rest need not be made.
    #[must_use]
    pub async fn send(&mut self, message: &(impl prost::Message + ToJson)) -> bool {
        match self.request.message(message) {
            Answer::Message(payload) => self.send_payload(payload).await,
            Answer::Void | Answer::Silent => true,
        }
    }

    /// The same for a message that is encoded.
    #[must_use]
    pub async fn send_payload(&mut self, payload: Vec<u8>) -> bool {
        if !self.request.replies.send(payload) {
            return false;
        }
        self.sent = self.sent.saturating_add(1);
        while self.request.caller.backlog.waiting() > BACKLOG_MAX {
            tokio::time::sleep(PAUSE).await;
        }
        true
    }

    /// Says that the stream goes on although there is nothing to tell yet. Returns `false` when nobody listens any more.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        // JSON has no keep-alive.
        self.request.is_json() || self.request.replies.send(KEEP_ALIVE.to_vec())
    }

    /// Ends the stream.
    #[must_use]
    pub fn end(self) -> Answer {
        self.request.replies.end(self.sent);
        Answer::Silent
    }
}
