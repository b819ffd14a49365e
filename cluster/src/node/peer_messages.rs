//! Messages between nodes that are never stored: at most once, each way.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use rollbook_core::error::Refusal;

use crate::live::Live;
use crate::peer::conn::CallError;
use crate::peer::frame::Kind;
use crate::peer::link::{Links, Purpose};
use crate::peer::thread_connections::ThreadConnections;

/// How long a connection may take that must be made first.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Sends messages to other nodes, and sets the receiver of their messages. No message is stored or sent twice.
#[derive(Clone)]
pub struct PeerMessages {
    links: Arc<Links>,
    handler: Arc<OnceLock<Arc<dyn Live>>>,
    threads: Arc<ThreadConnections>,
}

impl std::fmt::Debug for PeerMessages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerMessages").finish_non_exhaustive()
    }
}

/// What the caller of another node hears of a failed call.
pub(crate) fn refusal(error: CallError) -> Refusal {
    match error {
        CallError::Refused(refusal) => refusal,
        // After an answer that cannot be read, the outcome is unknown.
        other @ (CallError::Lost | CallError::Late | CallError::Protocol(_)) => {
            Refusal::OutcomeUnknown(other.to_string())
        }
        other @ (CallError::Unreachable(_) | CallError::NotLeader) => Refusal::Unavailable(other.to_string()),
    }
}

impl PeerMessages {
    pub(crate) fn new(links: Arc<Links>) -> Self {
        Self { links, handler: Arc::default(), threads: Arc::default() }
    }

    /// From now on messages of other nodes go to this handler. Only the first call counts.
    pub fn set_handler(&self, handler: Arc<dyn Live>) {
        if self.handler.set(handler).is_err() {
            tracing::error!("messages of other nodes have a handler already");
        }
    }

    /// The handler, once it was set.
    pub(crate) fn handler(&self) -> Option<&Arc<dyn Live>> {
        self.handler.get()
    }

    /// The threads that take connections for messages.
    pub(crate) fn threads(&self) -> Arc<ThreadConnections> {
        Arc::clone(&self.threads)
    }

    /// The calling thread, which runs a runtime of its own, waits for messages: from now on the thread has connections
    /// of its own to other nodes for them, and takes those of other nodes, so that a message wakes no other thread.
    ///
    /// # Panics
    /// When there is no runtime.
    pub fn add_this_thread(&self) {
        self.threads.add_this_thread();
    }

    /// Sends a message without an answer, when there is room on the way now.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when the node is not reachable, [`Refusal::Overloaded`] when too much is on the way.
    pub async fn tell(&self, node: u64, message: Bytes) -> Result<(), Refusal> {
        let conn = self.links.conn(node, Purpose::Live, CONNECT_MAX).await.map_err(refusal)?;
        conn.tell(Kind::Tell, message).map_err(|_| Refusal::Overloaded("too much is on the way".to_owned()))
    }

    /// Sends a message and waits for its answer.
    ///
    /// # Errors
    /// The refusal of the other side, or [`Refusal::Unavailable`] when there was no answer.
    pub async fn ask(&self, node: u64, message: Bytes, within: Duration) -> Result<Bytes, Refusal> {
        self.links.call(node, Purpose::Live, Kind::Ask, message, within).await.map_err(refusal)
    }

    /// Whether another node can be called now.
    #[must_use]
    pub fn reaches(&self, node: u64) -> bool {
        self.links.present(node, Purpose::Control).is_some()
    }
}
