//! Answers what other nodes ask of this one, beside raft's own messages.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use openraft::ReadPolicy;
use prost::Message as _;
use rollbook_core::command::Done;
use rollbook_core::entry::{BATCH_FRAME_BYTES, Entry, EntryBuilder, Frame, are_frames};
use rollbook_core::error::Refusal;
use rollbook_core::reply;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::carry::{ATTEMPT_MAX, encode_carried};
use crate::founding::Founding;
use crate::gather::{Answer as To, Ask, Carried, Failure, Queue};
use crate::live::Live;
use crate::members::Change;
use crate::node::Node;
use crate::peer::conn::CallError;
use crate::peer::frame::Kind;
use crate::peer::server::{Answer, Office};
use crate::peer::wire;

/// What the desk needs.
pub(crate) struct Desk {
    pub(crate) node: Node,
    pub(crate) asks: Queue,
    pub(crate) founding: Founding,
    pub(crate) live: Arc<OnceLock<Arc<dyn Live>>>,
}

fn malformed(what: &str) -> Answer {
    Answer::Refused(Refusal::Malformed(what.to_owned()))
}

impl Desk {
    /// Queues the batch of another node for the log.
    fn take(&self, from: u64, mut body: Bytes) -> Result<oneshot::Receiver<Result<Carried, Failure>>, Answer> {
        if !self.node.leads() {
            return Err(Answer::NotLeader);
        }
        let Some(count) = body.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else {
            return Err(malformed("a batch that was cut"));
        };
        drop(body.split_to(4));
        if !is_batch_of(from, &body, count) {
            return Err(malformed("a batch that is none"));
        }
        let frames = body.get(BATCH_FRAME_BYTES..).unwrap_or_default();
        if let Err(refusal) = self.node.check_level(frames, count) {
            return Answer::Refused(refusal);
        }
        let (answer, answered) = oneshot::channel();
        let replies = usize::try_from(count).unwrap_or(usize::MAX);
        let until = Instant::now() + ATTEMPT_MAX;
        let ask = Ask { frames: body, replies, until, answer: To::Guest(answer) };
        self.asks.push(ask).map_err(Answer::Refused)?;
        Ok(answered)
    }

    async fn read_index(&self) -> Answer {
        match self.node.inner().raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((id, _)) => Answer::Done(wire::encode_number(id.index())),
            Err(_) => Answer::NotLeader,
        }
    }

    async fn change(&self, body: &[u8]) -> Answer {
        let Some(change) = Change::from_bytes(body) else { return malformed("an unknown change of the membership") };
        match self.node.change_here(change).await {
            Ok(node) => Answer::Done(reply::encode(&[Ok(Done::Node(node))]).into()),
            Err(CallError::Refused(refusal)) => Answer::Refused(refusal),
            Err(CallError::NotLeader) => Answer::NotLeader,
            Err(error) => Answer::Refused(Refusal::Unavailable(error.to_string())),
        }
    }

    fn found(&self, body: &[u8]) -> Answer {
        let id = std::str::from_utf8(body).unwrap_or_default();
        if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return malformed("an id of a cluster");
        }
        match self.node.inner().identity.belong_to(id) {
            Ok(()) => Answer::Done(Bytes::new()),
            Err(error) => Answer::Refused(Refusal::Membership(error.to_string())),
        }
    }
}

/// Whether the bytes are `count` frames behind the mark of a batch of that node.
fn is_batch_of(from: u64, frames: &[u8], count: u32) -> bool {
    let Some((mark, rest)) = frames.split_first_chunk::<BATCH_FRAME_BYTES>() else { return false };
    let mut entry = EntryBuilder::new(BATCH_FRAME_BYTES);
    entry.push(mark);
    let entry = entry.finish(0);
    let first = Entry::parse_trusted(&entry).ok().and_then(|entry| entry.frames().next());
    let marked = matches!(first, Some(Frame::Batch(batch)) if batch.owner.node == from && batch.frames == count);
    marked && count > 0 && are_frames(rest, count)
}

/// What a node is told of the batch that it forwarded.
fn told(became: Result<Carried, Failure>) -> Answer {
    match became {
        Ok(carried) => Answer::Done(encode_carried(&carried)),
        Err(Failure::Refused(refusal)) => Answer::Refused(refusal),
        Err(Failure::NotLeader) => Answer::NotLeader,
        // Understood by the release before, which tells its clients just that.
        Err(Failure::Unknown(why)) => Answer::Refused(Refusal::OutcomeUnknown(why.into_owned())),
    }
}

impl Office for Desk {
    fn forward(&self, from: u64, body: Bytes) -> impl Future<Output = Answer> + Send + use<> {
        let taken = self.take(from, body);
        async move {
            match taken {
                Ok(answered) => {
                    told(answered.await.unwrap_or_else(|_| Err(Failure::Unknown("node is stopping".into()))))
                }
                Err(answer) => answer,
            }
        }
    }

    async fn answer(&self, from: u64, kind: Kind, body: Bytes) -> Answer {
        // Boxed but for live messages: those are many, and each would carry the room of the others.
        match kind {
            Kind::ReadIndex => Box::pin(self.read_index()).await,
            Kind::Standing => {
                let status = self.node.status();
                let slowest = self.node.slowest_follower().unwrap_or(0);
                Answer::Done(wire::encode_numbers(vec![status.last_index, status.applied_index, slowest]))
            }
            Kind::Change => Box::pin(self.change(&body)).await,
            Kind::Founding => Answer::Done(Box::pin(self.founding.standing()).await.encode_to_vec().into()),
            Kind::Found => self.found(&body),
            Kind::Ask => match self.live.get() {
                Some(live) => match live.answer(from, body).await {
                    Ok(body) => Answer::Done(body),
                    Err(refusal) => Answer::Refused(refusal),
                },
                None => Answer::Refused(Refusal::Unavailable("node is starting".to_owned())),
            },
            _ => malformed("an ask of an unknown kind"),
        }
    }

    fn hear(&self, from: u64, body: Bytes) {
        if let Some(live) = self.live.get() {
            live.hear(from, body);
        }
    }
}
