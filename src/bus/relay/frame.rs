//! Messages between the buses of two nodes, and their encoding.
//!
//! Invariant: tags are never reused, and unknown messages are refused, so that nodes of two releases can share a
//! cluster.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rollbook_core::error::Refusal;
use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::subjects::subject::Subject;
use rollbook_core::time::Timestamp;

use self::acknowledgement::{Ack, RemoteAck};
use self::parts::{Member, Reply, number, read_number, whole_millis};
use super::live::{Call, ClientCommand, CloseClient, DoorMessage, KickClient};
use crate::bus::call::survey::Wanted;
use crate::bus::delivery::filter::HeaderFilter;
use crate::bus::delivery::messages::{ConsumerSpec, EndReason, Finish, Leave, MemberState, WriteResult};
use crate::bus::delivery::order::OrderBy;
use crate::bus::delivery::policy::{BACKOFF_MAX, DeliveryPolicy, REDELIVERY_MIN};
use crate::bus::delivery::window::Departure;
use crate::bus::read::redelivery::{Reason, Redelivery};
use crate::bus::read::stored_event::StoredEvent;

pub(in crate::bus) mod acknowledgement;
pub(in crate::bus) mod parts;

/// A message. The relay or the call handler of the receiving node handles it.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(in crate::bus) enum Frame {
    /// A live message for the listeners of an inbox subject.
    #[prost(message, tag = "1")]
    Post(Post),
    /// An acknowledgement for a stream of the receiving node.
    #[prost(message, tag = "2")]
    Ack(Ack),
    /// A newer stream has this consumer id: the older one ends. From nodes of the releases without principals.
    #[prost(string, tag = "3")]
    Supersede(String),
    /// A durable consumer was deleted or reset, or all of a namespace.
    #[prost(message, tag = "4")]
    EndConsumers(ConsumerKey),
    /// A member joins a durable consumer that the receiving node serves.
    #[prost(message, tag = "5")]
    Join(RemoteJoin),
    /// The member leaves.
    #[prost(message, tag = "6")]
    Leave(RemoteLeave),
    /// The member acknowledges.
    #[prost(message, tag = "7")]
    MemberAck(RemoteAck),
    /// Events for a member that is connected to the receiving node.
    #[prost(message, tag = "8")]
    Deliver(Delivery),
    /// The stream of a member must end.
    #[prost(message, tag = "9")]
    Close(CloseMember),
    /// Asks for the members of a durable consumer.
    #[prost(message, tag = "10")]
    ListMembers(ConsumerKey),
    /// A request for a client of the receiving node.
    #[prost(message, tag = "11")]
    Call(Call),
    /// A command of the operator for a client of the receiving node.
    #[prost(message, tag = "12")]
    Order(ClientCommand),
    /// Closes the connection of a client of the receiving node.
    #[prost(message, tag = "13")]
    CloseClient(CloseClient),
    /// Asks for the connected clients.
    #[prost(message, tag = "14")]
    Survey(Wanted),
    /// Closes a connection by the name that its door gave it.
    #[prost(message, tag = "15")]
    Kick(KickClient),
    /// A notification that is in no log, as a record.
    #[prost(bytes = "bytes", tag = "16")]
    Notify(Bytes),
    /// A message for the same door of the receiving node.
    #[prost(message, tag = "17")]
    Door(DoorMessage),
    /// No caller waits any more for the request that had this number in [`Frame::Call`].
    #[prost(uint64, tag = "18")]
    Abandon(u64),
    /// A newer stream of this principal has this consumer id: the older one of the principal ends.
    #[prost(message, tag = "19")]
    SupersedeOwn(SupersedeOwn),
}

/// The encoded form of a frame.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(oneof = "Frame", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19")]
    frame: Option<Frame>,
}

/// A live message.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct Post {
    #[prost(string, tag = "1")]
    pub(in crate::bus) subject: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(in crate::bus) record: Bytes,
}

/// A newer stream.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct SupersedeOwn {
    #[prost(string, tag = "1")]
    pub(in crate::bus) consumer_id: String,
    /// Whose stream it is; empty when there is no authentication.
    #[prost(string, tag = "2")]
    pub(in crate::bus) principal: String,
}

/// A durable consumer, or all of a namespace.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct ConsumerKey {
    #[prost(string, tag = "1")]
    pub(in crate::bus) namespace: String,
    #[prost(string, optional, tag = "2")]
    pub(in crate::bus) consumer: Option<String>,
    /// Whether members may join again: after a reset, not after a deletion.
    #[prost(bool, tag = "3")]
    pub(in crate::bus) again: bool,
}

/// A member joins a durable consumer.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct RemoteJoin {
    #[prost(string, tag = "1")]
    consumer: String,
    #[prost(string, tag = "2")]
    pattern: String,
    #[prost(bool, tag = "3")]
    group: bool,
    #[prost(bool, tag = "4")]
    manual: bool,
    #[prost(uint64, tag = "5")]
    pub(in crate::bus) member: u64,
    #[prost(string, tag = "6")]
    pub(in crate::bus) consumer_id: String,
    #[prost(string, optional, tag = "7")]
    pub(in crate::bus) name: Option<String>,
    #[prost(uint64, tag = "8")]
    redelivery_ms: u64,
    #[prost(uint32, tag = "9")]
    count_max: u32,
    /// The applied index of the sending node. The receiving node waits until it has applied as much.
    #[prost(uint64, tag = "10")]
    pub(in crate::bus) seen: u64,
    /// The life of the sending node; older releases do not send it.
    #[prost(uint64, optional, tag = "11")]
    pub(in crate::bus) incarnation: Option<u64>,
    /// Most events in flight; older releases do not send it, and have one.
    #[prost(uint32, tag = "12")]
    in_flight_max: u32,
    /// The waits of a back-off.
    #[prost(uint64, repeated, tag = "13")]
    backoff_ms: Vec<u64>,
    /// Most deliveries in all; 0 for as many as there are. With the parts behind it from feature level `TIMED` on.
    #[prost(uint32, tag = "14")]
    quota: u32,
    /// By what events are kept in order; empty for by nothing.
    #[prost(string, tag = "15")]
    order_by: String,
    /// The headers that events must have, as `NAME:VALUE`.
    #[prost(string, repeated, tag = "16")]
    headers: Vec<String>,
    /// The subject of dead letters. A serving node of an older release does not know the field, and stores the letters
    /// in the namespace `_dead_`.
    #[prost(string, optional, tag = "17")]
    dead_letter: Option<String>,
}

impl RemoteJoin {
    pub(in crate::bus) fn new(join: &crate::bus::delivery::messages::Join, seen: u64, incarnation: u64) -> Self {
        Self {
            consumer: join.spec.name.clone(),
            pattern: join.spec.pattern.as_str().to_owned(),
            group: join.spec.group,
            manual: join.spec.manual,
            member: join.member,
            consumer_id: join.consumer_id.clone(),
            name: join.name.clone(),
            redelivery_ms: whole_millis(join.policy.redelivery),
            count_max: join.policy.count_max,
            seen,
            incarnation: Some(incarnation),
            in_flight_max: join.policy.in_flight_max,
            backoff_ms: join.policy.backoff.iter().copied().map(whole_millis).collect(),
            quota: join.policy.quota.unwrap_or_default(),
            dead_letter: join.policy.dead_letter.as_ref().map(|subject| subject.as_str().to_owned()),
            order_by: join.spec.order_by.as_ref().map(OrderBy::text).unwrap_or_default(),
            headers: join.spec.filter.iter().map(|(name, value)| format!("{name}:{value}")).collect(),
        }
    }

    /// The consumer and the policy that the member expects; `None` when a part is invalid.
    pub(in crate::bus) fn spec(&self) -> Option<(ConsumerSpec, DeliveryPolicy)> {
        let pattern = Pattern::parse(&self.pattern).ok()?;
        let order_by = Some(self.order_by.as_str()).filter(|text| !text.is_empty());
        let spec = ConsumerSpec {
            name: self.consumer.clone(),
            pattern,
            group: self.group,
            manual: self.manual,
            filter: HeaderFilter::parse(self.headers.iter().map(String::as_str)).ok()?,
            order_by: order_by.map(OrderBy::parse).transpose().ok()?,
        };
        // A node of the release before accepts shorter waits, and rounds them to 0.
        let redelivery = Duration::from_millis(self.redelivery_ms).max(REDELIVERY_MIN);
        let backoff =
            self.backoff_ms.iter().take(BACKOFF_MAX).map(|wait| Duration::from_millis(*wait).max(REDELIVERY_MIN));
        let in_flight_max = self.in_flight_max.max(1);
        let (backoff, count_max) = (backoff.collect(), self.count_max);
        let dead_letter = self.dead_letter.as_ref().and_then(|subject| Subject::parse(subject).ok());
        let quota = Some(self.quota).filter(|quota| *quota > 0);
        let policy = DeliveryPolicy { redelivery, backoff, count_max, in_flight_max, quota, dead_letter };
        Some((spec, policy))
    }
}

/// A member leaves. Its first fields are those of a [`MemberKey`], which is what a release before sends.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct RemoteLeave {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    consumer: String,
    #[prost(uint64, tag = "3")]
    member: u64,
    /// Whether the node has ended the stream: the last delivery does not count then.
    #[prost(bool, tag = "4")]
    returned: bool,
    /// Whether the member stays with what it has, and gets nothing any more. From feature level `TIMED` on.
    #[prost(bool, tag = "5")]
    finished: bool,
}

impl RemoteLeave {
    pub(in crate::bus) fn new(leave: Leave) -> Self {
        let Leave { namespace, consumer, member, departure } = leave;
        Self { namespace, consumer, member, returned: departure == Departure::Returned, finished: false }
    }

    pub(in crate::bus) fn finished(finish: Finish) -> Self {
        let Finish { namespace, consumer, member } = finish;
        Self { namespace, consumer, member, returned: false, finished: true }
    }

    pub(in crate::bus) const fn is_finished(&self) -> bool {
        self.finished
    }

    pub(in crate::bus) fn into_leave(self) -> Leave {
        let Self { namespace, consumer, member, returned, finished: _ } = self;
        let departure = if returned { Departure::Returned } else { Departure::Gone };
        Leave { namespace, consumer, member, departure }
    }
}

/// Events for a member.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct Delivery {
    #[prost(uint64, tag = "1")]
    pub(in crate::bus) member: u64,
    #[prost(message, repeated, tag = "2")]
    items: Vec<Stored>,
}

/// An event with its position.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(bytes = "bytes", tag = "2")]
    record: Bytes,
    /// When the event was delivered before; a release before takes no notice.
    #[prost(message, optional, tag = "3")]
    again: Option<Again>,
}

/// A delivery that is not the first one of its event.
#[derive(Clone, Copy, PartialEq, Message)]
struct Again {
    #[prost(uint32, tag = "1")]
    count: u32,
    #[prost(message, optional, tag = "2")]
    first_at: Option<Timestamp>,
    /// The place of the reason in [`Reason::ALL`], counted from 1; 0 when it is not known.
    #[prost(uint32, tag = "3")]
    reason: u32,
}

impl Again {
    fn new(of: &Redelivery) -> Self {
        let place = of.reason.and_then(|reason| Reason::ALL.iter().position(|one| *one == reason));
        let reason = place.and_then(|place| u32::try_from(place.saturating_add(1)).ok()).unwrap_or_default();
        Self { count: of.count, first_at: of.first_at, reason }
    }

    fn redelivery(self) -> Redelivery {
        let place = usize::try_from(self.reason).ok().and_then(|number| number.checked_sub(1));
        let reason = place.and_then(|place| Reason::ALL.get(place)).copied();
        Redelivery { count: self.count, first_at: self.first_at, reason }
    }
}

impl Delivery {
    pub(in crate::bus) fn new(member: u64, items: &[Arc<StoredEvent>]) -> Self {
        let stored = |item: &Arc<StoredEvent>| Stored {
            sequence: item.sequence(),
            record: item.record(),
            again: item.again().map(Again::new),
        };
        Self { member, items: items.iter().map(stored).collect() }
    }

    pub(in crate::bus) fn into_items(self) -> Vec<Arc<StoredEvent>> {
        let item = |Stored { sequence, record, again }: Stored| {
            let item = StoredEvent::stored(sequence, record);
            Arc::new(again.map(|again| item.redelivered(again.redelivery())).unwrap_or(item))
        };
        self.items.into_iter().map(item).collect()
    }
}

/// The stream of a member must end.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct CloseMember {
    #[prost(uint64, tag = "1")]
    pub(in crate::bus) member: u64,
    #[prost(uint32, tag = "2")]
    reason: u32,
}

impl CloseMember {
    pub(in crate::bus) fn new(member: u64, reason: EndReason) -> Self {
        let reason = match reason {
            EndReason::Draining => 1,
            EndReason::TakenOver => 2,
            EndReason::Deleted => 3,
            EndReason::Forbidden => 4,
        };
        Self { member, reason }
    }

    pub(in crate::bus) const fn reason(&self) -> EndReason {
        match self.reason {
            2 => EndReason::TakenOver,
            3 => EndReason::Deleted,
            4 => EndReason::Forbidden,
            _ => EndReason::Draining,
        }
    }
}

impl Frame {
    pub(in crate::bus) fn into_bytes(self) -> Bytes {
        Envelope { frame: Some(self) }.encode_to_vec().into()
    }

    pub(in crate::bus) fn from_bytes(bytes: Bytes) -> Option<Self> {
        Envelope::decode(bytes).ok()?.frame
    }
}

/// An answer that is yes or no.
pub(in crate::bus) fn encode_yes(yes: bool) -> Bytes {
    number(u32::from(yes))
}

/// Reads [`encode_yes`] back.
pub(in crate::bus) fn decode_yes(bytes: Bytes) -> bool {
    read_number(bytes) == 1
}

/// The result of a delivery; `None` when the client has not read the events yet and is still connected.
pub(in crate::bus) fn encode_written(written: Option<WriteResult>) -> Bytes {
    number(match written {
        Some(WriteResult::Gone | WriteResult::Unreachable) => 0,
        Some(WriteResult::Taken) => 1,
        None => 2,
        Some(WriteResult::Skipped) => 3,
    })
}

/// Reads [`encode_written`] back.
pub(in crate::bus) fn decode_written(bytes: Bytes) -> Option<WriteResult> {
    match read_number(bytes) {
        1 => Some(WriteResult::Taken),
        2 => None,
        3 => Some(WriteResult::Skipped),
        _ => Some(WriteResult::Gone),
    }
}

/// The members of a consumer.
pub(in crate::bus) fn encode_members(members: &[MemberState]) -> Bytes {
    let member = |state: &MemberState| Member {
        consumer_id: state.consumer_id.clone(),
        in_flight: state.in_flight,
        in_flight_count: state.in_flight_count,
    };
    Reply { number: 1, members: members.iter().map(member).collect(), ..Reply::default() }.encode_to_vec().into()
}

/// Reads [`encode_members`] back.
pub(in crate::bus) fn decode_members(bytes: Bytes) -> Vec<MemberState> {
    // A release before says no count, and has one event at a time.
    let state = |member: Member| MemberState {
        consumer_id: member.consumer_id,
        in_flight: member.in_flight,
        in_flight_count: member.in_flight_count.max(u32::from(member.in_flight.is_some())),
    };
    Reply::decode(bytes).map(|reply| reply.members.into_iter().map(state).collect()).unwrap_or_default()
}

/// The refusal of a message that this release does not know.
pub(in crate::bus) fn malformed() -> Refusal {
    Refusal::Malformed("a live message of an unknown kind".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::delivery::acknowledgement::Acknowledgement;

    #[test]
    fn messages_and_answers_read_back() {
        let items = [Arc::new(StoredEvent::stored(7, Bytes::from_static(b"record")))];
        let frames = [
            Frame::Post(Post { subject: "_bus_.x".into(), record: Bytes::from_static(b"r") }),
            Frame::Ack(Ack::new("c".into(), "user:a".into(), &Acknowledgement::of("e"))),
            Frame::SupersedeOwn(SupersedeOwn { consumer_id: "c".into(), principal: "user:a".into() }),
            Frame::Supersede("c".into()),
            Frame::Deliver(Delivery::new(9, &items)),
            Frame::Close(CloseMember::new(9, EndReason::Deleted)),
            Frame::Abandon(3),
        ];
        for frame in frames {
            assert_eq!(Frame::from_bytes(frame.clone().into_bytes()), Some(frame));
        }
        assert_eq!(Frame::from_bytes(Bytes::from_static(&[0xff; 3])), None);
        assert_eq!(Frame::from_bytes(Bytes::new()), None);
        for written in [None, Some(WriteResult::Taken), Some(WriteResult::Skipped), Some(WriteResult::Gone)] {
            assert_eq!(decode_written(encode_written(written)), written);
        }
        for reason in [EndReason::Draining, EndReason::TakenOver, EndReason::Deleted, EndReason::Forbidden] {
            assert_eq!(CloseMember::new(1, reason).reason(), reason);
        }
        let members = [MemberState { consumer_id: "c".into(), in_flight: Some(3), in_flight_count: 7 }];
        assert_eq!(decode_members(encode_members(&members)), members);
    }

    #[test]
    fn how_a_member_leaves_is_told_and_a_release_before_says_less() {
        for departure in [Departure::Gone, Departure::Returned] {
            let leave = Leave { namespace: "app".into(), consumer: "c".into(), member: 7, departure };
            let there = RemoteLeave::new(leave).into_leave();
            assert_eq!((there.namespace.as_str(), there.consumer.as_str(), there.member), ("app", "c", 7));
            assert_eq!(there.departure, departure);
        }
        let before = parts::MemberKey { namespace: "app".into(), consumer: "c".into(), member: 7 }.encode_to_vec();
        assert_eq!(RemoteLeave::decode(before.as_slice()).unwrap().into_leave().departure, Departure::Gone);
    }

    #[test]
    fn the_subject_of_dead_letters_is_told_and_a_release_before_says_none() {
        let there = |dead_letter: Option<&str>| {
            let join = RemoteJoin {
                pattern: "a.b".into(),
                dead_letter: dead_letter.map(str::to_owned),
                ..RemoteJoin::default()
            };
            let there = RemoteJoin::decode(join.encode_to_vec().as_slice()).unwrap().spec().unwrap().1.dead_letter;
            there.map(|subject| subject.as_str().to_owned())
        };
        assert_eq!(there(Some("a.failed")).as_deref(), Some("a.failed"));
        assert_eq!([there(None), there(Some("a.*"))], [None, None]);
    }

    #[test]
    fn a_wait_is_rounded_up_and_never_becomes_none() {
        let millis = |nanos| whole_millis(Duration::from_nanos(nanos));
        assert_eq!([0, 1, 1_000_000, 1_000_001].map(millis), [0, 1, 1, 2]);
        assert_eq!(whole_millis(Duration::MAX), u64::MAX);
        let join = |redelivery_ms| RemoteJoin { pattern: "a.b".into(), redelivery_ms, ..RemoteJoin::default() };
        let there = |millis| join(millis).spec().unwrap().1.redelivery;
        assert_eq!([0, 99, 100, 101].map(there).map(|wait| wait.as_millis()), [100, 100, 100, 101]);
    }
}
