//! `Machine::apply`: what every node pays for every entry, on one thread.

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use rollbook_core::command::{Command, LevelRaise, NamespaceCreate};
use rollbook_core::entry::{Entry, EntryBuilder, FLAG_CREATE, FLAG_KEYED, begin_publish, finish_publish};
use rollbook_core::event::Event;
use rollbook_core::level::FeatureLevel;
use rollbook_core::machine::Machine;
use rollbook_core::namespace::Head;
use rollbook_core::rows::{Family, Row, Rows, RowsError, Writes};

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
