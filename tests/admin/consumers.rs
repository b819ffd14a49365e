//! What the operator does with durable consumers: pause, resume, reset.

use serde_json::{Value, json};

use crate::harness::node::{Node, Options};
use crate::harness::{SOON, ms, wait_for};

const PATH: &str = "/api/consumers/app/c";

fn set(node: &Node, what: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = node.web("POST", &format!("{PATH}/{what}"), &body);
    assert_eq!(answer.status, 200, "{what} {body}: {}", answer.text());
    answer.json()
}

#[test]
fn a_paused_consumer_gets_nothing_until_it_goes_on_and_loses_nothing() {
    let mut node = Node::start(&Options::new());
    let publish = |node: &Node, n: u64| {
        let body = json!({ "subject": "app.x", "payload": n }).to_string();
        assert_eq!(node.post(body).status, 202);
    };
    publish(&node, 1);
    let query = [("subject", "app.>"), ("start", "oldest"), ("consumer", "c")];
    let mut stream = node.subscribe(&query);
    assert_eq!(stream.events(1, SOON)[0].payload(), 1);
    assert_eq!(set(&node, "pause", &json!(null))["paused"], true);
    // It is noticed within a second.
    std::thread::sleep(ms(1500));
    publish(&node, 2);
    stream.quiet(ms(1500));
    node.kill9();
    node.restart();
    assert_eq!(node.web("GET", PATH, "").json()["paused"], true, "also after a restart");
    let mut stream = node.subscribe(&query);
    stream.quiet(ms(500));
    assert_eq!(set(&node, "resume", &json!(null))["paused"], false);
    assert_eq!(stream.events(1, SOON)[0].payload(), 2);
}

#[test]
fn a_reset_begins_anew_where_it_says_whatever_was_acknowledged() {
    let node = Node::start(&Options::new());
    let mut ids = Vec::new();
    for n in 1..=5 {
        let body = json!({ "subject": "app.x", "payload": n }).to_string();
        ids.push(node.post(body).header("x-bus-event-id").unwrap_or_default().to_owned());
    }
    let query = [("subject", "app.>"), ("start", "oldest"), ("consumer", "c")];
    let mut stream = node.subscribe(&query);
    assert_eq!(stream.events(5, SOON).len(), 5);
    wait_for("the cursor at the end", SOON, || (node.web("GET", PATH, "").json()["lag"] == 0).then_some(()));
    for (to, first) in [(json!("oldest"), 1), (json!(3), 3), (json!(ids[3]), 4)] {
        set(&node, "reset", &json!({ "to": to }));
        let mut stream = node.subscribe(&query);
        assert_eq!(stream.events(1, SOON)[0].payload(), first, "{to}");
    }
    assert_eq!(set(&node, "reset", &json!({ "to": "newest" }))["lag"], 0);
    for wrong in [json!({}), json!({ "to": "soon" }), json!({ "to": 0 }), json!({ "to": -1 }), json!({ "to": [] })] {
        assert_eq!(node.web("POST", &format!("{PATH}/reset"), &wrong.to_string()).status, 400, "{wrong}");
    }
    for none in ["/api/consumers/app/none/pause", "/api/consumers/none/c/pause"] {
        assert_eq!(node.web("POST", none, "").status, 404, "{none}");
    }
}
