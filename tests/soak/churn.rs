//! Clients that do everything that clients do, right and wrong, one operation after the other, each at any node that
//! runs.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::calls::{By, Caller, Service, WAYS};
use super::stream::{DOORS, Door, Said, Stream, Wanted};
use super::{At, BOUND, Known, hostile, told};
use crate::harness::cluster::Cluster;
use crate::harness::http::Http;
use crate::harness::{Rng, ms};

const NAMESPACE: &str = "soak";
const EVERYTHING: &str = "soak.>";
/// How many events the namespace keeps: what a replay from the oldest one costs.
const KEPT: u64 = 2000;
/// Time between two publishes.
const PACE: Duration = Duration::from_millis(20);
/// Longest time of a replay.
const REPLAY: Duration = Duration::from_secs(20);
/// How long a service waits for a request: its node may be known to the node of the caller only in a moment.
const ASKED: Duration = Duration::from_millis(300);
/// How often a client calls before it gives up.
const ATTEMPTS: usize = 20;

/// What a client does next.
#[derive(Clone, Copy, Debug)]
enum Operation {
    /// Joins a durable group, does some of its work, and leaves or is cut off.
    Member(Door),
    /// The same as a durable consumer, which takes over from whoever is that consumer now.
    Consumer(Door),
    /// Follows what comes.
    Newest(Door),
    /// Reads from the oldest event on, to the end or to somewhere in the middle.
    Replay(Door),
    /// A service comes, is called by a client of another node, and goes.
    Call(By),
    /// A service does not answer, and its caller leaves.
    Mute,
    /// Somebody listens to an inbox, and a message comes from another node.
    Inbox,
    WrongRequest,
    WrongFrame,
    /// Socket.IO by polling, left at some step.
    Polling,
}

const OPERATIONS: [Operation; 20] = [
    Operation::Member(Door::Sse),
    Operation::Member(Door::Plain),
    Operation::Member(Door::SocketIo),
    Operation::Consumer(Door::Sse),
    Operation::Consumer(Door::Plain),
    Operation::Consumer(Door::SocketIo),
    Operation::Newest(Door::Sse),
    Operation::Newest(Door::Plain),
    Operation::Newest(Door::SocketIo),
    Operation::Replay(Door::Sse),
    Operation::Replay(Door::Plain),
    Operation::Replay(Door::SocketIo),
    Operation::Call(By::Plain),
    Operation::Call(By::SocketIo),
    Operation::Call(By::Rest),
    Operation::Mute,
    Operation::Inbox,
    Operation::WrongRequest,
    Operation::WrongFrame,
    Operation::Polling,
];

/// Creates the namespace that all of it is about, with a bound.
pub(super) fn prepare(cluster: &Cluster) {
    let body = json!({ "name": NAMESPACE, "retention": { "max_events": KEPT } }).to_string();
    let created = cluster.node(1).web("POST", "/api/namespaces", &body);
    assert_eq!(created.status, 201, "{}", created.text());
}

/// How often an operation was done, how often it failed, and why the last time.
#[derive(Debug, Default)]
struct Count {
    done: u64,
    failed: u64,
    why: String,
}

/// What all clients share.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) stop: AtomicBool,
    /// Index of the newest event that was acknowledged.
    newest: AtomicI64,
    counts: Mutex<BTreeMap<String, Count>>,
}

impl Load {
    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn count(&self, name: String, done: Result<(), String>) {
        let mut counts = self.counts.lock().expect("the counts");
        let count = counts.entry(name).or_default();
        match done {
            Ok(()) => count.done += 1,
            Err(why) => {
                count.failed += 1;
                count.why = why;
            }
        }
    }

    /// How often each operation was done and how often it failed, as Markdown.
    pub(super) fn table(&self) -> String {
        let mut lines = vec!["| operation | done | failed | why, the last time |\n|---|---|---|---|".to_owned()];
        for (name, Count { done, failed, why }) in self.counts.lock().expect("the counts").iter() {
            let why: String = why.chars().take(120).collect();
            lines.push(format!("| {name} | {done} | {failed} | {} |", why.replace(['\n', '|'], " ")));
        }
        lines.join("\n")
    }

    /// Operations that failed each time: they have proved nothing.
    pub(super) fn never_done(&self) -> Vec<String> {
        let counts = self.counts.lock().expect("the counts");
        let never = counts.iter().filter(|(_, count)| count.done == 0);
        never.map(|(name, count)| format!("{name} was never done: {}", count.why)).collect()
    }
}

/// A client that is one after the other.
pub(super) struct Client<'a> {
    number: usize,
    rng: Rng,
    known: &'a Known,
    load: &'a Load,
}

impl<'a> Client<'a> {
    pub(super) const fn new(number: usize, rng: Rng, known: &'a Known, load: &'a Load) -> Self {
        Self { number, rng, known, load }
    }

    /// Does one operation after the other until the load ends. A node that is down is a failure like any other.
    pub(super) fn run(mut self) {
        while !self.load.stops() {
            let operation = OPERATIONS[self.below(OPERATIONS.len())];
            let done = self.operate(operation);
            self.load.count(format!("{operation:?}"), done);
            thread::sleep(ms(self.rng.pick(50, 450)));
        }
    }

    /// Publishes fifty times a second until the load ends.
    pub(super) fn publish(mut self) {
        let (mut http, mut next) = (None, Instant::now());
        for number in 0_u64.. {
            if self.load.stops() {
                return;
            }
            let done = self.publish_one(&mut http, number);
            self.load.count("Publish".to_owned(), done);
            next += PACE;
            thread::sleep(next.saturating_duration_since(Instant::now()));
            // What was not published while there was no leader is not made up for.
            next = next.max(Instant::now());
        }
    }

    /// Publishes over a connection that is kept for a while.
    fn publish_one(&mut self, http: &mut Option<Http>, number: u64) -> Result<(), String> {
        let kept = http.take().filter(|_| self.rng.pick(0, 50) > 0);
        let mut link = match kept {
            Some(link) => link,
            None => Http::connect_within(self.any().log, BOUND).map_err(told)?,
        };
        let pad = "x".repeat(self.below(1000));
        let subject = format!("{NAMESPACE}.{}", self.below(8));
        let body = json!({ "subject": subject, "payload": { "number": number, "pad": pad } }).to_string();
        let answer = link.try_request("POST", "/", &[], body.as_bytes()).map_err(told)?;
        if answer.status != 202 {
            return Err(format!("status {}: {}", answer.status, answer.text()));
        }
        let index = answer.header("x-bus-event-index").and_then(|index| index.parse().ok());
        self.load.newest.store(index.unwrap_or_default(), Ordering::Relaxed);
        *http = Some(link);
        Ok(())
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.rng.pick(0, count as u64)).unwrap_or_default()
    }

    /// One of two.
    fn perhaps(&mut self) -> bool {
        self.rng.pick(0, 2) == 0
    }

    /// A node that runs.
    fn any(&mut self) -> At {
        self.two().0
    }

    /// Two different nodes that run: of three, one is down at most.
    fn two(&mut self) -> (At, At) {
        let nodes = self.known.all();
        let one = self.below(nodes.len());
        let other = (one + 1 + self.below(nodes.len() - 1)) % nodes.len();
        (nodes[one], nodes[other])
    }

    fn operate(&mut self, operation: Operation) -> Result<(), String> {
        let (here, there) = self.two();
        match operation {
            Operation::Member(door) => self.join(door, here, true),
            Operation::Consumer(door) => self.join(door, here, false),
            Operation::Newest(door) => {
                let subject = format!("{NAMESPACE}.{}", self.below(8));
                self.read(Stream::open(door, here, &Wanted::of(&subject))?, false)
            }
            Operation::Replay(door) => self.replay(door, here),
            Operation::Call(by) => self.call(by, here, there),
            Operation::Mute => self.leave_a_call(here, there),
            Operation::Inbox => self.listen(here, there),
            Operation::WrongRequest => hostile::request(&mut self.rng, here),
            Operation::WrongFrame => hostile::frame(&mut self.rng, here),
            Operation::Polling => hostile::polling(&mut self.rng, here, there),
        }
    }

    /// Is a member of a group, or a consumer, of a few that there are.
    fn join(&mut self, door: Door, at: At, group: bool) -> Result<(), String> {
        let (manual, kind) = (self.perhaps(), if group { "group" } else { "consumer" });
        // The members of a group all acknowledge, or none of them does.
        let name = format!("{kind}-{}-{}", if manual { "acks" } else { "takes" }, self.below(3));
        let wanted = Wanted { manual, ..Wanted::of(EVERYTHING) };
        let wanted =
            if group { Wanted { group: Some(name), ..wanted } } else { Wanted { consumer: Some(name), ..wanted } };
        self.read(Stream::open(door, at, &wanted)?, manual)
    }

    /// Reads some events, acknowledges most of them, and leaves with a word or without one.
    fn read(&mut self, mut stream: Stream, manual: bool) -> Result<(), String> {
        for _ in 0..self.below(20) {
            match stream.next(ms(500)) {
                Said::Event(event) if manual => {
                    if self.rng.pick(0, 8) == 0 {
                        break;
                    }
                    stream.ack(&event.id)?;
                }
                Said::Event(_) => {}
                Said::Nothing => break,
                Said::Ended(why) => return Err(why),
            }
        }
        if self.perhaps() { stream.leave() } else { Ok(()) }
    }

    fn replay(&mut self, door: Door, at: At) -> Result<(), String> {
        let end = self.load.newest.load(Ordering::Relaxed);
        let most = if self.perhaps() { usize::MAX } else { self.below(500) };
        let mut stream = Stream::open(door, at, &Wanted { start: "oldest", ..Wanted::of(EVERYTHING) })?;
        let began = Instant::now();
        for _ in 0..most {
            match stream.next(BOUND) {
                Said::Event(event) if event.index >= end => break,
                Said::Event(_) if began.elapsed() < REPLAY => {}
                Said::Event(_) => return Err(format!("not at the end after {REPLAY:?}")),
                Said::Nothing => return Err("a replay that stands still".to_owned()),
                Said::Ended(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// A service of any door, under a name that only this client uses.
    fn service(&mut self, at: At) -> Result<(Service, String), String> {
        let name = format!("soak-{}", self.number);
        let open = if self.perhaps() { Service::plain } else { Service::socket_io };
        Ok((open(at, &name)?, name))
    }

    fn call(&mut self, by: By, here: At, there: At) -> Result<(), String> {
        let (mut service, name) = self.service(here)?;
        let mut caller = Caller::connect(by, there)?;
        let mut wanted = 1 + self.below(4);
        for _ in 0..ATTEMPTS {
            caller.call(&name, 5000)?;
            let Some(id) = service.asked(ASKED)? else { continue };
            service.answer(&id)?;
            caller.answered()?;
            wanted -= 1;
            if wanted == 0 {
                return Ok(());
            }
        }
        Err(format!("the service was not asked in {ATTEMPTS} attempts"))
    }

    fn leave_a_call(&mut self, here: At, there: At) -> Result<(), String> {
        let (mut service, name) = self.service(here)?;
        let mut caller = Caller::connect(WAYS[self.below(WAYS.len())], there)?;
        for _ in 0..ATTEMPTS {
            caller.call(&name, 60_000)?;
            if service.asked(ASKED)?.is_none() {
                continue;
            }
            // Sometimes it is the service that goes first.
            if self.perhaps() {
                drop(service);
            } else {
                drop(caller);
            }
            thread::sleep(ms(self.rng.pick(0, 200)));
            return Ok(());
        }
        Err(format!("the service was not asked in {ATTEMPTS} attempts"))
    }

    fn listen(&mut self, here: At, there: At) -> Result<(), String> {
        let inbox = format!("_bus_.soak-{}", self.number);
        let mut stream = Stream::open(DOORS[self.below(DOORS.len())], here, &Wanted::of(&inbox))?;
        let mut http = Http::connect_within(there.log, BOUND).map_err(told)?;
        let body = json!({ "subject": inbox, "payload": 1 }).to_string();
        for _ in 0..ATTEMPTS {
            let answer = http.try_request("POST", "/", &[], body.as_bytes()).map_err(told)?;
            if answer.status != 202 {
                return Err(format!("status {}: {}", answer.status, answer.text()));
            }
            match stream.next(ASKED) {
                Said::Event(_) => return Ok(()),
                Said::Nothing => {}
                Said::Ended(why) => return Err(why),
            }
        }
        Err(format!("no message came in {ATTEMPTS} attempts"))
    }
}
