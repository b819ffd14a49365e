//! The changes of the state of Xbus: the body of one command of the log.

use alloc::string::String;
use alloc::vec::Vec;

use super::account::register::{ActorRequest, Registration};
use super::account::row::ConfigEntry;
use super::envelope::part::Fragment;
use super::log::{LogLevel, LogLine};
use super::pipeline::document::Document;
use super::pipeline::version::PipelineStatus;
use super::process::event::{JobName, ProcessEvent, Unit};

/// One change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct XbusChange {
    /// When set, the change applies only if the row has this revision. 0: the row does not exist.
    #[prost(uint64, optional, tag = "1")]
    pub if_revision: Option<u64>,
    /// What is changed.
    #[prost(
        oneof = "Change",
        tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27"
    )]
    pub change: Option<Change>,
}

/// What is changed. Tags are never reused.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Change {
    /// A program registers its account and actors, or asks what became of them.
    #[prost(message, tag = "2")]
    Register(Registration),
    /// An operator accepts an account, with the certificate that a node signed.
    #[prost(message, tag = "3")]
    AccountAccept(AccountAccept),
    /// An operator enables or disables an account.
    #[prost(message, tag = "4")]
    AccountEnable(Enable),
    /// An operator deletes an account and its actors, by id.
    #[prost(bytes, tag = "5")]
    AccountDelete(Vec<u8>),
    /// An operator lets another key register under the name of the account, by id.
    #[prost(bytes, tag = "6")]
    AccountResetCertificate(Vec<u8>),
    /// An account gets another API key, or none.
    #[prost(message, tag = "7")]
    AccountApiKey(ApiKey),
    /// An operator creates an actor, or changes one.
    #[prost(message, tag = "8")]
    ActorSet(ActorSet),
    /// An operator says what an actor may do.
    #[prost(message, tag = "9")]
    ActorStatus(ActorStatusSet),
    /// An operator deletes an actor, by id.
    #[prost(bytes, tag = "10")]
    ActorDelete(Vec<u8>),
    /// Actors were seen. Nobody's rights change.
    #[prost(message, tag = "11")]
    ActorsSeen(Ids),
    /// An operator saves a version of a pipeline.
    #[prost(message, tag = "12")]
    PipelineSave(PipelineSave),
    /// An operator gives a version another status.
    #[prost(message, tag = "13")]
    PipelineStatus(PipelineStatusSet),
    /// An operator deletes a version that no process uses, by id.
    #[prost(bytes, tag = "14")]
    PipelineDelete(Vec<u8>),
    /// A fragment of an envelope came, and its items are stored in the book.
    #[prost(message, tag = "15")]
    Fragment(FragmentReceived),
    /// Time passed: some envelopes are stalled or given up.
    #[prost(message, tag = "16")]
    EnvelopesExpire(Expire),
    /// Some envelopes are removed of which no process is left.
    #[prost(message, tag = "17")]
    EnvelopesPurge(Expire),
    /// Something happened to a process.
    #[prost(message, tag = "18")]
    Process(ProcessChange),
    /// Something happened to an actor: the connection, or what an operator decided. Some of its processes hear of it.
    #[prost(message, tag = "19")]
    Processes(ProcessesChange),
    /// Time passed: some detached jobs are given back.
    #[prost(message, tag = "20")]
    ProcessesExpire(Unit),
    /// Some ended processes are removed, with their log.
    #[prost(message, tag = "21")]
    ProcessesPurge(Ids),
    /// An actor logs something about a job or an envelope.
    #[prost(message, tag = "22")]
    Log(LogChange),
    /// Some log entries are removed: those before a time.
    #[prost(message, tag = "23")]
    LogsPurge(Expire),
    /// An operator says what becomes of a process that needs attention.
    #[prost(message, tag = "24")]
    Attention(Attention),
    /// An operator has a process that has ended go along its pipeline again, as a new process.
    #[prost(message, tag = "25")]
    Replay(Replay),
    /// An operator says what items of a type of events have to look like.
    #[prost(message, tag = "26")]
    SchemaSet(SchemaSet),
    /// An operator deletes the schema of a type of events, by the type.
    #[prost(string, tag = "27")]
    SchemaDelete(String),
}

/// The body of [`Change::AccountAccept`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AccountAccept {
    /// The account, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// The public key for which the certificate was signed: SHA-256. Refused when the account has another one by now.
    #[prost(bytes = "vec", tag = "2")]
    pub public_key: Vec<u8>,
    /// The certificate, PEM.
    #[prost(string, tag = "3")]
    pub certificate: String,
    /// What the certificate is compared with, as the credential of the account has it: `sha256:HEX`.
    #[prost(string, tag = "4")]
    pub fingerprint: String,
    /// When the certificate ends to count, milliseconds since 1970.
    #[prost(uint64, tag = "5")]
    pub expires: u64,
}

/// The body of [`Change::AccountEnable`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Enable {
    /// The account, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Whether it may connect.
    #[prost(bool, tag = "2")]
    pub enabled: bool,
}

/// The body of [`Change::AccountApiKey`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ApiKey {
    /// The account, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// SHA-256 of the key; empty: none.
    #[prost(bytes = "vec", tag = "2")]
    pub hash: Vec<u8>,
}

/// The body of [`Change::ActorSet`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ActorSet {
    /// The account, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub account: Vec<u8>,
    /// The actor. Of a known one kind, name, roles and configuration are replaced.
    #[prost(message, required, tag = "2")]
    pub actor: ActorRequest,
}

/// The body of [`Change::ActorStatus`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ActorStatusSet {
    /// The actor, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// The new status.
    #[prost(enumeration = "super::account::row::ActorStatus", tag = "2")]
    pub status: i32,
    /// Entries of the configuration to set; an empty value removes the entry.
    #[prost(message, repeated, tag = "3")]
    pub config: Vec<ConfigEntry>,
}

/// A bounded list of ids, 16 bytes each.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ids {
    /// The ids, at most [`crate::limits::ROLL_STEP_MAX`].
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub ids: Vec<Vec<u8>>,
}

/// The body of [`Change::PipelineSave`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PipelineSave {
    /// The id that a new version gets, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Name of the pipeline.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The version.
    #[prost(string, tag = "3")]
    pub version: String,
    /// The text, as it was written.
    #[prost(string, tag = "4")]
    pub source: String,
    /// What the text says.
    #[prost(message, required, tag = "5")]
    pub document: Document,
}

/// The body of [`Change::PipelineStatus`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PipelineStatusSet {
    /// The version, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// The new status.
    #[prost(enumeration = "PipelineStatus", tag = "2")]
    pub status: i32,
}

/// The body of [`Change::Fragment`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FragmentReceived {
    /// The envelope, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub envelope: Vec<u8>,
    /// The actor that sends it, 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub actor: Vec<u8>,
    /// The output.
    #[prost(string, tag = "3")]
    pub output: String,
    /// Of a worker: the process and the job; absent for an emitter.
    #[prost(bytes = "vec", tag = "4")]
    pub process: Vec<u8>,
    /// The job of a worker.
    #[prost(message, optional, tag = "5")]
    pub job: Option<JobName>,
    /// The measure of the fragment.
    #[prost(message, required, tag = "6")]
    pub fragment: Fragment,
    /// Id of the event of the book that has the items of the fragment. The publish of that event stands before this
    /// change in the log; without the event the change is refused.
    #[prost(string, tag = "7")]
    pub event: String,
    /// Ids for the processes that begin when the envelope becomes complete: as many as active pipelines may match. With
    /// fewer than needed the change is refused, and proposed again with more.
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub process_ids: Vec<Vec<u8>>,
}

/// Some rows that are older than a time.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Expire {
    /// Of envelopes: how long one waits for its rest, in milliseconds. Of log entries: those before this time go,
    /// milliseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub millis: u64,
}

/// The body of [`Change::Process`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessChange {
    /// The process, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// What happened.
    #[prost(message, required, tag = "2")]
    pub event: ProcessEvent,
}

/// The body of [`Change::Processes`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessesChange {
    /// The processes that have a job of the actor: at most [`crate::limits::ROLL_STEP_MAX`].
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub ids: Vec<Vec<u8>>,
    /// What happened: an event of the actor.
    #[prost(message, required, tag = "2")]
    pub event: ProcessEvent,
}

/// The body of [`Change::Log`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogChange {
    /// The actor, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub actor: Vec<u8>,
    /// The envelope, or empty.
    #[prost(bytes = "vec", tag = "2")]
    pub envelope: Vec<u8>,
    /// The process, or empty.
    #[prost(bytes = "vec", tag = "3")]
    pub process: Vec<u8>,
    /// The node, or empty.
    #[prost(string, tag = "4")]
    pub node: String,
    /// The messages, bounded by [`super::log::bounded`].
    #[prost(message, repeated, tag = "5")]
    pub messages: Vec<LogLine>,
}

/// What an operator makes of a process that needs attention. The numbers are those of the Xbus protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AttentionStatus {
    /// Nothing was decided.
    Default = 0,
    /// Nobody has looked yet.
    New = 1,
    /// Somebody looks.
    Opened = 2,
    /// Done with.
    Closed = 3,
}

/// The body of [`Change::Attention`], and the row of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Attention {
    /// The process, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub process: Vec<u8>,
    /// What the operator makes of it.
    #[prost(enumeration = "AttentionStatus", tag = "2")]
    pub status: i32,
    /// A text of the operator.
    #[prost(string, tag = "3")]
    pub comment: String,
    /// The gravest message of the process; the rules set it.
    #[prost(enumeration = "LogLevel", tag = "4")]
    pub level: i32,
}

/// The body of [`Change::Replay`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Replay {
    /// The process that has ended, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub process: Vec<u8>,
    /// Ids for the new processes: one, or for a process that no pipeline took as many as active pipelines may match.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub ids: Vec<Vec<u8>>,
    /// The node with which the new process begins; empty: the start.
    #[prost(string, tag = "3")]
    pub from_node: String,
    /// Whether the new process goes along the active version of the pipeline, rather than that of the old process.
    #[prost(bool, tag = "4")]
    pub active: bool,
}

/// The body of [`Change::SchemaSet`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SchemaSet {
    /// The type of the events.
    #[prost(string, tag = "1")]
    pub event_type: String,
    /// What becomes of items that break the schema.
    #[prost(enumeration = "super::schema::SchemaMode", tag = "2")]
    pub mode: i32,
    /// The JSON Schema. The rules keep the text and do not read it.
    #[prost(string, tag = "3")]
    pub schema: String,
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use prost::Message as _;

    use super::*;
    use crate::node::Owner;
    use crate::xbus::process::event::{Event, JobSend};

    #[test]
    fn a_change_is_what_it_was_before_it_was_stored() {
        let job = JobName { node: "archive".into(), actor: vec![2; 16] };
        let send = JobSend { job, owner: Some(Owner { node: 1, incarnation: 2 }) };
        let event = ProcessEvent { event: Some(Event::Send(send)) };
        let change = Change::Process(ProcessChange { id: vec![1; 16], event });
        let change = XbusChange { if_revision: Some(3), change: Some(change) };
        assert_eq!(XbusChange::decode(&change.encode_to_vec()[..]), Ok(change));
    }
}
