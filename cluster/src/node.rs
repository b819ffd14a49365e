//! The node handle: propose, read, follow what is applied; start and stop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::impls::BasicNode;
use openraft::{Config, ServerState, SnapshotPolicy};
use rollbook_core::command::{Command, Found, Reply};
use rollbook_core::consumer::Consumer;
use rollbook_core::error::Refusal;
use rollbook_core::namespace::Head;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::batch::{self, Ask, QUEUE_ASKS_MAX, describe, now_millis};
use crate::error::NodeError;
use crate::events::Book;
use crate::log::LogStore;
use crate::machine::StateMachine;
use crate::network::Network;
use crate::raft::Raft;
use crate::retain;
use crate::settler::Settler;
use crate::state::State;
use crate::store::Layout;

/// How long a stop waits for others to let go of the stores.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// What a node needs to start.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Number of this node in the cluster.
    pub id: u64,
    /// Everything this node stores.
    pub data: PathBuf,
    /// Where other nodes reach it.
    pub address: String,
    /// Longest wait for the answer to a proposed entry.
    pub timeout: Duration,
}

/// How a node sees its cluster.
#[derive(Debug, Clone)]
pub struct Status {
    /// This node.
    pub id: u64,
    /// Random id of the cluster, empty before it was founded.
    pub cluster_id: String,
    /// The leader, when there is one.
    pub leader: Option<u64>,
    /// Raft term.
    pub term: u64,
    /// `leader`, `follower`, `learner`, `candidate` or `shutdown`.
    pub role: &'static str,
    /// Index of the last entry in this node's log.
    pub last_index: u64,
    /// Index of the last entry applied on this node.
    pub applied_index: u64,
    /// Members by id, with their addresses.
    pub members: BTreeMap<u64, String>,
}

struct Inner {
    id: u64,
    raft: Raft,
    asks: mpsc::Sender<Ask>,
    state: Arc<State>,
    log: LogStore,
}

/// Handle of a running node. Clones share it; safe to use from any thread and runtime.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.inner.id).finish_non_exhaustive()
    }
}

/// Owns what a node runs on: raft's threads, the settler. Stop it from a thread that may block.
#[derive(Debug)]
pub struct Running {
    node: Node,
    runtime: tokio::runtime::Runtime,
    stop: CancellationToken,
    settler: Mutex<Option<std::thread::JoinHandle<()>>>,
    writer: std::thread::JoinHandle<()>,
}

impl Running {
    /// Opens the stores, joins the cluster or founds one, and waits until there is a leader.
    ///
    /// # Errors
    /// The data directory cannot be used, is damaged, or raft does not come up.
    pub fn start(config: &NodeConfig) -> Result<Self, NodeError> {
        let layout = Layout::open(&config.data, config.id)?;
        let (log, writer) = LogStore::open(&layout)?;
        let state = State::open(&layout)?;
        let (state_next, log_next) = (*state.applied().borrow(), log.next_index());
        if state_next > log_next {
            return Err(NodeError::StateAhead { state: state_next.saturating_sub(1), log: log_next.saturating_sub(1) });
        }
        // openraft must not share a thread with the doors: it has a runtime of its own.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(raft_threads())
            .thread_name("raft")
            .enable_all()
            .build()
            .map_err(|error| NodeError::Raft(error.to_string()))?;
        let stop = CancellationToken::new();
        let (asks, queue) = mpsc::channel(QUEUE_ASKS_MAX);
        let raft = runtime.block_on(start_raft(config, &log, &state))?;
        runtime.spawn(batch::run(raft.clone(), queue, config.timeout));
        let node = Node {
            inner: Arc::new(Inner {
                id: config.id,
                raft: raft.clone(),
                asks,
                state: Arc::clone(&state),
                log: log.clone(),
            }),
        };
        runtime.block_on(node.found())?;
        runtime.spawn(retain_loop(node.clone(), stop.clone()));
        let settler = Settler { state, log, raft, runtime: runtime.handle().clone(), stop: stop.clone() };
        let settler = std::thread::Builder::new()
            .name("settle".to_owned())
            .spawn(move || settler.run())
            .map_err(|error| NodeError::Raft(error.to_string()))?;
        Ok(Self { node, runtime, stop, settler: Mutex::new(Some(settler)), writer })
    }

    /// The handle to use the node with.
    #[must_use]
    pub fn node(&self) -> Node {
        self.node.clone()
    }

    /// Stops raft, then brings everything to the disk, so that the next start has nothing to do.
    ///
    /// # Errors
    /// What could not be brought to the disk; acknowledged events are on it in any case.
    pub fn stop(self) -> Result<(), NodeError> {
        self.stop.cancel();
        if let Some(settler) = self.settler.lock().unwrap_or_else(PoisonError::into_inner).take()
            && settler.join().is_err()
        {
            tracing::error!("the settler had panicked");
        }
        let inner = &self.node.inner;
        tracing::debug!("the settler has stopped");
        let stopped = self.runtime.block_on(async {
            let shutdown = inner.raft.shutdown().await.map_err(|error| NodeError::Raft(error.to_string()));
            inner.log.flush().await.map_err(|e| NodeError::Store { store: "raft", detail: e.to_string() })?;
            shutdown
        });
        tracing::debug!("raft has stopped and its log is flushed");
        inner.state.flush().map_err(|error| NodeError::Store { store: "state", detail: error.0 })?;
        let Self { node, runtime, writer, .. } = self;
        let (state, log) = (Arc::clone(&node.inner.state), node.inner.log.clone());
        drop(node);
        runtime.shutdown_timeout(Duration::from_secs(2));
        close(state, log, writer);
        stopped
    }
}

/// Closes the stores here, when nobody else has them any more: RocksDB aborts a process that ends while one of
/// its threads still closes them.
fn close(state: Arc<State>, log: LogStore, writer: std::thread::JoinHandle<()>) {
    let until = Instant::now() + RELEASE_MAX;
    while Arc::strong_count(&state) > 1 || log.is_shared() {
        if Instant::now() > until {
            tracing::warn!("the stores are still in use at the end");
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    drop((state, log));
    if writer.join().is_err() {
        tracing::error!("the log writer had panicked");
    }
}

/// Raft's tasks hand work to each other: on few cores, threads between them only add wake-ups.
fn raft_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4))
}

async fn start_raft(config: &NodeConfig, log: &LogStore, state: &Arc<State>) -> Result<Raft, NodeError> {
    let failed = |error: &dyn std::fmt::Display| NodeError::Raft(error.to_string());
    let settings = Config {
        cluster_name: "rollbook".to_owned(),
        heartbeat_interval: 100,
        election_timeout_min: 500,
        election_timeout_max: 1000,
        max_payload_entries: 64,
        max_append_entries: Some(1024),
        api_channel_size: Some(4096),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 1_000_000,
        purge_batch_size: 1,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        broadcast_submitted_on_append: Some(true),
        ..Config::default()
    };
    let settings = Arc::new(settings.validate().map_err(|error| failed(&error))?);
    let machine = StateMachine::new(Arc::clone(state), log);
    let raft = Raft::new(config.id, settings, Network, log.clone(), machine).await.map_err(|error| failed(&error))?;
    let initialized = raft.is_initialized().await.map_err(|error| failed(&error))?;
    if initialized {
        // Alone there is nobody to wait for: the election timeout would only delay the start.
        if raft.voter_ids().eq([config.id]) {
            raft.trigger().elect(false).await.map_err(|error| failed(&error))?;
        }
    } else {
        let members = BTreeMap::from([(config.id, BasicNode::new(&config.address))]);
        raft.initialize(members).await.map_err(|error| NodeError::Raft(describe(&error)))?;
    }
    let wait = Some(Duration::from_secs(30));
    raft.wait(wait).metrics(|metrics| metrics.current_leader.is_some(), "a leader").await.map_err(|e| failed(&e))?;
    raft.wait_for_recovery(wait).await.map_err(|error| failed(&error))?;
    Ok(raft)
}

/// Once a second, on the leader: proposes what retention takes away.
async fn retain_loop(node: Node, stop: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if node.status().role != "leader" {
            continue;
        }
        let state = Arc::clone(&node.inner.state);
        let due = tokio::task::spawn_blocking(move || retain::due(&state, now_millis())).await;
        let commands = match due {
            Ok(Ok(commands)) => commands,
            Ok(Err(error)) => {
                tracing::error!(%error, "retention could not look at the book");
                continue;
            }
            Err(_) => return,
        };
        for command in commands {
            if let Err(refusal) = node.command(command).await {
                tracing::warn!(%refusal, "retention was refused");
            }
        }
    }
}

impl Node {
    /// Number of this node in its cluster.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Puts a whole frame into the log. The answer comes when it is synced on a majority and applied here.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when too many asks wait already.
    pub fn propose(&self, frame: Bytes) -> Result<oneshot::Receiver<Reply>, Refusal> {
        let (answer, reply) = oneshot::channel();
        self.inner.asks.try_send(Ask { frame, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::Overloaded("too many publishes wait".to_owned()),
            mpsc::error::TrySendError::Closed(_) => Refusal::Unavailable("node is stopping".to_owned()),
        })?;
        Ok(reply)
    }

    /// Proposes a command and waits for its answer.
    ///
    /// # Errors
    /// The refusal of the rules or of the cluster.
    pub async fn command(&self, command: Command) -> Reply {
        let reply = self.propose(command.frame()?.into())?;
        reply.await.unwrap_or_else(|_| Err(Refusal::OutcomeUnknown("node is stopping".to_owned())))
    }

    /// The events of this node.
    #[must_use]
    pub fn book(&self) -> Book {
        Book::new(Arc::clone(&self.inner.state), self.inner.log.clone())
    }

    /// Follows the index behind the last applied entry.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.state.applied()
    }

    /// A namespace that clients can see.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<Head> {
        self.inner.state.machine().head(name).cloned()
    }

    /// Whether there is a namespace of this name that clients can see.
    #[must_use]
    pub fn has_namespace(&self, name: &str) -> bool {
        self.inner.state.machine().head(name).is_some()
    }

    /// All namespaces that clients can see, by name.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Head> {
        self.inner.state.machine().heads().filter(|head| !head.deleted).cloned().collect()
    }

    /// The durable consumers of a namespace, by name.
    #[must_use]
    pub fn consumers(&self, head: &Head) -> Vec<Consumer> {
        self.inner.state.machine().consumers(head.id).cloned().collect()
    }

    /// One durable consumer.
    #[must_use]
    pub fn consumer(&self, head: &Head, name: &str) -> Option<Consumer> {
        self.inner.state.machine().consumer(head.id, name).cloned()
    }

    /// How this node sees its cluster.
    #[must_use]
    pub fn status(&self) -> Status {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership().nodes().map(|(id, node)| (*id, node.addr.clone()));
        Status {
            id: self.inner.id,
            cluster_id: self.inner.state.machine().cluster_id().to_owned(),
            leader: metrics.current_leader,
            term: metrics.current_term,
            role: match metrics.state {
                ServerState::Leader => "leader",
                ServerState::Follower => "follower",
                ServerState::Learner => "learner",
                ServerState::Candidate => "candidate",
                ServerState::Shutdown => "shutdown",
            },
            last_index: metrics.last_log_index.unwrap_or(0),
            applied_index: metrics.last_applied.as_ref().map_or(0, |id| id.index),
            members: members.collect(),
        }
    }

    /// Whether recorded writes can be accepted, and if not, why.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] without a leader.
    pub fn ready(&self) -> Result<(), Refusal> {
        match self.inner.raft.metrics().borrow_watched().current_leader {
            Some(_) => Ok(()),
            None => Err(Refusal::Unavailable("no leader".to_owned())),
        }
    }

    /// Gives a new cluster its id.
    async fn found(&self) -> Result<(), NodeError> {
        if self.inner.state.machine().cluster_id().is_empty() {
            let found = Found { cluster_id: uuid::Uuid::new_v4().simple().to_string() };
            self.command(Command::Found(found)).await.map_err(|refusal| NodeError::Raft(refusal.to_string()))?;
        }
        Ok(())
    }
}
