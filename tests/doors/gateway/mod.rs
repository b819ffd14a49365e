//! Actors of Xbus over HTTP, with the API key of their account.

mod commands;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::node::{Node, Options};
use crate::harness::xbus::Program;
use crate::harness::{SOON, wait_for};

const GRAPH: &str = "nodes:\n- {id: in, type: emitter, roles: [orders]}\n- {id: up, type: worker, roles: [upper]}\n- {id: out, type: consumer, roles: [archive]}\nedges:\n- in.default->up.default\n- up.default->out.default\n";

/// A node with an account that has an emitter, a worker, a consumer and an API key, and a pipeline over these.
pub(crate) struct Shop {
    pub(crate) node: Node,
    pub(crate) key: String,
}

impl Shop {
    pub(crate) fn start() -> Self {
        let node = Node::start(&Options::new());
        let program = Program::new();
        let actor = |name: &str, kind: &str, role: &str| json!({ "name": name, "kind": kind, "roles": [role] });
        let actors = json!([
            actor("shop.orders", "emitter", "orders"),
            actor("shop.upper", "worker", "upper"),
            actor("shop.archive", "consumer", "archive"),
        ]);
        let body = json!({ "name": "shop", "type": "gateway", "csr": program.request("shop"), "actors": actors });
        wait_for("the feature level", SOON, || {
            (node.web("POST", "/api/xbus/accounts", &body.to_string()).status == 200).then_some(())
        });
        let shop = Self { node, key: String::new() };
        let certificate = json!({ "certificate": program.certificate("shop") });
        shop.operator("POST", "accounts/shop/accept", &certificate.to_string());
        for actor in ["orders", "upper", "archive"] {
            shop.operator("POST", &format!("actors/shop.{actor}/accept"), "");
        }
        shop.operator("PUT", "pipelines/orders/1", GRAPH);
        shop.operator("POST", "pipelines/orders/1/status", r#"{"status":"active"}"#);
        let key = shop.operator("POST", "accounts/shop/api-key", "");
        let key = key["api_key"].as_str().expect("a key").to_owned();
        Self { key, ..shop }
    }

    /// What an operator does.
    pub(crate) fn operator(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = self.node.web(method, &format!("/api/xbus/{path}"), body);
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    fn with_key(&self, key: &str, method: &str, path: &str, body: &str) -> Response {
        self.node.web_with(method, &format!("/xbus/{path}"), &[("Xbus-API-Key", key)], body)
    }

    /// What a program does.
    fn program(&self, method: &str, path: &str, body: &Value) -> Response {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.with_key(&self.key, method, path, &text)
    }

    fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.program(method, path, body);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.json()
    }

    /// The next job of an actor.
    fn job(&self, actor: &str) -> Value {
        self.done("GET", &format!("{actor}/processrequest?wait=20s"), &Value::Null)
    }

    fn fate(&self, envelope: &str) -> Value {
        self.done("GET", &format!("shop.orders/envelope/{envelope}"), &Value::Null)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn problem(answer: &Response, status: u16, part: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(answer.json()["detail"].as_str().unwrap_or_default().contains(part), "{part:?}: {}", answer.text());
}

#[test]
fn an_envelope_goes_from_an_emitter_over_a_worker_to_a_consumer() {
    let shop = Shop::start();
    let sent =
        shop.done("POST", "shop.orders/output", &json!({"events": [{"type": "order", "items": ["one", "two"]}]}));
    assert_eq!(sent["reception_status"], "accepted", "{sent}");
    let id = text(&sent["id"]);
    assert_eq!(shop.fate(&id)["ended"], false);

    let job = shop.job("shop.upper");
    let envelope = &job["inputs"][0]["envelope"];
    assert_eq!((&envelope["id"], &envelope["events"][0]["items"]), (&sent["id"], &json!(["one", "two"])), "{job}");
    assert_eq!((&envelope["last"], &job["inputs"][0]["close"]), (&json!(true), &json!(false)));
    let again = shop.done("GET", "shop.upper/processrequest?again=true", &Value::Null);
    assert_eq!(again, job, "a program that has lost its job gets the same one again");
    let out =
        json!({ "context": job["context"], "envelope": {"events": [{"type": "order", "items": ["ONE", "TWO"]}]} });
    assert_eq!(shop.done("POST", "shop.upper/output", &out)["reception_status"], "accepted");
    let note = json!({ "context": job["context"], "messages": [{"level": "notice", "text": "two items"}] });
    shop.done("POST", "shop.upper/log", &note);
    shop.done("POST", "shop.upper/processingend", &json!({ "context": job["context"], "result": "success" }));

    let job = shop.job("shop.archive");
    assert_eq!(job["inputs"][0]["envelope"]["events"][0]["items"], json!(["ONE", "TWO"]));
    let messages = json!([{"level": "error", "text": "disk full"}]);
    let end = json!({ "context": job["context"], "result": "error", "messages": messages });
    shop.done("POST", "shop.archive/processingend", &end);
    let fate = wait_for("the end of the process", SOON, || Some(shop.fate(&id)).filter(|fate| fate["ended"] == true));
    let process = &fate["processes"][0];
    assert_eq!((&process["status"], &process["errors"]), (&json!("error"), &json!(["disk full"])), "{fate}");
    let logs = shop.operator("GET", &format!("logs/{}", text(&process["id"])), "");
    assert_eq!(logs["items"][0]["messages"][0]["text"], "two items", "{logs}");
    let late = shop.program("POST", "shop.archive/processingend", &end);
    assert!(matches!(late.status, 404 | 409), "the job has ended: {}", late.text());
}

#[test]
fn a_request_without_a_job_waits_and_the_actor_is_on_the_roll_meanwhile() {
    let shop = Shop::start();
    let began = Instant::now();
    let answer = shop.program("GET", "shop.archive/processrequest?wait=1s", &Value::Null);
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(shop.node.actors("xbus_station"), 1, "the actor counts as connected for a while");
    let service = wait_for("the actor on the roll", SOON, || {
        let answer = shop.node.web("GET", "/api/services/shop.archive", "");
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!(service["name"], "shop.archive", "{service}");
    wait_for("the time when the actor was last seen", SOON, || {
        shop.operator("GET", "actors/shop.archive", "")["last_seen_at"].is_string().then_some(())
    });
}

#[test]
fn who_has_no_key_or_that_of_another_account_is_refused() {
    let shop = Shop::start();
    problem(&shop.node.web("GET", "/xbus/shop.orders", ""), 401, "Xbus-API-Key is missing");
    problem(&shop.with_key("rbx_wrong", "GET", "shop.orders", ""), 401, "no enabled account");
    problem(&shop.program("GET", "shop.none", &Value::Null), 404, "has no actor shop.none");
    problem(&shop.program("GET", "shop.orders/processrequest", &Value::Null), 403, "is an emitter");
    problem(&shop.program("POST", "shop.archive/output", &json!({"events": []})), 403, "is a consumer");
    problem(&shop.program("POST", "shop.orders/output", &json!({"events": 1})), 400, "");
    problem(&shop.program("GET", "shop.archive/processrequest?wait=soon", &Value::Null), 400, "wait");
    problem(&shop.program("DELETE", "shop.orders", &Value::Null), 404, "below /xbus/");
    let event = json!({"id": "53131466-4e2e-11e7-916e-af2b1e6d242d", "type": "t", "index": 1, "count": 1, "checksum": 7, "items": ["a"]});
    let wrong = json!({ "id": "9b3f1466-4e2e-11e7-916e-af2b1e6d242d", "events": [event], "last": true });
    problem(&shop.program("POST", "shop.orders/output", &wrong), 422, "checksum");
    shop.operator("POST", "actors/shop.orders/disable", "");
    problem(&shop.program("POST", "shop.orders/output", &json!({"events": []})), 403, "is not enabled");
    assert_eq!(shop.done("GET", "shop.orders", &Value::Null)["actor"]["status"], "disabled");
    shop.operator("DELETE", "accounts/shop/api-key", "");
    problem(&shop.program("GET", "shop.orders", &Value::Null), 401, "no enabled account");
}

#[test]
fn wrong_keys_are_delayed() {
    let shop = Shop::start();
    let mut answers = (0..6).map(|number| shop.with_key(&format!("rbx_{number}"), "GET", "shop.orders", ""));
    let last = answers.by_ref().nth(5).expect("an answer");
    assert_eq!(last.status, 429, "{}", last.text());
    assert!(last.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok_and(|wait| wait >= 1)));
}

#[test]
fn an_operator_sends_an_envelope_in_the_name_of_an_actor() {
    let shop = Shop::start();
    let body = json!({"events": [{"type": "order", "items": ["one"]}]}).to_string();
    let sent = shop.operator("POST", "actors/shop.orders/output", &body);
    assert_eq!(sent["reception_status"], "accepted", "{sent}");
    assert_eq!(shop.job("shop.upper")["inputs"][0]["envelope"]["id"], sent["id"]);
    problem(&shop.node.web("POST", "/api/xbus/actors/shop.archive/output", &body), 403, "is a consumer");
    problem(&shop.node.web("POST", "/api/xbus/actors/none/output", &body), 404, "none");
}
