//! Processes, pipelines and what is told about them.

use super::account::Actor;
use super::log::{LogMessage, Timestamp};
use rollbook_core::xbus::change::AttentionStatus;
use rollbook_core::xbus::envelope::row::EnvelopeStatus;
use rollbook_core::xbus::log::LogLevel;
use rollbook_core::xbus::pipeline::version::PipelineStatus;
use rollbook_core::xbus::process::row::ProcessStatus;

/// A version of a pipeline.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PipelineInfo {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The version.
    #[prost(string, tag = "3")]
    pub version: String,
    /// How far it is.
    #[prost(enumeration = "PipelineStatus", tag = "4")]
    pub status: i32,
}

/// A process.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Process {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// The emitter with whose envelope it began.
    #[prost(bytes = "vec", tag = "2")]
    pub trigger_emitter_id: Vec<u8>,
    /// The envelope with which it began.
    #[prost(bytes = "vec", tag = "3")]
    pub trigger_envelope_id: Vec<u8>,
    /// The version of the pipeline.
    #[prost(bytes = "vec", tag = "4")]
    pub pipeline_id: Vec<u8>,
    /// How far it is.
    #[prost(enumeration = "ProcessStatus", tag = "5")]
    pub status: i32,
    /// Why it is in error.
    #[prost(string, tag = "6")]
    pub state: String,
}

/// Which processes are meant.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessFilter {
    /// Only these processes; empty: any. So with each list.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub id: Vec<Vec<u8>>,
    /// Only those that began with an envelope of these emitters.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub trigger_emitter_id: Vec<Vec<u8>>,
    /// Only those that began with these envelopes.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub trigger_envelope_id: Vec<Vec<u8>>,
    /// Only those of these versions.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub pipeline_id: Vec<Vec<u8>>,
    /// Only those through which these envelopes went.
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub envelope_id: Vec<Vec<u8>>,
    /// Only those that are this far.
    #[prost(enumeration = "ProcessStatus", repeated, tag = "6")]
    pub status: Vec<i32>,
    /// Only those whose status changed since.
    #[prost(message, optional, tag = "7")]
    pub status_changed_from: Option<Timestamp>,
    /// Only those whose status changed before.
    #[prost(message, optional, tag = "8")]
    pub status_changed_to: Option<Timestamp>,
}

/// A log message with what it is about.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogEntry {
    /// The envelope, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub envelope_id: Vec<u8>,
    /// The actor, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub actor_id: Vec<u8>,
    /// The process, 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub process_id: Vec<u8>,
    /// The name of the node.
    #[prost(string, tag = "4")]
    pub node_id: String,
    /// The message.
    #[prost(message, optional, tag = "5")]
    pub message: Option<LogMessage>,
}

/// A process that needs attention.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PMProcess {
    /// The process.
    #[prost(message, optional, tag = "1")]
    pub process: Option<Process>,
    /// The gravest message.
    #[prost(enumeration = "LogLevel", tag = "2")]
    pub level: i32,
    /// How far it is.
    #[prost(enumeration = "AttentionStatus", tag = "3")]
    pub status: i32,
    /// A text of the operator.
    #[prost(string, tag = "4")]
    pub comment: String,
    /// The log entries.
    #[prost(message, repeated, tag = "5")]
    pub logs: Vec<LogEntry>,
}

/// A notification of an actor or process.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CoreEvent {
    /// What happened.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The actor.
    #[prost(message, optional, tag = "2")]
    pub actor: Option<Actor>,
    /// The process.
    #[prost(message, optional, tag = "3")]
    pub process: Option<Process>,
    /// The status before.
    #[prost(enumeration = "ProcessStatus", tag = "4")]
    pub process_old_status: i32,
}

/// A notification of an envelope.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EnvelopeEvent {
    /// The envelope, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub envelope_id: Vec<u8>,
    /// How far it is.
    #[prost(enumeration = "EnvelopeStatus", tag = "2")]
    pub status: i32,
    /// Whether a fragment brought something new.
    #[prost(bool, tag = "3")]
    pub new_data: bool,
}

/// A notification of a job that waits for its actor.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessNodeReadyEvent {
    /// The process, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub process_id: Vec<u8>,
    /// The actor, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub actor_id: Vec<u8>,
    /// The name of the node.
    #[prost(string, tag = "3")]
    pub node_id: String,
}

/// What became of an envelope, to its emitter.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EmitterEnvelopeState {
    /// How far it is.
    #[prost(enumeration = "ProcessStatus", tag = "1")]
    pub status: i32,
    /// The processes.
    #[prost(message, repeated, tag = "2")]
    pub process_list: Vec<EmitterProcess>,
}

/// What became of an envelope in one pipeline.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EmitterProcess {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// How far it is.
    #[prost(enumeration = "ProcessStatus", tag = "2")]
    pub status: i32,
    /// Why it failed.
    #[prost(message, repeated, tag = "3")]
    pub errors: Vec<LogMessage>,
}

/// What became of an envelope in one pipeline, as programs of later generations read it on the subject
/// `processstate.envelopestates`: python-xbus 0.4.0 does not read [`EmitterEnvelopeState`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LaterEnvelopeState {
    /// The process, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub process_id: Vec<u8>,
    /// How far it is.
    #[prost(enumeration = "ProcessStatus", tag = "2")]
    pub status: i32,
    /// Why it failed.
    #[prost(message, repeated, tag = "3")]
    pub errors: Vec<LogMessage>,
    /// When the process began.
    #[prost(message, optional, tag = "6")]
    pub process_created_at: Option<Timestamp>,
}
