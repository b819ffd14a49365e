//! The founding of a cluster: once, by the founding nodes together, never twice.
//!
//! The founder with the lowest number asks all others. When all are there, with the same
//! list and without a cluster, it gives every one of them the id of the cluster; each
//! has it on its disk before it says yes. Only then is raft initialized, on that one
//! node. A founder that comes back without its data finds the others with a cluster,
//! and is refused by their gates. When no founder is left, the members that call it under its old number tell it so
//! ([`crate::peer::gate`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::impls::BasicNode;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::error::NodeError;
use crate::peer::frame::Kind;
use crate::peer::hello;
use crate::peer::identity::Identity;
use crate::peer::link::{Links, Purpose};
use crate::replicate::raft::Raft;

/// How long one founder may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Between rounds.
const ROUND: Duration = Duration::from_millis(200);
/// How often it is said for whom we wait.
const TELL_EVERY: u32 = 25;

/// How far a founder is.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FoundingStatus {
    #[prost(string, tag = "1")]
    pub(crate) cluster_id: String,
    /// It has a log of the cluster.
    #[prost(bool, tag = "2")]
    pub(crate) initialized: bool,
    #[prost(btree_map = "uint64, string", tag = "3")]
    pub(crate) founders: BTreeMap<u64, String>,
}

/// What the founders' answers mean.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Found it, with this id when some have one already.
    Found(Option<String>),
    Wait(String),
    /// Never.
    Refuse(String),
}

fn judge(this: u64, own: &FoundingStatus, others: &BTreeMap<u64, Option<FoundingStatus>>) -> Verdict {
    let mut id = Some(own.cluster_id.clone()).filter(|id| !id.is_empty());
    for (node, standing) in others {
        let Some(standing) = standing else { return Verdict::Wait(format!("node {node} does not answer")) };
        if standing.initialized {
            return Verdict::Refuse(hello::lost_data(this, &standing.cluster_id));
        }
        let ids = |of: &FoundingStatus| of.founders.keys().copied().collect::<Vec<_>>();
        if ids(standing) != ids(own) {
            let list: Vec<String> = standing.founders.iter().map(|(id, address)| format!("{id}={address}")).collect();
            return Verdict::Wait(format!("node {node} has another list of founding nodes: {}", list.join(",")));
        }
        if !standing.cluster_id.is_empty() {
            if id.as_ref().is_some_and(|id| *id != standing.cluster_id) {
                return Verdict::Refuse("the founding nodes belong to different clusters".to_owned());
            }
            id = Some(standing.cluster_id.clone());
        }
    }
    Verdict::Found(id)
}

/// Takes part in founding the cluster until it is founded.
pub(crate) struct Founding {
    pub(crate) raft: Raft,
    pub(crate) identity: Arc<Identity>,
    pub(crate) links: Arc<Links>,
}

impl Founding {
    pub(crate) async fn standing(&self) -> FoundingStatus {
        FoundingStatus {
            cluster_id: self.identity.cluster_id(),
            initialized: self.raft.is_initialized().await.unwrap_or(true),
            founders: self.identity.founders.clone(),
        }
    }

    /// Founds a cluster of this node alone.
    pub(crate) async fn alone(&self) -> Result<(), NodeError> {
        if self.identity.cluster_id().is_empty() {
            self.identity.belong_to(&uuid::Uuid::new_v4().simple().to_string())?;
        }
        let members = BTreeMap::from([(self.identity.id, BasicNode::new(&self.identity.address))]);
        self.raft.initialize(members).await.map_err(|error| NodeError::Raft(error.to_string()))
    }

    /// Runs on every node; only the founder with the lowest number has something to do.
    pub(crate) async fn run(self, stop: CancellationToken) {
        if self.identity.founders.len() < 2 || self.identity.founders.keys().next() != Some(&self.identity.id) {
            return;
        }
        let mut round = 0_u32;
        loop {
            match self.round().await {
                Ok(None) => return,
                Ok(Some(waiting)) => {
                    if round % TELL_EVERY == TELL_EVERY - 1 {
                        tracing::info!(%waiting, "the cluster is not founded yet");
                    }
                }
                Err(error) => return self.identity.fail(error.to_string()),
            }
            round = round.wrapping_add(1);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(ROUND) => {}
            }
        }
    }

    /// One attempt; why it must wait, or nothing when it is done.
    async fn round(&self) -> Result<Option<String>, NodeError> {
        let own = self.standing().await;
        if own.initialized {
            return Ok(None);
        }
        let mut others = BTreeMap::new();
        for node in self.identity.founders.keys().filter(|node| **node != self.identity.id) {
            let asked = self.links.call(*node, Purpose::Control, Kind::Founding, Bytes::new(), ANSWER_MAX).await;
            others.insert(*node, asked.ok().and_then(|body| FoundingStatus::decode(body).ok()));
        }
        let id = match judge(self.identity.id, &own, &others) {
            Verdict::Wait(why) => return Ok(Some(why)),
            Verdict::Refuse(why) => return Err(NodeError::Cluster(why)),
            Verdict::Found(id) => id.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string()),
        };
        for node in others.keys() {
            let body = Bytes::from(id.clone().into_bytes());
            let told = self.links.call(*node, Purpose::Control, Kind::Found, body, ANSWER_MAX).await;
            if let Err(error) = told {
                return Ok(Some(format!("node {node}: {error}")));
            }
        }
        self.identity.belong_to(&id)?;
        let members: BTreeMap<u64, BasicNode> =
            self.identity.founders.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
        self.raft.initialize(members).await.map_err(|error| NodeError::Raft(error.to_string()))?;
        tracing::info!(cluster = %id, "the cluster was founded");
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(cluster: &str, initialized: bool) -> FoundingStatus {
        let founders = BTreeMap::from([(1, "a".to_owned()), (2, "b".to_owned()), (3, "c".to_owned())]);
        FoundingStatus { cluster_id: cluster.to_owned(), initialized, founders }
    }

    fn verdict(own: &str, others: [Option<FoundingStatus>; 2]) -> Verdict {
        let [two, three] = others;
        judge(1, &standing(own, false), &BTreeMap::from([(2, two), (3, three)]))
    }

    #[test]
    fn a_cluster_is_founded_when_all_are_there_and_none_has_one() {
        assert_eq!(verdict("", [Some(standing("", false)), Some(standing("", false))]), Verdict::Found(None));
        assert!(matches!(verdict("", [Some(standing("", false)), None]), Verdict::Wait(_)));
    }

    #[test]
    fn a_founding_that_was_cut_short_goes_on_with_the_same_id() {
        let found = Verdict::Found(Some("x".to_owned()));
        assert_eq!(verdict("", [Some(standing("x", false)), Some(standing("", false))]), found);
        assert_eq!(verdict("x", [Some(standing("x", false)), Some(standing("x", false))]), found);
    }

    #[test]
    fn there_are_never_two_clusters() {
        let refused = |verdict| matches!(verdict, Verdict::Refuse(_));
        assert!(refused(verdict("", [Some(standing("x", true)), Some(standing("x", true))])), "it lost its disk");
        assert!(refused(verdict("", [Some(standing("x", false)), Some(standing("y", false))])));
        assert!(refused(verdict("y", [Some(standing("x", false)), Some(standing("", false))])));
        let mut other = standing("", false);
        other.founders.remove(&3);
        assert!(matches!(verdict("", [Some(other), Some(standing("", false))]), Verdict::Wait(_)), "another list");
    }
}
