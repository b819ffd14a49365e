//! A namespace: one log with its own numbering, and how long it keeps events.

use alloc::string::String;

use crate::subject::Namespace;

/// How long a namespace keeps its events; the tightest bound wins, zero means "no bound".
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Retention {
    /// Events older than this many milliseconds may go.
    #[prost(uint64, tag = "1")]
    pub age_ms_max: u64,
    /// Oldest events go while the records of the namespace take more bytes than this.
    #[prost(uint64, tag = "2")]
    pub bytes_max: u64,
    /// Oldest events go while there are more than this.
    #[prost(uint64, tag = "3")]
    pub events_max: u64,
}

impl Retention {
    /// Whether everything is kept for ever.
    #[must_use]
    pub const fn is_unlimited(&self) -> bool {
        self.age_ms_max == 0 && self.bytes_max == 0 && self.events_max == 0
    }
}

/// Where notifications to clients are.
const NOTIFY: &str = "notify";
/// The namespaces that the bus writes.
pub(crate) const OF_THE_BUS: [&str; 3] = [Namespace::ROLL, NOTIFY, Namespace::DEAD];

/// What a namespace that the bus writes keeps when nobody has said otherwise, from feature level `BOUNDED` on: they grow by
/// themselves, and would fill every disk in the end.
#[must_use]
pub fn bus_retention(name: &str) -> Retention {
    const DAY_MS: u64 = 86_400_000;
    let (days, bytes_max, events_max) = match name {
        Namespace::DEAD => (30, 4 << 30, 1_000_000),
        Namespace::ROLL | NOTIFY => (7, 256 << 20, 100_000),
        _ => return Retention::default(),
    };
    let mut keep = Retention::default();
    (keep.age_ms_max, keep.bytes_max, keep.events_max) = (days * DAY_MS, bytes_max, events_max);
    keep
}

/// The replicated state of a namespace. Same bytes on every node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Head {
    /// Number in row keys; never reused.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Name as clients write it.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Sequence number of the next event; the first event of all has 1.
    #[prost(uint64, tag = "3")]
    pub next: u64,
    /// Sequence number of the oldest event that clients can see.
    #[prost(uint64, tag = "4")]
    pub first: u64,
    /// Bytes of all records ever appended: a position on the byte axis, it only grows.
    #[prost(uint64, tag = "5")]
    pub bytes_end: u64,
    /// Position on that axis of the record at `first`, as the last trim said.
    #[prost(uint64, tag = "6")]
    pub bytes_first: u64,
    /// How long events are kept.
    #[prost(message, required, tag = "7")]
    pub retention: Retention,
    /// The namespace was deleted: its numbering is kept so that a new one of the name goes on.
    #[prost(bool, tag = "8")]
    pub deleted: bool,
    /// The entry that deleted it: the one that was deleted first is forgotten first. 0 below feature level `BOUNDED`.
    #[prost(uint64, tag = "9")]
    pub deleted_by: u64,
}

impl Head {
    /// Number of events that clients can see.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.next.saturating_sub(self.first)
    }

    /// Sequence number of the newest event ever, 0 before the first.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Bytes of the records that clients can see.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes_end.saturating_sub(self.bytes_first)
    }
}
