//! Messages and what becomes of them.

use std::collections::HashSet;
use std::time::Instant;

use serde_json::{Value, json};

use super::asked;
use crate::harness::bus::BusClient;
use crate::harness::cluster::Cluster;
use crate::harness::node::{Node, Options};
use crate::harness::socket::Socket;
use crate::harness::{SOON, ms, wait_for};

#[test]
fn a_service_may_call_another_one_and_itself() {
    let node = Node::start(&Options::new());
    let users = Socket::service(node.web, "users", &["get"]);
    let orders = Socket::service(node.web, "orders", &["list"]);
    orders.ask("m", "users:get", &json!({ "id": 7 }));
    let asked = users.serve_one(|payload| json!({ "got": payload }));
    assert_eq!((&asked["consumer"], &asked["responder"]), (&json!("orders"), &json!("cb")));
    let response = orders.next("response");
    assert_eq!(
        response,
        json!({ "type": "response", "id": "m", "responder": "cb", "payload": { "got": { "id": 7 } } })
    );
    users.ask("self", "users:get", &Value::Null);
    users.serve_one(|payload| json!([payload]));
    assert_eq!(users.next("response")["payload"], json!([null]));
}

#[test]
fn a_message_that_nobody_can_be_given_is_unhandled_at_once_and_services_are_told() {
    let node = Node::start(&Options::new());
    let users = Socket::service(node.web, "users", &["get"]);
    let other = BusClient::connect(node.web);
    other.register("other", &[]);
    let shop = Socket::consumer(node.web, "shop");
    for (id, destination, reason) in [("a", "billing:charge", "no_service"), ("b", "users:void", "no_method")] {
        let began = Instant::now();
        shop.ask(id, destination, &json!({ "secret": 1 }));
        let unhandled = shop.next("unhandled");
        assert!(began.elapsed() < ms(500), "there is no waiting: {:?}", began.elapsed());
        let wanted =
            json!({ "type": "unhandled", "id": id, "responder": "cb", "destination": destination, "reason": reason });
        assert_eq!(unhandled, wanted);
        let event = users.event("unhandled");
        let said = ["destination", "consumer", "message_id", "reason", "node"].map(|name| event[name].clone());
        assert_eq!(said, [json!(destination), json!("shop"), json!(id), json!(reason), json!("n1")]);
        assert_eq!(event["payload"], Value::Null, "only that it was there");
        assert_eq!(other.event("bus:unhandled").args[0]["message_id"], id, "services of other doors too");
    }
    assert!(!shop.hears("error", ms(50)) && shop.count("unhandled") == 0, "once, and consumers are not told");
    users.ask("c", "nobody:x", &json!(1));
    assert_eq!(users.next("unhandled")["reason"], "no_service");
    assert_eq!(users.count("unhandled"), 0, "its sender is not told twice");
    // One without a responder too, and seldom enough that it disturbs nobody.
    for n in 0..40 {
        shop.send(&json!({ "type": "message", "id": format!("n{n}"), "destination": "void:x", "payload": n }));
    }
    (0..40).for_each(|_| drop(shop.next("unhandled")));
    std::thread::sleep(ms(100));
    let told = users.count("unhandled");
    assert!((10..=20).contains(&told), "ten a second: {told}");
}

#[test]
fn without_a_responder_nobody_waits() {
    let node = Node::start(&Options::new());
    let (users, web) = (Socket::service(node.web, "users", &["log"]), BusClient::connect(node.web));
    let shop = Socket::consumer(node.web, "shop");
    for responder in [Value::Null, json!("")] {
        let id = format!("m{responder}");
        shop.send(
            &json!({ "type": "message", "id": id, "destination": "users:log", "responder": responder, "payload": 1 }),
        );
        let asked = users.next("message");
        assert_eq!((&asked["id"], asked.get("responder")), (&json!(id), None));
        users.send(&json!({ "type": "response", "id": id, "payload": 2 }));
        let refused = users.next("error");
        assert_eq!((&refused["code"], &refused["id"]), (&json!("unknown_request"), &json!(id)));
    }
    assert!(!shop.hears("response", ms(100)));
    // A provider of another door answers as it always does, and is told nothing of it.
    web.register("logs", &["log"]);
    shop.send(&json!({ "type": "message", "id": "x", "destination": "log:line", "payload": 1 }));
    let asked = web.event("bus:request");
    let answer = json!({ "requestId": asked.args[0]["requestId"], "success": true, "data": 1 });
    assert_eq!(web.ask("bus:response", &answer)["success"], true);
    assert!(!shop.hears("response", ms(100)));
}

#[test]
fn every_wrong_frame_is_told_and_the_connection_stays() {
    let node = Node::start(&Options::new());
    let shop = Socket::consumer(node.web, "shop");
    let _users = Socket::service(node.web, "users", &["get"]);
    let long = "x".repeat(129);
    let message = |more: Value| {
        let mut frame = json!({ "type": "message", "id": "m", "destination": "users:get", "responder": "cb" });
        frame.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        frame.to_string()
    };
    let wrong = [
        ("bad_json", "nonsense".to_owned()),
        ("bad_json", "[1]".to_owned()),
        ("bad_json", "{\"type\":\"ping\"".to_owned()),
        ("bad_message", "{}".to_owned()),
        ("bad_message", json!({ "type": 7 }).to_string()),
        ("bad_message", json!({ "type": "shout" }).to_string()),
        ("bad_message", "{\"type\":\"ping\",\"type\":\"ping\"}".to_owned()),
        ("bad_message", json!({ "type": "message" }).to_string()),
        ("bad_message", message(json!({ "id": 7 }))),
        ("bad_message", message(json!({ "id": "" }))),
        ("bad_message", message(json!({ "id": long }))),
        ("bad_message", message(json!({ "destination": null }))),
        ("bad_message", message(json!({ "destination": "users" }))),
        ("bad_message", message(json!({ "destination": ":get" }))),
        ("bad_message", message(json!({ "destination": "users:" }))),
        ("bad_message", message(json!({ "destination": ["users"] }))),
        ("bad_message", message(json!({ "responder": 1 }))),
        ("bad_message", message(json!({ "responder": long }))),
        ("bad_message", message(json!({ "timeout_ms": 0 }))),
        ("bad_message", message(json!({ "timeout_ms": 600_001 }))),
        ("bad_message", message(json!({ "timeout_ms": "1" }))),
        ("bad_message", message(json!({ "timeout_ms": 1.5 }))),
        ("consumer_mismatch", message(json!({ "consumer": "somebody" }))),
        ("bad_message", json!({ "type": "response" }).to_string()),
        ("unknown_request", json!({ "type": "response", "id": "never" }).to_string()),
        ("unknown_request", json!({ "type": "error", "id": "never" }).to_string()),
        ("bad_message", json!({ "type": "error" }).to_string()),
        ("bad_message", json!({ "type": "broadcast", "id": 7 }).to_string()),
        ("bad_message", json!({ "type": "done", "id": "x" }).to_string()),
    ];
    for (code, frame) in wrong {
        shop.send_text(&frame);
        let refused = shop.next("error");
        assert_eq!(refused["code"], code, "{frame}: {refused}");
        assert!(refused["message"].as_str().is_some_and(|text| !text.is_empty()), "{refused}");
    }
    shop.send_text(&message(json!({ "consumer": "shop" })));
    shop.send(&json!({ "type": "ping" }));
    shop.next("pong");
}

#[test]
fn an_id_is_used_once() {
    let node = Node::start(&Options::new());
    let users = Socket::service(node.web, "users", &["get"]);
    let (one, two) = (Socket::consumer(node.web, "one"), Socket::consumer(node.web, "two"));
    one.ask("m", "users:get", &json!("first"));
    one.ask("m", "users:get", &json!("second"));
    let refused = one.next("error");
    assert_eq!((&refused["code"], &refused["id"]), (&json!("duplicate_id"), &json!("m")));
    // Another client may use it at the same time; the service sees two that are different.
    two.ask("m", "users:get", &json!("of two"));
    let asked = [users.next("message"), users.next("message")];
    assert_ne!(asked[0]["id"], asked[1]["id"]);
    for asked in &asked {
        users.send(&json!({ "type": "response", "id": asked["id"], "payload": asked["payload"] }));
    }
    assert_eq!(
        (&one.next("response")["payload"], &two.next("response")["payload"]),
        (&json!("first"), &json!("of two"))
    );
    one.ask("m", "users:get", &json!("again"));
    assert_eq!(one.next("error")["code"], "duplicate_id", "also when it has ended");
    assert!(!users.hears("message", ms(50)));
}

#[test]
fn only_who_was_asked_answers_and_only_once() {
    let node = Node::start(&Options::new());
    let (users, other) = (Socket::service(node.web, "users", &["get"]), Socket::service(node.web, "other", &["x"]));
    let shop = Socket::consumer(node.web, "shop");
    shop.ask("m", "users:get", &json!(1));
    users.next("message");
    let answer = json!({ "type": "response", "id": "m", "responder": "mine", "payload": "true" });
    other.send(&answer);
    assert_eq!(other.next("error")["code"], "unknown_request");
    users.send(&answer);
    assert_eq!(shop.next("response"), json!({ "type": "response", "id": "m", "responder": "cb", "payload": "true" }));
    users.send(&answer);
    assert_eq!(users.next("error")["code"], "unknown_request");
    assert!(!shop.hears("response", ms(50)));
}

#[test]
fn a_service_fails_with_its_own_code_or_with_none() {
    let node = Node::start(&Options::new());
    let users = Socket::service(node.web, "users", &["get"]);
    let shop = Socket::consumer(node.web, "shop");
    shop.ask("a", "users:get", &json!(1));
    users.next("message");
    let failed =
        json!({ "type": "error", "id": "a", "code": "E7", "message": "no", "retryable": true, "data": { "n": 1 } });
    users.send(&failed);
    let told = json!({ "type": "error", "id": "a", "responder": "cb", "code": "E7", "message": "no", "retryable": true, "data": { "n": 1 } });
    assert_eq!(shop.next("error"), told);
    shop.ask("b", "users:get", &json!(1));
    users.next("message");
    users.send(&json!({ "type": "error", "id": "b" }));
    let told = json!({ "type": "error", "id": "b", "responder": "cb", "code": "service_error", "message": "", "retryable": false });
    assert_eq!(shop.next("error"), told);
}

#[test]
fn no_answer_in_time_is_told_once_and_a_late_one_is_refused() {
    let node = Node::start(&Options::new());
    let users = Socket::service(node.web, "users", &["get"]);
    let shop = Socket::consumer(node.web, "shop");
    let began = Instant::now();
    shop.send(
        &json!({ "type": "message", "id": "m", "destination": "users:get", "responder": "cb", "timeout_ms": 200 }),
    );
    assert_eq!(users.next("message").get("timeout_ms"), None);
    let error = shop.next("error");
    assert!((ms(190)..ms(1500)).contains(&began.elapsed()), "{:?}", began.elapsed());
    let wanted = json!({ "type": "error", "id": "m", "responder": "cb", "code": "timeout", "message": "no response within 200 ms", "retryable": false });
    assert_eq!(error, wanted);
    users.send(&json!({ "type": "response", "id": "m", "payload": 1 }));
    assert_eq!(users.next("error")["code"], "unknown_request");
    assert!(!shop.hears("response", ms(50)));
}

#[test]
fn what_nobody_waits_for_any_more_is_refused_to_whoever_answers() {
    let node = Node::start(&Options::new());
    let users = Socket::service(node.web, "users", &["get"]);
    let shop = Socket::consumer(node.web, "shop");
    shop.ask("m", "users:get", &json!(1));
    let id = users.next("message")["id"].clone();
    shop.cut();
    let in_flight = || node.web("GET", "/api/stats", "").json()["requests"]["in_flight"].clone();
    wait_for("the request to end", SOON, || (in_flight() == 0).then_some(()));
    users.send(&json!({ "type": "response", "id": id, "payload": 1 }));
    let refused = users.next("error");
    assert_eq!((&refused["id"], &refused["code"]), (&id, &json!("unknown_request")));
}

#[test]
fn messages_spread_over_all_instances_of_all_nodes() {
    let cluster = Cluster::start();
    let instances: Vec<Socket> = (1..=3).map(|id| Socket::service(cluster.node(id).web, "users", &["get"])).collect();
    let shop = Socket::consumer(cluster.node(1).web, "shop");
    // The service is the same on all nodes for who asks here only when this node has heard of it.
    wait_for("three instances", SOON, || {
        let shown = cluster.node(1).web("GET", "/api/services/users", "").json();
        (shown["instances"].as_array().map(Vec::len) == Some(3)).then_some(())
    });
    (0..300).for_each(|n| shop.ask(&format!("m{n}"), "users:get", &json!(n)));
    let mut seen = HashSet::new();
    for instance in &instances {
        let mut count = 0;
        while instance.hears("message", ms(300)) {
            let asked = instance.serve_one(Value::clone);
            assert!(seen.insert(asked["id"].to_string()), "twice: {asked}");
            count += 1;
        }
        // Who answers while more come has room again.
        assert!(count >= 30, "spread: {count}");
    }
    assert_eq!(seen.len(), 300);
    (0..300).for_each(|_| drop(shop.next("response")));
}

#[test]
fn a_broadcast_reaches_all_services_of_all_nodes_and_nobody_else() {
    let cluster = Cluster::start();
    let services: Vec<Socket> =
        (1..=3).map(|id| Socket::service(cluster.node(id).web, &format!("s{id}"), &["x"])).collect();
    let web = BusClient::connect(cluster.node(2).web);
    web.register("web", &[]);
    let shop = Socket::consumer(cluster.node(3).web, "shop");
    shop.send(&json!({ "type": "broadcast", "id": "b-1", "payload": { "at": "22:00" } }));
    for service in &services {
        let told = service.next("broadcast");
        assert_eq!(
            (&told["id"], &told["consumer"], &told["payload"]),
            (&json!("b-1"), &json!("shop"), &json!({ "at": "22:00" }))
        );
        assert!(told["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{told}");
    }
    let told = web.event("broadcast");
    assert_eq!((&told.args[0], &told.args[1]["from"]["service"]), (&json!({ "at": "22:00" }), &json!("shop")));
    services[0].send(&json!({ "type": "broadcast", "payload": 2 }));
    assert_eq!(services[1].next("broadcast")["payload"], 2);
    assert!(!services[0].hears("broadcast", ms(100)), "not its sender");
    assert!(!shop.hears("broadcast", ms(10)), "no consumer");
    // A notification of another door is one too, under its name.
    web.ask("bus:notify", &json!({ "event": "price", "data": 3 }));
    let told = services[2].take_where("the notification", |frame| frame["event"] == "price");
    assert_eq!((&told["type"], &told["consumer"], &told["payload"]), (&json!("broadcast"), &json!("web"), &json!(3)));
}

#[test]
fn who_leaves_ends_what_it_has_begun() {
    let node = Node::start(&Options::new());
    let (users, shop) = asked(node.web);
    users.send(&json!({ "type": "disconnect" }));
    shop.event("service-offline");
    shop.ask("n", "users:get", &json!(1));
    assert_eq!(shop.next("unhandled")["reason"], "no_service");
    users.ask("o", "users:get", &json!(1));
    assert_eq!(users.next("error")["code"], "unavailable");
    users.send(&json!({ "type": "response", "id": "m", "payload": "done" }));
    assert_eq!(shop.next("response")["payload"], "done");
    assert_eq!(users.end(), 1000);
}

#[test]
fn who_publishes_and_leaves_is_told_what_became_of_it() {
    let node = Node::start(&Options::new());
    let client = Socket::consumer(node.web, "client");
    for n in 0..50 {
        client.send(&json!({ "type": "publish", "id": n.to_string(), "subject": "app.left", "payload": n }));
    }
    client.send(&json!({ "type": "disconnect" }));
    // Each under its id, in any order.
    let mut told: Vec<u64> =
        (0..50).filter_map(|_| client.next("published")["id"].as_str().and_then(|id| id.parse().ok())).collect();
    told.sort_unstable();
    assert_eq!(told, (0..50).collect::<Vec<_>>());
    assert_eq!(client.end(), 1000);
}
