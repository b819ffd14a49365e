//! A thousand connections of one principal on three nodes end within a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::harness::SOON;
use crate::security::secured::{bearer, cluster};

/// Connections, a third at each node.
const CROWD: usize = 1000;
/// Connections that are opened at the same time.
const AT_ONCE: usize = 40;
/// The limit of the issue.
const LIMIT: Duration = Duration::from_secs(1);

/// Opens a connection, says so, and reads to its end. How it ended, and when.
type End = (String, Instant);

async fn sse(log: SocketAddr, token: String, open: mpsc::Sender<()>) -> End {
    let mut tcp = TcpStream::connect(log).await.expect("a connection");
    let head =
        format!("GET /?subject=app.%3E HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n", bearer(&token));
    tcp.write_all(head.as_bytes()).await.expect("a request");
    let (mut seen, mut bytes) = (Vec::new(), [0; 4096]);
    let mut told = false;
    loop {
        let count = tcp.read(&mut bytes).await.unwrap_or(0);
        seen.extend_from_slice(&bytes[..count]);
        if !told && seen.windows(11).any(|part| part == b": consumer ") {
            told = true;
            open.send(()).await.expect("a test that waits");
        }
        if count == 0 || seen.ends_with(b"0\r\n\r\n") {
            return (if told { "sse".to_owned() } else { String::from_utf8_lossy(&seen).into_owned() }, Instant::now());
        }
    }
}

async fn websocket(web: SocketAddr, token: String, open: mpsc::Sender<()>) -> End {
    let mut request = format!("ws://{web}/ws").into_client_request().expect("a request");
    request.headers_mut().insert("authorization", bearer(&token).parse().expect("a header"));
    let tcp = TcpStream::connect(web).await.expect("a connection");
    let (mut socket, _) = tokio_tungstenite::client_async(request, tcp).await.expect("an upgrade");
    socket.send(Message::text(json!({ "name": "crowd", "version": "1" }).to_string())).await.expect("a frame");
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) if text.contains("\"registered\"") => open.send(()).await.expect("a test that waits"),
            Message::Close(why) => {
                let code = why.map_or(0, |why| u16::from(why.code));
                return (format!("ws {code}"), Instant::now());
            }
            _ => {}
        }
    }
    ("ws without a close".to_owned(), Instant::now())
}

async fn socketio(web: SocketAddr, token: String, open: mpsc::Sender<()>) -> End {
    let request = format!("ws://{web}/socket.io/?EIO=4&transport=websocket");
    let tcp = TcpStream::connect(web).await.expect("a connection");
    let (mut socket, _) = tokio_tungstenite::client_async(request, tcp).await.expect("an upgrade");
    let mut told = String::new();
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        match text.get(..2).unwrap_or_default() {
            "0{" => socket.send(Message::text(format!("40{}", json!({ "token": token })))).await.expect("a frame"),
            "40" => open.send(()).await.expect("a test that waits"),
            "2" => socket.send(Message::text("3")).await.expect("a frame"),
            "41" => return (format!("socketio {told}"), Instant::now()),
            "42" => {
                let event: Value = serde_json::from_str(text.get(2..).unwrap_or_default()).unwrap_or_default();
                told = event[1]["error"]["code"].as_str().unwrap_or_default().to_owned();
            }
            _ => {}
        }
    }
    (format!("socketio {told}, without a farewell"), Instant::now())
}

#[test]
fn a_thousand_connections_on_three_nodes_end_within_a_second_of_the_end_of_their_principal() {
    let (cluster, operators) = cluster();
    let (token, _) = operators[0].principal("service:crowd", &["subscribe app.>"]);
    for operator in &operators {
        crate::harness::wait_for("the principal at all nodes", SOON, || {
            (operator.ask("GET", "/api/security/principals/service:crowd?consistency=stale", "").status == 200)
                .then_some(())
        });
    }
    let addresses: Vec<_> = (1..=3).map(|id| (cluster.node(id).log, cluster.node(id).web)).collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (ends, deleted, answered) = runtime.block_on(async {
        let (gate, (sender, mut opened)) = (Arc::new(Semaphore::new(AT_ONCE)), mpsc::channel(CROWD));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..CROWD {
            let ((log, web), token, gate) = (addresses[number % 3], token.clone(), Arc::clone(&gate));
            let (own, mut open) = mpsc::channel(1);
            let sender = sender.clone();
            tasks.spawn(async move {
                let permit = gate.acquire_owned().await.expect("a gate");
                let told = async {
                    open.recv().await;
                    drop(permit);
                    sender.send(()).await.expect("a test that waits");
                    std::future::pending::<End>().await
                };
                // By another third, so that each node has all kinds.
                let run = async {
                    match number / 3 % 3 {
                        0 => sse(log, token, own).await,
                        1 => websocket(web, token, own).await,
                        _ => socketio(web, token, own).await,
                    }
                };
                tokio::select! {
                    end = run => end,
                    end = told => end,
                }
            });
        }
        drop(sender);
        for open in 0..CROWD {
            let next = timeout(Duration::from_secs(30), opened.recv()).await.ok().flatten();
            if next.is_none() {
                let early = tasks.join_next().await;
                panic!("only {open} connections are open; one ended: {early:?}");
            }
        }
        let deleted = Instant::now();
        tokio::task::spawn_blocking(move || {
            operators[0].done("DELETE", "/api/security/principals/service:crowd", &Value::Null);
        })
        .await
        .expect("an answer");
        let answered = Instant::now();
        let mut ends = Vec::new();
        while let Ok(Some(end)) = timeout(SOON, tasks.join_next()).await {
            ends.push(end.expect("a task"));
        }
        (ends, deleted, answered)
    });
    let last = ends.iter().map(|end| end.1).max().expect("an end");
    let (in_all, after) = (last.duration_since(deleted), last.saturating_duration_since(answered));
    eprintln!("revocation: {} connections ended {in_all:?} after the request, {after:?} after its answer", ends.len());
    let mut kinds: Vec<&str> = ends.iter().map(|end| end.0.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["socketio unauthenticated", "sse", "ws 4401"]);
    assert_eq!(ends.len(), CROWD, "connections that are still open");
    assert!(in_all <= LIMIT, "{in_all:?}");
}
