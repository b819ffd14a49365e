//! Live messages, and where they go.

use std::fmt::Debug;

use bytes::Bytes;
use bytestring::ByteString;

/// One live message. Clones share its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveMessage {
    /// The subject.
    pub subject: ByteString,
    /// Where answers go; empty when the publisher wants none.
    pub reply: ByteString,
    /// Headers as one block, as the publisher's protocol writes them; empty when there are none.
    pub headers: Bytes,
    /// The payload.
    pub payload: Bytes,
}

impl LiveMessage {
    /// Bytes of the message, for bounds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        [self.subject.len(), self.reply.len(), self.headers.len(), self.payload.len()].iter().sum()
    }
}

/// What became of a message for one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// The message waits for the client, whose connection is awake or will look soon.
    Queued,
    /// The message waits for the client, whose connection sleeps: [`LiveSink::wake`] has to follow.
    Sleeping,
    /// The subscription takes no more messages: it has had as many as it wanted, or the client is gone or too slow.
    Refused,
}

/// The queue of one client for the messages of its live subscriptions.
///
/// A publisher puts many messages into many queues and wakes each sleeping connection once, at the end of its batch.
pub trait LiveSink: Debug + Send + Sync {
    /// Takes a message for the subscription with this number. Must not block.
    fn deliver(&self, subscription: u64, message: &LiveMessage) -> Delivered;

    /// Wakes the connection of the client.
    fn wake(&self);

    /// The serial number of the client, by which it is known not to get its own messages.
    fn client(&self) -> u64;
}
