//! Nodes in one process, and networks between them that lose bytes without a word, are slow, or have no majority.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod wires;

use std::time::{Duration, Instant};

use wires::{Plan, Trial};

/// How long a network may take to be used again when it is well.
const AGAIN_MAX: Duration = Duration::from_secs(3);
/// Longer than a node waits for the signs of life of another one.
const CUT: Duration = Duration::from_secs(6);

fn plan(nodes: u64) -> Plan {
    Plan { nodes, delay: Duration::ZERO, tls: false }
}

#[test]
fn a_follower_that_was_cut_off_follows_again_soon() {
    let trial = Trial::ready(&plan(3));
    let leader = trial.leader().expect("a leader");
    let lost = trial.ids().into_iter().find(|id| *id != leader).expect("a follower");
    trial.wires[&lost].cut();
    std::thread::sleep(CUT);
    let name = trial.write(leader);
    assert!(!trial.node(lost).state().has_namespace(&name), "the wire was not cut");
    trial.wires[&lost].heal();
    trial.wait("the follower has it", AGAIN_MAX, || trial.node(lost).state().has_namespace(&name).then_some(()));
    trial.wait("all are ready", AGAIN_MAX, || trial.all_ready());
}

#[test]
fn nodes_that_were_all_cut_off_have_a_leader_again_soon() {
    let trial = Trial::ready(&plan(3));
    trial.wires.values().for_each(wires::Wire::cut);
    trial.wait("nobody is ready", CUT, || {
        trial.ids().iter().all(|id| trial.node(*id).consensus().ready().is_err()).then_some(())
    });
    std::thread::sleep(CUT);
    trial.wires.values().for_each(wires::Wire::heal);
    let (leader, _) = trial.wait("a leader", AGAIN_MAX, || trial.leader());
    trial.write(leader);
}

#[test]
fn a_cluster_works_at_a_hundred_milliseconds_round_trip_with_certificates() {
    let trial = Trial::ready(&Plan { delay: Duration::from_millis(50), tls: true, ..plan(3) });
    let leader = trial.leader().expect("a leader");
    let term = trial.node(leader).consensus().status().term;
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        for id in trial.ids() {
            let began = Instant::now();
            trial.write(id);
            assert!(began.elapsed() < Duration::from_millis(1500), "node {id} took {:?}", began.elapsed());
            assert!(trial.node(id).consensus().ready().is_ok(), "node {id}");
        }
        // Longer than the lease of a leader that no heartbeat renews.
        std::thread::sleep(Duration::from_millis(1200));
    }
    assert_eq!(trial.node(leader).consensus().status().term, term, "a leader was replaced");
}

#[test]
fn nodes_without_a_majority_know_and_say_so_at_once_and_come_back() {
    let mut trial = Trial::ready(&plan(5));
    let leader = trial.leader().expect("a leader");
    let others: Vec<u64> = trial.ids().into_iter().filter(|id| *id != leader).collect();
    let follower = others[0];
    others[1..].iter().for_each(|id| trial.stop(*id));
    let began = Instant::now();
    let waiting = [leader, follower].map(|id| trial.begin(id).1);
    for begun in waiting {
        assert!(trial.end(begun).is_err(), "nothing can be stored");
    }
    let refused = began.elapsed();
    assert!(refused < Duration::from_secs(5), "refused after {refused:?}");
    for id in [leader, follower] {
        trial.wait("it is not ready", Duration::from_secs(5), || trial.node(id).consensus().ready().err());
        assert_eq!(trial.node(id).consensus().status().leader, None, "node {id}");
        let began = Instant::now();
        let (_, begun) = trial.begin(id);
        assert!(trial.end(begun).is_err(), "nothing can be stored");
        assert!(began.elapsed() < Duration::from_millis(500), "node {id} refused after {:?}", began.elapsed());
    }
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        assert!([leader, follower].iter().all(|id| trial.node(*id).consensus().ready().is_err()), "it stays so");
        std::thread::sleep(Duration::from_millis(50));
    }
    trial.restart(others[1]);
    trial.wait("all are ready", AGAIN_MAX, || trial.all_ready());
    trial.ids().iter().for_each(|id| drop(trial.write(*id)));
}
