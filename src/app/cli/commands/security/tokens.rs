//! `rollbook tokens`: makes tokens for principals, and shows which there are.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use rollbook_core::security::principal::Principal;
use serde_json::{Map, Value};

use super::credentials;
use super::principals::unknown;
use super::rows;
use crate::app::cli::access::secret::Token;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{note, print};
use crate::base::duration;

const EXAMPLES: &str = "\
Examples:
  rollbook tokens create service:billing --description 'payment worker'
  rollbook tokens list service:billing
  rollbook credentials revoke k7Fq2 --yes

A principal can have several tokens, so that one can be replaced without a pause: create the new one, change the client \
over, look at LAST USED, revoke the old one.";

const CREATE_EXAMPLES: &str = "\
Examples:
  rollbook tokens create service:billing
  rollbook tokens create service:billing --expires-in 30d --description 'payment worker'
  rollbook tokens create service:ci --expires-in never --save ci.token
  rollbook tokens create user:ann --quiet > ann.token

The token is shown only now: the cluster keeps a hash. Standard output has the token alone, and standard error says what \
it is unless --quiet is given. With --save only the file has the token. The principal must exist: see \
`rollbook principals set --help`.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook tokens list service:billing

Shows no secret. `rollbook credentials list` shows passwords and certificates as well.";

/// The life of a token that does not end.
const NEVER: &str = "never";

/// Arguments of `tokens`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TokensArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token for a principal
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// Show the tokens of a principal, without their secrets
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// KIND:NAME
        principal: Principal,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// KIND:NAME
    principal: Principal,
    /// How long the token counts, such as 12h or 30d; never = until it is revoked [default: 90d]
    #[arg(long, value_name = "DURATION", value_parser = life)]
    expires_in: Option<String>,
    /// A text for people: what the token is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Write the token into this new file, which only its owner can read, instead of showing it
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Say nothing but the token
    #[arg(short, long)]
    quiet: bool,
}

/// Reads a life of a token; days too, which the notation of durations does not have.
fn life(text: &str) -> Result<String, String> {
    if text == NEVER {
        return Ok(NEVER.to_owned());
    }
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
    let text = days.and_then(|days| days.checked_mul(24)).map_or_else(|| text.to_owned(), |hours| format!("{hours}h"));
    match duration::parse(&text) {
        Ok(life) if life.is_zero() => Err("a token that counts no time is of no use".to_owned()),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("{error}, 30d or never")),
    }
}

pub(in crate::app::cli) async fn run(global: &Global, args: TokensArgs) -> anyhow::Result<()> {
    match args.action {
        Action::Create(args) => create(global, args).await,
        Action::List { principal } => credentials::list(global, &principal, Some("token")).await,
    }
}

async fn create(global: &Global, args: CreateArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    // Before the token is made, because a token that cannot be kept is lost.
    let file = args.save.as_deref().map(NewFile::create).transpose()?;
    let mut answer = mint(&client, &args).await?;
    let field = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
    let token = Token::new(&field("token").unwrap_or_default(), "the answer of the node")?;
    let (id, end) = (field("id").unwrap_or_default(), field("expires_at"));
    let end = end.map_or_else(|| "does not expire".to_owned(), |end| format!("expires at {end}"));
    let place = match (file, &args.save) {
        (Some(file), Some(path)) => {
            file.keep(&token).with_context(|| lost(&id))?;
            answer.remove("token");
            answer.insert("file".to_owned(), path.display().to_string().into());
            format!("it is in {}", path.display())
        }
        _ => "it is not shown again".to_owned(),
    };
    if !args.quiet {
        note(&format!("token {id} of {} {end}; {place}", args.principal));
    }
    match global.output {
        Output::Json => print(&Value::Object(answer).to_string()),
        Output::Table if args.save.is_some() => Ok(()),
        Output::Table => print(token.secret().reveal()),
    }
}

fn lost(id: &str) -> String {
    format!("the token {id} is made and could not be kept: run `rollbook credentials revoke {id}`, and try again")
}

/// Has the node make a token.
async fn mint(client: &Client, args: &CreateArgs) -> anyhow::Result<Map<String, Value>> {
    let mut body = Map::new();
    let given = [("expires_in", &args.expires_in), ("description", &args.description)];
    body.extend(given.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.as_deref()?.into()))));
    let name = args.principal.to_string();
    let url = client.url(&["api", "security", "principals", &name, "tokens"], &[]);
    client.json(Method::POST, url, Some(&Value::Object(body))).await.map_err(|error| match rows::is_unknown(&error) {
        true => unknown(&name),
        false => error,
    })
}

/// A new file for a secret. It is deleted again unless it is kept.
struct NewFile<'a> {
    path: &'a Path,
    file: Option<File>,
}

impl<'a> NewFile<'a> {
    fn create(path: &'a Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.with_context(|| format!("cannot write {}; no token was made", path.display()))?;
        Ok(Self { path, file: Some(file) })
    }

    fn keep(mut self, token: &Token) -> anyhow::Result<()> {
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", token.secret().reveal()).and_then(|()| file.sync_all())?;
        }
        self.file = None;
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // The file is empty, or is the remains of a write that failed.
            fs::remove_file(self.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::testing::{Fake, answer};
    use clap::Parser;

    const MADE: &str =
        r#"{"id":"k7","token":"rb1_k7_s3cr3t","principal":"service:b","expires_at":"2026-04-01T00:00:00Z"}"#;
    const NOT_FOUND: &str = r#"{"status":404,"detail":"not found: principal service:b","code":"security_not_found"}"#;

    async fn call(fake: &Fake, words: &[&str]) -> anyhow::Result<()> {
        let words = ["rollbook", "tokens"].iter().chain(words);
        match Cli::try_parse_from(words)?.command {
            Command::Client(ClientCommand::Tokens(args)) => run(&fake.global(), args).await,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_saved_token_is_for_its_owner_alone_and_no_file_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.token");
        let save =
            ["create", "service:b", "--expires-in", "30d", "--description", "x", "--save", path.to_str().unwrap()];
        let fake = Fake::start(vec![answer("201 Created", "", MADE)]).await;
        call(&fake, &save).await.unwrap();
        assert_eq!(fake.calls(), ["POST /api/security/principals/service:b/tokens"]);
        assert_eq!(fake.bodies(), [r#"{"expires_in":"720h","description":"x"}"#]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "rb1_k7_s3cr3t\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let fake = Fake::start(vec![]).await;
        let error = call(&fake, &save).await.unwrap_err().to_string();
        assert!(error.contains("no token was made"), "{error}");
    }

    #[tokio::test]
    async fn a_refusal_leaves_no_file_and_says_how_to_create_the_principal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.token");
        let fake = Fake::start(vec![answer("404 Not Found", "", NOT_FOUND)]).await;
        let error = call(&fake, &["create", "service:b", "--save", path.to_str().unwrap()]).await.unwrap_err();
        assert!(error.to_string().contains("`rollbook principals set service:b --role service`"), "{error}");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn an_answer_that_is_no_token_is_not_repeated() {
        let odd = r#"{"id":"k7","token":"s3cr3t with blanks"}"#;
        let fake = Fake::start(vec![answer("201 Created", "", odd)]).await;
        let error = format!("{:#}", call(&fake, &["create", "service:b"]).await.unwrap_err());
        assert!(error.contains("is not a token") && !error.contains("s3cr3t"), "{error}");
    }

    #[test]
    fn a_life_can_be_days_hours_or_never() {
        for (text, sent) in [("90d", "2160h"), ("12h", "12h"), ("1h30m", "1h30m"), ("never", "never")] {
            assert_eq!(life(text).as_deref(), Ok(sent));
        }
        for bad in ["", "d", "90", "-1d", "0s", "0d", "1.5d", "99999999999999999999d", "always"] {
            assert!(life(bad).is_err(), "{bad}");
        }
    }
}
