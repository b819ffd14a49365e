//! Frames and commands into the log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollbook_core::command::admission::{check_level, needs_level};
use rollbook_core::command::{Command, Reply};
use rollbook_core::error::Refusal;
use rollbook_core::level::FeatureLevel;
use rollbook_core::security::actor::Actor;
use tokio::sync::oneshot;

use crate::propose::proposal::{Proposal, ProposalQueue};
use crate::state::state::State;

/// Proposes entries of the log, through the leader when that is another node.
#[derive(Clone)]
pub struct ProposalClient {
    queue: ProposalQueue,
    state: Arc<State>,
    timeout: Duration,
}

impl std::fmt::Debug for ProposalClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProposalClient").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl ProposalClient {
    /// A client that waits at most `timeout` for the answer to a proposal.
    pub(crate) const fn new(queue: ProposalQueue, state: Arc<State>, timeout: Duration) -> Self {
        Self { queue, state, timeout }
    }

    /// Puts a whole frame into the log, through the leader when that is another node. The answer comes when the frame
    /// is synced on a majority; that of a command also when this node shows its effect. Frames of one caller get into
    /// the log in their order, and each has an answer within the timeout of the node. A publish whose caller has
    /// stopped waiting is not written, unless it is on its way to the log already.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when too many proposals wait already, [`Refusal::Unavailable`] for a command, or an
    /// event with headers, above the feature level of the cluster.
    pub fn propose(&self, frame: Bytes) -> Result<oneshot::Receiver<Reply>, Refusal> {
        if needs_level(&frame) {
            check_level(&frame, 1, self.state.machine().level())?;
        }
        let (proposal, reply) = Proposal::of_client(frame, self.timeout);
        self.queue.push(proposal)?;
        Ok(reply)
    }

    /// Proposes a command and waits for its answer.
    ///
    /// # Errors
    /// The refusal of the rules or of the cluster.
    pub async fn command(&self, command: Command) -> Reply {
        self.frame(command.frame()?).await
    }

    /// Proposes a command that somebody has done, and waits for its answer. While the cluster does not know who has
    /// something done, the command goes into the log without that.
    ///
    /// # Errors
    /// The refusal of the rules or of the cluster.
    pub async fn command_of(&self, command: Command, actor: Actor) -> Reply {
        let actor = Some(actor).filter(|_| self.state.machine().level() >= FeatureLevel::SECURED);
        self.frame(command.frame_of(actor)?).await
    }

    async fn frame(&self, frame: Vec<u8>) -> Reply {
        let reply = self.propose(frame.into())?;
        reply.await.unwrap_or_else(|_| Err(Refusal::OutcomeUnknown("node is stopping".to_owned())))
    }
}
