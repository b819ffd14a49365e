//! Events that wait for their time, as the doors beside `sse` publish them.

use serde_json::{Value, json};

use super::nats::client::{Nats, options};
use crate::harness::bus::BusClient;
use crate::harness::node::Node;
use crate::harness::socket::Socket;
use crate::harness::{SOON, report};

/// Whether an answer says under which id the event waits, and nothing of an index.
fn waits(answer: &Value) -> bool {
    let is_id = answer["delayed_id"].as_str().is_some_and(|id| id.starts_with("d_"));
    is_id && answer.get("index").is_none() && answer.get("event_id").is_none()
}

#[test]
fn every_door_publishes_events_that_wait_and_says_what_is_wrong() {
    let node = Node::start(&options().arg("--namespaces").arg("app"));
    let (socket, bus) = (Socket::consumer(node.web, "client"), BusClient::connect(node.web));
    let mut nats = Nats::connect(&node);
    let mut failures = Vec::new();
    let mut expect = |what: &str, is_so: bool, answer: &Value| {
        if !is_so {
            failures.push(format!("{what}: {answer}"));
        }
    };
    let send = |id: &str, more: Value| {
        let mut frame = json!({ "type": "publish", "id": id, "subject": "app.ws" });
        frame.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        socket.send(&frame);
        socket.take_where("an answer", |frame| frame["id"] == id)
    };
    let one = send("1", json!({ "delay": "700ms", "key": "k" }));
    expect("websocket", one["type"] == "published" && waits(&one) && one["delayed_until"].is_string(), &one);
    let again = send("2", json!({ "delay": 700, "key": "k" }));
    let known = again["code"] == "conflict" && again["data"]["delayed_id"] == one["delayed_id"];
    expect("websocket, repeated", known, &again);
    let both = send("3", json!({ "delay": 700, "at": "2030-01-01T00:00:00Z" }));
    expect("websocket, both", both["type"] == "error" && both["code"] == "bad_message", &both);
    let odd = send("4", json!({ "delay": "soon" }));
    expect("websocket, odd", odd["type"] == "error", &odd);
    let two = bus.ask("book:publish", &json!({ "subject": "app.io", "delay": 700, "key": "k" }));
    expect("socketio", waits(&two["data"]) || waits(&two), &two);
    let again = bus.ask("book:publish", &json!({ "subject": "app.io", "delay": "1s", "key": "k" }));
    expect("socketio, repeated", again["error"]["delayed_id"].is_string(), &again);
    let both = bus.ask("book:publish", &json!({ "subject": "app.io", "delay": "1s", "at": "2030-01-01T00:00:00Z" }));
    expect("socketio, both", both["error"]["code"] == "bad_request", &both);
    let three = nats.record("app.nats", "Rollbook-Delay: 700ms\r\nNats-Msg-Id: k\r\ntenant: a\r\n", "3");
    expect("nats", waits(&three) && three["seq"] == 0, &three);
    let again = nats.record("app.nats", "Rollbook-Delay: 700ms\r\nNats-Msg-Id: k\r\n", "3");
    expect("nats, repeated", waits(&again) && again["duplicate"] == true, &again);
    for header in [
        "Rollbook-Delay: soon\r\n",
        "Rollbook-At: soon\r\n",
        "Rollbook-At: 2030-01-01T00:00:00Z\r\nRollbook-Delay: 1s\r\n",
    ] {
        let refused = nats.record("app.nats", header, "3");
        expect(header, refused["error"]["code"] == 400, &refused);
    }
    let past = nats.record("app.nats", "Rollbook-At: 2001-01-01T00:00:00Z\r\n", "0");
    expect("nats, past", past["seq"] == 1, &past);
    report("doors", &failures);
    let events = node.replay("app.>").events(4, SOON);
    let mut subjects: Vec<String> = events[1..].iter().map(|event| event.subject()).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["app.io", "app.nats", "app.ws"]);
    let of_nats = events[1..].iter().find(|event| event.subject() == "app.nats").expect("an event").json();
    assert_eq!(of_nats["headers"], json!({ "tenant": "a" }), "what the door asks for is no header of the event");
}
