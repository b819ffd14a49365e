//! All that may be proposed beside a publish, and what the rules answer.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use prost::Message as _;

use crate::central::ConfigSet;
use crate::consumer::{Attempts, Consumer, ConsumerStart, Range};
use crate::entry::{self, FLAG_HEADERS, Frame, KIND_COMMAND, KIND_PUBLISH, command_frame};
use crate::error::Refusal;
use crate::level::FeatureLevel;
use crate::namespace::{Head, Retention};
use crate::node::{Node, Owner};
use crate::service::{
    InstanceLeave, InstanceMark, InstanceRegister, Registered, Removed, Service, ServiceExpire, ServiceRemove,
    ServiceUpdate,
};

/// A change of the replicated state. Encoded as protobuf: tags are never reused. A command with an unknown tag stops
/// the node that applies it, because a node that leaves it out would have another state than those that know it.
///
/// A new command, and a new field that the rules depend on, needs a feature level of its own: see
/// [`Command::required_level`].
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
    /// Follow newer rules from here on.
    #[prost(message, tag = "21")]
    LevelRaise(LevelRaise),
    /// Take more of the instances off the roll whose node is gone. From feature level `BOUNDED` on.
    #[prost(message, tag = "22")]
    InstanceExpire(InstanceExpire),
    /// Take the oldest events of several namespaces out of sight. From feature level `BOUNDED` on.
    #[prost(message, tag = "23")]
    TrimMany(TrimMany),
    /// Set the time of the log back, which a wrong clock had taken ahead. From feature level `BOUNDED` on.
    #[prost(message, tag = "24")]
    ClockSet(ClockSet),
    /// A node begins to serve a durable consumer. From feature level `COUNTED` on.
    #[prost(message, tag = "25")]
    ConsumerStart(ConsumerStart),
    /// Remove some of the rows that are not needed any more. From feature level `BOUNDED` on.
    #[prost(message, tag = "40")]
    Tidy(Tidy),
}

/// See [`Command::Tidy`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Tidy {}

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
    /// What [`Consumer::epoch`] was when the node began to serve it. From feature level `COUNTED` on, as the fields
    /// behind.
    #[prost(uint64, tag = "6")]
    pub epoch: u64,
    /// Also done with, behind the floor: at most [`crate::limits::CONSUMER_RANGES_MAX`].
    #[prost(message, repeated, tag = "7")]
    pub done: Vec<Range>,
    /// Counts that are new: at most [`crate::limits::CONSUMER_ATTEMPTS_MAX`].
    #[prost(message, repeated, tag = "8")]
    pub attempts: Vec<Attempts>,
}

impl ConsumerAdvance {
    /// Whether this says something that only feature level `COUNTED` understands.
    const fn counts(&self) -> bool {
        self.epoch != 0 || !self.done.is_empty() || !self.attempts.is_empty()
    }
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

/// See [`Command::LevelRaise`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LevelRaise {
    /// The number of the new [`FeatureLevel`]; one that is not above the present level changes nothing.
    #[prost(uint32, tag = "1")]
    pub level: u32,
}

/// See [`Command::InstanceExpire`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct InstanceExpire {}

/// See [`Command::TrimMany`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TrimMany {
    /// At most [`crate::limits::TRIMS_MAX`]; those of namespaces that are gone are passed by.
    #[prost(message, repeated, tag = "1")]
    pub trims: Vec<Trim>,
}

/// See [`Command::ClockSet`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ClockSet {
    /// The right time, milliseconds since 1970; one that is not before the time of the log changes nothing.
    #[prost(uint64, tag = "1")]
    pub millis: u64,
}

/// The message around [`Command`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Envelope {
    #[prost(
        oneof = "Command",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 40"
    )]
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
    /// [`DecodeError::Unknown`] for commands of a newer release, [`DecodeError::Damaged`] for what no release wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match Envelope::decode(bytes) {
            Ok(Envelope { command: Some(command) }) => Ok(command),
            Ok(Envelope { command: None }) => Err(DecodeError::Unknown),
            Err(error) => Err(DecodeError::Damaged(alloc::format!("{error}"))),
        }
    }

    /// The lowest feature level at which this command may be proposed: releases that know only a lower level cannot
    /// apply it.
    #[must_use]
    pub const fn required_level(&self) -> FeatureLevel {
        match self {
            Self::NamespaceCreate(NamespaceCreate { retention, .. })
            | Self::NamespaceRetain(NamespaceRetain { retention, .. })
                if retention.dedupe_window_ms != 0 =>
            {
                FeatureLevel::BOUNDED
            }
            Self::ConsumerAdvance(advance) if advance.counts() => FeatureLevel::COUNTED,
            Self::ConsumerStart(_) => FeatureLevel::COUNTED,
            // The raise is what a cluster at the first level begins with; its own number says which releases know it.
            Self::LevelRaise(_)
            | Self::Found(_)
            | Self::NamespaceCreate(_)
            | Self::NamespaceRetain(_)
            | Self::NamespaceDelete(_)
            | Self::Trim(_)
            | Self::ConsumerOpen(_)
            | Self::ConsumerAdvance(_)
            | Self::ConsumerDelete(_)
            | Self::NodeUp(_)
            | Self::NodeDown(_)
            | Self::NodeAllocate(_)
            | Self::NodeRemove(_)
            | Self::ConfigSet(_)
            | Self::InstanceRegister(_)
            | Self::InstanceLeave(_)
            | Self::InstanceMark(_)
            | Self::ServiceUpdate(_)
            | Self::ServiceRemove(_)
            | Self::ServiceExpire(_)
            | Self::ConsumerSet(_) => FeatureLevel::FIRST,
            Self::InstanceExpire(_) | Self::TrimMany(_) | Self::ClockSet(_) | Self::Tidy(_) => FeatureLevel::BOUNDED,
        }
    }

    /// Whether this command may be proposed in a cluster at `level`.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] says which level is needed.
    pub fn check_level(&self, level: FeatureLevel) -> Result<(), Refusal> {
        level.check(self.required_level())
    }
}

/// Whether the level decides if this whole frame may be proposed: it is a command, or a publish that says it has more
/// than the first releases could read.
#[must_use]
pub fn needs_level(frame: &[u8]) -> bool {
    match frame.first_chunk() {
        Some([KIND_COMMAND, _]) => true,
        Some([KIND_PUBLISH, flags]) => flags & FLAG_HEADERS != 0,
        _ => false,
    }
}

/// Whether all commands and publishes among these `count` whole frames may be proposed in a cluster at `level`. Whoever puts frames
/// into the log asks this first, also for frames that another node forwards: once in the log, a command that is
/// unknown or above the level stops nodes.
///
/// # Errors
/// [`Refusal::Malformed`] for what is no command that this release knows, [`Refusal::Unavailable`] for a command, or an
/// event with headers, above the level.
pub fn check_level(frames: &[u8], count: u32, level: FeatureLevel) -> Result<(), Refusal> {
    entry::frames(frames, count).try_for_each(|frame| match frame {
        Frame::Command(body) => Command::decode(body)?.check_level(level),
        Frame::Unknown(kind) => Err(Refusal::Malformed(alloc::format!("frame of unknown kind {kind}"))),
        Frame::Publish(publish) if publish.flags & FLAG_HEADERS != 0 => level.check(FeatureLevel::HEADERS),
        Frame::Publish(_) | Frame::Batch(_) => Ok(()),
    })
}

/// Why the bytes are no command that this release knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A newer release wrote it.
    #[error("unknown command")]
    Unknown,
    /// No release wrote it.
    #[error("{0}")]
    Damaged(String),
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(alloc::format!("{error}"))
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
    /// A part was done: the same command again does the next one.
    More,
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
    fn a_command_of_a_newer_release_is_told_apart_from_damage() {
        assert_eq!(Command::decode(&[0xfa, 0x07, 0x00]), Err(DecodeError::Unknown));
        assert_eq!(Command::decode(&[]), Err(DecodeError::Unknown));
        assert!(matches!(Command::decode(&[0xff; 9]), Err(DecodeError::Damaged(_))));
    }
}
