//! Ends the streams of a node without a majority, so that its clients move to a node that has one.

use std::time::Duration;

use actix::Addr;
use rollbook_cluster::node::consensus::Consensus;
use tokio_util::sync::CancellationToken;

use crate::app::config::settings::Cluster;
use crate::app::config::values::OnIsolation;
use crate::base::clock;
use crate::bus::client::clients::{Clients, CloseReason};
use crate::bus::consume::registry::{EndStreams, Registry};

const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Ends all streams after `node_timeout` without a majority. Runs until cancelled.
pub(in crate::app) async fn watch(
    consensus: Consensus,
    registry: Addr<Registry>,
    clients: Clients,
    config: Cluster,
    stop: CancellationToken,
) {
    let mut since = None;
    let mut was_ready = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
        if consensus.ready().is_ok() {
            (since, was_ready) = (None, true);
            continue;
        }
        // The node counts as ready for a while without a majority, so that time is added.
        let isolated_for = consensus.isolated_for().unwrap_or_default();
        let since = *since.get_or_insert_with(|| clock::now().checked_sub(isolated_for).unwrap_or_else(clock::now));
        if !was_ready || clock::now().saturating_duration_since(since) < config.node_timeout {
            continue;
        }
        was_ready = false;
        if config.on_isolation == OnIsolation::Hold {
            tracing::warn!(
                "this node has no majority; its streams are kept, as cluster.on_isolation says; check the network between the nodes"
            );
            continue;
        }
        tracing::warn!(
            "this node has no majority; its streams are ended so that clients move to another node; check the network between the nodes"
        );
        clients.close_all(CloseReason::Draining);
        if registry.send(EndStreams).await.is_err() {
            tracing::debug!("streams were not ended: the registry has stopped");
        }
    }
}
