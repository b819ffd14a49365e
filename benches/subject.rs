//! Subjects and patterns: what each publish and each event on its way to a subscriber pays.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::subjects::subject::Subject;

const SUBJECTS: [(&str, &str); 3] = [
    ("short", "app.orders"),
    ("usual", "app.orders.eu.4711.created"),
    ("longest", "app.a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z.aa.bb.cc.dd.ee"),
];
const PATTERNS: [&str; 5] =
    ["app.orders.eu.4711.created", "app.orders.>", "app.orders.*.4711.created", "app.*.*.*.created", "app.users.>"];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    validate(&mut criterion);
    matching(&mut criterion);
    criterion.final_summary();
}

fn validate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subject/validate");
    for (name, subject) in SUBJECTS {
        group.bench_with_input(BenchmarkId::from_parameter(name), subject, |bencher, subject| {
            bencher.iter(|| Subject::validate(black_box(subject)));
        });
    }
    group.finish();
}

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pattern");
    for text in PATTERNS {
        let Ok(pattern) = Pattern::parse(text) else { continue };
        group.bench_with_input(BenchmarkId::new("matches", text), &pattern, |bencher, pattern| {
            bencher.iter(|| pattern.matches(black_box("app.orders.eu.4711.created")));
        });
    }
    group.bench_function("parse", |bencher| bencher.iter(|| Pattern::parse(black_box("app.orders.*.4711.>"))));
    group.finish();
}
