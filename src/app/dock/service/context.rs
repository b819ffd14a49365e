//! What all actors share.

use std::ffi::OsString;
use std::sync::Arc;

use tokio::sync::watch;

use super::super::node::node_address::NodeAddress;
use super::super::process::cgroup::Cgroups;
use super::super::process::reaper::Children;
use super::super::report::outbox::Outbox;
use super::super::report::subscriptions::Subscriptions;
use super::super::store::builds::Builds;
use super::super::store::data_dir::DataDir;
use super::super::store::state_file::StateFile;
use super::readiness_table::ReadinessTable;

/// What all actors share.
#[derive(Debug)]
pub(crate) struct Context {
    /// The name of the dock.
    pub(crate) dock: String,
    /// The tags of the dock.
    pub(crate) tags: Vec<String>,
    /// Whether services without tags run here.
    pub(crate) default: bool,
    /// The program and first arguments of child processes.
    pub(crate) child_command: Vec<OsString>,
    /// The size from which on a file of output is rotated.
    pub(crate) log_bytes_max: u64,
    /// The present boot of the machine.
    pub(crate) boot: String,
    /// The data directory.
    pub(crate) data: DataDir,
    /// Definitions and processes.
    pub(crate) state: StateFile,
    /// Builds.
    pub(crate) builds: Builds,
    /// Cgroups, where the kernel has them for us.
    pub(crate) cgroups: Option<Cgroups>,
    /// The children of the agent.
    pub(crate) children: Arc<Children>,
    /// What goes to the hub.
    pub(crate) outbox: Arc<Outbox>,
    /// What the hub wants of the output.
    pub(crate) subscriptions: Arc<Subscriptions>,
    /// Which services are ready.
    pub(crate) readiness: Arc<ReadinessTable>,
    /// True when the agent stops: no download is waited for.
    pub(crate) stopping: watch::Sender<bool>,
    /// The node that the agent is connected to.
    pub(crate) node: watch::Receiver<Option<NodeAddress>>,
}
