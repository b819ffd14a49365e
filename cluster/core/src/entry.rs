//! A raft entry: many frames, each proposed by one caller, encoded once for wire, disk and cache.
//!
//! Invariant: the format is stable, since entries of earlier releases stay in logs and travel between nodes of two
//! releases. A new part needs a new frame kind or flag and a feature level.
//!
//! ```text
//! u8 version (1) | u64 milliseconds since 1970 on the leader | u32 number of frames
//! frame*  | u32 CRC32C of all before it
//!
//! frame:           u8 kind | u8 flags | u32 body length | body
//! publish body:    u8 length | namespace | u32 number of events | [u8 kind | u64 milliseconds] | [u32 length | tick] | records
//! command body:    a protobuf message, see `crate::command`
//!                  the part in brackets is there with `FLAG_WAITS`: kind 0 until that time, 1 for so long
//! batch body:      u64 node | u64 incarnation | u64 number of the batch | u32 how many frames behind it belong to it
//! ```
//!
//! The part in brackets is there when [`FLAG_TICK`] is set: the condition of the publish.

use alloc::vec::Vec;

use crate::error::Refusal;
use crate::node::Owner;

/// Version byte of the entries that this release writes.
pub const VERSION: u8 = 1;
const HEADER_BYTES: usize = 13;
const FRAME_HEADER_BYTES: usize = 6;
const CHECKSUM_BYTES: usize = 4;
const BATCH_BODY_BYTES: u8 = 28;
/// Bytes of a whole batch frame.
pub const BATCH_FRAME_BYTES: usize = 34;

/// Kind of a frame that appends events.
pub const KIND_PUBLISH: u8 = 1;
/// Kind of a frame that holds a [`crate::command::Command`].
pub const KIND_COMMAND: u8 = 2;
/// Kind of a frame that marks the frames behind it as a batch that a node forwarded, perhaps for the second time.
pub const KIND_BATCH: u8 = 3;

/// Flag: the publish creates the namespace when it does not exist.
pub const FLAG_CREATE: u8 = 1;
/// Flag: the bus itself publishes, so reserved namespaces are allowed.
pub const FLAG_INTERNAL: u8 = 2;
/// Flag: at least one event has a dedupe key or a chosen id. Without this flag the rules need not decode the events.
pub const FLAG_KEYED: u8 = 4;
/// Flag: the events are copies of stored events. Keys are stored and not checked, because a restore is faster than the
/// original publishes and a key may return within its window. No effect below feature level `BOUNDED`.
pub const FLAG_RESTORE: u8 = 8;
/// Flag: at least one event has headers. From feature level `HEADERS` on: an older release would read headers as a part
/// of the payload.
pub const FLAG_HEADERS: u8 = 16;
/// Flag: the publish is a tick of a schedule, and the condition under which it happens stands before the records. From
/// feature level `TIMED` on.
pub const FLAG_TICK: u8 = 64;
/// Flag: the events wait for a time, which follows the number of events. From feature level `TIMED` on: an older release
/// would read the time as a part of the records.
pub const FLAG_WAITS: u8 = 32;

/// Kinds of [`Wait`] in a frame.
const WAIT_UNTIL: u8 = 0;
const WAIT_FOR: u8 = 1;

/// Starts a publish frame in `out`. The caller appends the records and calls [`finish_publish`].
///
/// # Errors
/// [`Refusal::Malformed`] when the namespace is longer than 255 bytes.
pub fn begin_publish(out: &mut Vec<u8>, namespace: &str) -> Result<(), Refusal> {
    let length = u8::try_from(namespace.len()).map_err(|_| malformed("namespace too long"))?;
    out.extend_from_slice(&[KIND_PUBLISH, 0, 0, 0, 0, 0, length]);
    out.extend_from_slice(namespace.as_bytes());
    out.extend_from_slice(&[0; 4]);
    Ok(())
}

/// Appends the condition of a publish that is a tick, an encoded [`crate::schedule::change::Tick`], right behind
/// [`begin_publish`]. The caller sets [`FLAG_TICK`].
///
/// # Errors
/// [`Refusal::Malformed`] when the condition is longer than 4 GiB.
pub fn put_tick(out: &mut Vec<u8>, tick: &[u8]) -> Result<(), Refusal> {
    let length = u32::try_from(tick.len()).map_err(|_| malformed("tick too long"))?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(tick);
    Ok(())
}

/// Completes the publish frame that begins at `start` of `out`: sets its flags, number of events and length.
///
/// # Errors
/// [`Refusal::Malformed`] when the frame is longer than 4 GiB, or when no publish frame begins at `start`.
pub fn finish_publish(out: &mut [u8], start: usize, flags: u8, events: u32) -> Result<(), Refusal> {
    let frame = out.get_mut(start..).ok_or_else(|| malformed("no frame"))?;
    let namespace = frame.get(6).copied().map_or(0, usize::from);
    let count = frame.get_mut(7 + namespace..11 + namespace).ok_or_else(|| malformed("no frame"))?;
    count.copy_from_slice(&events.to_le_bytes());
    finish_frame(frame, flags)
}

/// Makes the events of a whole publish frame wait: until a time, milliseconds since 1970, or for so many milliseconds.
///
/// # Errors
/// [`Refusal::Malformed`] when the frame is no publish, waits already, or becomes longer than 4 GiB.
pub fn delay_publish(frame: &mut Vec<u8>, wait: Wait) -> Result<(), Refusal> {
    let Some(&[KIND_PUBLISH, flags]) = frame.first_chunk() else { return Err(malformed("no publish frame")) };
    if flags & FLAG_WAITS != 0 {
        return Err(malformed("the events wait already"));
    }
    let records = frame.get(FRAME_HEADER_BYTES).map_or(0, |length| usize::from(*length)).saturating_add(11);
    if frame.len() < records {
        return Err(malformed("no publish frame"));
    }
    let (kind, millis) = match wait {
        Wait::Until(millis) => (WAIT_UNTIL, millis),
        Wait::For(millis) => (WAIT_FOR, millis),
    };
    frame.splice(records..records, [kind].into_iter().chain(millis.to_le_bytes()));
    finish_frame(frame, flags | FLAG_WAITS)
}

/// Builds a frame that holds an encoded command.
///
/// # Errors
/// [`Refusal::Malformed`] when the command is longer than 4 GiB.
pub fn command_frame(command: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(FRAME_HEADER_BYTES + command.len());
    out.extend_from_slice(&[KIND_COMMAND, 0, 0, 0, 0, 0]);
    out.extend_from_slice(command);
    finish_frame(&mut out, 0)?;
    Ok(out)
}

/// Builds the frame that marks the next [`Batch::frames`] frames as one forwarded batch.
#[must_use]
pub fn batch_frame(batch: Batch) -> [u8; BATCH_FRAME_BYTES] {
    let mut out = [0; BATCH_FRAME_BYTES];
    out[0] = KIND_BATCH;
    out[2] = BATCH_BODY_BYTES;
    out[6..14].copy_from_slice(&batch.owner.node.to_le_bytes());
    out[14..22].copy_from_slice(&batch.owner.incarnation.to_le_bytes());
    out[22..30].copy_from_slice(&batch.number.to_le_bytes());
    out[30..34].copy_from_slice(&batch.frames.to_le_bytes());
    out
}

/// Writes flags and body length into the header of a frame.
fn finish_frame(frame: &mut [u8], flags: u8) -> Result<(), Refusal> {
    let length = frame.len().saturating_sub(FRAME_HEADER_BYTES);
    let length = u32::try_from(length).map_err(|_| malformed("frame too long"))?;
    let header = frame.first_chunk_mut::<FRAME_HEADER_BYTES>().ok_or_else(|| malformed("no frame"))?;
    let [a, b, c, d] = length.to_le_bytes();
    *header = [header[0], flags, a, b, c, d];
    Ok(())
}

fn malformed(what: &str) -> Refusal {
    Refusal::Malformed(what.into())
}

/// Builds an entry from whole frames.
#[derive(Debug)]
pub struct EntryBuilder {
    bytes: Vec<u8>,
    frames: u32,
}

impl EntryBuilder {
    /// An entry without frames. `capacity` is the expected size of all frames in bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity.saturating_add(HEADER_BYTES + CHECKSUM_BYTES));
        bytes.extend_from_slice(&[0; HEADER_BYTES]);
        Self { bytes, frames: 0 }
    }

    /// Appends one whole frame.
    pub fn push(&mut self, frame: &[u8]) {
        self.push_many(frame, 1);
    }

    /// Appends whole frames, one behind the other.
    pub fn push_many(&mut self, frames: &[u8], count: u32) {
        self.bytes.extend_from_slice(frames);
        self.frames = self.frames.saturating_add(count);
    }

    /// Size of the entry so far in bytes, header included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the entry has no frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Completes the entry with the leader's time, milliseconds since 1970, and the checksum.
    #[must_use]
    pub fn finish(mut self, millis: u64) -> Vec<u8> {
        let mut header = [0; HEADER_BYTES];
        header[0] = VERSION;
        header[1..9].copy_from_slice(&millis.to_le_bytes());
        header[9..13].copy_from_slice(&self.frames.to_le_bytes());
        if let Some(start) = self.bytes.first_chunk_mut::<HEADER_BYTES>() {
            *start = header;
        }
        let checksum = crc32c::crc32c(&self.bytes);
        self.bytes.extend_from_slice(&checksum.to_le_bytes());
        self.bytes
    }
}

/// An entry whose version, and unless it was trusted whose checksum, is right.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Time of the leader that proposed the entry, milliseconds since 1970.
    pub millis: u64,
    frames: u32,
    body: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Checks version and checksum.
    ///
    /// # Errors
    /// A text that says what is wrong with the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let (covered, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or("entry is too short")?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*checksum) {
            return Err("entry has a wrong checksum");
        }
        Self::parse_trusted(bytes)
    }

    /// Like [`Entry::parse`], for bytes whose checksum the caller has verified before.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse_trusted(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let (covered, _) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or("entry is too short")?;
        let (header, body) = covered.split_first_chunk::<HEADER_BYTES>().ok_or("entry is too short")?;
        let [version, a, b, c, d, e, f, g, h, i, j, k, l] = *header;
        if version != VERSION {
            return Err("entry has an unknown version");
        }
        Ok(Self {
            millis: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            frames: u32::from_le_bytes([i, j, k, l]),
            body,
        })
    }

    /// Number of frames that the entry announces.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.frames
    }

    /// Whether the entry has no frame.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// The frames in order. The iterator ends early at a damaged frame; [`Frames::intact`] then returns `false`.
    #[must_use]
    pub const fn frames(&self) -> Frames<'a> {
        Frames { rest: self.body, left: self.frames }
    }
}

/// One frame of an entry.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'a> {
    /// Append events to a namespace.
    Publish(Publish<'a>),
    /// An encoded [`crate::command::Command`].
    Command(&'a [u8]),
    /// Marks the frames behind it as a forwarded batch.
    Batch(Batch),
    /// A frame of a kind that this release does not know. The frame is refused, never skipped silently.
    Unknown(u8),
}

/// Identifies a forwarded batch, so that the rules recognise a batch that arrives twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// The life of the node that forwarded the batch.
    pub owner: Owner,
    /// Number of the batch among the batches of that life.
    pub number: u64,
    /// Number of frames in the batch.
    pub frames: u32,
}

impl Batch {
    fn parse(body: &[u8]) -> Option<Self> {
        let (node, rest) = body.split_first_chunk::<8>()?;
        let (incarnation, rest) = rest.split_first_chunk::<8>()?;
        let (number, frames) = rest.split_first_chunk::<8>()?;
        let owner = Owner { node: u64::from_le_bytes(*node), incarnation: u64::from_le_bytes(*incarnation) };
        let frames = u32::from_le_bytes(*frames.first_chunk()?);
        Some(Self { owner, number: u64::from_le_bytes(*number), frames })
    }
}

/// Reads `count` whole frames that are not inside an entry.
#[must_use]
pub const fn frames(bytes: &[u8], count: u32) -> Frames<'_> {
    Frames { rest: bytes, left: count }
}

/// How long the events of a publish wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until this time, milliseconds since 1970.
    Until(u64),
    /// For so many milliseconds from the time of the entry on.
    For(u64),
}

/// The frame of a publish.
#[derive(Debug, Clone, Copy)]
pub struct Publish<'a> {
    /// `FLAG_*` bits.
    pub flags: u8,
    /// Name of the namespace.
    pub namespace: &'a str,
    /// Number of events.
    pub events: u32,
    /// The condition of a tick of a schedule; `None` for any other publish.
    pub tick: Option<&'a [u8]>,
    /// How long the events wait; `None` for events that are appended at once.
    pub wait: Option<Wait>,
    /// The records of the events, one behind the other.
    pub records: &'a [u8],
}

/// An iterator over the frames of an entry.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Frames<'a> {
    /// Whether all announced frames were read and no bytes are left; to be called after the last frame.
    #[must_use]
    pub const fn intact(&self) -> bool {
        self.left == 0 && self.rest.is_empty()
    }

    fn read(&mut self) -> Option<Frame<'a>> {
        let (header, rest) = self.rest.split_first_chunk::<FRAME_HEADER_BYTES>()?;
        let [kind, flags, a, b, c, d] = *header;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
        let (body, rest) = rest.split_at_checked(length)?;
        let frame = match kind {
            KIND_PUBLISH => Frame::Publish(Publish::parse(flags, body)?),
            KIND_COMMAND => Frame::Command(body),
            KIND_BATCH => Frame::Batch(Batch::parse(body)?),
            other => Frame::Unknown(other),
        };
        self.rest = rest;
        Some(frame)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let left = self.left.checked_sub(1)?;
        let frame = self.read()?;
        self.left = left;
        Some(frame)
    }
}

impl<'a> Publish<'a> {
    fn parse(flags: u8, body: &'a [u8]) -> Option<Self> {
        let (length, rest) = body.split_first()?;
        let (namespace, rest) = rest.split_at_checked(usize::from(*length))?;
        let (events, mut records) = rest.split_first_chunk::<4>()?;
        let mut wait = None;
        if flags & FLAG_WAITS != 0 {
            let (kind, rest) = records.split_first()?;
            let (millis, rest) = rest.split_first_chunk::<8>()?;
            let millis = u64::from_le_bytes(*millis);
            wait = match *kind {
                WAIT_UNTIL => Some(Wait::Until(millis)),
                WAIT_FOR => Some(Wait::For(millis)),
                _ => return None,
            };
            records = rest;
        }
        let mut tick = None;
        if flags & FLAG_TICK != 0 {
            let (length, rest) = records.split_first_chunk::<4>()?;
            let (condition, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
            (tick, records) = (Some(condition), rest);
        }
        Some(Self {
            flags,
            namespace: core::str::from_utf8(namespace).ok()?,
            events: u32::from_le_bytes(*events),
            tick,
            wait,
            records,
        })
    }
}

#[cfg(test)]
mod tests;
