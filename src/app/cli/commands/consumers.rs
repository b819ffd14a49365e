//! `rollbook consumers`: lists durable consumers and groups with their positions, and deletes them.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::cli::shared::confirm;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{print, table};

const EXAMPLES: &str = "\
Examples:
  rollbook consumers list
  rollbook consumers list --namespace app -o json
  rollbook consumers delete app billing --yes

`delete` asks for the name of the consumer. Without a terminal it forgets nothing, unless --yes is given: exit code 2. \
DONE UP TO is the index behind which a consumer resumes, LAG how many events of any subject the log holds behind it.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook consumers list
  rollbook consumers list --namespace app --output json

DONE UP TO is the index behind which a consumer resumes, LAG how many events of any subject the log holds behind it.";

const DELETE_EXAMPLES: &str = "\
Examples:
  rollbook consumers delete app billing
  rollbook consumers delete app billing --yes

It asks for the name of the consumer. Without a terminal it forgets nothing, unless --yes is given: exit code 2.";

/// Arguments of `consumers`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConsumersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show durable consumers and groups
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Only those of this namespace
        #[arg(long)]
        namespace: Option<String>,
    },
    /// Forget a durable consumer or a group and its place in the log
    #[command(alias = "remove", after_help = DELETE_EXAMPLES)]
    Delete {
        /// Namespace
        namespace: String,
        /// Name of the consumer or group
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// A durable consumer as REST shows it.
#[derive(Deserialize)]
struct Consumer {
    namespace: String,
    name: String,
    #[serde(default)]
    group: bool,
    subject: String,
    ack_floor: u64,
    lag: u64,
    #[serde(default)]
    members: Vec<Member>,
    #[serde(default)]
    paused: bool,
}

#[derive(Deserialize)]
struct Member {
    #[serde(default)]
    in_flight: Vec<Value>,
}

pub(in crate::app::cli) async fn run(global: &Global, args: ConsumersArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    match args.action {
        Action::List { namespace } => {
            let query: Vec<(&str, &str)> = namespace.iter().map(|name| ("namespace", name.as_str())).collect();
            show(global, client.list(&["api", "consumers"], &query).await?)
        }
        Action::Delete { namespace, name, yes } => {
            if confirm::has_to_ask(yes, &format!("forgetting consumer {name} of namespace {namespace}"))? {
                let question =
                    format!("This forgets consumer {name} of namespace {namespace} and its place in the log for good.");
                confirm::ask(&question, &name)?;
            }
            let url = client.url(&["api", "consumers", &namespace, &name], &[]);
            client.send(Method::DELETE, url, None).await?;
            print(&match global.output {
                Output::Table => format!("consumer {name} of namespace {namespace} is forgotten"),
                Output::Json => json!({ "deleted": name, "namespace": namespace }).to_string(),
            })
        }
    }
}

fn show(global: &Global, items: Vec<Value>) -> anyhow::Result<()> {
    if global.output == Output::Json {
        return print(&Value::Array(items).to_string());
    }
    let header = ["NAMESPACE", "NAME", "KIND", "SUBJECT", "DONE UP TO", "LAG", "CONNECTED", "IN FLIGHT", "STATE"];
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        let consumer = Consumer::deserialize(item)?;
        let in_flight: usize = consumer.members.iter().map(|member| member.in_flight.len()).sum();
        rows.push(vec![
            consumer.namespace,
            consumer.name,
            if consumer.group { "group" } else { "consumer" }.to_owned(),
            consumer.subject,
            consumer.ack_floor.to_string(),
            consumer.lag.to_string(),
            consumer.members.len().to_string(),
            in_flight.to_string(),
            if consumer.paused { "paused" } else { "active" }.to_owned(),
        ]);
    }
    print(&table(&header, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::error::Usage;
    use crate::app::cli::shared::testing::{Fake, answer};

    #[tokio::test]
    async fn lists_and_deletes() {
        let item = r#"{"namespace":"app","name":"w","group":true,"subject":"app.>","ack_floor":17,"lag":25,"members":[{"consumer_id":"c_1","in_flight":[18]}],"paused":false}"#;
        let fake = Fake::start(vec![
            answer("200 OK", "", &format!("{{\"items\":[{item}],\"next_cursor\":null}}")),
            answer("204 No Content", "", ""),
        ])
        .await;
        let action = Action::List { namespace: Some("app".into()) };
        run(&fake.global(), ConsumersArgs { action }).await.unwrap();
        // The tests have no terminal.
        let delete = |yes| Action::Delete { namespace: "app".into(), name: "w".into(), yes };
        let error = run(&fake.global(), ConsumersArgs { action: delete(false) }).await.unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("pass --yes"), "{error}");
        run(&fake.global(), ConsumersArgs { action: delete(true) }).await.unwrap();
        assert_eq!(fake.calls(), ["GET /api/consumers?namespace=app", "DELETE /api/consumers/app/w"]);
    }
}
