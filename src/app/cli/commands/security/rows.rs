//! Rows at REST: principals, roles, issuers and what Xbus has are read, changed and written back, shown and deleted alike.

use anyhow::Context as _;
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::app::cli::shared::confirm;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::{CallError, Client, SECURITY_NOT_FOUND, XBUS_NOT_FOUND};
use crate::app::cli::shared::output::print;

/// How often a change is tried when others change the same row meanwhile.
const ATTEMPTS_MAX: u32 = 5;

/// The address of one row.
pub(super) fn one(client: &Client, list: &str, name: &str) -> Url {
    client.url(&["api", "security", list, name], &[])
}

/// Reads a row, with its JSON as it came; `None` when there is none.
pub(super) async fn find<R: DeserializeOwned>(client: &Client, url: &Url) -> anyhow::Result<Option<(R, Value)>> {
    match client.json::<Value>(Method::GET, url.clone(), None).await {
        Ok(json) => Ok(Some((read(&json, url)?, json))),
        Err(error) if is_unknown(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the node knows no row of that name.
pub(super) fn is_unknown(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<CallError>().and_then(CallError::code);
    code.is_some_and(|code| code == SECURITY_NOT_FOUND || code == XBUS_NOT_FOUND)
}

/// Reads the JSON of a row.
pub(super) fn read<R: DeserializeOwned>(json: &Value, url: &Url) -> anyhow::Result<R> {
    R::deserialize(json).with_context(|| format!("{url} did not answer as this release expects"))
}

/// Reads a row, changes it and writes it back; again from the start when somebody else changed it in between, so that
/// nobody's change is lost. `change` gets `None` when there is no such row, and returns the body of the request.
pub(in crate::app::cli) async fn edit<R: DeserializeOwned>(
    client: &Client,
    url: &Url,
    change: impl Fn(Option<R>) -> anyhow::Result<Value>,
) -> anyhow::Result<(R, Value)> {
    let mut attempts = 1;
    loop {
        let (row, revision) = match find::<R>(client, url).await? {
            Some((row, json)) => (Some(row), json.get("revision").and_then(Value::as_u64)),
            None => (None, None),
        };
        match client.replace(url.clone(), &change(row)?, revision).await {
            Ok(response) => {
                let json: Value = client.read(response).await?;
                return Ok((read(&json, url)?, json));
            }
            Err(error) if error.status() == Some(412) && attempts < ATTEMPTS_MAX => attempts += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Deletes a row, after a question.
pub(in crate::app::cli) async fn delete(
    global: &Global,
    url: Url,
    what: Deletion<'_>,
    yes: bool,
) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let Deletion { kind, name, effect } = what;
    if confirm::has_to_ask(yes, &format!("deleting the {kind} {name}"))? {
        confirm::ask(&format!("This deletes the {kind} {name} for good: {effect}."), name)?;
    }
    client.send(Method::DELETE, url, None).await?;
    print(&match global.output {
        Output::Table => format!("the {kind} {name} is deleted: {effect}"),
        Output::Json => json!({ "deleted": name }).to_string(),
    })
}

/// What is deleted.
pub(in crate::app::cli) struct Deletion<'a> {
    /// The noun: `role`.
    pub(in crate::app::cli) kind: &'a str,
    /// The name, which the user types as an answer.
    pub(in crate::app::cli) name: &'a str,
    /// What ends with it.
    pub(in crate::app::cli) effect: &'a str,
}

/// One line for each member that says something.
pub(in crate::app::cli) fn lines(members: &[(&str, String)]) -> String {
    let said = members.iter().filter(|(_, text)| !text.is_empty());
    let width = said.clone().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut lines = String::new();
    for (name, text) in said {
        let parts = text.lines().enumerate();
        for (number, part) in parts {
            let name = if number == 0 { *name } else { "" };
            lines.push_str(&format!("{}{name:<width$}  {part}", if lines.is_empty() { "" } else { "\n" }));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    #[derive(serde::Deserialize)]
    struct Row {
        n: u64,
    }

    const NOT_FOUND: &str =
        r#"{"title":"Not Found","status":404,"detail":"not found: role x","code":"security_not_found"}"#;

    #[tokio::test]
    async fn a_change_starts_again_when_somebody_was_faster() {
        let fake = Fake::start(vec![
            answer("404 Not Found", "", NOT_FOUND),
            answer("412 Precondition Failed", "", r#"{"detail":"changed meanwhile","code":"revision"}"#),
            answer("200 OK", "", r#"{"n":7,"revision":4}"#),
            answer("200 OK", "", r#"{"n":8,"revision":5}"#),
        ])
        .await;
        let client = Client::web(&fake.global()).unwrap();
        let change = |row: Option<Row>| Ok(json!({ "n": row.map_or(1, |row| row.n + 1) }));
        let (row, _) = edit(&client, &one(&client, "roles", "x"), change).await.unwrap();
        assert_eq!((row.n, &fake.bodies()[1], &fake.bodies()[3]), (8, &r#"{"n":1}"#.into(), &r#"{"n":8}"#.into()));
        let requests: Vec<String> = fake.requests().iter().map(|request| request.to_lowercase()).collect();
        assert!(requests[1].contains("\r\nif-none-match: *\r\n"), "{requests:?}");
        assert!(requests[3].contains("\r\nif-match: \"4\"\r\n"), "{requests:?}");
    }

    #[tokio::test]
    async fn a_row_that_is_changed_all_the_time_is_given_up() {
        let read = answer("200 OK", "", r#"{"n":7,"revision":4}"#);
        let lost = answer("412 Precondition Failed", "", r#"{"detail":"changed meanwhile","code":"revision"}"#);
        let fake = Fake::start(std::iter::repeat_n([read, lost], 5).flatten().collect()).await;
        let client = Client::web(&fake.global()).unwrap();
        let error = edit(&client, &one(&client, "roles", "x"), |_: Option<Row>| Ok(json!({}))).await.err().unwrap();
        assert!(error.to_string().contains("changed meanwhile (HTTP 412)"), "{error}");
        assert_eq!(fake.calls().len(), 10);
    }

    #[test]
    fn a_row_is_shown_as_aligned_lines_of_what_there_is() {
        let members = [("name", "x".to_owned()), ("description", String::new()), ("rights", "a\nb".to_owned())];
        assert_eq!(lines(&members), "name    x\nrights  a\n        b");
    }
}
