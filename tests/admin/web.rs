//! The web listener: health, metrics, and the administration of namespaces.

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::node::{Node, Options};
use crate::harness::{SOON, report, wait_for};

/// What differs from a problem document with this status.
fn problem(answer: &Response, status: u16) -> Result<(), String> {
    let kind = answer.header("content-type").unwrap_or_default();
    if answer.status != status || !kind.starts_with("application/problem+json") {
        return Err(format!("want {status}, got {} {kind:?} {}", answer.status, answer.text()));
    }
    let body = answer.json();
    let told = ["title", "detail", "code"].iter().all(|name| body[*name].as_str().is_some_and(|text| !text.is_empty()));
    if body["type"] == "about:blank" && body["status"] == status && told {
        Ok(())
    } else {
        Err(format!("not a problem document: {body}"))
    }
}

fn namespace(node: &Node, name: &str) -> Value {
    let answer = node.web("GET", &format!("/api/namespaces/{name}"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn a_ready_node_says_so() {
    let node = Node::shared();
    for (path, text) in [("/livez", "ok"), ("/readyz", "ready")] {
        let answer = node.web("GET", path, "");
        assert_eq!((answer.status, answer.text().trim()), (200, text), "{path}");
    }
}

#[test]
fn metrics_count_publishes() {
    let node = Node::start(&Options::new());
    for _ in 0..3 {
        node.publish("app.x", "1");
    }
    let text = node.web("GET", "/metrics", "").text();
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing:\n{text}");
    }
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in samples {
        let known = line.starts_with("rollbook_") || line.starts_with("process_");
        assert!(known, "name of {line:?}");
        let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        assert!(value.is_some(), "value of {line:?}");
    }
    assert!(text.contains("rollbook_"), "no metric of its own:\n{text}");
}

#[test]
fn a_namespace_is_described_by_its_numbers() {
    let node = Node::start(&Options::new());
    for n in 0..3 {
        node.publish("app.x", &n.to_string());
    }
    let own = namespace(&node, "app");
    assert_eq!(own["name"], "app");
    assert_eq!((&own["first_index"], &own["next_index"], &own["events"]), (&json!(1), &json!(4), &json!(3)));
    assert!(own["bytes"].as_u64().is_some_and(|bytes| bytes > 20), "{own}");
    assert_eq!(own["retention"], json!({"max_age": null, "max_bytes": null, "max_events": null}));
    assert!(own["settled_index"].is_u64() && own["disk_bytes"].is_u64(), "{own}");
    let listed = node.web("GET", "/api/namespaces", "").json();
    assert_eq!(listed["next_cursor"], Value::Null);
    let items = listed["items"].as_array().expect("items");
    assert!(items.iter().any(|item| item["name"] == "app" && item["next_index"] == 4), "{listed}");
}

#[test]
fn namespaces_are_created_changed_and_deleted() {
    let node = Node::start(&Options::namespaces("app"));
    let refused = node.post("{\"subject\":\"later.x\"}");
    refused.refusal(400, "namespace not found: later").expect("not created yet");
    let made = node.web("POST", "/api/namespaces", "{\"name\":\"later\",\"retention\":{\"max_events\":100}}");
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.json()["retention"]["max_events"], 100);
    let mut stream = node.subscribe(&[("subject", "later.>")]);
    node.publish("later.x", "1");
    assert_eq!(stream.next_event(SOON).index(), 1);
    problem(&node.web("POST", "/api/namespaces", "{\"name\":\"later\"}"), 409).expect("exists");
    let patch = "{\"retention\":{\"max_age\":\"1h\",\"max_events\":null}}";
    let changed = node.web("PATCH", "/api/namespaces/later", patch);
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(changed.json()["retention"], json!({"max_age": "1h", "max_bytes": null, "max_events": null}));
    assert_eq!(node.web("DELETE", "/api/namespaces/later", "").status, 204);
    problem(&node.web("GET", "/api/namespaces/later", ""), 404).expect("deleted");
    let refused = node.post("{\"subject\":\"later.x\"}");
    refused.refusal(400, "namespace not found: later").expect("deleted");
}

#[test]
fn bad_requests_get_problem_documents() {
    let node = Node::shared();
    let long = format!("{{\"name\":\"{}\"}}", "n".repeat(65));
    let mut failures = Vec::new();
    for (method, path, body, status) in [
        ("GET", "/api/namespaces/nope", "", 404),
        ("PATCH", "/api/namespaces/nope", "{\"retention\":{}}", 404),
        ("DELETE", "/api/namespaces/nope", "", 404),
        ("DELETE", "/api/consumers/nope/c", "", 404),
        ("POST", "/api/namespaces", "{\"name\":\"a b\"}", 400),
        ("POST", "/api/namespaces", "{\"name\":\"\"}", 400),
        ("POST", "/api/namespaces", "{\"name\":\"ü\"}", 400),
        ("POST", "/api/namespaces", &long, 400),
        ("POST", "/api/namespaces", "{\"name\":\"a.b\"}", 400),
        ("POST", "/api/namespaces", "{}", 400),
        ("POST", "/api/namespaces", "nonsense", 400),
        ("POST", "/api/namespaces", "", 400),
        ("POST", "/api/namespaces", "{\"name\":\"ok\",\"retention\":{\"max_age\":\"abc\"}}", 400),
        ("POST", "/api/namespaces", "{\"name\":\"ok\",\"retention\":{\"max_events\":-1}}", 400),
        ("POST", "/api/namespaces", "{\"name\":\"a\"}", 409),
        ("GET", "/api/nothing", "", 404),
    ] {
        let answer = node.web(method, path, body);
        failures.extend(problem(&answer, status).err().map(|text| format!("{method} {path} {body}: {text}")));
    }
    for name in ["_bus_", "_dead_", "roll"] {
        let answer = node.web("POST", "/api/namespaces", &format!("{{\"name\":\"{name}\"}}"));
        if !(400..500).contains(&answer.status) || !answer.text().contains("reserved") {
            failures.push(format!("{name}: {} {}", answer.status, answer.text()));
        }
    }
    report("problem documents", &failures);
}

#[test]
fn retention_by_number_of_events_trims_the_oldest() {
    let node = Node::start(&Options::new());
    let made = node.web("POST", "/api/namespaces", "{\"name\":\"short\",\"retention\":{\"max_events\":10}}");
    assert_eq!(made.status, 201, "{}", made.text());
    for n in 1..=50 {
        assert_eq!(node.publish("short.x", &n.to_string()).index, n);
        node.publish("kept.x", "1");
    }
    // Trimming is a background matter; it may keep a little more than asked, never less.
    let own = wait_for("trimmed to about 10 events", SOON * 3, || {
        let own = namespace(&node, "short");
        own["events"].as_i64().is_some_and(|events| events <= 20).then_some(own)
    });
    let first = own["first_index"].as_i64().expect("a first index");
    assert!((31..=41).contains(&first), "{own}");
    assert_eq!(node.replay("short.>").next_event(SOON).index(), first);
    assert_eq!(node.publish("short.x", "51").index, 51, "indexes are never reused");
    assert_eq!(node.replay("kept.>").events(50, SOON).len(), 50, "the other namespace keeps everything");
}

#[test]
fn a_cluster_of_one_describes_itself() {
    let node = Node::shared();
    node.publish("a.cluster", "1");
    let body = node.web("GET", "/api/cluster", "").json();
    assert_eq!(body["leader"], 1);
    assert!(body["cluster_id"].as_str().is_some_and(|id| !id.is_empty()), "{body}");
    assert!(body["term"].as_u64().is_some_and(|term| term > 0), "{body}");
    let nodes = body["nodes"].as_array().expect("nodes");
    let own = nodes.first().expect("one node");
    assert_eq!(nodes.len(), 1);
    assert_eq!((&own["id"], &own["role"], &own["state"]), (&json!(1), &json!("leader"), &json!("up")));
    let applied = own["applied_index"].as_u64().unwrap_or(0);
    assert!(applied > 0 && own["last_index"].as_u64() >= Some(applied), "{body}");
}
