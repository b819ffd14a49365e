//! `rollbook issuers`: whose JWTs a cluster trusts, and which roles they give.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::rows;
use crate::app::cli::access::secret::Secret;
use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{print, table};

const EXAMPLES: &str = "\
Examples:
  rollbook issuers set corp --iss https://id.example.com --audience rollbook --algorithm RS256 --jwks-url https://id.example.com/keys --map groups:ops=operator
  rollbook issuers list
  rollbook issuers delete corp --yes

A JWT of a trusted issuer is a credential, as a token is. Its `sub` names the principal, and its claims give roles.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook issuers list";

const SHOW_EXAMPLES: &str = "\
Examples:
  rollbook issuers show corp";

const SET_EXAMPLES: &str = "\
Examples:
  rollbook issuers set corp --iss https://id.example.com --audience rollbook --algorithm RS256 --jwks-url https://id.example.com/keys --map groups:ops=operator
  rollbook issuers set ci --iss https://ci.example.com --audience rollbook --algorithm ES256 --keys-file keys.json --kind service --principal-claim repository
  rollbook issuers set lab --iss lab --algorithm HS256 --secret-file lab.secret

Creates the issuer, or replaces it as a whole: what is not given is empty or has its default. A secret is stored sealed, \
which needs security.key_file at all nodes, and is never shown again. Without --audience a JWT for somebody else counts \
here too.";

const DELETE_EXAMPLES: &str = "\
Examples:
  rollbook issuers delete corp
  rollbook issuers delete corp --yes

It asks for the name of the issuer. Without a terminal it deletes nothing, unless --yes is given: exit code 2.";

/// Largest file of keys or of a secret, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Arguments of `issuers`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct IssuersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all issuers
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Show one issuer
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// The issuer
        name: String,
    },
    /// Trust an issuer, or replace what is known of it
    #[command(after_help = SET_EXAMPLES)]
    Set(Box<SetArgs>),
    /// Trust an issuer no longer
    #[command(alias = "remove", after_help = DELETE_EXAMPLES)]
    Delete {
        /// The issuer
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct SetArgs {
    /// A name for it here
    name: String,
    /// The claim `iss` of its JWTs, letter by letter
    #[arg(long, value_name = "TEXT")]
    iss: String,
    /// A JWT is for one of these, in its claim `aud`; can be repeated
    #[arg(long, value_name = "TEXT")]
    audience: Vec<String>,
    /// An algorithm that is accepted, such as RS256 or ES256; can be repeated
    #[arg(long, value_name = "NAME", required = true)]
    algorithm: Vec<String>,
    #[command(flatten)]
    keys: KeysArgs,
    /// What its principals are: user, service, actor, dock or node [default: user]
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// The claim that names the principal [default: sub]
    #[arg(long, value_name = "CLAIM")]
    principal_claim: Option<String>,
    /// A claim that is this text or has it in a list gives a role; can be repeated
    #[arg(long, value_name = "CLAIM:TEXT=ROLE", value_parser = mapping)]
    map: Vec<Mapping>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct KeysArgs {
    /// Address of its public keys, a JWKS
    #[arg(long, value_name = "URL")]
    jwks_url: Option<String>,
    /// File with its public keys, JWKS or PEM
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// File with the secret that is shared with it, for HS256
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl KeysArgs {
    /// The member of the body that says where the keys are.
    fn member(&self) -> anyhow::Result<(&'static str, Secret)> {
        Ok(match (&self.jwks_url, &self.keys_file, &self.secret_file) {
            (_, Some(path), _) => ("keys", text(path)?),
            (_, _, Some(path)) => {
                let line = text(path)?;
                ("secret", Secret::new(line.reveal().trim_end_matches(['\r', '\n']).to_owned()))
            }
            (url, ..) => ("jwks_url", Secret::new(url.clone().unwrap_or_default())),
        })
    }
}

/// Reads a file of bounded size.
fn text(path: &Path) -> anyhow::Result<Secret> {
    let (mut text, cannot) = (String::new(), || format!("cannot read {}", path.display()));
    let file = File::open(path).with_context(cannot)?;
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_string(&mut text).with_context(cannot)?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > FILE_BYTES_MAX) {
        return Err(Usage(format!("{} has more than {FILE_BYTES_MAX} bytes", path.display())).into());
    }
    if text.trim().is_empty() {
        return Err(Usage(format!("{} is empty", path.display())).into());
    }
    Ok(Secret::new(text))
}

/// A claim that gives a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mapping {
    claim: String,
    contains: String,
    role: String,
}

/// Reads `groups:ops=operator`. The role is behind the last equals sign, the text behind the first colon.
fn mapping(text: &str) -> Result<Mapping, String> {
    let wrong = || "write CLAIM:TEXT=ROLE, as in groups:ops=operator".to_owned();
    let (rest, role) = text.rsplit_once('=').ok_or_else(wrong)?;
    let (claim, contains) = rest.split_once(':').ok_or_else(wrong)?;
    if [claim, contains, role].contains(&"") {
        return Err(wrong());
    }
    Ok(Mapping { claim: claim.to_owned(), contains: contains.to_owned(), role: role.to_owned() })
}

/// An issuer as REST shows it.
#[derive(Deserialize)]
struct Row {
    name: String,
    iss: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    algorithms: Vec<String>,
    #[serde(default)]
    jwks_url: String,
    #[serde(default)]
    keys: String,
    #[serde(default)]
    has_secret: bool,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    principal_claim: String,
    #[serde(default)]
    roles: Vec<Mapping>,
}

impl Row {
    fn keys(&self) -> String {
        match self {
            Self { has_secret: true, .. } => "a secret".to_owned(),
            Self { keys, .. } if !keys.is_empty() => "given".to_owned(),
            Self { jwks_url, .. } => jwks_url.clone(),
        }
    }

    fn roles(&self) -> String {
        let one = |Mapping { claim, contains, role }: &Mapping| format!("{claim}:{contains}={role}");
        self.roles.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}

fn unknown(name: &str) -> anyhow::Error {
    anyhow::anyhow!("there is no issuer {name}; `rollbook issuers list` shows what there is")
}

pub(in crate::app::cli) async fn run(global: &Global, args: IssuersArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let url = |name: &str| rows::one(&client, "issuers", name);
    let (row, json): (Row, Value) = match args.action {
        Action::List => return list(global, client.list(&["api", "security", "issuers"], &[]).await?),
        Action::Show { name } => rows::find(&client, &url(&name)).await?.ok_or_else(|| unknown(&name))?,
        Action::Set(args) => {
            let body = body(&args)?;
            rows::edit(&client, &url(&args.name), |_: Option<Row>| Ok(body.clone())).await?
        }
        Action::Delete { name, yes } => {
            let effect = "connections that its JWTs opened end";
            let deletion = rows::Deletion { kind: "issuer", name: &name, effect };
            return rows::delete(global, url(&name), deletion, yes).await;
        }
    };
    print(&match global.output {
        Output::Json => json.to_string(),
        Output::Table => show(&row),
    })
}

fn body(args: &SetArgs) -> anyhow::Result<Value> {
    let SetArgs { iss, audience, algorithm, kind, principal_claim, map, keys, .. } = args;
    let mut body = json!({ "iss": iss, "audiences": audience, "algorithms": algorithm, "roles": map });
    let (member, text) = keys.member()?;
    if let Some(body) = body.as_object_mut() {
        body.insert(member.to_owned(), text.reveal().into());
        let given = [("kind", kind), ("principal_claim", principal_claim)];
        body.extend(given.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.as_deref()?.into()))));
    }
    Ok(body)
}

fn list(global: &Global, items: Vec<Value>) -> anyhow::Result<()> {
    if global.output == Output::Json {
        return print(&Value::Array(items).to_string());
    }
    let mut lines = Vec::with_capacity(items.len());
    for item in items {
        let row = Row::deserialize(item)?;
        let (audiences, algorithms) = (row.audiences.join(", "), row.algorithms.join(", "));
        let (keys, roles) = (row.keys(), row.roles());
        lines.push(vec![row.name, row.iss, audiences, algorithms, keys, row.kind, roles]);
    }
    print(&table(&["ISSUER", "ISS", "AUDIENCES", "ALGORITHMS", "KEYS", "KIND", "ROLES"], lines))
}

fn show(row: &Row) -> String {
    rows::lines(&[
        ("issuer", row.name.clone()),
        ("iss", row.iss.clone()),
        ("audiences", if row.audiences.is_empty() { "any".to_owned() } else { row.audiences.join(", ") }),
        ("algorithms", row.algorithms.join(", ")),
        ("keys", row.keys()),
        ("kind", row.kind.clone()),
        ("claim", if row.principal_claim.is_empty() { "sub".to_owned() } else { row.principal_claim.clone() }),
        ("roles", row.roles()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::testing::{Fake, answer};
    use clap::Parser;

    const CORP: &str = r#"{"name":"corp","iss":"i","audiences":[],"algorithms":["RS256"],"jwks_url":"https://i/k","keys":"","has_secret":false,"kind":"user","principal_claim":"","roles":[{"claim":"groups","contains":"ops","role":"operator"}],"revision":4}"#;
    const NOT_FOUND: &str = r#"{"status":404,"detail":"not found: issuer corp","code":"security_not_found"}"#;

    async fn call(fake: &Fake, words: &[&str]) -> anyhow::Result<()> {
        let words = ["rollbook", "issuers"].iter().chain(words);
        match Cli::try_parse_from(words)?.command {
            Command::Client(ClientCommand::Issuers(args)) => run(&fake.global(), args).await,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn options_become_the_body() {
        let fake = Fake::start(vec![answer("404 Not Found", "", NOT_FOUND), answer("200 OK", "", CORP)]).await;
        let line = "set corp --iss i --audience a --audience b --algorithm RS256 --jwks-url https://i/k --kind service \
                    --principal-claim repo --map groups:ops=operator --map url:https://x?a=b=viewer";
        call(&fake, &line.split_whitespace().collect::<Vec<_>>()).await.unwrap();
        assert_eq!(fake.calls()[1], "PUT /api/security/issuers/corp");
        let body: Value = serde_json::from_str(&fake.bodies()[1]).unwrap();
        let roles = json!([
            { "claim": "groups", "contains": "ops", "role": "operator" },
            { "claim": "url", "contains": "https://x?a=b", "role": "viewer" },
        ]);
        let expected = json!({
            "iss": "i", "audiences": ["a", "b"], "algorithms": ["RS256"], "jwks_url": "https://i/k",
            "kind": "service", "principal_claim": "repo", "roles": roles,
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn a_secret_comes_from_a_file_without_its_line_feed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "s3cr3t of some length\n").unwrap();
        let path = path.to_str().unwrap();
        let set = ["set", "corp", "--iss", "i", "--algorithm", "HS256", "--secret-file", path];
        let fake = Fake::start(vec![answer("200 OK", "", CORP); 2]).await;
        call(&fake, &set).await.unwrap();
        let body: Value = serde_json::from_str(&fake.bodies()[1]).unwrap();
        assert_eq!((&body["secret"], body.get("keys")), (&json!("s3cr3t of some length"), None));
        std::fs::write(path, " \n").unwrap();
        assert!(call(&fake, &set).await.unwrap_err().to_string().contains("is empty"));
        std::fs::write(path, "x".repeat(300_000)).unwrap();
        assert!(call(&fake, &set).await.unwrap_err().to_string().contains("more than"));
    }

    #[test]
    fn exactly_one_source_of_keys_is_given_and_mappings_are_checked() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string());
        let set = "rollbook issuers set corp --iss i --algorithm RS256";
        assert!(parse(set).is_err());
        assert!(parse(&format!("{set} --jwks-url u --keys-file f")).is_err());
        for bad in ["groups", "groups:ops", "groups=operator", ":ops=operator", "groups:ops="] {
            let error = parse(&format!("{set} --jwks-url u --map {bad}")).unwrap_err();
            assert!(error.contains("CLAIM:TEXT=ROLE"), "{error}");
        }
        let shown = show(&serde_json::from_str(CORP).unwrap());
        assert!(shown.contains("https://i/k") && shown.contains("groups:ops=operator"), "{shown}");
    }
}
