//! What clients say of events, and the answer, between nodes.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::parts::{MemberKey, Reply, number, whole_millis};
use crate::bus::delivery::acknowledgement::{Acknowledged, Acknowledgement, Outcome, Which};
use crate::bus::delivery::messages::MemberAck;

/// An acknowledgement by consumer id.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct Ack {
    #[prost(string, tag = "1")]
    pub(in crate::bus) consumer_id: String,
    /// The event, when the acknowledgement is of one. The only member that a release before knows.
    #[prost(string, tag = "2")]
    event_id: String,
    /// Who acknowledges; empty when there is no authentication.
    #[prost(string, tag = "3")]
    pub(in crate::bus) principal: String,
    /// What else there is to say.
    #[prost(message, optional, tag = "4")]
    more: Option<MoreSaid>,
}

impl Ack {
    pub(in crate::bus) fn new(consumer_id: String, principal: String, said: &Acknowledgement) -> Self {
        let (event_id, more) = MoreSaid::split(said);
        Self { consumer_id, event_id, principal, more }
    }

    /// What the client says.
    pub(in crate::bus) fn said(&self) -> Acknowledgement {
        MoreSaid::join(self.event_id.clone(), self.more.clone())
    }
}

/// What a client says of events beyond that it has processed one. A node of the release before takes no notice, and the
/// events are delivered again.
#[derive(Clone, PartialEq, Message)]
struct MoreSaid {
    /// The events, or the last of them.
    #[prost(string, repeated, tag = "1")]
    ids: Vec<String>,
    /// Whether all events up to that are meant.
    #[prost(bool, tag = "2")]
    up_to: bool,
    /// 0 processed, 1 not processed, 2 in progress, 3 rejected.
    #[prost(uint32, tag = "3")]
    outcome: u32,
    /// When events that are not processed are delivered again.
    #[prost(uint64, optional, tag = "4")]
    delay_ms: Option<u64>,
    /// Why events are rejected.
    #[prost(string, tag = "5")]
    reason: String,
}

impl MoreSaid {
    /// The event that a release before can take, or else what else there is to say.
    fn split(said: &Acknowledgement) -> (String, Option<Self>) {
        if let (Some(only), Outcome::Ack) = (said.single(), &said.outcome) {
            return (only.to_owned(), None);
        }
        let (ids, up_to) = match &said.which {
            Which::Ids(ids) => (ids.clone(), false),
            Which::UpTo(id) => (vec![id.clone()], true),
        };
        let mut more = Self { ids, up_to, ..Self::default() };
        match &said.outcome {
            Outcome::Ack => {}
            Outcome::Nack(delay) => (more.outcome, more.delay_ms) = (1, delay.map(whole_millis)),
            Outcome::InProgress => more.outcome = 2,
            Outcome::Reject(reason) => (more.outcome, more.reason) = (3, reason.clone()),
        }
        (String::new(), Some(more))
    }

    fn join(event_id: String, more: Option<Self>) -> Acknowledgement {
        let Some(mut more) = more else { return Acknowledgement::of(event_id) };
        let outcome = match more.outcome {
            0 => Outcome::Ack,
            1 => Outcome::Nack(more.delay_ms.map(Duration::from_millis)),
            3 => Outcome::Reject(more.reason),
            _ => Outcome::InProgress,
        };
        let which = if more.up_to { Which::UpTo(more.ids.pop().unwrap_or_default()) } else { Which::Ids(more.ids) };
        Acknowledgement { which, outcome }
    }
}

/// A member acknowledges an event.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct RemoteAck {
    #[prost(message, required, tag = "1")]
    member_key: MemberKey,
    /// The event, when the acknowledgement is of one. The only member that a release before knows.
    #[prost(string, tag = "2")]
    event_id: String,
    /// What else there is to say.
    #[prost(message, optional, tag = "3")]
    more: Option<MoreSaid>,
}

impl RemoteAck {
    pub(in crate::bus) fn new(ack: &MemberAck) -> Self {
        let member_key =
            MemberKey { namespace: ack.namespace.clone(), consumer: ack.consumer.clone(), member: ack.member };
        let (event_id, more) = MoreSaid::split(&ack.said);
        Self { member_key, event_id, more }
    }

    pub(in crate::bus) fn into_ack(self) -> MemberAck {
        let MemberKey { namespace, consumer, member } = self.member_key;
        MemberAck { namespace, consumer, member, said: MoreSaid::join(self.event_id, self.more).into() }
    }
}

/// The result of an acknowledgement; `None` when the stream is not on this node. The number is what a release before
/// knows: 0, or 1 and 2 for an event that was not in flight and that was.
pub(in crate::bus) fn encode_acknowledged(acknowledged: Option<Acknowledged>) -> Bytes {
    let Some(Acknowledged { count, not_in_flight }) = acknowledged else { return number(0) };
    let number = if count > 0 { 2 } else { 1 };
    Reply { number, count, not_in_flight, ..Reply::default() }.encode_to_vec().into()
}

/// Reads [`encode_acknowledged`] back.
pub(in crate::bus) fn decode_acknowledged(bytes: Bytes, said: &Acknowledgement) -> Option<Acknowledged> {
    let Reply { number, count, not_in_flight, .. } = Reply::decode(bytes).unwrap_or_default();
    match number {
        // A release before says no count, and takes one event alone.
        2 => Some(Acknowledged { count: count.max(1), not_in_flight }),
        1 => Some(Acknowledged::nothing(said)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_client_says_of_events_reads_back() {
        let ids = |ids: &[&str]| Which::Ids(ids.iter().map(|id| (*id).to_owned()).collect());
        let all = [
            Acknowledgement::of("e1"),
            Acknowledgement { which: ids(&["e1", "e2"]), outcome: Outcome::Ack },
            Acknowledgement { which: ids(&[]), outcome: Outcome::Ack },
            Acknowledgement { which: Which::UpTo("e9".into()), outcome: Outcome::Ack },
            Acknowledgement { which: ids(&["e1"]), outcome: Outcome::Nack(None) },
            Acknowledgement { which: ids(&["e1"]), outcome: Outcome::Nack(Some(Duration::from_millis(7))) },
            Acknowledgement { which: ids(&["e1"]), outcome: Outcome::InProgress },
            Acknowledgement { which: ids(&["e1"]), outcome: Outcome::Reject("no".into()) },
        ];
        for said in all {
            let ack = Ack::new("c".into(), String::new(), &said);
            assert_eq!(ack.event_id.is_empty(), said != Acknowledgement::of("e1"), "what a release before may take");
            assert_eq!(ack.said(), said);
        }
    }

    #[test]
    fn answers_read_back() {
        let said = Acknowledgement::of("e");
        let some = Acknowledged { count: 3, not_in_flight: vec!["e".into()] };
        for answer in [None, Some(Acknowledged::nothing(&said)), Some(some)] {
            assert_eq!(decode_acknowledged(encode_acknowledged(answer.clone()), &said), answer);
        }
        let one = Acknowledged { count: 1, not_in_flight: Vec::new() };
        assert_eq!(decode_acknowledged(number(2), &said), Some(one), "as a release before says it");
    }
}
