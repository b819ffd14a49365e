//! Processes that have registered on the bus as services: their docks are told, because a definition may say that a process
//! is ready then (`"ready":{"bus":true}`).
//!
//! Invariant: registrations never wait for docks. What finds no room in the queue, or no dock within the tries, is left out,
//! and the process counts as ready when the time of its definition is over.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::hub::DockHub;
use super::order::DockOp;
use super::table::Selection;
use crate::base::process_name::ProcessName;

/// Processes whose docks are told at a time.
const AT_A_TIME: usize = 64;
/// How often a dock is told that does not take it: it may be on its way to another node.
const TRIES_MAX: usize = 10;
/// Pause before the next try.
const PAUSE: Duration = Duration::from_secs(1);

impl DockHub {
    /// Tells docks which of their processes have registered, until cancelled.
    pub async fn tell_registered(self, registered: mpsc::Receiver<ProcessName>, stop: CancellationToken) {
        let all =
            stream::unfold(registered, |mut registered| async move { Some((registered.recv().await?, registered)) });
        let told = all.for_each_concurrent(AT_A_TIME, |name| self.tell_one(name));
        stop.run_until_cancelled(told).await;
    }

    async fn tell_one(&self, name: ProcessName) {
        let waits = self.client().get(&name.definition).ok().flatten();
        if !waits.is_some_and(|(definition, _)| definition.is_ready_by_registration()) {
            return;
        }
        let payload = Bytes::from(json!({ "registered": name.value() }).to_string());
        let dock = Selection::These(vec![name.dock.clone()]);
        for _ in 0..TRIES_MAX {
            let told = self.fleet().order(&dock, (DockOp::Update, &name.definition), &payload).await;
            if told.answers.iter().any(|answer| answer.result.is_ok()) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        tracing::debug!(?name, "a dock is not told that its process has registered");
    }
}
