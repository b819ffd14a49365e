//! The authority follows the replicated state: all grants are compiled anew when something has changed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rollbook_cluster::lock::lock;
use rollbook_cluster::node::consensus::Consistency;
use rollbook_core::machine::security::state::Security;
use tokio_util::sync::CancellationToken;

use super::authority::Authority;
use super::issuers;

/// Pause between two tries to catch up with the cluster.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(50);

impl Authority {
    /// Compiles all grants anew when the security state has changed.
    fn refresh(&self, known: &mut u64) {
        let revision = self.with_security(Security::revision);
        if revision == *known {
            return;
        }
        let grants: Vec<_> = lock(&self.inner.grants).values().cloned().collect();
        let issuers = self.with_rights(|from| {
            grants.iter().for_each(|grant| grant.refresh(from));
            from.security.issuers().cloned().collect::<Vec<_>>()
        });
        issuers::set(&self.inner.verifier, &issuers, self.seal_key());
        *known = revision;
        self.inner.revision.send_replace(revision);
    }

    /// Follows the replicated state until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let follow = async {
            self.catch_up().await;
            let (mut changes, mut known) = (self.inner.node.state().security_revision(), u64::MAX);
            loop {
                self.refresh(&mut known);
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        stop.run_until_cancelled(follow).await;
    }

    /// Waits until this node has seen everything that the cluster had decided when the node started.
    async fn catch_up(&self) {
        while self.inner.node.consensus().read_barrier(Consistency::Leader).await.is_err() {
            tokio::time::sleep(CATCH_UP_PAUSE).await;
        }
        self.inner.caught_up.store(true, Ordering::Relaxed);
    }
}
