//! The founding of a cluster: once, by the founding nodes together, never twice.
//!
//! The founder with the lowest number asks all other founders for their status. When all answer, have the same list of
//! founders and belong to no cluster, the first founder sends the id of the new cluster to each of them. A founder
//! answers when the id is on its disk. Only then is raft initialized, on the first founder alone.
//!
//! A founder that comes back without its data finds that the others have a cluster, and their gates refuse it. When no
//! founder is left, members that call the node under its old number tell it so ([`crate::peer::gate`]).

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
/// Number of rounds between two log lines that name the founders without an answer.
const TELL_EVERY: u32 = 25;

/// How far a founder is with the founding.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FoundingStatus {
    #[prost(string, tag = "1")]
    pub(crate) cluster_id: String,
    /// Whether the node has a log of the cluster.
    #[prost(bool, tag = "2")]
    pub(crate) initialized: bool,
    #[prost(btree_map = "uint64, string", tag = "3")]
    pub(crate) founders: BTreeMap<u64, String>,
}

/// The next action of the first founder after the answers of all founders.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Found the cluster, with this id when some founders have one already.
    Found(Option<String>),
    Wait(String),
    /// Never found this cluster.
    Refuse(String),
}

fn judge(this: u64, own: &FoundingStatus, others: &BTreeMap<u64, Option<FoundingStatus>>) -> Verdict {
    let mut id = Some(own.cluster_id.clone()).filter(|id| !id.is_empty());
    for (node, status) in others {
        let Some(status) = status else { return Verdict::Wait(format!("node {node} does not answer")) };
        if status.initialized {
            return Verdict::Refuse(hello::lost_data(this, &status.cluster_id));
        }
        let ids = |of: &FoundingStatus| of.founders.keys().copied().collect::<Vec<_>>();
        if ids(status) != ids(own) {
            let list: Vec<String> = status.founders.iter().map(|(id, address)| format!("{id}={address}")).collect();
            return Verdict::Wait(format!("node {node} has another list of founding nodes: {}", list.join(",")));
        }
        if !status.cluster_id.is_empty() {
            if id.as_ref().is_some_and(|id| *id != status.cluster_id) {
                return Verdict::Refuse("the founding nodes belong to different clusters".to_owned());
            }
            id = Some(status.cluster_id.clone());
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
    pub(crate) async fn status(&self) -> FoundingStatus {
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

    /// One attempt; the reason to wait, or nothing when the cluster is founded.
    async fn round(&self) -> Result<Option<String>, NodeError> {
        let own = self.status().await;
        if own.initialized {
            return Ok(None);
        }
        let mut others = BTreeMap::new();
        for node in self.identity.founders.keys().filter(|node| **node != self.identity.id) {
            let answer = self.links.call(*node, Purpose::Control, Kind::Founding, Bytes::new(), ANSWER_MAX).await;
            others.insert(*node, answer.ok().and_then(|body| FoundingStatus::decode(body).ok()));
        }
        let id = match judge(self.identity.id, &own, &others) {
            Verdict::Wait(why) => return Ok(Some(why)),
            Verdict::Refuse(why) => return Err(NodeError::Cluster(why)),
            Verdict::Found(id) => id.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string()),
        };
        for node in others.keys() {
            let body = Bytes::from(id.clone().into_bytes());
            let answer = self.links.call(*node, Purpose::Control, Kind::Found, body, ANSWER_MAX).await;
            if let Err(error) = answer {
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

    fn status(cluster: &str, initialized: bool) -> FoundingStatus {
        let founders = BTreeMap::from([(1, "a".to_owned()), (2, "b".to_owned()), (3, "c".to_owned())]);
        FoundingStatus { cluster_id: cluster.to_owned(), initialized, founders }
    }

    fn verdict(own: &str, others: [Option<FoundingStatus>; 2]) -> Verdict {
        let [two, three] = others;
        judge(1, &status(own, false), &BTreeMap::from([(2, two), (3, three)]))
    }

    #[test]
    fn a_cluster_is_founded_when_all_are_there_and_none_has_one() {
        assert_eq!(verdict("", [Some(status("", false)), Some(status("", false))]), Verdict::Found(None));
        assert!(matches!(verdict("", [Some(status("", false)), None]), Verdict::Wait(_)));
    }

    #[test]
    fn a_founding_that_was_cut_short_goes_on_with_the_same_id() {
        let found = Verdict::Found(Some("x".to_owned()));
        assert_eq!(verdict("", [Some(status("x", false)), Some(status("", false))]), found);
        assert_eq!(verdict("x", [Some(status("x", false)), Some(status("x", false))]), found);
    }

    #[test]
    fn there_are_never_two_clusters() {
        let refused = |verdict| matches!(verdict, Verdict::Refuse(_));
        assert!(refused(verdict("", [Some(status("x", true)), Some(status("x", true))])), "it lost its disk");
        assert!(refused(verdict("", [Some(status("x", false)), Some(status("y", false))])));
        assert!(refused(verdict("y", [Some(status("x", false)), Some(status("", false))])));
        let mut other = status("", false);
        other.founders.remove(&3);
        assert!(matches!(verdict("", [Some(other), Some(status("", false))]), Verdict::Wait(_)), "another list");
    }
}
