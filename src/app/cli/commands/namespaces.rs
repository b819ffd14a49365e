//! `rollbook namespaces`: lists, creates and deletes namespaces, and changes their retention.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::cli::shared::confirm;
use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{counted, print, size, table};
use crate::base::bytes;
use crate::base::duration;

const EXAMPLES: &str = "\
Examples:
  rollbook namespaces list
  rollbook namespaces create audit --max-age 720h
  rollbook namespaces retention audit --max-bytes 10GiB --max-age none
  rollbook namespaces retention orders --dedupe-window 30m
  rollbook namespaces delete audit --yes

`delete` asks for the name of the namespace. Without a terminal it deletes nothing, unless --yes is given: exit code 2.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook namespaces list
  rollbook namespaces list --output json | jq -r '.[].name'

BYTES  of the payloads and names of the events that are kept
ON DISK  what they take there: less than BYTES where they are compressed, and nothing while they are only in the log \
that all namespaces share";

const CREATE_EXAMPLES: &str = "\
Examples:
  rollbook namespaces create audit
  rollbook namespaces create audit --max-age 720h --max-bytes 10GiB

The namespace `*` of `serve --namespaces` lets each first publish create its namespace: then this is only needed to \
say what it keeps.";

const RETENTION_EXAMPLES: &str = "\
Examples:
  rollbook namespaces retention audit --max-bytes 10GiB --max-age none
  rollbook namespaces retention orders --dedupe-window 30m";

const DELETE_EXAMPLES: &str = "\
Examples:
  rollbook namespaces delete audit
  rollbook namespaces delete audit --yes

It asks for the name of the namespace. Without a terminal it deletes nothing, unless --yes is given: exit code 2.";

/// Arguments of `namespaces`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct NamespacesArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all namespaces
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Create a namespace
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// 1 to 64 letters, digits, _ or -
        name: String,
        #[command(flatten)]
        retention: RetentionArgs,
    },
    /// Change what a namespace keeps and remembers; what is not given stays as it is
    #[command(after_help = RETENTION_EXAMPLES)]
    Retention {
        /// The namespace
        name: String,
        #[command(flatten)]
        retention: RetentionArgs,
    },
    /// Delete a namespace and all its events
    #[command(alias = "remove", after_help = DELETE_EXAMPLES)]
    Delete {
        /// The namespace
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Limits of what is kept; the oldest events go first.
#[derive(Debug, Args)]
struct RetentionArgs {
    /// Keep events this long, for example 24h; none = no limit
    #[arg(long, value_name = "DURATION", value_parser = age)]
    max_age: Option<Value>,
    /// Keep this many bytes, for example 10GiB; none = no limit
    #[arg(long, value_name = "SIZE", value_parser = kept_bytes)]
    max_bytes: Option<Value>,
    /// Keep this many events; none = no limit
    #[arg(long, value_name = "N", value_parser = count)]
    max_events: Option<Value>,
    /// Remember dedupe keys this long, 1s to 24h; none = the default, 2m
    #[arg(long, value_name = "DURATION", value_parser = age)]
    dedupe_window: Option<Value>,
}

impl RetentionArgs {
    /// The given limits as JSON. `null` removes a limit.
    fn json(self) -> Map<String, Value> {
        let limits = [
            ("max_age", self.max_age),
            ("max_bytes", self.max_bytes),
            ("max_events", self.max_events),
            ("dedupe_window", self.dedupe_window),
        ];
        limits.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

const NO_LIMIT: &str = "none";

fn age(text: &str) -> Result<Value, String> {
    if text == NO_LIMIT {
        return Ok(Value::Null);
    }
    let age = duration::parse(text).map_err(|error| error.to_string())?;
    if age.is_zero() {
        return Err("an age of nothing keeps nothing; write none for no limit".to_owned());
    }
    Ok(duration::format(age).into())
}

fn count(text: &str) -> Result<Value, String> {
    if text == NO_LIMIT {
        return Ok(Value::Null);
    }
    let count = text.parse::<u64>().ok().filter(|count| *count > 0);
    count.map(Value::from).ok_or_else(|| "write a whole number above 0, or none".to_owned())
}

fn kept_bytes(text: &str) -> Result<Value, String> {
    if text == NO_LIMIT {
        return Ok(Value::Null);
    }
    let bytes = bytes::parse(text).map_err(|error| format!("{error}, or none"))?;
    if bytes == 0 { Err("0 bytes keep nothing; write none for no limit".to_owned()) } else { Ok(bytes.into()) }
}

/// A namespace, as REST describes it.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::app::cli) struct Namespace {
    pub(in crate::app::cli) name: String,
    pub(in crate::app::cli) first_index: u64,
    pub(in crate::app::cli) next_index: u64,
    pub(in crate::app::cli) events: u64,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    disk_bytes: u64,
    #[serde(default)]
    retention: Option<Retention>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Retention {
    max_age: Option<String>,
    max_bytes: Option<u64>,
    max_events: Option<u64>,
    dedupe_window: Option<String>,
}

impl std::fmt::Display for Retention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limits =
            [self.max_age.clone(), self.max_bytes.map(size), self.max_events.map(|events| format!("{events} events"))];
        let limits: Vec<String> = limits.into_iter().flatten().collect();
        f.write_str(&if limits.is_empty() { "everything".to_owned() } else { limits.join(", ") })?;
        self.dedupe_window.as_ref().map_or(Ok(()), |window| write!(f, "; keys {window}"))
    }
}

pub(in crate::app::cli) async fn run(global: &Global, args: NamespacesArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    match args.action {
        Action::List => show(global, client.list(&["api", "namespaces"], &[]).await?),
        Action::Create { name, retention } => {
            let mut limits = retention.json();
            limits.retain(|_, limit| !limit.is_null());
            let body = json!({ "name": name, "retention": limits });
            let created = client.json(Method::POST, client.url(&["api", "namespaces"], &[]), Some(&body)).await?;
            show(global, vec![created])
        }
        Action::Retention { name, retention } => {
            let limits = retention.json();
            if limits.is_empty() {
                return Err(Usage(
                    "give at least one of --max-age, --max-bytes, --max-events and --dedupe-window".to_owned(),
                )
                .into());
            }
            let url = client.url(&["api", "namespaces", &name], &[]);
            let changed = client.json(Method::PATCH, url, Some(&json!({ "retention": limits }))).await?;
            show(global, vec![changed])
        }
        Action::Delete { name, yes } => {
            let asks = confirm::has_to_ask(yes, &format!("deleting namespace {name}"))?;
            let events = counted(get(&client, &name).await?.events, "event");
            if asks {
                confirm::ask(&format!("This deletes namespace {name} with {events} for good."), &name)?;
            }
            client.send(Method::DELETE, client.url(&["api", "namespaces", &name], &[]), None).await?;
            print(&match global.output {
                Output::Table => format!("namespace {name} is deleted; it had {events}"),
                Output::Json => json!({ "deleted": name }).to_string(),
            })
        }
    }
}

/// Reads one namespace.
pub(in crate::app::cli) async fn get(client: &Client, name: &str) -> anyhow::Result<Namespace> {
    client.json(Method::GET, client.url(&["api", "namespaces", name], &[]), None).await
}

fn show(global: &Global, items: Vec<Value>) -> anyhow::Result<()> {
    if global.output == Output::Json {
        return print(&Value::Array(items).to_string());
    }
    let header = ["NAMESPACE", "EVENTS", "FIRST", "NEXT", "BYTES", "ON DISK", "KEEPS"];
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        let namespace = Namespace::deserialize(item)?;
        rows.push(vec![
            namespace.name,
            namespace.events.to_string(),
            namespace.first_index.to_string(),
            namespace.next_index.to_string(),
            size(namespace.bytes),
            size(namespace.disk_bytes),
            namespace.retention.unwrap_or_default().to_string(),
        ]);
    }
    print(&table(&header, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::testing::{Fake, answer};
    use clap::Parser;

    const APP: &str = r#"{"name":"app","first_index":1,"next_index":43,"events":42,"bytes":12345,"retention":{"max_age":"24h","max_bytes":null,"max_events":100},"settled_index":0,"disk_bytes":0}"#;

    async fn call(fake: &Fake, line: &str) -> anyhow::Result<()> {
        let words = ["rollbook", "namespaces"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words)?.command {
            Command::Client(ClientCommand::Namespaces(args)) => run(&fake.global(), args).await,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn each_action_is_its_request() {
        let list = format!("{{\"items\":[{APP}],\"next_cursor\":null}}");
        let fake = Fake::start(vec![
            answer("200 OK", "", &list),
            answer("201 Created", "", APP),
            answer("200 OK", "", APP),
            answer("200 OK", "", APP),
            answer("204 No Content", "", ""),
        ])
        .await;
        call(&fake, "list").await.unwrap();
        call(&fake, "create app --max-age 1h30m --max-bytes none").await.unwrap();
        call(&fake, "retention app --max-age none --max-bytes 10MiB --max-events 5 --dedupe-window 10m").await.unwrap();
        call(&fake, "delete a/b --yes").await.unwrap();
        let calls = [
            "GET /api/namespaces",
            "POST /api/namespaces",
            "PATCH /api/namespaces/app",
            "GET /api/namespaces/a%2Fb",
            "DELETE /api/namespaces/a%2Fb",
        ];
        assert_eq!(fake.calls(), calls);
        let bodies = fake.bodies();
        assert_eq!(bodies[1], r#"{"name":"app","retention":{"max_age":"1h30m"}}"#);
        assert_eq!(
            bodies[2],
            r#"{"retention":{"max_age":null,"max_bytes":10485760,"max_events":5,"dedupe_window":"10m"}}"#
        );
    }

    /// The tests have no terminal.
    #[tokio::test]
    async fn nothing_is_deleted_unasked() {
        let fake = Fake::start(vec![]).await;
        let error = call(&fake, "delete app").await.unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("pass --yes"), "{error}");
        assert_eq!(fake.calls(), [""; 0]);
    }

    #[tokio::test]
    async fn a_change_of_nothing_is_bad_usage() {
        let fake = Fake::start(vec![]).await;
        assert!(call(&fake, "retention app").await.unwrap_err().is::<Usage>());
    }

    #[test]
    fn limits_are_checked_before_they_are_sent() {
        assert_eq!(kept_bytes("2GB"), Ok(2_000_000_000_u64.into()));
        assert_eq!(kept_bytes("7"), Ok(7.into()));
        for bad in ["", "0", "-1", "1.5GiB", "GiB", "1X", "99999999999TiB"] {
            assert!(kept_bytes(bad).is_err(), "{bad}");
        }
        assert!(age("2d").is_err() && age("0s").is_err() && count("0").is_err() && count("x").is_err());
    }

    #[test]
    fn what_is_kept_is_told_in_words() {
        let words = |json: &str| serde_json::from_str::<Retention>(json).unwrap().to_string();
        assert_eq!(words("{}"), "everything");
        assert_eq!(words(r#"{"dedupe_window":"10m"}"#), "everything; keys 10m");
        assert_eq!(words(r#"{"max_age":"24h","max_bytes":1048576,"max_events":100}"#), "24h, 1.00 MiB, 100 events");
    }
}
