//! Emitters, workers and consumers that go on when their node is killed: they connect to the next one.

use std::collections::{HashMap, VecDeque};
use std::io::Result;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prost::Message as _;
use rollbook::doors::nats::xbus::proto::envelope::{Envelope, EnvelopeAck, ReceptionStatus};
use rollbook::doors::nats::xbus::proto::job::JobStatus;
use rollbook::doors::nats::xbus::proto::nrpc::{self, ErrorType, Reply};
use rollbook::doors::nats::xbus::proto::process::EmitterEnvelopeState;
use rollbook_core::xbus::process::row::ProcessStatus;

use super::checker::Seen;
use crate::doors::nats::xbus::actor::{Job, envelope, event, fragments, inbox, output, state, text};
use crate::doors::nats::xbus::setup::Setup;
use crate::doors::nats::xbus::wire::{Delivery, Wire};
use crate::harness::ms;

/// Something that was not answered is sent again after this time.
const AGAIN: Duration = Duration::from_millis(1500);
/// The call by which an envelope is sent.
const OUTPUT: &str = "broker.output";
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
    /// Envelopes that were accepted or refused.
    pub(super) answered: AtomicU64,
    pub(super) seen: Mutex<Vec<Seen>>,
    pub(super) stop: AtomicBool,
    /// Workers that were refused what they sent, with the reason.
    pub(super) denied: Mutex<Vec<String>>,
}

impl Shared {
    fn note(&self, seen: Seen) {
        if let Seen::Accepted { .. } | Seen::Refused { .. } = &seen {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
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

/// What something is that was sent.
#[derive(Debug, Clone)]
enum What {
    /// A fragment of an envelope with this number; the others follow one by one.
    Fragment { number: u64, rest: VecDeque<Vec<u8>> },
    /// The envelope of a worker.
    Output(Job),
    /// The end of a job of a consumer that said that it will say so by itself.
    End,
}

/// Something that was sent and has no answer yet.
struct Sent {
    what: What,
    /// The envelope, or what else is meant.
    about: String,
    call: &'static str,
    payload: Vec<u8>,
    /// Whether it is sent again by the next connection.
    stays: bool,
    at: Instant,
}

/// A connection of a program.
struct Session<'a> {
    shared: &'a Shared,
    wire: Wire,
    actor: &'a str,
    inbox: String,
    /// The number of the next call.
    next: u64,
    /// By the subject of the answer.
    sent: HashMap<String, Sent>,
}

impl Program {
    /// Runs until the run ends.
    pub(super) fn run(&self, shared: &Shared) {
        // What has no answer may outlive its connection.
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
        let inbox = inbox(&shared.setup.account);
        wire.subscribe(&format!("{inbox}.*"), "answers");
        match self.kind {
            Kind::Emitter => wire.subscribe(&format!("xbus.default.processstate.{actor}.envelope.*"), "states"),
            Kind::Worker | Kind::Consumer => {
                wire.subscribe(&format!("xbus.default.actoragent.{actor}.>"), "jobs");
                wire.publish(&format!("xbus.default.sentinel.actorready.{actor}"), "", &[]);
            }
        }
        wire.flush()?;
        let again = std::mem::take(left).into_values().filter(|sent| sent.stays);
        let mut session = Session { shared, wire, actor, inbox, next: 0, sent: HashMap::new() };
        again.for_each(|sent| session.send(sent));
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

    /// Emits the next envelope, as long as there are some. Each fifth one has three fragments.
    fn emit_next(&mut self) -> bool {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.shared.count {
            return false;
        }
        let content = format!("number {number} {}", "x".repeat(100));
        let (mut whole, mut rest) = (envelope(vec![event("order.placed", &[&content])]), VecDeque::new());
        let about = text(&whole.id);
        if number.is_multiple_of(5) {
            let parts = fragments(&[&content, "more", "and more"]);
            whole = Envelope { id: whole.id.clone(), ..parts[0].clone() };
            let later = parts[1..].iter().map(|part| Envelope { id: whole.id.clone(), ..part.clone() });
            rest = later.map(|part| output(None, "default", part).encode_to_vec()).collect();
        }
        let (what, payload) = (What::Fragment { number, rest }, output(None, "default", whole).encode_to_vec());
        self.send(Sent { what, about, call: OUTPUT, payload, stays: true, at: Instant::now() });
        true
    }

    fn send(&mut self, sent: Sent) {
        // An answer that comes twice must not count for the next fragment.
        self.next += 1;
        let inbox = format!("{}.{}", self.inbox, self.next);
        self.wire.publish(&subject(sent.call, self.actor), &inbox, &sent.payload);
        self.sent.insert(inbox, Sent { at: Instant::now(), ..sent });
    }

    fn send_again(&mut self) {
        for (inbox, sent) in &mut self.sent {
            if sent.at.elapsed() >= AGAIN {
                sent.at = Instant::now();
                self.wire.publish(&subject(sent.call, self.actor), inbox, &sent.payload);
                if let What::Output(job) = &sent.what {
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

    /// The answer to a call.
    fn answered(&mut self, delivery: &Delivery) {
        let Some(sent) = self.sent.remove(&delivery.subject) else { return };
        let said = match Reply::read(&delivery.payload).expect("a reply") {
            Reply::Error(error) if error.error() == ErrorType::ServerTooBusy => {
                // Later again.
                self.sent.insert(delivery.subject.clone(), sent);
                return;
            }
            Reply::Error(error) => Err(error.message),
            Reply::Message(ack) => Ok(ack.to_vec()),
            other => Err(format!("{other:?}")),
        };
        if let What::End = sent.what {
            // One that is sent again may find that the job has ended.
            return;
        }
        let status = said.and_then(|ack| {
            let ack = EnvelopeAck::decode(&*ack).expect("an acknowledgement");
            if ack.status() == ReceptionStatus::Error { Err(ack.reason) } else { Ok(ack.status()) }
        });
        match (status, sent.what) {
            (Ok(ReceptionStatus::Accepted), What::Fragment { number, .. }) => {
                self.shared.note(Seen::Accepted { number, envelope: sent.about });
            }
            (Ok(_), What::Fragment { number, mut rest }) => match rest.pop_front() {
                Some(payload) => {
                    let what = What::Fragment { number, rest };
                    self.send(Sent { what, payload, about: sent.about, call: OUTPUT, stays: true, at: sent.at });
                }
                None => {
                    let text = "the last fragment is received, and the envelope not accepted".to_owned();
                    self.shared.note(Seen::Refused { number, text });
                }
            },
            (Err(text), What::Fragment { number, .. }) => self.shared.note(Seen::Refused { number, text }),
            (Ok(_), What::Output(job)) if !sent.stays => self.end(&job, JobStatus::Success, &[]),
            (Err(text), What::Output(job)) if !sent.stays => {
                self.end(&job, JobStatus::Error, &[&text]);
                self.shared.denied.lock().expect("notes").push(text);
            }
            // A job without a stream ends by its envelope; one that is sent again may find that the job has ended.
            (_, What::Output(_) | What::End) => {}
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

    /// A worker sends an envelope of its own. Each seventh one it sends without the stream of the job.
    fn pass(&mut self, job: &Job) {
        let stays = number(job).is_multiple_of(7);
        if stays {
            self.end(job, JobStatus::Running, &[]);
        }
        let whole = envelope(vec![event("order.taxed", &[&job.items()[0]])]);
        let (about, what) = (text(&whole.id), What::Output(job.clone()));
        let payload = output(Some(job), "default", whole).encode_to_vec();
        self.send(Sent { what, about, call: OUTPUT, payload, stays, at: Instant::now() });
    }

    /// A consumer is done. Each eleventh time it says so without the stream of the job.
    fn consume(&mut self, job: &Job) {
        // Noted before the answer: nobody may say done before this.
        self.shared.note(Seen::Consumed { number: number(job), process: job.process() });
        if !number(job).is_multiple_of(11) {
            self.end(job, JobStatus::Success, &[]);
            return;
        }
        self.end(job, JobStatus::Running, &[]);
        let payload = state(job, JobStatus::Success, &[]).encode_to_vec();
        let (about, call) = (job.process(), "director.processingend");
        self.send(Sent { what: What::End, about, call, payload, stays: true, at: Instant::now() });
    }

    fn end(&mut self, job: &Job, status: JobStatus, texts: &[&str]) {
        self.wire.publish(&job.inbox, "", &state(job, status, texts).encode_to_vec());
        self.wire.publish(&job.inbox, "", &nrpc::end_of_stream(1));
    }
}

/// The subject of a call of an actor.
fn subject(call: &str, actor: &str) -> String {
    match call.strip_suffix(".output") {
        Some(service) => format!("xbus.default.{service}.{actor}.output"),
        None => format!("xbus.default.{call}.{actor}"),
    }
}

/// The number in the envelope of a job.
fn number(job: &Job) -> u64 {
    let items = job.items();
    let number = items[0].split(' ').nth(1).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no number in {items:?}"))
}
