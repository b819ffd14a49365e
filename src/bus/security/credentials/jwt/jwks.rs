//! The keys of an issuer behind a URL. One task fetches them, for all logins together: at start, every ten minutes, and
//! when a token names an unknown key, then at most twice a minute. While the server is slow or gone the keys that are
//! there stay in use, for a day.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, StatusCode, Url};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::error::JwtError;
use super::issuer::may_be_fetched;
use super::keys::{JWKS_BYTES_MAX, KeySet};
use crate::base::https;

/// Most redirects that are followed, all on the same host.
const REDIRECTS_MAX: usize = 3;

/// When keys are fetched, and how long they are good.
#[derive(Debug, Clone)]
pub struct JwksSettings {
    /// Time between two fetches.
    pub refresh: Duration,
    /// How long keys are used when they cannot be fetched again.
    pub keep: Duration,
    /// Longest fetch.
    pub timeout: Duration,
    /// Shortest time between two fetches for unknown keys.
    pub unknown_key: Duration,
    /// Wait after the first failed fetch, which doubles up to `backoff_max`.
    pub backoff: Duration,
    /// Longest wait after a failed fetch.
    pub backoff_max: Duration,
    /// A PEM file of CAs that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
}

impl Default for JwksSettings {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(10 * 60),
            keep: Duration::from_secs(24 * 60 * 60),
            timeout: Duration::from_secs(5),
            unknown_key: Duration::from_secs(30),
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            ca_file: None,
        }
    }
}

/// The keys behind one URL. Its task ends when this is dropped.
pub struct Jwks {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    url: Url,
    settings: JwksSettings,
    state: Mutex<State>,
    /// Wakes the task when a token names an unknown key.
    wanted: Notify,
    /// The number of fetches that have ended.
    ended: watch::Sender<u64>,
}

struct State {
    keys: Option<(Arc<KeySet>, Instant)>,
    /// Whether a fetch runs or is about to run.
    fetching: bool,
    /// When the last fetch ended.
    last: Option<Instant>,
}

/// Why a fetch failed, for the log.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no whole answer within {} s", .0.as_secs_f32())]
    Slow(Duration),
    #[error("{0}")]
    Http(String),
    #[error("status {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Keys(#[from] super::keys::KeysError),
}

impl Jwks {
    /// Starts to fetch. Must be called inside a tokio runtime, whose end also ends the fetching.
    ///
    /// # Errors
    /// The CA file cannot be used.
    pub fn start(url: Url, settings: JwksSettings) -> Result<Self, String> {
        let client = client(&settings)?;
        let shared = Arc::new(Shared {
            url,
            settings,
            state: Mutex::new(State { keys: None, fetching: true, last: None }),
            wanted: Notify::new(),
            ended: watch::channel(0).0,
        });
        let task = tokio::spawn(run(Arc::clone(&shared), client)).abort_handle();
        Ok(Self { shared, task })
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.shared.url
    }

    /// The keys that are known now. Waits for the first fetch when that still runs.
    ///
    /// # Errors
    /// No fetch has succeeded, or none for longer than keys are kept.
    pub async fn keys(&self) -> Result<Arc<KeySet>, JwtError> {
        match self.known() {
            Some(keys) => Ok(keys),
            None => {
                self.wait_for_fetch(false).await;
                self.known().ok_or(JwtError::KeysUnavailable)
            }
        }
    }

    /// The keys after a fetch, if there was none in the last half minute: a token names a key that is not known.
    ///
    /// # Errors
    /// As for [`Self::keys`].
    pub async fn refreshed(&self) -> Result<Arc<KeySet>, JwtError> {
        self.wait_for_fetch(true).await;
        self.known().ok_or(JwtError::KeysUnavailable)
    }

    /// The keys that are known and not too old.
    #[must_use]
    pub fn known(&self) -> Option<Arc<KeySet>> {
        let state = self.shared.state();
        let (keys, fetched) = state.keys.as_ref()?;
        (fetched.elapsed() < self.shared.settings.keep).then(|| Arc::clone(keys))
    }

    /// Waits for the end of the fetch that runs, or of a new one when `ask` and the last one is not too fresh.
    async fn wait_for_fetch(&self, ask: bool) {
        let shared = &self.shared;
        let mut ended = shared.ended.subscribe();
        {
            let mut state = shared.state();
            if !state.fetching {
                let fresh = state.last.is_some_and(|last| last.elapsed() < shared.settings.unknown_key);
                if !ask || fresh {
                    return;
                }
                state.fetching = true;
                shared.wanted.notify_one();
            }
        }
        // A fetch is bounded in time by itself; the second bound is for a runtime that is about to stop.
        drop(timeout(shared.settings.timeout.saturating_mul(2), ended.changed()).await);
    }
}

impl Drop for Jwks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jwks({}, {:?})", self.shared.url, self.known())
    }
}

impl Shared {
    /// The state. Nothing that could panic runs under the lock, so a poisoned state is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a fetch ended. Returns whether it succeeded.
    fn ended(&self, fetched: Result<KeySet, FetchError>, failures: u32) -> bool {
        let ok = fetched.is_ok();
        let now = Instant::now();
        let mut state = self.state();
        match fetched {
            Ok(keys) => {
                let same = state.keys.as_ref().filter(|(known, _)| known.digest() == keys.digest());
                if same.is_none() {
                    info!(url = %self.url, ?keys, "the keys of an issuer were fetched");
                }
                let keys = same.map_or_else(|| Arc::new(keys), |(known, _)| Arc::clone(known));
                state.keys = Some((keys, now));
            }
            Err(error) => {
                let known = state.keys.is_some();
                // The first failure of a row is enough: they end with the line above or go on alike.
                if failures == 0 {
                    warn!(url = %self.url, %error, known, "the keys of an issuer cannot be fetched; known keys stay in use");
                }
            }
        }
        state.fetching = false;
        state.last = Some(now);
        drop(state);
        self.ended.send_modify(|number| *number = number.wrapping_add(1));
        ok
    }
}

async fn run(shared: Arc<Shared>, client: Client) {
    let settings = &shared.settings;
    let mut failures: u32 = 0;
    loop {
        shared.state().fetching = true;
        let fetched = timeout(settings.timeout, fetch(&client, &shared.url)).await;
        let fetched = fetched.unwrap_or_else(|_| Err(FetchError::Slow(settings.timeout)));
        failures = if shared.ended(fetched, failures) { 0 } else { failures.saturating_add(1) };
        let pause = match failures.checked_sub(1) {
            None => settings.refresh,
            Some(doublings) => {
                settings.backoff.saturating_mul(2_u32.saturating_pow(doublings)).min(settings.backoff_max)
            }
        };
        let next = Instant::now().checked_add(pause);
        while !wait(&shared, next).await {}
    }
}

/// Waits until a fetch is due, by time or because a token names an unknown key. `false` for a wish that was fulfilled.
async fn wait(shared: &Shared, next: Option<Instant>) -> bool {
    let due = async {
        match next {
            Some(next) => sleep_until(next).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = due => true,
        () = shared.wanted.notified() => shared.state().fetching,
    }
}

fn client(settings: &JwksSettings) -> Result<Client, String> {
    let mut builder = https::client().connect_timeout(settings.timeout).redirect(Policy::custom(redirect));
    if let Some(path) = &settings.ca_file {
        builder = builder.tls_certs_merge(https::read_ca_file(path)?);
    }
    builder.build().map_err(|error| format!("cannot set up the client for keys of issuers: {error}"))
}

/// Follows a redirect on the same host alone: no other host may say which keys are trusted.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let first = attempt.previous().first();
    let same = first.is_some_and(|first| {
        first.host_str() == attempt.url().host_str()
            && first.port_or_known_default() == attempt.url().port_or_known_default()
    });
    if same && may_be_fetched(attempt.url()) && attempt.previous().len() <= REDIRECTS_MAX {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

async fn fetch(client: &Client, url: &Url) -> Result<KeySet, FetchError> {
    let http = |error: reqwest::Error| FetchError::Http(error.without_url().to_string());
    let mut answer = client.get(url.clone()).header("accept", "application/json").send().await.map_err(http)?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(http)? {
        if body.len().saturating_add(chunk.len()) > JWKS_BYTES_MAX {
            return Err(super::keys::KeysError::TooLarge.into());
        }
        body.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(body).map_err(|_| super::keys::KeysError::Malformed)?;
    Ok(KeySet::parse(&text)?)
}
