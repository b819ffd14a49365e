//! `rollbook logs`: what actors had to say.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::common::{purge, text};
use crate::app::cli::commands::processes::logs as on_docks;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{print, table};
use crate::base::duration;

const EXAMPLES: &str = "\
Examples:
  rollbook logs web
  rollbook logs --output json --lines 100
  rollbook logs 0d4e3d0a-5d6c-4a4e-9f37-6a1c2b3d4e5f
  rollbook logs --envelope 53131466-4e2e-11e7-916e-af2b1e6d242d --output json
  rollbook logs purge --older 1344h --yes

Follows what processes of a definition say on all docks, from now on. With the id of a process of Xbus, shows what \
actors said about it, oldest first, or about an envelope outside of a process.";

const PURGE_EXAMPLES: &str = "\
Examples:
  rollbook logs purge --older 1344h
  rollbook logs purge --older 1344h --yes

Removes log entries of all processes and envelopes. It asks before. Without a terminal it removes nothing, unless --yes \
is given: exit code 2.";

/// Arguments of `logs`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct LogsArgs {
    /// Definition of processes on docks, or id of a process of Xbus; none: all processes on docks
    process: Option<String>,
    /// End after so many lines of processes on docks
    #[arg(long, conflicts_with = "envelope")]
    lines: Option<u64>,
    /// Of this envelope instead
    #[arg(long, value_name = "ID", conflicts_with = "process")]
    envelope: Option<String>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Remove old log entries
    #[command(after_help = PURGE_EXAMPLES)]
    Purge {
        /// Only those that are older
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        older: Duration,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(in crate::app::cli) async fn run(global: &Global, args: LogsArgs) -> anyhow::Result<()> {
    if let Some(Action::Purge { older, yes }) = args.action {
        let age = duration::format(older);
        let what = format!("log entries that are older than {age}");
        return purge(global, (["entry", "entries"], &what), &[("logs", json!({ "older": age }))], yes).await;
    }
    let id = args.process.as_deref();
    let Some(about) = args.envelope.as_deref().or(id.filter(|id| id.parse::<uuid::Uuid>().is_ok())) else {
        return on_docks::follow(global, id, args.lines).await;
    };
    let items = Client::web(global)?.list(&["api", "xbus", "logs", about], &[]).await?;
    print(&match global.output {
        Output::Json => Value::Array(items).to_string(),
        Output::Table => lines(&items),
    })
}

/// A row for each message.
fn lines(items: &[Value]) -> String {
    let mut rows = Vec::new();
    for item in items {
        for message in item.get("messages").and_then(Value::as_array).into_iter().flatten() {
            let said = ["time", "level", "text"].map(|name| text(message, name));
            let [time, level, text_of] = said;
            rows.push(vec![time, level, text(item, "actor"), text(item, "node"), text_of]);
        }
    }
    table(&["TIME", "LEVEL", "ACTOR", "NODE", "TEXT"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    const PROCESS: &str = "0d4e3d0a-5d6c-4a4e-9f37-6a1c2b3d4e5f";

    fn args(process: Option<&str>, envelope: Option<&str>, action: Option<Action>) -> LogsArgs {
        LogsArgs { process: process.map(str::to_owned), lines: None, envelope: envelope.map(str::to_owned), action }
    }

    #[tokio::test]
    async fn entries_of_a_process_or_envelope_are_shown_and_old_ones_removed() {
        let entry = r#"{"actor":"files","node":"out","messages":[{"time":"t","level":"error","text":"disk full"}]}"#;
        let page = || answer("200 OK", "", &format!(r#"{{"items":[{entry}],"next_cursor":null}}"#));
        let fake = Fake::start(vec![page(), page(), answer("200 OK", "", r#"{"removed":3}"#)]).await;
        assert!(lines(&[serde_json::from_str(entry).unwrap()]).contains("disk full"));
        run(&fake.global(), args(Some(PROCESS), None, None)).await.unwrap();
        run(&fake.global(), args(None, Some("e1"), None)).await.unwrap();
        let action = Some(Action::Purge { older: Duration::from_secs(1), yes: true });
        run(&fake.global(), args(None, None, action)).await.unwrap();
        assert_eq!(
            fake.calls(),
            [
                "GET /api/xbus/logs/0d4e3d0a-5d6c-4a4e-9f37-6a1c2b3d4e5f",
                "GET /api/xbus/logs/e1",
                "POST /api/xbus/logs/purge"
            ]
        );
    }
}
