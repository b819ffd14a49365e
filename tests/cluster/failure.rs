//! Nodes that die, stop, or are alone.

use std::time::{Duration, Instant};

use crate::harness::cluster::Cluster;
use crate::harness::node::Options;
use crate::harness::{SOON, ms, wait_for};

/// Longest time without a leader that a test accepts on a busy machine. `benches/failover.py` measures.
const PAUSE_MAX: Duration = Duration::from_secs(3);

#[test]
fn the_leader_dies_and_nothing_acknowledged_is_lost_nor_stored_twice() {
    let mut cluster = Cluster::start();
    (0..50).for_each(|number| cluster.publish_anywhere("app.x", &number.to_string()));
    let leader = cluster.leader();
    cluster.kill(leader);
    let began = Instant::now();
    cluster.publish_anywhere("app.x", "50");
    assert!(began.elapsed() < PAUSE_MAX, "{:?} until the next acknowledgement", began.elapsed());
    (51..60).for_each(|number| cluster.publish_anywhere("app.x", &number.to_string()));
    cluster.up(&[leader]);
    let wanted: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    for id in 1..=3 {
        assert_eq!(cluster.payloads(id, "app.x", 60), wanted, "node {id}");
        cluster.node(id).subscribe(&[("subject", "app.x")]).quiet(ms(50));
    }
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let others = cluster.followers();
    std::thread::scope(|scope| {
        let node = cluster.node(others[0]);
        let publisher = scope.spawn(move || {
            let (mut longest, mut last, until) =
                (Duration::ZERO, Instant::now(), Instant::now() + Duration::from_secs(3));
            while Instant::now() < until {
                node.publish("app.x", "1");
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            longest
        });
        std::thread::sleep(ms(500));
        cluster.node(leader).signal_term();
        let longest = publisher.join().expect("no publish was refused");
        assert!(longest < Duration::from_secs(1), "longest pause {longest:?}");
    });
    cluster.terminate(leader);
    assert_ne!(cluster.leader(), leader);
}

#[test]
fn a_node_without_a_majority_says_so_and_serves_only_stale_reads() {
    let mut cluster = Cluster::start_with(Options::new().env("ROLLBOOK_CLUSTER__NODE_TIMEOUT", "1s"));
    cluster.publish_anywhere("app.x", "1");
    let alone = cluster.followers()[0];
    cluster.payloads(alone, "app.x", 1);
    let mut stream = cluster.node(alone).subscribe(&[("subject", "app.x")]);
    let others: Vec<usize> = cluster.running().into_iter().filter(|id| *id != alone).collect();
    others.iter().for_each(|id| cluster.kill(*id));
    let node = cluster.node(alone);
    wait_for("it is not ready", SOON, || (node.web("GET", "/readyz", "").status == 503).then_some(()));
    let began = Instant::now();
    let refused = node.post(r#"{"subject":"app.x","payload":2}"#);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(began.elapsed() < SOON, "refused after {:?}", began.elapsed());
    stream.end(SOON);
    for (path, status) in [("/api/namespaces/app", 503), ("/api/namespaces/app?consistency=leader", 503)] {
        assert_eq!(node.web("GET", path, "").status, status, "{path}");
    }
    let stale = node.web("GET", "/api/namespaces/app?consistency=stale", "");
    assert_eq!((stale.status, stale.header("x-rollbook-consistency")), (200, Some("stale")));
    assert_eq!(node.web("GET", "/api/namespaces/app?consistency=fresh", "").status, 400);
    assert_eq!(node.web("GET", "/api/cluster", "").status, 200, "what the node believes");
    cluster.up(&others);
    cluster.publish_anywhere("app.x", "2");
    assert_eq!(cluster.payloads(alone, "app.x", 2), ["1", "2"]);
}

#[test]
fn the_roll_tells_of_each_node_once() {
    let mut cluster = Cluster::start_with(Options::new().env("ROLLBOOK_CLUSTER__NODE_TIMEOUT", "1s"));
    let (lost, stopped) = (cluster.followers()[0], cluster.followers()[1]);
    let mut roll = cluster.node(cluster.leader()).replay("roll.node.>");
    let mut ups: Vec<u64> = roll.events(3, SOON).iter().filter_map(|e| e.payload()["node"]["id"].as_u64()).collect();
    ups.sort_unstable();
    assert_eq!(ups, [1, 2, 3]);
    let mut expect = |subject: &str, id: usize, reason: &str, incarnation: u64| {
        let event = roll.next_event(SOON);
        let payload = event.payload();
        assert_eq!(event.json()["subject"], subject, "{payload}");
        assert_eq!(payload["node"]["id"].as_u64(), u64::try_from(id).ok(), "{payload}");
        assert_eq!(payload["node"]["incarnation"], incarnation, "{payload}");
        assert_eq!(payload["reason"].as_str().unwrap_or_default(), reason, "{payload}");
    };
    cluster.kill(lost);
    expect("roll.node.down", lost, "lost", 1);
    cluster.up(&[lost]);
    expect("roll.node.up", lost, "", 2);
    cluster.terminate(stopped);
    expect("roll.node.down", stopped, "stopped", 1);
    cluster.up(&[stopped]);
    expect("roll.node.up", stopped, "", 2);
    roll.quiet(ms(1500));
    let refused = cluster.node(1).post(r#"{"subject":"roll.node.up","payload":1}"#);
    assert_eq!(refused.status, 400, "only the rules write the roll");
}

#[test]
fn members_of_a_consumer_move_on_when_the_node_that_serves_it_dies() {
    let mut cluster = Cluster::start();
    let server = cluster.followers()[0];
    let elsewhere = cluster.followers()[1];
    let query = [("subject", "app.x"), ("start", "oldest"), ("group", "g"), ("ack", "manual")];
    let served = cluster.node(server).subscribe(&query);
    let mut guest = cluster.node(elsewhere).subscribe(&query);
    (0..6).for_each(|number| drop(cluster.node(elsewhere).publish("app.x", &number.to_string())));
    let first = guest.next_event(SOON);
    assert_eq!(cluster.node(elsewhere).ack(&guest.consumer_id(), &first.event_id()).status, 202);
    drop(served);
    cluster.kill(server);
    guest.end(SOON);
    let mut done = vec![first.payload().as_i64().expect("a number")];
    // At once: the cluster may not know yet that the node is dead, and one try or the other is refused.
    let mut again = cluster.node(elsewhere).subscribe(&query);
    while done.len() < 6 {
        let event = again.next_event(SOON);
        let number = event.payload().as_i64().expect("a number");
        assert_eq!(cluster.node(elsewhere).ack(&again.consumer_id(), &event.event_id()).status, 202);
        // One that was acknowledged above the floor may come again: only the floor is replicated.
        if !done.contains(&number) {
            done.push(number);
        }
    }
    done.sort_unstable();
    assert_eq!(done, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_node_that_was_alone_gives_up_no_event_and_moves_no_floor() {
    let mut cluster = Cluster::start_with(Options::new().env("ROLLBOOK_CLUSTER__NODE_TIMEOUT", "1s"));
    let alone = cluster.followers()[0];
    let query = [
        ("subject", "app.x"),
        ("start", "oldest"),
        ("group", "g"),
        ("ack", "manual"),
        ("redelivery", "300ms"),
        ("redelivery_count", "1"),
    ];
    let mut member = cluster.node(alone).subscribe(&query);
    let others: Vec<usize> = cluster.running().into_iter().filter(|id| *id != alone).collect();
    others.iter().for_each(|id| cluster.kill(*id));
    // Its streams end, and with them whatever served them.
    member.end(SOON);
    cluster.up(&others);
    (0..5).for_each(|number| cluster.publish_anywhere("app.x", &number.to_string()));
    std::thread::sleep(Duration::from_secs(3));
    let node = cluster.node(alone);
    let consumer = node.consumer("app", "g").expect("the consumer");
    assert_eq!(consumer["ack_floor"], 0, "nobody acknowledged: {consumer}");
    assert_eq!(node.web("GET", "/api/namespaces/_dead_", "").status, 404, "nobody was asked");
    wait_for("its actor is gone", SOON, || (node.actors("consumer") == 0).then_some(()));
    // Who comes now gets all of it.
    let mut again = node.subscribe(&query);
    for _ in 0..5 {
        let event = again.next_event(SOON);
        assert_eq!(node.ack(&again.consumer_id(), &event.event_id()).status, 202);
    }
}

#[test]
fn members_that_are_connected_elsewhere_leave_nothing_behind() {
    let cluster = Cluster::start();
    let (server, elsewhere) = (cluster.followers()[0], cluster.followers()[1]);
    let query = [("subject", "app.x"), ("start", "oldest"), ("group", "g"), ("ack", "manual")];
    let first = cluster.node(server).subscribe(&query);
    let refused = [("subject", "app.x"), ("start", "oldest"), ("group", "g"), ("ack", "none")];
    let target = crate::harness::node::target(&refused);
    for _ in 0..30 {
        drop(cluster.node(elsewhere).subscribe(&query));
        assert_eq!(cluster.node(elsewhere).get(&target).status, 409, "the members acknowledge");
    }
    let left = |id: usize, kind: &str| cluster.node(id).actors(kind);
    wait_for("the others have left", SOON, || (left(server, "remote_member") == 0).then_some(()));
    assert_eq!(left(server, "consumer"), 1);
    drop(first);
    for (id, kind) in [(server, "consumer"), (server, "subscription"), (elsewhere, "subscription")] {
        wait_for(kind, SOON, || (left(id, kind) == 0).then_some(()));
    }
}
