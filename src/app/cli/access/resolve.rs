//! Finds out how a command reaches a node: each part comes from the first of flag, environment, context and default
//! that has it.

use std::net::IpAddr;

use reqwest::Url;

use super::contexts::SavedContext;
use super::environment::TOKEN_VARIABLE;
use super::secret::{Secret, Token};
use super::tls::TlsFiles;
use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::Global;

/// The event log of a node on this machine.
const LOG_URL: &str = "http://127.0.0.1:2021";
/// REST and health of a node on this machine.
pub(crate) const WEB_URL: &str = "http://127.0.0.1:7440";
/// What a request presents to say who asks.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// A token or JWT.
    Token(Token),
    /// A user with a password, in the form of the header: only to log in.
    Basic(Secret),
}

/// How a command reaches a node, and who it is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    log_url: Option<String>,
    web_url: Option<String>,
    /// Trusted CAs and client certificate.
    pub(crate) tls: TlsFiles,
    /// What every request presents.
    pub(crate) credential: Option<Credential>,
}

impl Access {
    /// An access to the web listener at `web_url` that is not resolved but given.
    pub(crate) fn given(web_url: &str, tls: TlsFiles, credential: Option<Credential>) -> Self {
        Self { log_url: None, web_url: Some(web_url.to_owned()), tls, credential }
    }

    /// Finds the parts for these flags.
    ///
    /// A flag or variable that names a node puts the current context aside as a whole, so that the token of one cluster
    /// is not sent to another. A context that is named by `--context` still gives what the flags do not say.
    ///
    /// # Errors
    /// The named context does not exist, the contexts cannot be read, or a token is none.
    pub(crate) fn resolve(global: &Global) -> anyhow::Result<Self> {
        let context = context(global)?.unwrap_or_default();
        let said = |flag: &Option<String>, saved: String| flag.clone().or(Some(saved).filter(|url| !url.is_empty()));
        let tls = match &global.certificate {
            Some(_) => {
                TlsFiles { ca: None, certificate: global.certificate.clone(), key: global.certificate_key.clone() }
            }
            None => {
                let key = global.certificate_key.clone().or(context.key);
                TlsFiles { ca: None, certificate: context.certificate, key }
            }
        };
        let token = match (&global.token_file, &global.environment.token, &context.token) {
            (Some(path), ..) => Some(Token::from_file(path)?),
            (None, Some(token), _) => Some(Token::new(token.reveal(), TOKEN_VARIABLE)?),
            (None, None, Some(token)) => Some(Token::new(token.reveal(), "the context")?),
            (None, None, None) => None,
        };
        Ok(Self {
            log_url: said(&global.log_url, context.log_url),
            web_url: said(&global.web_url, context.web_url),
            tls: TlsFiles { ca: global.ca.clone().or(context.ca), ..tls },
            credential: token.map(Credential::Token),
        })
    }

    /// The address of the event log.
    ///
    /// # Errors
    /// The address is none.
    pub(crate) fn log_url(&self) -> Result<Url, Usage> {
        node_url(self.log_url.as_deref().unwrap_or(LOG_URL), "--log-url")
    }

    /// The address of REST and health.
    ///
    /// # Errors
    /// The address is none.
    pub(crate) fn web_url(&self) -> Result<Url, Usage> {
        node_url(self.web_url.as_deref().unwrap_or(WEB_URL), "--web-url")
    }

    /// The value of the header `Authorization` for requests to `url`, if there is a credential.
    ///
    /// # Errors
    /// The credential would cross a network in clear text.
    pub(crate) fn authorization(&self, url: &Url) -> Result<Option<Secret>, Usage> {
        let (what, header) = match &self.credential {
            None => return Ok(None),
            Some(Credential::Token(token)) => ("token", token.bearer()),
            Some(Credential::Basic(header)) => ("password", header.clone()),
        };
        check_private(url, what)?;
        Ok(Some(header))
    }
}

/// The context that the flags name, or else the current one, unless the flags name a node.
fn context(global: &Global) -> anyhow::Result<Option<SavedContext>> {
    let named = global.context.as_deref().filter(|name| !name.is_empty());
    if named.is_none() && (global.log_url.is_some() || global.web_url.is_some()) {
        return Ok(None);
    }
    let contexts = global.environment.contexts()?;
    match named.or(contexts.current.as_deref()) {
        Some(name) => Ok(Some(contexts.get(name)?.clone())),
        None => Ok(None),
    }
}

/// Reads the address of a listener. `flag` names where the address was given.
///
/// # Errors
/// The address is none, or has a password, which would be shown with the address.
pub(crate) fn node_url(text: &str, flag: &str) -> Result<Url, Usage> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if url.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
        return Err(Usage(format!(
            "{flag}: leave user and password out of the address, and use `rollbook login --password`"
        )));
    }
    url.ok_or_else(|| Usage(format!("{flag} {text}: write http://HOST:PORT or https://HOST:PORT")))
}

/// Checks that a secret stays between this machine and the node: over TLS, or within the machine.
///
/// # Errors
/// Others could read the secret on its way.
pub(crate) fn check_private(url: &Url, what: &str) -> Result<(), Usage> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let within = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if url.scheme() == "https" || within {
        return Ok(());
    }
    Err(Usage(format!("the {what} would go to {url} in clear text: write https://, or leave the {what} out")))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::app::cli::access::contexts::Contexts;
    use crate::app::cli::access::environment::Environment;

    const TOKEN: &str = "rb1_k7_s3cr3t";

    struct Home {
        dir: tempfile::TempDir,
        global: Global,
    }

    /// A user with the contexts `prod`, which is the current one, and `lab`.
    fn home() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let context = |name: &str| SavedContext {
            web_url: format!("https://{name}:7440"),
            log_url: format!("https://{name}:2021"),
            ca: Some(PathBuf::from(format!("/{name}/ca.pem"))),
            certificate: Some(PathBuf::from(format!("/{name}/c.pem"))),
            key: Some(PathBuf::from(format!("/{name}/c.key"))),
            token: Some(Secret::new(format!("rb1_{name}_s3cr3t"))),
            expires_at: None,
        };
        let contexts = ["prod", "lab"].map(|name| (name.to_owned(), context(name))).into();
        let file = dir.path().join("config.toml");
        Contexts { current: Some("prod".to_owned()), contexts }.save(&file).unwrap();
        let environment = Environment { token: None, contexts: Some(file) };
        Home { dir, global: Global { environment, ..Global::default() } }
    }

    fn token_id(access: &Access) -> String {
        match &access.credential {
            Some(Credential::Token(token)) => token.id().unwrap_or_default().to_owned(),
            _ => String::new(),
        }
    }

    fn shown(access: &Access) -> [String; 4] {
        let path = |path: &Option<PathBuf>| path.as_ref().map_or_else(String::new, |path| path.display().to_string());
        [access.web_url().unwrap().to_string(), path(&access.tls.ca), path(&access.tls.key), token_id(access)]
    }

    #[test]
    fn without_contexts_and_flags_a_command_talks_to_this_machine() {
        let access = Access::resolve(&Global::default()).unwrap();
        assert_eq!(shown(&access), ["http://127.0.0.1:7440/", "", "", ""]);
        assert_eq!(access.log_url().unwrap().as_str(), "http://127.0.0.1:2021/");
    }

    #[test]
    fn the_current_context_gives_everything_and_a_named_one_goes_first() {
        let Home { dir: _dir, global } = home();
        let access = Access::resolve(&global).unwrap();
        assert_eq!(shown(&access), ["https://prod:7440/", "/prod/ca.pem", "/prod/c.key", "prod"]);
        let access = Access::resolve(&Global { context: Some("lab".to_owned()), ..global.clone() }).unwrap();
        assert_eq!(shown(&access), ["https://lab:7440/", "/lab/ca.pem", "/lab/c.key", "lab"]);
        let error = Access::resolve(&Global { context: Some("x".to_owned()), ..global }).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("there are lab, prod"), "{error}");
    }

    #[test]
    fn an_address_of_a_flag_puts_the_current_context_aside_and_its_token_stays_at_home() {
        let Home { dir: _dir, global } = home();
        let named = Global { web_url: Some("http://127.0.0.1:9".to_owned()), ..global.clone() };
        assert_eq!(shown(&Access::resolve(&named).unwrap()), ["http://127.0.0.1:9/", "", "", ""]);
        let both = Global { context: Some("prod".to_owned()), ..named };
        assert_eq!(
            shown(&Access::resolve(&both).unwrap()),
            ["http://127.0.0.1:9/", "/prod/ca.pem", "/prod/c.key", "prod"]
        );
    }

    #[test]
    fn a_token_file_goes_before_the_environment_and_that_before_the_context() {
        let Home { dir, global } = home();
        let token = |global: &Global| token_id(&Access::resolve(global).unwrap());
        let environment =
            Environment { token: Some(Secret::new("rb1_env_x".to_owned())), ..global.environment.clone() };
        let with_variable = Global { environment, ..global };
        assert_eq!(token(&with_variable), "env");
        let file = dir.path().join("token");
        std::fs::write(&file, "rb1_file_x\n").unwrap();
        assert_eq!(token(&Global { token_file: Some(file), ..with_variable.clone() }), "file");
        let gone = Global { token_file: Some(dir.path().join("gone")), ..with_variable };
        assert!(Access::resolve(&gone).unwrap_err().to_string().contains("gone"), "a missing file is no fallback");
    }

    #[test]
    fn a_certificate_of_a_flag_does_not_get_the_key_of_the_context() {
        let Home { dir: _dir, global } = home();
        let access = Access::resolve(&Global { certificate: Some(PathBuf::from("/c")), ..global }).unwrap();
        assert_eq!((access.tls.certificate, access.tls.key), (Some(PathBuf::from("/c")), None));
    }

    #[test]
    fn a_token_crosses_a_network_only_over_tls() {
        let access =
            Access { credential: Some(Credential::Token(Token::new(TOKEN, "x").unwrap())), ..Access::default() };
        for fine in ["https://a:1", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"] {
            let sent = access.authorization(&Url::parse(fine).unwrap()).unwrap();
            assert_eq!(sent.as_ref().map(Secret::reveal), Some("Bearer rb1_k7_s3cr3t"), "{fine}");
        }
        for open in ["http://10.0.0.1:1", "http://localhost.evil:1", "http://[fe80::1]:1"] {
            let told = access.authorization(&Url::parse(open).unwrap()).unwrap_err().to_string();
            assert!(told.contains("in clear text") && !told.contains("s3cr3t"), "{open}: {told}");
        }
        assert_eq!(Access::default().authorization(&Url::parse("http://10.0.0.1:1").unwrap()).unwrap(), None);
    }

    #[test]
    fn an_address_with_a_password_is_refused_without_showing_it() {
        let told = node_url("https://ann:s3cr3t@h:1", "--web-url").unwrap_err().to_string();
        assert!(told.contains("leave user and password out") && !told.contains("s3cr3t"), "{told}");
        for bad in ["", "127.0.0.1:2021", "ws://h:1", "http://", "localhost:2021"] {
            assert!(node_url(bad, "--log-url").unwrap_err().to_string().contains("https://HOST:PORT"), "{bad}");
        }
    }
}
