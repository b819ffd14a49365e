//! Rows: the layout of the replicated state in a sorted key-value store.
//!
//! Integers in keys are big-endian, so that rows sort by number. The keys of all rows of a namespace begin with its
//! number, so that one range deletes them. The rules read rows through [`Rows`] and collect changes in [`Writes`]; the
//! store commits the writes together with the index of the applied entry.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::entry::{Entry, Frame, Publish};
use crate::namespace::Head;

/// A family of rows. The store keeps each family in a column family of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Single values by name, such as the cluster id and the time of the log: see `META_*` of [`crate::machine`].
    Meta,
    /// namespace -> [`crate::namespace::Head`].
    Heads,
    /// namespace, first sequence -> [`IndexRow`]: one row for each namespace and entry, and from feature level `TIMED`
    /// on more where an entry appends events of its frames and events that have waited.
    Index,
    /// namespace, event id -> sequence: only ids that clients chose. From level `BOUNDED` on also
    /// [`IN_ORDER`]: namespace, 0xff, sequence -> event id. Behind all namespaces: the rows of
    /// [`crate::machine::delayed::keys`], of docks and of Xbus.
    Ids,
    /// namespace, subject, 0, key -> ordinal within the window of the subject. From level `BOUNDED` on the value is the
    /// ordinal within the namespace, the time, and the event that has the key.
    Keys,
    /// namespace, subject, 0, ordinal -> key; the row of ordinal 0 holds both ends of the window. From level `BOUNDED`
    /// on [`IN_ORDER`]: namespace, 0xff, ordinal -> time, subject, 0, key.
    KeyRing,
    /// namespace, name -> [`crate::consumer::Consumer`].
    Consumers,
    /// namespace, sequence -> record of an event that the rules made, or that waited for its time: no entry of the log
    /// holds it.
    Made,
    /// node -> [`crate::node::Node`].
    Nodes,
    /// node, incarnation, batch -> replies of a forwarded batch.
    Batches,
    /// revision -> [`crate::central::ConfigRevision`]: the newest revisions.
    Config,
    /// id -> [`crate::service::Service`].
    Services,
    /// service, 0, id -> [`crate::service::Instance`].
    Instances,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 13] = [
        Self::Meta,
        Self::Heads,
        Self::Index,
        Self::Ids,
        Self::Keys,
        Self::KeyRing,
        Self::Consumers,
        Self::Made,
        Self::Nodes,
        Self::Batches,
        Self::Config,
        Self::Services,
        Self::Instances,
    ];

    /// Name of the column family.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Heads => "heads",
            Self::Index => "index",
            Self::Ids => "ids",
            Self::Keys => "keys",
            Self::KeyRing => "keyring",
            Self::Consumers => "consumers",
            Self::Made => "made",
            Self::Nodes => "nodes",
            Self::Batches => "batches",
            Self::Config => "config",
            Self::Services => "services",
            Self::Instances => "instances",
        }
    }
}

/// The byte behind the number of the namespace in keys that sort by age. No subject and no id begins with this byte, so
/// these keys never equal a key by name.
pub const IN_ORDER: u8 = 0xff;

/// The store could not be read. The machine must stop: with a guess its state would differ from that of other nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state store: {0}")]
pub struct RowsError(pub String);

impl RowsError {
    /// The error for a row of this family that cannot be decoded. Such a row is never treated as absent.
    pub(crate) fn corrupt(family: &str) -> Self {
        Self(alloc::format!("corrupt row in {family}"))
    }

    /// The error for an entry that only newer releases can apply.
    pub(crate) fn newer(entry: u64, what: &str) -> Self {
        Self(alloc::format!("entry {entry} {what}: upgrade this node"))
    }
}

/// Key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Read access to the committed rows.
pub trait Rows {
    /// The value of a row.
    ///
    /// # Errors
    /// The store failed; this is never reported as an absent row.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError>;

    /// The first rows of `from .. to` in the order of their keys, at most `limit`.
    ///
    /// # Errors
    /// The store failed; this is never reported as absent rows.
    fn scan(&self, family: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, RowsError>;

    /// The id of the event with this sequence number in a namespace; `None` when no such event exists. The events of
    /// all entries before the present one must be visible.
    ///
    /// # Errors
    /// The store failed; this is never reported as an absent event.
    fn event_id(&self, head: &Head, sequence: u64) -> Result<Option<String>, RowsError>;
}

/// The changes of applied entries that are not committed yet. A later write replaces an earlier one.
#[derive(Debug, Default)]
pub struct Writes {
    /// Rows to set (`Some`) or delete (`None`). They hold after all `ranges`.
    rows: BTreeMap<(Family, Vec<u8>), Option<Vec<u8>>>,
    /// Deleted ranges `from .. to`.
    ranges: Vec<(Family, Vec<u8>, Vec<u8>)>,
}

impl Writes {
    /// Sets a row.
    pub fn put(&mut self, family: Family, key: Vec<u8>, value: Vec<u8>) {
        self.rows.insert((family, key), Some(value));
    }

    /// Deletes a row.
    pub fn delete(&mut self, family: Family, key: Vec<u8>) {
        self.rows.insert((family, key), None);
    }

    /// Deletes the rows `from .. to`, also those that these writes have set.
    pub fn delete_range(&mut self, family: Family, from: Vec<u8>, to: Vec<u8>) {
        self.rows.retain(|(of, key), _| *of != family || *key < from || *key >= to);
        self.ranges.push((family, from, to));
    }

    /// The value of a row after these writes.
    ///
    /// # Errors
    /// The store failed.
    pub fn get(&self, rows: &impl Rows, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        if !self.rows.is_empty()
            && let Some(value) = self.rows.get(&(family, key.to_vec()))
        {
            return Ok(value.clone());
        }
        let gone = |(of, from, to): &(Family, Vec<u8>, Vec<u8>)| {
            *of == family && key >= from.as_slice() && key < to.as_slice()
        };
        if self.ranges.iter().any(gone) {
            return Ok(None);
        }
        rows.get(family, key)
    }

    /// The first rows of `from .. to` after these writes, at most `limit`. The result does not depend on which part of
    /// the writes is committed already, since nodes commit at different times.
    ///
    /// # Errors
    /// The store failed.
    pub fn scan(
        &self,
        rows: &impl Rows,
        family: Family,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, RowsError> {
        let mut found = Vec::new();
        let mut from = from.to_vec();
        while found.len() < limit && from.as_slice() < to {
            let page = rows.scan(family, &from, to, limit)?;
            // Behind the last row of a full page there may be more rows.
            let end = match page.last() {
                Some((last, _)) if page.len() >= limit => successor(last),
                _ => to.to_vec(),
            };
            self.merge(family, (from, &end), page, &mut found);
            from = end;
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Merges the committed and the pending rows of `from .. to` in the order of their keys.
    fn merge(&self, family: Family, (from, to): (Vec<u8>, &Vec<u8>), committed: Vec<Row>, out: &mut Vec<Row>) {
        let gone = |key: &[u8]| {
            self.ranges.iter().any(|(of, from, to)| *of == family && key >= from.as_slice() && key < to.as_slice())
        };
        let mut committed = committed.into_iter().filter(|(key, _)| !gone(key)).peekable();
        for ((_, key), value) in self.rows.range((family, from)..(family, to.clone())) {
            while let Some(row) = committed.next_if(|(committed, _)| committed < key) {
                out.push(row);
            }
            committed.next_if(|(committed, _)| committed == key);
            if let Some(value) = value {
                out.push((key.clone(), value.clone()));
            }
        }
        out.extend(committed);
    }

    /// Deleted ranges. The store must delete them before it writes [`Writes::rows`].
    #[must_use]
    pub fn ranges(&self) -> &[(Family, Vec<u8>, Vec<u8>)] {
        &self.ranges
    }

    /// Rows to set (`Some`) or delete (`None`).
    pub fn rows(&self) -> impl Iterator<Item = (Family, &[u8], Option<&[u8]>)> {
        self.rows.iter().map(|((family, key), value)| (*family, key.as_slice(), value.as_deref()))
    }

    /// Removes all writes, after a commit.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.ranges.clear();
    }
}

/// The key of a row of a namespace: the number of the namespace and the parts.
#[must_use]
pub fn key(namespace: u32, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(length.saturating_add(4));
    out.extend_from_slice(&namespace.to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// The key of a row that sorts by age within its namespace: see [`IN_ORDER`].
#[must_use]
pub fn in_order(namespace: u32, number: u64) -> Vec<u8> {
    key(namespace, &[&[IN_ORDER], &number.to_be_bytes()])
}

/// The namespace of a key, and the number if [`in_order`] made the key.
#[must_use]
pub fn parse_in_order(key: &[u8]) -> Option<(u32, Option<u64>)> {
    let (namespace, rest) = key.split_first_chunk::<4>()?;
    let number = match rest.split_first() {
        Some((&IN_ORDER, number)) => number.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)),
        _ => None,
    };
    Some((u32::from_be_bytes(*namespace), number))
}

/// The next key after this one in the order of the store.
#[must_use]
pub fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// The bounds `from .. to` of all keys of a namespace.
#[must_use]
pub fn bounds(namespace: u32) -> (Vec<u8>, Vec<u8>) {
    (key(namespace, &[]), key(namespace.saturating_add(1), &[]))
}

/// Says which entry of the raft log holds the next events of a namespace. The key has the sequence number of the first
/// of them.
///
/// The events of the entry's frames for that namespace have consecutive sequence numbers in the order of the frames.
/// Refused frames have none.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IndexRow {
    /// Index of the entry in the raft log.
    #[prost(uint64, tag = "1")]
    pub entry: u64,
    /// Number of events.
    #[prost(uint64, tag = "2")]
    pub events: u64,
    /// Time of the entry, milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub millis: u64,
    /// Byte offset of the first record: see [`Head::bytes_end`].
    #[prost(uint64, tag = "4")]
    pub bytes_first: u64,
    /// Bytes of all these records.
    #[prost(uint64, tag = "5")]
    pub bytes: u64,
    /// Ordinal of the frame that holds the first of these events.
    #[prost(uint32, tag = "6")]
    pub first_frame: u32,
    /// Ordinals of later publish frames for this namespace that were refused: readers skip them.
    #[prost(uint32, repeated, tag = "7")]
    pub refused: Vec<u32>,
    /// Whether the rules made these events: their records are in [`Family::Made`] and not in the entry.
    #[prost(bool, tag = "8")]
    pub made: bool,
}

/// The key of an [`IndexRow`].
#[must_use]
pub fn index_key(namespace: u32, first: u64) -> Vec<u8> {
    key(namespace, &[&first.to_be_bytes()])
}

/// The sequence number in the key of an [`IndexRow`]; `None` for a key of another namespace or form.
#[must_use]
pub fn index_sequence(namespace: u32, key: &[u8]) -> Option<u64> {
    let (of, sequence) = key.split_first_chunk::<4>()?;
    if u32::from_be_bytes(*of) != namespace || sequence.len() != 8 {
        return None;
    }
    sequence.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

impl IndexRow {
    /// The accepted publish frames of the namespace `name` in this row's entry, in order.
    pub fn frames<'a>(&'a self, entry: &Entry<'a>, name: &'a str) -> impl Iterator<Item = Publish<'a>> + 'a {
        let wanted = move |(ordinal, frame): (u32, Frame<'a>)| match frame {
            Frame::Publish(publish)
                if ordinal >= self.first_frame && publish.namespace == name && !self.refused.contains(&ordinal) =>
            {
                Some(publish)
            }
            Frame::Publish(_) | Frame::Command(_) | Frame::Batch(_) | Frame::Unknown(_) => None,
        };
        let mut left = self.events;
        (0_u32..).zip(entry.frames()).filter_map(wanted).take_while(move |publish| {
            let more = left > 0;
            left = left.saturating_sub(u64::from(publish.events));
            more
        })
    }
}
