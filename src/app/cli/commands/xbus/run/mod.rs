//! `rollbook actor run`: runs a command for each job of an actor.
//!
//! ```text
//! command   the command of one job: what it reads, and what its output becomes
//! ```
//!
//! Jobs come by the gateway. Invariant: a job ends when its command has ended; what was begun before a restart or a lost
//! answer comes again.

mod command;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use rollbook_cluster::wait::wait_until;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::common::text;
use super::gateway::Gateway;
use crate::app::cli::shared::global::Global;
use crate::app::cli::shared::http::CallError;
use crate::app::cli::shared::output::note;
use command::Command;

/// Pause while an operator has not decided.
const UNDECIDED: Duration = Duration::from_secs(2);
/// Pauses while no node answers.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

pub(super) const EXAMPLES: &str = "\
Examples:
  rollbook actor run shop.archive --api-key-file shop.key -- tee -a archive.txt
  rollbook actor run shop.upper --api-key-file shop.key --type order -- tr a-z A-Z
  rollbook actor run shop.store --api-key-file shop.key --json -- ./store.py

The items of a job are the lines of the command's standard input; with --json it is the job in one line of JSON. Exit code \
0 ends the job well. Of a worker, the lines of its standard output are the items of the envelope that goes out; those of a \
consumer are shown. Lines of its standard error are log messages, and say why a job failed. Jobs come over the gateway of \
the web listener: an operator makes the key with `rollbook account api-key`. SIGTERM and Ctrl-C end it after the present \
job. One program runs for each actor: a job whose program was killed comes again to the next one.";

/// Arguments of `actor run`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArgs {
    /// The actor: name or id
    actor: String,
    /// The API key of the actor's account is in this file
    #[arg(long, value_name = "FILE")]
    api_key_file: PathBuf,
    /// Give the command the job as JSON
    #[arg(long)]
    json: bool,
    /// The type of the event that a worker sends
    #[arg(long, value_name = "TYPE", default_value = "lines")]
    r#type: String,
    /// The output on which a worker sends
    #[arg(long, value_name = "NAME", default_value = "default")]
    output_name: String,
    /// The command, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Whether the program was asked to end.
fn stops() -> anyhow::Result<watch::Receiver<bool>> {
    let (say, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        say.send_replace(true);
        // The channel stays open for those who ask later.
        std::future::pending::<()>().await;
    });
    Ok(stopped)
}

pub(super) async fn run(global: &Global, args: RunArgs) -> anyhow::Result<()> {
    let gateway = Gateway::new(global, &args.api_key_file, &args.actor)?;
    let mut stop = stops()?;
    let work = work(&gateway, &args, stop.clone());
    tokio::select! {
        ended = work => ended,
        // Before the first job there is nothing to finish.
        Err(error) = stop.changed() => Err(error).context("signals"),
    }
}

/// Waits until an operator has accepted the actor. Returns whether it is a worker; `None`: the program has to end.
async fn admitted(gateway: &Gateway, stop: &mut watch::Receiver<bool>) -> anyhow::Result<Option<bool>> {
    let mut said = String::new();
    loop {
        let (reason, pause) = match gateway.show().await {
            Ok(actor) if text(&actor, "status") == "enabled" => return Ok(Some(text(&actor, "kind") == "worker")),
            Ok(actor) => (format!("the actor is {}; waiting for an operator", text(&actor, "status")), UNDECIDED),
            Err(error) if error.is_transient() => {
                (format!("{error}; trying again"), error.retry_after().unwrap_or(UNDECIDED))
            }
            Err(CallError::Refused { status: 404, text, .. }) => {
                (format!("{text}; waiting for an operator"), UNDECIDED)
            }
            Err(error) => return Err(error.into()),
        };
        if reason != said {
            note(&reason);
            said = reason;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = wait_until(stop, |stop| *stop) => return Ok(None),
        }
    }
}

async fn work(gateway: &Gateway, args: &RunArgs, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let Some(is_worker) = admitted(gateway, &mut stop).await? else { return Ok(()) };
    note(&format!("{} takes jobs over the gateway", args.actor));
    let command = Command {
        line: &args.command,
        json: args.json,
        // Consumers send nothing.
        output: is_worker.then_some((args.output_name.as_str(), args.r#type.as_str())),
    };
    // Jobs that were lost with the program before, or with an answer, come first.
    let (mut again, mut pause) = (true, PAUSE);
    while !*stop.borrow() {
        let polled: Result<Option<Value>, CallError> = tokio::select! {
            polled = gateway.poll(again) => polled,
            _ = wait_until(&mut stop, |stop| *stop) => return Ok(()),
        };
        match polled {
            Ok(Some(job)) => {
                pause = PAUSE;
                command.run(gateway, &job).await;
            }
            Ok(None) => (again, pause) = (false, PAUSE),
            Err(error) if error.is_transient() || matches!(error.status(), Some(401 | 403 | 404)) => {
                note(&format!("{error}; trying again"));
                tokio::select! {
                    () = tokio::time::sleep(error.retry_after().unwrap_or(pause)) => {}
                    _ = wait_until(&mut stop, |stop| *stop) => return Ok(()),
                }
                (again, pause) = (true, pause.saturating_mul(2).min(PAUSE_MAX));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
