//! Events that wait for their time, while their leader dies.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::cluster::Cluster;
use crate::harness::node::{Node, Options};
use crate::harness::{SOON, ms, wait_for};

/// Events of one array.
const BATCH: u32 = 100;
/// Arrays, each due 100 ms after the one before.
const BATCHES: u32 = 20;

#[test]
fn events_come_once_and_not_early_when_their_leader_dies_while_they_become_due() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let followers = cluster.followers();
    let mut due = BTreeMap::new();
    for batch in 0..BATCHES {
        let delay = ms(3000 + 100 * u64::from(batch));
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let event =
            |number: u32| json!({ "subject": "app.x", "delay": format!("{}ms", delay.as_millis()), "payload": number });
        let body = Value::from(numbers.clone().map(event).collect::<Vec<_>>()).to_string();
        let asked = Instant::now();
        let answer = cluster.node(followers[usize::try_from(batch % 2).expect("0 or 1")]).post(body);
        assert_eq!(answer.status, 202, "{}", answer.text());
        due.extend(numbers.map(|number| (i64::from(number), asked + delay)));
    }
    let mut stream = cluster.node(followers[0]).subscribe(&[("subject", "app.x"), ("start", "oldest")]);
    let mut came = Vec::new();
    let take = |stream: &mut crate::harness::sse::Sse, came: &mut Vec<i64>| {
        let number = stream.next_event(Duration::from_secs(30)).payload().as_i64().expect("a number");
        assert!(Instant::now() >= due[&number], "{number} is early");
        came.push(number);
    };
    (0..BATCH * 5).for_each(|_| take(&mut stream, &mut came));
    cluster.kill(leader);
    (0..BATCH * (BATCHES - 5)).for_each(|_| take(&mut stream, &mut came));
    stream.quiet(ms(500));
    let mut sorted = came.clone();
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..i64::from(BATCH * BATCHES)), "each once");
    cluster.up(&[leader]);
    for id in 1..=3 {
        let events = cluster.node(id).replay("app.x").events(came.len(), SOON);
        let stored: Vec<i64> = events.iter().filter_map(|event| event.payload().as_i64()).collect();
        assert_eq!(stored, came, "node {id}");
        wait_for("nothing waits any more", SOON, || {
            (cluster.node(id).metric("rollbook_delayed_events") == 0).then_some(())
        });
    }
}

#[test]
fn any_node_lists_and_cancels_what_waits() {
    let cluster = Cluster::start();
    let body = json!({ "subject": "app.x", "at": "2099-01-01T00:00:00Z" }).to_string();
    assert_eq!(cluster.node(1).post(body).status, 400, "too far away");
    let body = json!({ "subject": "app.x", "delay": "1h" }).to_string();
    let answer = cluster.node(1).post(body);
    let id = answer.header("x-bus-delayed-id").expect("an id").to_owned();
    for node in 1..=3 {
        let items = cluster.node(node).web("GET", "/api/delayed", "").json()["items"].clone();
        assert_eq!(items[0]["id"], id.as_str(), "node {node}");
    }
    assert_eq!(cluster.node(2).web("DELETE", &format!("/api/delayed/{id}"), "").status, 204);
    assert_eq!(cluster.node(3).web("GET", "/api/delayed", "").json()["items"], json!([]));
    assert_eq!(cluster.node(3).web("DELETE", &format!("/api/delayed/{id}"), "").status, 404);
}

#[test]
fn before_all_nodes_know_it_no_event_waits() {
    let node = Node::start(&Options::new().env("ROLLBOOK_TEST_LEVEL", "7"));
    for body in [
        json!({ "subject": "app.x", "delay": "1s" }).to_string(),
        json!([{ "subject": "app.x", "at": "2001-01-01T00:00:00Z" }]).to_string(),
    ] {
        let refused = node.post(body);
        let text = "unavailable: this needs feature level 8 and the cluster is at 7";
        assert!(refused.status == 503 && refused.text().starts_with(text), "{}", refused.text());
    }
    assert_eq!(node.publish("app.x", "1").index, 1);
    assert_eq!(node.web("GET", "/api/delayed", "").json()["items"], json!([]));
}
