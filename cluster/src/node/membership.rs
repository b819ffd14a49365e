//! Changes of the membership: any node takes the request, and the leader carries it out, whichever node that is
//! meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use rollbook_core::command::{Done, Reply};
use rollbook_core::error::Refusal;
use rollbook_core::node::Node as Row;
use rollbook_core::reply;
use tokio::time::Instant;

use super::consensus::Consensus;
use super::peer_messages::refusal;
use super::proposal_client::ProposalClient;
use crate::member::members::{Change, ChangeRequest, Members};
use crate::peer::conn::CallError;
use crate::peer::frame::Kind;
use crate::peer::identity::Identity;
use crate::peer::link::{Links, Purpose};
use crate::peer::wire::NodeFigures;
use crate::replicate::contact::Contact;
use crate::status::Member;

/// How long a change may take, after which its outcome is unknown.
const CHANGE_MAX: Duration = Duration::from_secs(10);
/// How long a change is tried again with the next leader.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long the leader may take of that time, so that the caller on another node hears the outcome from the leader.
pub(crate) const LEADER_MAX: Duration = Duration::from_secs(8);
/// How long a member may take to say how far it is.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

fn unknown(why: &str) -> Refusal {
    Refusal::OutcomeUnknown(format!(
        "{why}: the change is completed when a majority answers; look at `rollbook cluster status` before it is repeated"
    ))
}

/// Changes the membership of the cluster, and lists the members. Each change is carried out by the leader.
#[derive(Clone)]
pub struct Membership {
    identity: Arc<Identity>,
    links: Arc<Links>,
    contact: Arc<Contact>,
    consensus: Consensus,
    proposals: ProposalClient,
    members: Arc<Members>,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership").finish_non_exhaustive()
    }
}

impl Membership {
    pub(crate) fn new(
        (identity, links, contact): (Arc<Identity>, Arc<Links>, Arc<Contact>),
        consensus: Consensus,
        proposals: ProposalClient,
        members: Arc<Members>,
    ) -> Self {
        Self { identity, links, contact, consensus, proposals, members }
    }

    /// The members of the cluster with how far each of them is; those that are up are asked themselves.
    pub async fn members(&self) -> Vec<Member> {
        let this = self.identity.id;
        let ask = async |member: Member| {
            if member.id == this || member.state != "up" {
                return member;
            }
            let answer = self.links.call(member.id, Purpose::Control, Kind::Figures, Bytes::new(), ANSWER_MAX).await;
            match answer.ok().and_then(|body| NodeFigures::decode(&body).ok()) {
                Some(NodeFigures { last, applied, .. }) => {
                    Member { last_index: Some(last), applied_index: Some(applied), ..member }
                }
                None => Member { state: "unknown", ..member },
            }
        };
        join_all(self.consensus.status().members.into_iter().map(ask)).await
    }

    /// A new node gets a number and learns from now on; it is to listen at `address`.
    ///
    /// # Errors
    /// The refusal of the rules or of the cluster.
    pub async fn join(&self, address: String) -> Result<Row, Refusal> {
        self.change(ChangeRequest { change: Change::Join(address), force: false }).await
    }

    /// A learner that answers and has caught up votes from now on; with `force` also one that does not, as long as
    /// the voters keep a majority that answers.
    ///
    /// # Errors
    /// [`Refusal::NodeNotFound`], [`Refusal::Membership`] with what to do, or the cluster is not available.
    pub async fn promote(&self, id: u64, force: bool) -> Result<Row, Refusal> {
        self.change(ChangeRequest { change: Change::Promote(id), force }).await
    }

    /// A node leaves the cluster for good; its number is never used again. Refused when the voters that are left had
    /// no majority that answers; with `force` those that do not answer lose their votes then. One that was removed
    /// before may be removed again.
    ///
    /// # Errors
    /// [`Refusal::NodeNotFound`], [`Refusal::Membership`] with what to do, or the cluster is not available.
    pub async fn remove(&self, id: u64, force: bool) -> Result<Row, Refusal> {
        self.change(ChangeRequest { change: Change::Remove(id), force }).await
    }

    /// Hands leadership over to the voter `to`, or to the best one. Returns the new leader.
    ///
    /// # Errors
    /// [`Refusal::NodeNotFound`], [`Refusal::Membership`] when that node did not take over, or the cluster is not
    /// available.
    pub async fn transfer(&self, to: Option<u64>) -> Result<Row, Refusal> {
        self.change(ChangeRequest { change: Change::Transfer(to.unwrap_or(0)), force: false }).await
    }

    /// Has the leader make a change; the answer comes within [`CHANGE_MAX`].
    async fn change(&self, request: ChangeRequest) -> Result<Row, Refusal> {
        let began = Instant::now();
        // Whether some leader may have done part of the change.
        let mut begun = false;
        loop {
            let left = CHANGE_MAX.saturating_sub(began.elapsed());
            let changed = match self.contact.leader() {
                Some(leader) if leader == self.identity.id => self.change_here(request.clone(), left).await,
                Some(leader) => self.change_there(leader, &request, left).await,
                None => Err(CallError::Unreachable("no leader".to_owned())),
            };
            begun |= !matches!(changed, Err(CallError::Unreachable(_)));
            // A change that was made may be asked for again, but not a number for a new node.
            let again = match &changed {
                Err(CallError::NotLeader | CallError::Unreachable(_)) => true,
                Err(CallError::Lost) => !matches!(request.change, Change::Join(_)),
                _ => false,
            };
            let must_end = self.identity.failure().is_some();
            if again && !must_end && began.elapsed() < RETRY_MAX {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            return changed.map_err(|error| match error {
                CallError::NotLeader => unknown("leadership was lost"),
                CallError::Lost | CallError::Late => unknown(&error.to_string()),
                CallError::Unreachable(why) if begun => unknown(&why),
                CallError::Unreachable(why) => Refusal::Unavailable(format!("{why}, nothing was changed")),
                error => refusal(error),
            });
        }
    }

    /// Makes a change, as the leader. The change runs to its end, also when its caller has stopped waiting.
    pub(crate) async fn change_here(&self, request: ChangeRequest, within: Duration) -> Result<Row, CallError> {
        let (members, proposals) = (Arc::clone(&self.members), self.proposals.clone());
        let made = self.members.runtime.spawn(async move {
            let propose = move |command| -> BoxFuture<'static, Reply> {
                let proposals = proposals.clone();
                Box::pin(async move { proposals.command(command).await })
            };
            members.change(request, &propose).await
        });
        match tokio::time::timeout(within.min(LEADER_MAX), made).await {
            Ok(Ok(made)) => made,
            Ok(Err(_)) => Err(CallError::Refused(Refusal::OutcomeUnknown("node is stopping".to_owned()))),
            Err(_) => Err(CallError::Refused(unknown("no majority agreed in time"))),
        }
    }

    async fn change_there(&self, leader: u64, request: &ChangeRequest, within: Duration) -> Result<Row, CallError> {
        let body = Bytes::from(request.to_bytes());
        // A connection that must be made first takes of the same time.
        let call = self.links.call(leader, Purpose::Control, Kind::Change, body, within);
        let answer = tokio::time::timeout(within, call).await.unwrap_or(Err(CallError::Late))?;
        match reply::decode(&answer).and_then(|mut replies| replies.pop()) {
            Some(Ok(Done::Node(row))) => Ok(row),
            _ => Err(CallError::Protocol("an answer of another kind")),
        }
    }

    /// As the leader, completes a change that the leader before left between two steps. Does not wait for the end of
    /// the change.
    pub(crate) fn complete_changes(&self) {
        if !self.members.is_halfway() {
            return;
        }
        let members = Arc::clone(&self.members);
        self.members.runtime.spawn(async move {
            if let Err(error) = members.complete_left().await {
                tracing::debug!(%error, "a change of the membership cannot be completed yet");
            }
        });
    }

    /// Hands leadership over when this node leads and another voter can take over. For a stop.
    pub async fn step_down(&self) {
        if !self.consensus.leads() || self.contact.voters() < 2 {
            return;
        }
        match self.members.transfer(0).await {
            Ok(row) => tracing::info!(to = row.id, "leadership was handed over"),
            Err(error) => tracing::warn!(%error, "leadership was not handed over"),
        }
    }
}
