//! Three nodes that are one bus.

/// What a client may do on any node.
mod any_node;
/// Nodes that were away, and what they get when they are back.
mod catch_up;
/// Events that wait for their time.
mod delayed;
/// Nodes that die, stop, or are alone.
mod failure;
/// How a cluster begins, and who may be part of it.
mod formation;
/// Promotions and removals: which are refused, what becomes of a node that was removed.
mod membership;
/// Publishes on their way through the cluster.
mod publish;
/// Nodes whose majority is gone.
mod quorum;
/// Ticks of schedules while leaders die.
mod schedules;
/// Calls between nodes with certificates.
mod tls;
/// Nodes of two releases.
mod upgrade;
