//! Listeners: what the bus subscribes to for a client that registers, through both socket doors.

use serde_json::{Value, json};

use crate::harness::bus::BusClient;
use crate::harness::node::{Node, Options};
use crate::harness::socket::Socket;
use crate::harness::{SOON, wait_for};

fn listeners() -> Value {
    json!([
        {"id": "orders", "subject": "app.orders.*", "group": "billing", "ack": "manual", "start": "oldest", "in_flight": 2},
        {"subject": "app.prices"},
    ])
}

/// What the roll says of the only instance of a service.
fn shown(node: &Node, service: &str) -> Value {
    let answer = node.web("GET", &format!("/api/services/{service}"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["instances"][0]["metadata"]["listeners"].clone()
}

fn register(node: &Node) -> Socket {
    let client = Socket::connect(node.web);
    client.send(&json!({"type": "register", "name": "billing", "version": "1", "methods": ["charge"],
        "metadata": {"team": "a"}, "listeners": listeners()}));
    client.next("registered");
    let opened = |id: &str| client.take_where("a stream", |frame| frame["type"] == "subscribed" && frame["id"] == id);
    assert!(opened("orders")["consumer_id"].is_string() && opened("app.prices")["consumer_id"].is_string());
    client
}

#[test]
fn a_service_is_given_what_it_listens_to_and_what_came_while_it_was_away() {
    let node = Node::start(&Options::namespaces("app"));
    let client = register(&node);
    assert_eq!(
        shown(&node, "billing"),
        json!([{"subject": "app.orders.*", "ack": "manual", "group": "billing"}, {"subject": "app.prices", "ack": "none"}])
    );
    let delivery = |client: &Socket, id: &str| {
        client.take_where("a delivery", |frame| frame["type"] == "delivery" && frame["id"] == id)["event"].clone()
    };
    node.publish("app.prices", "7");
    assert_eq!(delivery(&client, "app.prices")["payload"], 7);
    for n in 1..=4 {
        node.publish("app.orders.created", &n.to_string());
    }
    let first = delivery(&client, "orders");
    assert_eq!((&first["payload"], &delivery(&client, "orders")["payload"]), (&json!(1), &json!(2)));
    client.send(&json!({"type": "ack", "id": "orders", "event_id": first["id"]}));
    assert_eq!(delivery(&client, "orders")["payload"], 3);
    drop(client);
    wait_for("its streams end", SOON, || (node.actors("subscription") == 0).then_some(()));
    node.publish("app.orders.created", "5");
    let client = register(&node);
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let event = delivery(&client, "orders");
        client.send(&json!({"type": "ack", "id": "orders", "event_id": event["id"]}));
        seen.push(event["payload"].as_u64().unwrap());
    }
    assert_eq!(seen, [2, 3, 4, 5]);
}

#[test]
fn a_client_of_socket_io_listens_too_and_registers_again_without_doubles() {
    let node = Node::start(&Options::namespaces("app"));
    let client = BusClient::connect(node.web);
    let registration = json!({"id": "billing", "capabilities": ["charge"], "listeners": listeners()});
    let answer = client.ask("bus:register", &registration);
    assert_eq!(answer["success"], true, "{answer}");
    wait_for("both streams are open", SOON, || (node.actors("subscription") == 2).then_some(()));
    assert_eq!(shown(&node, "billing")[0]["group"], "billing");
    assert_eq!(client.ask("bus:register", &registration)["success"], true);
    node.publish("app.orders.created", "1");
    let told = client.event("book:event");
    assert_eq!((&told.args[0], &told.args[1]["payload"]), (&json!("orders"), &json!(1)));
    assert_eq!(node.actors("subscription"), 2);
}

#[test]
fn a_wrong_listener_is_told_and_nothing_is_registered() {
    let node = Node::start(&Options::namespaces("app"));
    for (wrong, text) in [
        (json!([{"subject": "app"}]), "listeners: app: invalid subject: missing namespace"),
        (json!([{"subject": "app.x", "ack": "maybe"}]), "listeners: app.x: ack: expected"),
        (json!(vec![json!({"subject": "app.x"}); 2]), "listeners: each has an id of its own"),
        (json!([7]), "listeners"),
    ] {
        let client = Socket::connect(node.web);
        client.send(&json!({"type": "register", "name": "billing", "version": "1", "methods": ["charge"],
            "listeners": wrong}));
        let error = client.next("error");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(error["code"] == "bad_registration" && message.starts_with(text), "{error}");
        let answer = BusClient::connect(node.web)
            .ask("bus:register", &json!({"id": "billing", "capabilities": [], "listeners": wrong}));
        assert_eq!((&answer["success"], &answer["error"]["code"]), (&json!(false), &json!("bad_request")), "{answer}");
    }
    assert_eq!(node.web("GET", "/api/services/billing", "").status, 404);
}
