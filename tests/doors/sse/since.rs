//! Streams that begin at a time or with the newest event of each subject, and streams of events with certain headers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rollbook_core::time::Timestamp;
use serde_json::{Value, json};

use crate::harness::node::{Node, target};
use crate::harness::{SOON, ms};

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock behind 1970");
    Timestamp::from_millis(u64::try_from(since.as_millis()).expect("a time"))
}

fn payloads(node: &Node, query: &[(&str, &str)], count: usize) -> Vec<Value> {
    let mut stream = node.subscribe(query);
    let events = stream.events(count, SOON);
    stream.quiet(ms(100));
    events.iter().map(|event| event.payload()).collect()
}

#[test]
fn a_stream_begins_at_a_time_or_so_long_ago() {
    let node = Node::shared();
    let subject = format!("{}.x", node.namespace());
    for n in 1..=3 {
        node.publish(&subject, &n.to_string());
    }
    std::thread::sleep(ms(60));
    let between = now().to_string();
    let behind = std::time::Instant::now();
    for n in 4..=5 {
        node.publish(&subject, &n.to_string());
    }
    let of = |name: &str, value: &str, count| payloads(&node, &[("subject", &subject), (name, value)], count);
    assert_eq!(of("start", &between, 2), [4, 5]);
    let ago = format!("{}ms", (behind.elapsed() + ms(30)).as_millis());
    assert_eq!(of("since", &ago, 2), [4, 5], "since {ago}");
    assert_eq!(of("since", "1h", 5).len(), 5);
    assert_eq!(of("start", "1970-01-01T00:00:00Z", 5).len(), 5);
    assert_eq!(of("start", "2999-01-01T00:00:00Z", 0).len(), 0);
    // A durable consumer begins there when it is new.
    let group = [("subject", subject.as_str()), ("start", between.as_str()), ("group", "w")];
    assert_eq!(payloads(&node, &group, 2), [4, 5]);
}

#[test]
fn a_stream_begins_with_the_newest_event_of_each_subject_and_goes_on_with_all() {
    let node = Node::shared();
    let ns = node.namespace();
    for (key, value) in [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)] {
        node.publish(&format!("{ns}.{key}"), &value.to_string());
    }
    let all = format!("{ns}.>");
    let mut stream = node.subscribe(&[("subject", &all), ("start", "last_per_subject")]);
    let payloads: Vec<Value> = stream.events(3, SOON).iter().map(|event| event.payload()).collect();
    assert_eq!(payloads, [3, 4, 5]);
    node.publish(&format!("{ns}.a"), "6");
    node.publish(&format!("{ns}.a"), "7");
    let payloads: Vec<Value> = stream.events(2, SOON).iter().map(|event| event.payload()).collect();
    assert_eq!(payloads, [6, 7]);
    let query = [("subject", all.as_str()), ("start", "last_per_subject"), ("limit", "10")];
    let batch = node.get(&target(&query)).text();
    assert_eq!(batch.matches("event: msg").count(), 3, "{batch}");
}

#[test]
fn a_stream_of_events_with_certain_headers_has_those_alone() {
    let node = Node::shared();
    let ns = node.namespace();
    let event = |n: u64, region: &str| json!({"subject": format!("{ns}.x"), "headers": {"Region": region, "kind": "order"}, "payload": n});
    let events: Vec<Value> = (1..=40).map(|n| event(n, if n % 10 == 0 { "eu" } else { "us" })).collect();
    assert_eq!(node.post(Value::from(events).to_string()).status, 202);
    let subject = format!("{ns}.x");
    let query = [("subject", subject.as_str()), ("start", "oldest"), ("header", "region:eu"), ("header", "kind:order")];
    let mut stream = node.subscribe(&query);
    let payloads: Vec<Value> = stream.events(4, SOON).iter().map(|event| event.payload()).collect();
    assert_eq!(payloads, [10, 20, 30, 40]);
    for n in [41, 50] {
        let body = event(n, if n == 50 { "eu" } else { "us" });
        assert_eq!(node.post(body.to_string()).status, 202);
    }
    assert_eq!(stream.next_event(SOON).payload(), 50);
    // The floor of a durable consumer passes what its filter leaves out.
    let mut group =
        node.subscribe(&[&query[..], &[("group", "w"), ("ack", "manual"), ("max_in_flight", "10")]].concat());
    for event in group.events(5, SOON) {
        node.ack(&group.consumer_id(), &event.event_id());
    }
    let floor = || node.consumer(&ns, "w").filter(|item| item["ack_floor"] == 42).map(drop);
    crate::harness::wait_for("the floor is at the end", Duration::from_secs(10), floor);
}
