//! Jobs of actors.

use super::envelope::{Envelope, EnvelopePosition, ProcessingContext};
use super::log::LogMessage;

/// How far an actor is with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum JobStatus {
    /// It has the job.
    Pending = 0,
    /// It works. As the last message of a stream: it will say by itself how the job ends.
    Running = 1,
    /// The job ended well.
    Success = 2,
    /// The job failed.
    Error = 3,
}

/// A job for an actor.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ActorProcessRequest {
    /// The job, copied from the request.
    #[prost(message, optional, tag = "1")]
    pub context: Option<ProcessingContext>,
    /// The inputs of the job.
    #[prost(message, repeated, tag = "2")]
    pub inputs: Vec<JobInput>,
}

/// An input of a job.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JobInput {
    /// The name of the input.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Whether nothing comes.
    #[prost(bool, tag = "2")]
    pub close: bool,
    /// The envelope, or its first fragment.
    #[prost(message, optional, tag = "3")]
    pub envelope: Option<Envelope>,
    /// What is covered up to this fragment.
    #[prost(message, optional, tag = "4")]
    pub position: Option<EnvelopePosition>,
}

/// How far an actor is with a job.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ActorProcessingState {
    /// The job, copied from the request.
    #[prost(message, optional, tag = "2")]
    pub context: Option<ProcessingContext>,
    /// How far it is.
    #[prost(enumeration = "JobStatus", tag = "3")]
    pub status: i32,
    /// What the actor has to say.
    #[prost(message, repeated, tag = "4")]
    pub messages: Vec<LogMessage>,
    /// Whether the actor takes no more jobs.
    #[prost(bool, tag = "5")]
    pub actor_leaving: bool,
}

/// An actor logs something.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ActorLogRequest {
    /// The envelope, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub envelope_id: Vec<u8>,
    /// The job, copied from the request.
    #[prost(message, optional, tag = "2")]
    pub context: Option<ProcessingContext>,
    /// What the actor has to say.
    #[prost(message, repeated, tag = "3")]
    pub messages: Vec<LogMessage>,
}

/// An actor is ready for jobs.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ActorReadyMsg {}

/// The server asks all actors.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SurveyRequest {
    /// Whether actors shall say that they are there.
    #[prost(bool, tag = "1")]
    pub online_status: bool,
}
