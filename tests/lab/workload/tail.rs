//! A consumer that follows a log from its oldest event on, over lost connections and on any host.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::Value;

use crate::harness::http::Response;
use crate::harness::sse::{Frame, Sse};
use crate::harness::{Rng, ms};
use crate::history::{Log, Op, Phase};
use crate::hosts;

use super::Scene;
use super::client::PATIENCE;

/// Pause before a lost stream is opened again.
const AGAIN: std::time::Duration = ms(100);
/// How long one look at a stream waits.
const LOOK: std::time::Duration = ms(100);

/// One consumer of `lab`.
pub(super) struct Tail {
    scene: Scene,
    process: u32,
    connection: u32,
    /// Id of the last event: where the next stream goes on.
    last: Option<String>,
    stand: Arc<AtomicU64>,
}

impl Tail {
    pub(super) fn new(scene: Scene, process: u32, stand: Arc<AtomicU64>) -> Self {
        Self { scene, process, connection: 0, last: None, stand }
    }

    /// Always at that host.
    pub(super) fn stay(mut self, host: u8) {
        while self.scene.reading() {
            self.follow(host, None);
            std::thread::sleep(AGAIN);
        }
    }

    /// Every second or so at another host.
    pub(super) fn roam(mut self, rng: &mut Rng) {
        let mut host = 0;
        while self.scene.reading() {
            host = self.scene.hosts.after(host);
            self.follow(host, Some(Instant::now() + ms(rng.pick(300, 1500))));
            std::thread::sleep(LOOK / 5);
        }
    }

    /// One stream, to its end or until then.
    fn follow(&mut self, host: u8, until: Option<Instant>) {
        let last = self.last.clone();
        // Both ways to resume, in turn: the header beats the query.
        let (start, header) = if self.connection.is_multiple_of(2) { (None, last) } else { (last, None) };
        let target = format!("/?subject=lab.%3E&start={}", start.as_deref().unwrap_or("oldest"));
        let headers: Vec<(&str, &str)> = header.iter().map(|last| ("Last-Event-ID", last.as_str())).collect();
        self.connection += 1;
        let subscribe = Op::Subscribe { log: Log::Lab, connection: self.connection, durable: false };
        let Some(mut stream) = open(&self.scene, self.process, host, &subscribe, &target, &headers) else { return };
        while self.scene.reading() && until.is_none_or(|until| Instant::now() < until) {
            match stream.try_event(LOOK) {
                Some(frame) => {
                    let Some(event) = Event::of(&frame) else { return };
                    let node = self.scene.hosts.node(host);
                    let op = event.delivered(Log::Lab, self.connection);
                    self.scene.recorder.note(self.process, node, Phase::Seen, op);
                    self.stand.fetch_max(event.index, Ordering::Relaxed);
                    self.last = Some(event.id);
                }
                None if stream.end.is_some() => return,
                None => {}
            }
        }
    }
}

/// Opens a stream, with its two lines in the history.
pub(super) fn open(
    scene: &Scene,
    process: u32,
    host: u8,
    subscribe: &Op,
    target: &str,
    headers: &[(&str, &str)],
) -> Option<Sse> {
    let node = scene.hosts.node(host);
    scene.recorder.note(process, node, Phase::Invoke, subscribe.clone());
    let opened = Sse::try_open(hosts::log(host), target, headers, PATIENCE);
    let good = |head: &Response| head.status == 200;
    let phase = match &opened {
        Ok(stream) if good(&stream.head) => Phase::Ok,
        Ok(_) => Phase::Fail,
        Err(_) => Phase::Unknown,
    };
    scene.recorder.note(process, node, phase, subscribe.clone());
    opened.ok().filter(|stream| good(&stream.head))
}

/// A stored event, as a stream tells it.
pub(super) struct Event {
    pub(super) index: u64,
    pub(super) id: String,
    /// The number that its producer gave it.
    pub(super) payload: u64,
    /// Of every byte.
    pub(super) sum: u64,
    pub(super) json: Value,
}

impl Event {
    /// None for the error with which a stream ends.
    pub(super) fn of(frame: &Frame) -> Option<Self> {
        if frame.kind.as_deref() != Some("msg") {
            return None;
        }
        let json = frame.json();
        let index = u64::try_from(frame.index()).unwrap_or_else(|_| panic!("index of {frame:?}"));
        let payload = json["payload"]["n"].as_u64().unwrap_or(0);
        let mut sum = DefaultHasher::new();
        frame.text().hash(&mut sum);
        Some(Self { index, id: frame.event_id(), payload, sum: sum.finish(), json })
    }

    pub(super) fn delivered(&self, log: Log, connection: u32) -> Op {
        Op::Deliver { log, connection, index: self.index, id: self.id.clone(), payload: self.payload }
    }
}
