//! Commands: every change of the replicated state that is not a publish, and the replies of the rules.
//!
//! A command is the body of a frame of [`crate::entry`]. [`admission::check_level`] checks each command before it enters the log,
//! because a command in the log stops every node that does not know the command.

pub mod admission;
pub mod attributed;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::central::ConfigSet;
use crate::consumer::{Attempts, Consumer, ConsumerStart, Range};
use crate::dock::change as dock;
use crate::dock::done::DockDone;
use crate::error::Refusal;
use crate::level::FeatureLevel;
use crate::namespace::{Head, Retention};
use crate::node::{Node, Owner};
use crate::schedule::change as schedule;
use crate::security::change::{Change, SecurityChange};
use crate::service::{
    InstanceLeave, InstanceMark, InstanceRegister, Registered, Removed, Service, ServiceExpire, ServiceRemove,
    ServiceUpdate,
};
use crate::timed::delayed::{DelayedCancel, DelayedDone, DelayedRelease};
use crate::xbus::change as xbus;
use crate::xbus::done::XbusDone;

/// A change of the replicated state, encoded as protobuf; tags are never reused. A node stops at a command with an
/// unknown tag: if the node left the command out, its state would differ from the state of the other nodes.
///
/// A new command, or a new field that changes what the rules do, needs a feature level of its own: see
/// [`Command::required_level`].
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Command {
    /// Found the cluster: give it its id. The first command of a log; later ones change nothing.
    #[prost(message, tag = "1")]
    ClusterCreate(ClusterCreate),
    /// Create a namespace.
    #[prost(message, tag = "2")]
    NamespaceCreate(NamespaceCreate),
    /// Replace the retention of a namespace.
    #[prost(message, tag = "3")]
    NamespaceRetain(NamespaceRetain),
    /// Delete a namespace, its events, its consumers and its dedupe keys.
    #[prost(message, tag = "4")]
    NamespaceDelete(NamespaceDelete),
    /// Move the first visible event of a namespace forward.
    #[prost(message, tag = "5")]
    Trim(Trim),
    /// Create a durable consumer, or return the existing one.
    #[prost(message, tag = "6")]
    ConsumerOpen(ConsumerOpen),
    /// Store the progress of a durable consumer: ack floor, done events, delivery counts.
    #[prost(message, tag = "7")]
    ConsumerAdvance(ConsumerAdvance),
    /// Delete a durable consumer.
    #[prost(message, tag = "8")]
    ConsumerDelete(ConsumerDelete),
    /// A life of a node begins: the node has started, or has returned after the cluster gave it up.
    #[prost(message, tag = "9")]
    NodeUp(NodeUp),
    /// A life of a node ends: the node has stopped, or the leader has not heard from the node for too long.
    #[prost(message, tag = "10")]
    NodeDown(NodeDown),
    /// Give a number to a node that joins the cluster.
    #[prost(message, tag = "11")]
    NodeAllocate(NodeAllocate),
    /// Remove a node from the cluster for good.
    #[prost(message, tag = "12")]
    NodeRemove(NodeRemove),
    /// Replace the central configuration.
    #[prost(message, tag = "13")]
    ConfigSet(ConfigSet),
    /// Put an instance of a service on the roll, or update its registration.
    #[prost(message, tag = "14")]
    InstanceRegister(Box<InstanceRegister>),
    /// Take instances off the roll whose connections have ended.
    #[prost(message, tag = "15")]
    InstanceLeave(InstanceLeave),
    /// Mark instances as draining or unhealthy, or take the mark back. No new request goes to a marked instance.
    #[prost(message, tag = "16")]
    InstanceMark(InstanceMark),
    /// Replace the metadata of a service.
    #[prost(message, tag = "17")]
    ServiceUpdate(ServiceUpdate),
    /// Remove a service and its instances from the roll.
    #[prost(message, tag = "18")]
    ServiceRemove(ServiceRemove),
    /// Declare services offline whose grace time has ended without a new instance.
    #[prost(message, tag = "19")]
    ServiceExpire(ServiceExpire),
    /// Reset the cursor of a durable consumer, or pause and resume its delivery: an action of the operator.
    #[prost(message, tag = "20")]
    ConsumerSet(ConsumerSet),
    /// Raise the feature level: the next frame is applied by newer rules.
    #[prost(message, tag = "21")]
    LevelRaise(LevelRaise),
    /// Remove the next instances of ended nodes from the roll. From feature level `BOUNDED` on.
    #[prost(message, tag = "22")]
    InstanceExpire(InstanceExpire),
    /// Trim several namespaces. From feature level `BOUNDED` on.
    #[prost(message, tag = "23")]
    TrimMany(TrimMany),
    /// Set the time of the log back after a wrong clock took it ahead. From feature level `BOUNDED` on.
    #[prost(message, tag = "24")]
    ClockSet(ClockSet),
    /// Begin to serve a durable consumer, with a new epoch. From feature level `COUNTED` on.
    #[prost(message, tag = "25")]
    ConsumerStart(ConsumerStart),
    /// Change principals, roles, credentials or issuers. From feature level `SECURED` on.
    #[prost(message, tag = "26")]
    Security(Box<SecurityChange>),
    /// Change accounts, actors, pipelines, envelopes or processes of Xbus. From feature level `XBUS` on.
    #[prost(message, tag = "27")]
    Xbus(Box<xbus::XbusChange>),
    /// Change definitions or builds of docks, or say what happened to processes. From feature level `DOCKS` on.
    #[prost(message, tag = "28")]
    Dock(Box<dock::DockChange>),
    /// Change schedules, or let ticks of them pass. From feature level `TIMED` on.
    #[prost(message, tag = "31")]
    Schedule(Box<schedule::ScheduleChange>),
    /// Append waiting events whose time has come. From feature level `TIMED` on.
    #[prost(message, tag = "29")]
    DelayedRelease(DelayedRelease),
    /// Cancel a waiting event. From feature level `TIMED` on.
    #[prost(message, tag = "30")]
    DelayedCancel(DelayedCancel),
    /// Remove some rows that no rule needs any more, such as expired dedupe keys. From feature level `BOUNDED` on.
    #[prost(message, tag = "40")]
    Tidy(Tidy),
}

/// The body of [`Command::Tidy`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Tidy {}

/// The body of [`Command::ClusterCreate`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ClusterCreate {
    /// Random 128-bit id in hexadecimal.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
}

/// The body of [`Command::NamespaceCreate`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NamespaceCreate {
    /// Name of the new namespace: valid and not reserved.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How long the namespace keeps its events.
    #[prost(message, required, tag = "2")]
    pub retention: Retention,
}

/// The body of [`Command::NamespaceRetain`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NamespaceRetain {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The new retention, which replaces the whole old one.
    #[prost(message, required, tag = "2")]
    pub retention: Retention,
}

/// The body of [`Command::NamespaceDelete`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NamespaceDelete {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// The body of [`Command::Trim`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Trim {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Sequence number of the oldest event that stays visible. A number below the present one changes nothing.
    #[prost(uint64, tag = "2")]
    pub first: u64,
    /// Byte offset of the record of that event: see [`Head::bytes_first`].
    #[prost(uint64, tag = "3")]
    pub bytes_first: u64,
}

/// The body of [`Command::ConsumerOpen`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConsumerOpen {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The row that the consumer gets when no consumer of the name exists.
    #[prost(message, required, tag = "2")]
    pub consumer: Consumer,
    /// The node that will serve the consumer when no node that is up serves it.
    #[prost(message, optional, tag = "3")]
    pub claimant: Option<Owner>,
}

/// The body of [`Command::ConsumerAdvance`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConsumerAdvance {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Its consumer.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The new ack floor. A floor below the present one changes nothing.
    #[prost(uint64, tag = "3")]
    pub ack_floor: u64,
    /// The node that serves the consumer. The command is refused when another node serves the consumer by now.
    #[prost(message, optional, tag = "4")]
    pub owner: Option<Owner>,
    /// The [`Consumer::generation`] that the node knew. The command is refused after a reset of the cursor.
    #[prost(uint64, tag = "5")]
    pub generation: u64,
    /// The [`Consumer::epoch`] with which the node began to serve. From feature level `COUNTED` on, like the fields
    /// that follow.
    #[prost(uint64, tag = "6")]
    pub epoch: u64,
    /// Events beyond the floor that are done: at most [`crate::limits::CONSUMER_RANGES_MAX`] ranges.
    #[prost(message, repeated, tag = "7")]
    pub done: Vec<Range>,
    /// Changed delivery counts: at most [`crate::limits::CONSUMER_ATTEMPTS_MAX`].
    #[prost(message, repeated, tag = "8")]
    pub attempts: Vec<Attempts>,
}

impl ConsumerAdvance {
    /// Whether the command uses a field that only feature level `COUNTED` knows.
    const fn counts(&self) -> bool {
        self.epoch != 0 || !self.done.is_empty() || !self.attempts.is_empty()
    }
}

/// The body of [`Command::ConsumerSet`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConsumerSet {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The consumer.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The new ack floor, when set: all events up to this one count as done, and no event beyond it.
    #[prost(uint64, optional, tag = "3")]
    pub ack_floor: Option<u64>,
    /// When set, pauses (`true`) or resumes (`false`) the delivery to the members.
    #[prost(bool, optional, tag = "4")]
    pub paused: Option<bool>,
}

/// The body of [`Command::ConsumerDelete`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConsumerDelete {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Its consumer.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// The body of [`Command::NodeUp`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeUp {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The life of the node that begins.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Address at which the other nodes reach the node.
    #[prost(string, tag = "3")]
    pub address: String,
}

/// The body of [`Command::NodeDown`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeDown {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The life of the node that ends. When a later life has begun, the command changes nothing.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Why the life ends: `stopped` or `lost`.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// The body of [`Command::NodeAllocate`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeAllocate {
    /// Address at which the other nodes will reach the node.
    #[prost(string, tag = "1")]
    pub address: String,
    /// The largest number among the raft members. The new number is larger, also when a member has no row yet.
    #[prost(uint64, tag = "2")]
    pub above: u64,
}

/// The body of [`Command::NodeRemove`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeRemove {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// The body of [`Command::LevelRaise`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LevelRaise {
    /// The number of the new [`FeatureLevel`]. A number that is not above the present level changes nothing.
    #[prost(uint32, tag = "1")]
    pub level: u32,
}

/// The body of [`Command::InstanceExpire`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct InstanceExpire {}

/// The body of [`Command::TrimMany`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TrimMany {
    /// At most [`crate::limits::TRIMS_MAX`] trims. A trim of a namespace that is deleted meanwhile is left out.
    #[prost(message, repeated, tag = "1")]
    pub trims: Vec<Trim>,
}

/// The body of [`Command::ClockSet`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ClockSet {
    /// The right time, milliseconds since 1970. A time that is not before the time of the log changes nothing.
    #[prost(uint64, tag = "1")]
    pub millis: u64,
}

impl Command {
    /// A change of the security state. With `if_revision` only if the row still has that revision.
    #[must_use]
    pub fn security(if_revision: Option<u64>, change: Change) -> Self {
        Self::Security(Box::new(SecurityChange { if_revision, change: Some(change) }))
    }

    /// A change of the state of Xbus. With `if_revision` only if the row still has that revision.
    #[must_use]
    pub fn xbus(if_revision: Option<u64>, change: xbus::Change) -> Self {
        Self::Xbus(Box::new(xbus::XbusChange { if_revision, change: Some(change) }))
    }

    /// A change of the state of docks. With `if_revision` only if the definition still has that revision.
    #[must_use]
    pub fn dock(if_revision: Option<u64>, change: dock::Change) -> Self {
        Self::Dock(Box::new(dock::DockChange { if_revision, change: Some(change) }))
    }

    /// A change of schedules. With `if_revision` only if the schedule still has that revision.
    #[must_use]
    pub fn schedule(if_revision: Option<u64>, change: schedule::Change) -> Self {
        Self::Schedule(Box::new(schedule::ScheduleChange { if_revision, change: Some(change) }))
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
            Self::Security(change) if change.adds_nkey() => FeatureLevel::XBUS,
            Self::Security(_) => FeatureLevel::SECURED,
            Self::Xbus(_) => FeatureLevel::XBUS,
            Self::Dock(_) => FeatureLevel::DOCKS,
            Self::Schedule(_) => FeatureLevel::TIMED,
            Self::DelayedRelease(_) | Self::DelayedCancel(_) => FeatureLevel::TIMED,
            // A cluster at the first level must be able to raise the level. The number inside the command says which
            // releases can apply the command.
            Self::LevelRaise(_)
            | Self::ClusterCreate(_)
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
}

/// Why [`attributed::Attributed::decode`] could not read a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A newer release wrote the command.
    #[error("unknown command")]
    Unknown,
    /// No release wrote these bytes.
    #[error("{0}")]
    Damaged(String),
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(alloc::format!("{error}"))
    }
}

/// The reply of the rules to one frame of an entry.
pub type Reply = Result<Done, Refusal>;

/// The result of an accepted frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Events `first .. first + events` of the namespace were appended.
    Published {
        /// Sequence number of the first appended event.
        first: u64,
        /// Number of appended events.
        events: u32,
    },
    /// The namespace after the change.
    Namespace(Head),
    /// The durable consumer after the change.
    Consumer(Consumer),
    /// The node after the change.
    Node(Node),
    /// The new revision of the central configuration.
    Config(u64),
    /// The instance after its registration, and the connection that it replaced.
    Registered(Registered),
    /// The service after the change.
    Service(Service),
    /// The removed instances of a removed service.
    Removed(Removed),
    /// The new revision of principals, roles and credentials.
    Security(u64),
    /// What a change of Xbus did.
    Xbus(Box<XbusDone>),
    /// What a change of docks did.
    Dock(DockDone),
    /// The events that wait from now on, or that were cancelled.
    Delayed(DelayedDone),
    /// One bounded step was done and work is left: the proposer proposes the same command again.
    More,
    /// The frame was accepted and has no result.
    Nothing,
}
