//! The interest index: finding the subscriptions of a subject must not cost more when there are more of them.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use rollbook::bus::live::filter::{LiveFilter, LiveSubject};
use rollbook::bus::live::message::{Delivered, LiveMessage, LiveSink};
use rollbook::bus::live::route::Wakes;
use rollbook::bus::live::subjects::{LiveSubjects, LiveSubscription, OwnRoutes};
use rollbook_core::subjects::interest::Interest;
use rollbook_core::subjects::pattern::Pattern;

const SIZES: [u64; 3] = [10, 1_000, 100_000];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    find(&mut criterion);
    come_and_go(&mut criterion);
    live(&mut criterion);
    criterion.final_summary();
}

/// Subscriptions as services have them: most to one thing, some to a kind of thing, few to everything.
fn index(size: u64) -> Interest<u64> {
    let mut interest = Interest::new();
    for key in 0..size {
        let text = match key % 10 {
            0 => format!("app.orders.{key}.>"),
            1 => format!("app.*.{key}.created"),
            _ => format!("app.orders.{key}.created"),
        };
        insert(&mut interest, &text, key);
    }
    insert(&mut interest, "app.>", size);
    interest
}

fn insert(interest: &mut Interest<u64>, text: &str, key: u64) {
    if let Ok(pattern) = Pattern::parse(text) {
        interest.insert(&pattern, key);
    }
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("interest/find");
    for size in SIZES {
        let interest = index(size);
        let mut found = Vec::new();
        for (name, subject) in [("wanted", "app.orders.5.created"), ("unwanted", "app.users.none.deleted")] {
            group.bench_with_input(BenchmarkId::new(name, size), subject, |bencher, subject| {
                bencher.iter(|| {
                    found.clear();
                    interest.find(black_box(subject), &mut found);
                    found.len()
                });
            });
        }
    }
    group.finish();
}

fn come_and_go(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("interest/insert_and_remove");
    for size in SIZES {
        let mut interest = index(size);
        let Ok(pattern) = Pattern::parse("app.orders.late.created") else { continue };
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| interest.insert(&pattern, size + 1) && interest.remove(&pattern, size + 1));
        });
    }
    group.finish();
}

/// A client that throws away what it gets.
#[derive(Debug)]
struct Nobody;

impl LiveSink for Nobody {
    fn deliver(&self, _: u64, _: &LiveMessage) -> Delivered {
        Delivered::Queued
    }

    fn wake(&self) {}

    fn client(&self) -> u64 {
        0
    }
}

fn subscribe(subjects: &LiveSubjects, filter: &str) -> Option<LiveSubscription> {
    let sink: Arc<dyn LiveSink> = Arc::new(Nobody);
    subjects.subscribe(LiveFilter::parse(filter.into()).ok()?, "", (sink, 1), false).ok()
}

/// A publisher of 100 subjects, while subscriptions come and go before each round: to an inbox, as clients do that make
/// one for each request, and with a wildcard, which is a change for every subject.
fn live(criterion: &mut Criterion) {
    let subjects = LiveSubjects::new(1);
    let _all: Vec<_> = (0..1000).map(|number| subscribe(&subjects, &format!("orders.{}.>", number % 100))).collect();
    let names = (0..100).map(|number| format!("orders.{number}.created"));
    let all: Vec<LiveSubject> = names.filter_map(|name| LiveSubject::parse(name.into()).ok()).collect();
    let mut group = criterion.benchmark_group("interest/live");
    for (name, change) in [("nothing", ""), ("an inbox", "_INBOX.abcdefghijklmnopqrstuv"), ("a wildcard", "*.x.y")] {
        let (mut own, mut wakes) = (OwnRoutes::default(), Wakes::default());
        group.bench_function(BenchmarkId::new("100 messages behind a change of", name), |bencher| {
            bencher.iter(|| {
                drop(Some(change).filter(|change| !change.is_empty()).and_then(|change| subscribe(&subjects, change)));
                for subject in &all {
                    let message = LiveMessage { subject: subject.text().clone(), ..LiveMessage::default() };
                    black_box(subjects.publish(subject, &message, (&mut own, None), &mut wakes));
                }
            });
        });
    }
    group.finish();
}
