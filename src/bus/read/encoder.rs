//! What the bus asks of a door when it writes to a stream: bytes, never I/O.

use rollbook_core::event::Event;

use super::redelivery::Redelivery;
use crate::base::slot::Slots;

/// Why a stream ends that its client has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The node stops, has no majority, or hands a consumer to another node. The client should come back, to another
    /// node.
    NodeStopping,
    /// Another connection has the same consumer now.
    TakenOver,
    /// The durable consumer or its namespace was deleted.
    Deleted,
    /// The event to begin behind does not exist.
    NotFound,
    /// The client lost the right to what it follows.
    Forbidden,
    /// This node cannot read the events now.
    Failed,
    /// The reason is unknown: a part of the node was restarted.
    Ended,
}

impl End {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::NodeStopping,
        Self::TakenOver,
        Self::Deleted,
        Self::NotFound,
        Self::Forbidden,
        Self::Failed,
        Self::Ended,
    ];

    /// The code that clients get.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NodeStopping => "node_stopping",
            Self::TakenOver => "taken_over",
            Self::Deleted => "deleted",
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::Failed => "failed",
            Self::Ended => "ended",
        }
    }

    /// Whether the same subscription may succeed later, or at another node.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::NodeStopping | Self::Failed | Self::Ended)
    }

    /// An explanation for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NodeStopping => "node stopping",
            Self::TakenOver => "another connection is this consumer now",
            Self::Deleted => "the consumer was deleted",
            Self::NotFound => "the event to start behind is not there",
            Self::Forbidden => "forbidden: the right to subscribe to this was taken away",
            Self::Failed => "the events cannot be read",
            Self::Ended => "the stream ended",
        }
    }
}

/// Hands out the slots of encoded frames beside an event.
pub static EVENT_SLOTS: Slots = Slots::new();

/// How a door writes a stream. Stateless, so that all clients of the door share the frames.
pub trait EventEncoder: Sync {
    /// The slot of [`EVENT_SLOTS`] in which a [`super::stored_event::StoredEvent`] keeps the frame of this encoder.
    fn slot(&self) -> usize;
    /// Appends an event at `index`; `again` when this is not the first delivery of the event.
    fn event(&self, index: i64, event: &Event<'_>, again: Option<&Redelivery>, out: &mut Vec<u8>);
    /// Appends a keep-alive for an idle connection.
    fn keep_alive(&self, out: &mut Vec<u8>);
    /// Appends that events are missing, and the index of the first one that is kept. For doors whose clients resume
    /// behind an id.
    fn gap(&self, _first: u64, _out: &mut Vec<u8>) {}
    /// Appends the beginning of the stream, as an id behind which a client resumes that got no event yet. For doors
    /// whose clients resume behind an id.
    fn begin(&self, _id: &str, _out: &mut Vec<u8>) {}
    /// Appends an error, after which the stream ends.
    fn failure(&self, text: &str, out: &mut Vec<u8>);
    /// Appends that the event to begin behind does not exist, after which the stream ends.
    fn not_found(&self, text: &str, out: &mut Vec<u8>) {
        self.failure(text, out);
    }
    /// Appends why the stream ends, for doors that report ends other than a failure.
    fn end(&self, _end: End, _out: &mut Vec<u8>) {}
    /// Appends the hint to come back after this many milliseconds, after which the stream ends.
    fn end_with_retry(&self, retry_millis: u64, out: &mut Vec<u8>);
}
