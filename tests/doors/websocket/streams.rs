//! Many streams of the book on one connection, and events that are larger than its queue: a client that reads is never
//! taken for one that does not.

use serde_json::{Value, json};

use super::rfc6455;
use crate::harness::bus::BusClient;
use crate::harness::node::{Node, Options};
use crate::harness::socket::Socket;
use crate::harness::{SOON, ms, wait_for};

/// Publishes so many events of ten kilobytes.
fn fill(node: &Node, subject: &str, count: usize) {
    let padding = "x".repeat(10_000);
    let events: Vec<Value> =
        (0..count).map(|n| json!({ "subject": subject, "payload": { "n": n, "x": padding } })).collect();
    assert_eq!(node.post(Value::from(events).to_string()).status, 202);
}

/// Publishes an event whose payload is a text of so many bytes.
fn large(node: &Node, subject: &str, bytes: usize) {
    node.publish(subject, &Value::from("x".repeat(bytes)).to_string());
}

#[test]
fn a_hundred_replays_on_one_connection_do_not_close_it() {
    let node = Node::start(&Options::new());
    fill(&node, "app.x", 30);
    let client = Socket::consumer(node.web, "client");
    for n in 0..100 {
        client.send(&json!({ "type": "subscribe", "id": format!("s{n}"), "subject": "app.>", "start": "oldest" }));
    }
    // What is answered in between is what finds the queue full, if it is.
    for n in 0..100 {
        client.send(&json!({ "type": "ping" }));
        for event in 0..30 {
            let id = format!("s{n}");
            let one = client.take_where("a delivery", |frame| frame["type"] == "delivery" && frame["id"] == *id);
            assert_eq!(one["event"]["payload"]["n"], event);
        }
        client.next("pong");
    }
    client.send(&json!({ "type": "subscribe", "id": "one more", "subject": "app.>" }));
    assert_eq!(client.next("error")["code"], "overloaded");
}

#[test]
fn forty_replays_on_one_socket_io_connection_do_not_close_it() {
    let node = Node::start(&Options::new());
    fill(&node, "app.x", 40);
    let client = BusClient::connect(node.web);
    for n in 0..40 {
        client.emit("book:subscribe", &json!({ "id": format!("s{n}"), "subject": "app.>", "start": "oldest" }));
    }
    let mut told = std::collections::HashMap::<String, u64>::new();
    for _ in 0..40 * 40 {
        let event = client.event("book:event");
        let count = told.entry(event.args[0].to_string()).or_default();
        assert_eq!(event.args[1]["payload"]["n"], *count, "each stream in order");
        *count += 1;
    }
    assert!(!client.has_ended());
    assert_eq!(client.ask("bus:heartbeat", &json!({}))["error"]["code"], "not_registered", "it is still there");
}

#[test]
fn an_event_larger_than_the_queue_reaches_a_client_that_reads() {
    let options = Options::new()
        .env("ROLLBOOK_WEBSOCKET__QUEUE_BYTES_MAX", "1048576")
        .env("ROLLBOOK_SOCKETIO__QUEUE_BYTES_MAX", "1000000");
    let node = Node::start(&options);
    let size = 7_900_000;
    large(&node, "app.large", size);
    node.publish("app.large", "1");
    let (plain, socketio) = (Socket::consumer(node.web, "client"), BusClient::connect(node.web));
    for n in 0..3 {
        let id = format!("s{n}");
        let wanted = json!({ "type": "subscribe", "id": id, "subject": "app.large", "start": "oldest" });
        plain.send(&wanted);
        socketio.emit("book:subscribe", &wanted);
        plain.send(&json!({ "type": "ping" }));
    }
    for n in 0..3 {
        let id = format!("s{n}");
        let next = || plain.take_where("a delivery", |frame| frame["type"] == "delivery" && frame["id"] == *id);
        assert_eq!(next()["event"]["payload"].as_str().map(str::len), Some(size));
        assert_eq!(next()["event"]["payload"], 1);
        plain.next("pong");
    }
    let lengths: Vec<usize> =
        (0..6).map(|_| socketio.event("book:event").args[1]["payload"].to_string().len()).collect();
    assert_eq!(lengths.iter().filter(|length| **length == size + 2).count(), 3, "{lengths:?}");
    // Live ones as well, also to the members of a group that come through these doors.
    let member = json!({
        "type": "subscribe", "id": "g", "subject": "app.large", "start": "newest", "ack": "manual", "group": "workers",
    });
    plain.send(&member);
    plain.take_where("the group", |frame| frame["type"] == "subscribed" && frame["id"] == "g");
    large(&node, "app.large", size);
    let event = plain.take_where("a delivery", |frame| frame["type"] == "delivery" && frame["id"] == "g");
    plain.send(&json!({ "type": "ack", "id": "g", "event_id": event["event"]["id"] }));
    assert_eq!(plain.next("acked")["in_flight"], true);
    assert!(!socketio.has_ended());
}

#[test]
fn a_ping_in_the_middle_of_a_replay_is_answered() {
    let node = Node::start(&Options::new());
    fill(&node, "app.x", 700);
    let mut slow = std::net::TcpStream::connect(node.web).expect("a connection");
    rfc6455::upgrade(&mut slow);
    rfc6455::send_text(&mut slow, r#"{"name":"slow","version":"1"}"#);
    rfc6455::send_text(&mut slow, r#"{"type":"subscribe","id":"s","subject":"app.>","start":"oldest"}"#);
    // It reads nothing yet, so much waits for it; then it asks whether the node is there.
    std::thread::sleep(ms(700));
    rfc6455::send(&mut slow, 0x89, b"there?");
    std::thread::sleep(ms(200));
    let reader = std::thread::spawn({
        let mut slow = slow.try_clone().expect("a handle");
        move || rfc6455::read_to_end(&mut slow)
    });
    std::thread::sleep(ms(2000));
    rfc6455::send(&mut slow, 0x88, &[]);
    let frames = reader.join().expect("no panic");
    let events = frames.iter().filter(|(opcode, _)| *opcode == 1).count();
    assert!(events >= 700, "{events} frames of text");
    let pongs: Vec<&[u8]> = frames.iter().filter(|(opcode, _)| *opcode == 0xa).map(|(_, said)| &**said).collect();
    assert_eq!(pongs, [b"there?"]);
}

#[test]
fn the_end_of_a_stream_says_whether_it_is_worth_coming_back() {
    let mut node = Node::start(&Options::new());
    node.publish("app.x", "1");
    let (plain, socketio) = (Socket::consumer(node.web, "client"), BusClient::connect(node.web));
    let both = |wanted: &Value| {
        let mut frame = wanted.clone();
        frame["type"] = json!("subscribe");
        plain.send(&frame);
        assert_eq!(socketio.ask("book:subscribe", wanted)["success"], true);
    };
    let ends = |id: &str, code: &str, retryable: bool| {
        let end = plain.take_where("an end", |frame| frame["type"] == "unsubscribed" && frame["id"] == id);
        assert_eq!((&end["code"], &end["retryable"]), (&json!(code), &json!(retryable)), "{end}");
        let end = socketio.event("book:end").args[0].clone();
        assert_eq!(
            (&end["id"], &end["code"], &end["retryable"]),
            (&json!(id), &json!(code), &json!(retryable)),
            "{end}"
        );
        assert!(end["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{end}");
    };
    both(&json!({ "id": "a", "subject": "app.>", "start": "e_00000000000000000000" }));
    ends("a", "not_found", false);
    let opens = |wanted: &Value| assert_eq!(socketio.ask("book:subscribe", wanted)["success"], true);
    let wanted = json!({ "type": "subscribe", "id": "t", "subject": "app.>", "start": "oldest", "consumer": "worker" });
    plain.send(&wanted);
    plain.take_where("it to open", |frame| frame["type"] == "subscribed" && frame["id"] == "t");
    // Another connection is that consumer now, and then the consumer is no more.
    opens(&wanted);
    let end = plain.take_where("an end", |frame| frame["type"] == "unsubscribed" && frame["id"] == "t");
    assert_eq!((&end["code"], &end["retryable"]), (&json!("taken_over"), &json!(false)), "{end}");
    assert!(node.web("DELETE", "/api/consumers/app/worker", "").status < 300);
    let end = socketio.event("book:end").args[0].clone();
    assert_eq!((&end["code"], &end["retryable"]), (&json!("deleted"), &json!(false)), "{end}");
    both(&json!({ "id": "z", "subject": "app.>" }));
    plain.take_where("it to open", |frame| frame["type"] == "subscribed" && frame["id"] == "z");
    node.signal_term();
    let stopping = wait_for("the end", SOON, || Some(plain.take_where("an end", |frame| frame["id"] == "z")));
    assert_eq!((&stopping["code"], &stopping["retryable"]), (&json!("node_stopping"), &json!(true)), "{stopping}");
    node.stopped();
}
