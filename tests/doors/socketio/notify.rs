//! Notifications and the central configuration.

use serde_json::json;

use crate::harness::bus::BusClient;
use crate::harness::node::{Node, Options};
use crate::harness::{SOON, ms};

#[test]
fn a_notification_reaches_all_other_registered_clients_and_is_in_the_book() {
    let node = Node::start(&Options::new());
    let [sender, receiver, stranger] = [(); 3].map(|()| BusClient::connect(node.web));
    let instance = sender.register("orders", &[]);
    receiver.register("mail", &[]);
    let said = sender.ask("bus:notify", &json!({ "event": "order:created", "data": { "n": 1 } }));
    assert_eq!((&said["success"], &said["index"]), (&json!(true), &json!(1)), "{said}");
    let told = receiver.event("order:created");
    let about = json!({ "from": { "service": "orders", "instance": instance }, "id": said["id"], "index": 1 });
    assert_eq!(told.args, [json!({ "n": 1 }), about]);
    assert!(!sender.hears("order:created", ms(200)) && !stranger.hears("order:created", ms(10)));
    let event = node.replay("notify.>").events(1, SOON).remove(0);
    assert_eq!(event.subject(), "notify.order_created");
    assert_eq!(event.payload()["data"], json!({ "n": 1 }));
    let volatile = sender.ask("bus:notify", &json!({ "event": "tick", "volatile": true }));
    assert_eq!((&volatile["success"], &volatile["index"]), (&json!(true), &json!(null)));
    assert_eq!(receiver.event("tick").args[1]["index"], -1);
    // One client's notifications arrive in the order they were sent, whoever waits for what.
    (0..200).for_each(|n| sender.emit("bus:notify", &json!({ "event": "n", "data": n })));
    let order: Vec<i64> = (0..200).map(|_| receiver.event("n").args[0].as_i64().unwrap_or(-1)).collect();
    assert_eq!(order, (0..200).collect::<Vec<i64>>());
}

#[test]
fn names_that_belong_to_the_bus_are_refused() {
    let node = Node::start(&Options::new());
    let (sender, receiver) = (BusClient::connect(node.web), BusClient::connect(node.web));
    receiver.register("mail", &[]);
    let refused = |arg| sender.ask("bus:notify", &arg)["error"]["code"].as_str().unwrap_or_default().to_owned();
    assert_eq!(refused(json!({ "event": "x" })), "not_registered");
    sender.register("orders", &[]);
    for name in ["connect", "disconnect", "connect_error", "bus:restart", "config:updated", "service:online", ""] {
        assert_eq!(refused(json!({ "event": name })), "bad_request", "{name}");
    }
    assert_eq!(refused(json!({ "event": "x".repeat(200) })), "bad_request");
    assert_eq!(refused(json!({ "data": 1 })), "bad_request");
    // Neither does the book lend its authority: what is published there under such a name is not told.
    let forged = json!({ "subject": "notify.x", "payload": { "event": "bus:restart", "data": {} } });
    assert_eq!(node.post(forged.to_string()).status, 202);
    let fair = json!({ "subject": "notify.x", "payload": { "event": "from:outside", "data": 1 } });
    assert_eq!(node.post(fair.to_string()).status, 202);
    assert_eq!(receiver.event("from:outside").args[0], 1);
    assert!(!receiver.heard().contains(&"bus:restart".to_owned()));
}

#[test]
fn who_a_message_is_from_is_said_by_the_bus_alone() {
    let node = Node::start(&Options::new());
    let (orders, receiver) = (BusClient::connect(node.web), BusClient::connect(node.web));
    let instance = orders.register("orders", &[]);
    receiver.register("mail", &[]);
    let from = json!({ "service": "orders", "instance": instance });
    let payload = json!({ "event": "deploy", "data": 1, "from": from });
    let forged = json!({ "subject": "notify.deploy", "payload": payload });
    // Through no door: over HTTP, alone and in a batch, in a copy of stored events, and by the doors of services.
    let batch = json!([{ "subject": "notify.a", "payload": { "event": "a" } }, forged]);
    for body in [forged.to_string(), batch.to_string()] {
        let refused = node.post(&body);
        assert_eq!(refused.status, 400, "{body}");
        assert!(refused.text().contains("only the bus says who a message is from"), "{}", refused.text());
    }
    assert_eq!(receiver.ask("book:publish", &forged)["error"]["code"], "bad_request");
    let plain = crate::harness::socket::Socket::consumer(node.web, "shop");
    plain.send(&json!({ "type": "publish", "id": "p", "subject": "notify.deploy", "payload": payload }));
    assert_eq!(plain.next("error")["code"], "bad_message");
    // Whoever says nothing of that is from nobody, and is told to everybody.
    let fair = json!({ "subject": "notify.deploy", "payload": { "event": "deploy", "data": 2 } });
    assert_eq!(node.post(fair.to_string()).status, 202);
    for client in [&receiver, &orders] {
        let told = client.event("deploy");
        assert_eq!((&told.args[0], &told.args[1]["from"]), (&json!(2), &json!(null)));
    }
}

#[test]
fn the_configuration_is_given_on_request_and_told_when_it_changes() {
    let node = Node::start(&Options::new());
    let client = BusClient::connect(node.web);
    assert_eq!(client.ask("config:request", &json!(null)), json!({}));
    assert_eq!(node.web("POST", "/api/config", r#"{"z":1,"a":{"b":[2]}}"#).status, 200);
    assert_eq!(client.event("config:updated").args, [json!({ "z": 1, "a": { "b": [2] } })]);
    assert_eq!(client.ask("config:request", &json!(null)), json!({ "z": 1, "a": { "b": [2] } }));
    for n in 0..20 {
        assert_eq!(node.web("PATCH", "/api/config", &format!("{{\"z\":{n}}}")).status, 200);
    }
    let seen: Vec<i64> = (0..20).map(|_| client.event("config:updated").args[0]["z"].as_i64().unwrap_or(-1)).collect();
    assert_eq!(seen, (0..20).collect::<Vec<i64>>());
}
