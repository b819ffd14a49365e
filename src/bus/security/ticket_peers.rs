//! How the authority asks other nodes for the tickets that they have given.

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// Asks another node who has a ticket of it, which is used up by that.
pub trait TicketPeers: std::fmt::Debug + Send + Sync {
    /// The answer of [`Authority::redeem_for_peer`](super::authority::Authority::redeem_for_peer) at the node with this number; `None` when it did not answer.
    fn redeem(&self, node: u64, ticket: String) -> BoxFuture<'static, Option<Bytes>>;
}
