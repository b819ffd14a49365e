//! A node that runs: starts everything of this floor from the bottom up, and stops it in reverse; and what runs beside
//! raft as long as it does: presence, liveness, settling, what is due, answers to other nodes.
//!
//! May import everything of this crate. Invariant: whatever is started here ends with [`Running`].

pub(crate) mod due;
pub(crate) mod level;
pub(crate) mod liveness;
pub(crate) mod membership;
pub(crate) mod peer_service;
pub(crate) mod presence;
pub(crate) mod settler;
pub(crate) mod shortage;
pub(crate) mod tidy;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Config, SnapshotPolicy};
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
use crate::node::{Inner, Node};
use crate::peer::gate::Gate;
use crate::peer::identity::Identity;
use crate::peer::link::Links;
use crate::peer::thread_connections::ThreadConnections;
use crate::peer::transport::{Acceptor, Dialer, Tcp, TcpAcceptor};
use crate::propose::batch;
use crate::propose::forward::ProposalForwarder;
use crate::propose::proposal;
use crate::replicate::contact::Contact;
use crate::replicate::machine::StateMachine;
use crate::replicate::network::Network;
use crate::replicate::raft::Raft;
use crate::replicate::receive::Receiver;
use crate::replicate::server::Server;
use crate::state::state::State;
use crate::status;
use crate::store::layout::Layout;
use crate::stores::{self, Stores};
use crate::timing::Timing;
use crate::tls::{Tls, TlsFiles};
use liveness::Liveness;
use peer_service::PeerService;
use presence::Presence;
use settler::Settler;

/// How long a stop waits for the tasks of the runtime.
const RUNTIME_MAX: Duration = Duration::from_secs(2);
/// How long a node that is alone may take to lead itself.
const ALONE_MAX: Duration = Duration::from_secs(30);

/// What a node needs to start.
#[derive(Debug)]
pub struct NodeConfig {
    /// Number of this node in the cluster.
    pub id: u64,
    /// Everything this node stores.
    pub data: PathBuf,
    /// Where other nodes call; `None` for a node that stays alone.
    pub listener: Option<TcpListener>,
    /// Where other nodes reach that listener.
    pub address: String,
    /// The nodes that found the cluster, this one included; empty for a node that is alone, or that joins.
    pub founders: BTreeMap<u64, String>,
    /// Certificates for calls between nodes; without, everybody who reaches the listener is believed.
    pub tls: Option<TlsFiles>,
    /// Longest wait for the answer to a proposed entry.
    pub timeout: Duration,
    /// A node that was not heard for this long is taken off the roll.
    pub node_timeout: Duration,
    /// How often a leader sends heartbeats, the same on all nodes; every other time of the cluster follows from it.
    pub heartbeat: Duration,
    /// Bytes of the log that are kept for nodes that are behind.
    pub log_keep_bytes: u64,
    /// The highest feature level that this node says it knows: lower than that of this release only to try an
    /// upgrade.
    pub level: FeatureLevel,
    /// The operator goes on with the raft log as it is, though the mark that says how far it was acknowledged is lost.
    pub accept_lost_mark: bool,
}

/// The node number that a data directory was made for.
#[must_use]
pub fn recorded_node(data: &Path) -> Option<u64> {
    Layout::recorded_node(data)
}

/// Owns what a node runs on: raft's threads, the settler. Stop it from a thread that may block.
#[derive(Debug)]
pub struct Running {
    node: Node,
    runtime: Runtime,
    stop: CancellationToken,
    presence: Task,
    settler: Mutex<Option<JoinHandle<()>>>,
    writer: JoinHandle<()>,
}

/// A task that is ended before the others.
#[derive(Debug)]
pub(crate) struct Task {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// What runs on the stores.
struct Parts {
    node: Node,
    runtime: Runtime,
    presence: Task,
    settler: JoinHandle<()>,
}

impl Parts {
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
        let started = runtime.block_on(async {
            let mut config = config;
            let transport = Transport::tcp(&mut config)?;
            assemble(config, transport, layout, log, state, stop).await
        });
        let settled = started.and_then(|(node, presence)| {
            let settler = Settler {
                state: Arc::clone(state),
                log: log.clone(),
                raft: node.inner().raft.clone(),
                node: node.clone(),
                runtime: runtime.handle().clone(),
                stop: stop.clone(),
                keep_bytes: node.inner().log_keep_bytes,
            };
            let thread = std::thread::Builder::new().name("settle".to_owned()).spawn(move || settler.run());
            thread.map(|settler| (node, presence, settler)).map_err(|error| raft_error(&error))
        });
        match settled {
            Ok((node, presence, settler)) => Ok(Self { node, runtime, presence, settler }),
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
        match Parts::start(config, &layout, &log, &state, &stop) {
            Ok(Parts { node, runtime, presence, settler }) => {
                Ok(Self { node, runtime, stop, presence, settler: Mutex::new(Some(settler)), writer })
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
        self.node.clone()
    }

    /// Follows whether this node must not go on, and why.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.node.inner().identity.fatal()
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
        let Task { stop, task } = self.presence;
        stop.cancel();
        self.runtime.block_on(async {
            // First, or this node would see that it is given up and begin a new life.
            if task.await.is_err() {
                tracing::error!("the task that makes this node known had panicked");
            }
            // One that must not go on has no last word: nobody hears a node that was removed.
            if has_others(&self.node) && self.node.inner().identity.failure().is_none() {
                presence::leave(&self.node).await;
            }
        });
        self.stop.cancel();
        if let Some(settler) = lock(&self.settler).take()
            && settler.join().is_err()
        {
            tracing::error!("the settler had panicked");
        }
        let inner = self.node.inner();
        tracing::debug!("the settler has stopped");
        let shutdown = self.runtime.block_on(async {
            let shutdown = inner.raft.shutdown().await.map_err(|error| raft_error(&error));
            inner.links.close();
            shutdown
        });
        let flushed = self.runtime.block_on(stores::flush(&inner.state, &inner.log));
        tracing::debug!("raft has stopped and its log is flushed");
        // Whatever went wrong: the stores are closed before the process ends.
        let Self { node, runtime, writer, .. } = self;
        let (state, log) = (Arc::clone(&node.inner().state), node.inner().log.clone());
        drop(node);
        runtime.shutdown_timeout(RUNTIME_MAX);
        stores::close(Some(state), log, writer);
        shutdown.and(flushed)
    }
}

/// Whether the cluster has other members than this node, voters or learners.
fn has_others(node: &Node) -> bool {
    let metrics = node.inner().raft.server_metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.nodes().any(|(id, _)| *id != node.id())
}

/// Raft's tasks hand work to each other: on few cores, threads between them only add wake-ups.
fn raft_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4))
}

pub(crate) fn settings(timing: Timing) -> Result<Arc<Config>, NodeError> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let settings = Config {
        cluster_name: "rollbook".to_owned(),
        // Of a heartbeat openraft lets one time be the interval and the time for its answer. It is the latter here,
        // and the interval is kept by `beat`.
        heartbeat_interval: millis(timing.answer()),
        election_timeout_min: millis(timing.election_min()),
        election_timeout_max: millis(timing.election_max()),
        max_payload_entries: 64,
        max_append_entries: Some(1024),
        api_channel_size: Some(4096),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 1_000_000,
        purge_batch_size: 1,
        enable_pre_vote: Some(true),
        // A leader without a majority is silent every other time: the lease of those who hear it must not keep them
        // from electing another one with nodes that it cannot reach.
        quorum_loss_probe_interval: Some(millis(timing.election_max().saturating_mul(2))),
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        broadcast_submitted_on_append: Some(true),
        ..Config::default()
    };
    Ok(Arc::new(settings.validate().map_err(|error| raft_error(&error))?))
}

/// Sends the heartbeats of a leader until raft stops. Between two of them a follower has time to answer, and one that
/// has not answered yet gets no other.
pub(crate) async fn beat(raft: Raft, timing: Timing) {
    while raft.metrics().borrow_watched().running_state.is_ok() {
        tokio::time::sleep(timing.heartbeat()).await;
        if raft.is_leader() && raft.trigger().heartbeat().await.is_err() {
            return;
        }
    }
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
) -> Result<(Node, Task), NodeError> {
    // Before raft makes or takes a snapshot. What stays behind costs disk and nothing else.
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
    let raft = Raft::new(config.id, settings(timing)?, network, log.clone(), machine).await;
    let raft = raft.map_err(|error| raft_error(&error))?;
    let contact = Arc::new(Contact::new(raft.clone(), Arc::clone(&identity), timing));
    let (beats, looks, ends) = (raft.clone(), Arc::clone(&contact), stop.clone());
    tokio::spawn(async move { ends.run_until_cancelled(beat(beats, timing)).await });
    tokio::spawn(looks.run(stop.clone()));
    let (asks, queue) = proposal::queue();
    let carrier = ProposalForwarder {
        raft: raft.clone(),
        identity: Arc::clone(&identity),
        links: Arc::clone(&links),
        state: Arc::clone(state),
        contact: Arc::clone(&contact),
        batches: AtomicU64::new(1),
    };
    tokio::spawn(batch::run(Arc::new(carrier), queue));
    let (live, homes) = (Arc::new(OnceLock::new()), Arc::<ThreadConnections>::default());
    let members = Members {
        raft: raft.clone(),
        identity: Arc::clone(&identity),
        state: Arc::clone(state),
        runtime: runtime::Handle::current(),
        turn: tokio::sync::Mutex::new(()),
    };
    let node = Node::new(Inner {
        raft: raft.clone(),
        asks: asks.clone(),
        timeout: config.timeout,
        state: Arc::clone(state),
        log: log.clone(),
        identity: Arc::clone(&identity),
        links: Arc::clone(&links),
        contact: Arc::clone(&contact),
        members,
        live: Arc::clone(&live),
        homes: Arc::clone(&homes),
        log_keep_bytes: config.log_keep_bytes,
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
            homes,
            tls,
            office: PeerService { node: node.clone(), asks, founding: founding(), live },
        });
        tokio::spawn(server.run(acceptor, stop.clone()));
    }
    let presence = Presence { node: node.clone(), node_timeout: config.node_timeout };
    if join_in(&node, founding()).await? {
        presence.be_known().await;
    }
    let until = stop.child_token();
    let presence = Task { stop: until.clone(), task: tokio::spawn(presence.run(until)) };
    tokio::spawn(due::run(node.clone(), stop.clone()));
    tokio::spawn(tidy::run(node.clone(), stop.clone()));
    tokio::spawn(founding().run(stop.clone()));
    tokio::spawn(status::tell_leaders(raft.clone(), stop.clone()));
    let liveness = Liveness::new(node.clone(), raft, identity, links);
    tokio::spawn(liveness.run(stop.clone()));
    Ok((node, presence))
}

/// Whether this node is alone. Then it leads at once; one that is not yet in a cluster founds its own when nobody else is meant to.
async fn join_in(node: &Node, founding: Founding) -> Result<bool, NodeError> {
    let inner = node.inner();
    let (raft, identity) = (&inner.raft, &inner.identity);
    let initialized = raft.is_initialized().await.map_err(|error| raft_error(&error))?;
    let alone = if initialized {
        // Nobody to wait for: the election timeout would only delay the start.
        raft.voter_ids().eq([identity.id])
    } else {
        // With a cluster but no log it waits to be called: it joins.
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
    // The rules are the newest before the first event.
    level::raise(node).await;
    node.found().await?;
    Ok(true)
}
