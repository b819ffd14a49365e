//! Items of envelopes and the schemas of their types.

use serde_json::{Value, json};

use super::client::Bus;

/// An envelope of one event with these items.
fn envelope(event_type: &str, items: &[&str]) -> Value {
    json!({ "events": [{ "type": event_type, "items": items }], "last": true })
}

fn set(bus: &Bus, mode: &str) {
    let schema = json!({ "type": "object", "properties": { "count": { "type": "integer" } }, "required": ["count"] });
    let (status, answer) = bus.rest("PUT", "schemas/order", &json!({ "mode": mode, "schema": schema }));
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn an_item_that_breaks_an_enforced_schema_is_refused_and_with_warn_it_is_logged() {
    let bus = Bus::start();
    let mut shop = bus.account("actor", "shop", &[("invoices", "emitter")]);
    let output = format!("broker.{}.output", shop.actors[0]);
    let mut send = |envelope: &Value| shop.client.call(&output, envelope);
    set(&bus, "enforce");
    let good = send(&envelope("order", &[r#"{"count":1}"#]));
    assert_eq!(good["reception_status"], "accepted", "{good}");
    let bad = send(&envelope("order", &[r#"{"count":1}"#, r#"{"count":"x"}"#]));
    assert_eq!(bad["reception_status"], "error", "{bad}");
    let reason = bad.to_string();
    assert!(reason.contains("event type order, item 2, at /count: "), "{reason}");
    let odd = send(&envelope("order", &["no JSON"])).to_string();
    assert!(odd.contains("item 1, the item is not JSON"), "{odd}");
    let id = bad["id"].as_str().unwrap_or_default();
    assert_eq!(bus.rest("GET", &format!("envelopes/{id}"), &Value::Null).0, 404, "nothing of it is stored");
    let other = send(&envelope("bill", &["no JSON"]));
    assert_eq!(other["reception_status"], "accepted", "another type has no schema: {other}");

    set(&bus, "warn");
    let taken = send(&envelope("order", &["{}"]));
    assert_eq!(taken["reception_status"], "accepted", "{taken}");
    let id = taken["id"].as_str().unwrap_or_default();
    let (_, logs) = bus.rest("GET", &format!("logs/{id}"), &Value::Null);
    assert!(logs.to_string().contains("event type order, item 1, at /: "), "{logs}");
    set(&bus, "off");
    assert_eq!(send(&envelope("order", &["{}"]))["reception_status"], "accepted");
}
