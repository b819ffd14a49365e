//! A producer: numbered payloads, to each host in turn, one publish at a time.
//!
//! With keys it tries again what was refused or is unknown, at the next host and under the same key, so that
//! it is stored at most once. Without keys it never tries again.

use crate::harness::Rng;
use crate::history::{Log, Op, Phase, Publish};
use crate::hosts;

use super::client::{Answer, Ask, Client};
use super::{Pace, Scene, namespace};

/// Attempts of a producer with keys.
const ATTEMPTS: u32 = 4;
/// Largest batch.
const BATCH_MAX: u64 = 5;
/// Longest padding, bytes.
const PAD_MAX: u64 = 400;

/// What a producer publishes.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) log: Log,
    /// Each event has a key of its own.
    pub(super) keys: bool,
    /// Some publishes are of several events.
    pub(super) batches: bool,
    /// Publishes a second.
    pub(super) rate: u64,
}

/// One producer.
pub(super) struct Producer {
    scene: Scene,
    process: u32,
    style: Style,
    rng: Rng,
    client: Client,
    next: u64,
    host: u8,
}

impl Producer {
    pub(super) fn new(scene: Scene, process: u32, style: Style, rng: Rng) -> Self {
        let next = u64::from(process) << 32;
        // Not all at the same host at a time: one that hangs must not make all of them wait.
        let first = scene.hosts.inhabited()[usize::try_from(process).unwrap_or(0) % scene.hosts.inhabited().len()];
        Self { scene, process, style, rng, client: Client::default(), next, host: first }
    }

    pub(super) fn run(mut self) {
        let mut pace = Pace::new(self.style.rate);
        while self.scene.writing() {
            self.publish();
            pace.wait();
        }
    }

    fn publish(&mut self) {
        let Style { log, keys, batches, .. } = self.style;
        let count = if batches && self.rng.pick(0, 8) == 0 { self.rng.pick(2, BATCH_MAX + 1) } else { 1 };
        let body = self.body(count);
        let attempts = if keys { ATTEMPTS } else { 1 };
        for attempt in 1..=attempts {
            self.host = self.scene.hosts.after(self.host);
            let publish = Publish::new(log, self.next, count, attempt);
            let (phase, _) = publish_once(&self.scene, &mut self.client, self.process, self.host, publish, &body);
            if phase == Phase::Ok {
                break;
            }
        }
        self.next += count;
    }

    fn body(&mut self, count: u64) -> String {
        let events: Vec<String> = (self.next..self.next + count).map(|payload| self.event(payload)).collect();
        if count == 1 { events.concat() } else { format!("[{}]", events.join(",")) }
    }

    fn event(&mut self, payload: u64) -> String {
        let key = if self.style.keys { format!("\"key\":\"k{payload}\",") } else { String::new() };
        let pad = "x".repeat(usize::try_from(self.rng.pick(0, PAD_MAX)).unwrap_or(0));
        let subject = format!("{}.p{}", namespace(self.style.log), self.process);
        format!("{{{key}\"subject\":\"{subject}\",\"payload\":{{\"n\":{payload},\"pad\":\"{pad}\"}}}}")
    }
}

/// One attempt, with its two lines in the history; the index is that of a single event.
pub(super) fn publish_once(
    scene: &Scene,
    client: &mut Client,
    process: u32,
    host: u8,
    mut publish: Publish,
    body: &str,
) -> (Phase, Option<u64>) {
    let (recorder, node) = (&scene.recorder, scene.hosts.node(host));
    recorder.note(process, node, Phase::Invoke, Op::Publish(publish.clone()));
    let answer = client.ask(hosts::log(host), Ask { method: "POST", target: "/", body });
    let mut phase = answer.phase(202);
    match &answer {
        Answer::Said(answer) if phase == Phase::Ok && publish.count == 1 => {
            let published = answer.published();
            (publish.index, publish.id) = (u64::try_from(published.index).ok(), Some(published.id));
        }
        Answer::Said(answer) if answer.status != 202 => {
            publish.said = Some(format!("{} {}", answer.status, answer.text().trim()));
            // The key is known: an attempt before was stored.
            if answer.status == 409 && publish.attempt > 1 {
                phase = Phase::Ok;
            }
        }
        Answer::Said(_) | Answer::NotAsked | Answer::Lost => {}
    }
    let index = publish.index;
    recorder.note(process, node, phase, Op::Publish(publish));
    (phase, index)
}
