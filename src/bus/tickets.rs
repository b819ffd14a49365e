//! Tickets between nodes: a client may use a ticket of one node at another, as a load balancer has it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rollbook_cluster::live::Live;
use rollbook_core::error::Refusal;

use super::relay::peer_client::PeerClient;
use super::security::authority::Authority;
use super::security::ticket_peers::TicketPeers;

/// The name under which nodes ask each other for tickets.
pub const NAME: &str = "tickets";
/// How long another node may take to look for a ticket.
const ASK_MAX: Duration = Duration::from_secs(2);

/// Asks other nodes for tickets.
#[derive(Debug)]
pub struct AskForTickets(pub PeerClient);

impl TicketPeers for AskForTickets {
    fn redeem(&self, node: u64, ticket: String) -> BoxFuture<'static, Option<Bytes>> {
        let peers = self.0.clone();
        async move { peers.ask_door(node, NAME, Bytes::from(ticket), ASK_MAX).await.ok() }.boxed()
    }
}

/// Answers other nodes about the tickets of this node.
#[derive(Debug)]
pub struct AnswerForTickets(pub Authority);

impl Live for AnswerForTickets {
    fn hear(&self, _: u64, _: Bytes) {}

    fn answer(&self, _: u64, ticket: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        std::future::ready(Ok(self.0.redeem_for_peer(&ticket))).boxed()
    }
}
