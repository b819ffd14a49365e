//! Publishes that the nemesis asks for: is a node level again, thousands at once, one that must be refused.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::client::Client;
use super::pipe::Pipe;
use super::producer::publish_once;
use super::{PIPES, PROBES, Scene, namespace};
use crate::cluster;
use crate::harness::http::Response;
use crate::harness::ms;
use crate::history::{Log, Op, Phase, Publish};
use crate::hosts;

/// Between two attempts.
const AGAIN: Duration = ms(25);
/// Bound of a publish whose answer is looked at.
const LOOK: Duration = Duration::from_secs(15);

/// Clients that do what the nemesis wants.
#[derive(Clone)]
pub(crate) struct Crowd {
    scene: Scene,
}

/// How long a node took to accept a publish, and to have the first that any node accepted; none: not in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) host: u8,
    pub(crate) accepts: Option<Duration>,
    pub(crate) level: Option<Duration>,
}

impl Crowd {
    pub(super) const fn new(scene: Scene) -> Self {
        Self { scene }
    }

    /// Every host is asked for publishes until one is accepted, and whether it has the first that any accepted.
    pub(crate) fn probe(&self, hosts: &[u8], patience: Duration) -> Vec<Standing> {
        let began = Instant::now();
        let first = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let first = &first;
            let ask = |host: &u8| {
                let host = *host;
                let accepts = scope.spawn(move || {
                    let accepted = self.accepted(host, began, patience);
                    let index = accepted.map_or(0, |(_, index)| index);
                    // Whoever is first.
                    first.compare_exchange(0, index, Ordering::Relaxed, Ordering::Relaxed).ok();
                    accepted.map(|(took, _)| took)
                });
                let level = scope.spawn(move || level(host, first, began, patience));
                (host, accepts, level)
            };
            let threads: Vec<_> = hosts.iter().map(ask).collect();
            let told = threads.into_iter().map(|(host, accepts, level)| {
                let [accepts, level] = [accepts, level].map(|thread| thread.join().expect("the one who asks"));
                Standing { host, accepts, level }
            });
            told.collect()
        })
    }

    /// When the host accepted one, and at which index.
    fn accepted(&self, host: u8, began: Instant, patience: Duration) -> Option<(Duration, u64)> {
        let mut client = Client::default();
        while began.elapsed() < patience {
            if let (Phase::Ok, Some(index)) = self.publish(&mut client, Log::Lab, host) {
                return Some((began.elapsed(), index));
            }
            std::thread::sleep(AGAIN);
        }
        None
    }

    /// One publish without a key; the index if it was accepted.
    pub(super) fn publish(&self, client: &mut Client, log: Log, host: u8) -> (Phase, Option<u64>) {
        let process = PROBES + u32::from(host);
        let payload = (u64::from(process) << 32) + self.scene.number();
        let body = format!("{{\"subject\":\"{}.mark\",\"payload\":{{\"n\":{payload}}}}}", namespace(log));
        publish_once(&self.scene, client, process, host, Publish::new(log, payload, 1, 1), &body)
    }

    /// One publish of that size by a client that gives up after that time.
    pub(crate) fn publish_patiently(&self, host: u8, bytes: usize, patience: Duration) -> Phase {
        let process = PIPES + u32::from(host);
        let payload = (u64::from(process) << 32) + self.scene.number();
        let pad = "x".repeat(bytes);
        let body = format!("{{\"subject\":\"burst.patient\",\"payload\":{{\"n\":{payload},\"pad\":\"{pad}\"}}}}");
        let mut client = Client::patient(patience);
        publish_once(&self.scene, &mut client, process, host, Publish::new(Log::Burst, payload, 1, 1), &body).0
    }

    /// What a host answers to a publish into a namespace that nobody judges.
    pub(crate) fn answer(&self, host: u8, namespace: &str) -> Option<Response> {
        let body = format!("{{\"subject\":\"{namespace}.x\",\"payload\":1}}");
        let address: SocketAddr = hosts::log(host);
        let mut http = crate::harness::http::Http::connect_within(address, LOOK).ok()?;
        http.try_request("POST", "/", &[], body.as_bytes()).ok()
    }

    /// A new pipelined connection to a host.
    pub(crate) fn pipe(&self, host: u8) -> Option<Pipe> {
        Pipe::open(&self.scene, PIPES + u32::from(host), host)
    }

    /// Writes down what a node was seen to do.
    pub(crate) fn note(&self, host: u8, op: Op) {
        self.scene.recorder.note(crate::history::LAB, self.scene.hosts.node(host), Phase::Seen, op);
    }
}

/// When the host had that event of `lab`, which is none as long as it is 0.
fn level(host: u8, event: &AtomicU64, began: Instant, patience: Duration) -> Option<Duration> {
    while began.elapsed() < patience {
        let event = event.load(Ordering::Relaxed);
        let target = "/api/namespaces/lab?consistency=stale";
        let answer = (event > 0).then(|| cluster::ask(host, "GET", target, "").ok()).flatten();
        let answer = answer.filter(|answer| answer.status == 200);
        if answer.and_then(|answer| answer.json()["next_index"].as_u64()).is_some_and(|next| next > event) {
            return Some(began.elapsed());
        }
        std::thread::sleep(AGAIN);
    }
    None
}
