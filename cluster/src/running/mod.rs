//! A running node: starts everything of this floor from the bottom up, and stops everything in reverse. Also the tasks
//! that run beside raft: presence, liveness, settling, proposals that are due, answers to other nodes.
//!
//! May import everything of this crate. Invariant: every task and thread that is started here ends with [`Running`].

pub(crate) mod delayed;
pub(crate) mod due;
pub(crate) mod level;
pub(crate) mod liveness;
pub(crate) mod peer_service;
pub(crate) mod presence;
pub(crate) mod settler;
pub(crate) mod tidy;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use rollbook_core::command::{ClusterCreate, Command};
use rollbook_core::level::FeatureLevel;
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::book::snapshot;
use crate::error::NodeError;
use crate::lock::lock;
use crate::log::store::LogStore;
use crate::member::founding::Founding;
use crate::member::members::Members;
use crate::node::consensus::Consensus;
use crate::node::disk_space::DiskSpace;
use crate::node::membership::Membership;
use crate::node::peer_messages::PeerMessages;
use crate::node::proposal_client::ProposalClient;
use crate::node::state_reader::StateReader;
use crate::node::{Handles, Node};
use crate::peer::gate::Gate;
use crate::peer::identity::Identity;
use crate::peer::link::Links;
use crate::peer::transport::{Acceptor, Dialer, Tcp, TcpAcceptor};
use crate::propose::batch;
use crate::propose::forward::ProposalForwarder;
use crate::propose::proposal;
use crate::replicate::contact::Contact;
use crate::replicate::machine::StateMachine;
use crate::replicate::network::Network;
use crate::replicate::raft::{self, Raft};
use crate::replicate::receive::Receiver;
use crate::replicate::server::Server;
use crate::state::state::State;
use crate::status;
use crate::store::layout::Layout;
use crate::stores::{self, Stores};
use crate::timing::Timing;
use crate::tls::{Tls, TlsFiles};
use due::DueProposer;
use level::LevelRaiser;
use liveness::Liveness;
use peer_service::PeerService;
use presence::Presence;
use settler::Settler;

/// How long a stop waits for the tasks of the runtime.
const RUNTIME_MAX: Duration = Duration::from_secs(2);
/// How long a node that is alone may take to lead itself.
const ALONE_MAX: Duration = Duration::from_secs(30);

/// Everything that a node needs to start.
#[derive(Debug)]
pub struct NodeConfig {
    /// Number of this node in the cluster.
    pub id: u64,
    /// Everything this node stores.
    pub data: PathBuf,
    /// The listener for other nodes; `None` for a node that stays alone.
    pub listener: Option<TcpListener>,
    /// The address at which other nodes reach that listener.
    pub address: String,
    /// The nodes that found the cluster, this one included; empty for a node that is alone, or that joins.
    pub founders: BTreeMap<u64, String>,
    /// Certificates for calls between nodes; without them, every caller that reaches the listener is believed.
    pub tls: Option<TlsFiles>,
    /// Longest wait for the answer to a proposed entry.
    pub timeout: Duration,
    /// A node that was not heard for this long is taken off the roll.
    pub node_timeout: Duration,
    /// How often a leader sends heartbeats, the same on all nodes; every other time of the cluster is a multiple of it.
    pub heartbeat: Duration,
    /// Bytes of the log that are kept for nodes that are behind.
    pub log_keep_bytes: u64,
    /// The highest feature level that this node announces: lower than that of this release only to try an upgrade.
    pub level: FeatureLevel,
    /// Whether to start when the mark is lost, the record of how far the raft log was acknowledged.
    pub accept_lost_mark: bool,
}

/// The node number that a data directory was made for.
#[must_use]
pub fn recorded_node(data: &Path) -> Option<u64> {
    Layout::recorded_node(data)
}

/// Owns the threads of a node: raft's and the settler. To be stopped from a thread that may block.
pub struct Running {
    parts: Parts,
    runtime: Runtime,
    stop: CancellationToken,
    presence: Task,
    state: Arc<State>,
    log: LogStore,
    settler: Mutex<Option<JoinHandle<()>>>,
    writer: JoinHandle<()>,
}

/// A task that is ended before the others.
pub(crate) struct Task {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("node", &self.parts.node).finish_non_exhaustive()
    }
}

/// The parts of a node, apart from its background tasks.
pub(crate) struct Parts {
    pub(crate) node: Node,
    pub(crate) raft: Raft,
    identity: Arc<Identity>,
    links: Arc<Links>,
}

/// The threads and tasks that use the stores.
struct Started {
    parts: Parts,
    runtime: Runtime,
    presence: Task,
    settler: JoinHandle<()>,
}

impl Started {
    /// Starts everything. When a part does not start, none runs any more when this returns.
    fn start(
        config: NodeConfig,
        layout: &Layout,
        log: &LogStore,
        state: &Arc<State>,
        stop: &CancellationToken,
    ) -> Result<Self, NodeError> {
        // openraft must not share a thread with the doors: it has a runtime of its own.
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(raft_threads())
            .thread_name("raft")
            .enable_all()
            .build()
            .map_err(|error| raft_error(&error))?;
        let keep_bytes = config.log_keep_bytes;
        let assembled = runtime.block_on(async {
            let mut config = config;
            let transport = Transport::tcp(&mut config)?;
            assemble(config, transport, layout, log, state, stop).await
        });
        let started = assembled.and_then(|(parts, presence)| {
            let settler = Settler {
                state: Arc::clone(state),
                log: log.clone(),
                raft: parts.raft.clone(),
                consensus: parts.node.consensus().clone(),
                runtime: runtime.handle().clone(),
                stop: stop.clone(),
                keep_bytes,
            };
            let thread = std::thread::Builder::new().name("settle".to_owned()).spawn(move || settler.run());
            thread.map(|settler| (parts, presence, settler)).map_err(|error| raft_error(&error))
        });
        match started {
            Ok((parts, presence, settler)) => Ok(Self { parts, runtime, presence, settler }),
            Err(error) => {
                // Its tasks have the stores.
                runtime.shutdown_timeout(RUNTIME_MAX);
                Err(error)
            }
        }
    }
}

fn raft_error(error: &dyn std::fmt::Display) -> NodeError {
    NodeError::Raft(error.to_string())
}

impl Running {
    /// Opens the stores and takes part in the cluster, or founds one. A node that is alone leads when this
    /// returns; one of several may still look for the others.
    ///
    /// # Errors
    /// The data directory cannot be used, is damaged, or raft does not come up.
    pub fn start(config: NodeConfig) -> Result<Self, NodeError> {
        #[cfg(feature = "lab-faults")]
        crate::lab_faults::announce().map_err(|error| raft_error(&error))?;
        let Stores { layout, log, writer, state } = Stores::open(&config.data, config.id, config.accept_lost_mark)?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            node = config.id,
            data = %config.data.display(),
            peer = %config.address,
            last = log.next_index().saturating_sub(1),
            applied = state.applied().borrow().saturating_sub(1),
            "the data directory is open"
        );
        let stop = CancellationToken::new();
        match Started::start(config, &layout, &log, &state, &stop) {
            Ok(Started { parts, runtime, presence, settler }) => {
                let settler = Mutex::new(Some(settler));
                Ok(Self { parts, runtime, stop, presence, state, log, settler, writer })
            }
            Err(error) => {
                stop.cancel();
                stores::close(Some(state), log, writer);
                Err(error)
            }
        }
    }

    /// The handle to use the node with.
    #[must_use]
    pub fn node(&self) -> Node {
        self.parts.node.clone()
    }

    /// Follows whether this node must not go on, and why.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.parts.identity.fatal()
    }

    /// How many tasks the node has now. One that only grows would be a leak.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }

    /// Stops raft, then brings everything to the disk, so that the next start has nothing to do.
    ///
    /// # Errors
    /// What could not be brought to the disk; acknowledged events are on it in any case.
    pub fn stop(self) -> Result<(), NodeError> {
        let Self { parts, runtime, stop, presence, state, log, settler, writer } = self;
        let Parts { node, raft, identity, links } = parts;
        presence.stop.cancel();
        runtime.block_on(async {
            // First, or this node would see in the log that the cluster gave it up, and would begin a new life.
            if presence.task.await.is_err() {
                tracing::error!("the task that makes this node known had panicked");
            }
            // A removed node proposes nothing: no other node would accept it.
            if has_others(&raft) && identity.failure().is_none() {
                presence::leave(&identity, node.proposals()).await;
            }
        });
        stop.cancel();
        if let Some(settler) = lock(&settler).take()
            && settler.join().is_err()
        {
            tracing::error!("the settler had panicked");
        }
        tracing::debug!("the settler has stopped");
        let shutdown = runtime.block_on(async {
            let shutdown = raft.shutdown().await.map_err(|error| raft_error(&error));
            links.close();
            shutdown
        });
        let flushed = runtime.block_on(stores::flush(&state, &log));
        tracing::debug!("raft has stopped and its log is flushed");
        // Whatever went wrong: the stores are closed before the process ends.
        drop((node, raft, links));
        runtime.shutdown_timeout(RUNTIME_MAX);
        stores::close(Some(state), log, writer);
        shutdown.and(flushed)
    }
}

/// Whether the cluster has other members than this node, voters or learners.
fn has_others(raft: &Raft) -> bool {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.nodes().any(|(id, _)| id != raft.node_id())
}

/// Raft's tasks hand work to each other: on few cores, threads between them only add wake-ups.
fn raft_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4))
}

/// How other nodes are reached, and reach this one.
pub(crate) struct Transport {
    pub(crate) dialer: Box<dyn Dialer>,
    pub(crate) acceptor: Option<Box<dyn Acceptor>>,
}

impl Transport {
    /// TCP, on raft's runtime.
    fn tcp(config: &mut NodeConfig) -> Result<Self, NodeError> {
        let tcp = Tcp { timing: Timing::new(config.heartbeat) };
        let acceptor: Option<Box<dyn Acceptor>> = match config.listener.take() {
            None => None,
            Some(listener) => {
                let unusable = |error| NodeError::Raft(format!("the peer listener: {error}"));
                Some(Box::new(TcpAcceptor::new(listener, tcp).map_err(unusable)?))
            }
        };
        Ok(Self { dialer: Box::new(tcp), acceptor })
    }
}

/// Puts the parts together, on raft's runtime.
pub(crate) async fn assemble(
    config: NodeConfig,
    transport: Transport,
    layout: &Layout,
    log: &LogStore,
    state: &Arc<State>,
    stop: &CancellationToken,
) -> Result<(Parts, Task), NodeError> {
    // Before raft makes or receives a snapshot. Files that cannot be removed cost disk and nothing else.
    if let Err(error) = snapshot::sweep(layout) {
        tracing::warn!(%error, "what nobody uses any more could not be removed");
    }
    let tls = config.tls.as_ref().map(Tls::load).transpose().map_err(|error| NodeError::Tls(error.to_string()))?;
    let identity = Identity::begin(layout, config.id, config.address, config.founders)?;
    let identity = Arc::new(identity.knowing(config.level));
    let recorded = state.machine().cluster_id().to_owned();
    if !recorded.is_empty() {
        identity.belong_to(&recorded)?;
    }
    let Transport { dialer, acceptor } = transport;
    let timing = Timing::new(config.heartbeat);
    let links = Arc::new(Links::new(Arc::clone(&identity), Arc::clone(state), tls.clone(), dialer, timing));
    let network = Network { links: Arc::clone(&links), state: Arc::clone(state) };
    let machine = StateMachine::new(Arc::clone(state), log);
    let raft = Raft::new(config.id, raft::settings(timing)?, network, log.clone(), machine).await;
    let raft = raft.map_err(|error| raft_error(&error))?;
    let contact = Arc::new(Contact::new(raft.clone(), Arc::clone(&identity), timing));
    let (beats, looks, ends) = (raft.clone(), Arc::clone(&contact), stop.clone());
    tokio::spawn(async move { ends.run_until_cancelled(raft::beat(beats, timing)).await });
    tokio::spawn(looks.run(stop.clone()));
    let (queue, queued) = proposal::queue();
    let forwarder = ProposalForwarder {
        raft: raft.clone(),
        identity: Arc::clone(&identity),
        links: Arc::clone(&links),
        state: Arc::clone(state),
        contact: Arc::clone(&contact),
        batches: AtomicU64::new(1),
    };
    tokio::spawn(batch::run(Arc::new(forwarder), queued));
    let members = Arc::new(Members {
        raft: raft.clone(),
        identity: Arc::clone(&identity),
        state: Arc::clone(state),
        runtime: runtime::Handle::current(),
        turn: tokio::sync::Mutex::new(()),
    });
    let proposals = ProposalClient::new(queue.clone(), Arc::clone(state), config.timeout);
    let (for_consensus, for_links) = (Arc::clone(&contact), Arc::clone(&links));
    let consensus = Consensus::new(raft.clone(), Arc::clone(&identity), Arc::clone(state), for_links, for_consensus);
    let peers = (Arc::clone(&identity), Arc::clone(&links), Arc::clone(&contact));
    let membership = Membership::new(peers, consensus.clone(), proposals.clone(), Arc::clone(&members));
    let messages = PeerMessages::new(Arc::clone(&links));
    let node = Node::new(Handles {
        identity: Arc::clone(&identity),
        state: StateReader::new(config.id, Arc::clone(state), log.clone()),
        proposals: proposals.clone(),
        consensus: consensus.clone(),
        membership: membership.clone(),
        messages: messages.clone(),
        disk: DiskSpace::new(Arc::clone(&identity), Arc::clone(&links), Arc::clone(&contact)),
    });
    let founding = || Founding { raft: raft.clone(), identity: Arc::clone(&identity), links: Arc::clone(&links) };
    if let Some(acceptor) = acceptor {
        let server = Arc::new(Server {
            identity: Arc::clone(&identity),
            gate: Arc::new(Gate::new(Arc::clone(&identity), Arc::clone(state))),
            links: Arc::clone(&links),
            raft: raft.clone(),
            contact: Arc::clone(&contact),
            receiver: Receiver::new(layout),
            threads: messages.threads(),
            tls,
            handler: PeerService {
                raft: raft.clone(),
                identity: Arc::clone(&identity),
                state: Arc::clone(state),
                consensus,
                membership: membership.clone(),
                messages,
                proposals: queue,
                founding: founding(),
            },
        });
        tokio::spawn(server.run(acceptor, stop.clone()));
    }
    let level = Arc::new(LevelRaiser { members, links: Arc::clone(&links), proposals: proposals.clone() });
    let presence = Presence {
        raft: raft.clone(),
        identity: Arc::clone(&identity),
        state: Arc::clone(state),
        contact: Arc::clone(&contact),
        membership,
        proposals: proposals.clone(),
        level: Arc::clone(&level),
        node_timeout: config.node_timeout,
    };
    if join_in(&raft, &identity, founding()).await? {
        // The rules are the newest before the first event.
        level.raise().await;
        name_cluster(state, &identity, &proposals).await?;
        presence.be_known().await;
    }
    let until = stop.child_token();
    let presence = Task { stop: until.clone(), task: tokio::spawn(presence.run(until)) };
    let due = DueProposer {
        raft: raft.clone(),
        state: Arc::clone(state),
        links: Arc::clone(&links),
        proposals: proposals.clone(),
    };
    tokio::spawn(due.run(stop.clone()));
    tokio::spawn(tidy::run(raft.clone(), Arc::clone(state), proposals.clone(), stop.clone()));
    tokio::spawn(delayed::run(raft.clone(), Arc::clone(state), proposals.clone(), stop.clone()));
    tokio::spawn(founding().run(stop.clone()));
    tokio::spawn(status::tell_leaders(raft.clone(), stop.clone()));
    let liveness = Liveness {
        raft: raft.clone(),
        identity: Arc::clone(&identity),
        links: Arc::clone(&links),
        contact,
        state: Arc::clone(state),
        proposals,
        round_trips: Mutex::default(),
    };
    tokio::spawn(liveness.run(stop.clone()));
    Ok((Parts { node, raft, identity, links }, presence))
}

/// Whether this node is alone. Then the node leads at once; a node without a cluster founds its own if no other founder
/// is configured.
async fn join_in(raft: &Raft, identity: &Identity, founding: Founding) -> Result<bool, NodeError> {
    let initialized = raft.is_initialized().await.map_err(|error| raft_error(&error))?;
    let alone = if initialized {
        // No other node can vote: the election timeout would only delay the start.
        raft.voter_ids().eq([identity.id])
    } else {
        // A node with a cluster but without a log joins: it waits to be called.
        identity.cluster_id().is_empty() && identity.founders.len() <= 1
    };
    if !alone {
        return Ok(false);
    }
    if initialized {
        raft.trigger().elect(false).await.map_err(|error| raft_error(&error))?;
    } else {
        founding.alone().await?;
    }
    let wait = Some(ALONE_MAX);
    raft.wait(wait)
        .metrics(|metrics| metrics.current_leader.is_some(), "a leader")
        .await
        .map_err(|e| raft_error(&e))?;
    raft.wait_for_recovery(wait).await.map_err(|error| raft_error(&error))?;
    Ok(true)
}

/// Gives a new cluster its id.
async fn name_cluster(state: &State, identity: &Identity, proposals: &ProposalClient) -> Result<(), NodeError> {
    if state.machine().cluster_id().is_empty() {
        let create = ClusterCreate { cluster_id: identity.cluster_id() };
        proposals.command(Command::ClusterCreate(create)).await.map_err(|refusal| raft_error(&refusal))?;
    }
    Ok(())
}
