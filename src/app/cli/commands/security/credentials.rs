//! `rollbook credentials`: by what a principal can be known, and how that is taken back.

use clap::{Args, Subcommand};
use reqwest::Method;
use rollbook_core::security::principal::Principal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::principals::unknown;
use super::rows;
use crate::app::cli::shared::confirm;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{print, table};

const EXAMPLES: &str = "\
Examples:
  rollbook credentials list service:billing
  rollbook credentials revoke k7Fq2 --yes

Credentials are made by `rollbook tokens create`, `passwords set` and `certificates add`. JWTs are no credentials of a \
principal: see `rollbook issuers --help`.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook credentials list service:billing
  rollbook credentials list user:ann --output json | jq -r '.[].id'

LAST USED is noted from time to time, and empty for a credential that was never used.";

const REVOKE_EXAMPLES: &str = "\
Examples:
  rollbook credentials revoke k7Fq2
  rollbook credentials revoke password:user:ann --yes
  rollbook credentials revoke cn:billing.example.com --yes

The connections that the credential opened end at once, on all nodes. The id of a token is the part between rb1_ and the \
next underscore. It asks for the id. Without a terminal it revokes nothing, unless --yes is given: exit code 2.";

/// Arguments of `credentials`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CredentialsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the tokens, the password and the certificates of a principal, without secrets
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// KIND:NAME
        principal: Principal,
    },
    /// Take back a token, a password or a certificate
    #[command(alias = "delete", after_help = REVOKE_EXAMPLES)]
    Revoke {
        /// The id, as `list` shows it
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// A credential as REST shows it.
#[derive(Deserialize)]
struct Credential {
    id: String,
    kind: String,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    used_at: Option<String>,
    #[serde(default)]
    description: String,
}

pub(in crate::app::cli) async fn run(global: &Global, args: CredentialsArgs) -> anyhow::Result<()> {
    match args.action {
        Action::List { principal } => list(global, &principal, None).await,
        Action::Revoke { id, yes } => revoke(global, &id, yes).await,
    }
}

/// Shows the credentials of a principal, or only those of one kind.
pub(super) async fn list(global: &Global, principal: &Principal, kind: Option<&str>) -> anyhow::Result<()> {
    let (client, name) = (Client::web(global)?, principal.to_string());
    let path = ["api", "security", "principals", &name, "credentials"];
    let items = client.list(&path, &[]).await;
    let mut items = items.map_err(|error| if rows::is_unknown(&error) { unknown(&name) } else { error })?;
    items.retain(|item| kind.is_none_or(|kind| item.get("kind").and_then(Value::as_str) == Some(kind)));
    print(&match global.output {
        Output::Json => Value::Array(items).to_string(),
        Output::Table => credentials(items)?,
    })
}

fn credentials(items: Vec<Value>) -> anyhow::Result<String> {
    let mut lines = Vec::with_capacity(items.len());
    for item in items {
        let Credential { id, kind, created_at, expires_at, used_at, description } = Credential::deserialize(item)?;
        let expires = expires_at.unwrap_or_else(|| "never".to_owned());
        lines.push(vec![id, kind, created_at.unwrap_or_default(), expires, used_at.unwrap_or_default(), description]);
    }
    Ok(table(&["ID", "KIND", "CREATED", "EXPIRES", "LAST USED", "DESCRIPTION"], lines))
}

async fn revoke(global: &Global, id: &str, yes: bool) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    // Of a whole token, the id is enough; the rest is a secret, which belongs into no address.
    let id = match id.strip_prefix("rb1_") {
        Some(token) => token.split('_').next().unwrap_or_default(),
        None => id,
    };
    if confirm::has_to_ask(yes, &format!("revoking the credential {id}"))? {
        confirm::ask(&format!("This revokes the credential {id} for good, and ends the connections it opened."), id)?;
    }
    client.send(Method::DELETE, rows::one(&client, "credentials", id), None).await?;
    print(&match global.output {
        Output::Table => format!("the credential {id} is revoked: the connections it opened end"),
        Output::Json => json!({ "revoked": id }).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::error::Usage;
    use crate::app::cli::shared::testing::{Fake, answer};

    const TOKEN: &str = r#"{"id":"k7","kind":"token","principal":"service:b","created_at":"2026-01-01T00:00:00Z","expires_at":"2026-04-01T00:00:00Z","description":"ci"}"#;

    #[tokio::test]
    async fn a_token_is_revoked_by_its_id_and_its_secret_is_not_sent() {
        for (id, path) in [("k7", "k7"), ("rb1_k7_s3cr3t", "k7"), ("cn:a/b", "cn:a%2Fb")] {
            let fake = Fake::start(vec![answer("204 No Content", "", "")]).await;
            let revoke = |yes| CredentialsArgs { action: Action::Revoke { id: id.to_owned(), yes } };
            // The tests have no terminal.
            assert!(run(&fake.global(), revoke(false)).await.unwrap_err().is::<Usage>());
            run(&fake.global(), revoke(true)).await.unwrap();
            assert_eq!(fake.calls(), [format!("DELETE /api/security/credentials/{path}")]);
        }
    }

    #[test]
    fn a_list_says_when_credentials_end() {
        let text = credentials(vec![serde_json::from_str(TOKEN).unwrap(), json!({ "id": "x", "kind": "password" })]);
        let text = text.unwrap();
        assert!(text.contains("2026-04-01") && text.contains("never") && text.contains("ci"), "{text}");
    }
}
