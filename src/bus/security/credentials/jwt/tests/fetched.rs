//! Keys behind a URL, with a real server that answers, is slow, misbehaves, dies and comes back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::super::keys::JWKS_BYTES_MAX;
use super::signers::{Signer, jwks};
use super::{Issuer, JwksSettings, JwtError, Keys, Verifier, claims, issuer, verify};

/// Longest wait for something that should happen at once.
const SOON: Duration = Duration::from_secs(10);

/// What the server does with a request.
#[derive(Clone)]
enum Behaviour {
    Answer(String),
    Status(&'static str),
    Redirect(String),
    /// Sends half of an answer and then nothing.
    Stall,
}

/// A server of keys. Its end closes its connections and refuses new ones.
struct Server {
    address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(behaviour: Behaviour) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), behaviour).await
    }

    async fn start_at(address: SocketAddr, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port of this host");
        let address = listener.local_addr().unwrap();
        let behaviour = Arc::new(Mutex::new(behaviour));
        let requests = Arc::new(AtomicUsize::new(0));
        let (present, counter) = (Arc::clone(&behaviour), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, Arc::clone(&present), Arc::clone(&counter)));
            }
        });
        Self { address, behaviour, requests, task }
    }

    fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    async fn die(mut self) {
        self.task.abort();
        drop((&mut self.task).await);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, behaviour: Arc<Mutex<Behaviour>>, requests: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    requests.fetch_add(1, Ordering::SeqCst);
    let behaviour = behaviour.lock().unwrap().clone();
    let (status, headers, body) = match behaviour {
        Behaviour::Answer(body) => ("200 OK", String::new(), body),
        Behaviour::Status(status) => (status, String::new(), String::new()),
        Behaviour::Redirect(target) => ("302 Found", format!("location: {target}\r\n"), String::new()),
        Behaviour::Stall => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"keys\"").await.ok();
            return std::future::pending().await;
        }
    };
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(text.as_bytes()).await.ok();
    stream.shutdown().await.ok();
}

fn settings() -> JwksSettings {
    JwksSettings {
        timeout: Duration::from_millis(500),
        backoff: Duration::from_millis(20),
        backoff_max: Duration::from_millis(50),
        ..JwksSettings::default()
    }
}

fn of_url(url: String) -> Issuer {
    issuer(&[Algorithm::EdDSA], Keys::Url(url))
}

fn verifier_of(url: String, settings: JwksSettings) -> Arc<Verifier> {
    let verifier = Verifier::new(settings);
    verifier.set_issuers(vec![of_url(url)]).expect("an issuer that can be used");
    Arc::new(verifier)
}

/// Different tokens of one key, so that no result of one is used for another.
fn token(signer: &Signer, number: usize) -> String {
    let mut claims = claims();
    claims["jti"] = json!(number.to_string());
    signer.sign(Algorithm::EdDSA, &claims)
}

async fn verify_many(verifier: &Arc<Verifier>, tokens: Vec<String>) -> Vec<Option<JwtError>> {
    let logins = tokens.into_iter().map(|token| {
        let verifier = Arc::clone(verifier);
        tokio::spawn(async move { verify(&verifier, &token).await.err() })
    });
    let answers = futures_util::future::join_all(logins).await;
    answers.into_iter().map(|answer| answer.expect("no login panics")).collect()
}

/// Tries new tokens until one is accepted.
async fn accepted_soon(verifier: &Verifier, signer: &Signer) {
    let begin = Instant::now();
    for number in 1_000_000.. {
        match verify(verifier, &token(signer, number)).await {
            Ok(_) => return,
            Err(error) => assert!(begin.elapsed() < SOON, "still refused: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_logins_at_once_cause_one_fetch() {
    let signer = Signer::ed25519("a");
    let server = Server::start(Behaviour::Answer(jwks(&[&signer]))).await;
    let verifier = verifier_of(server.url(), settings());
    let answers = verify_many(&verifier, (0..1000).map(|number| token(&signer, number)).collect()).await;
    assert_eq!(answers, vec![None; 1000]);
    assert_eq!(server.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_logins_with_an_unknown_key_cause_one_fetch_in_half_a_minute() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let server = Server::start(Behaviour::Answer(jwks(&[&old]))).await;
    let verifier = verifier_of(server.url(), JwksSettings { unknown_key: Duration::from_millis(300), ..settings() });
    verify(&verifier, &token(&old, 0)).await.expect("the first fetch");
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.set(Behaviour::Answer(jwks(&[&old, &new])));
    let answers = verify_many(&verifier, (0..1000).map(|number| token(&new, number)).collect()).await;
    assert_eq!(answers, vec![None; 1000], "the new key is fetched at once");
    assert_eq!(server.requests(), 2);
    let stranger = Signer::ed25519("stranger");
    let verifier = verifier_of(server.url(), settings());
    verify(&verifier, &token(&old, 1)).await.expect("the first fetch");
    let before = server.requests();
    let answers = verify_many(&verifier, (0..1000).map(|number| token(&stranger, number)).collect()).await;
    assert_eq!(answers, vec![Some(JwtError::UnknownKey); 1000]);
    assert_eq!(server.requests(), before, "the keys were fetched a moment ago");
}

#[tokio::test]
async fn keys_stay_in_use_while_their_server_is_slow_or_gone_and_are_fetched_again_when_back() {
    let (signer, next) = (Signer::ed25519("a"), Signer::ed25519("next"));
    let server = Server::start(Behaviour::Answer(jwks(&[&signer]))).await;
    let eager = JwksSettings { refresh: Duration::from_millis(50), ..settings() };
    let verifier = verifier_of(server.url(), eager);
    verify(&verifier, &token(&signer, 0)).await.expect("the first fetch");
    server.set(Behaviour::Stall);
    let before = server.requests();
    let begin = Instant::now();
    while server.requests() == before {
        assert!(begin.elapsed() < SOON, "no fetch after {before}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begin = Instant::now();
    verify(&verifier, &token(&signer, 1)).await.expect("a key that is known");
    assert!(begin.elapsed() < Duration::from_millis(250), "nobody waits for a slow server: {:?}", begin.elapsed());
    let address = server.address;
    server.die().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    verify(&verifier, &token(&signer, 2)).await.expect("a key that is known");
    assert_eq!(verify(&verifier, &token(&next, 0)).await, Err(JwtError::UnknownKey));
    let _server = Server::start_at(address, Behaviour::Answer(jwks(&[&next]))).await;
    accepted_soon(&verifier, &next).await;
    assert_eq!(verify(&verifier, &token(&signer, 3)).await, Err(JwtError::UnknownKey), "the old key is gone");
}

#[tokio::test]
async fn without_keys_a_login_fails_within_a_bounded_time_and_the_server_is_asked_later_and_later() {
    let signer = Signer::ed25519("a");
    let server = Server::start(Behaviour::Stall).await;
    let patient = JwksSettings { backoff: Duration::from_secs(60), backoff_max: Duration::from_secs(60), ..settings() };
    let verifier = verifier_of(server.url(), patient);
    let begin = Instant::now();
    let answers = verify_many(&verifier, (0..100).map(|number| token(&signer, number)).collect()).await;
    assert_eq!(answers, vec![Some(JwtError::KeysUnavailable); 100]);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    let begin = Instant::now();
    assert_eq!(verify(&verifier, &token(&signer, 1000)).await, Err(JwtError::KeysUnavailable));
    assert!(begin.elapsed() < Duration::from_millis(250), "nobody waits between two fetches: {:?}", begin.elapsed());
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_server_that_comes_up_late_is_found() {
    let signer = Signer::ed25519("a");
    let server = Server::start(Behaviour::Status("503 Service Unavailable")).await;
    let verifier = verifier_of(server.url(), settings());
    assert_eq!(verify(&verifier, &token(&signer, 0)).await, Err(JwtError::KeysUnavailable));
    server.set(Behaviour::Answer(jwks(&[&signer])));
    accepted_soon(&verifier, &signer).await;
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_for_too_long_are_no_longer_used() {
    let signer = Signer::ed25519("a");
    let server = Server::start(Behaviour::Answer(jwks(&[&signer]))).await;
    let verifier = verifier_of(server.url(), JwksSettings { keep: Duration::from_millis(700), ..settings() });
    let kept = token(&signer, 0);
    verify(&verifier, &kept).await.expect("the first fetch");
    server.die().await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(verify(&verifier, &token(&signer, 1)).await, Err(JwtError::KeysUnavailable));
    assert_eq!(verify(&verifier, &kept).await, Err(JwtError::KeysUnavailable), "a kept result ends with its key");
}

#[tokio::test]
async fn answers_that_cannot_be_trusted_bring_no_keys() {
    let signer = Signer::ed25519("a");
    let good = Server::start(Behaviour::Answer(jwks(&[&signer]))).await;
    let many = json!({"keys": (0..101).map(|_| signer.jwk()).collect::<Vec<_>>()}).to_string();
    let large = format!("{}{}", jwks(&[&signer]), " ".repeat(JWKS_BYTES_MAX));
    for (name, behaviour) in [
        ("another host", Behaviour::Redirect(good.url())),
        ("a file", Behaviour::Redirect("file:///etc/passwd".to_owned())),
        ("not found", Behaviour::Status("404 Not Found")),
        ("no JSON", Behaviour::Answer("<html>".to_owned())),
        ("no keys", Behaviour::Answer(r#"{"keys":[]}"#.to_owned())),
        ("too many keys", Behaviour::Answer(many)),
        ("too many bytes", Behaviour::Answer(large)),
    ] {
        let server = Server::start(behaviour).await;
        let verifier = verifier_of(server.url(), settings());
        assert_eq!(verify(&verifier, &token(&signer, 0)).await, Err(JwtError::KeysUnavailable), "{name}");
        assert!(server.requests() > 0, "{name}");
    }
    assert_eq!(good.requests(), 0, "a redirect to another host is not followed");
}

#[tokio::test]
async fn keys_of_a_url_that_stays_are_kept_when_issuers_change_and_fetching_ends_with_the_last_issuer() {
    let signer = Signer::ed25519("a");
    let server = Server::start(Behaviour::Answer(jwks(&[&signer]))).await;
    let eager = JwksSettings { refresh: Duration::from_millis(20), ..settings() };
    let verifier = verifier_of(server.url(), settings());
    verify(&verifier, &token(&signer, 0)).await.expect("the first fetch");
    let mut other = of_url(server.url());
    other.roles.clear();
    verifier.set_issuers(vec![other]).unwrap();
    verify(&verifier, &token(&signer, 1)).await.expect("the keys are still there");
    assert_eq!(server.requests(), 1);
    let verifier = verifier_of(server.url(), eager);
    verify(&verifier, &token(&signer, 0)).await.expect("the first fetch");
    verifier.set_issuers(Vec::new()).unwrap();
    // A fetch that was on its way may still arrive.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = server.requests();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.requests(), before, "nobody fetches for an issuer that is gone");
}
