//! `rollbook certificates`: makes client certificates credentials of principals.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use rollbook_core::security::principal::Principal;
use serde_json::{Value, json};

use super::principals::unknown;
use super::rows;
use crate::app::cli::access::tls::certificates;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::print;
use crate::bus::security::credentials::certificate::names;

const EXAMPLES: &str = "\
Examples:
  rollbook certificates add service:billing --file billing.pem
  rollbook credentials list service:billing
  rollbook credentials revoke cn:billing.example.com --yes

A certificate with the URI rollbook:KIND:NAME among its alternative names says itself who it is, and needs no entry.";

const ADD_EXAMPLES: &str = "\
Examples:
  rollbook certificates add service:billing --file billing.pem
  rollbook certificates add service:billing --name cn:billing.example.com
  rollbook certificates add service:billing --name sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

--file stands for this very certificate, by its SHA-256 fingerprint, and has to be added again when it is renewed. \
--name cn:NAME and uri:URI stand for each certificate of that common name or URI. In all cases the certificate must be \
signed by a CA in tls.client_ca of the node.";

/// Arguments of `certificates`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CertificatesArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Let a client with this certificate be a principal
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
    /// The certificate, a PEM file; of several in it the first
    #[arg(long, value_name = "PEM")]
    file: Option<PathBuf>,
    /// What the certificate is known by: cn:NAME, uri:URI or sha256:HEX
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Which {
    /// The name of the certificate as REST takes it.
    fn name(self) -> anyhow::Result<String> {
        let Some(path) = self.file else { return Ok(self.name.unwrap_or_default()) };
        let chain = certificates(&path)?;
        let first = chain.first().context("there is no certificate")?;
        let names = names(first).with_context(|| format!("cannot use {}", path.display()))?;
        Ok(format!("sha256:{}", names.fingerprint))
    }
}

pub(in crate::app::cli) async fn run(global: &Global, args: CertificatesArgs) -> anyhow::Result<()> {
    let Action::Add(AddArgs { principal, which, description }) = args.action;
    let (name, certificate) = (principal.to_string(), which.name()?);
    let client = Client::web(global)?;
    let url = client.url(&["api", "security", "principals", &name, "certificates"], &[]);
    let body = json!({ "certificate": certificate, "description": description.unwrap_or_default() });
    let added: anyhow::Result<Value> = client.json(Method::POST, url, Some(&body)).await;
    let added = added.map_err(|error| if rows::is_unknown(&error) { unknown(&name) } else { error })?;
    print(&match global.output {
        Output::Json => added.to_string(),
        Output::Table => format!("a client with the certificate {certificate} is {name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::access::test_ca::TestCa;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::testing::{Fake, answer};
    use clap::Parser;

    async fn call(fake: &Fake, words: &[&str]) -> anyhow::Result<()> {
        let words = ["rollbook", "certificates", "add", "service:b"].iter().chain(words);
        match Cli::try_parse_from(words)?.command {
            Command::Client(ClientCommand::Certificates(args)) => run(&fake.global(), args).await,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_file_stands_for_its_fingerprint_and_a_name_for_itself() {
        let dir = tempfile::tempdir().unwrap();
        let leaf = TestCa::new(dir.path()).leaf("billing");
        let fake = Fake::start(vec![answer("201 Created", "", "{}"); 2]).await;
        call(&fake, &["--file", leaf.certificate.to_str().unwrap(), "--description", "x"]).await.unwrap();
        call(&fake, &["--name", "cn:billing"]).await.unwrap();
        let bodies: Vec<Value> = fake.bodies().iter().map(|body| serde_json::from_str(body).unwrap()).collect();
        let fingerprint = bodies[0]["certificate"].as_str().unwrap();
        assert!(fingerprint.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64), "{fingerprint}");
        assert_eq!((&bodies[0]["description"], &bodies[1]["certificate"]), (&json!("x"), &json!("cn:billing")));
        assert_eq!(fake.calls()[0], "POST /api/security/principals/service:b/certificates");
    }

    #[tokio::test]
    async fn a_file_without_a_certificate_is_named_and_nothing_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let leaf = TestCa::new(dir.path()).leaf("billing");
        let fake = Fake::start(vec![]).await;
        let key = leaf.key.to_str().unwrap();
        let error = call(&fake, &["--file", key]).await.unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("holds no certificate"), "{error}");
        for line in [&[][..], &["--file", key, "--name", "cn:x"]] {
            assert!(call(&fake, line).await.is_err());
        }
        assert_eq!(fake.calls(), [""; 0]);
    }
}
