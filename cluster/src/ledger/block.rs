//! A block: the compressed records of consecutive events of one namespace, with a label that names the events.
//!
//! Format, version 1 (stable on disk):
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version |
//! | 1 | codec, 1 is zstd |
//! | 4 | bytes of the records, little endian |
//! | 4 | CRC32C of the rest |
//! | 28 | label: a skippable frame of zstd with namespace (4), first sequence number (8) and number of events (8) |
//! | rest | a frame of zstd: the records one behind the other |
//!
//! A release that does not know the label reads the block all the same, because zstd passes over such frames.
//! Blocks of that release have no label; then the bytes of the records and the records themselves are what can
//! be compared with the row of the block.

use prost::Message;
use rollbook_core::event::Event;
use rollbook_core::subjects::filter::FilterBuilder;

use crate::error::ReadError;

/// Bytes of records in a full block.
pub(crate) const BLOCK_BYTES: usize = 128 << 10;
const VERSION: u8 = 1;
const CODEC_ZSTD: u8 = 1;
const HEADER_BYTES: usize = 10;
const ZSTD_LEVEL: i32 = 1;
/// Sixteen magic numbers of zstd begin frames that decoders pass over; this is one of them.
const LABEL_MAGIC: [u8; 4] = 0x184d_2a5b_u32.to_le_bytes();
const LABEL_BYTES: usize = 28;

/// The events that a block holds.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BlockMeta {
    /// How many events.
    #[prost(uint64, tag = "1")]
    pub(crate) events: u64,
    /// Bytes of their records.
    #[prost(uint64, tag = "2")]
    pub(crate) raw_bytes: u64,
    /// Log time of the newest, milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub(crate) millis: u64,
    /// Position of the first record on the namespace's byte axis.
    #[prost(uint64, tag = "4")]
    pub(crate) bytes_first: u64,
    /// Filter of the subjects.
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) filter: Vec<u8>,
    /// Bytes of the stored block.
    #[prost(uint64, tag = "6")]
    pub(crate) stored_bytes: u64,
}

/// A [`BlockMeta`] without its filter, for those that walk over many.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Outline {
    /// How many events.
    #[prost(uint64, tag = "1")]
    pub(crate) events: u64,
    /// Bytes of their records.
    #[prost(uint64, tag = "2")]
    pub(crate) raw_bytes: u64,
    /// Log time of the newest, milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub(crate) millis: u64,
    /// Position of the first record on the namespace's byte axis.
    #[prost(uint64, tag = "4")]
    pub(crate) bytes_first: u64,
    /// Bytes of the stored block.
    #[prost(uint64, tag = "6")]
    pub(crate) stored_bytes: u64,
}

/// A finished block and its place.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) first: u64,
    pub(crate) meta: BlockMeta,
    pub(crate) value: Vec<u8>,
}

impl Block {
    /// Sequence number behind its last event.
    pub(crate) const fn end(&self) -> u64 {
        self.first.saturating_add(self.meta.events)
    }
}

/// Gathers the records of consecutive events until a block is full.
pub(crate) struct BlockBuilder {
    namespace: u32,
    first: u64,
    meta: BlockMeta,
    records: Vec<u8>,
    subjects: FilterBuilder,
}

impl BlockBuilder {
    pub(crate) fn new(namespace: u32, first: u64, bytes_first: u64) -> Self {
        Self {
            namespace,
            first,
            meta: BlockMeta { bytes_first, ..BlockMeta::default() },
            records: Vec::new(),
            subjects: FilterBuilder::new(),
        }
    }

    /// Continues a stored block with exactly the events that its row names.
    pub(crate) fn reopen(namespace: u32, first: u64, meta: &BlockMeta, value: &[u8]) -> Result<Self, String> {
        let records = match labelled(value)? {
            Some(_) => unpack(namespace, first, meta, value)?,
            // A release before this one could end between a block and its row; then the block has more events
            // than its row says, and those behind are still in the log.
            None => decompress(value)?,
        };
        let mut builder = Self::new(namespace, first, meta.bytes_first);
        let mut rest = records.as_slice();
        for _ in 0..meta.events {
            let (event, used) = Event::decode(rest).ok_or("it has fewer events than its row says")?;
            let (record, after) = rest.split_at_checked(used).ok_or("a record is cut off")?;
            builder.push(event.subject, record, meta.millis);
            rest = after;
        }
        if builder.bytes() != meta.raw_bytes {
            return Err(format!("its events have {} bytes, its row says {}", builder.bytes(), meta.raw_bytes));
        }
        Ok(builder)
    }

    /// Appends one record.
    pub(crate) fn push(&mut self, subject: &str, record: &[u8], millis: u64) {
        self.subjects.add(subject);
        self.records.extend_from_slice(record);
        self.meta.events = self.meta.events.saturating_add(1);
        self.meta.millis = self.meta.millis.max(millis);
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.records.len() >= BLOCK_BYTES
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.meta.events == 0
    }

    fn bytes(&self) -> u64 {
        u64::try_from(self.records.len()).unwrap_or(u64::MAX)
    }

    /// Compresses and seals the block.
    pub(crate) fn finish(mut self) -> Result<Block, ReadError> {
        let packed = zstd::bulk::compress(&self.records, ZSTD_LEVEL).map_err(|e| ReadError(format!("zstd: {e}")))?;
        let raw = u32::try_from(self.records.len()).map_err(|_| ReadError("block too large".to_owned()))?;
        let label = label(self.namespace, self.first, self.meta.events);
        let mut value = Vec::with_capacity(HEADER_BYTES.saturating_add(LABEL_BYTES).saturating_add(packed.len()));
        value.extend_from_slice(&[VERSION, CODEC_ZSTD]);
        value.extend_from_slice(&raw.to_le_bytes());
        value.extend_from_slice(&crc32c::crc32c_append(crc32c::crc32c(&label), &packed).to_le_bytes());
        value.extend_from_slice(&label);
        value.extend_from_slice(&packed);
        self.meta.raw_bytes = u64::from(raw);
        self.meta.stored_bytes = u64::try_from(value.len()).unwrap_or_default();
        self.meta.filter = self.subjects.build();
        Ok(Block { first: self.first, meta: self.meta, value })
    }
}

fn label(namespace: u32, first: u64, events: u64) -> [u8; LABEL_BYTES] {
    let mut out = [0; LABEL_BYTES];
    let size = 20_u32.to_le_bytes();
    let (namespace, first, events) = (namespace.to_le_bytes(), first.to_le_bytes(), events.to_le_bytes());
    let parts = LABEL_MAGIC.iter().chain(&size).chain(&namespace).chain(&first).chain(&events);
    out.iter_mut().zip(parts).for_each(|(slot, byte)| *slot = *byte);
    out
}

/// The sealed part of a block and the number of bytes of its records, when its checksum is right.
fn sealed(value: &[u8]) -> Result<(&[u8], u32), String> {
    let (header, packed) = value.split_first_chunk::<HEADER_BYTES>().ok_or("it is cut off")?;
    let [version, codec, a, b, c, d, e, f, g, h] = *header;
    if version != VERSION || codec != CODEC_ZSTD {
        return Err(format!("it has version {version} and codec {codec}, which this release does not know"));
    }
    if crc32c::crc32c(packed) != u32::from_le_bytes([e, f, g, h]) {
        return Err("its checksum is wrong".to_owned());
    }
    Ok((packed, u32::from_le_bytes([a, b, c, d])))
}

/// The label of a block, if the block has one.
fn labelled(value: &[u8]) -> Result<Option<[u8; LABEL_BYTES]>, String> {
    let (packed, _) = sealed(value)?;
    Ok(packed.first_chunk().filter(|found: &&[u8; LABEL_BYTES]| found.starts_with(&LABEL_MAGIC)).copied())
}

fn decompress(value: &[u8]) -> Result<Vec<u8>, String> {
    let (packed, raw) = sealed(value)?;
    let raw = usize::try_from(raw).map_err(|_| "it is too large".to_owned())?;
    let records = zstd::bulk::decompress(packed, raw).map_err(|error| format!("zstd: {error}"))?;
    if records.len() == raw { Ok(records) } else { Err(format!("its header says {raw} bytes of events")) }
}

/// The records of a block, which must be the block that its key and its row say.
pub(crate) fn unpack(namespace: u32, first: u64, meta: &BlockMeta, value: &[u8]) -> Result<Vec<u8>, String> {
    if labelled(value)?.is_some_and(|found| found != label(namespace, first, meta.events)) {
        return Err(format!("it is not the block of {} events that its row says", meta.events));
    }
    let records = decompress(value)?;
    if u64::try_from(records.len()).ok() != Some(meta.raw_bytes) {
        return Err(format!("its events have {} bytes, its row says {}", records.len(), meta.raw_bytes));
    }
    Ok(records)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record of a subject.
    pub(crate) fn record(subject: &str) -> Vec<u8> {
        let mut record = Vec::new();
        Event { subject, payload: Some(b"1"), ..Event::default() }.encode(&mut record).unwrap();
        record
    }

    /// A block of one event for each subject.
    pub(crate) fn block(namespace: u32, first: u64, subjects: &[&str]) -> Block {
        let mut builder = BlockBuilder::new(namespace, first, 0);
        for subject in subjects {
            builder.push(subject, &record(subject), 7);
        }
        builder.finish().unwrap()
    }

    /// A block as the release before this one wrote it: without a label.
    pub(crate) fn unlabelled(block: &Block) -> Block {
        let (header, rest) = block.value.split_at(HEADER_BYTES);
        let packed = &rest[LABEL_BYTES..];
        let mut value = header[..6].to_vec();
        value.extend_from_slice(&crc32c::crc32c(packed).to_le_bytes());
        value.extend_from_slice(packed);
        let meta = BlockMeta { stored_bytes: u64::try_from(value.len()).unwrap(), ..block.meta.clone() };
        Block { value, meta, ..*block }
    }

    #[test]
    fn a_damaged_block_is_an_error() {
        let whole = block(1, 1, &["a.x"]);
        assert!(unpack(1, 1, &whole.meta, &whole.value).is_ok());
        for at in 0..whole.value.len() {
            let mut damaged = whole.value.clone();
            damaged[at] ^= 1;
            assert!(unpack(1, 1, &whole.meta, &damaged).is_err(), "byte {at}");
            assert!(unpack(1, 1, &whole.meta, &whole.value[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_block_that_is_not_the_one_of_its_row_is_an_error() {
        let (two, three) = (block(1, 5, &["a.x", "a.y"]), block(1, 5, &["a.x", "a.y", "a.z"]));
        for old in [false, true] {
            let (two, three) = if old { (unlabelled(&two), unlabelled(&three)) } else { (two.clone(), three.clone()) };
            assert!(unpack(1, 5, &two.meta, &two.value).is_ok());
            assert!(unpack(1, 5, &two.meta, &three.value).is_err(), "more events than the row says");
            assert!(unpack(1, 5, &three.meta, &two.value).is_err(), "fewer events than the row says");
        }
        assert!(unpack(1, 6, &two.meta, &two.value).is_err(), "another place");
        assert!(unpack(2, 5, &two.meta, &two.value).is_err(), "another namespace");
    }

    #[test]
    fn a_block_goes_on_with_exactly_the_events_of_its_row() {
        let (two, three) = (block(1, 5, &["a.x", "a.y"]), block(1, 5, &["a.x", "a.y", "a.z"]));
        let events = |meta: &BlockMeta, value: &[u8]| BlockBuilder::reopen(1, 5, meta, value).map(|b| b.meta.events);
        assert_eq!(events(&two.meta, &two.value), Ok(2));
        assert!(events(&two.meta, &three.value).is_err(), "block and row are written as one");
        // The release before wrote them one after the other, and could die in between.
        assert_eq!(events(&two.meta, &unlabelled(&three).value), Ok(2));
        assert!(events(&three.meta, &unlabelled(&two).value).is_err());
    }

    #[test]
    fn the_release_before_reads_labelled_blocks() {
        let block = block(1, 5, &["a.x", "a.y"]);
        let (header, packed) = block.value.split_at(HEADER_BYTES);
        assert_eq!(header[6..], crc32c::crc32c(packed).to_le_bytes());
        let raw = usize::try_from(block.meta.raw_bytes).unwrap();
        assert_eq!(zstd::bulk::decompress(packed, raw).unwrap(), [record("a.x"), record("a.y")].concat());
    }
}
