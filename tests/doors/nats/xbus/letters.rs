//! Envelopes in the JSON of the specification page: emitted, delivered into message boxes, ended by their actors.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::actor::{Peer, order};
use super::setup::{Setup, processes, rest, set_up};
use super::wire::Delivery;
use crate::doors::nats::client::options;
use crate::harness::node::Node;
use crate::harness::{SOON, wait_for};

/// Emitter, worker, consumer.
const LINE: &str = "nodes:
- {id: in, type: emitter, roles: [shop]}
- {id: tax, type: worker, roles: [tax]}
- {id: archive, type: consumer, roles: [archive]}
edges:
- in.default->tax.default
- tax.default->archive.default
";
const NOTHING: Duration = Duration::from_millis(300);

fn start() -> (Node, Setup) {
    let node = Node::start(&options());
    let actors = [("shop", "emitter", "shop"), ("tax", "worker", "tax"), ("archive", "consumer", "archive")];
    let setup = set_up(&node, &actors, &[("orders", LINE)]);
    (node, setup)
}

/// A client with a message box for each input of its actor.
fn boxed(node: &Node, setup: &Setup, name: &str) -> Peer {
    let mut peer = Peer::connect(node, setup, name);
    peer.subscribe(&format!("xbus.msgbox.{}.input.default", setup.actor(name)), "letters");
    peer
}

fn json_of(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(payload)))
}

fn letter(delivery: &Delivery) -> Value {
    json_of(&delivery.payload)
}

/// Calls with JSON.
fn call(peer: &mut Peer, subject: &str, body: &Value) -> Value {
    json_of(&peer.call(&format!("{subject}.json"), body.to_string().as_bytes()).expect("JSON"))
}

#[test]
fn an_envelope_as_on_the_page_goes_through_message_boxes() {
    let (node, setup) = start();
    let mut shop = Peer::connect(&node, &setup, "shop");
    let (mut tax, mut archive) = (boxed(&node, &setup, "tax"), boxed(&node, &setup, "archive"));
    let (id, event) = (Uuid::new_v4().to_string(), "53131466-4e2e-11e7-916e-af2b1e6d242d");
    let body = json!({
        "id": id, "event_ids": [event],
        "events": [{ "id": event, "type": "test", "index": 1, "count": 1, "checksum": 3_098_160_312_u32, "items": ["A message"] }],
        "last": true,
    });
    let emitted = call(&mut shop, &format!("broker.{}.output", setup.actor("shop")), &body);
    let accepted =
        json!({ "status": "success", "id": id, "reception_status": "accepted", "registration_status": "accepted" });
    assert_eq!(emitted, accepted);

    let delivery = tax.next("letters");
    assert!(!delivery.reply.is_empty());
    let received = letter(&delivery);
    assert_eq!(
        (&received["id"], &received["last"], &received["events"][0]["items"]),
        (&json!(id), &json!(true), &json!(["A message"]))
    );
    assert_eq!(received["context"]["node_id"], "tax");
    let context = received["context"].clone();
    let sent = json!({
        "context": context,
        "envelope": { "id": Uuid::new_v4().to_string(), "events": [{ "type": "taxed", "items": ["taxed"] }], "last": true },
    });
    let broker = format!("broker.{}.output", setup.actor("tax"));
    let told = call(&mut tax, &broker, &sent);
    assert_eq!(told["reception_status"], "accepted", "{told}");

    let received = letter(&archive.next("letters"));
    assert_eq!((&received["events"][0]["type"], &received["events"][0]["items"]), (&json!("taxed"), &json!(["taxed"])));
    let state = || rest(&node, "GET", &format!("processes/{}", context["process_id"].as_str().expect("text")), "");
    assert_eq!(state()["process"]["status"], "running");
    let end = json!({ "envelope_id": received["id"], "context": received["context"], "result": "success" });
    let ending = format!("director.processingend.{}", setup.actor("archive"));
    assert_eq!(call(&mut archive, &ending, &end), json!({ "status": "success" }));
    wait_for("the end", SOON, || (state()["process"]["status"] == "done").then_some(()));
    assert_eq!(call(&mut archive, &ending, &end)["__error__"]["type"], json!("CLIENT"), "the job has ended");
}

#[test]
fn a_worker_forwards_closes_and_fails_in_json() {
    let (node, setup) = start();
    let mut shop = Peer::connect(&node, &setup, "shop");
    let (mut tax, mut archive) = (boxed(&node, &setup, "tax"), boxed(&node, &setup, "archive"));
    let broker = format!("broker.{}.output", setup.actor("tax"));
    // The envelope that came goes out.
    shop.emit_whole(&order("one"));
    let received = letter(&tax.next("letters"));
    let forward = json!({ "id": received["id"], "context": received["context"], "last": true });
    assert_eq!(call(&mut tax, &broker, &forward)["status"], "success");
    let forwarded = letter(&archive.next("letters"));
    assert_eq!((&forwarded["id"], &forwarded["events"]), (&received["id"], &received["events"]));
    // Nothing goes out: the consumer is skipped.
    shop.emit_whole(&order("two"));
    let received = letter(&tax.next("letters"));
    let close = json!({ "close": true, "output": "default", "context": received["context"] });
    assert_eq!(call(&mut tax, &broker, &close), json!({ "status": "success" }));
    wait_for("a process that is done", SOON, || (processes(&node, "&status=done").len() == 1).then_some(()));
    // The job fails.
    shop.emit_whole(&order("three"));
    let received = letter(&tax.next("letters"));
    let end = json!({
        "envelope_id": received["id"], "context": received["context"], "result": "error",
        "messages": [{ "time": "2026-11-21T10:00:00Z", "level": "error", "text": "disk full" }],
    });
    assert_eq!(call(&mut tax, &format!("director.processingend.{}", setup.actor("tax")), &end)["status"], "success");
    let failed = wait_for("a process in error", SOON, || processes(&node, "&status=error").pop());
    assert_eq!(failed["state"], "node tax failed");
    assert!(archive.within("letters", NOTHING).is_none());
}

#[test]
fn an_envelope_of_several_fragments_is_several_letters_in_order() {
    let (node, setup) = start();
    let mut shop = Peer::connect(&node, &setup, "shop");
    let mut tax = boxed(&node, &setup, "tax");
    let (id, event) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    let broker = format!("broker.{}.output", setup.actor("shop"));
    for number in 1..=3 {
        let mut part = json!({ "id": event, "type": "t", "index": number, "items": [format!("item {number}")] });
        if number == 3 {
            part["count"] = json!(3);
        }
        let body = json!({ "id": id, "events": [part], "last": number == 3 });
        let told = call(&mut shop, &broker, &body);
        let wanted = if number == 3 { "accepted" } else { "receiving" };
        assert_eq!(told["reception_status"], wanted, "{told}");
    }
    let letters: Vec<Value> = (0..3).map(|_| letter(&tax.next("letters"))).collect();
    let items: Vec<&Value> = letters.iter().map(|letter| &letter["events"][0]["items"][0]).collect();
    assert_eq!(items, ["item 1", "item 2", "item 3"]);
    let last: Vec<bool> = letters.iter().map(|letter| letter["last"] == true).collect();
    assert_eq!(last, [false, false, true]);
    assert!(letters.iter().all(|letter| letter["context"] == letters[0]["context"] && letter["id"] == json!(id)));
}

#[test]
fn an_actor_without_its_message_box_gets_no_more_letters() {
    let (node, setup) = start();
    let mut shop = Peer::connect(&node, &setup, "shop");
    let mut tax = boxed(&node, &setup, "tax");
    shop.emit_whole(&order("one"));
    tax.next("letters");
    tax.unsubscribe("letters");
    shop.emit_whole(&order("two"));
    assert!(tax.within("letters", NOTHING).is_none());
    tax.subscribe(&format!("xbus.msgbox.{}.input.default", setup.actor("tax")), "letters");
    assert_eq!(letter(&tax.next("letters"))["events"][0]["items"][0], "two");
}
