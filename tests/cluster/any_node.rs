//! What a client may do on any node.

use std::collections::BTreeSet;

use crate::harness::cluster::Cluster;
use crate::harness::sse::Sse;
use crate::harness::{SOON, ms, wait_for};

#[test]
fn publishes_through_any_node_are_in_one_order_on_all_nodes() {
    let cluster = Cluster::start();
    std::thread::scope(|scope| {
        for id in 1..=3 {
            let node = cluster.node(id);
            scope.spawn(move || {
                (0..50).for_each(|number| drop(node.publish("app.x", &format!("\"{id}-{number}\""))));
            });
        }
    });
    let first = cluster.payloads(1, "app.x", 150);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 150, "each once");
    for id in 2..=3 {
        assert_eq!(cluster.payloads(id, "app.x", 150), first, "node {id}");
    }
}

#[test]
fn what_a_command_did_shows_at_once_on_the_node_that_was_asked() {
    let cluster = Cluster::start();
    for (round, id) in (0..12).zip([1, 2, 3].into_iter().cycle()) {
        let node = cluster.node(id);
        let body = format!(r#"{{"name":"n{round}"}}"#);
        assert_eq!(node.web("POST", "/api/namespaces", &body).status, 201);
        let path = format!("/api/namespaces/n{round}?consistency=stale");
        assert_eq!(node.web("GET", &path, "").status, 200, "node {id}");
        // A linearizable read sees it on every other node.
        let other = cluster.node(id % 3 + 1).web("GET", &format!("/api/namespaces/n{round}"), "");
        assert_eq!(other.status, 200, "node {}", id % 3 + 1);
        assert!(other.header("x-rollbook-index").is_some_and(|index| index.parse::<u64>().is_ok_and(|i| i > 0)));
    }
}

#[test]
fn a_stream_sees_events_of_other_nodes_and_goes_on_where_it_was_on_another_node() {
    let cluster = Cluster::start();
    let mut stream = cluster.node(1).replay("app.>");
    (0..5).for_each(|number| drop(cluster.node(number % 3 + 1).publish("app.x", &number.to_string())));
    let seen = stream.events(5, SOON);
    drop(stream);
    // The id is used on another node at once, perhaps before that node has the event.
    let published = cluster.node(2).publish("app.x", "5");
    let mut next = cluster.node(3).subscribe(&[("subject", "app.>"), ("start", &published.id)]);
    cluster.node(1).publish("app.x", "6");
    assert_eq!(next.next_event(SOON).payload(), 6);
    let last = seen[2].event_id();
    let mut resumed = Sse::open(cluster.node(3).log, "/?subject=app.%3E", &[("Last-Event-ID", &last)]);
    let rest: Vec<_> = resumed.events(4, SOON).iter().map(|event| event.payload().as_i64()).collect();
    assert_eq!(rest, [Some(3), Some(4), Some(5), Some(6)]);
}

#[test]
fn an_acknowledgement_reaches_the_stream_through_any_node() {
    let cluster = Cluster::start();
    (0..3).for_each(|number| drop(cluster.node(1).publish("app.x", &number.to_string())));
    let query = [("subject", "app.x"), ("start", "oldest"), ("ack", "manual"), ("redelivery", "60s")];
    let mut stream = cluster.node(1).subscribe(&query);
    let consumer = stream.consumer_id();
    for (number, through) in [(0, 2), (1, 3), (2, 1)] {
        let event = stream.next_event(SOON);
        assert_eq!(event.payload(), number);
        stream.quiet(ms(100));
        assert_eq!(cluster.node(through).ack(&consumer, &event.event_id()).status, 202, "through node {through}");
    }
}

#[test]
fn an_inbox_message_reaches_listeners_on_all_nodes() {
    let cluster = Cluster::start();
    let mut listeners: Vec<Sse> = (1..=3).map(|id| cluster.node(id).subscribe(&[("subject", "_bus_.reply")])).collect();
    // Live links are made when they are first used.
    cluster.node(2).publish("_bus_.reply", "\"hello\"");
    for (id, listener) in (1..).zip(&mut listeners) {
        assert_eq!(listener.next_event(SOON).payload(), "hello", "node {id}");
    }
}

#[test]
fn members_of_a_group_on_different_nodes_share_the_work() {
    let cluster = Cluster::start();
    let member = |id: usize| {
        let query = [("subject", "app.x"), ("start", "oldest"), ("group", "workers"), ("ack", "manual")];
        cluster.node(id).subscribe(&query)
    };
    let mut members: Vec<(usize, Sse)> = (1..=3).map(|id| (id, member(id))).collect();
    (0..30).for_each(|number| drop(cluster.node(number % 3 + 1).publish("app.x", &number.to_string())));
    let mut seen = Vec::new();
    let mut by_node = [0; 4];
    wait_for("all events were delivered to somebody", SOON, || {
        for (id, stream) in &mut members {
            if let Some(event) = stream.try_event(ms(20)) {
                seen.push(event.payload().as_i64().expect("a number"));
                by_node[*id] += 1;
                let acknowledged = cluster.node(*id % 3 + 1).ack(&stream.consumer_id(), &event.event_id());
                assert_eq!(acknowledged.status, 202);
            }
        }
        (seen.len() >= 30).then_some(())
    });
    seen.sort_unstable();
    assert_eq!(seen, (0..30).collect::<Vec<_>>(), "each event to one member, once");
    assert!(by_node[1..].iter().all(|count| *count > 0), "every node took part: {by_node:?}");
    let listed = cluster.node(2).consumer("app", "workers").expect("the group is listed");
    assert_eq!(listed["members"].as_array().map(Vec::len), Some(3), "wherever it is served: {listed}");
}

#[test]
fn a_durable_consumer_moves_to_the_node_of_its_newest_connection() {
    let cluster = Cluster::start();
    (0..4).for_each(|number| drop(cluster.node(1).publish("app.x", &number.to_string())));
    let query = [("subject", "app.x"), ("start", "oldest"), ("consumer", "audit"), ("ack", "manual")];
    let mut first = cluster.node(1).subscribe(&query);
    let event = first.next_event(SOON);
    assert_eq!(cluster.node(2).ack(&first.consumer_id(), &event.event_id()).status, 202);
    assert_eq!(first.next_event(SOON).payload(), 1);
    let mut second = cluster.node(3).subscribe(&query);
    assert_eq!(second.next_event(SOON).payload(), 1, "what was not acknowledged comes again");
    first.end(SOON);
    // Deleted on one node, gone on all.
    assert_eq!(cluster.node(2).web("DELETE", "/api/consumers/app/audit", "").status, 204);
    second.end(SOON);
}
