//! Whether the cluster has disk space: a node that is short of space reports to the leader, and the leader to all
//! nodes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::peer::frame::Kind;
use crate::peer::identity::Identity;
use crate::peer::link::{Links, Purpose};
use crate::peer::wire::NodeFigures;
use crate::replicate::contact::Contact;

/// How long a node may take to say whether it has room.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Tells the cluster that this node is short of disk, and this node that the cluster is.
#[derive(Clone)]
pub struct DiskSpace {
    identity: Arc<Identity>,
    links: Arc<Links>,
    contact: Arc<Contact>,
}

impl std::fmt::Debug for DiskSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskSpace").field("node", &self.identity.id).finish_non_exhaustive()
    }
}

impl DiskSpace {
    pub(crate) const fn new(identity: Arc<Identity>, links: Arc<Links>, contact: Arc<Contact>) -> Self {
        Self { identity, links, contact }
    }

    /// Notes whether this node is short of disk; `full`: so short that the node takes no entries any more, and writing
    /// one would end the process.
    pub fn report(&self, short: bool, full: bool) {
        let shortage = &self.identity.shortage;
        shortage.here.store(short, Ordering::Relaxed);
        if shortage.full.swap(full, Ordering::Relaxed) != full {
            tracing::warn!(full, "a node whose disk is full takes no entries");
        }
    }

    /// Why the cluster has no room for more, though this node may have some: the leader is short of disk, or so
    /// many voters that no majority could store anything.
    pub async fn cluster_shortage(&self) -> Option<String> {
        let leader = self.contact.leader()?;
        if leader != self.identity.id {
            return match self.shortage_of(leader).await? {
                (true, _) => Some(format!("the leader, node {leader}, is short of disk")),
                (_, true) => Some("too many nodes are short of disk".to_owned()),
                _ => None,
            };
        }
        let voters: Vec<u64> = self.contact.voter_ids();
        let others = voters.iter().copied().filter(|id| *id != self.identity.id);
        let answers = join_all(others.map(|id| self.shortage_of(id))).await;
        let here = self.identity.shortage.here.load(Ordering::Relaxed);
        // A node that does not answer stores nothing either, but to wait for the majority is raft's business.
        let short = answers.into_iter().flatten().filter(|(short, _)| *short).count() + usize::from(here);
        let majority = short >= voters.len().div_ceil(2).max(1);
        self.identity.shortage.majority.store(majority, Ordering::Relaxed);
        majority.then(|| format!("{short} of {} nodes are short of disk", voters.len()))
    }

    /// Whether another node is short of disk, and whether that node knows of a majority that is.
    async fn shortage_of(&self, node: u64) -> Option<(bool, bool)> {
        // Liveness keeps that connection; a node that is not connected stores nothing.
        let conn = self.links.present(node, Purpose::Control)?;
        let answer = conn.call(Kind::Figures, Bytes::new(), ANSWER_MAX).await;
        let figures = NodeFigures::decode(&answer.ok()?).ok()?;
        Some((figures.short, figures.majority_short))
    }
}
