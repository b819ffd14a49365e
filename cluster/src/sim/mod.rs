//! Simulation: three whole nodes with our real stores in one process, on simulated time.
//!
//! Everything of a node runs as it does in a process - links, server, receiver of snapshots, forwarder, liveness,
//! presence, founding - but for the transport, which is in memory ([`net`]), and the log writer, whose disk is slow.
//! The network delays and cuts, in one direction or both, for seconds or for longer than a connection lives; nodes
//! are killed and come back with what was on their disks, or lose power, one or all, and come back with what was
//! synced; they die between two steps of settling, of making a snapshot or of installing one; leadership is handed
//! over; logs are settled and purged, so that snapshots are needed. One seed is one run. Clients publish each event
//! once and remember the answers; in the end, when nothing fails any more, every node must be ready soon, have every
//! acknowledged event once, at the place that was acknowledged, and no event that was refused, and all nodes the same
//! book, the same rules and the same rows. Ticks of a schedule, which all clients propose, are there once each. In every
//! other run a node begins with a release that does not know the newest feature level, and is upgraded on the way.

mod client;
mod dice;
mod disk;
mod judge;
mod net;
mod roll;
mod ticks;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use openraft::TokioRuntime;
use openraft_rt::deterministic_rng::DeterministicRng;

use client::{Client, Outcome, Story};
use judge::judge;
use world::World;

const CLIENTS: u64 = 3;
/// Simulated time with faults.
const FAULTS: Duration = Duration::from_secs(12);
/// Simulated time within which all nodes are ready again after the last fault: connections are found to be dead,
/// dialled anew, and a leader is elected.
const RECOVERY: Duration = Duration::from_secs(10);
/// The same after a partition, however long it was: the connections are long gone, and are dialled as soon as that is
/// possible.
const RECOVERY_OF_A_PARTITION: Duration = Duration::from_secs(3);
/// Simulated time within which a healed cluster must agree.
const AGREEMENT: Duration = Duration::from_secs(60);

/// One run; how many processes died between two steps.
fn run(seed: u64) -> u64 {
    // Memory where there is some: the simulation is about order, not about disks. Removed when nobody writes any more.
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let directory = directory.unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        // All tasks of this thread draw from one seed, also those that are not raft's.
        let seeded =
            DeterministicRng::<TokioRuntime>::scope(seed, async { runtime.block_on(simulate(seed, directory.path())) });
        seeded.now_or_never().unwrap()
    }));
    outcome.unwrap_or_else(|_| panic!("seed {seed}: run it alone with ROLLBOOK_SIM_SEED={seed}"))
}

async fn simulate(seed: u64, directory: &Path) -> u64 {
    let world = Arc::new(World::new(seed, directory));
    world.found().await;
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|id| {
            let client = Client::new(id, Arc::clone(&world));
            tokio::spawn(client.run())
        })
        .collect();
    let until = tokio::time::Instant::now() + FAULTS;
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(world.dice.below(500))).await;
        world.fault().await;
    }
    world.heal().await;
    recover(&world, RECOVERY).await;
    if seed.is_multiple_of(4) {
        world.long_partition().await;
        world.heal().await;
        recover(&world, RECOVERY_OF_A_PARTITION).await;
    }
    world.stop_clients();
    let mut story = Story::default();
    for client in clients {
        story.extend(client.await.unwrap());
    }
    let agreed = tokio::time::timeout(AGREEMENT, world.agreement()).await;
    assert!(agreed.is_ok(), "a healed cluster must agree: {}", world.describe());
    check(&world, &story);
    world.close();
    world.crashes()
}

async fn recover(world: &World, within: Duration) {
    let recovered = tokio::time::timeout(AGREEMENT, world.recovery()).await;
    let Ok(took) = recovered else { panic!("a healed cluster must be ready: {}", world.describe()) };
    assert!(took <= within, "a healed cluster was ready after {took:?}, and must be after {within:?}");
}

/// In how many runs ticks of schedules were stored.
static TICKED: AtomicU64 = AtomicU64::new(0);

fn check(world: &World, story: &Story) {
    let machines = world.machines();
    assert!(machines.windows(2).all(|pair| pair[0] == pair[1]), "two nodes have different rules");
    assert!(world.rows().windows(2).all(|pair| pair[0] == pair[1]), "two nodes have different rows");
    let broken = judge(&world.books(), story);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    // Where the feature level rises late, a run may have none.
    let ticked = world.books().first().is_some_and(|books| books.contains_key(ticks::NAMESPACE));
    TICKED.fetch_add(u64::from(ticked), Ordering::Relaxed);
    let acknowledged =
        story.outcomes.values().filter(|outcome| matches!(outcome, Outcome::Acknowledged { .. })).count();
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
    let seeds = seeds();
    let half = seeds.len().div_ceil(2).max(1);
    let crashes: u64 = std::thread::scope(|scope| {
        let run_all = |part| scope.spawn(move || <[u64]>::iter(part).map(|seed| run(*seed)).sum::<u64>());
        let parts: Vec<_> = seeds.chunks(half).map(run_all).collect();
        parts.into_iter().map(|part| part.join().unwrap()).sum()
    });
    println!("{} runs, {crashes} processes died between two steps", seeds.len());
    assert!(seeds.len() < 20 || crashes > 0, "no process died between two steps");
    let ticked = TICKED.load(Ordering::Relaxed);
    println!("ticks of schedules were stored in {ticked} runs");
    assert!(seeds.len() < 20 || ticked > 0, "no tick was stored: the simulation proves nothing of them");
}
