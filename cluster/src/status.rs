//! The status of the cluster from the view of one node: leader, members, log indexes.

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{RaftMetrics, ServerState};
use rollbook_core::machine::Machine;
use tokio_util::sync::CancellationToken;

use crate::replicate::raft::Raft;
use crate::types::Types;

/// How a node sees its cluster.
#[derive(Debug, Clone)]
pub struct Status {
    /// This node.
    pub id: u64,
    /// Random id of the cluster, empty before it was founded.
    pub cluster_id: String,
    /// The leader, when there is one and a majority answers it.
    pub leader: Option<u64>,
    /// Raft term.
    pub term: u64,
    /// `leader`, `follower`, `learner`, `candidate` or `shutdown`.
    pub role: &'static str,
    /// Index of the first entry that is still in this node's log.
    pub first_index: u64,
    /// Index of the last entry in this node's log.
    pub last_index: u64,
    /// Index of the last entry applied on this node.
    pub applied_index: u64,
    /// Members by number.
    pub members: Vec<Member>,
}

/// One member of the cluster.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// The address at which other nodes reach the member.
    pub address: String,
    /// `leader`, `voter`, `learner`, or `none`: the node has a number and is no member, because its joining or its
    /// removal was interrupted. Removing the node completes that.
    pub role: &'static str,
    /// `up`, `down`, `new` when the node was never heard, or `unknown` when the node is up in the log and does not
    /// answer.
    pub state: &'static str,
    /// The number of the life of the node.
    pub incarnation: u64,
    /// Index of the last entry in its log, where known.
    pub last_index: Option<u64>,
    /// Index of the last entry that the member applied, where known.
    pub applied_index: Option<u64>,
}

/// The name of a raft role.
pub(crate) const fn role(state: ServerState) -> &'static str {
    match state {
        ServerState::Leader => "leader",
        ServerState::Follower => "follower",
        ServerState::Learner => "learner",
        ServerState::Candidate => "candidate",
        ServerState::Shutdown => "shutdown",
    }
}

/// The members as this node knows them without asking anybody, and numbers that were given out in vain. `leader`
/// is the one that has a majority.
pub(crate) fn members(
    metrics: &RaftMetrics<Types>,
    leader: Option<u64>,
    machine: &Machine,
    own_address: &str,
) -> Vec<Member> {
    let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
    let member = |id: u64, address: &str, role: &'static str| {
        let (row, here) = (machine.node(id), id == metrics.id);
        let recorded = row.map(|row| row.address.as_str()).filter(|address| !address.is_empty());
        let up = here || row.is_some_and(|row| row.up);
        let was_here = row.is_some_and(|row| row.incarnation > 0);
        Member {
            id,
            address: if here { own_address } else { recorded.unwrap_or(address) }.to_owned(),
            role: if leader == Some(id) { "leader" } else { role },
            state: if up {
                "up"
            } else if was_here {
                "down"
            } else {
                "new"
            },
            incarnation: row.map_or(0, |row| row.incarnation),
            last_index: if here { Some(metrics.last_log_index.unwrap_or(0)) } else { None },
            applied_index: if here { Some(metrics.last_applied.as_ref().map_or(0, |id| id.index)) } else { None },
        }
    };
    let config = &metrics.membership_config;
    let mut members: Vec<Member> = config
        .nodes()
        .map(|(id, node)| member(*id, &node.addr, if voters.contains(id) { "voter" } else { "learner" }))
        .collect();
    let is_member = |id: &u64| config.get_node(id).is_some();
    // Before the cluster is founded, no node is a member.
    if !members.is_empty() {
        let others = machine.nodes().filter(|row| !row.removed && !is_member(&row.id));
        members.extend(others.map(|row| member(row.id, &row.address, "none")));
    }
    members.sort_by_key(|member| member.id);
    members
}

/// Writes a log line whenever the leader changes, until cancelled.
pub(crate) async fn tell_leaders(raft: Raft, stop: CancellationToken) {
    let mut metrics = raft.server_metrics();
    let mut logged = None;
    loop {
        let (leader, term) = {
            let now = metrics.borrow_watched();
            (now.current_leader, now.vote.leader_id.term)
        };
        if logged != Some((leader, term)) {
            match leader {
                Some(leader) => tracing::info!(leader, term, here = leader == *raft.node_id(), "a node leads"),
                // The election that begins when a node starts is none that was lost.
                None if logged.is_some_and(|(leader, _): (Option<u64>, u64)| leader.is_some()) => {
                    tracing::info!(term, "there is no leader: an election");
                }
                None => {}
            }
            logged = Some((leader, term));
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = metrics.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
