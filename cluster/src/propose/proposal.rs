//! A proposal, the queue in which proposals wait, and the batch that is made of several of them.

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

/// Entries are cut at this many bytes; a proposal that is larger is an entry of its own.
pub(crate) const ENTRY_BYTES_MAX: usize = 128 << 10;
/// Proposals that may wait in the queue.
const QUEUE_PROPOSALS_MAX: usize = 65_536;
/// Bytes of proposals that may wait in the queue. One proposal alone may be larger.
const QUEUE_BYTES_MAX: usize = 256 << 20;

/// Stands for a timeout that is longer than the clock goes.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Frames to be put into the log, and where the answer goes.
pub(crate) struct Proposal {
    /// Whole frames, one behind the other.
    pub(crate) frames: Bytes,
    /// How many replies the frames get.
    pub(crate) replies: usize,
    /// Until when the proposer waits for the answer; frames that raft does not have by then are not written.
    pub(crate) until: Instant,
    pub(crate) answer: ReplyTo,
}

/// The receiver of an answer.
pub(crate) enum ReplyTo {
    /// To a client of this node, which proposed one frame.
    Client(oneshot::Sender<Reply>),
    /// To another node, which forwarded a batch with its mark.
    Node(oneshot::Sender<Result<Committed, Failure>>),
}

/// A batch that is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    /// Index of the entry that holds the batch.
    pub(crate) index: u64,
    /// The replies, in the order of the frames.
    pub(crate) replies: Vec<Reply>,
}

/// Why a forwarded batch was not carried out here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No part of the batch was given to raft: the node sends the batch again, to the present leader.
    NotLeader,
    /// The batch was given to raft, and its outcome is not known. The batch may be sent again: the rules know its mark.
    Unknown(Cow<'static, str>),
    /// The batch is refused for good, and no part of it was given to raft.
    Refused(Refusal),
}

/// The answer to a proposal that was not given to raft before its deadline.
fn too_late() -> Refusal {
    Refusal::Unavailable("it could not be written in time".to_owned())
}

impl Proposal {
    /// A frame of a client of this node, which waits at most `timeout` for the answer.
    pub(crate) fn of_client(frame: Bytes, timeout: Duration) -> (Self, oneshot::Receiver<Reply>) {
        let (answer, reply) = oneshot::channel();
        let now = Instant::now();
        let until = now.checked_add(timeout).unwrap_or(now + FOREVER);
        (Self { frames: frame, replies: 1, until, answer: ReplyTo::Client(answer) }, reply)
    }

    /// Whether the caller has stopped waiting for the answer. A proposal of the bus itself stays until its deadline.
    fn is_given_up(&self, now: Instant) -> bool {
        if Bug::WaitsForEver.is_on() || Bug::GivenUpIsWritten.is_on() {
            return false;
        }
        self.until <= now
            || match &self.answer {
                ReplyTo::Client(answer) => !self.is_command() && answer.is_closed(),
                ReplyTo::Node(answer) => answer.is_closed(),
            }
    }

    fn is_command(&self) -> bool {
        self.frames.first() == Some(&KIND_COMMAND)
    }

    /// Refuses a proposal of which nothing was given to raft. A node that forwarded a batch sends the batch again.
    pub(crate) fn refuse(self, refusal: Refusal) {
        // The proposer may have gone.
        match self.answer {
            ReplyTo::Client(answer) => drop(answer.send(Err(refusal))),
            ReplyTo::Node(answer) => drop(answer.send(Err(Failure::NotLeader))),
        }
    }
}

/// The sending end of the queue of proposals, which is bounded in number and in bytes. Clones share the queue.
#[derive(Debug, Clone)]
pub(crate) struct ProposalQueue {
    proposals: mpsc::Sender<Proposal>,
    bytes: Arc<AtomicUsize>,
}

/// The receiving end of a [`ProposalQueue`].
pub(crate) struct ProposalReceiver {
    proposals: mpsc::Receiver<Proposal>,
    bytes: Arc<AtomicUsize>,
}

/// Both ends of a new queue.
pub(crate) fn queue() -> (ProposalQueue, ProposalReceiver) {
    let (sender, proposals) = mpsc::channel(QUEUE_PROPOSALS_MAX);
    let bytes = Arc::<AtomicUsize>::default();
    (ProposalQueue { proposals: sender, bytes: Arc::clone(&bytes) }, ProposalReceiver { proposals, bytes })
}

impl ProposalQueue {
    /// Puts a proposal into the queue, without waiting for room.
    ///
    /// # Errors
    /// There is no room, or the node is stopping; nothing of the proposal will be written.
    pub(crate) fn push(&self, proposal: Proposal) -> Result<(), Refusal> {
        let length = proposal.frames.len();
        let full = || Refusal::Overloaded("too many publishes wait".to_owned());
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        let pushed = if before != 0 && before.saturating_add(length) > QUEUE_BYTES_MAX {
            Err(full())
        } else {
            self.proposals.try_send(proposal).map_err(|error| match error {
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
    /// The next proposal; `None` when there will be no more.
    pub(crate) async fn recv(&mut self) -> Option<Proposal> {
        let proposal = self.proposals.recv().await?;
        self.bytes.fetch_sub(proposal.frames.len(), Ordering::Relaxed);
        Some(proposal)
    }

    /// The next proposal, when one waits now.
    pub(crate) fn try_recv(&mut self) -> Option<Proposal> {
        let proposal = self.proposals.try_recv().ok()?;
        self.bytes.fetch_sub(proposal.frames.len(), Ordering::Relaxed);
        Some(proposal)
    }
}

/// The bytes of a [`ProposalBatch`], which go into the log.
#[derive(Debug, Default)]
pub(crate) struct BatchContent {
    /// Frames that clients of this node proposed.
    own: Vec<Bytes>,
    /// Batches that other nodes forwarded, with their marks, and how many replies each gets.
    forwarded: Vec<(Bytes, usize)>,
    /// The mark of the own frames, with which they may be sent twice.
    pub(crate) mark: Option<Batch>,
    /// Bytes of all frames.
    bytes: usize,
}

impl BatchContent {
    /// How many replies the own part gets.
    pub(crate) fn replies(&self) -> usize {
        self.own.len()
    }

    /// The entry that holds all frames, proposed at this time.
    pub(crate) fn entry(&self, millis: u64) -> Bytes {
        let mut entry = EntryBuilder::new(self.bytes.saturating_add(BATCH_FRAME_BYTES));
        for (frames, replies) in &self.forwarded {
            entry.push_many(frames, u32::try_from(*replies).unwrap_or(u32::MAX).saturating_add(1));
        }
        if let Some(mark) = self.mark.filter(|_| !self.own.is_empty()) {
            entry.push(&batch_frame(mark));
        }
        self.own.iter().for_each(|frame| entry.push(frame));
        entry.finish(millis).into()
    }

    /// The own frames as they are forwarded to the leader, `u32 number of frames | frames, the mark first`; `None`
    /// without a mark.
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

/// A proposer that waits for its answer.
struct Waiting<T> {
    until: Instant,
    /// The proposal counts also when its proposer has gone.
    stays: bool,
    answer: Option<oneshot::Sender<T>>,
}

impl<T> Waiting<T> {
    fn reply(&mut self, answer: T) {
        if let Some(sender) = self.answer.take() {
            // The proposer may have gone.
            drop(sender.send(answer));
        }
    }

    /// When the proposer stops waiting; `None` when the proposer has stopped already.
    fn deadline(&self) -> Option<Instant> {
        self.answer.as_ref().filter(|answer| self.stays || !answer.is_closed()).map(|_| self.until)
    }
}

/// The proposers of a [`ProposalBatch`], in the order of its frames.
#[derive(Default)]
pub(crate) struct Proposers {
    own: Vec<Waiting<Reply>>,
    forwarded: Vec<Waiting<Result<Committed, Failure>>>,
}

impl Proposers {
    /// The first deadline of a proposer that still waits.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if Bug::GivenUpIsWritten.is_on() {
            return Some(Instant::now() + FOREVER);
        }
        let own = self.own.iter().filter_map(Waiting::deadline).min();
        let forwarded = self.forwarded.iter().filter_map(Waiting::deadline).min();
        own.into_iter().chain(forwarded).min()
    }

    /// Answers the proposers whose deadline has passed. `why`: the proposals may be in a log, and their outcome is not
    /// known for this reason; without a reason, nothing of them was given to raft.
    pub(crate) fn expire(&mut self, now: Instant, why: Option<&Cow<'static, str>>) {
        for waiting in self.own.iter_mut().filter(|waiting| waiting.until <= now) {
            let refusal = why.map_or_else(too_late, |why| Refusal::OutcomeUnknown(why.clone().into_owned()));
            waiting.reply(Err(refusal));
        }
        for waiting in self.forwarded.iter_mut().filter(|waiting| waiting.until <= now) {
            waiting.reply(Err(why.map_or(Failure::NotLeader, |why| Failure::Unknown(why.clone()))));
        }
    }
}

/// Proposals that go into the log together: those of this node, and batches that other nodes forwarded.
#[derive(Default)]
pub(crate) struct ProposalBatch {
    pub(crate) content: BatchContent,
    pub(crate) proposers: Proposers,
    /// Some own frame is a command: its proposer may look for the effect at once, on this node.
    pub(crate) commands: bool,
    /// Why the outcome is not known, once the content may be in a log.
    pub(crate) unknown: Option<Cow<'static, str>>,
    /// The place of this batch among all batches of this node.
    pub(crate) order: u64,
}

impl ProposalBatch {
    /// Bytes of all frames.
    pub(crate) const fn bytes(&self) -> usize {
        self.content.bytes
    }

    /// Whether the batch has no proposal.
    pub(crate) const fn is_empty(&self) -> bool {
        self.content.own.is_empty() && self.content.forwarded.is_empty()
    }

    /// Adds a proposal, unless its proposer has given up.
    pub(crate) fn push(&mut self, proposal: Proposal, now: Instant) {
        if proposal.is_given_up(now) {
            return proposal.refuse(too_late());
        }
        let stays = proposal.is_command();
        let Proposal { frames, replies, until, answer } = proposal;
        self.content.bytes = self.content.bytes.saturating_add(frames.len());
        match answer {
            ReplyTo::Client(answer) => {
                self.commands |= stays;
                self.content.own.push(frames);
                self.proposers.own.push(Waiting { until, stays, answer: Some(answer) });
            }
            ReplyTo::Node(answer) => {
                self.content.forwarded.push((frames, replies));
                self.proposers.forwarded.push(Waiting { until, stays: false, answer: Some(answer) });
            }
        }
    }

    /// Takes out the proposals whose proposers have given up, and answers those whose deadline has passed. A batch that
    /// may be in a log already stays as it is as long as one proposer waits.
    pub(crate) fn prune(&mut self, now: Instant) {
        if Bug::WaitsForEver.is_on() {
            return;
        }
        self.proposers.expire(now, self.unknown.as_ref());
        if Bug::GivenUpIsWritten.is_on() {
            return;
        }
        if self.unknown.is_some() {
            if self.proposers.deadline().is_none() {
                self.clear();
            }
            return;
        }
        let gone = |waiting: Option<Instant>| waiting.is_none();
        let own = self.proposers.own.iter().map(Waiting::deadline).any(gone);
        let forwarded = self.proposers.forwarded.iter().map(Waiting::deadline).any(gone);
        if own {
            // Other frames must not come under a number that was given out.
            self.content.mark = None;
            retain(&mut self.content.own, &mut self.proposers.own);
        }
        if forwarded {
            retain(&mut self.content.forwarded, &mut self.proposers.forwarded);
        }
        if !own && !forwarded {
            return;
        }
        let forwarded = self.content.forwarded.iter().map(|(frames, _)| frames);
        self.content.bytes = forwarded.chain(&self.content.own).map(Bytes::len).sum();
    }

    fn clear(&mut self) {
        self.content = BatchContent::default();
        self.proposers = Proposers::default();
    }

    /// Answers the other nodes that their batches failed, and takes the batches out: the nodes send them again.
    pub(crate) fn fail_forwarded(&mut self, failure: &Failure) {
        for (mut node, (frames, _)) in self.proposers.forwarded.drain(..).zip(self.content.forwarded.drain(..)) {
            node.reply(Err(failure.clone()));
            self.content.bytes = self.content.bytes.saturating_sub(frames.len());
        }
    }

    /// Whether no proposal of this node is left.
    pub(crate) const fn has_no_own(&self) -> bool {
        self.content.own.is_empty()
    }

    /// Answers all proposers with the replies of the rules.
    pub(crate) fn answer(self, Committed { index, replies }: Committed) {
        let mut replies = replies.into_iter();
        for (mut node, (_, count)) in self.proposers.forwarded.into_iter().zip(&self.content.forwarded) {
            let replies = replies.by_ref().take(*count).collect();
            node.reply(Ok(Committed { index, replies }));
        }
        for (mut own, reply) in self.proposers.own.into_iter().zip(replies) {
            own.reply(reply);
        }
    }

    /// Answers all proposers with a refusal.
    pub(crate) fn refuse(self, refusal: &Refusal) {
        for mut node in self.proposers.forwarded {
            node.reply(Err(Failure::Refused(refusal.clone())));
        }
        for mut own in self.proposers.own {
            own.reply(Err(refusal.clone()));
        }
    }
}

/// Keeps the frames of the proposers that still wait.
fn retain<T, A>(frames: &mut Vec<T>, proposers: &mut Vec<Waiting<A>>) {
    // Looked at once: one more may give up at any time.
    let waits: Vec<bool> = proposers.iter().map(|waiting| waiting.deadline().is_some()).collect();
    let (mut of_frames, mut of_proposers) = (waits.iter(), waits.iter());
    frames.retain(|_| of_frames.next().is_some_and(|waits| *waits));
    proposers.retain(|_| of_proposers.next().is_some_and(|waits| *waits));
}
