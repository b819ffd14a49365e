//! `rollbook envelope`: what is known of envelopes.

use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::common::{purge, text};
use crate::app::cli::commands::security::rows::lines;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{print, table};
use crate::base::duration;

const EXAMPLES: &str = "\
Examples:
  rollbook envelope show 53131466-4e2e-11e7-916e-af2b1e6d242d
  rollbook envelope purge --older 1344h --yes

The items of envelopes are events of the namespace xbus: `rollbook subscribe 'xbus.>' --start oldest`.";

const SHOW_EXAMPLES: &str = "\
Examples:
  rollbook envelope show 53131466-4e2e-11e7-916e-af2b1e6d242d
  rollbook envelope show 53131466-4e2e-11e7-916e-af2b1e6d242d --output json | jq .fragments";

const PURGE_EXAMPLES: &str = "\
Examples:
  rollbook envelope purge --older 1344h
  rollbook envelope purge --older 1344h --yes

Removes what is known of envelopes that ended so long ago, as long as they are older than every process that goes on. It \
asks before. Without a terminal it removes nothing, unless --yes is given: exit code 2.";

/// Arguments of `envelope`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EnvelopeArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show how far an envelope is, with its events
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Id of the envelope
        envelope: String,
    },
    /// Remove what is known of old envelopes
    #[command(after_help = PURGE_EXAMPLES)]
    Purge {
        /// Only those that ended so long ago
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        older: Duration,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(in crate::app::cli) async fn run(global: &Global, args: EnvelopeArgs) -> anyhow::Result<()> {
    match args.action {
        Action::Show { envelope } => {
            let client = Client::web(global)?;
            let url = client.url(&["api", "xbus", "envelopes", &envelope], &[]);
            let answer: Value = client.json(Method::GET, url, None).await?;
            print(&match global.output {
                Output::Json => answer.to_string(),
                Output::Table => shown(&answer),
            })
        }
        Action::Purge { older, yes } => {
            let age = duration::format(older);
            let what = format!("envelopes that ended {age} ago or earlier");
            purge(global, (["envelope", "envelopes"], &what), &[("envelopes", json!({ "older": age }))], yes).await
        }
    }
}

fn shown(answer: &Value) -> String {
    let members = ["id", "status", "reason", "actor", "output", "process", "node", "bytes", "created_at", "changed_at"];
    let head = lines(&members.map(|member| (member, text(answer, member))));
    let events = answer.get("events").and_then(Value::as_array).into_iter().flatten();
    let row = |event: &Value| ["id", "type", "items", "bytes", "is_complete"].map(|name| text(event, name)).to_vec();
    format!("{head}\n\n{}", table(&["EVENT", "TYPE", "ITEMS", "BYTES", "COMPLETE"], events.map(row).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    #[tokio::test]
    async fn an_envelope_is_shown_and_old_ones_are_removed() {
        let one = r#"{"id":"e1","status":"complete","events":[{"id":"v1","type":"t","items":1,"is_complete":true}]}"#;
        assert!(shown(&serde_json::from_str(one).unwrap()).contains("v1"));
        let fake = Fake::start(vec![answer("200 OK", "", one), answer("200 OK", "", r#"{"removed":1}"#)]).await;
        run(&fake.global(), EnvelopeArgs { action: Action::Show { envelope: "e1".into() } }).await.unwrap();
        let action = Action::Purge { older: Duration::from_secs(3600), yes: true };
        run(&fake.global(), EnvelopeArgs { action }).await.unwrap();
        assert_eq!(fake.calls(), ["GET /api/xbus/envelopes/e1", "POST /api/xbus/envelopes/purge"]);
        assert_eq!(fake.bodies()[1], r#"{"older":"1h"}"#);
    }
}
