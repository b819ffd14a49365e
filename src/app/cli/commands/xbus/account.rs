//! `rollbook account`: who may speak Xbus.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::common::{list, text, told};
use crate::app::cli::commands::security::rows::{Deletion, delete, lines};
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::print;

const EXAMPLES: &str = "\
Examples:
  rollbook account list --waits
  rollbook account accept shop
  rollbook account disable shop

A program registers its account with a certificate request, and may connect when an operator has accepted it: it gets \
its certificate when it registers again. Its actors are accepted one by one: `rollbook actor accept`.";

const ACCEPT_EXAMPLES: &str = "\
Examples:
  rollbook account accept shop
  rollbook account accept shop --certificate-days 365
  rollbook account accept shop --certificate shop.pem

The cluster signs the request of the account, unless --certificate gives a certificate that another CA signed for the \
same key, with the name of the account as common name.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook account list
  rollbook account list --status disabled --output json

WAITS says whether the request of the program waits for `rollbook account accept`.";

const SHOW_EXAMPLES: &str = "\
Examples:
  rollbook account show shop
  rollbook account show shop --output json | jq -r .csr";

const REJECT_EXAMPLES: &str = "\
Examples:
  rollbook account reject shop

For an account that was never accepted: its program is told so when it registers again. The account stays in the list; \
`rollbook account delete` forgets it.";

const DISABLE_EXAMPLES: &str = "\
Examples:
  rollbook account disable shop

Its connections end at once, and the jobs of its actors go to others.";

const ENABLE_EXAMPLES: &str = "\
Examples:
  rollbook account enable shop

For an account with a certificate. One without has to be accepted.";

const RESET_EXAMPLES: &str = "\
Examples:
  rollbook account reset-cert shop

For a program that lost its key: whoever registers next under the name waits for `rollbook account accept`. The present \
certificate counts no more.";

const KEY_EXAMPLES: &str = "\
Examples:
  rollbook account api-key web
  rollbook account api-key web --remove

Makes a key for the HTTP gateway, which replaces the one before, and prints it: nothing shows it again.";

const DELETE_EXAMPLES: &str = "\
Examples:
  rollbook account delete shop
  rollbook account delete shop --yes

Its actors, its principal and its certificate go with it. It asks for the name of the account. Without a terminal it \
deletes nothing, unless --yes is given: exit code 2.";

/// Arguments of `account`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AccountArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Accept an account and its key
    #[command(after_help = ACCEPT_EXAMPLES)]
    Accept(AcceptArgs),
    /// Show all accounts
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show one account
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Name or id
        account: String,
    },
    /// Say no to an account that waits
    #[command(after_help = REJECT_EXAMPLES)]
    Reject {
        /// Name or id
        account: String,
    },
    /// Shut an account out
    #[command(after_help = DISABLE_EXAMPLES)]
    Disable {
        /// Name or id
        account: String,
    },
    /// Let an account in again
    #[command(after_help = ENABLE_EXAMPLES)]
    Enable {
        /// Name or id
        account: String,
    },
    /// Let another key register under the name of an account
    #[command(after_help = RESET_EXAMPLES)]
    ResetCert {
        /// Name or id
        account: String,
    },
    /// Make a key for the HTTP gateway, or take it away
    #[command(after_help = KEY_EXAMPLES)]
    ApiKey {
        /// Name or id
        account: String,
        /// Take the key away
        #[arg(long)]
        remove: bool,
    },
    /// Delete an account and its actors
    #[command(alias = "remove", after_help = DELETE_EXAMPLES)]
    Delete {
        /// Name or id
        account: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct AcceptArgs {
    /// Name or id
    account: String,
    /// How many days the certificate counts [default: about 5 years]
    #[arg(long, visible_alias = "cert-expire-days", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    certificate_days: Option<u32>,
    /// A certificate that another CA signed, PEM
    #[arg(long, value_name = "FILE", conflicts_with = "certificate_days")]
    certificate: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only those with this status
    #[arg(long)]
    status: Option<Status>,
    /// Only those whose request waits
    #[arg(long)]
    waits: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Status {
    Pending,
    Enabled,
    Disabled,
}

impl Status {
    const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        }
    }
}

pub(in crate::app::cli) async fn run(global: &Global, args: AccountArgs) -> anyhow::Result<()> {
    match args.action {
        Action::Accept(args) => accept(global, args).await,
        Action::List(args) => {
            let mut query: Vec<(&str, &str)> = args.status.iter().map(|status| ("status", status.word())).collect();
            if args.waits {
                query.push(("waits", "true"));
            }
            let items = Client::web(global)?.list(&["api", "xbus", "accounts"], &query).await?;
            let columns = [
                ("NAME", "name"),
                ("TYPE", "type"),
                ("STATUS", "status"),
                ("WAITS", "waits"),
                ("ACTORS", "actors"),
                ("CREATED", "created_at"),
            ];
            list(global, items, &columns)
        }
        Action::Show { account } => show(global, &account).await,
        Action::Reject { account } => act(global, &account, "reject", "is rejected").await,
        Action::Disable { account } => act(global, &account, "disable", "is disabled: its connections end").await,
        Action::Enable { account } => act(global, &account, "enable", "is enabled").await,
        Action::ResetCert { account } => {
            act(global, &account, "reset-certificate", "has no key now: the next one that registers waits").await
        }
        Action::ApiKey { account, remove } => api_key(global, &account, remove).await,
        Action::Delete { account, yes } => {
            let client = Client::web(global)?;
            let url = client.url(&["api", "xbus", "accounts", &account], &[]);
            let effect = "its actors and its certificate go with it, and its connections end";
            delete(global, url, Deletion { kind: "account", name: &account, effect }, yes).await
        }
    }
}

async fn accept(global: &Global, args: AcceptArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let certificate = args
        .certificate
        .map(|path| std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display())));
    let body = json!({ "certificate_days": args.certificate_days, "certificate": certificate.transpose()? });
    let url = client.url(&["api", "xbus", "accounts", &args.account, "accept"], &[]);
    let answer: Value = client.json(Method::POST, url, Some(&body)).await?;
    let name = text(&answer, "name");
    let sentence = format!("account {name} is accepted: its program gets the certificate when it registers again");
    told(global, &answer, &sentence)
}

async fn show(global: &Global, account: &str) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let url = client.url(&["api", "xbus", "accounts", account], &[]);
    let answer: Value = client.json(Method::GET, url, None).await?;
    let shown =
        ["name", "id", "type", "status", "waits", "origin", "public_key", "has_api_key", "actors", "created_at"];
    let members = shown.map(|member| (member, text(&answer, member)));
    told(global, &answer, &lines(&members))
}

async fn act(global: &Global, account: &str, what: &str, effect: &str) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let url = client.url(&["api", "xbus", "accounts", account, what], &[]);
    let answer: Value = client.json(Method::POST, url, None).await?;
    told(global, &answer, &format!("account {} {effect}", text(&answer, "name")))
}

async fn api_key(global: &Global, account: &str, remove: bool) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let url = client.url(&["api", "xbus", "accounts", account, "api-key"], &[]);
    if remove {
        client.send(Method::DELETE, url, None).await?;
        return told(global, &json!({ "removed": account }), &format!("account {account} has no API key any more"));
    }
    let answer: Value = client.json(Method::POST, url, None).await?;
    print(&match global.output {
        Output::Json => answer.to_string(),
        Output::Table => text(&answer, "api_key"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::error::Usage;
    use crate::app::cli::shared::testing::{Fake, answer};

    const SHOP: &str = r#"{"name":"shop","status":"enabled","actors":["a"]}"#;

    #[tokio::test]
    async fn an_account_is_accepted_with_the_days_that_were_given() {
        let fake = Fake::start(vec![answer("200 OK", "", SHOP)]).await;
        let args = AcceptArgs { account: "shop".into(), certificate_days: Some(7), certificate: None };
        run(&fake.global(), AccountArgs { action: Action::Accept(args) }).await.unwrap();
        assert_eq!(fake.calls(), ["POST /api/xbus/accounts/shop/accept"]);
        let sent: Value = serde_json::from_str(&fake.bodies()[0]).unwrap();
        assert_eq!(sent, serde_json::json!({ "certificate_days": 7, "certificate": null }));
    }

    #[tokio::test]
    async fn accounts_are_listed_by_status_shut_out_and_deleted() {
        let fake = Fake::start(vec![
            answer("200 OK", "", &format!("{{\"items\":[{SHOP}],\"next_cursor\":null}}")),
            answer("200 OK", "", SHOP),
            answer("204 No Content", "", ""),
        ])
        .await;
        let action = Action::List(ListArgs { status: Some(Status::Enabled), waits: true });
        run(&fake.global(), AccountArgs { action }).await.unwrap();
        run(&fake.global(), AccountArgs { action: Action::Disable { account: "shop".into() } }).await.unwrap();
        // The tests have no terminal.
        let delete = |yes| AccountArgs { action: Action::Delete { account: "shop".into(), yes } };
        assert!(run(&fake.global(), delete(false)).await.unwrap_err().is::<Usage>());
        run(&fake.global(), delete(true)).await.unwrap();
        let calls = [
            "GET /api/xbus/accounts?status=enabled&waits=true",
            "POST /api/xbus/accounts/shop/disable",
            "DELETE /api/xbus/accounts/shop",
        ];
        assert_eq!(fake.calls(), calls);
    }
}
