//! Reads of the replicated state, as this node has applied it.

use std::sync::Arc;

use prost::Message as _;
use rollbook_core::central::ConfigRevision;
use rollbook_core::consumer::Consumer;
use rollbook_core::machine::Machine;
use rollbook_core::namespace::Head;
use rollbook_core::node::Owner;
use rollbook_core::rows::Family;
use tokio::sync::watch;

use super::build_reader::BuildReader;
use super::delayed_reader::DelayedReader;
use super::xbus_reader::XbusReader;
use crate::book::events::Book;
use crate::error::ReadError;
use crate::lock::lock;
use crate::log::store::LogStore;
use crate::state::state::State;

/// Reads the replicated state of this node: namespaces, consumers, nodes, services, configuration, events.
///
/// A read answers from what this node has applied, however far that is behind the leader;
/// [`read_barrier`](super::consensus::Consensus::read_barrier) waits until it is not.
#[derive(Clone)]
pub struct StateReader {
    node: u64,
    state: Arc<State>,
    log: LogStore,
}

impl std::fmt::Debug for StateReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateReader").field("node", &self.node).finish_non_exhaustive()
    }
}

impl StateReader {
    /// The reader of node number `node`.
    pub(crate) const fn new(node: u64, state: Arc<State>, log: LogStore) -> Self {
        Self { node, state, log }
    }

    /// The events of this node.
    #[must_use]
    pub fn book(&self) -> Book {
        Book::new(Arc::clone(&self.state), self.log.clone())
    }

    /// What Xbus keeps on the disk alone.
    #[must_use]
    pub fn xbus(&self) -> XbusReader {
        XbusReader::new(Arc::clone(&self.state))
    }

    /// The events that wait for their time.
    #[must_use]
    pub fn delayed(&self) -> DelayedReader {
        DelayedReader::new(Arc::clone(&self.state))
    }

    /// The bytes of builds of docks.
    #[must_use]
    pub fn builds(&self) -> BuildReader {
        BuildReader::new(Arc::clone(&self.state))
    }

    /// Follows the index behind the last applied entry.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.state.applied()
    }

    /// Follows the revision of the security state. Whoever is woken sees a state at least as new as the revision.
    #[must_use]
    pub fn security_revision(&self) -> watch::Receiver<u64> {
        self.state.security_revision()
    }

    /// The heads of the namespaces that changed since the last call, whether clients can see them or not. A change
    /// is here before [`StateReader::applied`] moves. For one caller alone: the feed.
    #[must_use]
    pub fn take_changed(&self) -> Vec<Arc<Head>> {
        lock(&self.state.changes).take_followed().into_values().collect()
    }

    /// A namespace that clients can see.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<Head> {
        self.state.machine().head(name).cloned()
    }

    /// Whether there is a namespace of this name that clients can see.
    #[must_use]
    pub fn has_namespace(&self, name: &str) -> bool {
        self.state.machine().head(name).is_some()
    }

    /// All namespaces that clients can see, by name.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Head> {
        self.state.machine().heads().filter(|head| !head.deleted).cloned().collect()
    }

    /// The durable consumers of a namespace, by name.
    #[must_use]
    pub fn consumers(&self, head: &Head) -> Vec<Consumer> {
        self.state.machine().consumers(head.id).cloned().collect()
    }

    /// One durable consumer.
    #[must_use]
    pub fn consumer(&self, head: &Head, name: &str) -> Option<Consumer> {
        self.state.machine().consumer(head.id, name).cloned()
    }

    /// Reads the machine of the rules: a snapshot of the last applied batch. `look` blocks no writer or reader, and
    /// entries that are applied meanwhile do not change the snapshot.
    pub fn with_machine<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.state.machine())
    }

    /// The central configuration as it is now; revision 0 before anybody set it.
    #[must_use]
    pub fn config(&self) -> ConfigRevision {
        self.state.machine().config().clone()
    }

    /// An earlier central configuration, while it is remembered. Reads from the disk.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn config_revision(&self, revision: u64) -> Result<Option<ConfigRevision>, ReadError> {
        let row = self.state.row(Family::Config, &revision.to_be_bytes())?;
        row.map(|row| decode_config(&row)).transpose()
    }

    /// The central configurations that are remembered, oldest first. Reads from the disk.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn config_revisions(&self) -> Result<Vec<ConfigRevision>, ReadError> {
        let rows = self.state.rows(Family::Config)?;
        rows.iter().map(|(_, row)| decode_config(row)).collect()
    }

    /// Whether that life of a node has not ended.
    #[must_use]
    pub fn is_alive(&self, owner: Owner) -> bool {
        self.state.machine().is_alive(owner)
    }

    /// Whether the cluster knows this number, and that the node is not up.
    #[must_use]
    pub fn is_down(&self, id: u64) -> bool {
        self.state.machine().node(id).is_some_and(|row| !row.up)
    }

    /// The other nodes that are up, as far as the cluster knows.
    #[must_use]
    pub fn others_up(&self) -> Vec<u64> {
        let machine = self.state.machine();
        machine.nodes().filter(|row| row.up && row.id != self.node).map(|row| row.id).collect()
    }

    /// The time that an entry gets that is proposed now, milliseconds since 1970. Like the time of the log it does not
    /// follow a wall clock that jumps.
    #[must_use]
    pub fn log_time(&self) -> u64 {
        self.state.clock.stamp()
    }

    /// By how many milliseconds the clocks of the nodes are ahead of the time that entries get, while that is in
    /// doubt; 0 when all is well.
    #[must_use]
    pub fn clock_skew(&self) -> i64 {
        self.state.clock.skew()
    }
}

fn decode_config(row: &[u8]) -> Result<ConfigRevision, ReadError> {
    ConfigRevision::decode(row).map_err(|error| ReadError(format!("config row: {error}")))
}
