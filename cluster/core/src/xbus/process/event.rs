//! What can happen to a process, and what the caller has to do then.

use alloc::string::String;
use alloc::vec::Vec;

use super::row::ProcessStatus;
use crate::node::Owner;
use crate::xbus::id::Id;
use crate::xbus::log::LogLine;
use crate::xbus::pipeline::graph::Node;

/// A job: the node, and the actor that has the job or shall have it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JobName {
    /// Name of the node.
    #[prost(string, tag = "1")]
    pub node: String,
    /// Id of the actor, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub actor: Vec<u8>,
}

/// A job that a node of the cluster brings to an actor that is connected there.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JobSend {
    /// The job.
    #[prost(message, required, tag = "1")]
    pub job: JobName,
    /// The life of the node.
    #[prost(message, optional, tag = "2")]
    pub owner: Option<Owner>,
}

/// The connection of an actor to a node of the cluster.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ActorConnection {
    /// Id of the actor, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub actor: Vec<u8>,
    /// The life of the node. What is said of an older connection does not touch jobs that came by a newer one.
    #[prost(message, optional, tag = "2")]
    pub owner: Option<Owner>,
}

/// The end of a job.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JobEnd {
    /// The job.
    #[prost(message, required, tag = "1")]
    pub job: JobName,
    /// Whether the actor succeeded.
    #[prost(bool, tag = "2")]
    pub success: bool,
    /// What the actor has to say, above all why it failed.
    #[prost(message, repeated, tag = "3")]
    pub messages: Vec<LogLine>,
}

/// Something that happens on an output of a job.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JobOutput {
    /// The job.
    #[prost(message, required, tag = "1")]
    pub job: JobName,
    /// Name of the output.
    #[prost(string, tag = "2")]
    pub output: String,
    /// The envelope, 16 bytes; empty when the output is closed.
    #[prost(bytes = "vec", tag = "3")]
    pub envelope: Vec<u8>,
}

/// Nothing more needs to be said.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Unit {}

/// What happens. Tags are never reused.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Event {
    /// A node of the cluster gives a ready job to an actor that is connected there.
    #[prost(message, tag = "1")]
    Send(JobSend),
    /// The actor says that it works.
    #[prost(message, tag = "2")]
    Run(JobName),
    /// The stream of the job ended without a final state: the actor will say by itself how the job ends.
    #[prost(message, tag = "3")]
    Detach(JobName),
    /// The job ended.
    #[prost(message, tag = "4")]
    End(JobEnd),
    /// A fragment of an envelope comes on an output. Asked before the fragment is stored.
    #[prost(message, tag = "5")]
    OutputBegin(JobOutput),
    /// The envelope is complete.
    #[prost(message, tag = "6")]
    OutputComplete(JobOutput),
    /// The envelope is in error: another one may come.
    #[prost(message, tag = "7")]
    OutputFail(JobOutput),
    /// The output is closed.
    #[prost(message, tag = "8")]
    OutputClose(JobOutput),
    /// The envelope that the job got goes out unchanged.
    #[prost(message, tag = "9")]
    Forward(JobOutput),
    /// The connection of the actor ended.
    #[prost(message, tag = "10")]
    ActorLost(ActorConnection),
    /// The actor is connected again.
    #[prost(message, tag = "11")]
    ActorBack(ActorConnection),
    /// The actor is disabled or deleted.
    #[prost(bytes, tag = "12")]
    ActorGone(Vec<u8>),
    /// An actor was enabled or has other roles: a node with `rolebroadcast` may have waited for it.
    #[prost(message, tag = "13")]
    ActorsChanged(Unit),
    /// Time passed: detached jobs whose actor did not come back are given back.
    #[prost(message, tag = "14")]
    Expire(Unit),
    /// The operator holds the process.
    #[prost(message, tag = "15")]
    Pause(Unit),
    /// The operator lets the process go on.
    #[prost(message, tag = "16")]
    Resume(Unit),
    /// The operator ends the process.
    #[prost(message, tag = "17")]
    Cancel(Unit),
    /// A node of the cluster is lost, and with it the connections of its actors.
    #[prost(message, tag = "18")]
    NodeLost(Owner),
}

/// An event as a change has it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessEvent {
    /// What happens.
    #[prost(oneof = "Event", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18")]
    pub event: Option<Event>,
}

/// Why an event cannot happen. The texts go to the actor or operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The pipeline has no such node, or the actor has no job there that is live.
    #[error("the context matches no live job")]
    NoLiveJob,
    /// The job was given to an actor already, or is not ready.
    #[error("the job is not ready")]
    NotReady,
    /// The process starts nothing now.
    #[error("the process is {0}")]
    NotRunning(&'static str),
    /// The node does not name the actor, or the actor is not enabled.
    #[error("the actor cannot work for node {0}")]
    WrongActor(String),
    /// The node has no such output.
    #[error("unknown output {0}.{1}")]
    UnknownOutput(String, String),
    /// An envelope went out on the output, or it is closed.
    #[error("output {0}.{1} is already closed")]
    OutputClosed(String, String),
    /// Another envelope is coming on the output.
    #[error("output {0}.{1} is taken by another envelope, which is not complete")]
    OutputBusy(String, String),
    /// Only what came in can be forwarded.
    #[error("the job did not receive envelope {0}")]
    NotReceived(Id),
    /// An id is not one.
    #[error("malformed id")]
    MalformedId,
}

/// A job that is given to an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Name of the node.
    pub node: String,
    /// The actor.
    pub actor: Id,
    /// The inputs in the order of the graph, each with its envelope; without one the input is closed.
    pub inputs: Vec<(String, Option<Id>)>,
}

/// A job that waits for an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyJob {
    /// Name of the node.
    pub node: String,
    /// The actor, when the job is for one alone.
    pub actor: Option<Id>,
}

/// What the caller has to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// Jobs to offer to actors that are connected. Whoever has one proposes [`Event::Send`].
    pub ready: Vec<ReadyJob>,
    /// A job to bring to its actor.
    pub deliver: Option<Delivery>,
    /// The status before and now, to publish.
    pub status: Option<(ProcessStatus, ProcessStatus)>,
    /// The actor does a job again: what it sends on this output is acknowledged and thrown away.
    pub discard: bool,
}

/// The actors, as a process needs to know them.
pub trait Actors {
    /// The enabled actors that a node names, by id. Bounded by [`crate::xbus::limits::ACTORS_MAX`].
    fn of(&self, node: &Node) -> Vec<Id>;

    /// Whether this actor is enabled, is of the kind of the node, and the node names it.
    fn may_work(&self, node: &Node, actor: Id) -> bool;
}
