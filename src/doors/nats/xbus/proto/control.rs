//! The control API.

use super::account::{Account, Actor};
use super::log::Timestamp;
use super::process::{PMProcess, PipelineInfo, Process, ProcessFilter};
use rollbook_core::xbus::change::AttentionStatus;
use rollbook_core::xbus::log::LogLevel;

/// What becomes of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ProcessCommand {
    /// Nothing.
    None = 0,
    /// No job is started.
    Pause = 1,
    /// Jobs are started again.
    Resume = 2,
    /// The process ends in error.
    Cancel = 3,
}

/// All accounts are asked for.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct AccountListRequest {}

/// The accounts.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AccountListReply {
    /// The accounts.
    #[prost(message, repeated, tag = "1")]
    pub account_list: Vec<Account>,
}

/// An account is changed or accepted.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AccountUpdateRequest {
    /// The account.
    #[prost(message, optional, tag = "1")]
    pub account: Option<Account>,
    /// When the certificate ends.
    #[prost(message, optional, tag = "2")]
    pub expire: Option<Timestamp>,
}

/// Something is done to an account.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AccountIDRequest {
    /// The account, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub account_id: Vec<u8>,
}

/// Actors are created, changed, deleted or asked for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ActorRequest {
    /// The actors.
    #[prost(message, repeated, tag = "1")]
    pub actor_list: Vec<Actor>,
}

/// The actors.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ActorReply {
    /// The actors.
    #[prost(message, repeated, tag = "1")]
    pub actor_list: Vec<Actor>,
}

/// Versions of a pipeline are asked for; an empty name: of all.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PipelineQueryRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// The versions.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PipelineQueryReply {
    /// The versions.
    #[prost(message, repeated, tag = "1")]
    pub pipeline_list: Vec<PipelineInfo>,
}

/// A version is saved.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PipelineSaveRequest {
    /// The version.
    #[prost(message, optional, tag = "1")]
    pub info: Option<PipelineInfo>,
    /// The text of the pipeline.
    #[prost(string, tag = "2")]
    pub graph: String,
}

/// What was saved, and its faults.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PipelineSaveReply {
    /// The version.
    #[prost(message, optional, tag = "1")]
    pub info: Option<PipelineInfo>,
    /// The text of the pipeline.
    #[prost(string, tag = "2")]
    pub graph: String,
    /// Whether the pipeline has no faults.
    #[prost(bool, tag = "3")]
    pub is_valid: bool,
    /// The faults.
    #[prost(string, repeated, tag = "4")]
    pub validation_messages: Vec<String>,
}

/// The status of a version, and what hinders another one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PipelineSetStatusReply {
    /// The version.
    #[prost(message, optional, tag = "1")]
    pub info: Option<PipelineInfo>,
    /// Whether the pipeline has no faults.
    #[prost(bool, tag = "2")]
    pub is_valid: bool,
    /// The faults.
    #[prost(string, repeated, tag = "4")]
    pub validation_messages: Vec<String>,
}

/// Log entries are removed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogsPurgeRequest {
    /// Only those before this time.
    #[prost(message, optional, tag = "1")]
    pub before: Option<Timestamp>,
}

/// How many were removed.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LogsPurgeReply {
    /// How many.
    #[prost(int64, tag = "1")]
    pub count: i64,
}

/// Processes that need attention are asked for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PMProcessQueryRequest {
    /// The least grave processes to tell.
    #[prost(enumeration = "LogLevel", tag = "1")]
    pub level: i32,
    /// Whether those that are done with are told too.
    #[prost(bool, tag = "2")]
    pub include_closed: bool,
    /// The processes, 16 bytes each.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub process_ids: Vec<Vec<u8>>,
    /// Whether log entries are told too.
    #[prost(bool, tag = "4")]
    pub return_logs: bool,
}

/// The processes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PMProcessQueryReply {
    /// The processes.
    #[prost(message, repeated, tag = "1")]
    pub pm_process_list: Vec<PMProcess>,
}

/// An operator says what becomes of a process.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PMProcessSetStatusRequest {
    /// The process, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub process_id: Vec<u8>,
    /// How far it is.
    #[prost(enumeration = "AttentionStatus", tag = "2")]
    pub status: i32,
    /// A text of the operator.
    #[prost(string, tag = "3")]
    pub comment: String,
}

/// Processes are asked for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessQueryRequest {
    /// Which processes.
    #[prost(message, optional, tag = "1")]
    pub filter: Option<ProcessFilter>,
}

/// The processes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessQueryReply {
    /// The processes.
    #[prost(message, repeated, tag = "1")]
    pub process_list: Vec<Process>,
}

/// An operator holds, resumes or ends a process.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessControlRequest {
    /// The process, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub process_id: Vec<u8>,
    /// What becomes of it.
    #[prost(enumeration = "ProcessCommand", tag = "2")]
    pub command: i32,
}

/// Processes are exported.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessExportRequest {
    /// The processes, 16 bytes each.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub process_ids: Vec<Vec<u8>>,
    /// Whether envelopes are told.
    #[prost(bool, tag = "2")]
    pub export_envelope: bool,
    /// Most bytes of an envelope.
    #[prost(int64, tag = "3")]
    pub envelope_size_limit: i64,
    /// Whether log entries are told.
    #[prost(bool, tag = "4")]
    pub export_logs: bool,
    /// Whether log entries of the process are told.
    #[prost(bool, tag = "5")]
    pub export_process_logs: bool,
    /// The least grave entries to tell.
    #[prost(enumeration = "LogLevel", tag = "6")]
    pub log_level: i32,
    /// Whether everything is told.
    #[prost(bool, tag = "7")]
    pub export_full: bool,
    /// Whether jobs are told.
    #[prost(bool, tag = "8")]
    pub export_jobs: bool,
}

/// The processes as texts.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessExportReply {
    /// The processes.
    #[prost(string, repeated, tag = "1")]
    pub process_list: Vec<String>,
}

/// Ended processes are removed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessPurgeRequest {
    /// The processes, 16 bytes each.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub process_ids: Vec<Vec<u8>>,
}

/// How far a task is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TaskProgress {
    /// What is being done.
    #[prost(string, tag = "1")]
    pub message: String,
    /// How much is done.
    #[prost(uint32, tag = "2")]
    pub progression: u32,
    /// How much there is to do.
    #[prost(uint32, tag = "3")]
    pub max_progression: u32,
}

/// A piece of an export.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OctetStreamList {
    /// The chunks.
    #[prost(message, repeated, tag = "1")]
    pub chunks: Vec<Chunk>,
    /// How much is done.
    #[prost(int64, tag = "2")]
    pub progression: i64,
    /// How much there is to do.
    #[prost(int64, tag = "3")]
    pub max_progression: i64,
}

/// Bytes of an export.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Chunk {
    /// The bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
    /// The place of the first byte.
    #[prost(int64, tag = "2")]
    pub index: i64,
}
