//! Rights: what each publish pays for the question whether its principal may do that. The limit is 150 ns.
//!
//! A check allocates nothing: the answer borrows its rule, the subject is walked as text, and the tries are only read.
//! No allocator that counts shows that, because one cannot be written without `unsafe`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use rollbook_core::security::principal::{Kind, Principal};
use rollbook_core::security::right::Verb;
use rollbook_core::security::rights::{Rights, Rule};

/// A subject of four parts.
const SUBJECT: &str = "orders.eu.4711.created";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    publish(&mut criterion);
    criterion.final_summary();
}

/// Rights with so many rules, of which the last one allows the subject.
fn rights(count: usize) -> Rights {
    let others = (1..count).map(|number| match number % 4 {
        0 => format!("publish orders.eu.{number}.*"),
        1 => format!("publish area{number}.>"),
        2 => format!("deny publish orders.*.{number}.created"),
        _ => format!("subscribe orders.{number}.>"),
    });
    let texts = others.chain(["publish orders.>".to_owned()]);
    let rules = texts.filter_map(|text| Some(Rule { role: "worker".to_owned(), right: text.parse().ok()? }));
    Principal::new(Kind::Service, "orders").map(|principal| Rights::compile(&principal, rules)).unwrap_or_default()
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rights");
    for count in [1, 20, 500] {
        let rights = rights(count);
        assert!(rights.allows(Verb::Publish, SUBJECT) && !rights.allows(Verb::Publish, "other.x"));
        group.bench_function(BenchmarkId::new("publish", count), |bencher| {
            bencher.iter(|| rights.allows(Verb::Publish, black_box(SUBJECT)));
        });
        group.bench_function(BenchmarkId::new("publish_refused", count), |bencher| {
            bencher.iter(|| rights.allows(Verb::Publish, black_box("other.eu.4711.created")));
        });
    }
    group.finish();
}
