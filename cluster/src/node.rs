//! The node handle: propose, read, follow what is applied, talk to other nodes.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use prost::Message as _;
use rollbook_core::central::ConfigRevision;
use rollbook_core::command::{self, Command, Found, Reply};
use rollbook_core::consumer::Consumer;
use rollbook_core::error::Refusal;
use rollbook_core::machine::Machine;
use rollbook_core::namespace::Head;
use rollbook_core::node::Owner;
use rollbook_core::rows::Family;
use tokio::sync::{oneshot, watch};

use crate::book::events::Book;
use crate::error::{NodeError, ReadError};
use crate::live::Live;
use crate::lock::lock;
use crate::log::store::LogStore;
use crate::member::members::Members;
use crate::peer::conn::CallError;
use crate::peer::frame::Kind;
use crate::peer::identity::Identity;
use crate::peer::link::{Links, Purpose};
use crate::peer::thread_connections::ThreadConnections;
use crate::peer::wire::{self, NodeFigures};
use crate::propose::proposal::{Proposal, ProposalQueue};
use crate::replicate::contact::Contact;
use crate::replicate::raft::Raft;
use crate::state::state::State;
use crate::status::{self, Member, Status};
use crate::types::LogId;
use crate::wait::wait_until;

/// How long the leader may take to answer a question.
const ASK_MAX: Duration = Duration::from_secs(2);
/// How long a read waits until this node has seen enough.
const READ_MAX: Duration = Duration::from_secs(5);

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// As if there were one node: the leader asks a majority first.
    #[default]
    Linearizable,
    /// As the leader has it now, as far as it believes to lead.
    Leader,
    /// As this node has it, however old.
    Stale,
}

pub(crate) struct Inner {
    pub(crate) raft: Raft,
    pub(crate) asks: ProposalQueue,
    /// Longest wait for the answer to an ask.
    pub(crate) timeout: Duration,
    pub(crate) state: Arc<State>,
    pub(crate) log: LogStore,
    pub(crate) identity: Arc<Identity>,
    pub(crate) links: Arc<Links>,
    pub(crate) contact: Arc<Contact>,
    pub(crate) members: Members,
    pub(crate) live: Arc<OnceLock<Arc<dyn Live>>>,
    pub(crate) homes: Arc<ThreadConnections>,
    pub(crate) log_keep_bytes: u64,
}

/// Handle of a running node. Clones share it; safe to use from any thread and runtime.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.inner.identity.id).finish_non_exhaustive()
    }
}

/// What somebody who asked hears of a failed call.
pub(crate) fn refusal(error: CallError) -> Refusal {
    match error {
        CallError::Refused(refusal) => refusal,
        // An answer that cannot be read says nothing about what was done.
        other @ (CallError::Lost | CallError::Late | CallError::Protocol(_)) => {
            Refusal::OutcomeUnknown(other.to_string())
        }
        other @ (CallError::Unreachable(_) | CallError::NotLeader) => Refusal::Unavailable(other.to_string()),
    }
}

impl Node {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Number of this node in its cluster.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.identity.id
    }

    /// This life of this node.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.inner.identity.owner()
    }

    /// Whether this node leads, as far as it knows.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.inner.raft.is_leader()
    }

    /// Puts a whole frame into the log, through the leader when that is another node. The answer comes when it
    /// is synced on a majority; that of a command also when this node shows its effect. Frames of one caller get into
    /// the log in their order, and each has an answer within the timeout of the node. A publish whose answer nobody
    /// waits for any more is not written, unless it was on its way already.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when too many asks wait already, [`Refusal::Unavailable`] for a command, or an
    /// event with headers, above the feature level of the cluster.
    pub fn propose(&self, frame: Bytes) -> Result<oneshot::Receiver<Reply>, Refusal> {
        if command::needs_level(&frame) {
            command::check_level(&frame, 1, self.inner.state.machine().level())?;
        }
        let (ask, reply) = Proposal::of_client(frame, self.inner.timeout);
        self.inner.asks.push(ask)?;
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

    /// The heads of the namespaces that changed since the last call, whether clients can see them or not. A change
    /// is here before [`Node::applied`] moves. For one caller alone: the feed.
    #[must_use]
    pub fn take_changed(&self) -> Vec<Arc<Head>> {
        lock(&self.inner.state.changes).take_followed().into_values().collect()
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

    /// Looks at the rules' own view of the cluster. Whatever is done in there holds up what is applied.
    pub fn with_machine<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.inner.state.machine())
    }

    /// The central configuration as it is now; revision 0 before anybody set it.
    #[must_use]
    pub fn config(&self) -> ConfigRevision {
        self.inner.state.machine().config().clone()
    }

    /// An earlier central configuration, while it is remembered. Reads from the disk.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn config_revision(&self, revision: u64) -> Result<Option<ConfigRevision>, ReadError> {
        let row = self.inner.state.row(Family::Config, &revision.to_be_bytes())?;
        row.map(|row| decode_config(&row)).transpose()
    }

    /// The central configurations that are remembered, oldest first. Reads from the disk.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn config_revisions(&self) -> Result<Vec<ConfigRevision>, ReadError> {
        let rows = self.inner.state.rows(Family::Config)?;
        rows.iter().map(|(_, row)| decode_config(row)).collect()
    }

    /// Whether that life of a node has not ended.
    #[must_use]
    pub fn is_alive(&self, owner: Owner) -> bool {
        self.inner.state.machine().is_alive(owner)
    }

    /// The present life of a node, as the cluster knows it.
    pub(crate) fn life_of(&self, id: u64) -> Option<Owner> {
        let machine = self.inner.state.machine();
        machine.node(id).filter(|row| row.up).map(|row| Owner { node: id, incarnation: row.incarnation })
    }

    /// Whether the cluster knows this number, and that the node is not up.
    #[must_use]
    pub fn is_down(&self, id: u64) -> bool {
        self.inner.state.machine().node(id).is_some_and(|row| !row.up)
    }

    /// The other nodes that are up, as far as the cluster knows.
    #[must_use]
    pub fn others_up(&self) -> Vec<u64> {
        let machine = self.inner.state.machine();
        machine.nodes().filter(|row| row.up && row.id != self.inner.identity.id).map(|row| row.id).collect()
    }

    /// How this node sees its cluster.
    #[must_use]
    pub fn status(&self) -> Status {
        // One that lost its majority does not lead, whatever it believes.
        let leader = self.inner.contact.leader();
        // A copy: raft waits for whoever borrows its metrics, and nobody may borrow them while he waits for the rules.
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let machine = self.inner.state.machine();
        Status {
            id: self.inner.identity.id,
            cluster_id: self.inner.identity.cluster_id(),
            leader,
            term: metrics.current_term,
            role: status::role(metrics.state),
            first_index: metrics.purged.as_ref().map_or(0, |id| id.index.saturating_add(1)),
            last_index: metrics.last_log_index.unwrap_or(0),
            applied_index: metrics.last_applied.as_ref().map_or(0, |id| id.index),
            members: status::members(&metrics, leader, &machine, &self.inner.identity.address),
        }
    }

    /// The members of the cluster with how far each of them is, those that answer asked themselves.
    pub async fn members(&self) -> Vec<Member> {
        let members = self.status().members;
        let ask = async |member: Member| {
            if member.id == self.id() || member.state != "up" {
                return member;
            }
            let asked = self.inner.links.call(member.id, Purpose::Control, Kind::Standing, Bytes::new(), ASK_MAX);
            match asked.await.ok().and_then(|body| NodeFigures::decode(&body).ok()) {
                Some(NodeFigures { last, applied, .. }) => {
                    Member { last_index: Some(last), applied_index: Some(applied), ..member }
                }
                None => Member { state: "unknown", ..member },
            }
        };
        join_all(members.into_iter().map(ask)).await
    }

    /// Whether recorded writes can be accepted, and if not, why.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] without a leader that has a majority.
    pub fn ready(&self) -> Result<(), Refusal> {
        // Perhaps it was removed, and is on its way out.
        if let Some(why) = self.inner.identity.failure() {
            return Err(Refusal::Unavailable(why));
        }
        self.inner.contact.ready()?;
        if self.inner.state.machine().cluster_id().is_empty() {
            return Err(Refusal::Unavailable("the cluster is being founded".to_owned()));
        }
        if self.is_alive(self.owner()) { Ok(()) } else { Err(Refusal::Unavailable("node is joining".to_owned())) }
    }

    /// How long this node has had no leader with a majority, as far as it knows; `None` while it has one.
    #[must_use]
    pub fn isolated_for(&self) -> Option<Duration> {
        self.inner.contact.lost_for()
    }

    /// Whether another node can be called now.
    #[must_use]
    pub fn reaches(&self, node: u64) -> bool {
        self.inner.links.present(node, Purpose::Control).is_some()
    }

    /// Waits until a read on this node is as fresh as wanted; the index of the last entry that it then sees.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when that cannot be had: no leader, no majority, or this node is too far behind.
    pub async fn read_barrier(&self, consistency: Consistency) -> Result<u64, Refusal> {
        let mut applied = self.inner.state.applied();
        let wanted = match consistency {
            Consistency::Stale => 0,
            Consistency::Leader | Consistency::Linearizable => self.read_index(consistency).await?,
        };
        let behind = |_| Refusal::Unavailable("this node is behind the leader".to_owned());
        let seen = wait_until(&mut applied, |next| *next > wanted || wanted == 0);
        let seen = tokio::time::timeout(READ_MAX, seen).await.map_err(behind)?;
        seen.map_err(|_| Refusal::Unavailable("node is stopping".to_owned()))?;
        Ok(applied.borrow().saturating_sub(1))
    }

    async fn read_index(&self, consistency: Consistency) -> Result<u64, Refusal> {
        let leader = self.inner.contact.ready()?;
        let no_majority = || Refusal::Unavailable("no majority of the cluster answers".to_owned());
        if leader == self.id() {
            if consistency == Consistency::Leader {
                return Ok(0);
            }
            let read = self.inner.raft.get_read_log_id(ReadPolicy::ReadIndex);
            let read = tokio::time::timeout(ASK_MAX, read).await.map_err(|_| no_majority())?;
            return read.map(|(id, _)| id.index()).map_err(|_| no_majority());
        }
        let kind = if consistency == Consistency::Leader { Kind::Standing } else { Kind::ReadIndex };
        let body = self.inner.links.call(leader, Purpose::Control, kind, Bytes::new(), ASK_MAX).await;
        let body = body.map_err(|error| Refusal::Unavailable(format!("leader: {error}")))?;
        let malformed = |what: &str| Refusal::Unavailable(what.to_owned());
        if kind == Kind::ReadIndex {
            return wire::decode_number(&body).map_err(malformed);
        }
        NodeFigures::decode(&body).map(|figures| figures.applied).map_err(malformed)
    }

    /// From now on live messages of other nodes go there. Only the first call counts.
    pub fn set_live(&self, live: Arc<dyn Live>) {
        if self.inner.live.set(live).is_err() {
            tracing::error!("live messages have a taker already");
        }
    }

    /// The calling thread, which runs a runtime of its own, waits for live messages: from now on it has connections
    /// of its own to other nodes for them, and takes those of other nodes, so that they wake no other thread.
    ///
    /// # Panics
    /// When there is no runtime.
    pub fn settle_here(&self) {
        self.inner.homes.add_this_thread();
    }

    /// Sends a live message without an answer, when there is room on the way now.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when the node is not reachable, [`Refusal::Overloaded`] when too much is on the way.
    pub async fn tell(&self, node: u64, message: Bytes) -> Result<(), Refusal> {
        let conn = self.inner.links.conn(node, Purpose::Live, ASK_MAX).await.map_err(refusal)?;
        conn.tell(Kind::Tell, message).map_err(|_| Refusal::Overloaded("too much is on the way".to_owned()))
    }

    /// Sends a live message and waits for its answer.
    ///
    /// # Errors
    /// The refusal of the other side, or [`Refusal::Unavailable`] when there was no answer.
    pub async fn ask(&self, node: u64, message: Bytes, within: Duration) -> Result<Bytes, Refusal> {
        self.inner.links.call(node, Purpose::Live, Kind::Ask, message, within).await.map_err(refusal)
    }

    /// The first entry that some other node does not have, when this node leads.
    pub(crate) fn slowest_follower(&self) -> Option<u64> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let next = |id: &Option<LogId>| id.map_or(0, |id| id.index.saturating_add(1));
        let others = metrics.replication.as_ref()?.iter().filter(|(id, _)| **id != self.id());
        Some(others.map(|(_, matched)| next(matched)).min().unwrap_or(u64::MAX))
    }

    /// The first entry that some node does not have, as the leader says; `None` when it cannot be asked.
    pub(crate) async fn slowest(&self) -> Option<u64> {
        let leader = self.inner.contact.leader()?;
        if leader == self.id() {
            return self.slowest_follower();
        }
        let asked = self.inner.links.call(leader, Purpose::Control, Kind::Standing, Bytes::new(), ASK_MAX).await;
        NodeFigures::decode(&asked.ok()?).ok().map(|figures| figures.slowest)
    }

    /// By how many milliseconds the clocks of the nodes are ahead of the time that entries get, while that is in
    /// doubt; 0 when all is well.
    #[must_use]
    pub fn clock_skew(&self) -> i64 {
        self.inner.state.clock.skew()
    }

    /// Gives a new cluster its id.
    pub(crate) async fn found(&self) -> Result<(), NodeError> {
        if self.inner.state.machine().cluster_id().is_empty() {
            let found = Found { cluster_id: self.inner.identity.cluster_id() };
            self.command(Command::Found(found)).await.map_err(|refusal| NodeError::Raft(refusal.to_string()))?;
        }
        Ok(())
    }
}

fn decode_config(row: &[u8]) -> Result<ConfigRevision, ReadError> {
    ConfigRevision::decode(row).map_err(|error| ReadError(format!("config row: {error}")))
}
