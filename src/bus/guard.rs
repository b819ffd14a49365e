//! Ends what clients may not do any more, as soon as the replicated state says so, and writes refusals into the audit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rollbook_core::command::Command;
use rollbook_core::level::FeatureLevel;
use rollbook_core::security::change::{AuditLine, Audited, Change, CredentialsUsed};
use tokio_util::sync::CancellationToken;

use super::client::clients::{Client, CloseReason};
use super::delivery::messages::{EndReason, StreamCommand};
use super::handle::{Bus, Live};
use super::roll::services::Services;
use super::security::authority::Authority;
use crate::base::actors::must_tell;

/// How often refusals and uses of credentials are noted, and credentials that expired are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Clients and streams that are looked at without giving the thread to others.
const AT_A_TIME: usize = 256;
/// Lines for the audit that wait while the cluster takes no command. The oldest go first.
const LINES_WAITING_MAX: usize = 1024;

/// Watches the clients and streams of a node.
#[derive(Debug)]
pub struct Guard {
    services: Services,
}

impl Guard {
    /// The guard of this node.
    #[must_use]
    pub const fn new(services: Services) -> Self {
        Self { services }
    }

    const fn bus(&self) -> &Bus {
        &self.services.bus
    }

    fn authority(&self) -> &Authority {
        self.bus().authority()
    }

    /// Watches until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut revision = self.authority().revision();
        let authority = self.authority().clone();
        let watch = async {
            loop {
                tokio::select! {
                    changed = revision.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(LOOK) => if !authority.takes_expiry() { continue },
                }
                self.sweep().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = watch => {}
            () = self.write_notes() => {}
        }
    }

    /// Looks at every client and stream of the node.
    async fn sweep(&self) {
        for (number, client) in self.services.clients.all().iter().enumerate() {
            self.look_at_client(client);
            if number % AT_A_TIME == AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
        }
        for (number, live) in self.bus().all_live().iter().enumerate() {
            self.look_at_stream(live);
            if number % AT_A_TIME == AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn look_at_client(&self, client: &Arc<Client>) {
        let identity = client.identity();
        if let Some(why) = self.authority().lost(identity) {
            tracing::info!(client = client.serial, principal = identity.name(), why, "a client is disconnected");
            client.close(CloseReason::Unauthenticated);
            return;
        }
        self.authority().expires_later(identity);
        client.rights_changed();
        let about = client.about();
        let lost = about.registration.is_some_and(|registration| !about.accepted && !identity.may_offer(&registration));
        if lost {
            let principal = identity.name();
            tracing::info!(client = client.serial, principal, "a client lost the right to be what it is registered as");
            client.close(CloseReason::Forbidden);
        }
    }

    fn look_at_stream(&self, live: &Live) {
        let identity = &live.identity;
        if self.authority().lost(identity).is_some() || !identity.may_subscribe(&live.pattern) {
            tracing::info!(principal = identity.name(), subject = live.pattern.as_str(), "a stream is ended");
            must_tell(&live.commands, StreamCommand::Close(EndReason::Forbidden));
        }
        self.authority().expires_later(identity);
    }

    /// Writes refusals and uses of credentials into the replicated state, once a second when there are any.
    async fn write_notes(&self) {
        // Lines for the audit that were not written yet.
        let mut waiting: VecDeque<AuditLine> = VecDeque::new();
        loop {
            tokio::time::sleep(LOOK).await;
            waiting.extend(self.authority().denials().take());
            let more = waiting.len().saturating_sub(LINES_WAITING_MAX);
            drop(waiting.drain(..more));
            if self.bus().level() < FeatureLevel::SECURED {
                waiting.clear();
                continue;
            }
            let used = self.authority().take_used();
            if !used.is_empty() {
                self.propose(Change::CredentialsUsed(CredentialsUsed { ids: used })).await;
            }
            let most = rollbook_core::limits::AUDIT_LINES_MAX.min(waiting.len());
            let lines: Vec<AuditLine> = waiting.iter().take(most).cloned().collect();
            if !lines.is_empty() && self.propose(Change::Audited(Audited { lines })).await {
                drop(waiting.drain(..most));
            }
        }
    }

    /// Proposes a note. Returns whether it is in the log.
    async fn propose(&self, change: Change) -> bool {
        match self.bus().proposer().command(Command::security(None, change)).await {
            Ok(_) => true,
            Err(refusal) => {
                tracing::debug!(%refusal, "refusals could not be written into the audit yet");
                false
            }
        }
    }
}
