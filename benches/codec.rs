//! Event records and log entries: encoded once on the way in, decoded on every way out.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use rollbook_core::entry::{Entry, EntryBuilder, FLAG_CREATE, Frame, begin_publish, finish_publish};
use rollbook_core::event::{Event, EventId};
use rollbook_core::time::Timestamp;

/// Frames of one entry under load: 64 connections, one publish each.
const FRAMES: usize = 64;
const PAYLOAD: [u8; 200] = [b'7'; 200];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    event(&mut criterion);
    entry(&mut criterion);
    id(&mut criterion);
    criterion.final_summary();
}

fn sample() -> Event<'static> {
    Event {
        subject: "app.orders.eu.4711.created",
        key: "4711-created",
        created_at: Timestamp { seconds: 1_700_000_000, nanos: 123_456_789 },
        payload: Some(&PAYLOAD),
        ..Event::default()
    }
}

fn record() -> Vec<u8> {
    let mut out = Vec::new();
    let encoded = sample().encode(&mut out);
    assert!(encoded.is_ok(), "a record that is within all limits");
    out
}

fn frame() -> Vec<u8> {
    let mut out = Vec::new();
    let begun = begin_publish(&mut out, "app");
    out.extend_from_slice(&record());
    let finished = finish_publish(&mut out, 0, FLAG_CREATE, 1);
    assert!(begun.is_ok() && finished.is_ok(), "a frame that is within all limits");
    out
}

fn size(bytes: &[u8]) -> Throughput {
    Throughput::Bytes(u64::try_from(bytes.len()).unwrap_or_default())
}

fn event(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event");
    let record = record();
    let mut out = Vec::with_capacity(1024);
    group.throughput(size(&record));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(sample()).encode(&mut out)
        });
    });
    group.bench_function("decode", |bencher| bencher.iter(|| Event::decode(black_box(&record))));
    group.bench_function("skip", |bencher| bencher.iter(|| Event::skip(black_box(&record))));
    group.finish();
}

fn entry(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("entry");
    let frame = frame();
    let build = || {
        let mut builder = EntryBuilder::new(FRAMES * frame.len());
        (0..FRAMES).for_each(|_| builder.push(black_box(&frame)));
        builder.finish(1)
    };
    let bytes = build();
    group.throughput(size(&bytes));
    group.bench_function("build", |bencher| bencher.iter(build));
    group.bench_function("parse", |bencher| bencher.iter(|| Entry::parse(black_box(&bytes)).map(count)));
    group
        .bench_function("parse_trusted", |bencher| bencher.iter(|| Entry::parse_trusted(black_box(&bytes)).map(count)));
    group.finish();
}

/// Every event of an entry, as a reader of the log walks them.
fn count(entry: Entry<'_>) -> usize {
    let mut events = 0;
    for frame in entry.frames() {
        let Frame::Publish(publish) = frame else { continue };
        let mut records = publish.records;
        while let Some((_, used)) = Event::decode(records) {
            events += 1;
            records = records.get(used..).unwrap_or_default();
        }
    }
    events
}

fn id(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event_id");
    let mut text = Vec::with_capacity(32);
    group.bench_function("write", |bencher| {
        bencher.iter(|| {
            text.clear();
            sample().write_id(black_box(4711), &mut text);
        });
    });
    let text = EventId::new(sample().created_at, 4711).to_string();
    group.bench_function("parse", |bencher| bencher.iter(|| EventId::parse(black_box(&text))));
    group.finish();
}
