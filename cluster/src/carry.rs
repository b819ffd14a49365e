//! Carries batches into the log: here on the leader, through the leader anywhere else.
//!
//! A batch with a mark may be sent as often as needed: the rules store it once. So a
//! client sees a change of leader as a pause, not as an error, as long as there is a
//! leader again before its deadline.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{Either, select};
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use rollbook_core::entry::Batch;
use rollbook_core::error::Refusal;
use rollbook_core::reply;

use crate::contact::Contact;
use crate::gather::{Carried, Failure, Gathered};
use crate::peer::conn::CallError;
use crate::peer::frame::Kind;
use crate::peer::identity::Identity;
use crate::peer::link::{Links, Purpose};
use crate::raft::Raft;
use crate::state::State;
use crate::types::{EntryData, Types};

/// How long a batch waits for a leader.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);
/// How long one attempt at the leader may take before the next.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);
/// Between attempts.
const PAUSE: Duration = Duration::from_millis(5);
/// How long the effect of a command may take to show on this node.
const SHOW_MAX: Duration = Duration::from_secs(2);

/// Knows the way into the log.
pub(crate) struct Carrier {
    pub(crate) raft: Raft,
    pub(crate) identity: Arc<Identity>,
    pub(crate) links: Arc<Links>,
    pub(crate) state: Arc<State>,
    pub(crate) contact: Arc<Contact>,
    /// Longest wait for the answer to a batch.
    pub(crate) timeout: Duration,
    pub(crate) batches: AtomicU64,
}

/// One attempt.
enum Attempt {
    Done(Carried),
    /// Nothing was stored; try again.
    Elsewhere,
    /// It may be stored; try again when that is harmless.
    Unknown(&'static str),
    Refused(Refusal),
}

impl Carrier {
    /// Whether a batch may have to be sent twice.
    pub(crate) fn has_peers(&self) -> bool {
        self.contact.voters() > 1
    }

    /// The mark of the next batch of so many frames.
    pub(crate) fn next_batch(&self, frames: usize) -> Batch {
        let number = self.batches.fetch_add(1, Ordering::Relaxed);
        Batch { owner: self.identity.owner(), number, frames: u32::try_from(frames).unwrap_or(u32::MAX) }
    }

    /// Carries a batch to its end and answers everybody who asked.
    pub(crate) async fn carry(&self, mut gathered: Gathered) {
        let deadline = Instant::now() + self.timeout;
        let mut leaderless = Instant::now();
        let mut unknown: Option<&'static str> = None;
        loop {
            let attempt = match self.contact.leader() {
                Some(leader) if leader == self.identity.id => {
                    self.while_leads(leader, self.write(&gathered, deadline)).await
                }
                Some(leader) => {
                    dismiss_guests(&mut gathered);
                    if gathered.answers.is_empty() {
                        return;
                    }
                    self.while_leads(leader, self.forward(leader, &gathered)).await
                }
                None => Attempt::Elsewhere,
            };
            match attempt {
                Attempt::Done(carried) => return self.answer(gathered, carried).await,
                Attempt::Refused(refusal) => return refuse(gathered, &refusal),
                Attempt::Unknown(why) => {
                    unknown = Some(why);
                    leaderless = Instant::now();
                    if !gathered.marked {
                        return refuse(gathered, &Refusal::OutcomeUnknown(why.to_owned()));
                    }
                }
                Attempt::Elsewhere => {}
            }
            dismiss_guests(&mut gathered);
            if gathered.answers.is_empty() {
                return;
            }
            if Instant::now() >= deadline || leaderless.elapsed() >= LEADERLESS_MAX {
                let refusal = match unknown {
                    Some(why) => Refusal::OutcomeUnknown(why.to_owned()),
                    None => Refusal::Unavailable("no leader".to_owned()),
                };
                return refuse(gathered, &refusal);
            }
            self.contact.changed_within(PAUSE).await;
        }
    }

    /// An attempt that nobody waits for when there is another leader: it may not answer any more.
    async fn while_leads(&self, leader: u64, attempt: impl Future<Output = Attempt>) -> Attempt {
        match select(pin!(attempt), pin!(self.contact.gone(leader))).await {
            Either::Left((attempt, _)) => attempt,
            Either::Right(_) => Attempt::Unknown("leadership was lost"),
        }
    }

    /// Writes the entry as the leader.
    async fn write(&self, gathered: &Gathered, deadline: Instant) -> Attempt {
        let (responder, result) = ProgressResponder::<Types, _>::complete_only();
        if let Err(fatal) = self.raft.client_write_ff(EntryData(gathered.entry()), Some(responder)).await {
            return Attempt::Refused(Refusal::Unavailable(format!("raft has stopped: {fatal}")));
        }
        match tokio::time::timeout_at(deadline.into(), result).await {
            Ok(Ok(Ok(response))) => Attempt::Done(Carried { index: response.log_id.index, replies: response.data }),
            Ok(Ok(Err(ClientWriteError::ForwardToLeader(_)))) => Attempt::Elsewhere,
            // A new leader may have kept the entry or not.
            Ok(Ok(Err(ClientWriteError::LogEntryDiscarded(_))) | Err(_)) => Attempt::Unknown("leadership was lost"),
            Ok(Ok(Err(other))) => Attempt::Refused(Refusal::Unavailable(other.to_string())),
            Err(_) => Attempt::Unknown("no answer in time"),
        }
    }

    /// Sends the own part to the leader.
    async fn forward(&self, leader: u64, gathered: &Gathered) -> Attempt {
        if !gathered.marked {
            // Gathered when this node was alone: it cannot be told apart when it comes twice.
            return Attempt::Refused(Refusal::Unavailable("the cluster is being changed".to_owned()));
        }
        let mut body = Vec::with_capacity(gathered.own.len().saturating_add(4));
        body.extend_from_slice(&u32::try_from(gathered.answers.len()).unwrap_or(u32::MAX).to_le_bytes());
        body.extend_from_slice(&gathered.own);
        let answer = self.links.call(leader, Purpose::Relay, Kind::Forward, body.into(), ATTEMPT_MAX).await;
        match answer {
            Ok(body) => decode_carried(&body, gathered.answers.len()).map_or(
                Attempt::Refused(Refusal::Unavailable("a leader of another release".to_owned())),
                Attempt::Done,
            ),
            Err(CallError::NotLeader | CallError::Unreachable(_)) => Attempt::Elsewhere,
            Err(CallError::Lost) => Attempt::Unknown("the connection to the leader was lost"),
            Err(CallError::Late) => Attempt::Unknown("the leader did not answer in time"),
            Err(CallError::Refused(refusal)) => Attempt::Refused(refusal),
            Err(CallError::Protocol(what)) => Attempt::Refused(Refusal::Unavailable(what.to_owned())),
        }
    }

    async fn answer(&self, gathered: Gathered, carried: Carried) {
        let Carried { index, replies } = carried;
        let mut replies = replies.into_iter();
        for guest in gathered.guests {
            let replies = replies.by_ref().take(guest.replies).collect();
            // The asker may have gone; what was done stays done.
            drop(guest.answer.send(Ok(Carried { index, replies })));
        }
        if gathered.commands {
            let mut applied = self.state.applied();
            let shown = applied.wait_for(|next| *next > index);
            if tokio::time::timeout(SHOW_MAX, shown).await.is_err() {
                tracing::debug!(index, "this node is behind the leader");
            }
        }
        for (answer, reply) in gathered.answers.into_iter().zip(replies) {
            drop(answer.send(reply));
        }
    }
}

fn dismiss_guests(gathered: &mut Gathered) {
    for guest in gathered.guests.drain(..) {
        drop(guest.answer.send(Err(Failure::NotLeader)));
    }
}

fn refuse(gathered: Gathered, refusal: &Refusal) {
    for guest in gathered.guests {
        drop(guest.answer.send(Err(Failure::Refused(refusal.clone()))));
    }
    gathered.answers.into_iter().for_each(|answer| drop(answer.send(Err(refusal.clone()))));
}

/// `u64 index of the entry | replies`
pub(crate) fn encode_carried(carried: &Carried) -> Bytes {
    let mut body = carried.index.to_le_bytes().to_vec();
    body.extend_from_slice(&reply::encode(&carried.replies));
    body.into()
}

fn decode_carried(body: &[u8], wanted: usize) -> Option<Carried> {
    let (index, replies) = body.split_first_chunk::<8>()?;
    let replies = reply::decode(replies).filter(|replies| replies.len() == wanted)?;
    Some(Carried { index: u64::from_le_bytes(*index), replies })
}
