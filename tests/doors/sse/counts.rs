//! What counts as a delivery, and that nobody can evade the count: neither clients, nor members, nor nodes that die.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::harness::node::{Node, Options, target};
use crate::harness::sse::Sse;
use crate::harness::{SOON, ms, wait_for};

fn member(node: &Node, subject: &str, kind: &str, name: &str) -> Sse {
    let query = [
        ("subject", subject),
        ("start", "oldest"),
        ("ack", "manual"),
        ("redelivery", "30s"),
        ("redelivery_count", "3"),
        (kind, name),
    ];
    node.subscribe(&query)
}

/// Waits until a consumer has no members.
fn deserted(node: &Node, ns: &str, name: &str) {
    wait_for("no member is left", SOON, || {
        let item = node.consumer(ns, name)?;
        item["members"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
}

/// The dead letters of a namespace: index of the event, deliveries, consumer, group.
fn letters(node: &Node, ns: &str, count: usize) -> Vec<(i64, u64, Value, Value)> {
    let mut stream = node.replay(&format!("_dead_.{ns}.**"));
    let events = stream.events(count, SOON);
    stream.quiet(ms(200));
    let of = |body: Value| {
        let number = |name: &str| body[name].as_i64().unwrap_or(-1);
        (number("index"), number("deliveries").unsigned_abs(), body["consumer"].clone(), body["group"].clone())
    };
    events.iter().map(|event| of(event.payload())).collect()
}

#[test]
fn an_event_that_kills_its_consumer_is_given_up_after_its_count() {
    let node = Node::shared();
    for kind in ["consumer", "group"] {
        let ns = node.namespace();
        let subject = format!("{ns}.x");
        node.publish(&subject, "\"poison\"");
        node.publish(&subject, "\"next\"");
        for nth in 1..=3 {
            let mut stream = member(&node, &subject, kind, "w");
            assert_eq!(stream.next_event(SOON).payload(), "poison", "{kind}, delivery {nth}");
            drop(stream);
            deserted(&node, &ns, "w");
        }
        let name = |of: &str| if kind == of { Value::from("w") } else { Value::Null };
        assert_eq!(letters(&node, &ns, 1), [(1, 3, name("consumer"), name("group"))]);
        let mut stream = member(&node, &subject, kind, "w");
        let event = stream.next_event(SOON);
        assert_eq!(event.payload(), "next");
        assert_eq!(node.ack(&stream.consumer_id(), &event.event_id()).status, 202);
        stream.quiet(ms(100));
    }
}

#[test]
fn it_does_not_matter_which_member_dies_of_it_nor_that_another_takes_its_place() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    (1..=2).for_each(|n| drop(node.publish(&subject, &n.to_string())));
    let mut first = member(&node, &subject, "group", "g");
    assert_eq!(first.next_event(SOON).index(), 1);
    let mut healthy = member(&node, &subject, "group", "g");
    let event = healthy.next_event(SOON);
    assert_eq!(event.index(), 2);
    drop(first);
    node.ack(&healthy.consumer_id(), &event.event_id());
    assert_eq!(healthy.next_event(SOON).index(), 1, "the second delivery");
    let mut third = member(&node, &subject, "group", "g");
    third.quiet(ms(100));
    drop(healthy);
    assert_eq!(third.next_event(SOON).index(), 1, "the third and last one");
    drop(third);
    assert_eq!(letters(&node, &ns, 1).first().map(|letter| (letter.0, letter.1)), Some((1, 3)));

    let ns = node.namespace();
    let subject = format!("{ns}.x");
    (1..=2).for_each(|n| drop(node.publish(&subject, &n.to_string())));
    let mut streams: Vec<Sse> = Vec::new();
    for _ in 1..=3 {
        // Each takes the place of the one before, which hangs.
        let mut stream = member(&node, &subject, "consumer", "one");
        assert_eq!(stream.next_event(SOON).index(), 1);
        streams.push(stream);
    }
    let mut last = member(&node, &subject, "consumer", "one");
    assert_eq!(last.next_event(SOON).index(), 2);
    assert_eq!(letters(&node, &ns, 1).first().map(|letter| (letter.0, letter.1)), Some((1, 3)));
}

#[test]
fn a_node_that_dies_with_its_clients_forgets_no_delivery() {
    let mut node = Node::start(&Options::new());
    node.publish("app.x", "\"poison\"");
    node.publish("app.x", "\"next\"");
    for nth in 1..=3 {
        let mut stream = member(&node, "app.x", "consumer", "w");
        assert_eq!(stream.next_event(SOON).payload(), "poison", "delivery {nth}");
        // Without a pause: the count was durable before the delivery.
        node.kill9();
        node.restart();
    }
    let mut stream = member(&node, "app.x", "consumer", "w");
    assert_eq!(stream.next_event(SOON).payload(), "next");
    assert_eq!(letters(&node, "app", 1), [(1, 3, "w".into(), Value::Null)]);
}

#[test]
fn a_node_that_stops_is_no_failure_of_its_clients() {
    let mut node = Node::start(&Options::new());
    node.publish("app.x", "1");
    for nth in 1..=5 {
        let mut stream = member(&node, "app.x", "consumer", "w");
        assert_eq!(stream.next_event(SOON).index(), 1, "time {nth}");
        node.terminate();
        node.restart();
    }
    assert_eq!(letters(&node, "app", 0), []);
}

/// A client that asks and reads nothing.
fn sleeper(node: &Node, query: &[(&str, &str)]) -> TcpStream {
    let mut socket = TcpStream::connect(node.log).expect("a connection");
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", target(query));
    socket.write_all(request.as_bytes()).expect("a request");
    socket
}

/// Bytes of an event that no buffer between node and client takes.
const LARGE: usize = 7 << 20;

fn publish_large(node: &Node, subject: &str, count: usize) {
    let large = format!("\"{}\"", "x".repeat(LARGE));
    (0..count).for_each(|_| drop(node.publish(subject, &large)));
}

#[test]
fn a_client_that_sleeps_makes_no_dead_letters_and_has_its_events_when_it_wakes() {
    let node = Node::start(&Options::new());
    for name in [None, Some(("consumer", "c")), Some(("group", "g"))] {
        let ns = name.map_or("none", |(kind, _)| kind);
        let subject = format!("{ns}.x");
        publish_large(&node, &subject, 2);
        let mut query = vec![
            ("subject", subject.as_str()),
            ("start", "oldest"),
            ("ack", "manual"),
            ("redelivery", "100ms"),
            ("redelivery_count", "2"),
        ];
        query.extend(name);
        let mut asleep = sleeper(&node, &query);
        std::thread::sleep(ms(2000));
        assert_eq!(letters(&node, ns, 0), [], "{name:?}");
        asleep.set_read_timeout(Some(SOON)).expect("a timeout");
        let (mut read, mut buffer) = (0_usize, vec![0; 1 << 20]);
        while read <= LARGE {
            read += asleep.read(&mut buffer).expect("the rest of the first event");
        }
        assert_eq!(letters(&node, ns, 0), [], "{name:?}");
    }
}

#[test]
fn without_acknowledgement_only_what_was_written_is_done_with() {
    let node = Node::start(&Options::new());
    publish_large(&node, "app.x", 4);
    let query = [("subject", "app.x"), ("start", "oldest"), ("consumer", "tail")];
    let asleep = sleeper(&node, &query);
    std::thread::sleep(ms(1000));
    drop(asleep);
    deserted(&node, "app", "tail");
    let mut stream = node.subscribe(&query);
    let rest: Vec<i64> = stream.events(2, SOON).iter().map(|event| event.index()).collect();
    assert!(matches!(rest[..], [1, 2] | [2, 3]), "lost more than what was on its way: {rest:?}");
}
