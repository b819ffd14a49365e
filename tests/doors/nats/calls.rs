//! Services of other doors, as requests of NATS.

use serde_json::json;

use super::client::{Nats, options};
use crate::harness::bus::BusClient;
use crate::harness::node::Node;

#[test]
fn a_request_goes_to_a_service_of_another_door_and_its_answer_comes_back() {
    let node = Node::start(&options());
    let provider = BusClient::connect(node.web);
    provider.register("users", &["users"]);
    let mut client = Nats::connect(&node);
    client.send("SUB _INBOX.abcdefghijklmnopqrstuv.* 1\r\n");
    client.publish("rollbook.call.users.do", "_INBOX.abcdefghijklmnopqrstuv.1", "", r#"{"id":7}"#);
    let asked = provider.serve_one(|payload| json!({ "got": payload }));
    assert_eq!(asked.args[0]["action"], "do");
    let answer = client.message();
    assert_eq!(answer.payload, r#"{"got":{"id":7}}"#, "{answer:?}");
    assert_eq!((&*answer.subject, &*answer.headers), ("_INBOX.abcdefghijklmnopqrstuv.1", ""));
}

#[test]
fn a_service_that_is_not_there_is_an_error_at_once() {
    let node = Node::start(&options());
    let mut client = Nats::connect(&node);
    client.send("SUB _INBOX.abcdefghijklmnopqrstuv.* 1\r\n");
    client.publish("rollbook.call.nobody.do", "_INBOX.abcdefghijklmnopqrstuv.1", "", "");
    let answer = client.message();
    assert!(answer.headers.contains("Nats-Service-Error-Code: 503\r\n"), "{answer:?}");
    assert!(answer.headers.contains("Nats-Service-Error: no_provider"), "{answer:?}");
    // Without a reply subject nobody hears of the outcome, and the connection goes on.
    client.publish("rollbook.call.nobody.do", "", "", "");
    client.flush();
}
