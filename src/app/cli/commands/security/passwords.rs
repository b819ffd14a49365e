//! `rollbook passwords`: sets the password of a user.

use anyhow::bail;
use clap::{Args, Subcommand};
use reqwest::Method;
use rollbook_core::security::principal::{Kind, Principal};
use serde_json::json;

use super::principals::unknown;
use super::rows;
use crate::app::cli::access::secret::Secret;
use crate::app::cli::access::terminal;
use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::print;

const EXAMPLES: &str = "\
Examples:
  rollbook passwords set ann

Passwords are for people; programs have tokens. `rollbook login --password` gets a token for a password.";

const SET_EXAMPLES: &str = "\
Examples:
  rollbook passwords set ann
  pass show rollbook/ann | rollbook passwords set ann

Asks twice for the password without showing it, or takes one line of standard input. A password has 8 to 1024 bytes; the \
cluster keeps a hash. The old password does not count any more. `rollbook credentials revoke password:user:ann` takes \
the password away.";

/// Arguments of `passwords`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PasswordsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Set the password of a user
    #[command(after_help = SET_EXAMPLES)]
    Set {
        /// The user: ann or user:ann
        #[arg(value_parser = user)]
        user: Principal,
    },
}

/// A user, with or without the kind in front.
fn user(text: &str) -> Result<Principal, String> {
    let name = text.strip_prefix("user:").unwrap_or(text);
    if name.contains(':') {
        return Err("only users have passwords; give a program a token: `rollbook tokens create`".to_owned());
    }
    Principal::new(Kind::User, name).map_err(|error| error.to_string())
}

pub(in crate::app::cli) async fn run(global: &Global, args: PasswordsArgs) -> anyhow::Result<()> {
    let Action::Set { user } = args.action;
    // Wrong options are found before anything is asked.
    let client = Client::web(global)?;
    let password = terminal::ask_secret("Password").await?;
    if terminal::is_there() && terminal::ask_secret("Password again").await? != password {
        bail!(Usage("the two passwords differ; nothing was changed".to_owned()));
    }
    set(&client, &user, &password).await?;
    print(&match global.output {
        Output::Table => format!("the password of {user} is set"),
        Output::Json => json!({ "principal": user.to_string() }).to_string(),
    })
}

async fn set(client: &Client, user: &Principal, password: &Secret) -> anyhow::Result<()> {
    let name = user.to_string();
    let url = client.url(&["api", "security", "principals", &name, "password"], &[]);
    let body = json!({ "password": password.reveal() }).to_string().into_bytes();
    client.send(Method::PUT, url, Some(body)).await.map(drop).map_err(|error| {
        let error = anyhow::Error::from(error);
        if rows::is_unknown(&error) { unknown(&name) } else { error }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    #[tokio::test]
    async fn a_password_goes_into_the_body_alone() {
        let not_found = r#"{"status":404,"detail":"not found: principal user:ann","code":"security_not_found"}"#;
        let fake = Fake::start(vec![answer("204 No Content", "", ""), answer("404 Not Found", "", not_found)]).await;
        let (client, password) = (Client::web(&fake.global()).unwrap(), Secret::new("open \"s3same\"".to_owned()));
        let ann = user("ann").unwrap();
        set(&client, &ann, &password).await.unwrap();
        assert_eq!(fake.calls(), ["PUT /api/security/principals/user:ann/password"]);
        assert_eq!(fake.bodies(), [r#"{"password":"open \"s3same\""}"#]);
        let error = format!("{:?}", set(&client, &ann, &password).await.unwrap_err());
        assert!(error.contains("`rollbook principals set user:ann") && !error.contains("s3same"), "{error}");
    }

    #[test]
    fn only_users_have_passwords() {
        assert_eq!(user("ann").unwrap(), user("user:ann").unwrap());
        for bad in ["service:billing", "", "user:"] {
            assert!(user(bad).is_err(), "{bad}");
        }
    }
}
