//! What a client is told of an event that a client was given before.

use rollbook_core::time::Timestamp;

/// Why an event is delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No acknowledgement came in time.
    Timeout,
    /// A client said that the event is not processed.
    Nack,
    /// The client that had the event went away.
    Disconnected,
}

impl Reason {
    /// All reasons. The number of a reason in messages between nodes is its place here, counted from 1.
    pub const ALL: [Self; 3] = [Self::Timeout, Self::Nack, Self::Disconnected];

    /// The word that clients get.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Nack => "nack",
            Self::Disconnected => "disconnected",
        }
    }
}

/// A delivery that is not the first one of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redelivery {
    /// The number of this delivery, 2 or more. Deliveries that the client had no chance to acknowledge do not count.
    pub count: u32,
    /// When the first delivery was; `None` when another node made it.
    pub first_at: Option<Timestamp>,
    /// Why the event comes again; `None` when another node decided that.
    pub reason: Option<Reason>,
}

impl Redelivery {
    /// Appends the object `{"count":2,"first_at":"...","reason":"timeout"}`; what is not known is left out.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{{\"count\":{}", self.count).as_bytes());
        if let Some(first_at) = self.first_at {
            out.extend_from_slice(b",\"first_at\":\"");
            first_at.write(out);
            out.push(b'"');
        }
        if let Some(reason) = self.reason {
            out.extend_from_slice(format!(",\"reason\":\"{}\"", reason.word()).as_bytes());
        }
        out.push(b'}');
    }
}
