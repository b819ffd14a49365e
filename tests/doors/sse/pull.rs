//! Batches: an answer with the events that are there, which ends by itself and leaves its member behind.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::cluster::Cluster;
use crate::harness::http::{Http, Response};
use crate::harness::node::{Node, Options, target};
use crate::harness::{SOON, ms, wait_for};

/// A batch as JSON lines.
struct Batch {
    answer: Response,
    events: Vec<Value>,
}

impl Batch {
    fn pull(node: &Node, query: &[(&str, &str)]) -> Self {
        let headers = [("Accept", "application/x-ndjson")];
        let answer = Http::connect(node.log).request("GET", &target(query), &headers, b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text = answer.text();
        let lines = text.lines().filter(|line| !line.is_empty());
        let events = lines.map(|line| serde_json::from_str(line).expect(line)).collect();
        Self { answer, events }
    }

    fn payloads(&self) -> Vec<i64> {
        self.events.iter().map(|event| event["payload"].as_i64().expect("a number")).collect()
    }

    fn id(&self, at: usize) -> &str {
        self.events[at]["id"].as_str().expect("an id")
    }

    /// Acknowledges events at any node.
    fn ack(&self, node: &Node, places: &[usize]) -> u64 {
        let ids: Vec<&str> = places.iter().map(|at| self.id(*at)).collect();
        let consumer_id = self.answer.header("x-bus-consumer-id").expect("a consumer id");
        let to = format!("/?consumer_id={consumer_id}");
        let answer = Http::connect(node.log).request("PUT", &to, &[], Value::from(ids).to_string().as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
        // One event is answered with whether, many with how many.
        match answer.header("x-bus-acknowledged").expect("an answer") {
            "true" => 1,
            "false" => 0,
            count => count.parse().expect("a number"),
        }
    }
}

fn fill(node: &Node, ns: &str, numbers: std::ops::RangeInclusive<i64>) {
    let events: Vec<Value> = numbers.map(|n| json!({"subject": format!("{ns}.x"), "payload": n})).collect();
    assert_eq!(node.post(Value::from(events).to_string()).status, 202);
}

#[test]
fn a_batch_has_what_is_there_up_to_its_limit_and_the_next_begins_behind() {
    let node = Node::shared();
    let ns = node.namespace();
    fill(&node, &ns, 1..=5);
    let subject = format!("{ns}.>");
    let first = Batch::pull(&node, &[("subject", &subject), ("start", "oldest"), ("limit", "3")]);
    assert_eq!(first.payloads(), [1, 2, 3]);
    assert_eq!(first.answer.header("content-type"), Some("application/x-ndjson"));
    let next = Batch::pull(&node, &[("subject", &subject), ("start", first.id(2)), ("limit", "3")]);
    assert_eq!(next.payloads(), [4, 5]);
    let none = Batch::pull(&node, &[("subject", &subject), ("start", next.id(1)), ("limit", "3"), ("wait", "0")]);
    assert_eq!(none.payloads(), [0_i64; 0]);
    let text = node.get(&target(&[("subject", &subject), ("start", "oldest"), ("limit", "2")])).text();
    assert_eq!((text.matches("event: msg").count(), text.contains("\"index\":2}")), (2, true), "{text}");
}

#[test]
fn a_batch_waits_for_its_first_event_and_for_no_more_than_a_moment_behind_it() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.>");
    fill(&node, &ns, 1..=1);
    let begun = Instant::now();
    let batch = std::thread::scope(|scope| {
        let pull = scope.spawn(|| Batch::pull(&node, &[("subject", &subject), ("limit", "100"), ("wait", "30s")]));
        // The stream begins with the next event.
        std::thread::sleep(ms(500));
        fill(&node, &ns, 2..=3);
        pull.join().expect("a batch")
    });
    assert_eq!(batch.payloads(), [2, 3]);
    assert!(begun.elapsed() >= ms(500) && begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[test]
fn a_batch_takes_all_that_is_there_and_of_events_that_do_not_end_what_comes_within_its_wait() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.>");
    fill(&node, &ns, 1..=3000);
    let all = Batch::pull(&node, &[("subject", &subject), ("start", "oldest"), ("limit", "3000"), ("wait", "0")]);
    assert_eq!(all.payloads().len(), 3000);
    let begun = Instant::now();
    let steady = std::thread::scope(|scope| {
        let pull = scope.spawn(|| Batch::pull(&node, &[("subject", &subject), ("limit", "4096"), ("wait", "0")]));
        while !pull.is_finished() && begun.elapsed() < SOON {
            fill(&node, &ns, 1..=1);
            std::thread::sleep(ms(2));
        }
        pull.join().expect("a batch")
    });
    assert!(begun.elapsed() < SOON && steady.events.len() < 4096, "{:?}", begun.elapsed());
}

#[test]
fn what_a_batch_has_stays_with_its_member_until_it_is_acknowledged_or_late() {
    let node = Node::start(&Options::namespaces("app"));
    fill(&node, "app", 1..=5);
    let wanted = |limit: &'static str| {
        let mut query = vec![("subject", "app.x"), ("start", "oldest"), ("ack", "manual"), ("group", "w")];
        query.extend([("redelivery", "2s"), ("limit", limit)]);
        query
    };
    let first = Batch::pull(&node, &wanted("3"));
    assert_eq!(first.payloads(), [1, 2, 3]);
    let second = Batch::pull(&node, &wanted("3"));
    assert_eq!(second.payloads(), [4, 5], "another member of the group gets what is left");
    assert_eq!(node.actors("subscription"), 2, "both members are there, without a connection");
    assert_eq!((first.ack(&node, &[0, 1]), second.ack(&node, &[0, 1])), (2, 2));
    assert_eq!(second.ack(&node, &[0]), 0, "twice");
    wait_for("the second member ends with its last event", SOON, || (node.actors("subscription") == 1).then_some(()));
    // Nobody takes the third event any more, until its wait has ended.
    assert_eq!(Batch::pull(&node, &[wanted("3"), vec![("wait", "0")]].concat()).payloads(), [0_i64; 0]);
    let again = Batch::pull(&node, &[wanted("3"), vec![("wait", "30s")]].concat());
    assert_eq!(again.payloads(), [3]);
    let delivery = &again.events[0]["delivery"];
    assert_eq!((&delivery["count"], &delivery["reason"]), (&json!(2), &json!("timeout")), "{delivery}");
    assert!(delivery["first_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{delivery}");
    assert_eq!(again.ack(&node, &[0]), 1);
    wait_for("all is done, and nobody is left", SOON, || {
        let floor = node.consumer("app", "w").is_some_and(|item| item["ack_floor"] == 5);
        (floor && node.actors("subscription") == 0 && node.actors("consumer") == 0).then_some(())
    });
}

#[test]
fn a_batch_without_a_durable_consumer_is_acknowledged_too() {
    let node = Node::start(&Options::namespaces("app"));
    fill(&node, "app", 1..=3);
    let batch = Batch::pull(&node, &[("subject", "app.x"), ("start", "oldest"), ("ack", "manual"), ("limit", "2")]);
    assert_eq!(batch.payloads(), [1, 2]);
    assert_eq!(batch.ack(&node, &[0]), 1);
    assert_eq!(node.actors("subscription"), 1);
    assert_eq!(batch.ack(&node, &[1]), 1);
    wait_for("its member ends", SOON, || (node.actors("subscription") == 0).then_some(()));
}

#[test]
fn batches_of_one_group_come_from_every_node_and_share_the_events() {
    let cluster = Cluster::start();
    let subject = "app.x";
    fill(cluster.node(1), "app", 1..=90);
    let mut seen = Vec::new();
    wait_for("all events are pulled", SOON, || {
        for id in 1..=3 {
            let query = [("subject", subject), ("start", "oldest"), ("ack", "manual"), ("group", "w"), ("limit", "7")];
            let batch = Batch::pull(cluster.node(id), &query);
            if batch.events.is_empty() {
                continue;
            }
            let places: Vec<usize> = (0..batch.events.len()).collect();
            // What one node has given, any other takes.
            let count = batch.ack(cluster.node(id % 3 + 1), &places);
            assert_eq!(count, u64::try_from(places.len()).unwrap());
            seen.extend(batch.payloads());
        }
        (seen.len() >= 90).then_some(())
    });
    seen.sort_unstable();
    assert_eq!(seen, (1..=90).collect::<Vec<_>>());
    for id in 1..=3 {
        wait_for("no member is left", SOON, || {
            let node = cluster.node(id);
            (["subscription", "remote_member", "consumer"].map(|kind| node.actors(kind)) == [0; 3]).then_some(())
        });
    }
}

#[test]
fn wrong_batches_are_told() {
    let node = Node::shared();
    let subject = format!("{}.x", node.namespace());
    node.publish(&subject, "1");
    for wrong in [
        "limit=0",
        "limit=4097",
        "limit=-1",
        "limit=many",
        "wait=5s",
        "limit=1&wait=soon",
        "limit=1&wait=6m",
        "limit=1&group=w",
        "order_by=subject",
        "ack=manual&order_by=customer",
        "since=1s&start=oldest",
        "since=ever",
        "header=region",
        "group=w&start=last_per_subject",
    ] {
        let answer = node.get(&format!("/?subject={subject}&{wrong}"));
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text());
    }
}
