//! What the commands of programs ask the gateway: an actor, its jobs and its envelopes.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::cli::access::secret::Token;
use crate::app::cli::shared::global::Global;
use crate::app::cli::shared::http::{CallError, Client};
use crate::app::cli::shared::output::note;

/// How long one request waits for a job: less than a request may take.
const WAIT: &str = "20s";
/// Pauses between two tries of what has to arrive.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// An actor at the gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    client: Client,
    actor: String,
}

impl Gateway {
    /// The actor of this name or id, of the account whose API key is in the file.
    ///
    /// # Errors
    /// The file cannot be read, or the key would cross a network in clear text.
    pub(super) fn new(global: &Global, key_file: &Path, actor: &str) -> anyhow::Result<Self> {
        let key = Token::from_file(key_file)?;
        Ok(Self { client: Client::gateway(global, key.secret())?, actor: actor.to_owned() })
    }

    async fn ask(&self, method: Method, path: &[&str], body: Option<&Value>) -> Result<Option<Value>, CallError> {
        self.ask_with(method, path, &[], body).await
    }

    async fn ask_with(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Option<Value>, CallError> {
        let path = [&["xbus", self.actor.as_str()][..], path].concat();
        let url = self.client.url(&path, query);
        let body = body.map(|body| body.to_string().into_bytes());
        let answer = self.client.send(method, url.clone(), body).await?;
        if answer.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let broken = |error: reqwest::Error| CallError::Broken { url: url.clone(), reason: error.to_string() };
        let text = answer.text().await.map_err(broken)?;
        let read = serde_json::from_str(&text);
        read.map(Some).map_err(|error| CallError::Broken { url, reason: format!("no JSON: {error}") })
    }

    /// The actor: its name, kind and status.
    pub(super) async fn show(&self) -> Result<Value, CallError> {
        let told = self.ask(Method::GET, &[], None).await?.unwrap_or_default();
        Ok(told.get("actor").cloned().unwrap_or_default())
    }

    /// The next job, after some seconds `None`. With `again` first one that the actor has and has not ended.
    pub(super) async fn poll(&self, again: bool) -> Result<Option<Value>, CallError> {
        let again = if again { "true" } else { "false" };
        self.ask_with(Method::GET, &["processrequest"], &[("wait", WAIT), ("again", again)], None).await
    }

    /// Sends an envelope in this JSON.
    pub(super) async fn output(&self, body: &Value) -> Result<Value, CallError> {
        Ok(self.ask(Method::POST, &["output"], Some(body)).await?.unwrap_or_default())
    }

    /// What became of an envelope.
    pub(super) async fn envelope(&self, id: &str) -> Result<Value, CallError> {
        Ok(self.ask(Method::GET, &["envelope", id], None).await?.unwrap_or_default())
    }

    /// Sends something that has to arrive, again and again until a node takes or refuses it.
    async fn insist(&self, path: &str, body: &Value) -> Result<(), CallError> {
        let mut pause = PAUSE;
        loop {
            match self.ask(Method::POST, &[path], Some(body)).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_transient() => {
                    note(&format!("{error}; trying again"));
                    tokio::time::sleep(error.retry_after().unwrap_or(pause)).await;
                    pause = pause.saturating_mul(2).min(PAUSE_MAX);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends an envelope of a job. The envelope has an id, so that it may come twice.
    pub(super) async fn insist_on_output(&self, body: &Value) -> anyhow::Result<()> {
        self.insist("output", body).await.context("the output of the command is not taken")
    }

    /// Logs lines about a job.
    pub(super) async fn log(&self, context: &Value, lines: &[Value]) -> Result<(), CallError> {
        self.insist("log", &json!({ "context": context, "messages": lines })).await
    }

    /// Ends a job. `errors` says why it failed; `None`: it succeeded.
    pub(super) async fn end(&self, context: &Value, errors: Option<&[Value]>) -> Result<(), CallError> {
        let result = if errors.is_some() { "error" } else { "success" };
        let body = json!({ "context": context, "result": result, "messages": errors.unwrap_or_default() });
        self.insist("processingend", &body).await
    }
}
