//! Processes that go along again.

use serde_json::{Value, json};

use super::client::{Bus, text};
use crate::harness::{SOON, wait_for};

/// An emitter that sends what no pipeline takes yet.
#[test]
fn processes_go_along_again_when_the_pipeline_is_there() {
    let bus = Bus::start();
    let mut shop = bus.account("actor", "shop", &[("invoices", "emitter")]);
    let output = format!("broker.{}.output", shop.actors[0]);
    for _ in 0..3 {
        let sent = json!({ "events": [{ "type": "t", "items": ["a"] }], "last": true });
        assert_eq!(shop.client.call(&output, &sent)["reception_status"], "accepted");
    }
    let processes = |status: &str| {
        let (_, list) = bus.rest("GET", &format!("processes?status={status}"), &Value::Null);
        list["items"].as_array().cloned().unwrap_or_default()
    };
    let replay = |more: Value| {
        let mut body = json!({ "filter": { "status": ["error"] } });
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        let (status, begun) = bus.rest("POST", "replays", &body);
        assert_eq!(status, 202, "{begun}");
        let path = format!("replays/{}", text(&begun["id"]));
        wait_for("the end of a replay", SOON, || {
            let (_, job) = bus.rest("GET", &path, &Value::Null);
            (job["state"] != "running").then_some(job)
        })
    };
    let counts = |job: &Value| [job["matched"].clone(), job["replayed"].clone(), job["refused"].clone()];
    assert_eq!(processes("error").len(), 3, "no pipeline took them");
    let same = replay(json!({}));
    assert_eq!(counts(&same), [json!(3), json!(0), json!(3)], "{same}");
    assert!(same.to_string().contains("with the active version"), "{same}");

    let graph = "nodes:\n- {id: e, type: emitter, roles: [all], outputs: [default]}\n- {id: c, type: consumer, roles: [all], inputs: [default]}\nedges: [e.default->c.default]\n";
    let mut operator = bus.operator();
    operator.call("control.pipeline.save", &json!({ "info": { "name": "p", "version": "1" }, "graph": graph }));
    let set = json!({ "name": "p", "version": "1", "status": "active" });
    assert_eq!(operator.call("control.pipeline.setstatus", &set)["info"]["status"], "active");
    let dry = replay(json!({ "version": "active", "dry_run": true }));
    assert_eq!((counts(&dry), processes("running").len()), ([json!(3), json!(0), json!(0)], 0), "{dry}");
    let done = replay(json!({ "version": "active" }));
    assert_eq!(counts(&done), [json!(3), json!(3), json!(0)], "{done}");
    let running = processes("running");
    assert_eq!(running.len(), 3, "{running:?}");
    let old: Vec<Value> = processes("error").into_iter().map(|process| process["id"].clone()).collect();
    assert!(running.iter().all(|process| old.contains(&process["replay_of"])), "{running:?}");
    // What goes along a version ends, and goes along again from a node.
    for process in &running {
        bus.rest("POST", &format!("processes/{}/cancel", text(&process["id"])), &Value::Null);
    }
    let ids: Vec<&Value> = running.iter().map(|process| &process["id"]).collect();
    let again = replay(json!({ "filter": { "ids": ids }, "from_node": "c" }));
    assert_eq!(counts(&again), [json!(3), json!(3), json!(0)], "{again}");
    let odd = replay(json!({ "filter": { "ids": ids }, "from_node": "e" }));
    assert!(odd.to_string().contains("node e is an emitter"), "{odd}");
    let (_, list) = bus.rest("GET", "replays", &Value::Null);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(5), "{list}");
}
