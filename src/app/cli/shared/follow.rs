//! Follows an event stream over many connections: resumes after the last event, and waits as long as the node asks.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use reqwest::Response;
use tokio::time::{Instant, sleep, timeout_at};

use super::http::{CallError, Client};
use super::output::note;
use super::sse::{SseEvent, SseItem, SseParser, TooLarge};

/// Wait before the first reconnection, unless the node asks for another.
const RETRY_DEFAULT: Duration = Duration::from_millis(500);
/// Longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Why the stream cannot continue.
#[derive(Debug, thiserror::Error)]
pub(in crate::app::cli) enum FollowError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the node ended the stream: {0}")]
    Ended(String),
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    #[error("the stream broke {attempts} times in a row without a single event; last: {last}")]
    GaveUp { attempts: u32, last: String },
}

/// The next item of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::app::cli) enum Next {
    Event(SseEvent),
    /// No event came within the given time.
    Quiet,
}

/// When to reconnect and when to give up.
#[derive(Debug, Clone, Copy)]
pub(in crate::app::cli) struct ReconnectPolicy {
    /// Longest time without a byte. After this time the connection counts as broken.
    pub(in crate::app::cli) silence_max: Duration,
    /// Most attempts in a row that may fail. `None` means no limit after the first successful connection.
    pub(in crate::app::cli) attempts_max: Option<u32>,
}

/// The stream of one subscription over any number of connections.
pub(in crate::app::cli) struct Follower<'a> {
    /// The event log.
    client: &'a Client,
    /// The query of the subscription, without its position.
    query: Vec<(&'a str, String)>,
    /// When to reconnect and when to give up.
    policy: ReconnectPolicy,
    /// The present connection, if there is one.
    open: Option<OpenStream>,
    /// Items that have arrived and were not returned yet.
    ready: VecDeque<SseItem>,
    /// The id of the last event, behind which the next connection continues.
    last_id: Option<String>,
    /// The consumer id of the present connection.
    consumer_id: String,
    /// The wait before the next connection, as the node asks.
    retry: Duration,
    /// Failed attempts in a row, for the wait and the limit.
    failures: u32,
    /// Whether a connection ever stood: before, a failure is a wrong address.
    was_open: bool,
}

struct OpenStream {
    response: Response,
    parser: SseParser,
    /// When the last byte came, to find a broken connection.
    last_byte: Instant,
}

impl<'a> Follower<'a> {
    pub(in crate::app::cli) fn new(client: &'a Client, query: Vec<(&'a str, String)>, policy: ReconnectPolicy) -> Self {
        Self {
            client,
            query,
            policy,
            open: None,
            ready: VecDeque::new(),
            last_id: None,
            consumer_id: String::new(),
            retry: RETRY_DEFAULT,
            failures: 0,
            was_open: false,
        }
    }

    /// Whether the next event has arrived already.
    pub(in crate::app::cli) fn has_ready(&self) -> bool {
        self.ready.iter().any(|item| matches!(item, SseItem::Event(_)))
    }

    /// Consumer id of the present connection.
    pub(in crate::app::cli) fn consumer_id(&self) -> &str {
        &self.consumer_id
    }

    /// Returns the next event, connects and reconnects as needed, and waits at most for `quiet`.
    pub(in crate::app::cli) async fn next(&mut self, quiet: Option<Duration>) -> Result<Next, FollowError> {
        let quiet_at = quiet.and_then(|quiet| Instant::now().checked_add(quiet));
        loop {
            while let Some(item) = self.ready.pop_front() {
                match item {
                    SseItem::Retry(delay) => self.retry = delay,
                    SseItem::Id(id) => self.last_id = Some(id),
                    SseItem::Event(event) if event.kind == "error" => {
                        return Err(FollowError::Ended(event.data));
                    }
                    SseItem::Event(event) => {
                        self.failures = 0;
                        self.last_id.clone_from(&event.id);
                        return Ok(Next::Event(event));
                    }
                }
            }
            let Some(open) = &mut self.open else {
                self.connect().await?;
                continue;
            };
            let silent_at = open.last_byte.checked_add(self.policy.silence_max);
            let deadline = [quiet_at, silent_at].into_iter().flatten().min().unwrap_or_else(Instant::now);
            match timeout_at(deadline, open.response.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    open.last_byte = Instant::now();
                    open.parser.push(&bytes, &mut self.ready)?;
                }
                Ok(Ok(None)) => self.connection_lost("the node closed the stream").await?,
                Ok(Err(error)) => self.connection_lost(&error.to_string()).await?,
                Err(_) if quiet_at.is_some_and(|at| at <= Instant::now()) => return Ok(Next::Quiet),
                Err(_) => self.connection_lost("nothing came, not even a keep-alive").await?,
            }
        }
    }

    async fn connect(&mut self) -> Result<(), FollowError> {
        let query: Vec<(&str, &str)> = self.query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let url = self.client.url(&[], &query);
        match self.client.stream(url, self.last_id.as_deref()).await {
            Ok(response) => {
                let header = response.headers().get("X-BUS-CONSUMER-ID").and_then(|value| value.to_str().ok());
                self.consumer_id = header.unwrap_or_default().to_owned();
                self.open = Some(OpenStream { response, parser: SseParser::default(), last_byte: Instant::now() });
                self.was_open = true;
                Ok(())
            }
            // A node that is unreachable at the start has a wrong address. A node that answers "not now" is there.
            Err(error) if error.is_transient() && (self.was_open || error.status().is_some()) => {
                if let Some(delay) = error.retry_after() {
                    self.retry = delay;
                }
                self.connection_lost(&error.to_string()).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Drops the connection and waits until the next attempt. The node sends incomplete events again.
    async fn connection_lost(&mut self, reason: &str) -> Result<(), FollowError> {
        self.open = None;
        self.failures = self.failures.saturating_add(1);
        if self.policy.attempts_max.is_some_and(|max| self.failures > max) {
            return Err(FollowError::GaveUp { attempts: self.failures, last: reason.to_owned() });
        }
        if self.failures == 1 {
            note(&format!("rollbook: {reason}; reconnecting"));
        }
        sleep(delay(self.retry, self.failures)).await;
        Ok(())
    }
}

/// The delay doubles with each failure, with jitter, so that clients do not reconnect all at once.
fn delay(retry: Duration, failures: u32) -> Duration {
    let factor = 1_u32 << failures.saturating_sub(1).min(6);
    let full = retry.saturating_mul(factor).min(RETRY_MAX.max(retry));
    // The node adds jitter to its own `retry:`, so only the doubled delays need jitter here.
    if failures <= 1 {
        return full;
    }
    let percent = u32::try_from(RandomState::new().build_hasher().finish() % 51).unwrap_or(0);
    full.saturating_mul(50 + percent) / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{self, Fake, frame};

    const RECONNECT_POLICY: ReconnectPolicy =
        ReconnectPolicy { silence_max: Duration::from_secs(5), attempts_max: Some(3) };

    fn follower(client: &Client) -> Follower<'_> {
        Follower::new(client, vec![("subject", "app.>".to_owned()), ("start", "oldest".to_owned())], RECONNECT_POLICY)
    }

    async fn id(follower: &mut Follower<'_>) -> String {
        match follower.next(None).await.unwrap() {
            Next::Event(event) => event.id.unwrap(),
            Next::Quiet => panic!("quiet"),
        }
    }

    #[tokio::test]
    async fn resumes_behind_the_last_whole_event_and_honours_retry() {
        let third = frame(3, "{}");
        let cut = third.split_at(20).0;
        let fake = Fake::start(vec![
            testing::stream("c_a", &format!("{}{}{cut}\nretry: 20\n", frame(1, "{}"), frame(2, "{}"))),
            testing::answer("503 Service Unavailable", "Retry-After: 0\r\n", "unavailable: no leader\n"),
            testing::stream("c_b", &frame(3, "{}")),
        ])
        .await;
        let client = Client::log(&fake.global()).unwrap();
        let mut follower = follower(&client);
        assert_eq!(id(&mut follower).await, "e_1");
        assert_eq!(follower.consumer_id(), "c_a");
        assert_eq!(id(&mut follower).await, "e_2");
        assert_eq!(id(&mut follower).await, "e_3");
        assert_eq!(follower.consumer_id(), "c_b");
        assert_eq!(follower.retry, Duration::ZERO);
        let requests = fake.requests();
        assert!(!requests[0].to_lowercase().contains("last-event-id"));
        assert!(requests[0].starts_with("GET /?subject=app.%3E&start=oldest HTTP/1.1\r\n"), "{requests:?}");
        assert!(requests[2].to_lowercase().contains("\r\nlast-event-id: e_2\r\n"), "{requests:?}");
    }

    #[tokio::test]
    async fn resumes_where_the_stream_began_when_it_broke_before_its_first_event() {
        let begin = ": consumer c_a\n\nid: e_0\n\n";
        let fake = Fake::start(vec![testing::stream("c_a", begin), testing::stream("c_b", &frame(1, "{}"))]).await;
        let client = Client::log(&fake.global()).unwrap();
        let mut follower = follower(&client);
        follower.retry = Duration::ZERO;
        assert_eq!(id(&mut follower).await, "e_1");
        assert!(fake.requests()[1].to_lowercase().contains("\r\nlast-event-id: e_0\r\n"));
    }

    #[tokio::test]
    async fn an_error_event_ends_it() {
        let text = "start event id e_x not found in namespace app";
        let fake = Fake::start(vec![testing::stream("c_a", &format!("event: error\ndata: {text}\n\n"))]).await;
        let client = Client::log(&fake.global()).unwrap();
        let error = follower(&client).next(None).await.unwrap_err();
        assert_eq!(error.to_string(), format!("the node ended the stream: {text}"));
    }

    #[tokio::test]
    async fn a_refusal_ends_it_and_so_does_a_node_that_never_was() {
        let fake = Fake::start(vec![testing::answer("400 Bad Request", "", "subject is empty\n")]).await;
        let client = Client::log(&fake.global()).unwrap();
        assert_eq!(follower(&client).next(None).await.unwrap_err().to_string(), "subject is empty (HTTP 400)");
        let client = Client::log(&testing::global("http://127.0.0.1:1", "")).unwrap();
        assert!(follower(&client).next(None).await.unwrap_err().to_string().starts_with("no node answers"));
    }

    #[tokio::test]
    async fn gives_up_after_the_attempts_allowed() {
        let fake = Fake::start(vec![testing::stream("c_a", &format!("retry: 1\n\n{}", frame(1, "{}")))]).await;
        let client = Client::log(&fake.global()).unwrap();
        let mut follower = follower(&client);
        assert_eq!(id(&mut follower).await, "e_1");
        let error = follower.next(None).await.unwrap_err().to_string();
        assert!(error.starts_with("the stream broke 4 times in a row"), "{error}");
    }

    #[tokio::test]
    async fn says_when_it_is_quiet() {
        let long = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n: ping\n\n".to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            stream.write_all(long.as_bytes()).await.unwrap();
            sleep(Duration::from_secs(60)).await;
        });
        let client = Client::log(&testing::global(&url, &url)).unwrap();
        let quiet = follower(&client).next(Some(Duration::from_millis(100))).await.unwrap();
        assert_eq!(quiet, Next::Quiet);
    }

    #[test]
    fn delays_double_up_to_a_limit_and_are_spread() {
        let second = Duration::from_secs(1);
        assert_eq!(delay(second, 1), second);
        for (failures, full) in [(2, 2), (3, 4), (4, 8), (5, 10), (60, 10)] {
            let full = Duration::from_secs(full);
            assert!((full / 2..=full).contains(&delay(second, failures)));
        }
        assert!(delay(Duration::from_secs(30), 9) >= Duration::from_secs(15));
    }
}
