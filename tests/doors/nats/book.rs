//! Subjects of namespaces: recorded, acknowledged, and delivered after their commit.

use serde_json::{Value, json};

use super::client::{Nats, options};
use crate::harness::node::Node;
use crate::harness::{SOON, ms};

fn node() -> Node {
    Node::start(&options().arg("--namespaces").arg("app,other"))
}

#[test]
fn a_message_to_a_namespace_is_an_event_with_an_acknowledgement() {
    let node = node();
    let mut client = Nats::connect(&node);
    let first = client.record("app.orders.created", "", r#"{"n":1}"#);
    assert_eq!((&first["stream"], &first["seq"]), (&json!("app"), &json!(1)), "{first}");
    let id = first["event_id"].as_str().unwrap_or_else(|| panic!("no id: {first}")).to_owned();
    let mut replay = node.replay("app.>");
    let event = replay.next_event(SOON);
    assert_eq!((event.event_id(), &event.json()["payload"]), (id, &json!({ "n": 1 })));
    // Without a reply subject too.
    client.publish("app.orders.created", "", "", "2");
    assert_eq!(replay.next_event(SOON).json()["payload"], json!(2));
}

#[test]
fn a_message_id_makes_a_repeated_message_a_duplicate() {
    let node = node();
    let mut client = Nats::connect(&node);
    let first = client.record("app.a", "Nats-Msg-Id: k1\r\n", "1");
    let again = client.record("app.a", "Nats-Msg-Id: k1\r\n", "1");
    assert_eq!((&again["seq"], &again["duplicate"]), (&first["seq"], &json!(true)), "{again}");
    let other = client.record("app.a", "Nats-Msg-Id: k2\r\n", "1");
    assert_eq!((&other["seq"], &other["duplicate"]), (&json!(2), &Value::Null), "{other}");
}

#[test]
fn payloads_of_any_bytes_come_out_as_they_went_in() {
    let node = node();
    let mut reader = Nats::connect(&node);
    reader.send("SUB app.> 1\r\n");
    reader.flush();
    let mut client = Nats::connect(&node);
    for payload in [r#"{"a": [1, 2.50]}"#, "plain text", r#""a string""#, " 1 ", "", "null", "é€"] {
        client.publish("app.x", "", "", payload);
        assert_eq!(reader.message().payload, payload);
    }
    client.send("PUB app.x 3\r\n");
    // Not UTF-8.
    client.send_bytes(&[0xff, 0x00, 0xfe, b'\r', b'\n']);
    assert_eq!(reader.message().payload, "[255, 0, 254]");
    let mut replay = node.replay("app.>");
    let stored: Vec<Value> = (0..8).map(|_| replay.next_event(SOON).json()).collect();
    assert_eq!(stored[0]["payload"], json!({ "a": [1, 2.5] }));
    assert_eq!(
        (&stored[1]["payload"], &stored[1]["headers"]),
        (&json!("plain text"), &json!({ "Bus-Encoding": "text" }))
    );
    assert_eq!((&stored[2]["payload"], &stored[2]["headers"]), (&json!("a string"), &Value::Null));
    assert_eq!((&stored[7]["payload"], &stored[7]["headers"]), (&json!("/wD+"), &json!({ "Bus-Encoding": "base64" })));
}

#[test]
fn headers_are_headers_of_the_event() {
    let node = node();
    let mut reader = Nats::connect(&node);
    reader.send("SUB app.h 7\r\n");
    reader.flush();
    let mut client = Nats::connect(&node);
    let stored = client.record("app.h", "Trace: a\r\nTrace: b\r\nother: c\r\n", "1");
    assert!(stored["error"].is_null(), "{stored}");
    let event = node.replay("app.>").next_event(SOON).json();
    assert_eq!(event["headers"], json!({ "Trace": ["a", "b"], "other": "c" }));
    let live = reader.message();
    assert_eq!((&*live.sid, &*live.headers), ("7", "NATS/1.0\r\nTrace: a\r\nTrace: b\r\nother: c\r\n\r\n"));
}

#[test]
fn conditions_that_are_not_checked_are_refused() {
    let node = node();
    let mut client = Nats::connect(&node);
    for header in
        ["Nats-Expected-Last-Sequence: 0", "Nats-Expected-Last-Subject-Sequence: 0", "Nats-Expected-Stream: other"]
    {
        let answer = client.record("app.a", &format!("{header}\r\n"), "1");
        assert_eq!(answer["error"]["code"], json!(400), "{header}: {answer}");
    }
    let fine = client.record("app.a", "Nats-Expected-Stream: app\r\n", "1");
    assert_eq!(fine["seq"], json!(1), "{fine}");
}

#[test]
fn events_of_other_doors_reach_live_subscriptions_once_and_duplicates_do_not() {
    let node = node();
    let mut client = Nats::connect(&node);
    client.send("SUB app.> 1\r\nSUB app.a workers 2\r\nSUB other.> 3\r\n");
    client.flush();
    node.publish("app.a", "1");
    let mut sids = [client.message().sid, client.message().sid];
    sids.sort();
    assert_eq!(sids, ["1", "2"]);
    client.publish("app.b", "", "Nats-Msg-Id: k\r\n", "2");
    client.publish("app.b", "", "Nats-Msg-Id: k\r\n", "2");
    assert_eq!(client.message().subject, "app.b");
    assert!(client.is_quiet(ms(200)));
}

#[test]
fn reserved_namespaces_take_no_messages() {
    let node = node();
    let mut client = Nats::connect(&node);
    for subject in ["roll.service.online", "_audit.x"] {
        if node.web("GET", &format!("/api/namespaces/{}", subject.split('.').next().unwrap_or_default()), "").status
            == 200
        {
            let answer = client.record(subject, "", "1");
            assert!(!answer["error"].is_null(), "{subject}: {answer}");
        }
    }
}

#[test]
fn the_api_of_jetstream_names_namespaces_and_refuses_the_rest() {
    let node = node();
    let mut client = Nats::connect(&node);
    client.record("app.a", "", "1");
    let names = client.record("$JS.API.STREAM.NAMES", "", "");
    let found: Vec<&str> = names["streams"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(found.contains(&"app") && !found.iter().any(|name| name.starts_with('_')), "{names}");
    let info = client.record("$JS.API.STREAM.INFO.app", "", "");
    assert_eq!((&info["config"]["name"], &info["state"]["last_seq"]), (&json!("app"), &json!(1)), "{info}");
    let none = client.record("$JS.API.STREAM.INFO.nope", "", "");
    assert_eq!((&none["error"]["code"], &none["error"]["err_code"]), (&json!(404), &json!(10_059)), "{none}");
    let refused = client.record("$JS.API.CONSUMER.CREATE.app", "", "{}");
    assert_eq!(refused["error"]["code"], json!(503), "{refused}");
    let account = client.record("$JS.API.INFO", "", "");
    assert!(account["streams"].as_u64().is_some_and(|count| count >= 1), "{account}");
}
