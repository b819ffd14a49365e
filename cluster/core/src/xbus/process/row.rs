//! What is kept of a process.

use alloc::string::String;
use alloc::vec::Vec;

use crate::node::Owner;
use crate::xbus::id::Id;
use crate::xbus::log::LogLine;

/// How far a process is. The numbers are those of the Xbus protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ProcessStatus {
    /// No such process.
    NoStatus = 0,
    /// Not matched with a pipeline yet.
    Initial = 1,
    /// Its jobs are done as actors come.
    Running = 2,
    /// No job is started; those that run may end.
    Paused = 3,
    /// All nodes have ended without error.
    Done = 4,
    /// A node has ended in error, or an operator or a rule has ended the process.
    Error = 5,
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum NodeState {
    /// Not all inputs have an envelope or are closed.
    Waiting = 0,
    /// It has jobs, or with `rolebroadcast` waits for the first actor.
    Ready = 1,
    /// All its jobs have ended well.
    Success = 2,
    /// A job has ended in error.
    Error = 3,
    /// Nothing came in on any input, or all its actors are gone.
    Skipped = 4,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum JobState {
    /// Waits for an actor.
    Ready = 0,
    /// Was sent to its actor.
    Pending = 1,
    /// The actor works on it, and its stream is open.
    Running = 2,
    /// The actor works on it without a stream, and will say when it ends.
    Detached = 3,
    /// Ended well.
    Success = 4,
    /// Ended in error.
    Error = 5,
    /// The actor for which it was is gone.
    Dropped = 6,
}

/// How far an output of a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum OutputState {
    /// Nothing came.
    Open = 0,
    /// Fragments of an envelope are coming.
    Sending = 1,
    /// An envelope went out.
    Sent = 2,
    /// No envelope will come.
    Closed = 3,
}

/// A process.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessRow {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// The version of the pipeline; empty when none matched.
    #[prost(bytes = "vec", tag = "2")]
    pub pipeline: Vec<u8>,
    /// The emitter of the envelope with which the process began.
    #[prost(bytes = "vec", tag = "3")]
    pub emitter: Vec<u8>,
    /// That envelope.
    #[prost(bytes = "vec", tag = "4")]
    pub envelope: Vec<u8>,
    /// How far the process is.
    #[prost(enumeration = "ProcessStatus", tag = "5")]
    pub status: i32,
    /// Why the process is in error; else empty.
    #[prost(string, tag = "6")]
    pub state: String,
    /// When the process began, milliseconds since 1970.
    #[prost(uint64, tag = "7")]
    pub created: u64,
    /// When its status changed last.
    #[prost(uint64, tag = "8")]
    pub status_changed: u64,
    /// The nodes, in the order of the graph.
    #[prost(message, repeated, tag = "9")]
    pub nodes: Vec<NodeRow>,
    /// Sequence number of the event of the book from which on the process needs the book.
    #[prost(uint64, tag = "10")]
    pub pinned: u64,
    /// The process that this one replays; empty: none.
    #[prost(bytes = "vec", tag = "11")]
    pub replay_of: Vec<u8>,
    /// Of a replay: when the oldest envelope that it needs got its last fragment, milliseconds since 1970.
    #[prost(uint64, tag = "12")]
    pub needs_from: u64,
}

/// A node of a process.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeRow {
    /// How far the node is.
    #[prost(enumeration = "NodeState", tag = "1")]
    pub state: i32,
    /// Its inputs, in the order of the graph.
    #[prost(message, repeated, tag = "2")]
    pub inputs: Vec<InputRow>,
    /// Its jobs.
    #[prost(message, repeated, tag = "3")]
    pub jobs: Vec<JobRow>,
    /// A bit for each output that is closed for good, the lowest for the first.
    #[prost(fixed32, tag = "4")]
    pub closed_outputs: u32,
}

/// An input of a node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InputRow {
    /// The envelope that came in; empty: none.
    #[prost(bytes = "vec", tag = "1")]
    pub envelope: Vec<u8>,
    /// How many of its edges are closed.
    #[prost(uint32, tag = "2")]
    pub closed_edges: u32,
}

/// What one actor has to do for a node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JobRow {
    /// How far the job is.
    #[prost(enumeration = "JobState", tag = "1")]
    pub state: i32,
    /// Its actor; empty as long as any actor of the node may take the job.
    #[prost(bytes = "vec", tag = "2")]
    pub actor: Vec<u8>,
    /// Whether the job is for this actor alone: `rolebroadcast`.
    #[prost(bool, tag = "3")]
    pub bound: bool,
    /// How often the job was given back, because its actor was lost.
    #[prost(uint32, tag = "4")]
    pub losses: u32,
    /// Its outputs, in the order of the graph.
    #[prost(message, repeated, tag = "5")]
    pub outputs: Vec<OutputRow>,
    /// The newest messages of its actor.
    #[prost(message, repeated, tag = "6")]
    pub messages: Vec<LogLine>,
    /// Whether the actor said that it succeeded, while an envelope of the job is still coming.
    #[prost(bool, tag = "7")]
    pub ending: bool,
    /// Of a detached job: since when its actor is away, milliseconds since 1970; 0: it is there.
    #[prost(uint64, tag = "8")]
    pub away_since: u64,
    /// When the state of the job changed last.
    #[prost(uint64, tag = "9")]
    pub changed: u64,
    /// The node of the cluster to which the actor is connected that has the job.
    #[prost(message, optional, tag = "10")]
    pub owner: Option<Owner>,
}

/// An output of a job.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OutputRow {
    /// How far the output is.
    #[prost(enumeration = "OutputState", tag = "1")]
    pub state: i32,
    /// The envelope that comes or went out; empty: none.
    #[prost(bytes = "vec", tag = "2")]
    pub envelope: Vec<u8>,
    /// [`JobRow::losses`] when the output was last used. An actor that does a job again may use the output again; what
    /// it sends then is thrown away.
    #[prost(uint32, tag = "3")]
    pub used_at: u32,
    /// The envelope that is thrown away, because the job is done again; empty: none.
    #[prost(bytes = "vec", tag = "4")]
    pub repeated: Vec<u8>,
}

impl ProcessStatus {
    /// Whether no event changes the status any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Error)
    }
}

impl NodeState {
    /// Whether the node has ended without error.
    #[must_use]
    pub const fn is_well(self) -> bool {
        matches!(self, Self::Success | Self::Skipped)
    }
}

impl JobState {
    /// Whether an actor has the job.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Pending | Self::Running | Self::Detached)
    }

    /// Whether the job has ended.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Error | Self::Dropped)
    }
}

impl OutputState {
    /// Whether nothing more can come on the output.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Sent | Self::Closed)
    }
}

impl ProcessRow {
    /// The id.
    #[must_use]
    pub fn id(&self) -> Id {
        Id::from_slice(&self.id).unwrap_or_default()
    }

    /// What came before this time is of no use to the process, milliseconds since 1970.
    #[must_use]
    pub fn needs_since(&self) -> u64 {
        if self.replay_of.is_empty() { self.created } else { self.needs_from.min(self.created) }
    }

    /// Whether an actor has a job of this process. A process in error may still have some.
    #[must_use]
    pub fn has_live_jobs(&self) -> bool {
        self.nodes.iter().flat_map(|node| &node.jobs).any(|job| job.state().is_live())
    }

    /// Whether an actor that has a job is connected to this node, so that the process must hear that the node is lost.
    #[must_use]
    pub fn is_served_by(&self, node: u64) -> bool {
        let jobs = self.nodes.iter().flat_map(|node| &node.jobs).filter(|job| job.state().is_live());
        jobs.filter_map(|job| job.owner).any(|owner| owner.node == node)
    }

    /// Whether a job of this process belongs to this actor, so that the process must hear of the actor.
    #[must_use]
    pub fn concerns(&self, actor: Id) -> bool {
        let actor = actor.as_bytes();
        let jobs = self.nodes.iter().flat_map(|node| &node.jobs);
        jobs.into_iter().any(|job| job.actor == actor && !job.state().is_final())
    }
}
