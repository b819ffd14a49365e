//! What the bus asks a door for when it writes to a stream: bytes, never I/O.

use rollbook_core::event::Event;

use crate::base::slot::Slots;

/// Why a stream ends that its client has not ended. The names are those of the doors for sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The node stops, has no majority, or hands a consumer to another node: come back, elsewhere.
    NodeStopping,
    /// Another connection has the same consumer now.
    TakenOver,
    /// The durable consumer or its namespace was deleted.
    Deleted,
    /// The event to begin behind is not there.
    NotFound,
    /// The events cannot be read from this node now.
    Failed,
    /// Nobody said why: a part of the node was restarted.
    Ended,
}

impl End {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::NodeStopping, Self::TakenOver, Self::Deleted, Self::NotFound, Self::Failed, Self::Ended];

    /// The code that clients see.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NodeStopping => "node_stopping",
            Self::TakenOver => "taken_over",
            Self::Deleted => "deleted",
            Self::NotFound => "not_found",
            Self::Failed => "failed",
            Self::Ended => "ended",
        }
    }

    /// Whether the same subscription may succeed later, or at another node.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::NodeStopping | Self::Failed | Self::Ended)
    }

    /// What it means, for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NodeStopping => "node stopping",
            Self::TakenOver => "another connection is this consumer now",
            Self::Deleted => "the consumer was deleted",
            Self::NotFound => "the event to start behind is not there",
            Self::Failed => "the events cannot be read",
            Self::Ended => "the stream ended",
        }
    }
}

/// The places of encoded frames beside an event.
pub static EVENT_SLOTS: Slots = Slots::new();

/// How a door writes a stream. Stateless, so that frames can be shared by all its clients.
pub trait EventEncoder: Sync {
    /// Which of the frames of an [`super::stored_event::StoredEvent`] is this encoder's: the number of a slot of
    /// [`EVENT_SLOTS`].
    fn slot(&self) -> usize;
    /// Appends an event at `index`.
    fn event(&self, index: i64, event: &Event<'_>, out: &mut Vec<u8>);
    /// Appends what keeps an idle connection open.
    fn keep_alive(&self, out: &mut Vec<u8>);
    /// Appends that events are missing which the client would have got, and which index is the first that is kept.
    /// For doors whose clients come back with the id of what they had last.
    fn gap(&self, _first: u64, _out: &mut Vec<u8>) {}
    /// Appends where the stream begins, as an id behind which a client goes on that comes back before its first event.
    /// For doors whose clients come back with an id.
    fn begin(&self, _id: &str, _out: &mut Vec<u8>) {}
    /// Appends an error, after which the stream ends.
    fn failure(&self, text: &str, out: &mut Vec<u8>);
    /// Appends that the event to begin behind is not there, after which the stream ends.
    fn not_found(&self, text: &str, out: &mut Vec<u8>) {
        self.failure(text, out);
    }
    /// Appends why the stream ends, for doors whose clients are told of ends other than a failure.
    fn end(&self, _end: End, _out: &mut Vec<u8>) {}
    /// Appends the hint to come back after so many milliseconds, after which the stream ends.
    fn end_with_retry(&self, retry_millis: u64, out: &mut Vec<u8>);
}
