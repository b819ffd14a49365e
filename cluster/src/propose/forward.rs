//! Gets batches into the log: written here on the leader, forwarded to the leader on any other node.
//!
//! A batch with a mark may be sent as often as needed: the rules store the batch once. So a client sees a change of
//! leader as a pause, not as an error, as long as there is a leader again before the deadline. This file makes one
//! attempt; [`super::batch`] decides which batch is sent when, and in which order.

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use rollbook_core::entry::Batch;
use rollbook_core::error::Refusal;
use rollbook_core::limits::BATCHES_PER_PRODUCER;
use rollbook_core::reply;
use tokio::sync::oneshot;

use super::proposal::{BatchContent, Committed};
use crate::lab_faults::Bug;
use crate::lock::lock;
use crate::peer::conn::CallError;
use crate::peer::frame::Kind;
use crate::peer::identity::Identity;
use crate::peer::link::{Links, Purpose};
use crate::replicate::contact::Contact;
use crate::replicate::raft::Raft;
use crate::state::state::State;
use crate::types::{EntryData, Types};
use crate::wait::wait_until;

/// How long one attempt at the leader may take before the next.
pub(crate) const ATTEMPT_MAX: Duration = Duration::from_secs(3);

/// Writes batches as the leader, or forwards them to the leader.
pub(crate) struct ProposalForwarder {
    pub(crate) raft: Raft,
    pub(crate) identity: Arc<Identity>,
    pub(crate) links: Arc<Links>,
    pub(crate) state: Arc<State>,
    pub(crate) contact: Arc<Contact>,
    pub(crate) batches: AtomicU64,
}

/// How one attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Done(Committed),
    /// Nothing was given to raft; try again.
    NotLeader,
    /// The batch may be stored; try again when that is harmless.
    Unknown(Cow<'static, str>),
    /// Nothing was given to raft, and trying again does not help.
    Refused(Refusal),
}

/// Says of an attempt whether its content may be in a log, and lets the next batch go.
#[derive(Debug)]
pub(crate) struct HandedOver {
    given: AtomicBool,
    /// Tells the next batch that this one was handed over.
    next: Mutex<Option<oneshot::Sender<()>>>,
}

impl HandedOver {
    pub(crate) const fn new(next: oneshot::Sender<()>) -> Self {
        Self { given: AtomicBool::new(false), next: Mutex::new(Some(next)) }
    }

    /// The content was given to raft, or to the connection to the leader. `in_order`: whatever is given there from
    /// now on comes behind this content.
    pub(crate) fn give(&self, in_order: bool) {
        self.given.store(true, Ordering::Relaxed);
        if in_order {
            self.pass();
        }
    }

    /// Lets the next batch go.
    pub(crate) fn pass(&self) {
        if let Some(next) = lock(&self.next).take() {
            next.send(()).ok();
        }
    }

    /// Whether the content may be in a log, now or later.
    pub(crate) fn is_given(&self) -> bool {
        self.given.load(Ordering::Relaxed)
    }
}

/// Gets the content of batches into the log, one attempt after the other.
pub(crate) trait Submit: Send + Sync + 'static {
    /// This node.
    fn id(&self) -> u64;
    /// The leader, when there is one.
    fn leader(&self) -> Option<u64>;
    /// The mark of the next batch of so many frames; none when there is no other node that it could be sent to.
    fn mark(&self, frames: usize) -> Option<Batch>;
    /// One attempt, at that leader.
    fn attempt(&self, leader: u64, content: &BatchContent, handed: &HandedOver)
    -> impl Future<Output = Attempt> + Send;
    /// Resolves when this node shows the effect of that entry, at latest after `within`.
    fn shown(&self, index: u64, within: Duration) -> impl Future<Output = ()> + Send;
    /// Resolves when something about the leader has changed, at latest after `within`.
    fn changed_within(&self, within: Duration) -> impl Future<Output = ()> + Send;
    /// Whether batches that have waited so long for a leader are to be refused.
    fn is_hopeless(&self, waited: Duration) -> bool;
}

impl Submit for ProposalForwarder {
    fn id(&self) -> u64 {
        self.identity.id
    }

    fn leader(&self) -> Option<u64> {
        self.contact.leader()
    }

    fn mark(&self, frames: usize) -> Option<Batch> {
        if self.is_alone() {
            return None;
        }
        // The rules refuse a number that is as far below the newest one as they remember batches. So with steps of
        // that size none is stored behind a later one, whatever the ways of both were.
        let step = if Bug::BatchesRace.is_on() { 1 } else { BATCHES_PER_PRODUCER };
        let number = self.batches.fetch_add(1, Ordering::Relaxed).saturating_mul(step);
        Some(Batch { owner: self.identity.owner(), number, frames: u32::try_from(frames).unwrap_or(u32::MAX) })
    }

    async fn attempt(&self, leader: u64, content: &BatchContent, handed: &HandedOver) -> Attempt {
        let attempted = {
            let attempt = async {
                if leader == self.identity.id {
                    self.write(content, handed).await
                } else {
                    self.forward(leader, content, handed).await
                }
            };
            match select(pin!(attempt), pin!(self.contact.gone(leader))).await {
                Either::Left((attempt, _)) => Some(attempt),
                // When there is a new leader, no batch waits for the old one, which may never answer.
                Either::Right(_) => None,
            }
        };
        match attempted {
            Some(attempt) => attempt,
            None if handed.is_given() => Attempt::Unknown("leadership was lost".into()),
            None => Attempt::NotLeader,
        }
    }

    async fn shown(&self, index: u64, within: Duration) {
        let mut applied = self.state.applied();
        let shown = wait_until(&mut applied, |next| *next > index);
        if tokio::time::timeout(within, shown).await.is_err() {
            tracing::debug!(index, "this node is behind the leader");
        }
    }

    async fn changed_within(&self, within: Duration) {
        self.contact.changed_within(within).await;
    }

    fn is_hopeless(&self, waited: Duration) -> bool {
        self.contact.is_isolated() || waited >= self.links.timing().leaderless()
    }
}

impl ProposalForwarder {
    /// Whether this node is the only member of its cluster: no other node can lead, now or later in this term.
    fn is_alone(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.nodes().map(|(id, _)| *id).eq([self.identity.id])
    }

    /// Writes the entry as the leader.
    async fn write(&self, content: &BatchContent, handed: &HandedOver) -> Attempt {
        if self.identity.shortage.full.load(Ordering::Relaxed) {
            // To write it would end the process.
            return Attempt::Refused(Refusal::InsufficientStorage("the disk of the leader is full".to_owned()));
        }
        let (responder, result) = ProgressResponder::<Types, _>::complete_only();
        let entry = EntryData(content.entry(self.state.clock.stamp()));
        if let Err(fatal) = self.raft.client_write_ff(entry, Some(responder)).await {
            return Attempt::Refused(Refusal::Unavailable(format!("raft has stopped: {fatal}")));
        }
        // Raft takes them in the order of its channel.
        handed.give(true);
        match result.await {
            Ok(Ok(response)) => Attempt::Done(Committed { index: response.log_id.index, replies: response.data }),
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Attempt::NotLeader,
            // A new leader may have kept the entry or not; and raft may have stopped with the entry in its log.
            Ok(Err(ClientWriteError::LogEntryDiscarded(_))) | Err(_) => Attempt::Unknown("leadership was lost".into()),
            Ok(Err(other)) => Attempt::Refused(Refusal::Unavailable(other.to_string())),
        }
    }

    /// Sends the own frames to the leader.
    async fn forward(&self, leader: u64, content: &BatchContent, handed: &HandedOver) -> Attempt {
        // Without a mark when this node was alone a moment ago: the next attempt has one.
        let Some(body) = content.forward() else { return Attempt::NotLeader };
        let conn = match self.links.conn(leader, Purpose::Relay, ATTEMPT_MAX).await {
            Ok(conn) => conn,
            Err(error) => return outcome(Err(error), content.replies()),
        };
        let call = match conn.request(Kind::Forward, body).await {
            Ok(call) => call,
            Err(error) => return outcome(Err(error), content.replies()),
        };
        handed.give(conn.takes_in_order);
        outcome(call.answer(ATTEMPT_MAX).await, content.replies())
    }
}

/// The outcome of a batch of so many replies after the answer of a leader.
fn outcome(answer: Result<Bytes, CallError>, replies: usize) -> Attempt {
    match answer {
        Ok(body) => decode_committed(&body, replies)
            .map_or(Attempt::Unknown("the answer of the leader cannot be read".into()), Attempt::Done),
        Err(CallError::NotLeader | CallError::Unreachable(_)) => Attempt::NotLeader,
        Err(CallError::Lost) => Attempt::Unknown("the connection to the leader was lost".into()),
        Err(CallError::Late) => Attempt::Unknown("the leader did not answer in time".into()),
        // The leader had given the batch to raft when it lost its leadership.
        Err(CallError::Refused(Refusal::OutcomeUnknown(why))) => Attempt::Unknown(why.into()),
        Err(CallError::Refused(refusal)) => Attempt::Refused(refusal),
        Err(CallError::Protocol(what)) => Attempt::Unknown(what.into()),
    }
}

/// `u64 index of the entry | replies`
pub(crate) fn encode_committed(committed: &Committed) -> Bytes {
    let mut body = committed.index.to_le_bytes().to_vec();
    body.extend_from_slice(&reply::encode(&committed.replies));
    body.into()
}

fn decode_committed(body: &[u8], count: usize) -> Option<Committed> {
    let (index, replies) = body.split_first_chunk::<8>()?;
    let replies = reply::decode(replies).filter(|replies| replies.len() == count)?;
    Some(Committed { index: u64::from_le_bytes(*index), replies })
}

#[cfg(test)]
mod tests {
    use rollbook_core::command::Done;

    use super::*;

    #[test]
    fn only_answers_that_say_so_mean_that_nothing_was_stored() {
        let committed = Committed { index: 7, replies: vec![Ok(Done::Published { first: 3, events: 1 })] };
        let answer = |answer| outcome(answer, 1);
        assert_eq!(answer(Ok(encode_committed(&committed))), Attempt::Done(committed.clone()));
        for not_read in
            [Bytes::new(), Bytes::from_static(&[9; 30]), encode_committed(&Committed { index: 7, replies: vec![] })]
        {
            assert!(matches!(answer(Ok(not_read.clone())), Attempt::Unknown(_)), "{not_read:?}");
        }
        for lost in [CallError::Lost, CallError::Late, CallError::Protocol("?")] {
            assert!(matches!(answer(Err(lost.clone())), Attempt::Unknown(_)), "{lost:?}");
        }
        let unknown = CallError::Refused(Refusal::OutcomeUnknown("leadership was lost".to_owned()));
        assert_eq!(answer(Err(unknown)), Attempt::Unknown("leadership was lost".into()));
        assert_eq!(answer(Err(CallError::NotLeader)), Attempt::NotLeader);
        assert_eq!(answer(Err(CallError::Unreachable(String::new()))), Attempt::NotLeader);
        let full = Refusal::Overloaded("full".to_owned());
        assert_eq!(answer(Err(CallError::Refused(full.clone()))), Attempt::Refused(full));
    }
}
