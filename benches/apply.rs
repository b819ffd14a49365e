//! `Machine::apply`: what every node pays for every entry, on one thread.

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use rollbook_core::command::{Command, LevelRaise, NamespaceCreate, NodeUp};
use rollbook_core::entry::{
    Entry, EntryBuilder, FLAG_CREATE, FLAG_INTERNAL, FLAG_KEYED, begin_publish, finish_publish,
};
use rollbook_core::event::Event;
use rollbook_core::level::FeatureLevel;
use rollbook_core::machine::Machine;
use rollbook_core::namespace::Head;
use rollbook_core::node::Owner;
use rollbook_core::rows::{Family, Row, Rows, RowsError, Writes};
use rollbook_core::xbus::account::register::{ActorRequest, Registration};
use rollbook_core::xbus::account::row::{ActorKind, ActorStatus};
use rollbook_core::xbus::change::{
    AccountAccept, ActorStatusSet, Change, FragmentReceived, PipelineSave, PipelineStatusSet, ProcessChange,
};
use rollbook_core::xbus::envelope::part::{EventView, Fragment, Part};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::pipeline::document::{Document, NodeDocument};
use rollbook_core::xbus::pipeline::version::PipelineStatus;
use rollbook_core::xbus::process::event::{Event as Happens, JobEnd, JobName, JobSend, ProcessEvent};

/// Frames of one entry under load: 64 connections, one publish each.
const FRAMES: u64 = 64;
/// Namespaces beside the one that is published to, in the case with many.
const NAMESPACES: usize = 9_000;
/// Subjects that the keys are spread over.
const SUBJECTS: u64 = 16;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(FRAMES));
    for (name, keyed) in [("plain", false), ("keyed", true)] {
        let mut node = Node::newest();
        let mut serial = 0;
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    serial += FRAMES;
                    entry(serial, keyed)
                },
                |bytes| node.apply(black_box(&bytes)),
                BatchSize::SmallInput,
            );
        });
        group.bench_function(format!("{name}_one_batch_of_1000"), |bencher| {
            bencher.iter_batched(
                || {
                    serial += 1000;
                    batch(serial, keyed)
                },
                |bytes| node.apply(black_box(&bytes)),
                BatchSize::SmallInput,
            );
        });
    }
    let mut node = Node::newest();
    for namespace in 0..NAMESPACES {
        node.create(&format!("n{namespace}"));
    }
    let mut serial = 0;
    group.bench_function(format!("plain_among_{NAMESPACES}_namespaces"), |bencher| {
        bencher.iter_batched(
            || {
                serial += FRAMES;
                entry(serial, false)
            },
            |bytes| node.apply(black_box(&bytes)),
            BatchSize::SmallInput,
        );
    });
    let mut node = Node::newest();
    assert_eq!(node.apply(&xbus_beginning()), 8, "actors and pipeline are there");
    let mut serial = 0;
    group.bench_function("xbus_processes", |bencher| {
        bencher.iter_batched(
            || {
                serial += FRAMES;
                xbus_processes(serial)
            },
            |entries| entries.iter().map(|bytes| node.apply(black_box(bytes))).sum::<usize>(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
    criterion.final_summary();
}

/// Rows in memory. Index rows are dropped: applying never reads them, and they would grow without end.
#[derive(Default)]
struct Memory(HashMap<(Family, Vec<u8>), Vec<u8>>);

impl Rows for Memory {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        Ok(self.0.get(&(family, key.to_vec())).cloned())
    }

    fn scan(&self, _family: Family, _from: &[u8], _to: &[u8], _limit: usize) -> Result<Vec<Row>, RowsError> {
        Ok(Vec::new())
    }

    fn event_id(&self, _head: &Head, _sequence: u64) -> Result<Option<String>, RowsError> {
        Ok(None)
    }
}

#[derive(Default)]
struct Node {
    machine: Machine,
    /// What readers see: a snapshot of the machine behind each entry.
    published: Machine,
    memory: Memory,
    index: u64,
}

impl Node {
    /// A node that follows the newest rules.
    fn newest() -> Self {
        let mut node = Self::default();
        let mut builder = EntryBuilder::new(0);
        let raise = Command::LevelRaise(LevelRaise { level: FeatureLevel::LATEST.get() }).frame();
        builder.push(&raise.unwrap_or_default());
        assert_eq!(node.apply(&builder.finish(0)), 1, "the level is raised");
        node
    }

    fn create(&mut self, name: &str) {
        let create = NamespaceCreate { name: name.to_owned(), ..NamespaceCreate::default() };
        let mut builder = EntryBuilder::new(0);
        builder.push(&Command::NamespaceCreate(create).frame().unwrap_or_default());
        assert_eq!(self.apply(&builder.finish(0)), 1, "the namespace is created");
    }

    /// Applies and commits; how many frames were accepted.
    fn apply(&mut self, bytes: &[u8]) -> usize {
        let Ok(entry) = Entry::parse_trusted(bytes) else { return 0 };
        self.index += 1;
        let mut writes = Writes::default();
        let replies = self.machine.apply(self.index, &entry, &self.memory, &mut writes).unwrap_or_default();
        for (family, key, value) in writes.rows().filter(|(family, ..)| *family != Family::Index) {
            match value {
                Some(value) => drop(self.memory.0.insert((family, key.to_vec()), value.to_vec())),
                None => drop(self.memory.0.remove(&(family, key.to_vec()))),
            }
        }
        self.published = self.machine.clone();
        let accepted = replies.iter().filter(|reply| reply.is_ok()).count();
        assert_eq!(accepted, replies.len(), "the benchmark measures accepted publishes");
        accepted
    }
}

fn frame(serials: std::ops::Range<u64>, keyed: bool) -> Vec<u8> {
    let (mut out, mut events) = (Vec::new(), 0);
    let mut ok = begin_publish(&mut out, "app").is_ok();
    for serial in serials {
        let subject = format!("app.orders.{}", serial % SUBJECTS);
        let key = if keyed { format!("order-{serial}") } else { String::new() };
        let event = Event { subject: &subject, key: &key, payload: Some(&[b'7'; 200]), ..Event::default() };
        ok &= event.encode(&mut out).is_ok();
        events += 1;
    }
    let flags = if keyed { FLAG_CREATE | FLAG_KEYED } else { FLAG_CREATE };
    ok &= finish_publish(&mut out, 0, flags, events).is_ok();
    assert!(ok, "the frames of the benchmark are within all limits");
    out
}

fn entry(first: u64, keyed: bool) -> Vec<u8> {
    let mut builder = EntryBuilder::new(0);
    (first..first + FRAMES).for_each(|serial| builder.push(&frame(serial..serial + 1, keyed)));
    builder.finish(first)
}

fn batch(first: u64, keyed: bool) -> Vec<u8> {
    let mut builder = EntryBuilder::new(0);
    builder.push(&frame(first..first + 1000, keyed));
    builder.finish(first)
}

/// The first of the 16 bytes of ids says what has the id.
fn id(kind: u8, serial: u64) -> Vec<u8> {
    let mut id = vec![kind; 16];
    id.splice(8.., serial.to_be_bytes());
    id
}

const LIFE: Owner = Owner { node: 1, incarnation: 1 };

fn of_commands(commands: Vec<Command>) -> Vec<u8> {
    let mut builder = EntryBuilder::new(0);
    commands.into_iter().for_each(|command| builder.push(&command.frame().unwrap_or_default()));
    builder.finish(1)
}

/// An account with an emitter, a worker and a consumer, and the pipeline from one to the next.
fn xbus_beginning() -> Vec<u8> {
    let actors = [(1, "e", ActorKind::Emitter), (2, "w", ActorKind::Worker), (3, "c", ActorKind::Consumer)];
    let actors = actors.map(|(number, name, kind)| {
        let (id, name, roles) = (id(0xa, number), name.to_owned(), vec![name.to_owned()]);
        ActorRequest { id, name, kind: kind.into(), roles, config: Vec::new() }
    });
    let enable = |actor: &ActorRequest| {
        let status = ActorStatusSet { id: actor.id.clone(), status: ActorStatus::Enabled.into(), config: Vec::new() };
        Change::ActorStatus(status)
    };
    let mut changes: Vec<Change> = actors.iter().map(enable).collect();
    let (name, csr, key) = ("shop".to_owned(), "PEM".to_owned(), vec![1; 32]);
    let register = Registration {
        id: id(1, 1),
        name,
        kind: 1,
        csr,
        public_key: key.clone(),
        authenticated: false,
        actors: actors.to_vec(),
    };
    let (certificate, fingerprint) = ("CERT".to_owned(), "sha256:01".to_owned());
    let accept = AccountAccept { id: id(1, 1), public_key: key, certificate, fingerprint, expires: u64::MAX };
    changes.splice(..0, [Change::Register(register), Change::AccountAccept(accept)]);
    let node = |name: &str, inputs: &[&str], outputs: &[&str]| {
        let texts = |list: &[&str]| Some(list.iter().map(ToString::to_string).collect());
        let node = NodeDocument { id: name.to_owned(), roles: vec![name.to_owned()], ..NodeDocument::default() };
        node.complete(None, texts(inputs), texts(outputs))
    };
    let nodes = vec![node("e", &[], &["o"]), node("w", &["i"], &["o"]), node("c", &["i"], &[])];
    let document = Document { nodes, edges: vec!["e.o->w.i".to_owned(), "w.o->c.i".to_owned()] };
    let (name, version, source) = ("orders".to_owned(), "1".to_owned(), "text".to_owned());
    changes.push(Change::PipelineSave(PipelineSave { id: id(5, 1), name, version, source, document }));
    changes.push(Change::PipelineStatus(PipelineStatusSet { id: id(5, 1), status: PipelineStatus::Active.into() }));
    let up = NodeUp { id: LIFE.node, incarnation: LIFE.incarnation, address: "h1:1".to_owned() };
    let changes = changes.into_iter().map(|change| Command::xbus(None, change));
    of_commands([Command::NodeUp(up)].into_iter().chain(changes).collect())
}

/// A publish of the items of a fragment, and the fragment: an envelope of one event of 1 KiB.
fn xbus_fragment(serial: u64, worker: bool) -> [Vec<u8>; 2] {
    let (kind, actor) = if worker { (0xb, 2) } else { (0xe, 1) };
    let event = format!("f{kind}-{serial}");
    let mut frame = Vec::new();
    let mut ok = begin_publish(&mut frame, "xbus").is_ok();
    let item = [b'7'; 1024];
    let stored = Event { subject: "xbus.envelope", id: &event, payload: Some(&item), ..Event::default() };
    ok &= stored.encode(&mut frame).is_ok();
    ok &= finish_publish(&mut frame, 0, FLAG_INTERNAL | FLAG_KEYED, 1).is_ok();
    assert!(ok, "the frames of the benchmark are within all limits");
    let of_event = Id::from_slice(&id(7, serial)).unwrap_or_default();
    let (id_of_event, items) = (Some(of_event), [item.as_slice()]);
    let view = EventView { id: id_of_event, event_type: "order", index: Some(1), item_count: 1, checksum: 0, items };
    let fragment = Fragment { event_ids: Vec::new(), parts: vec![Part::measure(view)], last: true };
    let job = worker.then(|| JobName { node: "w".to_owned(), actor: id(0xa, 2) });
    let received = FragmentReceived {
        envelope: id(kind, serial),
        actor: id(0xa, actor),
        output: "o".to_owned(),
        process: id(0xd, serial),
        job,
        fragment,
        event,
        process_ids: (0..4).map(|more| id(0xd + more, serial)).collect(),
    };
    [frame, Command::xbus(None, Change::Fragment(received)).frame().unwrap_or_default()]
}

/// The entries with which [`FRAMES`] processes go from emitter to worker to consumer, one step of all in each entry.
fn xbus_processes(first: u64) -> Vec<Vec<u8>> {
    let all = first..first + FRAMES;
    let happens = |event: fn() -> Happens| {
        let change = |serial| {
            let event = ProcessEvent { event: Some(event()) };
            Command::xbus(None, Change::Process(ProcessChange { id: id(0xd, serial), event }))
        };
        of_commands(all.clone().map(change).collect())
    };
    let fragments = |worker: bool| {
        let mut builder = EntryBuilder::new(0);
        all.clone().flat_map(|serial| xbus_fragment(serial, worker)).for_each(|frame| builder.push(&frame));
        builder.finish(1)
    };
    vec![
        fragments(false),
        happens(|| sent("w", 2)),
        fragments(true),
        happens(|| sent("c", 3)),
        happens(|| {
            let job = JobName { node: "c".to_owned(), actor: id(0xa, 3) };
            Happens::End(JobEnd { job, success: true, messages: Vec::new() })
        }),
    ]
}

fn sent(node: &str, actor: u64) -> Happens {
    let job = JobName { node: node.to_owned(), actor: id(0xa, actor) };
    Happens::Send(JobSend { job, owner: Some(LIFE) })
}
