//! `rollbook roles`: named lists of rights, with limits, that principals can have.

use std::collections::BTreeMap;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::rights::{self, RightsArgs};
use super::rows;
use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{print, table};
use crate::base::bytes;

const EXAMPLES: &str = "\
Examples:
  rollbook roles list
  rollbook roles set orders-writer --allow 'publish orders.>' --limit publishes_per_second=100
  rollbook roles grant orders-writer --allow 'subscribe orders.>'
  rollbook roles delete orders-writer --yes

The roles root, operator, viewer, service, publisher and subscriber are built in and cannot be changed. `set` replaces, \
`grant` and `revoke` add and remove. A change counts at once for every principal that has the role.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook roles list
  rollbook roles list --output json | jq '.[] | select(.built_in | not)'";

const SHOW_EXAMPLES: &str = "\
Examples:
  rollbook roles show operator";

const SET_EXAMPLES: &str = "\
Examples:
  rollbook roles set orders-writer --allow 'publish orders.>' --deny 'publish orders.secret.>'
  rollbook roles set inbox --allow 'subscribe inbox.{name}.>' --description 'everybody has an inbox'
  rollbook roles set orders-writer --limit publishes_per_second=100 --limit namespace_bytes=10GiB --limit streams=none

Creates the role when there is none. Rights that are given replace all its rights; limits that are given replace those \
of the same name; what is not given stays as it is. `{name}` and `{kind}` in a right stand for those of the principal.

Limits count for each principal and node: connections, connects_per_second, publishes_per_second, \
publish_bytes_per_second, calls_per_second, streams; namespace_bytes is the size of a namespace to which it publishes.";

const GRANT_EXAMPLES: &str = "\
Examples:
  rollbook roles grant orders-writer --allow 'subscribe orders.>'

Everything else stays as it is.";

const REVOKE_EXAMPLES: &str = "\
Examples:
  rollbook roles revoke orders-writer --allow 'subscribe orders.>'

Takes away exactly the rights that are given, as `show` writes them, and refuses when the role has not all of them.";

const DELETE_EXAMPLES: &str = "\
Examples:
  rollbook roles delete orders-writer
  rollbook roles delete orders-writer --yes

It asks for the name of the role. Without a terminal it deletes nothing, unless --yes is given: exit code 2.";

/// The limits that a role can have.
const LIMITS: [&str; 7] = [
    "connections",
    "connects_per_second",
    "publishes_per_second",
    "publish_bytes_per_second",
    "calls_per_second",
    "streams",
    "namespace_bytes",
];

/// Arguments of `roles`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RolesArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all roles
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Show one role
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// The role
        name: String,
    },
    /// Create a role, or replace its rights
    #[command(after_help = SET_EXAMPLES)]
    Set(SetArgs),
    /// Give a role more rights
    #[command(after_help = GRANT_EXAMPLES)]
    Grant(ChangeArgs),
    /// Take rights away from a role
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke(ChangeArgs),
    /// Delete a role; principals lose what it gave
    #[command(alias = "remove", after_help = DELETE_EXAMPLES)]
    Delete {
        /// The role
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct SetArgs {
    /// Letters, digits, _, - and .
    name: String,
    #[command(flatten)]
    rights: RightsArgs,
    /// It has no rights
    #[arg(long, conflicts_with_all = ["allow", "deny"])]
    no_rights: bool,
    /// A limit, as in publishes_per_second=100; none = no limit; can be repeated
    #[arg(long, value_name = "NAME=N", value_parser = limit)]
    limit: Vec<(&'static str, Option<u64>)>,
    /// A text for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// The role
    name: String,
    #[command(flatten)]
    rights: RightsArgs,
}

fn limit(text: &str) -> Result<(&'static str, Option<u64>), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=N, as in publishes_per_second=100")?;
    let known = LIMITS.into_iter().find(|known| *known == name);
    let name = known.ok_or_else(|| format!("no limit {name}; the limits are {}", LIMITS.join(", ")))?;
    if value == "none" {
        return Ok((name, None));
    }
    let count = match name.contains("bytes") {
        true => bytes::parse(value)?,
        false => value.parse().map_err(|_| format!("{name}: a whole number, or none"))?,
    };
    Ok((name, Some(count)))
}

/// A role as REST shows it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Row {
    name: String,
    rights: Vec<String>,
    limits: BTreeMap<String, u64>,
    description: String,
    built_in: bool,
}

impl Row {
    /// The body of a change.
    fn body(&self) -> Value {
        let Self { rights, limits, description, .. } = self;
        json!({ "rights": rights, "limits": limits, "description": description })
    }

    /// A role that is there and can be changed.
    fn changeable(row: Option<Self>, name: &str) -> anyhow::Result<Self> {
        match row {
            Some(row) if row.built_in => {
                bail!("the role {name} is built in and cannot be changed; make one of another name")
            }
            Some(row) => Ok(row),
            None => Err(unknown(name)),
        }
    }

    fn limits(&self, between: &str) -> String {
        let limits = self.limits.iter().map(|(name, limit)| format!("{name}={limit}"));
        limits.collect::<Vec<_>>().join(between)
    }
}

fn unknown(name: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "there is no role {name}; create it, as with `rollbook roles set {name} --allow 'publish orders.>'`"
    )
}

pub(in crate::app::cli) async fn run(global: &Global, args: RolesArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let url = |name: &str| rows::one(&client, "roles", name);
    let (row, json) = match args.action {
        Action::List => return list(global, client.list(&["api", "security", "roles"], &[]).await?),
        Action::Show { name } => rows::find(&client, &url(&name)).await?.ok_or_else(|| unknown(&name))?,
        Action::Set(args) => {
            let set = |row: Option<Row>| {
                let row = Row::changeable(Some(row.unwrap_or_default()), &args.name)?;
                Ok(set(row, &args).body())
            };
            rows::edit(&client, &url(&args.name), set).await?
        }
        Action::Grant(args) => {
            let rights = checked(&args)?;
            let grant = |row: Option<Row>| {
                let mut row = Row::changeable(row, &args.name)?;
                rights::add(&mut row.rights, &rights);
                Ok(row.body())
            };
            rows::edit(&client, &url(&args.name), grant).await?
        }
        Action::Revoke(args) => {
            let rights = checked(&args)?;
            let revoke = |row: Option<Row>| {
                let mut row = Row::changeable(row, &args.name)?;
                rights::remove(&mut row.rights, &rights, &format!("the role {}", args.name), "right")?;
                Ok(row.body())
            };
            rows::edit(&client, &url(&args.name), revoke).await?
        }
        Action::Delete { name, yes } => {
            let effect = "principals that have it lose what it gave";
            let deletion = rows::Deletion { kind: "role", name: &name, effect };
            return rows::delete(global, url(&name), deletion, yes).await;
        }
    };
    print(&match global.output {
        Output::Json => json.to_string(),
        Output::Table => show(&row),
    })
}

/// The rights of a change that changes something.
fn checked(args: &ChangeArgs) -> Result<Vec<String>, Usage> {
    if args.rights.is_empty() {
        return Err(Usage("give at least one of --allow and --deny".to_owned()));
    }
    Ok(args.rights.texts())
}

/// Replaces what is given, and leaves the rest.
fn set(mut row: Row, args: &SetArgs) -> Row {
    if args.no_rights || !args.rights.is_empty() {
        row.rights = args.rights.texts();
    }
    for (name, limit) in &args.limit {
        match limit {
            Some(limit) => row.limits.insert((*name).to_owned(), *limit),
            None => row.limits.remove(*name),
        };
    }
    if let Some(description) = &args.description {
        row.description.clone_from(description);
    }
    row
}

fn list(global: &Global, items: Vec<Value>) -> anyhow::Result<()> {
    if global.output == Output::Json {
        return print(&Value::Array(items).to_string());
    }
    let mut lines = Vec::with_capacity(items.len());
    for item in items {
        let row = Row::deserialize(item)?;
        let (rights, limits) = (row.rights.join("\n"), row.limits("\n"));
        let built_in = if row.built_in { "yes" } else { "" }.to_owned();
        lines.push(vec![row.name, built_in, rights, limits, row.description]);
    }
    print(&table(&["ROLE", "BUILT IN", "RIGHTS", "LIMITS", "DESCRIPTION"], lines))
}

fn show(row: &Row) -> String {
    rows::lines(&[
        ("role", row.name.clone()),
        ("built in", if row.built_in { "yes, cannot be changed" } else { "" }.to_owned()),
        ("rights", if row.rights.is_empty() { "none".to_owned() } else { row.rights.join("\n") }),
        ("limits", row.limits("\n")),
        ("description", row.description.clone()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::testing::{Fake, answer};
    use clap::Parser;

    const WRITER: &str = r#"{"name":"w","rights":["publish orders.>"],"limits":{"streams":3},"description":"","built_in":false,"revision":7}"#;
    const ROOT: &str =
        r#"{"name":"root","rights":["publish >"],"limits":{},"description":"","built_in":true,"revision":0}"#;

    async fn call(fake: &Fake, words: &[&str]) -> anyhow::Result<()> {
        let words = ["rollbook", "roles"].iter().chain(words);
        match Cli::try_parse_from(words)?.command {
            Command::Client(ClientCommand::Roles(args)) => run(&fake.global(), args).await,
            other => panic!("{other:?}"),
        }
    }

    async fn sent(words: &[&str]) -> Value {
        let fake = Fake::start(vec![answer("200 OK", "", WRITER); 2]).await;
        call(&fake, words).await.unwrap();
        assert_eq!(fake.calls(), ["GET /api/security/roles/w", "PUT /api/security/roles/w"]);
        serde_json::from_str(&fake.bodies()[1]).unwrap()
    }

    #[tokio::test]
    async fn set_replaces_rights_and_the_limits_that_are_named() {
        let words = ["set", "w", "--limit", "publishes_per_second=100", "--limit", "namespace_bytes=10KiB"];
        let body = sent(&words).await;
        let limits = json!({ "streams": 3, "publishes_per_second": 100, "namespace_bytes": 10240 });
        assert_eq!((&body["rights"], &body["limits"]), (&json!(["publish orders.>"]), &limits));
        let body = sent(&["set", "w", "--limit", "streams=none", "--deny", "publish x.>"]).await;
        assert_eq!((&body["rights"], &body["limits"]), (&json!(["deny publish x.>"]), &json!({})));
    }

    #[tokio::test]
    async fn rights_are_added_and_removed() {
        let body = sent(&["grant", "w", "--allow", "subscribe orders.>"]).await;
        assert_eq!(body["rights"], json!(["publish orders.>", "subscribe orders.>"]));
        let body = sent(&["revoke", "w", "--allow", "publish orders.>"]).await;
        assert_eq!((&body["rights"], &body["limits"]), (&json!([]), &json!({ "streams": 3 })));
    }

    #[tokio::test]
    async fn a_built_in_role_is_not_changed() {
        let fake = Fake::start(vec![answer("200 OK", "", ROOT)]).await;
        let error = call(&fake, &["set", "root", "--no-rights"]).await.unwrap_err().to_string();
        assert!(error.contains("built in"), "{error}");
        assert_eq!(fake.calls(), ["GET /api/security/roles/root"]);
    }

    #[test]
    fn limits_are_checked_before_they_are_sent() {
        assert_eq!(limit("streams=none"), Ok(("streams", None)));
        assert_eq!(limit("publish_bytes_per_second=1MiB"), Ok(("publish_bytes_per_second", Some(1024 * 1024))));
        for (bad, part) in [("streams", "NAME=N"), ("stream=1", "the limits are"), ("streams=-1", "whole number")] {
            let error = limit(bad).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(limit("namespace_bytes=x").is_err());
    }
}
