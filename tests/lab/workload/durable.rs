//! The durable consumer: acknowledges each event, and moves from host to host.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::harness::http::Http;
use crate::harness::node::target;
use crate::harness::{Rng, ms};
use crate::history::{Log, Op, Phase};
use crate::hosts;

use super::Scene;
use super::client::PATIENCE;
use super::tail::{Event, open};

/// So long that a node never sends again by itself: what comes twice came over a new connection.
const REDELIVERY: &str = "120s";

/// Consumes `work` until it is told to stop.
pub(super) fn run(scene: Scene, process: u32, stand: Arc<AtomicU64>, rng: &mut Rng) {
    let mut connection = 0;
    let mut host = 0;
    while scene.reading() {
        // A subscription is a write too.
        scene.writing();
        host = if rng.pick(0, 3) == 0 { host } else { scene.hosts.after(host) }.max(1);
        connection += 1;
        let events = rng.pick(1, 40);
        if consume(&scene, process, connection, host, events, &stand).is_none() {
            std::thread::sleep(ms(100));
        }
    }
}

/// One connection: so many events, the last of them not acknowledged. None when it broke before.
fn consume(scene: &Scene, process: u32, connection: u32, host: u8, events: u64, stand: &AtomicU64) -> Option<()> {
    let wanted = target(&[
        ("subject", "work.>"),
        ("start", "oldest"),
        ("ack", "manual"),
        ("consumer", "worker"),
        ("redelivery", REDELIVERY),
        ("redelivery_count", "1000"),
    ]);
    let subscribe = Op::Subscribe { log: Log::Work, connection, durable: true };
    let mut stream = open(scene, process, host, &subscribe, &wanted, &[])?;
    let consumer_id = stream.consumer_id();
    let mut left = events;
    while scene.reading() {
        let Some(frame) = stream.try_event(ms(100)) else {
            if stream.end.is_some() {
                return None;
            }
            continue;
        };
        let event = Event::of(&frame)?;
        scene.recorder.note(process, scene.hosts.node(host), Phase::Seen, event.delivered(Log::Work, connection));
        stand.fetch_max(event.index, Ordering::Relaxed);
        left -= 1;
        // An acknowledgement is a write too.
        scene.writing();
        if left == 0 {
            return Some(());
        }
        acknowledge(scene, process, connection, host, &event, &consumer_id)?;
    }
    Some(())
}

/// 202 alone proves nothing, because an event that is in flight nowhere gets it too. What was committed is seen
/// by what comes next on the stream and by what nodes tell of the consumer.
fn acknowledge(scene: &Scene, process: u32, connection: u32, host: u8, event: &Event, consumer_id: &str) -> Option<()> {
    let (node, ack) = (scene.hosts.node(host), Op::Ack { log: Log::Work, connection, index: event.index });
    scene.recorder.note(process, node, Phase::Invoke, ack.clone());
    let wanted = target(&[("consumer_id", consumer_id), ("event_id", &event.id)]);
    let answer = Http::connect_within(hosts::log(host), PATIENCE)
        .and_then(|mut http| http.try_request("PUT", &wanted, &[], b""));
    let accepted = answer.is_ok_and(|answer| answer.status == 202);
    scene.recorder.note(process, node, if accepted { Phase::Ok } else { Phase::Unknown }, ack);
    accepted.then_some(())
}
