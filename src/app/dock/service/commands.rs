//! What an actor is told to do.

use std::sync::Arc;

use crate::doors::hms::wire::answer::Answer;
use crate::doors::hms::wire::payload::Service;
use tokio::sync::oneshot;

use super::super::store::state_file::ServiceRow;

/// What a service is to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Takes over what an earlier start of the agent left.
    Recover(ServiceRow),
    /// Takes over a definition, and fetches its build.
    Sync(Service),
    /// Changes the definition.
    Update(Service),
    /// Starts, if the tags of the service are those of this dock.
    Start,
    /// Stops.
    Stop,
    /// Starts a new process and stops the old one, if the tags of the service are those of this dock.
    Restart,
    /// Stops, and forgets the service.
    Remove,
    /// Gives the definition.
    Get,
    /// Stops because the agent stops. The next start of the agent starts the service again.
    Shutdown,
}

/// A command, and where its answer goes.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) answer: oneshot::Sender<Answer>,
    /// Shows the handle of the service that the command is under way.
    pub(super) _pending: Arc<()>,
}
