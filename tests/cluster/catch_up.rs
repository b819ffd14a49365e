//! Nodes that were away, and what they get when they are back.

use std::time::Duration;

use crate::harness::cluster::Cluster;
use crate::harness::node::{Node, Options};
use crate::harness::{ms, wait_for};

const BATCH: usize = 500;

/// Publishes `batches` arrays of 500 events through one node.
fn write(node: &Node, batches: usize) {
    let mut http = node.http();
    let padding = "x".repeat(400);
    for batch in 0..batches {
        let event = |number: usize| format!(r#"{{"subject":"app.n","payload":"{batch}-{number}-{padding}"}}"#);
        let body: Vec<String> = (0..BATCH).map(event).collect();
        assert_eq!(http.post(format!("[{}]", body.join(","))).status, 202);
    }
}

fn next_index(node: &Node) -> u64 {
    let app = node.web("GET", "/api/namespaces/app?consistency=stale", "");
    if app.status == 200 { app.json()["next_index"].as_u64().unwrap_or(0) } else { 0 }
}

fn caught_up(cluster: &Cluster, id: usize, next: u64) {
    wait_for("the node has caught up", Duration::from_secs(60), || {
        (next_index(cluster.node(id)) >= next).then_some(())
    });
    let event = |id: usize| {
        let mut stream = cluster.node(id).replay("app.>");
        stream.events(20, Duration::from_secs(20)).iter().map(|event| event.text().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(event(id), event(id % 3 + 1), "the oldest events");
}

/// A number that a node tells about itself.
fn metric(node: &Node, name: &str) -> u64 {
    let text = node.web("GET", "/metrics", "").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("{name}: {text}")) as u64
}

/// Writes until the log of a node begins behind `entry`.
fn write_until_purged(node: &Node, entry: u64) {
    wait_for("the log is purged", Duration::from_secs(90), || {
        write(node, 20);
        std::thread::sleep(ms(500));
        (metric(node, "rollbook_raft_first_index") > entry).then_some(())
    });
}

#[test]
fn a_node_that_missed_more_than_the_log_keeps_gets_a_snapshot_while_the_cluster_goes_on() {
    let options = Options::new().env("ROLLBOOK_CLUSTER__LOG_KEEP_BYTES", "1000000");
    let mut cluster = Cluster::start_with(options);
    let away = cluster.followers()[0];
    let missed = metric(cluster.node(away), "rollbook_raft_last_index");
    cluster.kill(away);
    let other = cluster.leader();
    // More than heartbeats and elections can add.
    write_until_purged(cluster.node(other), missed + 20);
    cluster.up(&[away]);
    write(cluster.node(other), 10);
    let next = next_index(cluster.node(other));
    caught_up(&cluster, away, next);
    assert!(cluster.data(away).join("INSTALLED").exists(), "it came as a snapshot, not by the log");
    // And survives being killed right after.
    cluster.kill(away);
    cluster.up(&[away]);
    caught_up(&cluster, away, next);
}

#[test]
fn a_node_killed_again_and_again_while_it_catches_up_gets_there() {
    let options = Options::new().env("ROLLBOOK_CLUSTER__LOG_KEEP_BYTES", "1000000");
    let mut cluster = Cluster::start_with(options);
    let away = cluster.followers()[0];
    let missed = metric(cluster.node(away), "rollbook_raft_last_index");
    cluster.kill(away);
    let other = cluster.leader();
    write_until_purged(cluster.node(other), missed + 20);
    let next = next_index(cluster.node(other));
    for round in 1..=5 {
        let (options, data) = (cluster.options_of(away), cluster.data(away));
        Node::run_for(&options, &data, ms(60 * round));
    }
    cluster.up(&[away]);
    caught_up(&cluster, away, next);
}
