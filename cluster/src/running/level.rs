//! The feature level of the cluster: the leader raises the level when all members know more.
//!
//! Nodes announce in the hello which level their release knows. The log cannot carry this: a release that does not know
//! a field drops the field, and would have other rows than the other nodes.

use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver as _;
use rollbook_core::command::{Command, LevelRaise};
use rollbook_core::level::FeatureLevel;

use crate::member::members::Members;
use crate::node::proposal_client::ProposalClient;
use crate::peer::link::Links;

/// The highest level that all nodes know; `None` while a node has not announced its level.
pub(crate) fn common(
    own: FeatureLevel,
    others: impl IntoIterator<Item = Option<FeatureLevel>>,
) -> Option<FeatureLevel> {
    others.into_iter().try_fold(own, |common, known| Some(common.min(known?)))
}

/// Raises the feature level of the cluster, as the leader.
pub(crate) struct LevelRaiser {
    pub(crate) members: Arc<Members>,
    pub(crate) links: Arc<Links>,
    pub(crate) proposals: ProposalClient,
}

impl LevelRaiser {
    /// Raises the level to what every member knows, voters and learners; a member that is not connected now may come
    /// back with another release. Whether this node knows of all members what they know.
    pub(crate) async fn raise(&self) -> bool {
        let Members { raft, identity, state, turn, .. } = &*self.members;
        let (own, present) = (identity.level, state.machine().level());
        if own <= present {
            return true;
        }
        // No node can join between the check of the members and the raise.
        let Ok(_turn) = turn.try_lock() else { return false };
        let others: Vec<u64> = {
            let metrics = raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.nodes().map(|(id, _)| *id).filter(|id| *id != identity.id).collect()
        };
        let levels = others.into_iter().map(|id| self.links.level_of(id));
        let Some(level) = common(own, levels) else { return false };
        if level > present {
            match self.proposals.command(Command::LevelRaise(LevelRaise { level: level.get() })).await {
                Ok(_) => tracing::info!(from = present.get(), to = level.get(), "the feature level was raised"),
                Err(refusal) => {
                    tracing::debug!(%refusal, "the feature level could not be raised; it will be tried again");
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_common_when_all_members_say_so() {
        let level = |number| FeatureLevel::new(number);
        let two = FeatureLevel::BOUNDED;
        assert_eq!(common(two, []), Some(two), "a node that is alone");
        assert_eq!(common(two, [level(3), level(2)]), Some(two), "a node that knows more");
        assert_eq!(common(two, [level(2), level(1)]), level(1));
        assert_eq!(common(two, [level(2), None]), None, "a member that is away");
    }
}
