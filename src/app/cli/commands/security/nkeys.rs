//! `rollbook nkeys`: makes keys of NATS credentials of principals.

use anyhow::bail;
use clap::{Args, Subcommand};
use reqwest::Method;
use rollbook_core::security::principal::Principal;
use serde_json::{Value, json};

use super::principals::unknown;
use super::rows;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::print;
use crate::bus::security::credentials::nkey::{generate, is_user_key};

const EXAMPLES: &str = "\
Examples:
  rollbook nkeys add service:billing --new
  rollbook nkeys add service:billing --key UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4
  rollbook credentials list service:billing
  rollbook credentials revoke nkey:UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 --yes

A client of NATS signs with the key, so no secret travels. Other doors take tokens and certificates.";

const ADD_EXAMPLES: &str = "\
Examples:
  rollbook nkeys add service:billing --new
  rollbook nkeys add service:billing --key UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4

--new makes a key here and shows its seed once: SU and 56 characters, which the client needs. The node gets the public \
key alone.";

/// Arguments of `nkeys`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct NkeysArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Let a client of NATS with this key be a principal
    #[command(after_help = ADD_EXAMPLES)]
    Add(AddArgs),
}

#[derive(Debug, Args)]
struct AddArgs {
    /// KIND:NAME
    principal: Principal,
    #[command(flatten)]
    which: Which,
    /// A text for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The public key of a user: U and 55 characters
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Make a new key and show its seed
    #[arg(long)]
    new: bool,
}

pub(in crate::app::cli) async fn run(global: &Global, args: NkeysArgs) -> anyhow::Result<()> {
    let Action::Add(AddArgs { principal, which, description }) = args.action;
    let name = principal.to_string();
    let (key, seed) = match which.key {
        // The text is not shown again: it may be a seed.
        Some(key) if !is_user_key(&key) => bail!("--key is no public key of a user: U and 55 letters and digits"),
        Some(key) => (key, None),
        None => generate().map(|(key, seed)| (key, Some(seed)))?,
    };
    let client = Client::web(global)?;
    let url = client.url(&["api", "security", "principals", &name, "nkeys"], &[]);
    let body = json!({ "nkey": key, "description": description.unwrap_or_default() });
    let added: anyhow::Result<Value> = client.json(Method::POST, url, Some(&body)).await;
    let mut added = added.map_err(|error| if rows::is_unknown(&error) { unknown(&name) } else { error })?;
    let mut text = format!("a client that signs with the key {key} is {name}");
    if let Some(seed) = seed {
        text.push_str(&format!("\nits seed, which is shown only here: {}", seed.expose()));
        if let Some(added) = added.as_object_mut() {
            added.insert("seed".to_owned(), seed.expose().as_str().into());
        }
    }
    print(&match global.output {
        Output::Json => added.to_string(),
        Output::Table => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::testing::{Fake, answer};
    use clap::Parser;

    async fn call(fake: &Fake, words: &[&str]) -> anyhow::Result<()> {
        let words = ["rollbook", "nkeys", "add", "service:b"].iter().chain(words);
        match Cli::try_parse_from(words)?.command {
            Command::Client(ClientCommand::Nkeys(args)) => run(&fake.global(), args).await,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_node_gets_the_public_key_alone() {
        let fake = Fake::start(vec![answer("201 Created", "", "{}"); 2]).await;
        let (key, seed) = generate().unwrap();
        call(&fake, &["--key", &key, "--description", "x"]).await.unwrap();
        call(&fake, &["--new"]).await.unwrap();
        let bodies: Vec<Value> = fake.bodies().iter().map(|body| serde_json::from_str(body).unwrap()).collect();
        assert_eq!(bodies[0], json!({ "nkey": key, "description": "x" }));
        assert!(is_user_key(bodies[1]["nkey"].as_str().unwrap()));
        assert_eq!(fake.calls()[0], "POST /api/security/principals/service:b/nkeys");
        let error = call(&fake, &["--key", seed.expose()]).await.unwrap_err().to_string();
        assert!(error.contains("no public key") && !error.contains(seed.expose().as_str()), "{error}");
        for line in [&[][..], &["--key", &key, "--new"]] {
            assert!(call(&fake, line).await.is_err());
        }
        assert_eq!(fake.calls().len(), 2, "what is wrong is not sent");
    }
}
