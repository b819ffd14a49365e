//! Whether the cluster has room: a node that is short of disk tells the leader, and the leader tells all.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::node::Node;
use crate::peer::frame::Kind;
use crate::peer::link::Purpose;
use crate::peer::wire::NodeFigures;

/// How long a node may take to say whether it has room.
const ANSWER_MAX: Duration = Duration::from_secs(1);

impl Node {
    /// Notes whether this node is short of disk; `full`: so short that it takes no entries any more, and writing
    /// one would end the process.
    pub fn tell_disk(&self, short: bool, full: bool) {
        let shortage = &self.inner().identity.shortage;
        shortage.here.store(short, Ordering::Relaxed);
        if shortage.full.swap(full, Ordering::Relaxed) != full {
            tracing::warn!(full, "a node whose disk is full takes no entries");
        }
    }

    /// Why the cluster has no room for more, though this node may have some: the leader is short of disk, or so
    /// many voters that no majority could store anything.
    pub async fn short_of_disk(&self) -> Option<String> {
        let leader = self.inner().contact.leader()?;
        if leader != self.id() {
            let told = self.shortage_of(leader).await?;
            return match told {
                (true, _) => Some(format!("the leader, node {leader}, is short of disk")),
                (_, true) => Some("too many nodes are short of disk".to_owned()),
                _ => None,
            };
        }
        let voters: Vec<u64> = self.inner().contact.voter_ids();
        let others = voters.iter().copied().filter(|id| *id != self.id());
        let asked = join_all(others.map(|id| self.shortage_of(id))).await;
        let here = self.inner().identity.shortage.here.load(Ordering::Relaxed);
        // A node that does not answer stores nothing either, but to wait for the majority is raft's business.
        let short = asked.into_iter().flatten().filter(|(short, _)| *short).count() + usize::from(here);
        let majority = short >= voters.len().div_ceil(2).max(1);
        self.inner().identity.shortage.majority.store(majority, Ordering::Relaxed);
        majority.then(|| format!("{short} of {} nodes are short of disk", voters.len()))
    }

    async fn shortage_of(&self, node: u64) -> Option<(bool, bool)> {
        // Liveness keeps that connection; who is not connected stores nothing.
        let conn = self.inner().links.present(node, Purpose::Control)?;
        let asked = conn.call(Kind::Standing, Bytes::new(), ANSWER_MAX).await;
        let figures = NodeFigures::decode(&asked.ok()?).ok()?;
        Some((figures.short, figures.majority_short))
    }
}
