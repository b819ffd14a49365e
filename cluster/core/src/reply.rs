//! Replies as bytes: the leader sends replies to the node that forwarded a batch, and the rules store them for a batch
//! that arrives twice.
//!
//! Invariant: the messages of this file are a stored format, so tags are never reused.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use prost::Message as _;

use crate::command::{Done, Reply};
use crate::consumer::Consumer;
use crate::dock::done::DockDone;
use crate::error::{Refusal, Repeated};
use crate::namespace::Head;
use crate::node::Node;
use crate::service::{Registered, Removed, Service};
use crate::timed::delayed::DelayedDone;
use crate::xbus::done::XbusDone;

/// All replies of a batch.
#[derive(Clone, PartialEq, prost::Message)]
struct Replies {
    #[prost(message, repeated, tag = "1")]
    replies: Vec<ReplyMessage>,
}

/// One reply, a message because a `oneof` needs one.
#[derive(Clone, PartialEq, prost::Message)]
struct ReplyMessage {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15")]
    kind: Option<Kind>,
}

/// A result, or a refusal.
#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Published(Published),
    #[prost(message, tag = "2")]
    Namespace(Head),
    #[prost(message, tag = "3")]
    Consumer(Consumer),
    #[prost(message, tag = "4")]
    Node(Node),
    #[prost(message, tag = "5")]
    Refused(Refused),
    #[prost(bool, tag = "6")]
    Nothing(bool),
    #[prost(uint64, tag = "7")]
    Config(u64),
    #[prost(message, tag = "8")]
    Registered(Registered),
    #[prost(message, tag = "9")]
    Service(Service),
    #[prost(message, tag = "10")]
    Removed(Removed),
    #[prost(bool, tag = "11")]
    More(bool),
    #[prost(uint64, tag = "12")]
    Security(u64),
    #[prost(message, tag = "13")]
    Xbus(Box<XbusDone>),
    #[prost(message, tag = "14")]
    Dock(DockDone),
    #[prost(message, tag = "15")]
    Delayed(DelayedDone),
}

/// See [`Done::Published`].
#[derive(Clone, PartialEq, prost::Message)]
struct Published {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(uint32, tag = "2")]
    events: u32,
}

/// A refusal as its stable number and its texts, so that the text of a refusal can change between releases.
#[derive(Clone, PartialEq, prost::Message)]
struct Refused {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(string, repeated, tag = "2")]
    details: Vec<String>,
    #[prost(message, optional, tag = "3")]
    repeated: Option<Repeated>,
}

/// Encodes replies in order.
#[must_use]
pub fn encode(replies: &[Reply]) -> Vec<u8> {
    let one = |reply: &Reply| ReplyMessage {
        kind: Some(match reply {
            Ok(Done::Published { first, events }) => Kind::Published(Published { first: *first, events: *events }),
            Ok(Done::Namespace(head)) => Kind::Namespace(head.clone()),
            Ok(Done::Consumer(consumer)) => Kind::Consumer(consumer.clone()),
            Ok(Done::Node(node)) => Kind::Node(node.clone()),
            Ok(Done::Config(revision)) => Kind::Config(*revision),
            Ok(Done::Registered(registered)) => Kind::Registered(registered.clone()),
            Ok(Done::Service(service)) => Kind::Service(service.clone()),
            Ok(Done::Removed(removed)) => Kind::Removed(removed.clone()),
            Ok(Done::Nothing) => Kind::Nothing(true),
            Ok(Done::More) => Kind::More(true),
            Ok(Done::Security(revision)) => Kind::Security(*revision),
            Ok(Done::Xbus(done)) => Kind::Xbus(done.clone()),
            Ok(Done::Dock(done)) => Kind::Dock(*done),
            Ok(Done::Delayed(done)) => Kind::Delayed(*done),
            Err(refusal) => Kind::Refused(refusal_message(refusal)),
        }),
    };
    Replies { replies: replies.iter().map(one).collect() }.encode_to_vec()
}

/// Decodes replies; `None` for bytes that no [`encode`] made.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Vec<Reply>> {
    let one = |one: ReplyMessage| {
        Some(match one.kind? {
            Kind::Published(Published { first, events }) => Ok(Done::Published { first, events }),
            Kind::Namespace(head) => Ok(Done::Namespace(head)),
            Kind::Consumer(consumer) => Ok(Done::Consumer(consumer)),
            Kind::Node(node) => Ok(Done::Node(node)),
            Kind::Config(revision) => Ok(Done::Config(revision)),
            Kind::Registered(registered) => Ok(Done::Registered(registered)),
            Kind::Service(service) => Ok(Done::Service(service)),
            Kind::Removed(removed) => Ok(Done::Removed(removed)),
            Kind::Nothing(_) => Ok(Done::Nothing),
            Kind::More(_) => Ok(Done::More),
            Kind::Security(revision) => Ok(Done::Security(revision)),
            Kind::Xbus(done) => Ok(Done::Xbus(done)),
            Kind::Dock(done) => Ok(Done::Dock(done)),
            Kind::Delayed(done) => Ok(Done::Delayed(done)),
            Kind::Refused(refused) => Err(parse_refusal(refused)?),
        })
    };
    Replies::decode(bytes).ok()?.replies.into_iter().map(one).collect()
}

/// Encodes one refusal.
#[must_use]
pub fn encode_refusal(of: &Refusal) -> Vec<u8> {
    refusal_message(of).encode_to_vec()
}

/// Decodes one refusal; `None` for bytes that no [`encode_refusal`] made.
#[must_use]
pub fn decode_refusal(bytes: &[u8]) -> Option<Refusal> {
    parse_refusal(Refused::decode(bytes).ok()?)
}

/// The message of a refusal.
fn refusal_message(refusal: &Refusal) -> Refused {
    Refused {
        number: refusal.number().into(),
        details: refusal.details().iter().map(ToString::to_string).collect(),
        repeated: refusal.repeated().cloned(),
    }
}

/// The refusal of a message; `None` for a number that this release does not know.
fn parse_refusal(refused: Refused) -> Option<Refusal> {
    let all = Refusal::all();
    let kind = all.iter().find(|kind| u32::from(kind.number()) == refused.number)?;
    Some(kind.with_details(refused.details).with_repeated(refused.repeated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use alloc::vec;

    #[test]
    fn every_reply_reads_back() {
        let mut replies: Vec<Reply> = vec![
            Ok(Done::Published { first: 7, events: 2 }),
            Ok(Done::Namespace(Head { name: "app".into(), next: 3, ..Head::default() })),
            Ok(Done::Consumer(Consumer { name: "c".into(), ..Consumer::default() })),
            Ok(Done::Node(Node { id: 4, ..Node::default() })),
            Ok(Done::Config(3)),
            Ok(Done::Registered(Registered::default())),
            Ok(Done::Service(Service { id: "s".into(), ..Service::default() })),
            Ok(Done::Removed(Removed::default())),
            Ok(Done::Nothing),
            Ok(Done::More),
            Ok(Done::Security(9)),
            Ok(Done::Xbus(Box::new(XbusDone { count: 3, more: true, ..XbusDone::default() }))),
            Ok(Done::Dock(DockDone { revision: 3, chunks: 2, bytes: 9 })),
            Ok(Done::Delayed(DelayedDone { namespace: 3, due: 9, first: 7, events: 2 })),
        ];
        replies.extend(Refusal::all().into_iter().map(Err));
        assert_eq!(decode(&encode(&replies)), Some(replies));
        assert_eq!(decode(&[0xff; 5]), None);
    }

    #[test]
    fn what_a_publish_repeats_is_passed_on_and_without_it_the_bytes_are_those_of_the_release_before() {
        let repeated = Repeated {
            position: 2,
            sequence: 7,
            id: "order-1".into(),
            created_at: Some(Timestamp { seconds: -5, nanos: 6 }),
            waits: false,
        };
        for refusal in [Refusal::KeyProcessed(None), Refusal::EventIdExists(None)] {
            let number = u8::try_from(refusal.number()).unwrap();
            assert_eq!(encode_refusal(&refusal), [8, number]);
            let told = refusal.with_repeated(Some(repeated.clone()));
            assert_eq!(decode_refusal(&encode_refusal(&told)).as_ref(), Some(&told));
            assert_eq!(told.repeated(), Some(&repeated));
        }
    }

    #[test]
    fn a_refusal_keeps_its_details() {
        for refusal in Refusal::all() {
            assert_eq!(decode_refusal(&encode_refusal(&refusal)), Some(refusal));
        }
    }
}
