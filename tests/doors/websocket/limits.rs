//! How fast it must be, beside the least relay on Node's `ws`: both under the same clients, one after the other.
//!
//! `make cargo ARGS="test --release --test tests websocket::limits -- --ignored --nocapture --test-threads=1"`

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::faults::resident;
use crate::doors::socketio::limits::{
    Caller, Provider, SOCKETS, beside_node, count_frames, field, measured, median, relay, run,
};
use crate::harness::node::{Node, Options};

/// A client that is registered.
struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn open(at: SocketAddr, name: &str, methods: &[&str]) -> Self {
        let tcp = TcpStream::connect(at).await.expect("connect");
        tcp.set_nodelay(true).expect("no delay");
        let (ws, _) = tokio_tungstenite::client_async(format!("ws://{at}/ws"), tcp).await.expect("an upgrade");
        let mut socket = Self(ws);
        let mut document = json!({ "name": name, "version": "1" });
        if !methods.is_empty() {
            document["methods"] = json!(methods);
        }
        socket.until("connect").await;
        socket.send(document.to_string()).await;
        socket.until("registered").await;
        socket
    }

    async fn send(&mut self, text: String) {
        self.0.send(Message::text(text)).await.expect("send");
    }

    /// The next frame of that type, as it came.
    async fn until(&mut self, kind: &str) -> String {
        let start = format!("{{\"type\":\"{kind}\"");
        loop {
            let message = self.0.next().await.expect("a message").expect("no error");
            if let Message::Text(text) = message
                && text.starts_with(&start)
            {
                return text.to_string();
            }
        }
    }
}

impl Provider for Socket {
    async fn serve(mut self) {
        loop {
            let asked = self.until("message").await;
            let id = field(&asked, "id");
            let response = format!("{{\"type\":\"response\",\"id\":\"{id}\",\"responder\":\"cb\",\"payload\":1}}");
            self.send(response).await;
        }
    }
}

/// Sends messages to a service.
struct Messages {
    socket: Socket,
    destination: String,
    payload: String,
}

impl Caller for Messages {
    async fn ask(&mut self, number: usize) {
        let message = json!({
            "type": "message", "id": number.to_string(), "destination": self.destination, "consumer": "caller",
            "responder": "cb", "payload": self.payload,
        });
        self.socket.send(message.to_string()).await;
    }

    async fn answered(&mut self) -> usize {
        let response = self.socket.until("response").await;
        field(&response, "id").parse().expect("a number")
    }
}

/// Round trips of messages to somebody who offers that: rate, median and 99th percentile in microseconds.
async fn messages(at: SocketAddr, service: &str, window: usize) -> [f64; 3] {
    let socket = Socket::open(at, "caller", &[]).await;
    measured(Messages { socket, destination: format!("{service}:get"), payload: "x".repeat(200) }, window).await
}

async fn round_trips(at: SocketAddr, window: usize) -> [f64; 3] {
    let service = format!("ws{window}");
    let serving = tokio::spawn(Socket::open(at, &service, &["get"]).await.serve());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let figures = messages(at, &service, window).await;
    serving.abort();
    figures
}

/// Messages to a Socket.IO provider, and requests of a Socket.IO caller to a service here.
async fn across(at: SocketAddr, window: usize) -> [[f64; 3]; 4] {
    use crate::doors::socketio::limits as socketio;
    let near = format!("near{window}");
    let far = format!("far{window}");
    let here = tokio::spawn(Socket::open(at, &near, &["get"]).await.serve());
    let there = tokio::spawn(socketio::Socket::open(at, &far, &[&far]).await.serve());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let figures = [
        messages(at, &near, window).await,
        messages(at, &far, window).await,
        socketio::requests(at, &far, window).await,
        socketio::requests(at, &near, window).await,
    ];
    here.abort();
    there.abort();
    figures
}

/// Deliveries per second of broadcasts to many services.
async fn broadcast(at: SocketAddr) -> f64 {
    const ROUNDS: usize = 200;
    let mut receivers = Vec::new();
    for n in 0..SOCKETS {
        receivers.push(Socket::open(at, &format!("r{n}"), &["x"]).await);
    }
    let mut sender = Socket::open(at, "sender", &[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // What came of others who registered is read first, so that only broadcasts are counted.
    for receiver in &mut receivers {
        while tokio::time::timeout(Duration::from_millis(1), receiver.0.next()).await.is_ok() {}
    }
    let counting: Vec<_> =
        receivers.into_iter().map(|receiver| tokio::spawn(count_frames(receiver.0.into_inner(), ROUNDS))).collect();
    let frame = json!({ "type": "broadcast", "id": "b", "payload": "x".repeat(200) }).to_string();
    let began = Instant::now();
    for _ in 0..ROUNDS {
        sender.send(frame.clone()).await;
    }
    for count in counting {
        count.await.expect("all broadcasts");
    }
    (ROUNDS * SOCKETS) as f64 / began.elapsed().as_secs_f64()
}

#[test]
#[ignore = "measures; wants a machine that does nothing else"]
fn round_trips_and_broadcasts_beside_node() {
    let keeps =
        |window, ours: [f64; 3], theirs: [f64; 3]| window != 64 || (ours[0] >= 1.5 * theirs[0] && ours[2] <= theirs[2]);
    beside_node("ws_relay.js", round_trips, broadcast, keeps);
}

#[test]
#[ignore = "measures; wants a machine that does nothing else"]
fn calls_across_doors_are_nearly_as_fast_as_within_one() {
    let node = Node::start(&Options::new());
    let mut failed = Vec::new();
    for window in [1, 64] {
        let rounds: Vec<[[f64; 3]; 4]> = (0..5).map(|_| run(across(node.web, window))).collect();
        let rate = |pair: usize| median(rounds.iter().map(|round| round[pair][0]).collect());
        let [within, out, within_other, back] = [rate(0), rate(1), rate(2), rate(3)];
        eprintln!(
            "| {window} in flight | websocket {within:.0}/s, socketio {within_other:.0}/s | websocket to socketio {out:.0}/s, back {back:.0}/s |"
        );
        // A call across has half of each door in it.
        let half = 2.0 / (1.0 / within + 1.0 / within_other);
        if out < 0.8 * half || back < 0.8 * half {
            failed.push(window);
        }
    }
    assert!(failed.is_empty(), "limits that are not kept: {failed:?} in flight");
}

/// KiB of memory that each of many idle consumers takes.
async fn idle(at: SocketAddr, pid: u32) -> f64 {
    const CONNECTIONS: usize = 5000;
    let open = async |count: usize| {
        let mut sockets = Vec::with_capacity(count);
        for _ in 0..count {
            sockets.push(Socket::open(at, "idle", &[]).await);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        sockets
    };
    drop(open(500).await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = resident(pid);
    let sockets = open(CONNECTIONS).await;
    let grown = resident(pid).saturating_sub(before);
    drop(sockets);
    grown as f64 / 1024.0 / CONNECTIONS as f64
}

#[test]
#[ignore = "measures; wants a machine that does nothing else"]
fn an_idle_client_takes_little_memory() {
    let theirs = {
        let relay = relay("ws_relay.js").expect("the client libraries");
        run(idle(relay.1, relay.pid()))
    };
    let ours = {
        let node = Node::start(&Options::new());
        run(idle(node.web, node.pid()))
    };
    eprintln!("| memory of one of 5000 idle clients | {ours:.1} KiB | {theirs:.1} KiB |");
    assert!(ours <= 10.0, "{ours:.1} KiB");
}
