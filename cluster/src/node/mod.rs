//! What the floors above use a running node with: one handle per concern.
//!
//! - [`StateReader`]: reads of the replicated state as this node has applied it
//! - [`XbusReader`](xbus_reader::XbusReader): what Xbus keeps on the disk alone
//! - [`BuildReader`]: the bytes of builds of docks
//! - [`ProposalClient`]: frames and commands into the log
//! - [`Consensus`]: who leads, how fresh a read is, whether writes can be accepted
//! - [`Membership`]: nodes join and leave the cluster, and vote; leadership is handed over
//! - [`PeerMessages`]: messages that are never stored, to other nodes and from them
//! - [`DiskSpace`]: whether this node, and the cluster, has room for more
//!
//! Each handle is cheap to clone, can be used from any thread and runtime, and gives nothing but its own concern.
//! [`Node`] bundles all of them; a caller that needs one handle takes that handle.
//!
//! May import `member` and the rooms below. Invariant: no handle gives access to the parts of the node behind it.

pub mod build_reader;
pub mod consensus;
pub mod delayed_reader;
pub mod disk_space;
pub mod membership;
pub mod peer_messages;
pub mod proposal_client;
pub mod state_reader;
pub mod xbus_reader;

use std::sync::Arc;

use build_reader::BuildReader;
use consensus::Consensus;
use disk_space::DiskSpace;
use membership::Membership;
use peer_messages::PeerMessages;
use proposal_client::ProposalClient;
use rollbook_core::node::Owner;
use state_reader::StateReader;

use crate::peer::identity::Identity;

/// All handles of a node.
#[derive(Debug)]
pub(crate) struct Handles {
    pub(crate) identity: Arc<Identity>,
    pub(crate) state: StateReader,
    pub(crate) proposals: ProposalClient,
    pub(crate) consensus: Consensus,
    pub(crate) membership: Membership,
    pub(crate) messages: PeerMessages,
    pub(crate) disk: DiskSpace,
}

/// The handles of a running node, and who the node is. A clone costs one reference count.
#[derive(Clone)]
pub struct Node {
    handles: Arc<Handles>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Node {
    pub(crate) fn new(handles: Handles) -> Self {
        Self { handles: Arc::new(handles) }
    }

    /// Number of this node in its cluster.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.handles.identity.id
    }

    /// This life of this node.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.handles.identity.owner()
    }

    /// Reads of the replicated state.
    #[must_use]
    pub fn state(&self) -> &StateReader {
        &self.handles.state
    }

    /// Reads of the bytes of builds of docks.
    #[must_use]
    pub fn build_reader(&self) -> BuildReader {
        self.handles.state.builds()
    }

    /// Frames and commands into the log.
    #[must_use]
    pub fn proposals(&self) -> &ProposalClient {
        &self.handles.proposals
    }

    /// Who leads, and what follows from that for reads and writes.
    #[must_use]
    pub fn consensus(&self) -> &Consensus {
        &self.handles.consensus
    }

    /// Changes of the membership, and the members.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.handles.membership
    }

    /// Messages to other nodes.
    #[must_use]
    pub fn messages(&self) -> &PeerMessages {
        &self.handles.messages
    }

    /// Free disk of this node and of the cluster.
    #[must_use]
    pub fn disk(&self) -> &DiskSpace {
        &self.handles.disk
    }
}
