//! `rollbook login` and `rollbook logout`: check a credential against the node, and keep it in a context of the user.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::app::cli::access::contexts::{Contexts, SavedContext, check_name};
use crate::app::cli::access::environment::TOKEN_VARIABLE;
use crate::app::cli::access::resolve::{Access, Credential, WEB_URL, node_url};
use crate::app::cli::access::secret::{Token, basic};
use crate::app::cli::access::terminal;
use crate::app::cli::access::tls::TlsFiles;
use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::{CallError, Client};
use crate::app::cli::shared::output::{note, print};

const LOGIN_EXAMPLES: &str = "\
Examples:
  rollbook login --url https://bus.example:7440 --ca ca.pem
  rollbook login --url https://bus.example:7440 --name prod --token-file root.token
  rollbook login --password --user ann
  cat root.token | rollbook login

Reads the token from standard input, or asks for it without showing it. A context holds the addresses, the CA, the \
client certificate and the token, and becomes the current one. Without --url the current context is renewed. The file \
is rollbook/config.toml in the configuration directory of the user, and only its owner can read it.";

const LOGOUT_EXAMPLES: &str = "\
Examples:
  rollbook logout
  rollbook logout --context prod";

/// Port of the event log beside a web listener, unless it is given.
const LOG_PORT: u16 = 2021;

/// Arguments of `login`.
#[derive(Debug, Args)]
#[command(after_help = LOGIN_EXAMPLES)]
pub struct LoginArgs {
    /// REST and health of a node, as --web-url; the event log is at port 2021 beside it unless --log-url is given
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Name of the context [default: the current one, or with --url the host]
    #[arg(long, value_name = "CONTEXT")]
    name: Option<String>,
    /// Ask for a user and a password, and store the token that the node gives for them
    #[arg(long, conflicts_with = "token_file")]
    password: bool,
    /// The user, instead of asking for the name
    #[arg(long, value_name = "NAME", requires = "password")]
    user: Option<String>,
}

/// Arguments of `logout`.
#[derive(Debug, Args)]
#[command(after_help = LOGOUT_EXAMPLES)]
pub struct LogoutArgs {}

pub(in crate::app::cli) async fn login(global: &Global, args: LoginArgs) -> anyhow::Result<()> {
    let path = global.environment.contexts_file()?;
    let mut contexts = Contexts::load(path)?;
    let (name, mut context) = target(global, &args, &contexts)?;
    let tls = TlsFiles { ca: context.ca.clone(), certificate: context.certificate.clone(), key: context.key.clone() };
    let client = |credential| {
        let access = Access::given(&context.web_url, tls.clone(), credential);
        Client::new(access.web_url()?, "--url", &access)
    };
    let token = match &global.token_file {
        _ if args.password => {
            let user = match args.user {
                Some(user) => user,
                None => terminal::ask("User").await?,
            };
            let (token, expires_at) = exchange(&user, client).await?;
            context.expires_at = expires_at;
            Some(token)
        }
        Some(path) => Some(Token::from_file(path)?),
        None => typed_token(tls.certificate.is_some()).await?,
    };
    let (principal, roles) = whoami(&client(token.clone().map(Credential::Token))?).await?;
    context.token = token.map(|token| token.secret().clone());
    contexts.contexts.insert(name.clone(), context);
    contexts.current = Some(name.clone());
    contexts.save(path)?;
    if global.environment.token.is_some() {
        note(&format!("{TOKEN_VARIABLE} is set: commands take that token and not the one of the context"));
    }
    print(&match global.output {
        Output::Json => json!({ "context": name, "principal": principal, "roles": roles }).to_string(),
        Output::Table if roles.is_empty() => format!("logged in to {name} as {principal}"),
        Output::Table => format!("logged in to {name} as {principal} ({})", roles.join(", ")),
    })
}

/// The context to make or to renew, without a token.
fn target(global: &Global, args: &LoginArgs, contexts: &Contexts) -> anyhow::Result<(String, SavedContext)> {
    let url = args.url.as_ref().or(global.web_url.as_ref());
    let named = args.name.as_ref().or(global.context.as_ref()).filter(|name| !name.is_empty());
    let current = contexts.current.as_ref().filter(|_| url.is_none());
    let known = named.or(current).and_then(|name| contexts.contexts.get(name)).cloned();
    let old = known.unwrap_or_default();
    let web_url = url.cloned().or(Some(old.web_url.clone()).filter(|url| !url.is_empty()));
    let web = node_url(web_url.as_deref().unwrap_or(WEB_URL), "--url")?;
    let log = match &global.log_url {
        Some(url) => node_url(url, "--log-url")?,
        None if url.is_none() && !old.log_url.is_empty() => node_url(&old.log_url, "--log-url")?,
        None => beside(&web)?,
    };
    let name = match named.or(current) {
        Some(name) => name.clone(),
        // The brackets of an IPv6 address, and its colons, are no part of a name.
        None => web.host_str().unwrap_or_default().trim_matches(['[', ']']).replace(':', "-"),
    };
    check_name(&name)?;
    let (certificate, key) = match &global.certificate {
        Some(path) => (Some(absolute(path)?), global.certificate_key.as_deref().map(absolute).transpose()?),
        None => (old.certificate, old.key),
    };
    let ca = global.ca.as_deref().map(absolute).transpose()?.or(old.ca);
    let (web_url, log_url) = (web.to_string(), log.to_string());
    Ok((name, SavedContext { web_url, log_url, ca, certificate, key, token: None, expires_at: None }))
}

/// The address of the event log on the host of the web listener.
fn beside(web: &Url) -> anyhow::Result<Url> {
    let mut log = web.clone();
    let changed = log.set_port(Some(LOG_PORT));
    log.set_path("/");
    changed.map(|()| log).map_err(|()| Usage(format!("pass --log-url: {web} has no port")).into())
}

/// Later commands run in other directories.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))
}

/// The token on standard input. With a client certificate there may be none.
async fn typed_token(optional: bool) -> anyhow::Result<Option<Token>> {
    let question = if optional { "Token (empty: the certificate is enough)" } else { "Token" };
    match terminal::ask_secret(question).await {
        Ok(typed) if optional && typed.reveal().trim().is_empty() => Ok(None),
        Ok(typed) => Ok(Some(Token::new(typed.reveal(), "standard input")?)),
        // Nothing is piped in.
        Err(_) if optional && !terminal::is_there() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gets a token for a user and a password, with the time of its end.
async fn exchange(
    user: &str,
    client: impl Fn(Option<Credential>) -> anyhow::Result<Client>,
) -> anyhow::Result<(Token, Option<String>)> {
    let password = terminal::ask_secret("Password").await?;
    let client = client(Some(Credential::Basic(basic(user, &password)?)))?;
    let url = client.url(&["api", "security", "login"], &[]);
    let answer: Value = match client.send(Method::POST, url.clone(), None).await {
        // The error of a parser could quote what it read.
        Ok(response) => serde_json::from_str(&response.text().await.unwrap_or_default()).unwrap_or_default(),
        Err(error) => return Err(explained(error, "user or password is wrong")),
    };
    let token = answer.get("token").and_then(Value::as_str);
    let token = token.with_context(|| format!("{url} gave no token; is it a node of rollbook?"))?;
    let expires_at = answer.get("expires_at").filter(|end| !end.is_null());
    let expires_at = expires_at.map(|end| end.as_str().map_or_else(|| end.to_string(), str::to_owned));
    Ok((Token::new(token, "the answer of the node")?, expires_at))
}

/// Asks the node who the client is there: the principal and its roles.
async fn whoami(client: &Client) -> anyhow::Result<(String, Vec<String>)> {
    let url = client.url(&["api", "security", "self"], &[]);
    let answer: Value = match client.send(Method::GET, url.clone(), None).await {
        Ok(response) => serde_json::from_str(&response.text().await.unwrap_or_default()).unwrap_or_default(),
        Err(error) => return Err(explained(error, "the node does not accept the token")),
    };
    let principal = answer.get("principal").and_then(Value::as_str);
    let principal = principal.with_context(|| format!("{url} names no principal; is it a node of rollbook?"))?;
    let roles = answer.get("roles").and_then(Value::as_array).into_iter().flatten();
    Ok((principal.to_owned(), roles.filter_map(Value::as_str).map(str::to_owned).collect()))
}

/// Says what a failed login means. The general advice would be to log in.
fn explained(error: CallError, wrong: &str) -> anyhow::Error {
    match error.status() {
        Some(401) => anyhow::anyhow!("{wrong} (HTTP 401); nothing was changed"),
        Some(404) => anyhow::anyhow!("the node has no login (HTTP 404): it is older than tokens, and needs none"),
        _ => error.into(),
    }
}

pub(in crate::app::cli) fn logout(global: &Global, _: LogoutArgs) -> anyhow::Result<()> {
    let path = global.environment.contexts_file()?;
    let mut contexts = Contexts::load(path)?;
    let named = global.context.clone().filter(|name| !name.is_empty()).or_else(|| contexts.current.clone());
    let Some(name) = named else { bail!(Usage("there is no current context: pass --context NAME".to_owned())) };
    let unknown = contexts.unknown(&name);
    let context = contexts.contexts.get_mut(&name).ok_or(unknown)?;
    let (token, _) = (context.token.take(), context.expires_at.take());
    contexts.save(path)?;
    let had_token = token.is_some();
    print(&match global.output {
        Output::Json => json!({ "context": name, "had_token": had_token }).to_string(),
        Output::Table if had_token => {
            format!("forgot the token of {name}; the cluster accepts it until it ends or is revoked")
        }
        Output::Table => format!("{name} has no token"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::access::environment::Environment;
    use crate::app::cli::access::test_ca::TestCa;
    use crate::app::cli::shared::testing::{Fake, answer};

    const SELF: &str = r#"{"principal":"user:ann","roles":["operator"]}"#;

    struct Home {
        dir: tempfile::TempDir,
        global: Global,
    }

    /// A user without contexts who has a token in a file.
    fn home() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("root.token");
        std::fs::write(&token_file, "rb1_k7_s3cr3t\n").unwrap();
        let environment = Environment { token: None, contexts: Some(dir.path().join("rollbook/config.toml")) };
        Home { dir, global: Global { environment, token_file: Some(token_file), ..Global::default() } }
    }

    fn args(url: Option<String>, name: Option<&str>) -> LoginArgs {
        LoginArgs { url, name: name.map(str::to_owned), password: false, user: None }
    }

    #[tokio::test]
    async fn a_token_that_the_node_knows_is_kept_with_addresses_and_files() {
        let Home { dir, global } = home();
        let ca = TestCa::new(dir.path());
        let fake = Fake::start_tls(vec![answer("200 OK", "", SELF); 2], ca.server(false)).await;
        let global = Global { ca: Some(ca.file.clone()), ..global };
        login(&global, args(Some(fake.url()), Some("prod"))).await.unwrap();
        let request = fake.requests().concat();
        assert!(request.starts_with("GET /api/security/self HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: Bearer rb1_k7_s3cr3t\r\n"), "{request}");
        let contexts = global.environment.contexts().unwrap();
        assert_eq!(contexts.current.as_deref(), Some("prod"));
        let context = contexts.get("prod").unwrap();
        assert_eq!(
            (&context.web_url, &context.log_url),
            (&format!("{}/", fake.url()), &"https://127.0.0.1:2021/".to_owned())
        );
        assert_eq!((context.ca.as_ref(), context.token.as_ref().unwrap().reveal()), (Some(&ca.file), "rb1_k7_s3cr3t"));
        // Commands go there from now on, and a login without an address renews the same context.
        let renewed = Global { ca: None, ..global.clone() };
        login(&renewed, args(None, None)).await.unwrap();
        assert_eq!(renewed.environment.contexts().unwrap(), contexts);
    }

    #[tokio::test]
    async fn a_token_that_the_node_refuses_changes_nothing() {
        for (status, part) in
            [("401 Unauthorized", "does not accept the token"), ("404 Not Found", "older than tokens")]
        {
            let Home { dir: _dir, global } = home();
            let fake = Fake::start(vec![answer(status, "", "no\n")]).await;
            let told = login(&global, args(Some(fake.url()), None)).await.unwrap_err().to_string();
            assert!(told.contains(part) && !told.contains("s3cr3t"), "{told}");
            assert_eq!(global.environment.contexts().unwrap(), Contexts::default());
        }
    }

    #[tokio::test]
    async fn a_context_is_named_after_the_host_unless_a_name_is_given() {
        let Home { dir: _dir, global } = home();
        let named = |url: &str| target(&global, &args(Some(url.to_owned()), None), &Contexts::default()).unwrap().0;
        assert_eq!(named("https://bus.example:7440"), "bus.example");
        assert_eq!(named("https://[::1]:7440"), "--1");
        assert!(target(&global, &args(None, Some("a b")), &Contexts::default()).is_err());
        let (name, context) = target(&global, &args(None, None), &Contexts::default()).unwrap();
        assert_eq!((name.as_str(), context.log_url.as_str()), ("127.0.0.1", "http://127.0.0.1:2021/"));
    }

    #[tokio::test]
    async fn who_logs_out_keeps_the_context_without_its_token() {
        let Home { dir: _dir, global } = home();
        assert!(logout(&global, LogoutArgs {}).unwrap_err().is::<Usage>());
        let fake = Fake::start(vec![answer("200 OK", "", SELF)]).await;
        login(&global, args(Some(fake.url()), Some("prod"))).await.unwrap();
        logout(&global, LogoutArgs {}).unwrap();
        let contexts = global.environment.contexts().unwrap();
        assert_eq!(contexts.get("prod").unwrap().token, None);
        assert_eq!(contexts.current.as_deref(), Some("prod"));
        let text = std::fs::read_to_string(global.environment.contexts_file().unwrap()).unwrap();
        assert!(!text.contains("s3cr3t"), "{text}");
    }
}
