//! Settled events: the same bytes as before, also after a crash; and retention that gives disk back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::node::{Node, Options};
use crate::harness::sse::Frame;
use crate::harness::wait_for;

/// Settling begins some seconds after the last event; a slow machine needs more.
const SETTLED: Duration = Duration::from_secs(60);

/// Publishes `batches` of 500 events of about 1 KB, every tenth batch with one on a rare subject.
fn fill(node: &Node, namespace: &str, batches: usize) {
    let mut http = node.http();
    for batch in 0..batches {
        let item = |n: usize| {
            let subject = if n == 0 && batch % 10 == 0 { "rare" } else { "usual" };
            json!({"subject": format!("{namespace}.{subject}"), "payload": {"batch": batch, "n": n, "pad": "x".repeat(900)}})
        };
        let events: Vec<Value> = (0..500).map(item).collect();
        assert_eq!(http.post(Value::Array(events).to_string()).status, 202, "batch {batch}");
    }
}

fn namespace(node: &Node, name: &str) -> Value {
    node.web("GET", &format!("/api/namespaces/{name}"), "").json()
}

fn await_settled(node: &Node, name: &str) -> Value {
    wait_for(&format!("{name} to be settled"), SETTLED, || {
        let now = namespace(node, name);
        (now["settled_index"].as_i64() == now["next_index"].as_i64().map(|next| next - 1)).then_some(now)
    })
}

fn texts(frames: &[Frame]) -> Vec<String> {
    frames.iter().map(|frame| frame.text().to_owned()).collect()
}

#[test]
fn settled_events_are_the_same_as_before_and_after_a_kill() {
    let mut node = Node::start(&Options::new());
    fill(&node, "app", 40);
    let bound = Duration::from_secs(30);
    let rare = node.replay("app.rare").events(4, bound);
    let usual = node.replay("app.**").events(20_000, bound);
    let settled = await_settled(&node, "app");
    assert!(settled["disk_bytes"].as_i64() < Some(5_000_000), "compressed: {settled}");
    for round in ["settled", "settled and killed"] {
        assert_eq!(texts(&node.replay("app.rare").events(4, bound)), texts(&rare), "{round}");
        assert_eq!(texts(&node.replay("app.**").events(20_000, bound)), texts(&usual), "{round}");
        let middle = usual[9_999].event_id();
        let query = [("subject", "app.**"), ("start", middle.as_str())];
        assert_eq!(node.subscribe(&query).next_event(bound).index(), 10_001, "{round}");
        node.kill9();
        node.restart();
    }
    assert_eq!(node.publish("app.usual", "1").index, 20_001, "the numbering goes on");
}

#[test]
fn a_trimmed_namespace_gives_its_disk_back_while_another_keeps_everything() {
    let node = Node::start(&Options::new());
    fill(&node, "short", 20);
    fill(&node, "long", 20);
    let before = await_settled(&node, "short");
    await_settled(&node, "long");
    assert!(before["disk_bytes"].as_i64() > Some(10_000), "{before}");
    let patched = node.web("PATCH", "/api/namespaces/short", "{\"retention\":{\"max_events\":10}}");
    assert_eq!(patched.status, 200, "{}", patched.text());
    wait_for("the disk of short to be given back", SETTLED, || {
        let now = namespace(&node, "short");
        (now["events"] == 10 && now["disk_bytes"].as_i64() < before["disk_bytes"].as_i64().map(|bytes| bytes / 2))
            .then_some(())
    });
    let bound = Duration::from_secs(30);
    assert_eq!(node.replay("short.**").next_event(bound).index(), 9_991);
    assert_eq!(node.replay("long.**").events(10_000, bound).last().map(Frame::index), Some(10_000));
}
