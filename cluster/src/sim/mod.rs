//! Simulation: three nodes with our real stores in one process, on simulated time.
//!
//! The network drops, delays, repeats and cuts; disks are slow; nodes are killed and come back; logs are
//! settled and purged, so that snapshots are needed. One seed is one run. Clients remember what was
//! acknowledged; in the end, when nothing fails any more, every node must have every acknowledged event
//! once, at the place that was acknowledged, and all nodes the same book, the same rules and the same rows. In every
//! other run a node begins with a release that does not know the newest feature level, and is upgraded on the way.

mod client;
mod network;
mod roll;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::TokioRuntime;
use openraft_rt::deterministic_rng::DeterministicRng;

use client::{Client, Outcome};
use world::{Books, World};

const CLIENTS: u64 = 3;
/// Simulated time with faults.
const FAULTS: Duration = Duration::from_secs(8);
/// Simulated time within which a healed cluster must have recovered.
const LIVENESS: Duration = Duration::from_secs(60);

fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(DeterministicRng::<TokioRuntime>::scope(seed, simulate(seed)));
    }));
    if outcome.is_err() {
        panic!("seed {seed}: run it alone with ROLLBOOK_SIM_SEED={seed}");
    }
}

async fn simulate(seed: u64) {
    let world = Arc::new(World::new(seed));
    world.found().await;
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|id| {
            let client = Client::new(id, Arc::clone(&world));
            tokio::spawn(DeterministicRng::<TokioRuntime>::scope(seed ^ id, client.run()))
        })
        .collect();
    let until = tokio::time::Instant::now() + FAULTS;
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(world.random(400))).await;
        world.fault().await;
    }
    world.heal().await;
    world.stop_clients();
    let mut outcomes = BTreeMap::new();
    for client in clients {
        outcomes.extend(client.await.unwrap());
    }
    let agreed = tokio::time::timeout(LIVENESS, world.agreement()).await;
    assert!(agreed.is_ok(), "a healed cluster must agree: {}", world.describe());
    check(&world, &outcomes);
    world.close().await;
}

fn check(world: &World, outcomes: &BTreeMap<String, Outcome>) {
    let machines = world.machines();
    assert!(machines.windows(2).all(|pair| pair[0] == pair[1]), "two nodes have different rules");
    assert!(world.rows().windows(2).all(|pair| pair[0] == pair[1]), "two nodes have different rows");
    let broken = judge(&world.books(), outcomes);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let acknowledged = outcomes.values().filter(|outcome| matches!(outcome, Outcome::Acknowledged { .. })).count();
    assert!(acknowledged > 0, "nothing was acknowledged: the simulation proves nothing");
}

/// What is wrong with the books, given what the clients know.
fn judge(books: &[Books], outcomes: &BTreeMap<String, Outcome>) -> Vec<String> {
    let mut broken = Vec::new();
    if books.windows(2).any(|pair| pair[0] != pair[1]) {
        broken.push("two nodes have different books".to_owned());
    }
    let mut places: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
    // The roll is written by the rules.
    let written = |(namespace, _): &(&String, &Vec<String>)| namespace.as_str() != "roll";
    for (namespace, events) in books.first().into_iter().flatten().filter(written) {
        for (sequence, id) in (1_u64..).zip(events) {
            places.entry(id).or_default().push((namespace, sequence));
        }
    }
    for (id, outcome) in outcomes {
        let found = places.remove(id.as_str()).unwrap_or_default();
        match outcome {
            Outcome::Acknowledged { namespace, sequence } if found != [(namespace.as_str(), *sequence)] => {
                broken.push(format!("event {id} was acknowledged at {namespace} {sequence} and is at {found:?}"));
            }
            Outcome::Unknown if found.len() > 1 => broken.push(format!("event {id} is at {found:?}")),
            Outcome::Acknowledged { .. } | Outcome::Unknown => {}
        }
    }
    broken.extend(places.keys().map(|id| format!("nobody wrote event {id}")));
    broken
}

/// The seeds of this run: one named by the environment, or the first ones.
fn seeds() -> Vec<u64> {
    let named = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match named("ROLLBOOK_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=named("ROLLBOOK_SIM_SEEDS").unwrap_or(200)).collect(),
    }
}

#[test]
fn no_acknowledged_event_is_lost_moved_or_doubled_whatever_fails() {
    let seeds = seeds();
    let half = seeds.len().div_ceil(2).max(1);
    std::thread::scope(|scope| {
        for part in seeds.chunks(half) {
            scope.spawn(|| part.iter().for_each(|seed| run(*seed)));
        }
    });
}

#[test]
fn broken_books_are_found() {
    let acknowledged = |sequence| Outcome::Acknowledged { namespace: "a".to_owned(), sequence };
    let outcomes = BTreeMap::from([
        ("x".to_owned(), acknowledged(1)),
        ("y".to_owned(), acknowledged(2)),
        ("z".to_owned(), Outcome::Unknown),
    ]);
    let books = |events: &[&str]| Books::from([("a".to_owned(), events.iter().map(ToString::to_string).collect())]);
    let verdict = |one: &[&str], two: &[&str]| judge(&[books(one), books(two)], &outcomes).len();
    assert_eq!((verdict(&["x", "y"], &["x", "y"]), verdict(&["x", "y", "z"], &["x", "y", "z"])), (0, 0));
    for broken in [vec!["x"], vec!["y", "x"], vec!["x", "y", "y"], vec!["x", "y", "z", "z"], vec!["x", "y", "w"]] {
        assert!(verdict(&broken, &broken) > 0, "{broken:?}");
    }
    assert_eq!(verdict(&["x", "y"], &["x", "y", "z"]), 1, "two histories");
}
