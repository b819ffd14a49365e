//! `rollbook can` and `rollbook who-can`: may somebody do something, which rule says so, and who may.

use clap::Args;
use reqwest::Method;
use rollbook_core::security::principal::Principal;
use rollbook_core::security::right::Verb;
use serde::Deserialize;
use serde_json::Value;

use crate::app::cli::shared::error::AlreadyReported;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{note, print, table};

const CAN_EXAMPLES: &str = "\
Examples:
  rollbook can service:billing publish orders.created
  rollbook can user:ann subscribe 'orders.>'
  rollbook can service:web call billing:charge --output json

Verbs: publish, subscribe, offer, call, command, config:read, config:write, process, pipeline, admin:read, admin:write, \
admin:security, admin:cluster. A target with wildcards asks for everything that it stands for.

Exit codes: 0 it may; 1 it may not, or the node could not be asked, which standard error then says.";

const WHO_CAN_EXAMPLES: &str = "\
Examples:
  rollbook who-can publish 'orders.>'
  rollbook who-can call billing:charge
  rollbook who-can admin:security '>' --output json

ALLOWED  all of the target, or a part of it
ROLE  the role that has the rule; empty for a right of the principal's own

People who come with a JWT are not in the list unless they are principals of the cluster too: the claims of a JWT give \
roles, as `rollbook issuers list` shows.";

/// Arguments of `can`.
#[derive(Debug, Args)]
#[command(after_help = CAN_EXAMPLES)]
pub struct CanArgs {
    /// KIND:NAME, or anonymous
    principal: Principal,
    /// What it would do: publish, subscribe, offer, call and so on
    verb: Verb,
    /// A subject, CAPABILITY:ACTION or a name, as the verb wants it
    target: String,
}

/// Arguments of `who-can`.
#[derive(Debug, Args)]
#[command(after_help = WHO_CAN_EXAMPLES)]
pub struct WhoCanArgs {
    /// What they would do: publish, subscribe, offer, call and so on
    verb: Verb,
    /// A subject, CAPABILITY:ACTION or a name, as the verb wants it; with wildcards for many
    target: String,
}

#[derive(Deserialize)]
struct Explanation {
    allowed: bool,
    #[serde(default)]
    rule: Option<String>,
    #[serde(default)]
    role: Option<String>,
    reason: String,
}

impl Explanation {
    fn text(&self) -> String {
        let role = self.role.as_deref().filter(|role| !role.is_empty());
        let role = role.map_or_else(|| "its own".to_owned(), |role| format!("of the role {role}"));
        match &self.rule {
            Some(rule) => format!("{}\nrule: {rule} ({role})", self.reason),
            None => self.reason.clone(),
        }
    }
}

#[derive(Deserialize)]
struct Who {
    principal: String,
    allowed: String,
    rule: String,
    role: String,
}

#[derive(Deserialize)]
struct Caller {
    #[serde(default)]
    open: bool,
}

/// Says yes or no.
///
/// # Errors
/// [`AlreadyReported`] for no; others when the node cannot be asked.
pub(in crate::app::cli) async fn can(global: &Global, args: CanArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let principal = args.principal.to_string();
    let query = [("principal", principal.as_str()), ("verb", args.verb.as_str()), ("target", &args.target)];
    let url = client.url(&["api", "security", "explain"], &query);
    let json: Value = client.json(Method::GET, url, None).await?;
    let answer = Explanation::deserialize(&json)?;
    print(&match global.output {
        Output::Json => json.to_string(),
        Output::Table => answer.text(),
    })?;
    if answer.allowed { Ok(()) } else { Err(AlreadyReported.into()) }
}

/// Lists who may do something.
///
/// # Errors
/// The node cannot be asked.
pub(in crate::app::cli) async fn who_can(global: &Global, args: WhoCanArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let (verb, target) = (args.verb.as_str(), args.target.as_str());
    let items = client.list(&["api", "security", "who"], &[("verb", verb), ("target", target)]).await?;
    let caller: Caller = client.json(Method::GET, client.url(&["api", "security", "self"], &[]), None).await?;
    if caller.open {
        // A list of those who were given a right would say too little.
        note("rollbook: this listener of the node asks nobody for a credential: whoever reaches it may do everything");
    }
    if global.output == Output::Json {
        return print(&Value::Array(items).to_string());
    }
    if items.is_empty() {
        return print(&format!("no principal may {verb} {target}"));
    }
    let mut lines = Vec::with_capacity(items.len());
    for item in items {
        let Who { principal, allowed, rule, role } = Who::deserialize(item)?;
        lines.push(vec![principal, allowed, rule, role]);
    }
    print(&table(&["PRINCIPAL", "ALLOWED", "RULE", "ROLE"], lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::testing::{Fake, answer};
    use clap::Parser;

    async fn call(fake: &Fake, line: &str) -> anyhow::Result<()> {
        match Cli::try_parse_from(line.split(' '))?.command {
            Command::Client(ClientCommand::Can(args)) => can(&fake.global(), args).await,
            Command::Client(ClientCommand::WhoCan(args)) => who_can(&fake.global(), args).await,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_no_is_an_exit_code_without_an_error_text() {
        let yes = r#"{"allowed":true,"rule":"publish orders.>","role":"w","reason":"it may"}"#;
        let no = r#"{"allowed":false,"reason":"it may not"}"#;
        let fake = Fake::start(vec![answer("200 OK", "", yes), answer("200 OK", "", no)]).await;
        call(&fake, "rollbook can service:b publish orders.>").await.unwrap();
        assert!(call(&fake, "rollbook can service:b config:read public").await.unwrap_err().is::<AlreadyReported>());
        let calls = fake.calls();
        assert_eq!(calls[0], "GET /api/security/explain?principal=service%3Ab&verb=publish&target=orders.%3E");
        let answer = |json| serde_json::from_str::<Explanation>(json).unwrap().text();
        assert_eq!(
            (answer(yes).as_str(), answer(no).as_str()),
            ("it may\nrule: publish orders.> (of the role w)", "it may not")
        );
    }

    #[tokio::test]
    async fn who_can_asks_for_a_verb_and_a_target() {
        let who = r#"{"items":[{"principal":"user:ann","allowed":"part","rule":"publish orders.a","role":""}],"next_cursor":null}"#;
        let own = r#"{"principal":"anonymous","open":true}"#;
        let fake = Fake::start(vec![answer("200 OK", "", who), answer("200 OK", "", own)]).await;
        call(&fake, "rollbook who-can publish orders.>").await.unwrap();
        assert_eq!(fake.calls(), ["GET /api/security/who?verb=publish&target=orders.%3E", "GET /api/security/self"]);
    }

    #[test]
    fn a_verb_that_there_is_not_is_answered_with_those_that_there_are() {
        let error = Cli::try_parse_from(["rollbook", "who-can", "write", "x"]).unwrap_err().to_string();
        assert!(error.contains("the verbs are publish, subscribe"), "{error}");
    }
}
