//! The HTTP client of the commands, and the texts of its errors.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH,
    RETRY_AFTER,
};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::io::ReaderStream;

use super::event;
use super::global::Global;
use super::tls_error::advice;
use crate::app::cli::access::resolve::{Access, check_private};
use crate::app::cli::access::secret::Secret;
use crate::app::cli::access::tls;
use crate::base::duration;
use crate::base::https;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer. A node gives up a publish earlier.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a piece of an upload.
const UPLOAD_PIECE_BYTES: usize = 64 * 1024;
/// The header with the index of a published event.
pub(in crate::app::cli) const EVENT_INDEX: &str = "X-BUS-EVENT-INDEX";
/// The header with the id under which an event waits.
pub(in crate::app::cli) const DELAYED_ID: &str = "X-BUS-DELAYED-ID";
/// The header with the deadline of a call.
const CALL_TIMEOUT: &str = "X-Rollbook-Timeout";
/// The code of a call without a provider.
pub(in crate::app::cli) const NO_PROVIDER: &str = "no_provider";
/// The code of a request that the principal has no right to.
const FORBIDDEN: &str = "forbidden";
/// The code of a principal, role, credential or issuer that is not there.
pub(in crate::app::cli) const SECURITY_NOT_FOUND: &str = "security_not_found";
/// The code of an account, actor, pipeline, process or envelope that is not there.
pub(in crate::app::cli) const XBUS_NOT_FOUND: &str = "xbus_not_found";
/// Most bytes of an error text that are shown.
const ERROR_TEXT_MAX: usize = 2000;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::app::cli) enum CallError {
    #[error("no node answers at {url} ({reason}); start one with `rollbook serve` or pass {flag}")]
    Unreachable { url: Url, reason: String, flag: &'static str },
    #[error("no safe connection to {url} ({reason}){advice}")]
    Insecure { url: Url, reason: String, advice: &'static str },
    #[error("{url} did not answer in time; see `rollbook health`, or pass {flag} to use another node")]
    Slow { url: Url, flag: &'static str },
    #[error("the connection to {url} broke ({reason}); nothing says whether the node did what was asked")]
    Broken { url: Url, reason: String },
    #[error("{text} (HTTP {status}){hint}")]
    Refused {
        status: u16,
        text: String,
        /// The code of a problem document; else empty.
        code: String,
        hint: String,
        retry_after: Option<Duration>,
        headers: Box<HeaderMap>,
    },
}

impl CallError {
    /// Whether the same call may succeed a little later.
    pub(in crate::app::cli) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Slow { .. } | Self::Broken { .. } => true,
            Self::Insecure { .. } => false,
            Self::Refused { status, .. } => matches!(status, 429 | 502 | 503 | 504),
        }
    }

    /// The status, if the node answered.
    pub(in crate::app::cli) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The code of the problem, if the node named one.
    pub(in crate::app::cli) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// The headers of the event that a publish repeats, when the node has stored that event already.
    pub(in crate::app::cli) fn stored(&self) -> Option<&HeaderMap> {
        match self {
            Self::Refused { status: 409, headers, .. } if headers.contains_key(EVENT_INDEX) => Some(headers),
            _ => None,
        }
    }

    /// The headers of a refusal that say under which id the event waits already.
    pub(in crate::app::cli) fn waiting(&self) -> Option<&HeaderMap> {
        match self {
            Self::Refused { status: 409, headers, .. } if headers.contains_key(DELAYED_ID) => Some(headers),
            _ => None,
        }
    }

    /// How long the node asks the client to wait.
    pub(in crate::app::cli) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The client of one listener of one node.
#[derive(Debug, Clone)]
pub(in crate::app::cli) struct Client {
    http: reqwest::Client,
    base: Url,
    flag: &'static str,
}

impl Client {
    /// The client of the event log.
    pub(in crate::app::cli) fn log(global: &Global) -> anyhow::Result<Self> {
        let access = Access::resolve(global)?;
        Self::new(access.log_url()?, "--log-url", &access)
    }

    /// The client of REST and health.
    pub(in crate::app::cli) fn web(global: &Global) -> anyhow::Result<Self> {
        let access = Access::resolve(global)?;
        Self::new(access.web_url()?, "--web-url", &access)
    }

    /// The client of the listener at `base`. `flag` names where another address can be given.
    pub(in crate::app::cli) fn new(base: Url, flag: &'static str, access: &Access) -> anyhow::Result<Self> {
        match access.authorization(&base)? {
            Some(authorization) => Self::with((base, flag), access, Some((AUTHORIZATION, &authorization))),
            None => Self::with((base, flag), access, None),
        }
    }

    /// The client of the gateway for actors of Xbus. Each request shows this API key.
    pub(in crate::app::cli) fn gateway(global: &Global, key: &Secret) -> anyhow::Result<Self> {
        let mut access = Access::resolve(global)?;
        access.credential = None;
        let base = access.web_url()?;
        check_private(&base, "API key")?;
        Self::with((base, "--web-url"), &access, Some((HeaderName::from_static("xbus-api-key"), key)))
    }

    /// The client that sends a secret in a header.
    fn with(
        (base, flag): (Url, &'static str),
        access: &Access,
        secret: Option<(HeaderName, &Secret)>,
    ) -> anyhow::Result<Self> {
        let tls = if base.scheme() == "https" { access.tls.config()? } else { tls::none()? };
        let mut headers = HeaderMap::new();
        if let Some((name, secret)) = secret {
            let mut value =
                HeaderValue::from_str(secret.reveal()).context("the credential does not fit into a header")?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let http = https::client()
            .tls_backend_preconfigured(tls)
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("rollbook/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot set up the HTTP client")?;
        Ok(Self { http, base, flag })
    }

    /// The URL of a path in segments, with a query.
    pub(in crate::app::cli) fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        if !path.is_empty()
            && let Ok(mut segments) = url.path_segments_mut()
        {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Sends a request. The answer must come in time and be a success.
    pub(in crate::app::cli) async fn send(
        &self,
        method: Method,
        url: Url,
        body: Option<Vec<u8>>,
    ) -> Result<Response, CallError> {
        let mut request = self.http.request(method, url.clone()).timeout(ANSWER_TIMEOUT);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        self.answer(request, url).await
    }

    /// Sends a request whose answer may take as long as it takes. Pings of the connection find out whether the node lives.
    pub(in crate::app::cli) async fn send_patiently(
        &self,
        method: Method,
        url: Url,
        body: impl Into<reqwest::Body>,
    ) -> Result<Response, CallError> {
        self.answer(self.http.request(method, url.clone()).body(body), url).await
    }

    /// Uploads a file of so many bytes. `sent` hears of each piece. The answer may take as long as it takes.
    pub(in crate::app::cli) async fn upload(
        &self,
        url: Url,
        (file, bytes): (tokio::fs::File, u64),
        sent: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Response, CallError> {
        let pieces = ReaderStream::with_capacity(file, UPLOAD_PIECE_BYTES).inspect_ok(move |piece| {
            sent(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        });
        let request = self.http.post(url.clone()).header(CONTENT_TYPE, "application/gzip");
        let request = request.header(CONTENT_LENGTH, bytes).body(reqwest::Body::wrap_stream(pieces));
        self.answer(request, url).await
    }

    /// Replaces what is at `url` if that still has this revision; without one, if nothing is there. Otherwise the node
    /// answers with the status 412.
    pub(in crate::app::cli) async fn replace(
        &self,
        url: Url,
        body: &Value,
        revision: Option<u64>,
    ) -> Result<Response, CallError> {
        let (name, value) = match revision {
            Some(revision) => (IF_MATCH, format!("\"{revision}\"")),
            None => (IF_NONE_MATCH, "*".to_owned()),
        };
        let request = self.http.put(url.clone()).timeout(ANSWER_TIMEOUT).header(name, value);
        self.answer(request.header(CONTENT_TYPE, "application/json").body(body.to_string()), url).await
    }

    /// Calls a service, with a deadline, and returns the answer.
    pub(in crate::app::cli) async fn call(
        &self,
        url: Url,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> Result<String, CallError> {
        // The node itself ends the call at its deadline.
        let request = self.http.post(url.clone()).timeout(timeout.saturating_add(ANSWER_TIMEOUT));
        let millis = format!("{}ms", timeout.as_millis());
        let request = request.header(CONTENT_TYPE, "application/json").header(CALL_TIMEOUT, millis);
        let response = self.answer(request.body(payload), url.clone()).await?;
        response.text().await.map_err(|error| self.failed(url, &error))
    }

    /// Opens an event stream. The head must come in time; the body may take forever.
    pub(in crate::app::cli) async fn stream(
        &self,
        url: Url,
        last_event_id: Option<&str>,
    ) -> Result<Response, CallError> {
        let mut request = self.http.get(url.clone()).header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.answer(request, url.clone())).await;
        answer.unwrap_or(Err(CallError::Slow { url, flag: self.flag }))
    }

    async fn answer(&self, request: RequestBuilder, url: Url) -> Result<Response, CallError> {
        let response = request.send().await.map_err(|error| self.failed(url.clone(), &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let headers = Box::new(response.headers().clone());
        let header = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = header.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        let body = response.text().await.map_err(|error| self.failed(url, &error))?;
        let (text, code) = error_text(&body);
        let hint = hint(status, &text, &code, retry_after);
        Err(CallError::Refused { status, hint, text, code, retry_after, headers })
    }

    fn failed(&self, url: Url, error: &reqwest::Error) -> CallError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let reason = cause.to_string();
        if let Some(advice) = advice(error, url.scheme()) {
            CallError::Insecure { url: self.base.clone(), reason, advice }
        } else if error.is_connect() {
            CallError::Unreachable { url: self.base.clone(), reason, flag: self.flag }
        } else if error.is_timeout() {
            CallError::Slow { url, flag: self.flag }
        } else {
            CallError::Broken { url, reason }
        }
    }

    /// Sends a request and reads its answer as JSON. An empty body becomes `null`.
    pub(in crate::app::cli) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> anyhow::Result<T> {
        let body = body.map(|value| value.to_string().into_bytes());
        let response = self.send(method, url, body).await?;
        self.read(response).await
    }

    /// Reads an answer as JSON. An empty body becomes `null`.
    pub(in crate::app::cli) async fn read<T: DeserializeOwned>(&self, response: Response) -> anyhow::Result<T> {
        let url = response.url().clone();
        let text = response.text().await.map_err(|error| self.failed(url.clone(), &error))?;
        let text = if text.is_empty() { "null" } else { &text };
        serde_json::from_str(text)
            .with_context(|| format!("{url} did not answer as a rollbook node does; check {}", self.flag))
    }

    /// All items of a list, page by page.
    pub(in crate::app::cli) async fn list(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        #[derive(serde::Deserialize)]
        struct Page {
            items: Vec<Value>,
            next_cursor: Option<String>,
        }
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            if let Some(cursor) = &cursor {
                query.push(("cursor", cursor));
            }
            let page: Page = self.json(Method::GET, self.url(path, &query), None).await?;
            items.extend(page.items);
            match page.next_cursor {
                Some(next) if Some(&next) != cursor.as_ref() => cursor = Some(next),
                _ => return Ok(items),
            }
        }
    }
}

/// The text and the code of an error. The event log sends a line, REST a problem document.
fn error_text(body: &str) -> (String, String) {
    let problem: Option<Value> = serde_json::from_str(body).ok();
    let field = |name: &str| problem.as_ref().and_then(|problem| problem.get(name)).and_then(Value::as_str);
    let text = field("detail").or_else(|| field("title")).unwrap_or(body).trim();
    let text = if text.is_empty() { "the node refused without saying why" } else { text };
    // The error of a called service.
    let service_error = problem.as_ref().and_then(|problem| problem.get("error"));
    let text = service_error.map_or_else(|| text.to_owned(), |error| format!("{text}: {error}"));
    let code = field("code").unwrap_or_default().to_owned();
    (event::one_line(&text).chars().take(ERROR_TEXT_MAX).collect(), code)
}

/// A hint about what to do, where the text of the error has none.
fn hint(status: u16, text: &str, code: &str, retry_after: Option<Duration>) -> String {
    if code == NO_PROVIDER {
        // The node is healthy. The command lists what can be called.
        return String::new();
    }
    let namespace = text.strip_prefix("namespace not found: ");
    match (status, namespace) {
        (401, _) => "; log in with `rollbook login`, or pass --token-file or ROLLBOOK_TOKEN".to_owned(),
        (403, _) if code == FORBIDDEN => "; `rollbook can PRINCIPAL VERB TARGET` says which rule decides".to_owned(),
        (429, _) => match retry_after {
            Some(wait) => format!("; try again in {}, or ask for a higher limit", duration::format(wait)),
            None => "; try again later, or ask for a higher limit".to_owned(),
        },
        // REST was asked for the namespace; the event log was asked to use it.
        (404, Some(_)) => "; `rollbook namespaces list` shows what there is".to_owned(),
        (_, Some(name)) => format!("; create it with `rollbook namespaces create {name}`"),
        (404, None) if code == SECURITY_NOT_FOUND => match text.split(' ').nth(2) {
            Some("credential") => "; `rollbook credentials list PRINCIPAL` shows what there is".to_owned(),
            Some(kind) => format!("; `rollbook {kind}s list` shows what there is"),
            None => String::new(),
        },
        (404, None) if code == XBUS_NOT_FOUND => match text.split(' ').nth(2) {
            Some(kind @ ("account" | "actor" | "pipeline")) => format!("; `rollbook {kind} list` shows what there is"),
            _ => String::new(),
        },
        (404, None) if text.starts_with("consumer ") => "; `rollbook consumers list` shows what there is".to_owned(),
        (404, None) if text.starts_with("there is no dead letter ") => {
            "; `rollbook dead-letters list --state all` shows what there is".to_owned()
        }
        (404, None) if text.starts_with("node ") => "; `rollbook cluster status` shows what there is".to_owned(),
        (413, _) => "; send less at a time, or raise sse.body_bytes_max of the node".to_owned(),
        (503, _) => "; try again, and see `rollbook health`".to_owned(),
        (507, _) => "; free disk space on the node, or lower retention with `rollbook namespaces retention`".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
