//! The leader's batcher: many asks become one raft entry.
//!
//! It takes what waits, up to 128 KiB, while at most two entries are in flight. No
//! timer: when the disk is quick, batches are small and prompt; when it is slow, they
//! grow by themselves.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use rollbook_core::command::Reply;
use rollbook_core::entry::EntryBuilder;
use rollbook_core::error::Refusal;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::raft::Raft;
use crate::types::{EntryData, Types};

/// Entries are cut at this many bytes; one larger ask is an entry of its own.
const ENTRY_BYTES_MAX: usize = 128 << 10;
/// Entries on their way to the disk at the same time: one gathers while one is being synced. More would
/// make smaller entries, each of which costs a round through raft and its share of an fsync.
const IN_FLIGHT_MAX: usize = 2;
/// Asks that may wait for the batcher.
pub(crate) const QUEUE_ASKS_MAX: usize = 65_536;

/// One frame that somebody wants in the log, and where the answer goes.
pub(crate) struct Ask {
    pub(crate) frame: Bytes,
    pub(crate) answer: oneshot::Sender<Reply>,
}

/// Milliseconds since 1970. The clock of the leader gives entries their time.
pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Turns asks into entries until the queue is closed. Every ask is answered within about `timeout` of
/// the moment its entry is proposed; one timer serves a whole entry.
pub(crate) async fn run(raft: Raft, mut asks: mpsc::Receiver<Ask>, timeout: Duration) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut held: Option<Ask> = None;
    loop {
        let Some(first) = (match held.take() {
            Some(ask) => Some(ask),
            None => asks.recv().await,
        }) else {
            return;
        };
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let mut entry = EntryBuilder::new(ENTRY_BYTES_MAX.min(first.frame.len().saturating_mul(16)));
        let mut answers = Vec::new();
        entry.push(&first.frame);
        answers.push(first.answer);
        while entry.len() < ENTRY_BYTES_MAX {
            let Ok(next) = asks.try_recv() else { break };
            if entry.len().saturating_add(next.frame.len()) > ENTRY_BYTES_MAX {
                held = Some(next);
                break;
            }
            entry.push(&next.frame);
            answers.push(next.answer);
        }
        let data = EntryData(entry.finish(now_millis()).into());
        let (responder, result) = ProgressResponder::<Types, _>::complete_only();
        let sent = raft.client_write_ff(data, Some(responder)).await;
        tokio::spawn(async move {
            let replies = match sent {
                Ok(()) => match tokio::time::timeout(timeout, result).await {
                    Ok(Ok(Ok(response))) => Ok(response.data),
                    Ok(Ok(Err(error))) => Err(refused(error)),
                    Ok(Err(_)) => Err(Refusal::OutcomeUnknown("leadership was lost".to_owned())),
                    Err(_) => Err(Refusal::OutcomeUnknown("no answer in time".to_owned())),
                },
                Err(fatal) => Err(Refusal::Unavailable(format!("raft has stopped: {fatal}"))),
            };
            drop(permit);
            answer(answers, replies);
        });
    }
}

fn refused(error: ClientWriteError<Types>) -> Refusal {
    match error {
        ClientWriteError::ForwardToLeader(_) => Refusal::Unavailable("no leader".to_owned()),
        // A new leader may have kept the entry or not.
        ClientWriteError::LogEntryDiscarded(_) => Refusal::OutcomeUnknown("leadership was lost".to_owned()),
        other @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
            Refusal::Unavailable(other.to_string())
        }
    }
}

fn answer(answers: Vec<oneshot::Sender<Reply>>, replies: Result<Vec<Reply>, Refusal>) {
    match replies {
        Ok(replies) => {
            for (sender, reply) in answers.into_iter().zip(replies) {
                // The asker may have gone; what was done stays done.
                drop(sender.send(reply));
            }
        }
        Err(refusal) => answers.into_iter().for_each(|sender| drop(sender.send(Err(refusal.clone())))),
    }
}

/// The text of a raft failure for an operator.
pub(crate) fn describe<E: std::error::Error>(error: &RaftError<Types, E>) -> String
where
    RaftError<Types, E>: std::fmt::Display,
{
    error.to_string()
}
