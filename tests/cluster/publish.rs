//! Publishes on their way through the cluster: their order, learners, and what a new stream has seen.

use serde_json::{Value, json};

use crate::harness::SOON;
use crate::harness::cluster::{Cluster, free_addresses, joined};
use crate::harness::node::{Node, Options};
use crate::harness::socket::Socket;

/// Answers that may be missing while more is sent.
const UNANSWERED: usize = 600;

fn send(client: &Socket, number: usize, padding: &str) {
    let payload = json!({ "n": number, "padding": padding });
    client.send(&json!({ "type": "publish", "id": format!("p{number}"), "subject": "app.o", "payload": payload }));
}

fn answer(client: &Socket, number: usize) -> Value {
    let id = format!("p{number}");
    client.take_where("an answer", |frame| frame["id"] == *id)
}

#[test]
fn publishes_of_one_connection_keep_their_order_through_a_follower() {
    const COUNT: usize = 3000;
    let cluster = Cluster::start();
    let client = Socket::consumer(cluster.node(cluster.followers()[0]).web, "client");
    let padding = "x".repeat(2000);
    for number in 0..COUNT + UNANSWERED {
        if number < COUNT {
            send(&client, number, &padding);
        }
        if let Some(number) = number.checked_sub(UNANSWERED) {
            let published = answer(&client, number);
            assert_eq!((&published["type"], &published["index"]), (&json!("published"), &json!(number + 1)));
        }
    }
}

#[test]
fn publishes_of_one_connection_keep_their_order_when_the_leader_dies() {
    const COUNT: usize = 2500;
    let mut cluster = Cluster::start();
    let (leader, follower) = (cluster.leader(), cluster.followers()[0]);
    let client = Socket::consumer(cluster.node(follower).web, "client");
    let padding = "x".repeat(2000);
    let mut indexes = Vec::new();
    for number in 0..COUNT + UNANSWERED {
        if number == COUNT / 2 {
            cluster.kill(leader);
        }
        if number < COUNT {
            send(&client, number, &padding);
        }
        if let Some(number) = number.checked_sub(UNANSWERED) {
            let answer = answer(&client, number);
            if answer["type"] == "published" {
                indexes.push((answer["index"].as_u64().expect("an index"), number));
            }
        }
    }
    assert!(indexes.len() > COUNT / 2, "{} were stored", indexes.len());
    let (last, _) = indexes[indexes.len() - 1];
    let events = cluster.node(follower).replay("app.o").events(usize::try_from(last).expect("a count"), SOON);
    let stored: Vec<usize> = events.iter().filter_map(|event| event.payload()["n"].as_u64()?.try_into().ok()).collect();
    assert!(stored.is_sorted_by(|one, next| one < next), "each once, in the order in which they were sent");
    for (index, number) in indexes {
        assert_eq!(stored.get(usize::try_from(index).expect("an index") - 1), Some(&number), "at index {index}");
    }
}

#[test]
fn a_learner_beside_the_only_voter_is_ready_and_takes_publishes() {
    let [first] = free_addresses(1).try_into().expect("one");
    let voter = Node::start(&Options::new().peer(&first));
    voter.publish("app.x", "1");
    let data = tempfile::TempDir::with_prefix("rollbook-learner-").expect("temporary directory");
    // It waits until the node is ready.
    let mut learner = joined(&voter, &data.path().join("d2"));
    assert_eq!(learner.publish("app.x", "2").index, 2);
    assert_eq!(learner.web("POST", "/api/namespaces", r#"{"name":"other"}"#).status, 201);
    let state = || {
        let view = voter.web("GET", "/api/cluster", "").json();
        let nodes = view["nodes"].as_array().cloned().unwrap_or_default();
        let of = nodes.iter().find(|node| node["id"] == 2).cloned().unwrap_or_default();
        (of["role"].as_str().unwrap_or_default().to_owned(), of["state"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(state(), ("learner".to_owned(), "up".to_owned()));
    let mut roll = voter.subscribe(&[("subject", "roll.node.down")]);
    learner.terminate();
    assert_eq!(roll.next_event(SOON).payload()["reason"], "stopped", "it says that it goes");
    voter.publish("app.x", "3");
}

#[test]
fn what_was_acknowledged_on_one_node_does_not_come_as_new_on_another() {
    let cluster = Cluster::start();
    let (leader, follower) = (cluster.leader(), cluster.followers()[0]);
    for number in 0..100 {
        let before = cluster.node(leader).publish("app.x", &format!("\"before {number}\""));
        let mut stream = cluster.node(follower).subscribe(&[("subject", "app.x"), ("start", "newest")]);
        let next = cluster.node(leader).publish("app.x", &format!("\"after {number}\""));
        assert_eq!(next.index, before.index + 1);
        assert_eq!(stream.next_event(SOON).payload(), format!("after {number}"));
    }
    // The namespace itself is new to the follower.
    for number in 0..20 {
        cluster.node(leader).publish(&format!("n{number}.x"), "1");
        let subject = format!("n{number}.x");
        let mut stream = cluster.node(follower).subscribe(&[("subject", &subject)]);
        cluster.node(leader).publish(&subject, "2");
        assert_eq!(stream.next_event(SOON).payload(), 2);
    }
}
