//! Definitions, and what clients are answered.

use serde_json::{Value, json};

use super::client::{Hms, address, http, kind, op, options};
use crate::harness::node::Node;

#[test]
fn a_definition_is_added_changed_listed_and_removed() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    assert_eq!(client.do_(op::LIST, ""), Ok(json!([])));
    let sent = json!({"_": ["add", "x", "app1"], "start": "node .", "limit": 2, "env": {}, "tags": ["web"]});
    assert_eq!(client.ask(op::ADD, "app1", &sent), Ok(Value::Null));
    let expected = json!({"id": "app1", "start": "node .", "limit": 2, "env": {}, "tags": ["web"]});
    assert_eq!(client.do_(op::GET, "app1"), Ok(expected.clone()));
    assert_eq!(client.ask(op::ADD, "app1", &sent), Err("Service already exist".to_owned()));
    assert_eq!(client.ask(op::ADD, "app.0-b", &Value::Null), Ok(Value::Null), "a definition with nothing in it");
    assert_eq!(client.ask(op::UPDATE, "app1", &json!({"env": {"A": "1"}, "limit": false})), Ok(Value::Null));
    let changed = json!({"id": "app1", "start": "node .", "limit": false, "env": {"A": "1"}, "tags": ["web"]});
    assert_eq!(client.do_(op::LIST, ""), Ok(json!([changed, {"id": "app.0-b"}])), "in the order of adding");
    assert_eq!(client.do_(op::REMOVE, "app1"), Ok(Value::Null));
    assert_eq!(client.do_(op::REMOVE, "app1"), Ok(Value::Null), "what is not there is removed too");
    assert_eq!(client.do_(op::GET, "app1"), Err("Service not found".to_owned()));
}

#[test]
fn names_that_are_none_and_things_that_are_not_there_have_their_texts() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    for name in ["a b", "", "ä", "a/b", "a_b"] {
        let refused = client.ask(op::ADD, name, &json!({}));
        assert_eq!(refused, Err("Service name should be alphanumericish".to_owned()), "{name:?}");
    }
    for (what, operation) in [
        ("get", op::GET),
        ("update", op::UPDATE),
        ("start", op::START),
        ("stop", op::STOP),
        ("restart", op::RESTART),
        ("sync", op::SYNC),
        ("subscribe", op::SUBSCRIBE),
    ] {
        let payload = if operation == op::UPDATE { json!({}) } else { Value::Null };
        assert_eq!(client.ask(operation, "gone", &payload), Err("Service not found".to_owned()), "{what}");
    }
    assert_eq!(client.do_(op::UNSUBSCRIBE, "gone"), Ok(Value::Null));
    assert_eq!(client.do_(op::PS, ""), Ok(json!([])), "no docks");
}

#[test]
fn the_handshake_comes_first_and_once() {
    let node = Node::start(&options());
    let mut client = Hms::raw(address(&node));
    let unsupported = Err("Command is not supported".to_owned());
    assert_eq!(client.do_(op::LIST, ""), unsupported);
    for (options, error) in [
        (json!({"type": "client", "protocol": 2}), "Server and client do not speak the same protocol"),
        (json!({"type": "client"}), "Server and client do not speak the same protocol"),
        (json!(5), "Server and client do not speak the same protocol"),
        (json!({"type": "robot", "protocol": 1}), "Invalid handshake"),
    ] {
        assert_eq!(client.ask(op::HANDSHAKE, "", &options), Err(error.to_owned()), "{options}");
    }
    let known = json!({"type": "terminal", "version": "0.4.4"});
    assert_eq!(client.ask(op::HANDSHAKE, "", &json!({"type": "client", "version": "1", "protocol": 1})), Ok(known));
    assert_eq!(client.do_(op::LIST, ""), Ok(json!([])));
    assert_eq!(client.ask(op::HANDSHAKE, "", &json!({"type": "client", "protocol": 1})), unsupported);
}

#[test]
fn requests_of_one_connection_are_done_in_their_order() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    let numbers: Vec<u16> = (0..20)
        .flat_map(|number| {
            let id = format!("app{number}");
            [
                client.request(op::ADD, &id, b"{}"),
                client.request(op::UPDATE, &id, b"{\"start\":\"x\"}"),
                client.request(op::GET, &id, b""),
            ]
        })
        .collect();
    for (place, number) in numbers.into_iter().enumerate() {
        let answered = client.answered(number).expect("each finds what came before");
        if place % 3 == 2 {
            assert!(String::from_utf8_lossy(&answered).contains(r#""start":"x""#), "{place}");
        }
    }
}

#[test]
fn a_message_that_wants_no_answer_is_done_all_the_same() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    client.tell(op::ADD, "app1", b"{}");
    assert_eq!(client.do_(op::GET, "app1"), Ok(json!({"id": "app1"})));
    assert!(client.is_quiet(std::time::Duration::from_millis(50)));
}

#[test]
fn a_ping_is_answered_before_the_handshake_too() {
    let node = Node::start(&options());
    let mut client = Hms::raw(address(&node));
    client.send(&super::client::frame(kind::PING, 77, b"ignored"));
    let pong = client.frame();
    assert_eq!((pong.kind, pong.id, pong.body), (kind::RESPONSE, 77, Vec::new()));
}

#[test]
fn the_port_speaks_some_http() {
    let node = Node::start(&options());
    let address = address(&node);
    let answer = http(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhms-terminal 0.4.4\n"), "{answer}");
    let answer = http(address, "GET /a/b HTTP/1.1\r\nHost: x\r\n\r\n", b"");
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("cannot find /a/b"), "{answer}");
    let answer = http(address, "GET /gone HTTP/1.1\r\nHost: x\r\n\r\n", b"");
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("Service not found"), "{answer}");
    Hms::client(&node).ask(op::ADD, "app1", &json!({})).expect("added");
    let answer = http(address, "GET /app1 HTTP/1.1\r\nHost: x\r\n\r\n", b"");
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("No builds found"), "{answer}");
}
