//! Simulation: three nodes with our real stores in one process, on simulated time.
//!
//! The network drops, delays, repeats and cuts; disks are slow; nodes are killed and come back; logs are
//! settled and purged, so that snapshots are needed. One seed is one run. Clients remember what was
//! acknowledged; in the end, when nothing fails any more, every node must have every acknowledged event
//! once, at the place that was acknowledged, and all nodes the same book and the same rules.

mod client;
mod network;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::TokioRuntime;
use openraft_rt::deterministic_rng::DeterministicRng;

use client::{Client, Outcome};
use world::World;

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
    let books: Vec<_> = world.books();
    let first = books.first().unwrap();
    for other in &books {
        assert_eq!(first, other, "two nodes have different books");
    }
    let machines = world.machines();
    assert!(machines.windows(2).all(|pair| pair[0] == pair[1]), "two nodes have different rules");
    let mut places: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
    for (namespace, events) in first {
        for (sequence, id) in (1_u64..).zip(events) {
            places.entry(id).or_default().push((namespace, sequence));
        }
    }
    for (id, outcome) in outcomes {
        let found = places.get(id.as_str()).cloned().unwrap_or_default();
        match outcome {
            Outcome::Acknowledged { namespace, sequence } => {
                assert_eq!(found, [(namespace.as_str(), *sequence)], "acknowledged event {id}");
            }
            Outcome::Unknown => assert!(found.len() <= 1, "event {id} is there {} times", found.len()),
        }
    }
    let acknowledged = outcomes.values().filter(|outcome| matches!(outcome, Outcome::Acknowledged { .. })).count();
    assert!(acknowledged > 0, "nothing was acknowledged: the simulation proves nothing");
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
    for seed in seeds() {
        run(seed);
    }
}
