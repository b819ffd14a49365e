//! All that may be proposed beside a publish, and what the rules answer.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use prost::Message as _;

use crate::central::ConfigSet;
use crate::consumer::Consumer;
use crate::entry::command_frame;
use crate::error::Refusal;
use crate::namespace::{Head, Retention};
use crate::node::{Node, Owner};
use crate::service::{
    InstanceLeave, InstanceMark, InstanceRegister, Registered, Removed, Service, ServiceExpire, ServiceRemove,
    ServiceUpdate,
};

/// A change of the replicated state. Encoded as protobuf: tags are never reused, unknown ones refused.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Command {
    /// First command of a cluster: gives it its name.
    #[prost(message, tag = "1")]
    Found(Found),
    /// Create a namespace.
    #[prost(message, tag = "2")]
    NamespaceCreate(NamespaceCreate),
    /// Replace the retention of a namespace.
    #[prost(message, tag = "3")]
    NamespaceRetain(NamespaceRetain),
    /// Delete a namespace, its events, its consumers and its dedupe keys.
    #[prost(message, tag = "4")]
    NamespaceDelete(NamespaceDelete),
    /// Take the oldest events of a namespace out of sight.
    #[prost(message, tag = "5")]
    Trim(Trim),
    /// Create a durable consumer, or come back to it.
    #[prost(message, tag = "6")]
    ConsumerOpen(ConsumerOpen),
    /// Move the cursor of a durable consumer forward.
    #[prost(message, tag = "7")]
    ConsumerAdvance(ConsumerAdvance),
    /// Delete a durable consumer.
    #[prost(message, tag = "8")]
    ConsumerDelete(ConsumerDelete),
    /// A node is there: it has started, or come back.
    #[prost(message, tag = "9")]
    NodeUp(NodeUp),
    /// A node is gone: it has stopped, or the leader has not heard from it for long.
    #[prost(message, tag = "10")]
    NodeDown(NodeDown),
    /// Give a number to a node that wants to join.
    #[prost(message, tag = "11")]
    NodeAllocate(NodeAllocate),
    /// Take a node out of the cluster for good.
    #[prost(message, tag = "12")]
    NodeRemove(NodeRemove),
    /// Replace the central configuration.
    #[prost(message, tag = "13")]
    ConfigSet(ConfigSet),
    /// An instance of a service comes, comes back, or says something new.
    #[prost(message, tag = "14")]
    InstanceRegister(Box<InstanceRegister>),
    /// Instances are gone.
    #[prost(message, tag = "15")]
    InstanceLeave(InstanceLeave),
    /// Instances get nothing new, or do again.
    #[prost(message, tag = "16")]
    InstanceMark(InstanceMark),
    /// Replace the metadata of a service.
    #[prost(message, tag = "17")]
    ServiceUpdate(ServiceUpdate),
    /// Take a service and its instances off the roll.
    #[prost(message, tag = "18")]
    ServiceRemove(ServiceRemove),
    /// The grace of services without instances has ended.
    #[prost(message, tag = "19")]
    ServiceExpire(ServiceExpire),
    /// The operator sets the cursor of a durable consumer, or stops and starts its delivery.
    #[prost(message, tag = "20")]
    ConsumerSet(ConsumerSet),
}

/// See [`Command::Found`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Found {
    /// Random 128-bit id in hexadecimal.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
}

/// See [`Command::NamespaceCreate`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NamespaceCreate {
    /// A valid, not reserved name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How long events are kept.
    #[prost(message, required, tag = "2")]
    pub retention: Retention,
}

/// See [`Command::NamespaceRetain`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NamespaceRetain {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Replaces what was there.
    #[prost(message, required, tag = "2")]
    pub retention: Retention,
}

/// See [`Command::NamespaceDelete`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NamespaceDelete {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// See [`Command::Trim`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Trim {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Oldest sequence number that stays. Never moves backwards.
    #[prost(uint64, tag = "2")]
    pub first: u64,
    /// Position of that event's record on the namespace's byte axis.
    #[prost(uint64, tag = "3")]
    pub bytes_first: u64,
}

/// See [`Command::ConsumerOpen`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConsumerOpen {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The consumer as it shall be when it does not exist.
    #[prost(message, required, tag = "2")]
    pub consumer: Consumer,
    /// Who serves the members when nobody does.
    #[prost(message, optional, tag = "3")]
    pub claimant: Option<Owner>,
}

/// See [`Command::ConsumerAdvance`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConsumerAdvance {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Its consumer.
    #[prost(string, tag = "2")]
    pub name: String,
    /// New floor; a lower one than the present changes nothing.
    #[prost(uint64, tag = "3")]
    pub ack_floor: u64,
    /// Who says so; refused when another node serves the consumer by now.
    #[prost(message, optional, tag = "4")]
    pub owner: Option<Owner>,
    /// What [`Consumer::generation`] was when this was read.
    #[prost(uint64, tag = "5")]
    pub generation: u64,
}

/// See [`Command::ConsumerSet`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConsumerSet {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The consumer.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Everything up to here is done with, and nothing behind it.
    #[prost(uint64, optional, tag = "3")]
    pub ack_floor: Option<u64>,
    /// Whether its members get nothing.
    #[prost(bool, optional, tag = "4")]
    pub paused: Option<bool>,
}

/// See [`Command::ConsumerDelete`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConsumerDelete {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Its consumer.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// See [`Command::NodeUp`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeUp {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Which of its lives begins.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Where other nodes reach it.
    #[prost(string, tag = "3")]
    pub address: String,
}

/// See [`Command::NodeDown`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeDown {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Which of its lives ends; a later one is not touched.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Why, in one word: `stopped` or `lost`.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// See [`Command::NodeAllocate`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeAllocate {
    /// Where other nodes will reach it.
    #[prost(string, tag = "1")]
    pub address: String,
    /// Largest number among the members now; the new one is above it.
    #[prost(uint64, tag = "2")]
    pub above: u64,
}

/// See [`Command::NodeRemove`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeRemove {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// The message around [`Command`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Envelope {
    #[prost(oneof = "Command", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20")]
    command: Option<Command>,
}

impl Command {
    /// The whole frame of this command, ready for an entry.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] when it is longer than 4 GiB.
    pub fn frame(self) -> Result<Vec<u8>, Refusal> {
        command_frame(&Envelope { command: Some(self) }.encode_to_vec())
    }

    /// Reads the body of a command frame.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for damage and for commands of a newer release.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        match Envelope::decode(bytes) {
            Ok(Envelope { command: Some(command) }) => Ok(command),
            Ok(Envelope { command: None }) => Err(Refusal::Malformed("unknown command".into())),
            Err(error) => Err(Refusal::Malformed(alloc::format!("{error}"))),
        }
    }
}

/// What the rules answer to one frame of an entry.
pub type Reply = Result<Done, Refusal>;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Events `first .. first + events` of the namespace were appended.
    Published {
        /// Sequence number of the first one.
        first: u64,
        /// How many.
        events: u32,
    },
    /// The namespace as it is now.
    Namespace(Head),
    /// The durable consumer as it is now.
    Consumer(Consumer),
    /// The node as it is now.
    Node(Node),
    /// The central configuration is at this revision now.
    Config(u64),
    /// The instance as it is now, and what it replaced.
    Registered(Registered),
    /// The service as it is now.
    Service(Service),
    /// Instances that are gone.
    Removed(Removed),
    /// Nothing more to say.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, EntryBuilder, Frame};

    #[test]
    fn a_command_reads_back_from_its_frame() {
        let command = Command::Trim(Trim { name: "app".into(), first: 7, bytes_first: 9 });
        let mut builder = EntryBuilder::new(0);
        builder.push(&command.clone().frame().unwrap());
        let bytes = builder.finish(0);
        let Some(Frame::Command(body)) = Entry::parse(&bytes).unwrap().frames().next() else { panic!("a command") };
        assert_eq!(Command::decode(body), Ok(command));
    }

    #[test]
    fn a_command_of_a_newer_release_is_refused_not_skipped() {
        assert!(Command::decode(&[0xfa, 0x07, 0x00]).is_err());
        assert!(Command::decode(&[]).is_err());
        assert!(Command::decode(&[0xff; 9]).is_err());
    }
}
