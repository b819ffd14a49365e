//! Publishing, and streams of the book, from sockets: the same rules as over HTTP.

use serde_json::{Value, json};

use crate::harness::bus::BusClient;
use crate::harness::cluster::Cluster;
use crate::harness::node::{Node, Options};
use crate::harness::socket::Socket;
use crate::harness::{SOON, ms, wait_for};

fn publish(client: &Socket, id: &str, subject: &str, more: Value) -> Value {
    let mut frame = json!({ "type": "publish", "id": id, "subject": subject });
    frame.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
    client.send(&frame);
    client.take_where("an answer", |frame| frame["id"] == id)
}

fn delivered(client: &Socket, id: &str) -> Value {
    client.take_where("a delivery", |frame| frame["type"] == "delivery" && frame["id"] == id)["event"].clone()
}

#[test]
fn what_a_socket_publishes_is_in_the_book_and_what_is_there_it_can_follow() {
    let node = Node::start(&Options::new());
    let client = Socket::consumer(node.web, "client");
    let one =
        publish(&client, "p1", "app.orders.created", json!({ "payload": { "n": 1 }, "key": "k", "trace_id": "t" }));
    assert_eq!((&one["type"], &one["index"]), (&json!("published"), &json!(1)), "{one}");
    let again = publish(&client, "p2", "app.orders.created", json!({ "payload": 2, "key": "k" }));
    assert_eq!((&again["type"], &again["code"]), (&json!("error"), &json!("conflict")));
    let first = json!({ "event_id": one["event_id"], "index": 1, "created_at": one["created_at"] });
    assert_eq!(again["data"], first, "where the first one is");
    client.send(&json!({ "type": "subscribe", "id": "s", "subject": "app.>", "start": "oldest" }));
    assert!(client.next("subscribed")["consumer_id"].as_str().is_some_and(|id| id.starts_with("c_")));
    let event = delivered(&client, "s");
    let said = ["id", "index", "subject", "key", "trace_id", "payload"].map(|name| event[name].clone());
    assert_eq!(
        said,
        [one["event_id"].clone(), json!(1), json!("app.orders.created"), json!("k"), json!("t"), json!({ "n": 1 })]
    );
    assert_eq!(event["created_at"], one["created_at"]);
    node.publish("app.orders.paid", "{\n \"n\": 2}");
    assert_eq!(delivered(&client, "s")["payload"], json!({ "n": 2 }));
    // Another stream of the same connection, from behind the first event.
    let start = one["event_id"].clone();
    client.send(&json!({ "type": "subscribe", "id": "t", "subject": "app.*.paid", "start": start }));
    assert_eq!(delivered(&client, "t")["index"], 2);
    client.send(&json!({ "type": "unsubscribe", "id": "s" }));
    assert_eq!(client.next("unsubscribed"), json!({ "type": "unsubscribed", "id": "s" }));
    node.publish("app.orders.paid", "3");
    assert_eq!(delivered(&client, "t")["payload"], 3);
    assert!(!client.hears("delivery", ms(100)), "that one has ended");
}

#[test]
fn publishes_of_one_connection_keep_their_order() {
    let node = Node::start(&Options::new());
    let client = Socket::consumer(node.web, "client");
    for burst in 0..50 {
        for n in 0..100 {
            client.send(&json!({ "type": "publish", "id": format!("{burst}-{n}"), "subject": "app.o", "payload": n }));
        }
        for n in 0..100 {
            let id = format!("{burst}-{n}");
            let published = client.take_where("an answer", |frame| frame["id"] == *id);
            assert_eq!(published["index"], burst * 100 + n + 1, "{published}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_under_its_id() {
    let node = Node::start(&Options::namespaces("app"));
    let client = Socket::consumer(node.web, "client");
    let wrong = [
        json!({ "type": "publish", "id": "x" }),
        json!({ "type": "publish", "id": "x", "subject": "app" , "payload": 1, "created_at": "yesterday" }),
        json!({ "type": "publish", "id": "x", "subject": "app.*" }),
        json!({ "type": "publish", "id": "x", "subject": "roll.service.online" }),
        json!({ "type": "publish", "id": "x", "subject": "other.x" }),
        json!({ "type": "publish", "id": "x", "subject": 7 }),
        json!({ "type": "publish", "id": "x", "subject": "app.x", "event_id": "a b" }),
        json!({ "type": "subscribe", "id": "x" }),
        json!({ "type": "subscribe", "id": "x", "subject": "other.>" }),
        json!({ "type": "subscribe", "id": "x", "subject": "app.>", "ack": "perhaps" }),
        json!({ "type": "subscribe", "id": "x", "subject": "app.>", "consumer": "a b" }),
        json!({ "type": "subscribe", "id": "x", "subject": "app.>", "redelivery_ms": "1s" }),
        json!({ "type": "subscribe", "id": "x", "subject": "app.>", "ack": "manual", "redelivery_ms": 99 }),
        json!({ "type": "subscribe", "id": "x", "subject": "app.>", "redelivery": "soon" }),
        json!({ "type": "subscribe", "id": "x", "subject": "app.>", "ack": "manual", "redelivery": "99ms" }),
        json!({ "type": "subscribe", "id": "x", "subject": "app.>", "redelivery_count": "3" }),
        json!({ "type": "subscribe", "id": "x", "subject": "_bus_.x", "consumer": "c" }),
        json!({ "type": "ack", "id": "x" }),
    ];
    for frame in wrong {
        client.send(&frame);
        let refused = client.next("error");
        assert_eq!((&refused["code"], &refused["id"]), (&json!("bad_message"), &json!("x")), "{frame}: {refused}");
    }
    for frame in [json!({ "type": "ack", "id": "x", "event_id": "e" }), json!({ "type": "unsubscribe", "id": "x" })] {
        client.send(&frame);
        assert_eq!(client.next("error")["code"], "unknown_request", "{frame}");
    }
    let open = json!({ "type": "subscribe", "id": "s", "subject": "app.>" });
    client.send(&open);
    client.next("subscribed");
    client.send(&open);
    assert_eq!(client.next("error")["code"], "duplicate_id");
    client.send(&json!({ "type": "subscribe", "id": "lost", "subject": "app.>", "start": "e_00000000000000000000" }));
    let ended = client.next("unsubscribed");
    assert_eq!(ended["id"], "lost");
    assert!(ended["reason"].as_str().is_some_and(|reason| reason.contains("not found")), "{ended}");
}

#[test]
fn what_is_not_acknowledged_comes_again_and_a_named_place_is_kept_on_all_nodes() {
    let cluster = Cluster::start();
    let client = Socket::consumer(cluster.node(1).web, "client");
    (0..3).for_each(|n| drop(publish(&client, &format!("p{n}"), "app.job", json!({ "payload": n }))));
    let subscribe = json!({
        "type": "subscribe", "id": "s", "subject": "app.job", "start": "oldest", "ack": "manual", "consumer": "worker",
        "redelivery": "300ms", "max_in_flight": 1,
    });
    client.send(&subscribe);
    client.next("subscribed");
    assert_eq!(delivered(&client, "s")["payload"], 0);
    let again = delivered(&client, "s");
    assert_eq!(again["payload"], 0, "nobody has acknowledged it");
    client.send(&json!({ "type": "ack", "id": "s", "event_id": again["id"] }));
    let acked = client.next("acked");
    assert_eq!((&acked["event_id"], &acked["in_flight"]), (&again["id"], &json!(true)));
    client.send(&json!({ "type": "ack", "id": "s", "event_id": again["id"] }));
    assert_eq!(client.next("acked")["in_flight"], false, "once");
    assert_eq!(delivered(&client, "s")["payload"], 1);
    drop(client);
    // It goes on where it was, at another node, through another door.
    let other = BusClient::connect(cluster.node(2).web);
    let subscribe = json!({ "id": "s", "subject": "app.job", "ack": "manual", "consumer": "worker", "redelivery": "300ms", "maxInFlight": 1 });
    let opened = wait_for("the place", SOON, || {
        let opened = other.ask("book:subscribe", &subscribe);
        (opened["success"] == true).then_some(opened)
    });
    assert!(opened["consumer_id"].as_str().is_some_and(|id| id.starts_with("c_")), "{opened}");
    let told = other.event("book:event");
    assert_eq!((&told.args[0], &told.args[1]["payload"]), (&json!("s"), &json!(1)));
    let acked = other.ask("book:ack", &json!({ "id": "s", "eventId": told.args[1]["id"] }));
    assert_eq!(acked, json!({ "success": true, "in_flight": true }));
    loop {
        // The first may have been sent twice before it was acknowledged.
        if other.event("book:event").args[1]["payload"] == 2 {
            break;
        }
    }
}

/// The same words as over HTTP, through both doors.
#[test]
fn many_events_are_in_flight_and_acknowledged_together() {
    let node = Node::start(&Options::new());
    let client = Socket::consumer(node.web, "client");
    (0..6).for_each(|n| drop(publish(&client, &format!("p{n}"), "app.job", json!({ "payload": n }))));
    client.send(&json!({ "type": "subscribe", "id": "s", "subject": "app.job", "start": "oldest", "ack": "manual" }));
    client.next("subscribed");
    let ids: Vec<Value> = (0..6).map(|_| delivered(&client, "s")["id"].clone()).collect();
    client.send(&json!({ "type": "ack", "id": "s", "event_ids": [ids[0], ids[2], "e_unknown"] }));
    let acked = client.next("acked");
    assert_eq!((&acked["count"], &acked["not_in_flight"]), (&json!(2), &json!(["e_unknown"])), "{acked}");
    client.send(&json!({ "type": "ack", "id": "s", "event_id": ids[5], "action": "nack" }));
    assert_eq!(client.next("acked")["in_flight"], true);
    assert_eq!(delivered(&client, "s")["id"], ids[5], "again");
    client.send(&json!({ "type": "ack", "id": "s", "up_to": ids[4] }));
    assert_eq!(client.next("acked")["count"], 3);
    for wrong in [
        json!({ "type": "ack", "id": "s" }),
        json!({ "type": "ack", "id": "s", "event_ids": 7 }),
        json!({ "type": "ack", "id": "s", "event_id": ids[5], "action": "maybe" }),
        json!({ "type": "subscribe", "id": "t", "subject": "app.job", "ack": "manual", "max_in_flight": 0 }),
    ] {
        client.send(&wrong);
        let error = client.next("error");
        assert_eq!((&error["code"], &error["id"]), (&json!("bad_message"), &wrong["id"]), "{error}");
    }
    let other = BusClient::connect(node.web);
    let opened =
        other.ask("book:subscribe", &json!({ "id": "s", "subject": "app.job", "start": "oldest", "ack": "manual" }));
    assert_eq!(opened["success"], true, "{opened}");
    let ids: Vec<Value> = (0..6).map(|_| other.event("book:event").args[1]["id"].clone()).collect();
    let acked = other.ask("book:ack", &json!({ "id": "s", "eventIds": [ids[0], ids[1]] }));
    assert_eq!(acked, json!({ "success": true, "count": 2, "not_in_flight": [] }));
    let rejected = other.ask("book:ack", &json!({ "id": "s", "event_id": ids[2], "action": "reject", "reason": "no" }));
    assert_eq!(rejected, json!({ "success": true, "in_flight": true }));
}

#[test]
fn an_acknowledgement_right_before_the_end_of_its_stream_counts() {
    let node = Node::start(&Options::new());
    let (client, other) = (Socket::consumer(node.web, "client"), BusClient::connect(node.web));
    (0..40).for_each(|n| drop(publish(&client, &format!("p{n}"), "app.job", json!({ "payload": n }))));
    for n in 0..40 {
        // The next event may be on its way when a stream is ended: it is told from that of the next stream by the id.
        let id = format!("s{n}");
        let wanted =
            json!({ "id": id, "subject": "app.job", "start": "oldest", "ack": "manual", "consumer": "worker" });
        if n % 2 == 0 {
            let mut subscribe = wanted;
            subscribe["type"] = json!("subscribe");
            client.send(&subscribe);
            let event = delivered(&client, &id);
            assert_eq!(event["payload"], n, "nothing comes again");
            client.send(&json!({ "type": "ack", "id": id, "event_id": event["id"] }));
            client.send(&json!({ "type": "unsubscribe", "id": id }));
            assert_eq!(client.next("acked")["in_flight"], true);
            client.next("unsubscribed");
        } else {
            assert_eq!(other.ask("book:subscribe", &wanted)["success"], true);
            let event = loop {
                let told = other.event("book:event");
                if told.args[0] == *id {
                    break told.args[1].clone();
                }
            };
            assert_eq!(event["payload"], n, "nothing comes again");
            let acked = other.begin("book:ack", &json!({ "id": id, "eventId": event["id"] }));
            let ended = other.begin("book:unsubscribe", &json!({ "id": id }));
            assert_eq!(other.acked(acked), json!({ "success": true, "in_flight": true }));
            assert_eq!(other.acked(ended), json!({ "success": true }));
        }
    }
}

#[test]
fn a_socket_io_client_publishes_and_follows_as_well() {
    let node = Node::start(&Options::new());
    let client = BusClient::connect(node.web);
    let one = client.ask("book:publish", &json!({ "subject": "app.x", "payload": { "n": 1 }, "key": "k" }));
    assert_eq!((&one["success"], &one["index"]), (&json!(true), &json!(1)), "{one}");
    let again = client.ask("book:publish", &json!({ "subject": "app.x", "key": "k" }));
    let told = ["code", "id", "index", "created_at"].map(|name| again["error"][name].clone());
    assert_eq!(told, [json!("conflict"), one["id"].clone(), json!(1), one["created_at"].clone()]);
    for (event, arg) in [
        ("book:publish", json!({})),
        ("book:publish", json!({ "subject": "app.>" })),
        ("book:subscribe", json!({ "id": "s" })),
        ("book:subscribe", json!({ "id": "", "subject": "app.>" })),
        ("book:subscribe", json!({ "id": "s", "subject": "app.>", "ack": "perhaps" })),
        ("book:subscribe", json!({ "id": "s", "subject": "app.>", "ack": "manual", "redelivery": 99 })),
        ("book:ack", json!({ "id": "s", "eventId": "e" })),
        ("book:unsubscribe", json!({ "id": "s" })),
    ] {
        assert_eq!(client.ask(event, &arg)["error"]["code"], "bad_request", "{event} {arg}");
    }
    let opened = client.ask("book:subscribe", &json!({ "id": "s", "subject": "app.>", "start": "oldest" }));
    assert_eq!(opened["success"], true, "{opened}");
    assert_eq!(client.event("book:event").args[1]["payload"], json!({ "n": 1 }));
    for n in 0..500 {
        client.begin("book:publish", &json!({ "subject": "app.y", "payload": n }));
    }
    for n in 0..500 {
        assert_eq!(client.event("book:event").args[1]["payload"], n, "in the order in which they were sent");
    }
    assert_eq!(client.ask("book:unsubscribe", &json!({ "id": "s" })), json!({ "success": true }));
    let lost =
        client.ask("book:subscribe", &json!({ "id": "t", "subject": "app.>", "start": "e_00000000000000000000" }));
    assert_eq!(lost["success"], true);
    let end = client.event("book:end");
    assert!(end.args[0]["reason"].as_str().is_some_and(|reason| reason.contains("not found")), "{:?}", end.args);
    // What a client publishes by the name of the bus is nobody's word.
    assert!(!client.register("svc", &[]).is_empty());
    assert_eq!(client.ask("bus:notify", &json!({ "event": "book:event", "data": 1 }))["success"], false);
}

#[test]
fn a_client_that_is_slow_gets_everything_at_its_own_pace() {
    let node = Node::start(&Options::new().env("ROLLBOOK_WEBSOCKET__QUEUE_BYTES_MAX", "1048576"));
    let client = Socket::consumer(node.web, "client");
    let padding = "x".repeat(4000);
    for batch in 0..20 {
        let events: Vec<Value> = (0..250)
            .map(|n| json!({ "subject": "app.x", "payload": { "n": batch * 250 + n, "x": padding } }))
            .collect();
        assert_eq!(node.post(Value::from(events).to_string()).status, 202);
    }
    // Twenty megabytes for a queue of one, and for a reader that begins late.
    let mut slow = std::net::TcpStream::connect(node.web).expect("a connection");
    super::rfc6455::upgrade(&mut slow);
    super::rfc6455::send_text(&mut slow, r#"{"name":"slow","version":"1"}"#);
    super::rfc6455::send_text(&mut slow, r#"{"type":"subscribe","id":"s","subject":"app.>","start":"oldest"}"#);
    std::thread::sleep(ms(500));
    client.send(&json!({ "type": "subscribe", "id": "s", "subject": "app.>", "start": "oldest" }));
    for n in 0..5000 {
        assert_eq!(delivered(&client, "s")["payload"]["n"], n);
    }
    let reader = std::thread::spawn({
        let mut slow = slow.try_clone().expect("a handle");
        move || super::rfc6455::read_to_end(&mut slow)
    });
    std::thread::sleep(ms(1500));
    super::rfc6455::send(&mut slow, 0x88, &[]);
    let frames = reader.join().expect("no panic");
    let last = frames.iter().rev().find(|(opcode, _)| *opcode == 1).expect("a text");
    let last: Value = serde_json::from_slice(&last.1).expect("JSON");
    assert_eq!((&last["type"], &last["event"]["payload"]["n"]), (&json!("delivery"), &json!(4999)));
    assert!(node.web("GET", "/metrics", "").text().contains("rollbook_clients_slow_total 0"));
}

#[test]
fn streams_end_with_a_word_when_the_node_stops() {
    let mut node = Node::start(&Options::new());
    let (client, other) = (Socket::consumer(node.web, "client"), BusClient::connect(node.web));
    client.send(&json!({ "type": "subscribe", "id": "s", "subject": "app.>" }));
    client.next("subscribed");
    assert_eq!(other.ask("book:subscribe", &json!({ "id": "s", "subject": "app.>" }))["success"], true);
    node.signal_term();
    assert_eq!(client.next("disconnect")["code"], 1001);
    assert_eq!(client.end(), 1001);
    other.end();
    node.stopped();
}
