//! Credentials: what each request with a token pays before anything else.

use std::hint::black_box;

use criterion::Criterion;
use rollbook::bus::security::credentials::bearer::{self, Presented};
use rollbook::bus::security::credentials::token::{self, SecretHash};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    tokens(&mut criterion);
    criterion.final_summary();
}

fn tokens(criterion: &mut Criterion) {
    let Ok(minted) = token::mint() else { return };
    let header = format!("Bearer {}", minted.text.expose());
    let mut group = criterion.benchmark_group("token");
    group.bench_function("mint", |bencher| bencher.iter(token::mint));
    group.bench_function("parse", |bencher| bencher.iter(|| token::parse(black_box(minted.text.expose())).is_some()));
    group.bench_function("header, hash and compare", |bencher| {
        bencher.iter(|| match bearer::from_authorization(black_box(header.as_bytes())) {
            Presented::Token { secret, .. } => minted.hash.is_of(secret),
            _ => false,
        });
    });
    group.bench_function("hash", |bencher| bencher.iter(|| SecretHash::of(black_box(minted.text.expose()))));
    group.finish();
}
