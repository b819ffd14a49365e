//! A namespace: one log of events with its own sequence numbers, and its retention.
//!
//! Invariant of a [`Head`]: sequence numbers are never reused. A namespace that is deleted and created again continues
//! where the deleted one ended.

use alloc::string::String;

use crate::limits;
use crate::subjects::subject::Namespace;
use crate::timed::delayed::DelayedState;

/// How long a namespace keeps its events. Each bound applies on its own, so the tightest bound wins; zero means "no
/// bound".
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Retention {
    /// Events that are older than this many milliseconds are removed.
    #[prost(uint64, tag = "1")]
    pub age_ms_max: u64,
    /// The oldest events are removed while the records of the namespace take more than this many bytes.
    #[prost(uint64, tag = "2")]
    pub bytes_max: u64,
    /// The oldest events are removed while the namespace holds more than this many events.
    #[prost(uint64, tag = "3")]
    pub events_max: u64,
    /// A dedupe key is remembered for this many milliseconds; zero means [`limits::DEDUPE_WINDOW_MS`]. The field has no
    /// effect below feature level `BOUNDED`.
    #[prost(uint64, tag = "20")]
    pub dedupe_window_ms: u64,
}

impl Retention {
    /// Whether the namespace keeps all events for ever.
    #[must_use]
    pub const fn is_unlimited(&self) -> bool {
        self.age_ms_max == 0 && self.bytes_max == 0 && self.events_max == 0
    }

    /// The time for which a dedupe key is remembered, in milliseconds: the default for zero, else within its limits.
    #[must_use]
    pub fn dedupe_window(&self) -> u64 {
        match self.dedupe_window_ms {
            0 => limits::DEDUPE_WINDOW_MS,
            window => window.clamp(limits::DEDUPE_WINDOW_MS_MIN, limits::DEDUPE_WINDOW_MS_MAX),
        }
    }
}

/// Counters over the rows of dedupe keys and chosen ids of a namespace.
///
/// The rows themselves can be millions, so only the store holds them. The counters say which rows are the oldest, so
/// that the rules find the rows to remove without a search.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DedupeState {
    /// Ordinal of the oldest key. Keys are numbered in the order in which they were appended.
    #[prost(uint64, tag = "1")]
    pub keys_first: u64,
    /// Ordinal that the next key gets.
    #[prost(uint64, tag = "2")]
    pub keys_next: u64,
    /// Bytes that the keys take in the store, about. [`limits::DEDUPE_KEY_BYTES_MAX`] bounds this sum.
    #[prost(uint64, tag = "3")]
    pub key_bytes: u64,
    /// A lower bound of the time of the oldest key, milliseconds since 1970: no key expires before this time plus the
    /// window, so that nobody needs to read the row of the oldest key earlier.
    #[prost(uint64, tag = "4")]
    pub keys_since: u64,
    /// Keys that were removed before they expired, because the namespace had too many. Operators watch this counter:
    /// while it grows, the window is shorter than configured.
    #[prost(uint64, tag = "5")]
    pub keys_evicted: u64,
    /// Number of events with a chosen id that have a row by sequence number.
    #[prost(uint64, tag = "6")]
    pub ids: u64,
    /// No event before this sequence number has such a row: a search for rows to remove begins here.
    #[prost(uint64, tag = "7")]
    pub ids_first: u64,
}

impl DedupeState {
    /// Number of ordinals between the oldest and the newest key. A key that replaced an expired key of the same name
    /// left the old ordinal empty; the empty ordinal is counted until it is the oldest.
    #[must_use]
    pub const fn keys(&self) -> u64 {
        self.keys_next.saturating_sub(self.keys_first)
    }
}

/// The namespace of notifications to clients.
const NOTIFY: &str = "notify";
/// The namespaces to which the bus itself appends.
pub(crate) const BUS_NAMESPACES: [&str; 3] = [Namespace::ROLL, NOTIFY, Namespace::DEAD];

/// The default retention of a namespace, from feature level `BOUNDED` on. The namespaces to which the bus appends grow
/// without any publish of a client, so without a bound they would fill the disk. All others keep everything.
#[must_use]
pub fn bus_retention(name: &str) -> Retention {
    const DAY_MS: u64 = 86_400_000;
    let (days, bytes_max, events_max) = match name {
        Namespace::DEAD => (30, 4 << 30, 1_000_000),
        Namespace::ROLL | NOTIFY => (7, 256 << 20, 100_000),
        // What envelopes and processes still need is kept longer: see the rule of trims.
        Namespace::XBUS => (7, 0, 0),
        // By age alone: nobody gets rid of the audit by filling it.
        Namespace::AUDIT => (90, 0, 0),
        _ => return Retention::default(),
    };
    let mut keep = Retention::default();
    (keep.age_ms_max, keep.bytes_max, keep.events_max) = (days * DAY_MS, bytes_max, events_max);
    keep
}

/// The replicated state of a namespace.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Head {
    /// Number of the namespace in row keys, shorter than the name; never reused.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Name of the namespace, as clients write it.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Sequence number that the next event gets; the first event of all has 1.
    #[prost(uint64, tag = "3")]
    pub next: u64,
    /// Sequence number of the oldest event that clients can see. A trim raises this number.
    #[prost(uint64, tag = "4")]
    pub first: u64,
    /// Bytes of all records that were ever appended. The sum only grows, so it serves as an offset into an endless file
    /// of records: the difference of two offsets is the size of the records between them.
    #[prost(uint64, tag = "5")]
    pub bytes_end: u64,
    /// Byte offset of the record of `first`, as the last trim gave it.
    #[prost(uint64, tag = "6")]
    pub bytes_first: u64,
    /// How long the namespace keeps its events.
    #[prost(message, required, tag = "7")]
    pub retention: Retention,
    /// Whether the namespace was deleted. The row stays, so that a new namespace of the same name continues the
    /// sequence numbers: a client that remembers an index never gets another event under it.
    #[prost(bool, tag = "8")]
    pub deleted: bool,
    /// Log index of the entry that deleted the namespace: when there are too many deleted namespaces, the one with the
    /// lowest index is forgotten. 0 below feature level `BOUNDED`.
    #[prost(uint64, tag = "9")]
    pub deleted_by: u64,
    /// Counters of the dedupe keys and chosen ids; none below feature level `BOUNDED`.
    #[prost(message, optional, tag = "20")]
    pub dedupe: Option<DedupeState>,
    /// Counters of the events that wait for their time; none before the first of them, and below feature level `TIMED`.
    #[prost(message, optional, tag = "21")]
    pub delayed: Option<DelayedState>,
}

impl Head {
    /// Number of events that clients can see.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.next.saturating_sub(self.first)
    }

    /// Sequence number of the newest event that was ever appended, 0 before the first.
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
