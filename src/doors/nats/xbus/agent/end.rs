//! How the end of a job is proposed.

use std::time::Duration;

use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::process::event::Event;

use crate::base::fault::FaultKind;
use crate::bus::xbus::jobs::engine::Engine;

/// Tries to propose something, and the pause between them.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// Proposes what happened to a job. Returns whether the rules took it; what they refuse is over for this node, and what
/// is not known in the end is found by the sweep.
pub(super) async fn propose(engine: &Engine, process: Id, event: Event) -> bool {
    for _ in 0..TRIES {
        match engine.flow().advance(process, event.clone()).await {
            Ok(_) => return true,
            Err(fault) if matches!(fault.kind, FaultKind::Unavailable | FaultKind::Overloaded) => {
                tracing::debug!(%fault, %process, "the state of a job is proposed again");
                tokio::time::sleep(PAUSE).await;
            }
            Err(fault) => {
                tracing::debug!(%fault, %process, "the state of a job is not taken");
                return false;
            }
        }
    }
    false
}
