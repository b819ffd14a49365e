//! A node without a majority: its clients must move to one that has it.

use std::time::Duration;

use actix::Addr;
use rollbook_cluster::node::consensus::Consensus;
use tokio_util::sync::CancellationToken;

use crate::app::config::settings::Cluster;
use crate::app::config::values::OnIsolation;
use crate::base::clock;
use crate::bus::client::clients::{Clients, CloseReason};
use crate::bus::consume::registry::{EndStreams, Registry};

const LOOK: Duration = Duration::from_millis(200);

/// Ends all streams when there was no majority for `node_timeout`, until cancelled.
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
            () = tokio::time::sleep(LOOK) => {}
        }
        if consensus.ready().is_ok() {
            (since, was_ready) = (None, true);
            continue;
        }
        // The node is not ready only after a while without a majority: that while counts.
        let silent = consensus.isolated_for().unwrap_or_default();
        let since = *since.get_or_insert_with(|| clock::now().checked_sub(silent).unwrap_or_else(clock::now));
        if !was_ready || clock::now().saturating_duration_since(since) < config.node_timeout {
            continue;
        }
        was_ready = false;
        if config.on_isolation == OnIsolation::Hold {
            tracing::warn!("this node has no majority; its streams are kept");
            continue;
        }
        tracing::warn!("this node has no majority; its streams are ended so that clients move");
        clients.close_all(CloseReason::Draining);
        if registry.send(EndStreams).await.is_err() {
            tracing::debug!("the registry is stopping");
        }
    }
}
