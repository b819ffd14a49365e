//! What asks are made of, and what is gathered from them into one entry or one batch.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rollbook_core::command::Reply;
use rollbook_core::entry::{BATCH_FRAME_BYTES, Batch, EntryBuilder, KIND_COMMAND, batch_frame};
use rollbook_core::error::Refusal;
use tokio::sync::oneshot;

/// Entries are cut at this many bytes; one larger ask is an entry of its own.
pub(crate) const ENTRY_BYTES_MAX: usize = 128 << 10;

/// Frames that somebody wants in the log, and where the answer goes.
pub(crate) struct Ask {
    /// Whole frames, one behind the other.
    pub(crate) frames: Bytes,
    /// How many replies they get.
    pub(crate) replies: usize,
    pub(crate) answer: Answer,
}

/// Where an answer goes.
pub(crate) enum Answer {
    /// To a client of this node that asked for one frame.
    One(oneshot::Sender<Reply>),
    /// To another node that forwarded a batch, its mark included.
    Guest(oneshot::Sender<Result<Carried, Failure>>),
}

/// What became of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    /// Index of its entry.
    pub(crate) index: u64,
    /// In the order of its frames.
    pub(crate) replies: Vec<Reply>,
}

/// Why a forwarded batch was not carried out here.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// Ask the leader, again or anew: the batch is known by its mark.
    NotLeader,
    /// It is refused for good.
    Refused(Refusal),
}

/// What was gathered: own asks, and batches of other nodes.
#[derive(Default)]
pub(crate) struct Gathered {
    /// Frames of own asks, behind their mark when they have one.
    pub(crate) own: Vec<u8>,
    pub(crate) answers: Vec<oneshot::Sender<Reply>>,
    /// The own frames have a mark, so they may be sent twice.
    pub(crate) marked: bool,
    /// Some own frame is a command: who asked may look at its effect at once, on this node.
    pub(crate) commands: bool,
    pub(crate) guests: Vec<Guest>,
    /// Bytes of everything gathered.
    pub(crate) bytes: usize,
}

/// A batch of another node.
pub(crate) struct Guest {
    pub(crate) frames: Bytes,
    pub(crate) replies: usize,
    pub(crate) answer: oneshot::Sender<Result<Carried, Failure>>,
}

/// Milliseconds since 1970. The clock of the leader gives entries their time.
pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Gathered {
    pub(crate) fn new(marked: bool, bytes: usize) -> Self {
        let mut own = Vec::with_capacity(bytes.saturating_mul(16).min(ENTRY_BYTES_MAX));
        if marked {
            own.extend_from_slice(&[0; BATCH_FRAME_BYTES]);
        }
        Self { own, marked, ..Self::default() }
    }

    pub(crate) fn push(&mut self, ask: Ask) {
        self.bytes = self.bytes.saturating_add(ask.frames.len());
        match ask.answer {
            Answer::One(answer) => {
                self.commands |= ask.frames.first() == Some(&KIND_COMMAND);
                self.own.extend_from_slice(&ask.frames);
                self.answers.push(answer);
            }
            Answer::Guest(answer) => {
                self.guests.push(Guest { frames: ask.frames, replies: ask.replies, answer });
            }
        }
    }

    pub(crate) fn seal(&mut self, batch: Batch) {
        if let Some(slot) = self.own.get_mut(..BATCH_FRAME_BYTES).filter(|_| self.marked) {
            slot.copy_from_slice(&batch_frame(batch));
        }
    }

    /// Frames of the own part, its mark included.
    pub(crate) fn own_frames(&self) -> u32 {
        let frames = self.answers.len().saturating_add(usize::from(self.marked));
        u32::try_from(frames).unwrap_or(u32::MAX)
    }

    /// The entry that holds everything gathered.
    pub(crate) fn entry(&self) -> Bytes {
        let mut entry = EntryBuilder::new(self.own.len().saturating_add(self.bytes));
        for guest in &self.guests {
            let frames = u32::try_from(guest.replies).unwrap_or(u32::MAX).saturating_add(1);
            entry.push_many(&guest.frames, frames);
        }
        if !self.answers.is_empty() {
            entry.push_many(&self.own, self.own_frames());
        }
        entry.finish(now_millis()).into()
    }
}
