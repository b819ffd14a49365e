//! `rollbook delayed`: lists the events that wait for their time, and cancels them.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{print, table};

const EXAMPLES: &str = "\
Examples:
  rollbook publish app.reminder '{\"order\":17}' --delay 1h
  rollbook delayed list --namespace app
  rollbook delayed cancel d_2_19adb1c5e40_1";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook delayed list
  rollbook delayed list --namespace app --output json

The events of one namespace stand in the order in which they are published.";

const CANCEL_EXAMPLES: &str = "\
Examples:
  rollbook delayed cancel d_2_19adb1c5e40_1

The id is what `rollbook publish --delay` prints. An event that was published or cancelled before is an error: exit code 1.";

/// Arguments of `delayed`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DelayedArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the events that wait for their time
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Only those of this namespace
        #[arg(long)]
        namespace: Option<String>,
    },
    /// Cancel a waiting event: it is never published
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel {
        /// Id of the waiting event
        id: String,
    },
}

/// A waiting event as REST shows it.
#[derive(Deserialize)]
struct Waiting {
    id: String,
    due: String,
    namespace: String,
    subject: String,
    bytes: u64,
}

pub(in crate::app::cli) async fn run(global: &Global, args: DelayedArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    match args.action {
        Action::List { namespace } => {
            let query: Vec<(&str, &str)> = namespace.iter().map(|name| ("namespace", name.as_str())).collect();
            show(global, client.list(&["api", "delayed"], &query).await?)
        }
        Action::Cancel { id } => {
            let url = client.url(&["api", "delayed", &id], &[]);
            client.send(Method::DELETE, url, None).await?;
            print(&match global.output {
                Output::Table => format!("event {id} is cancelled"),
                Output::Json => json!({ "cancelled": id }).to_string(),
            })
        }
    }
}

fn show(global: &Global, items: Vec<Value>) -> anyhow::Result<()> {
    if global.output == Output::Json {
        return print(&Value::Array(items).to_string());
    }
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        let Waiting { id, due, namespace, subject, bytes } = Waiting::deserialize(item)?;
        rows.push(vec![id, due, namespace, subject, bytes.to_string()]);
    }
    print(&table(&["ID", "DUE", "NAMESPACE", "SUBJECT", "BYTES"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    #[tokio::test]
    async fn lists_and_cancels() {
        let item = r#"{"id":"d_1_2_3","due":"2026-01-01T00:00:00Z","namespace":"app","subject":"app.x","bytes":24}"#;
        let fake = Fake::start(vec![
            answer("200 OK", "", &format!("{{\"items\":[{item}],\"next_cursor\":null}}")),
            answer("204 No Content", "", ""),
            answer("404 Not Found", "", "{\"detail\":\"no event waits under this id\"}"),
        ])
        .await;
        let action = Action::List { namespace: Some("app".into()) };
        run(&fake.global(), DelayedArgs { action }).await.unwrap();
        let cancel = || DelayedArgs { action: Action::Cancel { id: "d_1_2_3".into() } };
        run(&fake.global(), cancel()).await.unwrap();
        run(&fake.global(), cancel()).await.unwrap_err();
        let calls = fake.calls();
        assert!(calls[0].starts_with("GET /api/delayed?namespace=app"), "{calls:?}");
        assert_eq!(calls[1..], ["DELETE /api/delayed/d_1_2_3", "DELETE /api/delayed/d_1_2_3"]);
    }
}
