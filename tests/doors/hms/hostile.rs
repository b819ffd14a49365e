//! Bytes that no peer should send.

use std::net::TcpStream;

use serde_json::{Value, json};

use super::client::{Hms, address, frame, kind, message, op, options};
use crate::harness::node::Node;
use crate::harness::report;

/// Bytes from hexadecimal digits.
fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hexadecimal")).collect()
}

#[test]
fn every_malformed_vector_leaves_the_node_and_its_clients_alone() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("vectors/malformed.json")).expect("JSON");
    let node = Node::start(&options());
    let mut witness = Hms::client(&node);
    let mut failures = Vec::new();
    for vector in &vectors {
        let (name, sent) =
            (vector["name"].as_str().unwrap_or_default(), bytes(vector["hex"].as_str().unwrap_or_default()));
        for known in [false, true] {
            let mut peer = if known { Hms::client(&node) } else { Hms::raw(address(&node)) };
            let mut written = true;
            match vector["mode"].as_str() {
                Some("bytes") => {
                    for byte in &sent {
                        written &= std::io::Write::write_all(&mut peer.socket, &[*byte]).is_ok();
                    }
                }
                _ => written &= std::io::Write::write_all(&mut peer.socket, &sent).is_ok(),
            }
            let _ = written;
            if witness.do_(op::LIST, "").is_err() {
                failures.push(format!("{name}: another client"));
            }
        }
        if node.web("GET", "/healthz", "").status != 200 {
            failures.push(format!("{name}: the node"));
        }
    }
    assert!(vectors.len() >= 38, "{} vectors", vectors.len());
    report("malformed vectors", &failures);
}

#[test]
fn requests_that_cannot_be_read_are_answered_and_messages_are_dropped() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("a body of one byte", vec![1], "Message is too short"),
        ("no body", vec![], "Message is too short"),
        ("an unknown operation", message(99, "x", b""), "Command is not supported"),
        ("an add that is no JSON", message(op::ADD, "app1", b"{oops"), "Service is not valid JSON"),
        ("an add of a number", message(op::ADD, "app1", b"5"), "Service must be an object"),
        ("an update of nothing", message(op::UPDATE, "app1", b""), "Service is not valid JSON"),
    ];
    for (number, (name, body, text)) in (500_u16..).zip(cases) {
        client.send(&frame(kind::MESSAGE, 0, &body));
        client.send(&frame(kind::REQUEST, number, &body));
        assert_eq!(client.answered(number), Err(text.to_owned()), "{name}");
    }
    assert_eq!(client.do_(op::LIST, ""), Ok(json!([])));
}

#[test]
fn a_frame_beyond_the_bound_closes_its_connection_before_it_comes() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    client.send(&[1, 0, 0, 0xff, 0xff, 0xff, 0x7f]);
    assert!(client.is_closed());
    let mut other = Hms::client(&node);
    assert_eq!(other.do_(op::LIST, ""), Ok(json!([])));
}

#[test]
fn answers_that_nobody_waits_for_do_nothing() {
    let node = Node::start(&options());
    let mut dock = Hms::dock(&node, "d1", &[]);
    for number in [0_u16, 1, 77, u16::MAX] {
        dock.answer(number, b"[]");
        dock.fail(number, "no");
    }
    let mut client = Hms::client(&node);
    let number = client.request(op::PS, "", b"");
    let (id, _) = dock.asked();
    dock.answer(id, br#"{"id":"d1","list":[]}"#);
    dock.answer(id, br#"{"id":"d1","list":[]}"#);
    assert!(client.answered(number).is_ok());
    let number = client.request(op::PS, "", b"");
    dock.obey();
    assert!(client.answered(number).is_ok(), "the second answer has taken the number of another request");
}

#[test]
fn what_a_dock_may_not_do_is_refused() {
    let node = Node::start(&options());
    let mut dock = Hms::dock(&node, "d1", &[]);
    for operation in [op::LIST, op::ADD, op::START, op::PS, op::SUBSCRIBE] {
        let refused = dock.ask(operation, "app1", &json!({}));
        assert_eq!(refused, Err("Command is not supported".to_owned()), "{operation}");
    }
}

#[test]
fn a_client_cannot_speak_for_a_dock() {
    let node = Node::start(&options());
    let mut liar = Hms::client(&node);
    let mut follower = Hms::client(&node);
    follower.do_(op::SUBSCRIBE, "*").expect("subscribed");
    liar.tell(op::STDOUT, "app1@d1", b"lies");
    liar.tell(op::SPAWN, "app1@d1", b"1");
    assert_eq!(liar.do_(op::LIST, ""), Ok(json!([])));
    assert!(follower.is_quiet(crate::harness::ms(100)));
}

#[test]
fn a_port_that_is_spoken_to_in_a_foreign_way_closes() {
    let node = Node::start(&options());
    for first in [&b"\x16\x03\x01"[..], b"hello", b"\xff"] {
        let mut peer = Hms::raw(address(&node));
        peer.send(first);
        assert!(peer.is_closed(), "{first:?}");
    }
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    let node = Node::start(&options());
    for round in 0..50 {
        let mut dock = Hms::dock(&node, &format!("d{round}"), &[]);
        let mut client = Hms::client(&node);
        client.request(op::PS, "", b"");
        dock.asked();
        drop(TcpStream::connect(address(&node)).expect("a connection"));
    }
    crate::harness::wait_for("no connections", crate::harness::SOON, || {
        (node.actors("hms_connection") == 0).then_some(())
    });
    assert_eq!(Hms::client(&node).do_(op::PS, ""), Ok(json!([])));
}
