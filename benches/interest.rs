//! The interest index: finding the subscriptions of a subject must not cost more when there are more of them.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use rollbook_core::subjects::interest::Interest;
use rollbook_core::subjects::pattern::Pattern;

const SIZES: [u64; 3] = [10, 1_000, 100_000];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    find(&mut criterion);
    come_and_go(&mut criterion);
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
