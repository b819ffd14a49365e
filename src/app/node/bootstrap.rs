//! The first start of a cluster: one node writes the first token into its data directory.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rollbook_cluster::node::Node;
use rollbook_core::command::Command;
use rollbook_core::error::Refusal;
use rollbook_core::level::FeatureLevel;
use rollbook_core::machine::Machine;
use tokio_util::sync::CancellationToken;

use crate::app::log::StandardStreams;
use crate::bus::security::bootstrap::RootToken;

/// How long a start waits for that. A cluster of several releases gets its token later.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Whether the cluster has no principals yet.
fn is_new(node: &Node) -> bool {
    node.state().with_machine(|machine| machine.security().revision() == 0)
}

fn is_possible(node: &Node) -> bool {
    node.state().with_machine(Machine::level) >= FeatureLevel::SECURED
}

/// Makes the first token of the cluster, or another one when `again`. When not all nodes know principals yet, the token
/// is made later.
///
/// # Errors
/// The file cannot be written.
pub(super) async fn run(
    node: &Node,
    (data, again): (&Path, bool),
    streams: &StandardStreams,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if !again && !is_new(node) {
        return Ok(());
    }
    let waited = tokio::time::timeout(WAIT_MAX, possible(node)).await;
    if waited.is_ok() {
        return make(node, (data, again), streams).await;
    }
    let (node, data, streams, stop) = (node.clone(), data.to_owned(), streams.clone(), stop.clone());
    actix_web::rt::spawn(async move {
        let later = async {
            possible(&node).await;
            make(&node, (&data, again), &streams).await
        };
        if let Some(Err(error)) = stop.run_until_cancelled(later).await {
            tracing::error!(%error, "the root token could not be written");
        }
    });
    Ok(())
}

/// Waits until all nodes know principals, which may be after the next upgrade of a node.
async fn possible(node: &Node) {
    let mut applied = node.state().applied();
    while !is_possible(node) && applied.changed().await.is_ok() {}
}

async fn make(node: &Node, (data, again): (&Path, bool), streams: &StandardStreams) -> anyhow::Result<()> {
    if !again && !is_new(node) {
        return Ok(());
    }
    let token = RootToken::mint(data, again)?;
    let path = token.path().display().to_string();
    token.write().with_context(|| format!("cannot write {path}"))?;
    let command = Command::security(None, token.change());
    match node.proposals().command_of(command, RootToken::actor(node.id())).await {
        Ok(_) => {
            token.confirm().with_context(|| format!("cannot write {path}"))?;
            tracing::info!(path, "the token of user:root is written");
            streams.announce(&format!("root token in {path}; keep it, and see `rollbook login --help`"));
        }
        // Another node was first.
        Err(Refusal::Security(_)) => token.discard(),
        Err(Refusal::OutcomeUnknown(why)) => {
            tracing::warn!(why, path, "nobody knows whether the root token counts; it is beside, under the name .new");
        }
        Err(refusal) => {
            token.discard();
            tracing::warn!(%refusal, "the root token could not be made; start with --new-root-token to try again");
        }
    }
    Ok(())
}
