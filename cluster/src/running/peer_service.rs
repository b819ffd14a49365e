//! Answers the requests of other nodes, besides raft's own.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use openraft::ReadPolicy;
use prost::Message as _;
use rollbook_core::command::Done;
use rollbook_core::command::admission::check_level;
use rollbook_core::command::attributed::Attributed;
use rollbook_core::entry::{BATCH_FRAME_BYTES, FLAG_HEADERS, FLAG_KEYED, Frame, Publish, frames};
use rollbook_core::error::Refusal;
use rollbook_core::event::Event;
use rollbook_core::reply;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::member::founding::Founding;
use crate::member::members::ChangeRequest;
use crate::node::consensus::Consensus;
use crate::node::membership::{LEADER_MAX, Membership};
use crate::node::peer_messages::PeerMessages;
use crate::peer::conn::CallError;
use crate::peer::frame::Kind;
use crate::peer::identity::Identity;
use crate::peer::wire::{self, NodeFigures};
use crate::propose::forward::{ATTEMPT_MAX, encode_committed};
use crate::propose::proposal::{Committed, Failure, Proposal, ProposalQueue, ReplyTo};
use crate::replicate::raft::Raft;
use crate::replicate::server::{Answer, PeerRequestHandler};
use crate::state::state::State;

/// Answers the requests of other nodes.
pub(crate) struct PeerService {
    pub(crate) raft: Raft,
    pub(crate) identity: Arc<Identity>,
    pub(crate) state: Arc<State>,
    pub(crate) consensus: Consensus,
    pub(crate) membership: Membership,
    pub(crate) messages: PeerMessages,
    pub(crate) proposals: ProposalQueue,
    pub(crate) founding: Founding,
}

fn malformed(what: &str) -> Answer {
    Answer::Refused(Refusal::Malformed(what.to_owned()))
}

impl PeerService {
    /// Queues the batch of another node for the log.
    fn queue(&self, from: u64, mut body: Bytes) -> Result<oneshot::Receiver<Result<Committed, Failure>>, Answer> {
        if !self.consensus.leads() {
            return Err(Answer::NotLeader);
        }
        // The connections of that node end, but what the node sent before may still be read.
        if self.state.machine().node(from).is_some_and(|row| row.removed) {
            return Err(Answer::Refused(Refusal::Unavailable(format!("node {from} was removed from the cluster"))));
        }
        let Some(count) = body.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else {
            return Err(malformed("a batch that was cut"));
        };
        drop(body.split_to(4));
        if !is_batch_of(from, &body, count) {
            return Err(malformed("a batch that is none"));
        }
        let frames = body.get(BATCH_FRAME_BYTES..).unwrap_or_default();
        let level = self.state.machine().level();
        if let Err(refusal) = check_level(frames, count, level) {
            return Err(Answer::Refused(refusal));
        }
        let (answer, answered) = oneshot::channel();
        let replies = usize::try_from(count).unwrap_or(usize::MAX);
        let until = Instant::now() + ATTEMPT_MAX;
        let proposal = Proposal { frames: body, replies, until, answer: ReplyTo::Node(answer) };
        self.proposals.push(proposal).map_err(Answer::Refused)?;
        Ok(answered)
    }

    async fn read_index(&self) -> Answer {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((id, _)) => Answer::Done(wire::encode_number(id.index())),
            Err(_) => Answer::NotLeader,
        }
    }

    async fn change(&self, body: &[u8]) -> Answer {
        let Some(request) = ChangeRequest::from_bytes(body) else {
            return malformed("an unknown change of the membership");
        };
        match self.membership.change_here(request, LEADER_MAX).await {
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
        match self.identity.belong_to(id) {
            Ok(()) => Answer::Done(Bytes::new()),
            Err(error) => Answer::Refused(Refusal::Membership(error.to_string())),
        }
    }
}

/// Whether the bytes are `count` frames behind the mark of a batch of that node, and all that the rules take for
/// granted of them is so: what is in the log is applied by all nodes.
fn is_batch_of(from: u64, bytes: &[u8], count: u32) -> bool {
    let Some((mark, rest)) = bytes.split_first_chunk::<BATCH_FRAME_BYTES>() else { return false };
    let first = frames(mark, 1).next();
    let marked = matches!(first, Some(Frame::Batch(batch)) if batch.owner.node == from && batch.frames == count);
    let mut frames = frames(rest, count);
    marked && count > 0 && frames.by_ref().all(|frame| is_sound(&frame)) && frames.intact()
}

fn is_sound(frame: &Frame<'_>) -> bool {
    match frame {
        Frame::Publish(publish) => are_records(publish),
        Frame::Command(body) => Attributed::decode(body).is_ok(),
        Frame::Batch(_) | Frame::Unknown(_) => false,
    }
}

/// Whether the frame holds the announced number of records, each whole and of its namespace. The rules assign sequence
/// numbers by the announced number alone and read no record without a key or id, so only a subscriber would see damage.
fn are_records(publish: &Publish<'_>) -> bool {
    let mut rest = publish.records;
    for _ in 0..publish.events {
        let Some((event, used)) = Event::decode(rest) else { return false };
        let place = event.subject.strip_prefix(publish.namespace);
        let keyed = !event.key.is_empty() || !event.id.is_empty();
        let unsaid = |is_so: bool, flag: u8| is_so && publish.flags & flag == 0;
        if place.is_none_or(|topic| !topic.starts_with('.'))
            || unsaid(keyed, FLAG_KEYED)
            || unsaid(!event.headers.is_empty(), FLAG_HEADERS)
        {
            return false;
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    publish.events > 0 && rest.is_empty()
}

/// The answer to a node that forwarded a batch.
fn batch_answer(outcome: Result<Committed, Failure>) -> Answer {
    match outcome {
        Ok(committed) => Answer::Done(encode_committed(&committed)),
        Err(Failure::Refused(refusal)) => Answer::Refused(refusal),
        Err(Failure::NotLeader) => Answer::NotLeader,
        // Nodes of the release before understand this refusal, and pass it on to their clients.
        Err(Failure::Unknown(why)) => Answer::Refused(Refusal::OutcomeUnknown(why.into_owned())),
    }
}

impl PeerRequestHandler for PeerService {
    fn forward(&self, from: u64, body: Bytes) -> impl Future<Output = Answer> + Send + use<> {
        let queued = self.queue(from, body);
        async move {
            match queued {
                Ok(answered) => {
                    batch_answer(answered.await.unwrap_or_else(|_| Err(Failure::Unknown("node is stopping".into()))))
                }
                Err(answer) => answer,
            }
        }
    }

    async fn answer(&self, from: u64, kind: Kind, body: Bytes) -> Answer {
        // Boxed but for live messages: those are many, and each would carry the room of the others.
        match kind {
            Kind::ReadIndex => Box::pin(self.read_index()).await,
            Kind::Figures => {
                let status = self.consensus.status();
                let slowest = self.consensus.slowest_follower().unwrap_or(0);
                let shortage = &self.identity.shortage;
                let flag = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
                let figures = NodeFigures {
                    last: status.last_index,
                    applied: status.applied_index,
                    slowest,
                    short: flag(&shortage.here),
                    majority_short: flag(&shortage.majority),
                    wall: Some(self.state.clock.wall()),
                };
                Answer::Done(figures.encode())
            }
            Kind::Change => Box::pin(self.change(&body)).await,
            Kind::Founding => Answer::Done(Box::pin(self.founding.status()).await.encode_to_vec().into()),
            Kind::Found => self.found(&body),
            Kind::Ask => match self.messages.handler() {
                Some(handler) => match handler.answer(from, body).await {
                    Ok(body) => Answer::Done(body),
                    Err(refusal) => Answer::Refused(refusal),
                },
                None => Answer::Refused(Refusal::Unavailable("node is starting".to_owned())),
            },
            _ => malformed("a request of an unknown kind"),
        }
    }

    fn hear(&self, from: u64, body: Bytes) {
        if let Some(handler) = self.messages.handler() {
            handler.hear(from, body);
        }
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::command::{Command, NamespaceDelete};
    use rollbook_core::entry::{Batch, FLAG_CREATE, batch_frame, begin_publish, command_frame, finish_publish};
    use rollbook_core::event::headers::HeaderList;
    use rollbook_core::node::Owner;

    use super::*;

    fn batch(node: u64, said: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let owner = Owner { node, incarnation: 1 };
        [batch_frame(Batch { owner, number: 64, frames: said }).as_slice(), &frames.concat()].concat()
    }

    fn publish(namespace: &str, events: &[Event<'_>], said: usize, flags: u8) -> Vec<u8> {
        let mut frame = Vec::new();
        begin_publish(&mut frame, namespace).unwrap();
        events.iter().for_each(|event| event.encode(&mut frame).unwrap());
        finish_publish(&mut frame, 0, flags, u32::try_from(said).unwrap()).unwrap();
        frame
    }

    #[test]
    fn of_another_node_only_what_the_rules_can_apply_gets_into_the_log() {
        let event = Event { subject: "app.x", payload: Some(b"1"), ..Event::default() };
        let keyed = Event { key: "k", ..event };
        let named = Event { id: "mine", ..event };
        let mut headers = HeaderList::default();
        headers.push("tenant", "a").unwrap();
        let headed = Event { headers: headers.headers(), ..event };
        let delete = Command::NamespaceDelete(NamespaceDelete { name: "app".to_owned() }).frame().unwrap();
        let two = publish("app", &[event, event], 2, FLAG_CREATE);
        let good = batch(2, 3, &[two.clone(), publish("app", &[keyed, named], 2, FLAG_KEYED), delete.clone()]);
        assert!(is_batch_of(2, &good, 3));
        assert!(!is_batch_of(3, &good, 3), "of another node");
        for count in [0, 1, 2, 4, u32::MAX] {
            assert!(!is_batch_of(2, &good, count), "{count}");
        }
        for cut in 0..good.len() {
            assert!(!is_batch_of(2, &good[..cut], 3), "cut at {cut}");
        }
        let mut torn = publish("app", &[event], 1, 0);
        // The length of the record goes beyond the frame.
        torn[15] = torn[15].wrapping_add(1);
        for (what, frame) in [
            ("more events than it says", publish("app", &[event, event], 1, 0)),
            ("fewer events than it says", publish("app", &[event], 2, 0)),
            ("very many fewer", publish("app", &[event], 4_000_000_000, 0)),
            ("no event", publish("app", &[], 0, 0)),
            ("a record that is cut", torn),
            ("an event of another namespace", publish("web", &[event], 1, 0)),
            ("an event of a longer name", publish("ap", &[event], 1, 0)),
            ("a key that is not announced", publish("app", &[keyed], 1, 0)),
            ("an id that is not announced", publish("app", &[named], 1, 0)),
            ("headers that are not announced", publish("app", &[headed], 1, FLAG_CREATE)),
            ("a command of a later release", command_frame(&[0xfa, 0x07, 0x00]).unwrap()),
            ("a command that is none", command_frame(b"xyz").unwrap()),
            ("an empty command", command_frame(b"").unwrap()),
            ("a batch in a batch", batch(2, 1, &[])),
            ("an unknown kind", vec![9, 0, 0, 0, 0, 0]),
        ] {
            assert!(!is_batch_of(2, &batch(2, 1, &[frame]), 1), "{what}");
        }
        let announced = publish("app", &[headed], 1, FLAG_HEADERS);
        assert!(is_batch_of(2, &batch(2, 1, &[announced]), 1));
        assert!(is_batch_of(2, &batch(2, 1, &[two]), 1) && is_batch_of(2, &batch(2, 1, &[delete]), 1));
    }
}
