//! `rollbook principals`: who there is at a cluster, and which roles and rights each has.

use clap::{Args, Subcommand};
use rollbook_core::security::principal::Principal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::rights::{self, RightsArgs};
use super::rows;
use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{print, table};

const EXAMPLES: &str = "\
Examples:
  rollbook principals set service:billing --role service --allow 'publish orders.>'
  rollbook principals grant user:ann --role operator
  rollbook principals revoke service:billing --allow 'publish orders.>'
  rollbook principals list
  rollbook principals delete service:billing --yes

A principal is KIND:NAME; the kinds are user, service, actor, dock and node. `anonymous` is everybody without a \
credential. `set` replaces, `grant` and `revoke` add and remove. What a principal loses ends at once, also on open \
connections. A principal needs a credential to come in: see `rollbook tokens create --help`.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook principals list
  rollbook principals list --output json | jq -r '.[].principal'";

const SHOW_EXAMPLES: &str = "\
Examples:
  rollbook principals show service:billing";

const SET_EXAMPLES: &str = "\
Examples:
  rollbook principals set service:billing --role service --allow 'publish orders.>' --deny 'publish orders.secret.>'
  rollbook principals set service:billing --disable
  rollbook principals set user:ann --role operator --no-rights

Creates the principal when there is none. Roles that are given replace all its roles, and rights that are given replace \
all its own rights; what is not given stays as it is. `grant` and `revoke` change one role or right.";

const GRANT_EXAMPLES: &str = "\
Examples:
  rollbook principals grant user:ann --role viewer
  rollbook principals grant service:billing --allow 'call tax:*' --deny 'subscribe orders.secret.>'

Everything else stays as it is. A denied right counts before any allowed one, also before those of roles.";

const REVOKE_EXAMPLES: &str = "\
Examples:
  rollbook principals revoke user:ann --role viewer
  rollbook principals revoke service:billing --allow 'call tax:*'

Takes away exactly the roles and rights that are given, as `show` writes them, and refuses when the principal has not \
all of them. What the principal loses ends at once. A part of a right is taken away by `grant --deny`.";

const DELETE_EXAMPLES: &str = "\
Examples:
  rollbook principals delete service:billing
  rollbook principals delete service:billing --yes

Its credentials go with it and its connections end. It asks for the name of the principal. Without a terminal it \
deletes nothing, unless --yes is given: exit code 2. `set --disable` shuts a principal out and keeps all of it.";

/// Arguments of `principals`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PrincipalsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all principals
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Show one principal
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// KIND:NAME
        principal: Principal,
    },
    /// Create a principal, or replace its roles or its rights
    #[command(after_help = SET_EXAMPLES)]
    Set(SetArgs),
    /// Give a principal more roles and rights
    #[command(after_help = GRANT_EXAMPLES)]
    Grant(ChangeArgs),
    /// Take roles and rights away from a principal
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke(ChangeArgs),
    /// Delete a principal and its credentials
    #[command(alias = "remove", after_help = DELETE_EXAMPLES)]
    Delete {
        /// KIND:NAME
        principal: Principal,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct SetArgs {
    /// KIND:NAME
    principal: Principal,
    /// A role it has; can be repeated
    #[arg(long, value_name = "NAME")]
    role: Vec<String>,
    /// It has no roles
    #[arg(long, conflicts_with = "role")]
    no_roles: bool,
    #[command(flatten)]
    rights: RightsArgs,
    /// It has no rights of its own
    #[arg(long, conflicts_with_all = ["allow", "deny"])]
    no_rights: bool,
    /// Shut it out: its connections end
    #[arg(long)]
    disable: bool,
    /// Let it in again
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// A text for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// KIND:NAME
    principal: Principal,
    /// A role; can be repeated
    #[arg(long, value_name = "NAME")]
    role: Vec<String>,
    #[command(flatten)]
    rights: RightsArgs,
}

/// A principal as REST shows it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Row {
    principal: String,
    roles: Vec<String>,
    rights: Vec<String>,
    disabled: bool,
    description: String,
    created_at: Option<String>,
}

impl Row {
    /// The body of a change.
    fn body(&self) -> Value {
        let Self { roles, rights, disabled, description, .. } = self;
        json!({ "roles": roles, "rights": rights, "disabled": disabled, "description": description })
    }

    const fn state(&self) -> &'static str {
        if self.disabled { "disabled" } else { "active" }
    }
}

pub(in crate::app::cli) async fn run(global: &Global, args: PrincipalsArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let url = |principal: &Principal| rows::one(&client, "principals", &principal.to_string());
    let (row, json) = match args.action {
        Action::List => return list(global, client.list(&["api", "security", "principals"], &[]).await?),
        Action::Show { principal } => {
            let (url, name) = (url(&principal), principal.to_string());
            rows::find(&client, &url).await?.ok_or_else(|| unknown(&name))?
        }
        Action::Set(args) => {
            rows::edit(&client, &url(&args.principal), |row| Ok(set(row.unwrap_or_default(), &args).body())).await?
        }
        Action::Grant(args) => {
            let name = checked(&args)?;
            let grant = |row: Option<Row>| {
                let mut row = row.ok_or_else(|| unknown(&name))?;
                rights::add(&mut row.roles, &args.role);
                rights::add(&mut row.rights, &args.rights.texts());
                Ok(row.body())
            };
            rows::edit(&client, &url(&args.principal), grant).await?
        }
        Action::Revoke(args) => {
            let name = checked(&args)?;
            let revoke = |row: Option<Row>| {
                let mut row = row.ok_or_else(|| unknown(&name))?;
                rights::remove(&mut row.roles, &args.role, &name, "role")?;
                rights::remove(&mut row.rights, &args.rights.texts(), &name, "right")?;
                Ok(row.body())
            };
            rows::edit(&client, &url(&args.principal), revoke).await?
        }
        Action::Delete { principal, yes } => {
            let name = principal.to_string();
            let effect = "its credentials go with it, and its connections end";
            let deletion = rows::Deletion { kind: "principal", name: &name, effect };
            return rows::delete(global, url(&principal), deletion, yes).await;
        }
    };
    print(&match global.output {
        Output::Json => json.to_string(),
        Output::Table => show(&row),
    })
}

/// Says what to do about a principal that does not exist.
pub(super) fn unknown(name: &str) -> anyhow::Error {
    let role = if name.starts_with("service:") { "service" } else { "viewer" };
    anyhow::anyhow!("there is no principal {name}; create it, as with `rollbook principals set {name} --role {role}`")
}

/// The name of the principal of a change that changes something.
fn checked(args: &ChangeArgs) -> Result<String, Usage> {
    if args.role.is_empty() && args.rights.is_empty() {
        return Err(Usage("give at least one of --role, --allow and --deny".to_owned()));
    }
    Ok(args.principal.to_string())
}

/// Replaces what is given, and leaves the rest.
fn set(mut row: Row, args: &SetArgs) -> Row {
    if args.no_roles || !args.role.is_empty() {
        row.roles.clone_from(&args.role);
    }
    if args.no_rights || !args.rights.is_empty() {
        row.rights = args.rights.texts();
    }
    row.disabled = (row.disabled || args.disable) && !args.enable;
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
        let (state, roles, rights) = (row.state().to_owned(), row.roles.join(", "), row.rights.join(", "));
        lines.push(vec![row.principal, state, roles, rights, row.description]);
    }
    print(&table(&["PRINCIPAL", "STATE", "ROLES", "OWN RIGHTS", "DESCRIPTION"], lines))
}

fn show(row: &Row) -> String {
    let none = |texts: &[String], between: &str| match texts {
        [] => "none".to_owned(),
        texts => texts.join(between),
    };
    rows::lines(&[
        ("principal", row.principal.clone()),
        ("state", row.state().to_owned()),
        ("roles", none(&row.roles, ", ")),
        ("own rights", none(&row.rights, "\n")),
        ("description", row.description.clone()),
        ("created", row.created_at.clone().unwrap_or_default()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::testing::{Fake, answer};
    use clap::Parser;

    const BILLING: &str = r#"{"principal":"service:billing","roles":["service"],"rights":["publish orders.>"],"disabled":false,"description":"pays","revision":7,"created_at":"2026-01-01T00:00:00Z"}"#;
    const NOT_FOUND: &str = r#"{"status":404,"detail":"not found: principal user:ann","code":"security_not_found"}"#;

    async fn call(fake: &Fake, words: &[&str]) -> anyhow::Result<()> {
        let words = ["rollbook", "principals"].iter().chain(words);
        match Cli::try_parse_from(words)?.command {
            Command::Client(ClientCommand::Principals(args)) => run(&fake.global(), args).await,
            other => panic!("{other:?}"),
        }
    }

    /// The body that a change of the principal above sends.
    async fn sent(words: &[&str]) -> Value {
        let fake = Fake::start(vec![answer("200 OK", "", BILLING); 2]).await;
        call(&fake, words).await.unwrap();
        let one = "/api/security/principals/service:billing";
        assert_eq!(fake.calls(), [format!("GET {one}"), format!("PUT {one}")]);
        serde_json::from_str(&fake.bodies()[1]).unwrap()
    }

    #[tokio::test]
    async fn set_replaces_the_lists_that_are_given_and_leaves_the_others() {
        let body = sent(&["set", "service:billing", "--role", "publisher", "--role", "viewer"]).await;
        assert_eq!((&body["roles"], &body["rights"]), (&json!(["publisher", "viewer"]), &json!(["publish orders.>"])));
        let body = sent(&["set", "service:billing", "--allow", "call a:*", "--deny", "subscribe x.>"]).await;
        assert_eq!(
            (&body["roles"], &body["rights"]),
            (&json!(["service"]), &json!(["call a:*", "deny subscribe x.>"]))
        );
        let body = sent(&["set", "service:billing", "--disable", "--description", ""]).await;
        let whole =
            json!({ "roles": ["service"], "rights": ["publish orders.>"], "disabled": true, "description": "" });
        assert_eq!(body, whole);
        let body = sent(&["set", "service:billing", "--no-roles", "--no-rights"]).await;
        assert_eq!((&body["roles"], &body["rights"], &body["description"]), (&json!([]), &json!([]), &json!("pays")));
    }

    #[tokio::test]
    async fn grant_adds_and_revoke_removes_nothing_but_what_is_given() {
        let body = sent(&["grant", "service:billing", "--role", "viewer", "--deny", "publish orders.secret"]).await;
        assert_eq!(body["roles"], json!(["service", "viewer"]));
        assert_eq!(body["rights"], json!(["publish orders.>", "deny publish orders.secret"]));
        let body = sent(&["revoke", "service:billing", "--allow", "publish orders.>"]).await;
        assert_eq!((&body["roles"], &body["rights"]), (&json!(["service"]), &json!([])));
        let fake = Fake::start(vec![answer("200 OK", "", BILLING)]).await;
        let error = call(&fake, &["revoke", "service:billing", "--allow", "publish orders"]).await.unwrap_err();
        assert!(error.to_string().contains("there is: publish orders.>; nothing was changed"), "{error}");
        assert_eq!(fake.calls().len(), 1);
    }

    #[tokio::test]
    async fn only_set_creates_a_principal() {
        let fake = Fake::start(vec![answer("404 Not Found", "", NOT_FOUND), answer("200 OK", "", BILLING)]).await;
        call(&fake, &["set", "user:ann"]).await.unwrap();
        assert!(fake.requests()[1].contains("if-none-match: *"), "{:?}", fake.requests());
        for line in [
            &["grant", "user:ann", "--role", "viewer"][..],
            &["revoke", "user:ann", "--role", "viewer"],
            &["show", "user:ann"],
        ] {
            let fake = Fake::start(vec![answer("404 Not Found", "", NOT_FOUND)]).await;
            let error = call(&fake, line).await.unwrap_err().to_string();
            assert!(error.contains("`rollbook principals set user:ann --role viewer`"), "{error}");
        }
    }

    #[tokio::test]
    async fn wrong_lines_are_found_before_anything_is_sent() {
        let fake = Fake::start(vec![]).await;
        for (line, part) in [
            (&["set", "billing"][..], "KIND:NAME"),
            (&["set", "service:a", "--allow", "write x"], "the verbs are"),
            (&["set", "service:a", "--no-roles", "--role", "x"], "cannot be used"),
            (&["set", "service:a", "--enable", "--disable"], "cannot be used"),
            (&["grant", "service:a"], "at least one of"),
            (&["delete", "service:a"], "pass --yes"),
        ] {
            let error = call(&fake, line).await.unwrap_err().to_string();
            assert!(error.contains(part), "{line:?}: {error}");
        }
        assert_eq!(fake.calls(), [""; 0]);
    }

    #[tokio::test]
    async fn lists_and_deletes() {
        let items = format!("{{\"items\":[{BILLING}],\"next_cursor\":null}}");
        let fake = Fake::start(vec![answer("200 OK", "", &items), answer("204 No Content", "", "")]).await;
        call(&fake, &["list"]).await.unwrap();
        call(&fake, &["delete", "service:billing", "--yes"]).await.unwrap();
        let calls = ["GET /api/security/principals", "DELETE /api/security/principals/service:billing"];
        assert_eq!(fake.calls(), calls);
        let shown = show(&serde_json::from_str(BILLING).unwrap());
        assert!(shown.contains("own rights   publish orders.>\n"), "{shown}");
    }
}
