//! Emitters, workers and consumers that go on when their node is killed: they connect to the next one.

use std::collections::HashMap;
use std::io::Result;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prost::Message as _;
use rollbook::doors::nats::xbus::proto::envelope::{EnvelopeAck, ReceptionStatus};
use rollbook::doors::nats::xbus::proto::job::JobStatus;
use rollbook::doors::nats::xbus::proto::nrpc::{self, ErrorType, Reply};
use rollbook::doors::nats::xbus::proto::process::EmitterEnvelopeState;
use rollbook_core::xbus::process::row::ProcessStatus;

use super::checker::Seen;
use crate::doors::nats::xbus::actor::{Job, envelope, event, output, state, text};
use crate::doors::nats::xbus::setup::Setup;
use crate::doors::nats::xbus::wire::{Delivery, Wire};
use crate::harness::ms;

/// Something that was not answered is sent again after this time.
const AGAIN: Duration = Duration::from_millis(1500);
/// Envelopes of one emitter that have no answer yet.
const WINDOW: usize = 8;

/// What the programs of a run share.
pub(super) struct Shared {
    /// The doors, by the number of the node, from 0.
    pub(super) doors: Vec<SocketAddr>,
    pub(super) setup: Setup,
    /// How many envelopes are sent in all.
    pub(super) count: u64,
    /// The number of the next envelope.
    pub(super) next: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) seen: Mutex<Vec<Seen>>,
    pub(super) stop: AtomicBool,
    /// Workers that were refused what they sent, with the reason.
    pub(super) denied: Mutex<Vec<String>>,
}

impl Shared {
    fn note(&self, seen: Seen) {
        self.seen.lock().expect("notes").push(seen);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A program: the actor that it is, and the node to which it is connected.
pub(super) struct Program {
    pub(super) actor: &'static str,
    pub(super) kind: Kind,
    /// The node, from 0.
    pub(super) at: AtomicUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Emitter,
    Worker,
    Consumer,
}

/// Something that was sent and has no answer yet.
struct Sent {
    number: u64,
    payload: Vec<u8>,
    /// The id of the envelope, as text.
    envelope: String,
    /// Of a worker: its job.
    job: Option<Job>,
    at: Instant,
}

/// A connection of a program.
struct Session<'a> {
    shared: &'a Shared,
    wire: Wire,
    actor: &'a str,
    sent: HashMap<String, Sent>,
}

impl Program {
    /// Runs until the run ends.
    pub(super) fn run(&self, shared: &Shared) {
        // What an emitter has sent without an answer outlives its connection.
        let mut left = HashMap::new();
        while !shared.stopped() {
            let node = self.at.load(Ordering::Relaxed);
            if let Err(error) = self.connected(shared, shared.doors[node], &mut left) {
                drop(error);
                self.at.store((node + 1) % shared.doors.len(), Ordering::Relaxed);
                std::thread::sleep(ms(50));
            }
        }
    }

    fn connected(&self, shared: &Shared, door: SocketAddr, left: &mut HashMap<String, Sent>) -> Result<()> {
        let actor = shared.setup.actor(self.actor);
        let mut wire = Wire::connect(door)?;
        wire.subscribe(&format!("_INBOX.{}.in.*", shared.setup.account), "answers");
        match self.kind {
            Kind::Emitter => wire.subscribe(&format!("xbus.default.processstate.{actor}.envelope.*"), "states"),
            Kind::Worker | Kind::Consumer => {
                wire.subscribe(&format!("xbus.default.actoragent.{actor}.>"), "jobs");
                wire.publish(&format!("xbus.default.sentinel.actorready.{actor}"), "", &[]);
            }
        }
        wire.flush()?;
        // Jobs end with the connection, envelopes of emitters do not.
        let mut session = Session { shared, wire, actor, sent: std::mem::take(left) };
        session.sent.retain(|_, sent| sent.job.is_none());
        for sent in session.sent.values_mut() {
            sent.at = Instant::now() - AGAIN;
        }
        let ended = session.work(self.kind);
        *left = session.sent;
        ended
    }
}

impl Session<'_> {
    fn work(&mut self, kind: Kind) -> Result<()> {
        while !self.shared.stopped() {
            if kind == Kind::Emitter {
                while self.sent.len() < WINDOW && self.emit_next() {}
            }
            self.send_again();
            let mut delivery = self.wire.next(ms(100))?;
            while let Some(came) = delivery {
                self.take(&came, kind);
                delivery = self.wire.buffered()?;
            }
        }
        self.wire.flush()
    }

    /// Emits the next envelope, as long as there are some.
    fn emit_next(&mut self) -> bool {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.shared.count {
            return false;
        }
        let content = format!("number {number} {}", "x".repeat(100));
        let whole = envelope(vec![event("order.placed", &[&content])]);
        let id = text(&whole.id);
        self.send(number, id, None, output(None, "default", whole).encode_to_vec());
        true
    }

    fn send(&mut self, number: u64, envelope: String, job: Option<Job>, payload: Vec<u8>) {
        let inbox = format!("_INBOX.{}.in.{envelope}", self.shared.setup.account);
        self.wire.publish(&format!("xbus.default.broker.{}.output", self.actor), &inbox, &payload);
        self.sent.insert(inbox, Sent { number, payload, envelope, job, at: Instant::now() });
    }

    fn send_again(&mut self) {
        let subject = format!("xbus.default.broker.{}.output", self.actor);
        for (inbox, sent) in &mut self.sent {
            if sent.at.elapsed() >= AGAIN {
                sent.at = Instant::now();
                self.wire.publish(&subject, inbox, &sent.payload);
                if let Some(job) = &sent.job {
                    self.wire.publish(&job.inbox, "", &nrpc::KEEP_ALIVE);
                }
            }
        }
    }

    fn take(&mut self, delivery: &Delivery, kind: Kind) {
        match (&*delivery.sid, kind) {
            ("answers", _) => self.answered(delivery),
            ("states", _) => self.told(delivery),
            ("jobs", _) if !delivery.subject.ends_with(".process") => {}
            ("jobs", Kind::Worker) => self.pass(&Job::of(delivery)),
            ("jobs", Kind::Consumer) => self.consume(&Job::of(delivery)),
            _ => panic!("{delivery:?}"),
        }
    }

    /// The answer to a fragment.
    fn answered(&mut self, delivery: &Delivery) {
        let Some(sent) = self.sent.remove(&delivery.subject) else { return };
        let said = match Reply::read(&delivery.payload).expect("a reply") {
            Reply::Error(error) if error.error() == ErrorType::ServerTooBusy => {
                // Later again.
                self.sent.insert(delivery.subject.clone(), sent);
                return;
            }
            Reply::Error(error) => Err(error.message),
            Reply::Message(ack) => {
                let ack = EnvelopeAck::decode(ack).expect("an acknowledgement");
                if ack.status() == ReceptionStatus::Accepted { Ok(()) } else { Err(format!("{ack:?}")) }
            }
            other => Err(format!("{other:?}")),
        };
        match (said, &sent.job) {
            (Ok(()), None) => {
                self.shared.note(Seen::Accepted { number: sent.number, envelope: sent.envelope });
                self.shared.accepted.fetch_add(1, Ordering::Relaxed);
            }
            (Ok(()), Some(job)) => self.end(job, JobStatus::Success, &[]),
            (Err(text), None) => self.shared.note(Seen::Refused { number: sent.number, text }),
            (Err(text), Some(job)) => {
                self.shared.denied.lock().expect("notes").push(text.clone());
                self.end(job, JobStatus::Error, &[&text]);
            }
        }
    }

    /// What became of an envelope.
    fn told(&self, delivery: &Delivery) {
        let state = EmitterEnvelopeState::decode(&*delivery.payload).expect("a state");
        if state.status == i32::from(ProcessStatus::Done) {
            let envelope = delivery.subject.rsplit('.').next().unwrap_or_default().to_owned();
            self.shared.note(Seen::ToldDone { envelope });
        }
    }

    fn pass(&mut self, job: &Job) {
        let number = number(job);
        let whole = envelope(vec![event("order.taxed", &[&job.items()[0]])]);
        let id = text(&whole.id);
        let payload = output(Some(job), "default", whole).encode_to_vec();
        self.send(number, id, Some(job.clone()), payload);
    }

    fn consume(&mut self, job: &Job) {
        // Noted before the answer: nobody may say done before this.
        self.shared.note(Seen::Consumed { number: number(job), process: job.process() });
        self.end(job, JobStatus::Success, &[]);
    }

    fn end(&mut self, job: &Job, status: JobStatus, texts: &[&str]) {
        self.wire.publish(&job.inbox, "", &state(job, status, texts).encode_to_vec());
        self.wire.publish(&job.inbox, "", &nrpc::end_of_stream(1));
    }
}

/// The number in the envelope of a job.
fn number(job: &Job) -> u64 {
    let items = job.items();
    let number = items[0].split(' ').nth(1).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no number in {items:?}"))
}
