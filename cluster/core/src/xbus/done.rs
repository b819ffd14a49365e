//! What a change did: the reply of the rules to one change.

use alloc::vec::Vec;
use alloc::{string::String, vec};

use super::account::row::{AccountRow, ActorRow};
use super::log::LogLine;
use super::pipeline::version::PipelineRow;
use super::schema::SchemaRow;

/// The reply to a change. Of the fields only those are filled that the change is about.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct XbusDone {
    /// The account after the change.
    #[prost(message, optional, tag = "1")]
    pub account: Option<AccountDone>,
    /// The actors after the change.
    #[prost(message, repeated, tag = "2")]
    pub actors: Vec<ActorRow>,
    /// The version of a pipeline after the change.
    #[prost(message, optional, tag = "3")]
    pub pipeline: Option<PipelineDone>,
    /// What became of a fragment.
    #[prost(message, optional, tag = "4")]
    pub fragment: Option<FragmentDone>,
    /// What happened to processes.
    #[prost(message, repeated, tag = "5")]
    pub steps: Vec<ProcessStep>,
    /// Envelopes whose status is another one now.
    #[prost(message, repeated, tag = "6")]
    pub envelopes: Vec<EnvelopeStep>,
    /// How many rows a bounded step removed or changed.
    #[prost(uint64, tag = "7")]
    pub count: u64,
    /// Whether the bounded step left something for the next one.
    #[prost(bool, tag = "8")]
    pub more: bool,
    /// The schema after the change.
    #[prost(message, optional, tag = "9")]
    pub schema: Option<SchemaRow>,
}

impl XbusDone {
    /// The reply of a change of an account.
    #[must_use]
    pub fn account(account: AccountDone) -> Self {
        Self { account: Some(account), ..Self::default() }
    }

    /// The reply of a change of actors.
    #[must_use]
    pub fn actors(actors: Vec<ActorRow>) -> Self {
        Self { actors, ..Self::default() }
    }

    /// The reply of a change of a pipeline.
    #[must_use]
    pub fn pipeline(pipeline: PipelineDone) -> Self {
        Self { pipeline: Some(pipeline), ..Self::default() }
    }

    /// The reply of a change of a schema.
    #[must_use]
    pub fn schema(schema: SchemaRow) -> Self {
        Self { schema: Some(schema), ..Self::default() }
    }

    /// The reply of a change of one process.
    #[must_use]
    pub fn step(step: ProcessStep) -> Self {
        Self { steps: vec![step], ..Self::default() }
    }

    /// The reply of a bounded step.
    #[must_use]
    pub fn count(count: usize, more: bool) -> Self {
        Self { count: u64::try_from(count).unwrap_or(u64::MAX), more, ..Self::default() }
    }
}

/// An account, and what its program is told.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AccountDone {
    /// The account. Of a registration that is rejected the name alone.
    #[prost(message, required, tag = "1")]
    pub account: AccountRow,
    /// Its actors.
    #[prost(message, repeated, tag = "2")]
    pub actors: Vec<ActorRow>,
    /// What its program is told.
    #[prost(enumeration = "super::account::register::Answer", tag = "3")]
    pub answer: i32,
}

/// A version of a pipeline.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PipelineDone {
    /// The version.
    #[prost(message, required, tag = "1")]
    pub row: PipelineRow,
    /// What is wrong with it, for people.
    #[prost(string, repeated, tag = "2")]
    pub faults: Vec<String>,
}

/// What the sender of a fragment is told. The numbers are those of the Xbus protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Reception {
    /// Nothing.
    NoStatus = 0,
    /// The fragment is stored, and more are expected.
    Receiving = 1,
    /// The envelope is complete.
    Accepted = 2,
    /// The envelope is at fault, or this fragment of it.
    Error = 3,
}

/// What became of a fragment.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FragmentDone {
    /// What its sender is told.
    #[prost(enumeration = "Reception", tag = "1")]
    pub reception: i32,
    /// Why, for an error.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// Whether the fragment brought something new.
    #[prost(bool, tag = "3")]
    pub new_data: bool,
}

/// The status of an envelope.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EnvelopeStep {
    /// The envelope, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Its status now.
    #[prost(enumeration = "super::envelope::row::EnvelopeStatus", tag = "2")]
    pub status: i32,
    /// Whether a fragment brought something new.
    #[prost(bool, tag = "3")]
    pub new_data: bool,
}

/// What happened to a process.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessStep {
    /// The process, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// The version of its pipeline; empty: none matched.
    #[prost(bytes = "vec", tag = "2")]
    pub pipeline: Vec<u8>,
    /// The emitter of the envelope with which it began.
    #[prost(bytes = "vec", tag = "3")]
    pub emitter: Vec<u8>,
    /// That envelope.
    #[prost(bytes = "vec", tag = "4")]
    pub envelope: Vec<u8>,
    /// Its status before, when the status is another one now.
    #[prost(enumeration = "super::process::row::ProcessStatus", optional, tag = "5")]
    pub was: Option<i32>,
    /// Its status now.
    #[prost(enumeration = "super::process::row::ProcessStatus", tag = "6")]
    pub status: i32,
    /// Why it is in error.
    #[prost(string, tag = "7")]
    pub state: String,
    /// What the actors of failed jobs had to say.
    #[prost(message, repeated, tag = "8")]
    pub errors: Vec<LogLine>,
    /// A job to bring to its actor.
    #[prost(message, optional, tag = "9")]
    pub deliver: Option<JobDelivery>,
    /// Jobs that wait for an actor since this change.
    #[prost(message, repeated, tag = "10")]
    pub ready: Vec<JobReady>,
    /// The actor does a job again: what it sent is thrown away.
    #[prost(bool, tag = "11")]
    pub discard: bool,
}

/// A job to bring to its actor.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JobDelivery {
    /// Name of the node.
    #[prost(string, tag = "1")]
    pub node: String,
    /// The actor, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub actor: Vec<u8>,
    /// The inputs in the order of the graph.
    #[prost(message, repeated, tag = "3")]
    pub inputs: Vec<JobInput>,
}

/// An input of a job.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JobInput {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its envelope, 16 bytes; empty: the input is closed.
    #[prost(bytes = "vec", tag = "2")]
    pub envelope: Vec<u8>,
}

/// A job that waits for an actor.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JobReady {
    /// Name of the node.
    #[prost(string, tag = "1")]
    pub node: String,
    /// The actor, when the job is for one alone; else empty.
    #[prost(bytes = "vec", tag = "2")]
    pub actor: Vec<u8>,
}
