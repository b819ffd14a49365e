//! Pipelined publishes: over one WebSocket many are on their way at a time, and keep their order.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::Scene;
use super::client::{PATIENCE, unknown};
use crate::harness::{Rng, ms};
use crate::history::{Log, Op, Phase, Publish};
use crate::hosts;

/// Most publishes without an answer that a node takes of one connection.
pub(crate) const UNANSWERED_MAX: usize = 990;
/// Of the pipeline that is always there: publishes at once, how often, and how many times on one connection.
const BURST: usize = 15;
const EVERY: Duration = ms(400);
const BURSTS: u64 = 12;
/// How long it waits for the last answers.
const LAST: Duration = Duration::from_secs(2);

/// What is on its way on a connection, by payload.
type Waiting = Arc<Mutex<BTreeMap<u64, Publish>>>;

/// One connection. What has no answer when it is dropped is unknown.
pub(crate) struct Pipe {
    scene: Scene,
    process: u32,
    node: u64,
    number: u32,
    tcp: TcpStream,
    writer: WebSocket<TcpStream>,
    waiting: Waiting,
    reader: Option<JoinHandle<()>>,
}

impl Pipe {
    /// Connects and registers as a consumer.
    pub(super) fn open(scene: &Scene, process: u32, host: u8) -> Option<Self> {
        let web = hosts::web(host);
        let tcp = TcpStream::connect_timeout(&web, PATIENCE).ok()?;
        tcp.set_nodelay(true).ok()?;
        tcp.set_read_timeout(Some(PATIENCE)).ok()?;
        tcp.set_write_timeout(Some(PATIENCE)).ok()?;
        let (mut socket, _) = tungstenite::client(format!("ws://{web}/ws"), tcp.try_clone().ok()?).ok()?;
        let number = u32::try_from(scene.number()).ok()?;
        let name = format!("pipe{number}");
        socket.send(Message::text(json!({ "name": name, "version": "1.0.0" }).to_string())).ok()?;
        while next(&mut socket)?["type"] != "registered" {}
        tcp.set_read_timeout(None).ok()?;
        let node = scene.hosts.node(host);
        let writer = WebSocket::from_raw_socket(tcp.try_clone().ok()?, Role::Client, None);
        let waiting = Waiting::default();
        let (own, shared) = (scene.clone(), Arc::clone(&waiting));
        let reader = std::thread::spawn(move || {
            while let Some(frame) = next(&mut socket) {
                answered(&own, process, node, &frame, &shared);
            }
        });
        let scene = scene.clone();
        Some(Self { scene, process, node, number, tcp, writer, waiting, reader: Some(reader) })
    }

    /// Publishes and does not wait; false when the connection does not take it.
    pub(crate) fn publish(&mut self, log: Log, pad: usize) -> bool {
        let payload = (u64::from(self.process) << 32) + self.scene.number();
        let publish = Publish { pipe: Some(self.number), ..Publish::new(log, payload, 1, 1) };
        let subject = format!("{}.p{}", super::namespace(log), self.process);
        let event = json!({
            "type": "publish", "id": payload.to_string(), "subject": subject,
            "payload": { "n": payload, "pad": "x".repeat(pad) },
        });
        // Noted before the answer can come.
        let mut waiting = lock(&self.waiting);
        self.scene.recorder.note(self.process, self.node, Phase::Invoke, Op::Publish(publish.clone()));
        waiting.insert(payload, publish);
        drop(waiting);
        self.writer.send(Message::text(event.to_string())).is_ok()
    }

    /// Publishes without an answer.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// Publishes until so many wait for their answers; false when the connection takes no more.
    pub(crate) fn fill(&mut self, log: Log, pad: usize, most: usize) -> bool {
        let missing = most.min(UNANSWERED_MAX).saturating_sub(self.waiting());
        (0..missing).all(|_| self.publish(log, pad))
    }

    /// Waits until everything is answered, the connection has ended or that time is over; whether it is answered.
    pub(crate) fn drain(&self, bound: Duration) -> bool {
        let deadline = Instant::now() + bound;
        let open = || self.reader.as_ref().is_some_and(|reader| !reader.is_finished());
        while self.waiting() > 0 && open() && Instant::now() < deadline {
            std::thread::sleep(ms(10));
        }
        self.waiting() == 0
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        drop(self.tcp.shutdown(Shutdown::Both));
        if self.reader.take().is_some_and(|reader| reader.join().is_err()) {
            eprintln!("the reader of a pipelined connection panicked");
        }
        for publish in std::mem::take(&mut *lock(&self.waiting)).into_values() {
            self.scene.recorder.note(self.process, self.node, Phase::Unknown, Op::Publish(publish));
        }
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, BTreeMap<u64, Publish>> {
    waiting.lock().expect("nobody panics with the publishes of a connection")
}

/// The next frame; none when the connection has ended.
fn next(socket: &mut WebSocket<TcpStream>) -> Option<Value> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => return serde_json::from_str(&text).ok(),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// The end of a publish, if that frame is one.
fn answered(scene: &Scene, process: u32, node: u64, frame: &Value, waiting: &Waiting) {
    let Some(payload) = frame["id"].as_str().and_then(|id| id.parse::<u64>().ok()) else { return };
    let mut waiting = lock(waiting);
    let Some(mut publish) = waiting.remove(&payload) else { return };
    let phase = if frame["type"] == "published" {
        (publish.index, publish.id) = (frame["index"].as_u64(), frame["event_id"].as_str().map(str::to_owned));
        Phase::Ok
    } else {
        let said =
            format!("{} {}", frame["code"].as_str().unwrap_or_default(), frame["message"].as_str().unwrap_or_default());
        let phase = if unknown(&said) { Phase::Unknown } else { Phase::Fail };
        publish.said = Some(said);
        phase
    };
    scene.recorder.note(process, node, phase, Op::Publish(publish));
}

/// A pipelined connection all the time, to each host in turn.
pub(super) fn run(scene: &Scene, process: u32, rng: &mut Rng) {
    let mut host = 0;
    while scene.writing() {
        host = scene.hosts.after(host);
        let Some(mut pipe) = Pipe::open(scene, process, host) else {
            std::thread::sleep(EVERY);
            continue;
        };
        for _ in 0..rng.pick(1, BURSTS) {
            let pad = usize::try_from(rng.pick(0, 400)).unwrap_or(0);
            // One that gets no answers, or does not take any more, is given up.
            if !scene.writing() || pipe.waiting() > BURST * 3 || !(0..BURST).all(|_| pipe.publish(Log::Lab, pad)) {
                break;
            }
            std::thread::sleep(EVERY);
        }
        pipe.drain(LAST);
    }
}
