//! A namespace: one log with its own numbering, and how long it keeps events.

use alloc::string::String;

use crate::limits;
use crate::subjects::subject::Namespace;

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
    /// A dedupe key is remembered for this many milliseconds; zero means the default. Without effect below
    /// feature level `BOUNDED`.
    #[prost(uint64, tag = "20")]
    pub dedupe_window_ms: u64,
}

impl Retention {
    /// Whether everything is kept for ever.
    #[must_use]
    pub const fn is_unlimited(&self) -> bool {
        self.age_ms_max == 0 && self.bytes_max == 0 && self.events_max == 0
    }

    /// For how many milliseconds a dedupe key is remembered.
    #[must_use]
    pub fn dedupe_window(&self) -> u64 {
        match self.dedupe_window_ms {
            0 => limits::DEDUPE_WINDOW_MS,
            window => window.clamp(limits::DEDUPE_WINDOW_MS_MIN, limits::DEDUPE_WINDOW_MS_MAX),
        }
    }
}

/// What is remembered of the dedupe keys and chosen ids of a namespace; the rest is in rows.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Remembered {
    /// Ordinal of the oldest key; keys are numbered in the order in which they came.
    #[prost(uint64, tag = "1")]
    pub keys_first: u64,
    /// Ordinal of the next key.
    #[prost(uint64, tag = "2")]
    pub keys_next: u64,
    /// Bytes that the keys take.
    #[prost(uint64, tag = "3")]
    pub key_bytes: u64,
    /// The oldest key is not older than this, milliseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub keys_since: u64,
    /// Keys that were forgotten before their time, because there were too many.
    #[prost(uint64, tag = "5")]
    pub keys_evicted: u64,
    /// Events that have a row in the order of their chosen ids.
    #[prost(uint64, tag = "6")]
    pub ids: u64,
    /// No event before this sequence number has such a row.
    #[prost(uint64, tag = "7")]
    pub ids_first: u64,
}

impl Remembered {
    /// Number of keys that are remembered; those that took the place of an expired one are counted with it.
    #[must_use]
    pub const fn keys(&self) -> u64 {
        self.keys_next.saturating_sub(self.keys_first)
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
    /// Its dedupe keys and chosen ids; none below feature level `BOUNDED`.
    #[prost(message, optional, tag = "20")]
    pub remembered: Option<Remembered>,
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
