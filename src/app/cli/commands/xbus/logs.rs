//! `rollbook logs`: what actors had to say.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::common::{purge, text};
use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{print, table};
use crate::base::duration;

const EXAMPLES: &str = "\
Examples:
  rollbook logs 0d4e3d0a-5d6c-4a4e-9f37-6a1c2b3d4e5f
  rollbook logs --envelope 53131466-4e2e-11e7-916e-af2b1e6d242d --output json
  rollbook logs purge --older 1344h --yes

Shows what actors said about a process, oldest first, or about an envelope outside of a process.";

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
    /// Id of the process
    process: Option<String>,
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
    let about = args.process.or(args.envelope);
    let about = about.ok_or_else(|| Usage("name a process, or an envelope with --envelope".to_owned()))?;
    let items = Client::web(global)?.list(&["api", "xbus", "logs", &about], &[]).await?;
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

    fn args(process: Option<&str>, envelope: Option<&str>, action: Option<Action>) -> LogsArgs {
        LogsArgs { process: process.map(str::to_owned), envelope: envelope.map(str::to_owned), action }
    }

    #[tokio::test]
    async fn entries_of_a_process_or_envelope_are_shown_and_old_ones_removed() {
        let entry = r#"{"actor":"files","node":"out","messages":[{"time":"t","level":"error","text":"disk full"}]}"#;
        let page = || answer("200 OK", "", &format!(r#"{{"items":[{entry}],"next_cursor":null}}"#));
        let fake = Fake::start(vec![page(), page(), answer("200 OK", "", r#"{"removed":3}"#)]).await;
        assert!(lines(&[serde_json::from_str(entry).unwrap()]).contains("disk full"));
        run(&fake.global(), args(Some("p1"), None, None)).await.unwrap();
        run(&fake.global(), args(None, Some("e1"), None)).await.unwrap();
        let action = Some(Action::Purge { older: Duration::from_secs(1), yes: true });
        run(&fake.global(), args(None, None, action)).await.unwrap();
        assert_eq!(fake.calls(), ["GET /api/xbus/logs/p1", "GET /api/xbus/logs/e1", "POST /api/xbus/logs/purge"]);
        assert!(run(&fake.global(), args(None, None, None)).await.unwrap_err().is::<Usage>());
    }
}
