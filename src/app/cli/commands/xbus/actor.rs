//! `rollbook actor`: what programs of Xbus accounts may do.

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::common::{list, text, told};
use super::run;
use crate::app::cli::commands::security::rows::{Deletion, delete, edit, lines};
use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::Global;
use crate::app::cli::shared::http::Client;

const EXAMPLES: &str = "\
Examples:
  rollbook actor list --status pending
  rollbook actor accept shop.orders
  rollbook actor config shop.orders language=en

An actor is an emitter, a worker or a consumer of an account. Its program registers it, and it works when an operator has \
accepted it. Pipelines name actors by name or by role.";

const ACCEPT_EXAMPLES: &str = "\
Examples:
  rollbook actor accept shop.orders";

const REJECT_EXAMPLES: &str = "\
Examples:
  rollbook actor reject shop.orders";

const DISABLE_EXAMPLES: &str = "\
Examples:
  rollbook actor disable shop.orders

Its jobs go to others. `rollbook actor accept` lets it work again.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook actor list
  rollbook actor list --account shop --role orders --output json";

const SHOW_EXAMPLES: &str = "\
Examples:
  rollbook actor show shop.orders";

const CONFIG_EXAMPLES: &str = "\
Examples:
  rollbook actor config shop.orders language=en
  rollbook actor config shop.orders language= format=csv
  rollbook actor config shop.orders --role orders --role invoices

Entries that are not given stay; an empty value removes the entry. Roles that are given replace all its roles.";

const DELETE_EXAMPLES: &str = "\
Examples:
  rollbook actor delete shop.orders
  rollbook actor delete shop.orders --yes

Its program registers it anew when it comes again. It asks for the name of the actor. Without a terminal it deletes \
nothing, unless --yes is given: exit code 2.";

/// Arguments of `actor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ActorArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Let an actor work
    #[command(after_help = ACCEPT_EXAMPLES)]
    Accept {
        /// Name or id
        actor: String,
    },
    /// Say no to an actor
    #[command(after_help = REJECT_EXAMPLES)]
    Reject {
        /// Name or id
        actor: String,
    },
    /// Let an actor work no more
    #[command(after_help = DISABLE_EXAMPLES)]
    Disable {
        /// Name or id
        actor: String,
    },
    /// Show all actors
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show one actor
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Name or id
        actor: String,
    },
    /// Set entries of the configuration of an actor, or its roles
    #[command(after_help = CONFIG_EXAMPLES)]
    Config(ConfigArgs),
    /// Run a command for each job of an actor
    Run(run::RunArgs),
    /// Delete an actor
    #[command(alias = "remove", after_help = DELETE_EXAMPLES)]
    Delete {
        /// Name or id
        actor: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only those of this account
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Only those with this role
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Only those with this status
    #[arg(long)]
    status: Option<Status>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Status {
    Pending,
    Enabled,
    Disabled,
    Rejected,
}

impl Status {
    const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Rejected => "rejected",
        }
    }
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Name or id
    actor: String,
    /// Entries to set
    #[arg(value_name = "KEY=VALUE", value_parser = entry)]
    entries: Vec<(String, String)>,
    /// A role it has; can be repeated
    #[arg(long, value_name = "NAME")]
    role: Vec<String>,
    /// It has no roles
    #[arg(long, conflicts_with = "role")]
    no_roles: bool,
}

fn entry(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(key, _)| !key.is_empty());
    parts.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "write KEY=VALUE".to_owned())
}

pub(in crate::app::cli) async fn run(global: &Global, args: ActorArgs) -> anyhow::Result<()> {
    match args.action {
        Action::Accept { actor } => decide(global, &actor, "accept", "is accepted").await,
        Action::Reject { actor } => decide(global, &actor, "reject", "is rejected").await,
        Action::Disable { actor } => decide(global, &actor, "disable", "is disabled: its jobs go to others").await,
        Action::List(args) => {
            let named = [("account", &args.account), ("role", &args.role)];
            let named = named.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
            let query: Vec<(&str, &str)> = named.chain(args.status.map(|status| ("status", status.word()))).collect();
            let items = Client::web(global)?.list(&["api", "xbus", "actors"], &query).await?;
            let columns = [
                ("NAME", "name"),
                ("ACCOUNT", "account"),
                ("KIND", "kind"),
                ("STATUS", "status"),
                ("ROLES", "roles"),
                ("JOBS", "jobs"),
                ("LAST SEEN", "last_seen_at"),
            ];
            list(global, items, &columns)
        }
        Action::Show { actor } => {
            let client = Client::web(global)?;
            let url = client.url(&["api", "xbus", "actors", &actor], &[]);
            let answer: Value = client.json(Method::GET, url, None).await?;
            told(global, &answer, &shown(&answer))
        }
        Action::Config(args) => config(global, args).await,
        Action::Run(args) => run::run(global, args).await,
        Action::Delete { actor, yes } => {
            let client = Client::web(global)?;
            let url = client.url(&["api", "xbus", "actors", &actor], &[]);
            let effect = "its jobs go to others, and its program registers it anew when it comes again";
            delete(global, url, Deletion { kind: "actor", name: &actor, effect }, yes).await
        }
    }
}

fn shown(answer: &Value) -> String {
    let members = ["name", "id", "account", "kind", "status", "roles", "config", "jobs", "last_seen_at"];
    lines(&members.map(|member| (member, text(answer, member))))
}

async fn decide(global: &Global, actor: &str, what: &str, effect: &str) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let url = client.url(&["api", "xbus", "actors", actor, what], &[]);
    let answer: Value = client.json(Method::POST, url, None).await?;
    told(global, &answer, &format!("actor {} {effect}", text(&answer, "name")))
}

async fn config(global: &Global, args: ConfigArgs) -> anyhow::Result<()> {
    if args.entries.is_empty() && args.role.is_empty() && !args.no_roles {
        return Err(Usage("give at least one of KEY=VALUE, --role and --no-roles".to_owned()).into());
    }
    let client = Client::web(global)?;
    let url = client.url(&["api", "xbus", "actors", &args.actor], &[]);
    let change = |row: Option<Map<String, Value>>| {
        let mut row = row.ok_or_else(|| anyhow::anyhow!("there is no actor {}", args.actor))?;
        let mut config = row.remove("config").and_then(|config| config.as_object().cloned()).unwrap_or_default();
        for (key, value) in &args.entries {
            if value.is_empty() {
                config.remove(key);
            } else {
                config.insert(key.clone(), value.clone().into());
            }
        }
        let roles = args.no_roles || !args.role.is_empty();
        Ok(json!({ "config": config, "roles": roles.then_some(&args.role) }))
    };
    let (_, answer) = edit::<Map<String, Value>>(&client, &url, change).await?;
    told(global, &answer, &shown(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    #[tokio::test]
    async fn entries_are_set_beside_those_that_there_are() {
        let row = r#"{"name":"shop.orders","config":{"a":"1","b":"2"},"revision":3}"#;
        let fake = Fake::start(vec![answer("200 OK", "", row), answer("200 OK", "", row)]).await;
        let entries = vec![entry("b=").unwrap(), entry("c=x=y").unwrap()];
        let args = ConfigArgs { actor: "shop.orders".into(), entries, role: Vec::new(), no_roles: false };
        run(&fake.global(), ActorArgs { action: Action::Config(args) }).await.unwrap();
        assert_eq!(fake.calls(), ["GET /api/xbus/actors/shop.orders", "PUT /api/xbus/actors/shop.orders"]);
        assert_eq!(fake.bodies()[1], r#"{"config":{"a":"1","c":"x=y"},"roles":null}"#);
        assert!(fake.requests()[1].to_lowercase().contains("\r\nif-match: \"3\"\r\n"));
        assert!(entry("=x").is_err() && entry("x").is_err());
    }

    #[tokio::test]
    async fn a_change_without_a_change_is_wrong_usage() {
        let args = ConfigArgs { actor: "a".into(), entries: Vec::new(), role: Vec::new(), no_roles: false };
        let error = run(&Global::default(), ActorArgs { action: Action::Config(args) }).await.unwrap_err();
        assert!(error.is::<Usage>(), "{error}");
    }
}
