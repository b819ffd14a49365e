//! Xbus: what each change does, and that a change that is refused changes nothing. `accounts` has accounts and actors,
//! `pipelines` their versions, `envelopes` fragments, `processes` whole ways of envelopes, `replay` those that go along again, `schemas` those of events, `cleaning` what becomes old,
//! `random` random changes on two replicas.

mod accounts;
mod cleaning;
mod envelopes;
mod pipelines;
mod processes;
mod random;
mod replay;
mod schemas;

use super::level::latest_replica;
use super::*;
use crate::xbus::account::register::{ActorRequest, Registration};
use crate::xbus::account::row::{ActorKind, ActorStatus};
use crate::xbus::change::{
    AccountAccept, ActorStatusSet, Change, Enable, FragmentReceived, Ids, PipelineSave, PipelineStatusSet,
    ProcessChange, ProcessesChange,
};
use crate::xbus::done::{FragmentDone, ProcessStep, Reception, XbusDone};
use crate::xbus::envelope::part::{EventView, Fragment, Part};
use crate::xbus::id::Id;
use crate::xbus::pipeline::document::{Document, NodeDocument};
use crate::xbus::pipeline::version::PipelineStatus;
use crate::xbus::process::event::{ActorConnection, Event as Happens, JobEnd, JobName, JobSend, ProcessEvent, Unit};

/// The account of the stories, its emitter, workers and consumer, and the version of the pipeline.
const SHOP: u8 = 1;
const EMITTER: u8 = 10;
const WORKER: u8 = 11;
const OTHER_WORKER: u8 = 12;
const CONSUMER: u8 = 13;
const PIPELINE: u8 = 50;
/// The life of the node to which actors are connected.
const LIFE: Owner = Owner { node: 1, incarnation: 1 };

fn id(number: u8) -> Vec<u8> {
    vec![number; 16]
}

fn uid(number: u8) -> Id {
    Id::new([number; 16])
}

/// A cluster on which time passes by 10 milliseconds with each change.
struct Story {
    replica: Replica,
    millis: u64,
    /// Counts the fragments that were stored in the book.
    stored: u32,
}

impl Story {
    /// An empty cluster of the newest level with one node.
    fn empty() -> Self {
        let mut replica = latest_replica();
        drop(replica.apply_one(node_up(LIFE.node, LIFE.incarnation)));
        Self { replica, millis: 1_000_000, stored: 0 }
    }

    /// A cluster with an account, its actors, and the active pipeline `e -> w -> c`.
    fn new() -> Self {
        let mut story = Self::empty();
        story.account();
        story.pipeline(PIPELINE, "orders", document());
        story
    }

    fn account(&mut self) {
        let actors = [
            actor(EMITTER, "emitter", ActorKind::Emitter, "e"),
            actor(WORKER, "worker", ActorKind::Worker, "w"),
            actor(OTHER_WORKER, "other worker", ActorKind::Worker, "w"),
            actor(CONSUMER, "consumer", ActorKind::Consumer, "c"),
        ];
        self.done(Change::Register(registration(SHOP, "shop", 1, &actors)));
        self.done(accept(SHOP, 1));
        for actor in actors {
            self.done(status(actor.id[0], ActorStatus::Enabled));
        }
    }

    fn pipeline(&mut self, number: u8, name: &str, document: Document) {
        self.done(Change::PipelineSave(save(number, name, "1", document)));
        self.done(activate(number, PipelineStatus::Active));
    }

    /// Makes a change, and checks that the rows say the same as the memory, and that a refused change did nothing.
    fn propose(&mut self, if_revision: Option<u64>, change: Change) -> Result<XbusDone, Refusal> {
        self.millis += 10;
        // The time of the log goes on with an entry of its own.
        self.replica.apply_at(self.millis, &[]);
        let before = (self.replica.machine.clone(), self.replica.memory.rows.clone());
        let frame = Command::xbus(if_revision, change).frame().unwrap();
        let reply = self.replica.apply_at(self.millis, &[frame]).pop().unwrap();
        if reply.is_err() {
            assert_eq!(self.replica.machine, before.0, "a refused change did something: {reply:?}");
            assert_eq!(self.replica.memory.rows, before.1, "a refused change wrote something: {reply:?}");
        }
        assert_eq!(self.replica.machine, self.replica.reloaded());
        match reply? {
            Done::Xbus(done) => Ok(*done),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn done(&mut self, change: Change) -> XbusDone {
        self.propose(None, change).unwrap()
    }

    /// Makes many changes in one entry, without the checks of [`Story::propose`].
    #[track_caller]
    fn all_done(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.millis += 10;
        let frames: Vec<_> = changes.into_iter().map(|change| Command::xbus(None, change).frame().unwrap()).collect();
        let replies = self.replica.apply_at(self.millis, &frames);
        assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    }

    #[track_caller]
    fn refused(&mut self, change: Change) -> String {
        self.propose(None, change).unwrap_err().to_string()
    }

    fn wait(&mut self, millis: u64) {
        self.millis += millis;
    }

    /// Stores the items of a fragment in the book; the id of the event.
    fn store(&mut self) -> String {
        self.stored += 1;
        let id = format!("f-{}", self.stored);
        let event = event_of("xbus.envelope", "", &id);
        self.millis += 10;
        let frame = publish("xbus", &[event], FLAG_INTERNAL);
        let reply = self.replica.apply_at(self.millis, &[frame]).pop().unwrap();
        assert!(matches!(reply, Ok(Done::Published { .. })), "{reply:?}");
        id
    }

    /// A fragment whose items are stored.
    fn fragment(&mut self, envelope: u8, from: &Sender, fragment: Fragment) -> Change {
        let event = self.store();
        fragment_of(envelope, from, fragment, event)
    }

    #[track_caller]
    fn sends(&mut self, envelope: u8, from: &Sender, fragment: Fragment) -> XbusDone {
        let change = self.fragment(envelope, from, fragment);
        self.done(change)
    }

    fn happens(&mut self, process: u8, event: Happens) -> Result<XbusDone, Refusal> {
        self.propose(None, happened(process, event))
    }

    /// Something happens that can; the step of the process.
    #[track_caller]
    fn goes(&mut self, process: u8, event: Happens) -> ProcessStep {
        self.happens(process, event).unwrap().steps.pop().unwrap()
    }

    /// The emitter sends a whole envelope, with which this process begins.
    #[track_caller]
    fn begins(&mut self, envelope: u8, process: u8) -> XbusDone {
        self.sends(envelope, &emitter(&[process]), whole("order"))
    }

    fn row(&self, kind: u8, parts: &[&[u8]]) -> Option<&Vec<u8>> {
        let mut key = rows::key(u32::MAX - 1, &[&[kind]]);
        parts.iter().for_each(|part| key.extend_from_slice(part));
        self.replica.memory.rows.get(&(Family::Ids, key))
    }

    /// How many rows there are of a kind.
    fn count(&self, kind: u8) -> usize {
        let prefix = rows::key(u32::MAX - 1, &[&[kind]]);
        let of = |(family, key): &&(Family, Vec<u8>)| *family == Family::Ids && key.starts_with(&prefix);
        self.replica.memory.rows.keys().filter(of).count()
    }
}

/// Who sends a fragment.
#[derive(Clone)]
struct Sender {
    actor: u8,
    output: &'static str,
    process: Vec<u8>,
    job: Option<JobName>,
    process_ids: Vec<Vec<u8>>,
}

/// The emitter, for whose envelope processes of these ids may begin.
fn emitter(processes: &[u8]) -> Sender {
    let process_ids = processes.iter().map(|number| id(*number)).collect();
    Sender { actor: EMITTER, output: "o", process: Vec::new(), job: None, process_ids }
}

/// A worker with its job of this process.
fn worker(actor: u8, process: u8) -> Sender {
    let job = Some(job("w", actor));
    Sender { actor, output: "o", process: id(process), job, process_ids: Vec::new() }
}

fn fragment_of(envelope: u8, from: &Sender, fragment: Fragment, event: String) -> Change {
    let Sender { actor, output, process, job, process_ids } = from.clone();
    Change::Fragment(FragmentReceived {
        envelope: id(envelope),
        actor: id(actor),
        output: output.into(),
        process,
        job,
        fragment,
        event,
        process_ids,
    })
}

/// Some items of an event of the type `event_type`; `count` is the number of all its items, 0: not known yet.
fn part(event: u8, event_type: &str, index: u64, items: &[&[u8]], count: u64) -> Part {
    let view = EventView {
        id: Some(uid(event)),
        event_type,
        index: Some(index),
        item_count: count,
        checksum: 0,
        items: items.iter().copied(),
    };
    Part::measure(view)
}

fn fragment(parts: Vec<Part>, last: bool) -> Fragment {
    Fragment { event_ids: Vec::new(), parts, last }
}

/// An envelope of one event in one fragment.
fn whole(event_type: &str) -> Fragment {
    fragment(vec![part(1, event_type, 1, &[b"item"], 1)], true)
}

fn actor(number: u8, name: &str, kind: ActorKind, role: &str) -> ActorRequest {
    let mut actor = ActorRequest { id: id(number), name: name.into(), roles: vec![role.into()], ..Default::default() };
    actor.set_kind(kind);
    actor
}

fn registration(number: u8, name: &str, key: u8, actors: &[ActorRequest]) -> Registration {
    let (csr, public_key, actors) = ("PEM".into(), vec![key; 32], actors.to_vec());
    Registration { id: id(number), name: name.into(), kind: 1, csr, public_key, authenticated: false, actors }
}

fn accept(number: u8, key: u8) -> Change {
    let (certificate, fingerprint) = (format!("CERT {key}"), format!("sha256:{key:02x}"));
    let (id, public_key, expires) = (id(number), vec![key; 32], u64::MAX);
    Change::AccountAccept(AccountAccept { id, public_key, certificate, fingerprint, expires })
}

fn enable(number: u8, enabled: bool) -> Change {
    Change::AccountEnable(Enable { id: id(number), enabled })
}

fn status(actor: u8, status: ActorStatus) -> Change {
    Change::ActorStatus(ActorStatusSet { id: id(actor), status: status.into(), config: Vec::new() })
}

/// A node whose role is its name.
fn node(name: &str, inputs: &[&str], outputs: &[&str]) -> NodeDocument {
    let texts = |list: &[&str]| Some(list.iter().map(ToString::to_string).collect());
    let node = NodeDocument { id: name.into(), roles: vec![name.into()], ..NodeDocument::default() };
    node.complete(None, texts(inputs), texts(outputs))
}

/// Emitter, worker, consumer, one behind the other.
fn document() -> Document {
    let nodes = vec![node("e", &[], &["o"]), node("w", &["i"], &["o"]), node("c", &["i"], &[])];
    Document { nodes, edges: vec!["e.o->w.i".into(), "w.o->c.i".into()] }
}

fn save(number: u8, name: &str, version: &str, document: Document) -> PipelineSave {
    PipelineSave { id: id(number), name: name.into(), version: version.into(), source: "text".into(), document }
}

fn activate(number: u8, status: PipelineStatus) -> Change {
    Change::PipelineStatus(PipelineStatusSet { id: id(number), status: status.into() })
}

fn job(node: &str, actor: u8) -> JobName {
    JobName { node: node.into(), actor: id(actor) }
}

fn send(node: &str, actor: u8) -> Happens {
    Happens::Send(JobSend { job: job(node, actor), owner: Some(LIFE) })
}

fn end(node: &str, actor: u8, success: bool) -> Happens {
    Happens::End(JobEnd { job: job(node, actor), success, messages: Vec::new() })
}

fn happened(process: u8, event: Happens) -> Change {
    Change::Process(ProcessChange { id: id(process), event: ProcessEvent { event: Some(event) } })
}

fn all_hear(processes: &[u8], event: Happens) -> Change {
    let ids = processes.iter().map(|number| id(*number)).collect();
    Change::Processes(ProcessesChange { ids, event: ProcessEvent { event: Some(event) } })
}

fn connection(actor: u8) -> ActorConnection {
    ActorConnection { actor: id(actor), owner: Some(LIFE) }
}

fn ids(numbers: &[u8]) -> Ids {
    Ids { ids: numbers.iter().map(|number| id(*number)).collect() }
}

fn reception(done: &XbusDone) -> (Reception, &str) {
    let FragmentDone { reason, .. } = done.fragment.as_ref().unwrap();
    (done.fragment.as_ref().unwrap().reception(), reason)
}
