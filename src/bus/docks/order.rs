//! What a dock is asked to do, and what became of that.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::bus::error::Fault;

/// What a dock can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DockOp {
    /// Take changed members of a definition.
    Update,
    /// Forget a definition and end its process.
    Remove,
    /// Tell what runs.
    Ps,
    /// Start a process.
    Start,
    /// End a process.
    Stop,
    /// End a process and start another.
    Restart,
    /// Fetch a build and take its definition.
    Sync,
}

impl DockOp {
    /// How long a dock may take. A dock that is lost is noticed earlier.
    #[must_use]
    pub const fn within(self) -> Duration {
        Duration::from_secs(match self {
            Self::Ps => 5,
            Self::Update | Self::Start | Self::Restart => 30,
            // These wait for a process to end, or for a download.
            Self::Remove | Self::Stop => 120,
            Self::Sync => 600,
        })
    }
}

/// An order for one dock that is connected to this node.
#[derive(Debug)]
pub struct Order {
    /// What is to be done.
    pub op: DockOp,
    /// The definition that it concerns; empty for `ps`.
    pub id: String,
    /// The document that goes with the order: JSON, or empty.
    pub payload: Bytes,
    /// Receives the answer of the dock, or its error. Dropped when the dock is lost.
    pub done: oneshot::Sender<Result<Bytes, String>>,
}

/// What one dock said to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockAnswer {
    /// The dock.
    pub dock: String,
    /// Its answer, or why there is none.
    pub result: Result<Bytes, String>,
}

/// What docks said to an order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DockAnswers {
    /// The docks of nodes that answered.
    pub answers: Vec<DockAnswer>,
    /// The nodes that did not answer for their docks.
    pub unanswered: Vec<u64>,
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// The bus did not do it.
    Fault(Fault),
    /// A dock did not do it.
    Dock {
        /// The dock.
        dock: String,
        /// What the dock said, or why it said nothing.
        text: String,
    },
}

impl From<Fault> for CommandError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Dock { dock, text } => write!(f, "dock {dock}: {text}"),
        }
    }
}
