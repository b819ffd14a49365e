//! The three documents of the specification, as they are.

use serde_json::{Value, json};

use crate::harness::node::{Node, Options};
use crate::harness::socket::Socket;
use crate::pages::page;

const CONSUMER: &str = r#"{
"name": "consumer-name",
"version": "1.0.0"
}"#;

const MESSAGE: &str = r#"{
"type": "message",
"id": "<UUID>",
"destination": "<service-name:method>",
"consumer": "<consumer-name>",
"responder": "<callback>",
"payload": <payload>
}"#;

const SERVICE: &str = r#"{
"name": "service-name",
"version": "1.0.0",
"methods": [
"method-1",
"method-2",
"method-(n)"
]
}"#;

#[test]
fn the_documents_are_on_the_page_of_the_door_as_they_are() {
    let page = page("src/doors/websocket/README.md");
    for document in [CONSUMER, MESSAGE, SERVICE] {
        assert!(page.contains(&format!("```json\n{document}\n```")), "missing:\n{document}");
    }
}

#[test]
fn the_documents_of_the_specification_are_a_conversation() {
    let node = Node::start(&Options::new());
    let service = Socket::connect(node.web);
    service.send_text(SERVICE);
    let registered = service.next("registered");
    assert_eq!((&registered["name"], &registered["services"]), (&json!("service-name"), &json!([])));
    let connected = service.event("service-connect");
    let methods = json!(["method-1", "method-2", "method-(n)"]);
    let wanted = json!({ "name": "service-name", "version": "1.0.0", "methods": methods });
    assert_eq!(connected["service"], wanted);
    assert_eq!(connected["instance_id"], registered["instance_id"]);
    service.event("service-online");

    let consumer = Socket::connect(node.web);
    consumer.send_text(CONSUMER);
    let snapshot = consumer.next("registered");
    let row = json!({ "name": "service-name", "version": "1.0.0", "methods": methods, "instances": 1 });
    assert_eq!((&snapshot["services"], &snapshot["instance_id"]), (&json!([row]), &Value::Null));

    let message = MESSAGE.replace("<service-name:method>", "service-name:method-(n)");
    let payload = r#"{"big":12345678901234567890123,"b":1,"a":1.50,"text":"\u00f1\/"}"#;
    let message = message.replace("<consumer-name>", "consumer-name").replace("<payload>", payload);
    consumer.send_text(&message);
    let asked = service.next_text("message");
    let wanted = r#"{"type":"message","id":"<UUID>","destination":"service-name:method-(n)","consumer":"consumer-name","responder":"<callback>","payload":"#;
    assert_eq!(asked, format!("{wanted}{payload}}}"), "the payload is the bytes that came");
    service.send_text(&format!(r#"{{"type":"response","id":"<UUID>","payload":{payload}}}"#));
    let answered = consumer.next_text("response");
    assert_eq!(
        answered,
        format!(r#"{{"type":"response","id":"<UUID>","responder":"<callback>","payload":{payload}}}"#)
    );
    assert_eq!(service.events(), [], "a consumer is no event");
}
