//! How fast it must be, beside Node's own socket.io server: both under the same clients, one after the other.
//!
//! `make cargo ARGS="test --release --test tests services::limits -- --ignored --nocapture --test-threads=1"`

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::cluster::Cluster;
use crate::harness::examples::clients;
use crate::harness::node::{Node, Options};

/// Rounds of each; the median counts.
const ROUNDS: usize = 5;
const SECONDS: u64 = 2;
/// Sockets of the broadcast.
pub(crate) const SOCKETS: usize = 1000;

pub(crate) struct Relay(Child, pub(crate) SocketAddr);

impl Relay {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts a server of `tests/clients`.
pub(crate) fn relay(script: &str) -> Option<Relay> {
    let clients = clients()?;
    let mut command = Command::new("node");
    command.arg(clients.script(script)).env("NODE_PATH", clients.modules()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("start node");
    let mut port = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut port).expect("its port");
    let port: u16 = port.trim().parse().expect("a number");
    Some(Relay(child, ([127, 0, 0, 1], port).into()))
}

/// Somebody who answers whatever is asked.
pub(crate) trait Provider {
    async fn serve(self);
}

/// A client over a WebSocket that has joined and registered.
pub(crate) struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    pub(crate) async fn open(at: SocketAddr, id: &str, capabilities: &[&str]) -> Self {
        let tcp = TcpStream::connect(at).await.expect("connect");
        tcp.set_nodelay(true).expect("no delay");
        let url = format!("ws://{at}/socket.io/?EIO=4&transport=websocket");
        let (ws, _) = tokio_tungstenite::client_async(url, tcp).await.expect("an upgrade");
        let mut socket = Self(ws);
        socket.text().await;
        socket.send("40".to_owned()).await;
        socket.until("40").await;
        socket.send(format!("420{}", json!(["bus:register", { "id": id, "capabilities": capabilities }]))).await;
        socket.until("430").await;
        socket
    }

    async fn send(&mut self, text: String) {
        self.0.send(Message::text(text)).await.expect("send");
    }

    async fn text(&mut self) -> String {
        loop {
            let message = self.0.next().await.expect("a message").expect("no error");
            let text = message.into_text().expect("text").to_string();
            if text == "2" {
                self.send("3".to_owned()).await;
                continue;
            }
            return text;
        }
    }

    async fn until(&mut self, start: &str) -> String {
        loop {
            let text = self.text().await;
            if text.starts_with(start) {
                return text;
            }
        }
    }
}

/// The text of a member in a packet or frame of any server.
pub(crate) fn field<'t>(text: &'t str, name: &str) -> &'t str {
    let (_, rest) = text.split_once(&format!("\"{name}\":\"")).unwrap_or_default();
    rest.split('"').next().unwrap_or_default()
}

impl Provider for Socket {
    async fn serve(mut self) {
        loop {
            let asked = self.until("42").await;
            if asked.contains("\"bus:request\"") {
                let id = field(&asked, "requestId").to_owned();
                self.send(format!("42[\"bus:response\",{{\"requestId\":\"{id}\",\"success\":true,\"data\":1}}]")).await;
            }
        }
    }
}

/// Round trips between two clients: rate, median and 99th percentile in microseconds.
async fn round_trips(caller_at: SocketAddr, provider_at: SocketAddr, window: usize) -> [f64; 3] {
    let name = format!("c{window}");
    let provider = Socket::open(provider_at, "provider", &[&name]).await;
    let serving = tokio::spawn(provider.serve());
    // Another node must have heard of the provider.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let figures = requests(caller_at, &name, window).await;
    serving.abort();
    figures
}

/// Somebody who asks, and is answered by number.
pub(crate) trait Caller {
    async fn ask(&mut self, number: usize);
    /// The number that the next answer is to.
    async fn answered(&mut self) -> usize;
}

/// Asks with so many in flight: rate, median and 99th percentile in microseconds.
pub(crate) async fn measured(mut caller: impl Caller, window: usize) -> [f64; 3] {
    let mut sent = Vec::with_capacity(1 << 20);
    let mut took = Vec::with_capacity(1 << 20);
    let began = Instant::now();
    for _ in 0..window {
        caller.ask(sent.len()).await;
        sent.push(Instant::now());
    }
    while began.elapsed() < Duration::from_secs(SECONDS) {
        let number = caller.answered().await;
        took.push(sent[number].elapsed().as_secs_f64() * 1e6);
        caller.ask(sent.len()).await;
        sent.push(Instant::now());
    }
    let rate = took.len() as f64 / began.elapsed().as_secs_f64();
    took.sort_by(f64::total_cmp);
    [rate, took[took.len() / 2], took[took.len() * 99 / 100]]
}

/// Asks a provider of that capability.
struct Requests {
    socket: Socket,
    capability: String,
    payload: String,
}

impl Caller for Requests {
    async fn ask(&mut self, number: usize) {
        let request = json!(["bus:request", {
            "requestId": number.to_string(), "capability": self.capability, "action": "get", "payload": self.payload,
        }]);
        self.socket.send(format!("42{request}")).await;
    }

    async fn answered(&mut self) -> usize {
        loop {
            let text = self.socket.until("42").await;
            if text.contains("\"bus:response\"") {
                assert!(text.contains("\"success\":true"), "{text}");
                return field(&text, "requestId").parse().expect("a number");
            }
        }
    }
}

/// The same to somebody who is there.
pub(crate) async fn requests(at: SocketAddr, capability: &str, window: usize) -> [f64; 3] {
    let socket = Socket::open(at, "caller", &[]).await;
    measured(Requests { socket, capability: capability.to_owned(), payload: "x".repeat(200) }, window).await
}

/// Reads until so many notifications have come. Frames are only told apart, so that the client costs little.
pub(crate) async fn count_frames(mut tcp: TcpStream, wanted: usize) {
    let mut bytes = Vec::with_capacity(64 << 10);
    let mut seen = 0;
    while seen < wanted {
        assert!(tcp.read_buf(&mut bytes).await.expect("no error") > 0, "the connection ended");
        let mut at = 0;
        // Text frames of 126 to 65535 bytes, as all notifications are; others are short.
        while let Some(header) = bytes.get(at..at + 4) {
            let length = match header[1] {
                126 => 4 + usize::from(u16::from_be_bytes([header[2], header[3]])),
                short => 2 + usize::from(short),
            };
            if bytes.len() < at + length {
                break;
            }
            seen += usize::from(header[1] == 126);
            at += length;
        }
        bytes.drain(..at);
    }
}

/// Deliveries per second of notifications to many sockets.
async fn broadcast(at: SocketAddr) -> f64 {
    let mut receivers = Vec::new();
    for n in 0..SOCKETS {
        receivers.push(Socket::open(at, &format!("r{n}"), &[]).await);
    }
    let mut sender = Socket::open(at, "sender", &[]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let data = "x".repeat(200);
    let rounds = 200;
    let counting: Vec<_> =
        receivers.into_iter().map(|receiver| tokio::spawn(count_frames(receiver.0.into_inner(), rounds))).collect();
    let began = Instant::now();
    let notify = format!("42{}", json!(["bus:notify", { "event": "tick", "data": data, "volatile": true }]))
        .replacen("42", "421", 1);
    let mut waiting = 0;
    for _ in 0..rounds {
        sender.send(notify.clone()).await;
        waiting += 1;
        if waiting == 4 {
            sender.until("431").await;
            waiting -= 1;
        }
    }
    for count in counting {
        count.await.expect("all notifications");
    }
    (rounds * SOCKETS) as f64 / began.elapsed().as_secs_f64()
}

/// Recorded notifications per second: all in the book before they are acknowledged.
async fn recorded(at: SocketAddr) -> f64 {
    const SENDERS: usize = 4;
    const EACH: usize = 10_000;
    const WINDOW: usize = 500;
    let mut senders = Vec::new();
    for n in 0..SENDERS {
        senders.push(Socket::open(at, &format!("n{n}"), &[]).await);
    }
    let notify = format!("421{}", json!(["bus:notify", { "event": "tick", "data": "x".repeat(200) }]));
    let began = Instant::now();
    let sending = senders.into_iter().map(|mut sender| {
        let notify = notify.clone();
        tokio::spawn(async move {
            for n in 0..EACH + WINDOW {
                if n < EACH {
                    sender.send(notify.clone()).await;
                }
                if n >= WINDOW {
                    let acked = sender.until("431").await;
                    assert!(acked.contains("\"success\":true"), "{acked}");
                }
            }
        })
    });
    for sent in sending.collect::<Vec<_>>() {
        sent.await.expect("all of them");
    }
    (SENDERS * EACH) as f64 / began.elapsed().as_secs_f64()
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

pub(crate) fn run<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

/// Runs both servers alternately and gives the medians of each figure.
pub(crate) fn compare<const N: usize>(
    mut ours: impl FnMut() -> [f64; N],
    mut theirs: impl FnMut() -> [f64; N],
) -> [[f64; N]; 2] {
    let rounds: Vec<[[f64; N]; 2]> = (0..ROUNDS).map(|_| [ours(), theirs()]).collect();
    [0, 1].map(|side| std::array::from_fn(|figure| median(rounds.iter().map(|round| round[side][figure]).collect())))
}

/// Prints a row of figures: what it is, ours, theirs, and how many times faster we are.
fn row(what: &str, ours: [f64; 3], theirs: [f64; 3]) {
    let cell = |[rate, median, last]: [f64; 3]| format!("{rate:.0}/s p50 {median:.0} p99 {last:.0} us");
    eprintln!("| {what} | {} | {} | {:.2} |", cell(ours), cell(theirs), ours[0] / theirs[0]);
}

/// Measures a node and a relay on Node, one after the other. `keeps` says of so many in flight whether the limit is kept;
/// broadcasts must be twice as fast.
pub(crate) fn beside_node(
    script: &str,
    round_trips: impl AsyncFn(SocketAddr, usize) -> [f64; 3],
    broadcast: impl AsyncFn(SocketAddr) -> f64,
    keeps: impl Fn(usize, [f64; 3], [f64; 3]) -> bool,
) {
    let relay = relay(script).expect("the client libraries");
    let node = Node::start(&Options::new());
    let mut failed = Vec::new();
    for window in [1, 64] {
        let [ours, theirs] = compare(|| run(round_trips(node.web, window)), || run(round_trips(relay.1, window)));
        let what = format!("round trips, {window} in flight");
        row(&what, ours, theirs);
        if !keeps(window, ours, theirs) {
            failed.push(what);
        }
    }
    let [[ours], [theirs]] = compare(|| [run(broadcast(node.web))], || [run(broadcast(relay.1))]);
    eprintln!("| broadcast to {SOCKETS} | {ours:.0}/s | {theirs:.0}/s | {:.2} |", ours / theirs);
    if ours < theirs * 2.0 {
        failed.push("broadcast".to_owned());
    }
    assert!(failed.is_empty(), "limits that are not kept: {failed:?}");
}

#[test]
#[ignore = "measures; wants a machine that does nothing else"]
fn round_trips_and_broadcasts_beside_node() {
    let round_trips = async |at, window| round_trips(at, at, window).await;
    let keeps = |_, ours: [f64; 3], theirs: [f64; 3]| ours[0] >= theirs[0] && ours[2] <= theirs[2];
    beside_node("relay.js", round_trips, broadcast, keeps);
}

#[test]
#[ignore = "measures; wants a machine that does nothing else"]
fn recorded_notifications_are_as_fast_as_publishes() {
    let node = Node::start(&Options::new());
    let rate = median((0..ROUNDS).map(|_| run(recorded(node.web))).collect());
    eprintln!("| recorded notifications, 4 senders with 500 in flight | {rate:.0}/s |");
}

#[test]
#[ignore = "measures; wants a machine that does nothing else"]
fn round_trips_across_nodes_take_less_than_twice_as_long() {
    let cluster = Cluster::start();
    let [near, far] = [cluster.node(1).web, cluster.node(2).web];
    let mut failed = Vec::new();
    for window in [1, 64] {
        let [one, two] = compare(|| run(round_trips(near, near, window)), || run(round_trips(near, far, window)));
        eprintln!(
            "| {window} in flight | one node {:.0}/s p50 {:.0} us | two nodes {:.0}/s p50 {:.0} us | {:.2} |",
            one[0],
            one[1],
            two[0],
            two[1],
            one[0] / two[0]
        );
        // By rate: a median of a few hundred microseconds says most of how deep the cores sleep.
        if one[0] >= 2.0 * two[0] {
            failed.push(window);
        }
    }
    assert!(failed.is_empty(), "limits that are not kept: {failed:?} in flight");
}
