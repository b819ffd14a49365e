//! What asks are made of, the queue that they wait in, and what is gathered from them into one entry or one batch.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rollbook_core::command::Reply;
use rollbook_core::entry::{BATCH_FRAME_BYTES, Batch, EntryBuilder, KIND_COMMAND, batch_frame};
use rollbook_core::error::Refusal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::lab_faults::Bug;

/// Entries are cut at this many bytes; one larger ask is an entry of its own.
pub(crate) const ENTRY_BYTES_MAX: usize = 128 << 10;
/// Asks that may wait in the queue.
const QUEUE_ASKS_MAX: usize = 65_536;
/// Bytes of asks that may wait in the queue. One ask alone may be larger.
const QUEUE_BYTES_MAX: usize = 256 << 20;

/// Stands for a timeout that is longer than the clock goes.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Frames that somebody wants in the log, and where the answer goes.
pub(crate) struct Proposal {
    /// Whole frames, one behind the other.
    pub(crate) frames: Bytes,
    /// How many replies they get.
    pub(crate) replies: usize,
    /// Nobody waits for the answer any longer than this; what was not given to raft by then is not written.
    pub(crate) until: Instant,
    pub(crate) answer: ReplyTo,
}

/// Where an answer goes.
pub(crate) enum ReplyTo {
    /// To a client of this node that asked for one frame.
    One(oneshot::Sender<Reply>),
    /// To another node that forwarded a batch, its mark included.
    Guest(oneshot::Sender<Result<Committed, Failure>>),
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    /// Index of its entry.
    pub(crate) index: u64,
    /// In the order of its frames.
    pub(crate) replies: Vec<Reply>,
}

/// Why a forwarded batch was not carried out here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing of it was given to raft: ask the leader, again or anew.
    NotLeader,
    /// It was given to raft, and nobody knows what becomes of it. The batch may be sent again: it is known by its mark.
    Unknown(Cow<'static, str>),
    /// It is refused for good, and nothing of it was given to raft.
    Refused(Refusal),
}

/// What a client is told whose ask was not given to raft before its deadline.
fn too_late() -> Refusal {
    Refusal::Unavailable("it could not be written in time".to_owned())
}

impl Proposal {
    /// A frame of a client of this node, who waits that long for the answer.
    pub(crate) fn of_client(frame: Bytes, timeout: Duration) -> (Self, oneshot::Receiver<Reply>) {
        let (answer, reply) = oneshot::channel();
        let now = Instant::now();
        let until = now.checked_add(timeout).unwrap_or(now + FOREVER);
        (Self { frames: frame, replies: 1, until, answer: ReplyTo::One(answer) }, reply)
    }

    /// Whether nobody waits for the answer any more. What the bus itself proposes stays until its deadline.
    fn is_given_up(&self, now: Instant) -> bool {
        if Bug::WaitsForEver.is_on() || Bug::GivenUpIsWritten.is_on() {
            return false;
        }
        self.until <= now
            || match &self.answer {
                ReplyTo::One(answer) => !self.is_command() && answer.is_closed(),
                ReplyTo::Guest(answer) => answer.is_closed(),
            }
    }

    fn is_command(&self) -> bool {
        self.frames.first() == Some(&KIND_COMMAND)
    }

    /// Ends an ask of which nothing was given to raft. A node that forwarded it may ask again.
    pub(crate) fn refuse(self, refusal: Refusal) {
        // The asker may have gone.
        match self.answer {
            ReplyTo::One(answer) => drop(answer.send(Err(refusal))),
            ReplyTo::Guest(answer) => drop(answer.send(Err(Failure::NotLeader))),
        }
    }
}

/// The way into the queue, which is bounded in number and in bytes. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ProposalQueue {
    asks: mpsc::Sender<Proposal>,
    bytes: Arc<AtomicUsize>,
}

/// The other end of a [`ProposalQueue`].
pub(crate) struct ProposalReceiver {
    asks: mpsc::Receiver<Proposal>,
    bytes: Arc<AtomicUsize>,
}

/// A queue and its end.
pub(crate) fn queue() -> (ProposalQueue, ProposalReceiver) {
    let (sender, asks) = mpsc::channel(QUEUE_ASKS_MAX);
    let bytes = Arc::<AtomicUsize>::default();
    (ProposalQueue { asks: sender, bytes: Arc::clone(&bytes) }, ProposalReceiver { asks, bytes })
}

impl ProposalQueue {
    /// Lets an ask wait for its turn, without waiting for room.
    ///
    /// # Errors
    /// There is no room, or the node is stopping; nothing of the ask will be written.
    pub(crate) fn push(&self, ask: Proposal) -> Result<(), Refusal> {
        let length = ask.frames.len();
        let full = || Refusal::Overloaded("too many publishes wait".to_owned());
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        let pushed = if before != 0 && before.saturating_add(length) > QUEUE_BYTES_MAX {
            Err(full())
        } else {
            self.asks.try_send(ask).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => full(),
                mpsc::error::TrySendError::Closed(_) => Refusal::Unavailable("node is stopping".to_owned()),
            })
        };
        if pushed.is_err() {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
        }
        pushed
    }
}

impl ProposalReceiver {
    /// The next ask; `None` when there will be no more.
    pub(crate) async fn recv(&mut self) -> Option<Proposal> {
        let ask = self.asks.recv().await?;
        self.bytes.fetch_sub(ask.frames.len(), Ordering::Relaxed);
        Some(ask)
    }

    /// The next ask, when one waits now.
    pub(crate) fn try_recv(&mut self) -> Option<Proposal> {
        let ask = self.asks.try_recv().ok()?;
        self.bytes.fetch_sub(ask.frames.len(), Ordering::Relaxed);
        Some(ask)
    }
}

/// What goes into the log of a [`ProposalBatch`]: its bytes.
#[derive(Debug, Default)]
pub(crate) struct BatchContent {
    /// Frames of own asks.
    own: Vec<Bytes>,
    /// Frames of batches of other nodes, with their marks, and how many replies each gets.
    guests: Vec<(Bytes, usize)>,
    /// Marks the own frames, so that they may be sent twice.
    pub(crate) mark: Option<Batch>,
    /// Bytes of everything gathered.
    bytes: usize,
}

impl BatchContent {
    /// How many replies the own part gets.
    pub(crate) fn replies(&self) -> usize {
        self.own.len()
    }

    /// The entry that holds everything gathered, proposed at this time.
    pub(crate) fn entry(&self, millis: u64) -> Bytes {
        let mut entry = EntryBuilder::new(self.bytes.saturating_add(BATCH_FRAME_BYTES));
        for (frames, replies) in &self.guests {
            entry.push_many(frames, u32::try_from(*replies).unwrap_or(u32::MAX).saturating_add(1));
        }
        if let Some(mark) = self.mark.filter(|_| !self.own.is_empty()) {
            entry.push(&batch_frame(mark));
        }
        self.own.iter().for_each(|frame| entry.push(frame));
        entry.finish(millis).into()
    }

    /// The own part as it is forwarded, `u32 number of frames | frames, the mark first`; `None` without a mark.
    pub(crate) fn forward(&self) -> Option<Bytes> {
        let mark = self.mark?;
        let own: usize = self.own.iter().map(Bytes::len).sum();
        let mut body = Vec::with_capacity(own.saturating_add(BATCH_FRAME_BYTES).saturating_add(4));
        body.extend_from_slice(&mark.frames.to_le_bytes());
        body.extend_from_slice(&batch_frame(mark));
        self.own.iter().for_each(|frame| body.extend_from_slice(frame));
        Some(body.into())
    }
}

/// Somebody who waits for an answer, until it is given.
struct Waiting<T> {
    until: Instant,
    /// The ask is meant also when its asker has gone.
    stays: bool,
    answer: Option<oneshot::Sender<T>>,
}

impl<T> Waiting<T> {
    fn answers(&mut self, answer: T) {
        if let Some(sender) = self.answer.take() {
            // The asker may have gone.
            drop(sender.send(answer));
        }
    }

    /// When there is nobody any more to wait for it; `None` when that is so already.
    fn deadline(&self) -> Option<Instant> {
        self.answer.as_ref().filter(|answer| self.stays || !answer.is_closed()).map(|_| self.until)
    }
}

/// Who waits for a [`ProposalBatch`], in the order of its content.
#[derive(Default)]
pub(crate) struct Proposers {
    own: Vec<Waiting<Reply>>,
    guests: Vec<Waiting<Result<Committed, Failure>>>,
}

impl Proposers {
    /// The first deadline of somebody who still waits.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if Bug::GivenUpIsWritten.is_on() {
            return Some(Instant::now() + FOREVER);
        }
        let own = self.own.iter().filter_map(Waiting::deadline).min();
        let guests = self.guests.iter().filter_map(Waiting::deadline).min();
        own.into_iter().chain(guests).min()
    }

    /// Answers those whose deadline has passed. `why`: their ask may be in a log, and its outcome is not known for
    /// this reason; without, nothing of it was given to raft.
    pub(crate) fn expire(&mut self, now: Instant, why: Option<&Cow<'static, str>>) {
        for waiting in self.own.iter_mut().filter(|waiting| waiting.until <= now) {
            let refusal = why.map_or_else(too_late, |why| Refusal::OutcomeUnknown(why.clone().into_owned()));
            waiting.answers(Err(refusal));
        }
        for waiting in self.guests.iter_mut().filter(|waiting| waiting.until <= now) {
            waiting.answers(Err(why.map_or(Failure::NotLeader, |why| Failure::Unknown(why.clone()))));
        }
    }
}

/// What was gathered: own asks, and batches of other nodes.
#[derive(Default)]
pub(crate) struct ProposalBatch {
    pub(crate) content: BatchContent,
    pub(crate) askers: Proposers,
    /// Some own frame is a command: who asked may look at its effect at once, on this node.
    pub(crate) commands: bool,
    /// Why the outcome is not known, once the content may be in a log.
    pub(crate) unknown: Option<Cow<'static, str>>,
    /// Its place among all that was gathered.
    pub(crate) order: u64,
}

impl ProposalBatch {
    /// Bytes of everything gathered.
    pub(crate) const fn bytes(&self) -> usize {
        self.content.bytes
    }

    /// Whether nothing was gathered.
    pub(crate) const fn is_empty(&self) -> bool {
        self.content.own.is_empty() && self.content.guests.is_empty()
    }

    /// Adds an ask, unless it was given up.
    pub(crate) fn push(&mut self, ask: Proposal, now: Instant) {
        if ask.is_given_up(now) {
            return ask.refuse(too_late());
        }
        let stays = ask.is_command();
        let Proposal { frames, replies, until, answer } = ask;
        self.content.bytes = self.content.bytes.saturating_add(frames.len());
        match answer {
            ReplyTo::One(answer) => {
                self.commands |= stays;
                self.content.own.push(frames);
                self.askers.own.push(Waiting { until, stays, answer: Some(answer) });
            }
            ReplyTo::Guest(answer) => {
                self.content.guests.push((frames, replies));
                self.askers.guests.push(Waiting { until, stays: false, answer: Some(answer) });
            }
        }
    }

    /// Takes out what was given up, answering those whose deadline has passed. What may be in a log already stays as
    /// it is as long as somebody waits for it.
    pub(crate) fn prune(&mut self, now: Instant) {
        if Bug::WaitsForEver.is_on() {
            return;
        }
        self.askers.expire(now, self.unknown.as_ref());
        if Bug::GivenUpIsWritten.is_on() {
            return;
        }
        if self.unknown.is_some() {
            if self.askers.deadline().is_none() {
                self.clear();
            }
            return;
        }
        let gone = |waiting: Option<Instant>| waiting.is_none();
        let own = self.askers.own.iter().map(Waiting::deadline).any(gone);
        let guests = self.askers.guests.iter().map(Waiting::deadline).any(gone);
        if own {
            // Other frames must not come under a number that was given out.
            self.content.mark = None;
            retain(&mut self.content.own, &mut self.askers.own);
        }
        if guests {
            retain(&mut self.content.guests, &mut self.askers.guests);
        }
        if !own && !guests {
            return;
        }
        let guests = self.content.guests.iter().map(|(frames, _)| frames);
        self.content.bytes = guests.chain(&self.content.own).map(Bytes::len).sum();
    }

    fn clear(&mut self) {
        self.content = BatchContent::default();
        self.askers = Proposers::default();
    }

    /// Ends the batches of other nodes: their nodes send them again.
    pub(crate) fn dismiss_guests(&mut self, failure: &Failure) {
        for (mut guest, (frames, _)) in self.askers.guests.drain(..).zip(self.content.guests.drain(..)) {
            guest.answers(Err(failure.clone()));
            self.content.bytes = self.content.bytes.saturating_sub(frames.len());
        }
    }

    /// Whether no own ask is left.
    pub(crate) const fn has_no_own(&self) -> bool {
        self.content.own.is_empty()
    }

    /// Tells everybody what became of it.
    pub(crate) fn answer(self, Committed { index, replies }: Committed) {
        let mut replies = replies.into_iter();
        for (mut guest, (_, count)) in self.askers.guests.into_iter().zip(&self.content.guests) {
            let replies = replies.by_ref().take(*count).collect();
            guest.answers(Ok(Committed { index, replies }));
        }
        for (mut own, reply) in self.askers.own.into_iter().zip(replies) {
            own.answers(reply);
        }
    }

    /// Tells everybody that it is refused.
    pub(crate) fn refuse(self, refusal: &Refusal) {
        for mut guest in self.askers.guests {
            guest.answers(Err(Failure::Refused(refusal.clone())));
        }
        for mut own in self.askers.own {
            own.answers(Err(refusal.clone()));
        }
    }
}

/// Keeps the things of those who still wait.
fn retain<T, A>(things: &mut Vec<T>, askers: &mut Vec<Waiting<A>>) {
    // Looked at once: one more may go at any time.
    let kept: Vec<bool> = askers.iter().map(|waiting| waiting.deadline().is_some()).collect();
    let (mut of_things, mut of_askers) = (kept.iter(), kept.iter());
    things.retain(|_| of_things.next().is_some_and(|keep| *keep));
    askers.retain(|_| of_askers.next().is_some_and(|keep| *keep));
}
