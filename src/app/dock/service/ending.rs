//! The end of a process: its whole tree ends, and the hub hears of the exit.

use std::sync::Arc;
use std::time::Duration;

use crate::doors::hms::wire::payload::ExitCode;
use tokio::time::timeout;

use super::super::output::task::Output;
use super::super::process::running::{Exit, Process};
use super::super::report::event::{Event, EventKind};
use super::super::report::outbox::Outbox;

/// How long a process whose tree has ended may take to be waited for.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells the hub what happens to the processes of one service.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    service: String,
    outbox: Arc<Outbox>,
}

impl Reporter {
    pub(super) fn new(service: &str, outbox: &Arc<Outbox>) -> Self {
        Self { service: service.to_owned(), outbox: Arc::clone(outbox) }
    }

    /// A process runs.
    pub(super) fn spawn(&self, pid: i32) {
        self.event(EventKind::Spawn(u32::try_from(pid).unwrap_or_default()));
    }

    /// A process ended. Its last output comes before.
    pub(super) async fn exit(&self, exit: Exit, output: Option<&Output>) {
        if let Some(output) = output {
            output.drain().await;
        }
        self.event(EventKind::Exit(match exit {
            Exit::Code(code) => ExitCode::Number(code.into()),
            Exit::Signal(_) | Exit::Unknown => ExitCode::Null,
        }));
    }

    /// The service is given up.
    pub(super) fn crash(&self, text: String) {
        self.event(EventKind::Exit(ExitCode::Text(text)));
    }

    fn event(&self, kind: EventKind) {
        self.outbox.event(Event { service: self.service.clone(), kind });
    }
}

/// Ends a process with all that it started: SIGTERM, and SIGKILL after `grace`. The exit is told when the process itself
/// has ended; the function returns when the whole tree has, or false when members of the tree outlived SIGKILL.
pub(super) async fn end_process(
    mut process: Process,
    grace: Duration,
    reporter: &Reporter,
    output: Option<&Output>,
) -> bool {
    let tree = process.tree().clone();
    let end = tree.end(grace);
    tokio::pin!(end);
    let mut told = false;
    let ended = loop {
        tokio::select! {
            exit = process.wait(), if !told => {
                reporter.exit(exit, output).await;
                told = true;
            }
            ended = &mut end => break ended,
        }
    };
    if !told {
        let exit = timeout(WAIT_TIMEOUT, process.wait()).await.unwrap_or(Exit::Unknown);
        reporter.exit(exit, output).await;
    }
    ended
}
