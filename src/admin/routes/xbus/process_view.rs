//! Processes as REST shows them.

use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::xbus::change::{Attention, AttentionStatus};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::log::{LogLevel, LogLine};
use rollbook_core::xbus::pipeline::graph::Node;
use rollbook_core::xbus::process::row::{
    InputRow, JobRow, JobState, NodeRow, NodeState, OutputRow, OutputState, ProcessRow, ProcessStatus,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::common::{text, time};

/// A process in a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::admin) struct ProcessView {
    id: String,
    /// `running`, `paused`, `done` or `error`.
    status: &'static str,
    /// Why the process is in error; else empty.
    state: String,
    /// Name of the pipeline; `null` when none matched, or when the version is gone.
    pipeline: Option<String>,
    /// The version of the pipeline.
    version: Option<String>,
    /// Name of the emitter, or its id when it is gone.
    emitter: String,
    /// The envelope with which the process began.
    envelope: String,
    created_at: Option<String>,
    /// When its status changed last.
    status_changed_at: Option<String>,
    /// The process that this one replays; `null`: none.
    replay_of: Option<String>,
}

/// A process with its nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct ProcessDetail {
    process: ProcessView,
    nodes: Vec<NodeView>,
    /// What operators make of it; `null` as long as it never failed.
    attention: Option<AttentionView>,
}

/// A node of a process.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProcessNode)]
struct NodeView {
    /// Name of the node, or its number when the version of the pipeline is gone.
    id: String,
    /// `waiting`, `ready`, `success`, `error` or `skipped`.
    state: &'static str,
    inputs: Vec<PortView>,
    jobs: Vec<JobView>,
}

/// An input of a node or an output of a job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProcessPort)]
struct PortView {
    name: String,
    /// Of an input: `open` or `filled`; of an output: `open`, `sending`, `sent` or `closed`.
    state: &'static str,
    /// The envelope that came in, comes or went out.
    envelope: Option<String>,
}

/// What one actor has to do for a node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProcessJob)]
struct JobView {
    /// Name of the actor, or its id when it is gone; `null` as long as any actor of the node may take the job.
    actor: Option<String>,
    /// `ready`, `pending`, `running`, `detached`, `success`, `error` or `dropped`.
    state: &'static str,
    /// How often the job was given back, because its actor was lost.
    losses: u32,
    /// The node of the cluster to which the actor is connected.
    node: Option<u64>,
    outputs: Vec<PortView>,
    /// What the actor said about it.
    messages: Vec<MessageView>,
    changed_at: Option<String>,
}

/// A message of an actor.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogMessage)]
pub(in crate::admin) struct MessageView {
    time: Option<String>,
    /// `notice`, `warning` or `error`.
    level: &'static str,
    text: String,
}

/// What operators make of a process that failed.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct AttentionView {
    process: String,
    /// `new`, `opened` or `closed`.
    status: &'static str,
    /// A text of the operator.
    comment: String,
    /// The gravest message: `notice`, `warning` or `error`.
    level: &'static str,
}

impl From<&LogLine> for MessageView {
    fn from(line: &LogLine) -> Self {
        Self { time: time(line.millis), level: level(line.level()), text: line.text.clone() }
    }
}

impl From<&Attention> for AttentionView {
    fn from(row: &Attention) -> Self {
        let status = match row.status() {
            AttentionStatus::Default | AttentionStatus::New => "new",
            AttentionStatus::Opened => "opened",
            AttentionStatus::Closed => "closed",
        };
        let (process, level) = (text(&row.process), level(row.level()));
        Self { process, status, comment: row.comment.clone(), level }
    }
}

const fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Notice => "notice",
        LogLevel::Warning => "warning",
        LogLevel::Error => "error",
    }
}

const fn word(status: ProcessStatus) -> &'static str {
    match status {
        ProcessStatus::NoStatus | ProcessStatus::Initial => "initial",
        ProcessStatus::Running => "running",
        ProcessStatus::Paused => "paused",
        ProcessStatus::Done => "done",
        ProcessStatus::Error => "error",
    }
}

/// The name of an actor, or its id when it is gone.
pub(super) fn actor_name(xbus: &Xbus, id: &[u8]) -> String {
    let known = Id::from_slice(id).ok().and_then(|id| xbus.actor(id));
    known.map_or_else(|| text(id), |actor| actor.name.clone())
}

impl ProcessView {
    pub(super) fn new(xbus: &Xbus, row: &ProcessRow) -> Self {
        let pipeline = Id::from_slice(&row.pipeline).ok().and_then(|id| xbus.pipeline(id));
        Self {
            id: text(&row.id),
            status: word(row.status()),
            state: row.state.clone(),
            pipeline: pipeline.map(|pipeline| pipeline.row.name.clone()),
            version: pipeline.map(|pipeline| pipeline.row.version.clone()),
            emitter: actor_name(xbus, &row.emitter),
            envelope: text(&row.envelope),
            created_at: time(row.created),
            status_changed_at: time(row.status_changed),
            replay_of: Some(text(&row.replay_of)).filter(|id| !id.is_empty()),
        }
    }
}

impl ProcessDetail {
    pub(super) fn new(xbus: &Xbus, row: &ProcessRow, attention: Option<&Attention>) -> Self {
        let pipeline = Id::from_slice(&row.pipeline).ok().and_then(|id| xbus.pipeline(id));
        let graph = pipeline.and_then(|pipeline| pipeline.graph.as_ref());
        let nodes = row.nodes.iter().enumerate().map(|(number, node)| {
            let known = graph.and_then(|graph| graph.node(number));
            NodeView::new(xbus, number, node, known)
        });
        Self {
            process: ProcessView::new(xbus, row),
            nodes: nodes.collect(),
            attention: attention.map(AttentionView::from),
        }
    }
}

impl NodeView {
    fn new(xbus: &Xbus, number: usize, row: &NodeRow, known: Option<&Node>) -> Self {
        let state = match row.state() {
            NodeState::Waiting => "waiting",
            NodeState::Ready => "ready",
            NodeState::Success => "success",
            NodeState::Error => "error",
            NodeState::Skipped => "skipped",
        };
        let (inputs, outputs) = known.map_or((&[][..], &[][..]), |node| (&node.inputs[..], &node.outputs[..]));
        Self {
            id: known.map_or_else(|| number.to_string(), |node| node.id.clone()),
            state,
            inputs: row.inputs.iter().enumerate().map(|(at, input)| PortView::input(name(inputs, at), input)).collect(),
            jobs: row.jobs.iter().map(|job| JobView::new(xbus, job, outputs)).collect(),
        }
    }
}

/// The name of an input or output of this number, or the number when the version of the pipeline is gone.
fn name(names: &[String], number: usize) -> String {
    names.get(number).cloned().unwrap_or_else(|| number.to_string())
}

fn envelope(id: &[u8]) -> Option<String> {
    (!id.is_empty()).then(|| text(id))
}

impl PortView {
    fn input(name: String, row: &InputRow) -> Self {
        let envelope = envelope(&row.envelope);
        Self { name, state: if envelope.is_some() { "filled" } else { "open" }, envelope }
    }

    fn output(name: String, row: &OutputRow) -> Self {
        let state = match row.state() {
            OutputState::Open => "open",
            OutputState::Sending => "sending",
            OutputState::Sent => "sent",
            OutputState::Closed => "closed",
        };
        Self { name, state, envelope: envelope(&row.envelope) }
    }
}

impl JobView {
    fn new(xbus: &Xbus, row: &JobRow, names: &[String]) -> Self {
        let state = match row.state() {
            JobState::Ready => "ready",
            JobState::Pending => "pending",
            JobState::Running => "running",
            JobState::Detached => "detached",
            JobState::Success => "success",
            JobState::Error => "error",
            JobState::Dropped => "dropped",
        };
        let outputs = row.outputs.iter().enumerate();
        Self {
            actor: (!row.actor.is_empty()).then(|| actor_name(xbus, &row.actor)),
            state,
            losses: row.losses,
            node: row.owner.map(|owner| owner.node),
            outputs: outputs.map(|(at, output)| PortView::output(name(names, at), output)).collect(),
            messages: row.messages.iter().map(MessageView::from).collect(),
            changed_at: time(row.changed),
        }
    }
}
