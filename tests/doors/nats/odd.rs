//! What a client may not do, and what the server then says.

use std::io::Write as _;
use std::time::Duration;

use super::client::{Nats, address, options};
use crate::harness::node::Node;
use crate::harness::{SOON, ms, report};

/// What comes for these bytes after the PONG, and whether the server closes.
fn answer(node: &Node, bytes: &[u8]) -> (Option<String>, bool) {
    let mut client = Nats::connect(node);
    client.send_bytes(bytes);
    let line = client.try_line();
    let closed = line.is_none() || {
        // A connection that stays answers a PING.
        client.try_ping().is_none()
    };
    (line, closed)
}

#[test]
fn errors_of_the_protocol_have_their_texts_and_close_what_they_must() {
    let node = Node::start(&options());
    let long = format!("SUB {} 1\r\n", "x".repeat(5000));
    let endless = "x".repeat(9000);
    let cases: [(&str, &[u8], &str, bool); 14] = [
        ("unknown verb", b"HELLO\r\n", "Unknown Protocol Operation", true),
        ("a negative size", b"PUB a -1\r\n", "Unknown Protocol Operation", true),
        ("a huge size", b"PUB a 99999999999999999999\r\n", "Unknown Protocol Operation", true),
        ("no size", b"PUB a\r\n", "Unknown Protocol Operation", true),
        ("no line end behind the payload", b"PUB a 1\r\nxyz\r\n", "Unknown Protocol Operation", true),
        ("a payload that is too large", b"PUB a 1048577\r\n", "Maximum Payload Violation", true),
        ("headers larger than all", b"HPUB a 20 10\r\n", "Unknown Protocol Operation", true),
        ("a long line", long.as_bytes(), "maximum control line exceeded", true),
        ("a line without an end", endless.as_bytes(), "Unknown Protocol Operation", true),
        ("bad JSON", b"CONNECT {nonsense\r\n", "Unknown Protocol Operation", true),
        ("a strange protocol", b"CONNECT {\"protocol\":9}\r\n", "invalid client protocol", true),
        ("a wildcard in a publish", b"PUB a.* 1\r\nx\r\n", "Invalid Publish Subject", false),
        ("an empty token", b"SUB a..b 1\r\n", "Invalid Subject", false),
        ("a tail in the middle", b"SUB a.>.b 1\r\n", "Invalid Subject", false),
    ];
    let mut failures = Vec::new();
    for (name, bytes, text, closes) in cases {
        let (line, closed) = answer(&node, bytes);
        if line.as_deref() != Some(&*format!("-ERR '{text}'")) || closed != closes {
            failures.push(format!("{name}: {line:?}, closed: {closed}"));
        }
    }
    report("errors of the protocol", &failures);
}

#[test]
fn headers_need_a_connect_that_says_so() {
    let node = Node::start(&options());
    let mut client = Nats::greeted(address(&node));
    client.send("CONNECT {\"verbose\":false}\r\nHPUB a 12 12\r\n");
    assert_eq!(client.line(), "-ERR 'message headers not supported'");
    assert_eq!(client.try_line(), None);
}

#[test]
fn bytes_may_be_cut_anywhere() {
    let node = Node::start(&options());
    let text = "SUB foo 1\r\nPUB foo 5\r\nhello\r\nHPUB foo 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPING\r\n";
    for cut in 1..text.len() {
        let mut client = Nats::connect(&node);
        client.send_bytes(&text.as_bytes()[..cut]);
        std::thread::sleep(Duration::from_micros(300));
        client.send_bytes(&text.as_bytes()[cut..]);
        let payloads = [client.message().payload, client.message().payload];
        assert_eq!(payloads, ["hello", "hi"], "cut at {cut}");
        assert_eq!(client.line(), "PONG");
    }
}

#[test]
fn a_client_that_does_not_read_is_disconnected_and_others_are_not() {
    let node = Node::start(&options().env("ROLLBOOK_NATS__QUEUE_BYTES_MAX", "4MiB"));
    let mut slow = Nats::connect(&node);
    slow.send("SUB flood 1\r\n");
    slow.flush();
    let mut fast = Nats::connect(&node);
    fast.send("SUB other 1\r\n");
    fast.flush();
    let mut publisher = Nats::connect(&node);
    let payload = "x".repeat(100_000);
    for _ in 0..300 {
        publisher.publish("flood", "", "", &payload);
    }
    publisher.flush();
    publisher.publish("other", "", "", "still here");
    assert_eq!(fast.message().payload, "still here");
    crate::harness::wait_for("the slow client to be gone", SOON, || {
        (node.actors("nats_connection") == 2).then_some(())
    });
    let said = node.stderr() + &node.stdout();
    assert!(said.contains("a client that does not read is disconnected"), "{said}");
}

#[test]
fn a_client_that_answers_no_ping_is_disconnected() {
    let node = Node::start(&options().env("ROLLBOOK_NATS__PING_INTERVAL", "200ms"));
    let mut client = Nats::connect(&node);
    assert_eq!([client.line(), client.line()], ["PING", "PING"]);
    assert_eq!(client.line(), "-ERR 'Stale Connection'");
    assert_eq!(client.try_line(), None);
    let mut lively = Nats::connect(&node);
    for _ in 0..5 {
        assert_eq!(lively.line(), "PING");
        lively.send("PONG\r\n");
    }
}

#[test]
fn a_stopping_node_tells_its_clients_to_go() {
    let mut node = Node::start(&options().env("ROLLBOOK_NATS__LAME_DUCK", "500ms"));
    let mut client = Nats::connect(&node);
    node.signal_term();
    let line = client.line();
    assert!(line.starts_with("INFO ") && line.contains("\"ldm\":true"), "{line}");
    assert_eq!(client.try_line(), None);
    node.stopped();
}

#[test]
fn thousands_of_subscriptions_are_bounded() {
    let node = Node::start(&options().env("ROLLBOOK_NATS__SUBSCRIPTIONS_MAX", "10"));
    let mut client = Nats::connect(&node);
    for number in 0..11 {
        client.send(&format!("SUB s.{number} {number}\r\n"));
    }
    assert_eq!(client.line(), "-ERR 'maximum subscriptions exceeded'");
    client.flush();
}

#[test]
fn garbage_ends_its_own_connection_alone() {
    let node = Node::start(&options());
    let mut witness = Nats::connect(&node);
    let seed = 0x5eed_u64;
    let mut state = seed;
    for round in 0..50 {
        let mut garbage = Vec::new();
        for _ in 0..200 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            garbage.push((state >> 33) as u8);
        }
        let mut socket = std::net::TcpStream::connect(address(&node)).expect("a connection");
        // The server may have closed already.
        drop(socket.write_all(&garbage));
        drop(socket.set_read_timeout(Some(ms(1))));
        witness.flush();
        assert!(round < 50, "seed {seed}");
    }
}
