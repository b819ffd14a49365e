//! REST of Xbus: accounts, actors and pipelines live, processes and logs are asked for.

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::node::{Node, Options};
use crate::harness::tls::Authority;
use crate::harness::xbus::Program;
use crate::harness::{SOON, wait_for};

const UNKNOWN: &str = "53131466-4e2e-11e7-916e-af2b1e6d242d";
const GRAPH: &str = "nodes:\n- id: in\n  type: emitter\n  roles: [orders]\n- id: out\n  type: consumer\n  roles: [archive]\nedges:\n- in.default->out.default\n";

/// A node whose cluster knows Xbus.
fn start() -> Node {
    start_with(&Options::new())
}

fn start_with(options: &Options) -> Node {
    let node = Node::start(options);
    wait_for("the feature level", SOON, || {
        (registered(&node, "first", &Program::new(), &json!([])).status == 200).then_some(())
    });
    node
}

fn registered(node: &Node, name: &str, program: &Program, actors: &Value) -> Response {
    let body = json!({ "name": name, "type": "actor", "csr": program.request(name), "actors": actors });
    node.web("POST", "/api/xbus/accounts", &body.to_string())
}

fn done(node: &Node, method: &str, path: &str, body: &Value) -> Value {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let answer = node.web(method, &format!("/api/xbus/{path}"), &text);
    assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

/// A request that is refused: the status, and the code and text of the problem.
fn refused(answer: &Response, status: u16, part: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains(part), "{part:?} is not said: {detail}");
}

#[test]
fn an_account_is_registered_accepted_shut_out_and_deleted() {
    let node = start();
    let program = Program::new();
    let actors = json!([{ "name": "shop.orders", "kind": "emitter", "roles": ["orders"], "config": { "a": "1" } }]);
    let account = registered(&node, "shop", &program, &actors).json();
    assert_eq!((&account["status"], &account["waits"]), (&json!("pending"), &json!(true)), "{account}");
    assert_eq!(account["actors"], json!(["shop.orders"]));
    let again = registered(&node, "shop", &program, &json!([])).json();
    assert_eq!((&again["id"], &again["revision"]), (&account["id"], &account["revision"]), "nothing changes");
    refused(&registered(&node, "shop", &Program::new(), &json!([])), 409, "another key");
    refused(&node.web("POST", "/api/xbus/accounts/shop/enable", ""), 409, "no certificate");

    refused(&node.web("POST", "/api/xbus/accounts/shop/accept", ""), 409, "no CA for accounts");
    let accept =
        |pem: &str| node.web("POST", "/api/xbus/accounts/shop/accept", &json!({ "certificate": pem }).to_string());
    refused(&accept(&program.certificate("other")), 400, "common name has to be shop");
    refused(&accept(&Program::new().certificate("shop")), 400, "not that of the request");
    refused(&accept("x"), 400, "an X.509 certificate in PEM");
    let certificate = program.certificate("shop");
    let accepted = accept(&certificate).json();
    assert_eq!((&accepted["status"], &accepted["waits"]), (&json!("enabled"), &json!(false)), "{accepted}");
    assert_eq!(registered(&node, "shop", &program, &json!([])).json()["certificate"], json!(certificate));
    let by_id = done(&node, "GET", &format!("accounts/{}", accepted["id"].as_str().unwrap_or_default()), &Value::Null);
    assert_eq!(by_id, accepted);
    let credentials = node.web("GET", "/api/security/principals/actor:shop/credentials", "").json();
    assert_eq!(credentials["items"][0]["kind"], "certificate", "{credentials}");

    let key = done(&node, "POST", "accounts/shop/api-key", &Value::Null);
    assert!(key["api_key"].as_str().is_some_and(|key| key.starts_with("rbx_") && key.len() == 47), "{key}");
    assert_eq!(done(&node, "GET", "accounts/shop", &Value::Null)["has_api_key"], true);
    done(&node, "DELETE", "accounts/shop/api-key", &Value::Null);
    assert_eq!(done(&node, "GET", "accounts/shop", &Value::Null)["has_api_key"], false);

    refused(&node.web("POST", "/api/xbus/accounts/shop/reject", ""), 409, "not pending");
    assert_eq!(done(&node, "POST", "accounts/shop/disable", &Value::Null)["status"], "disabled");
    refused(&registered(&node, "shop", &program, &json!([])), 409, "disabled");
    assert_eq!(done(&node, "POST", "accounts/shop/enable", &Value::Null)["status"], "enabled");
    let reset = done(&node, "POST", "accounts/shop/reset-certificate", &Value::Null);
    assert_eq!((&reset["status"], &reset["certificate"]), (&json!("pending"), &Value::Null), "{reset}");
    let other = registered(&node, "shop", &Program::new(), &json!([])).json();
    assert_eq!(other["waits"], true, "another key may come now: {other}");
    done(&node, "DELETE", "accounts/shop", &Value::Null);
    assert_eq!(node.web("GET", "/api/xbus/accounts/shop", "").status, 404);
    assert_eq!(node.web("GET", "/api/xbus/actors/shop.orders", "").status, 404, "its actors go with it");
    assert_eq!(node.web("GET", "/api/security/principals/actor:shop", "").status, 404);
}

#[test]
fn the_node_signs_the_request_of_an_account_with_its_own_authority() {
    let authority = Authority::new(&[]);
    let options = Options::new().env("ROLLBOOK_NATS__XBUS_CA_CERTIFICATE", &authority.text("ca.pem"));
    let node = start_with(&options.env("ROLLBOOK_NATS__XBUS_CA_KEY", &authority.text("ca.key")));
    let program = Program::new();
    assert_eq!(registered(&node, "shop", &program, &json!([])).status, 200);
    let account = done(&node, "POST", "accounts/shop/accept", &json!({ "certificate_days": 7 }));
    let pem = account["certificate"].as_str().unwrap_or_default();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{account}");
    let credentials = node.web("GET", "/api/security/principals/actor:shop/credentials", "").json();
    assert!(credentials["items"][0]["expires_at"].is_string(), "{credentials}");
    let other = json!({ "name": "other", "type": "actor", "csr": program.request("shop") }).to_string();
    refused(&node.web("POST", "/api/xbus/accounts", &other), 400, "one common name");
}

#[test]
fn a_pending_account_is_rejected_and_lists_are_filtered_and_paged() {
    let node = start();
    for name in ["a", "b", "c"] {
        assert_eq!(registered(&node, name, &Program::new(), &json!([])).status, 200);
    }
    assert_eq!(done(&node, "POST", "accounts/b/reject", &Value::Null)["status"], "disabled");
    let names = |query: &str| {
        let page = done(&node, "GET", &format!("accounts?{query}"), &Value::Null);
        let names = page["items"].as_array().expect("items").iter().map(|item| item["name"].clone());
        (names.collect::<Vec<_>>(), page["next_cursor"].clone())
    };
    assert_eq!(names("status=disabled").0, [json!("b")]);
    let (first, cursor) = names("limit=3");
    assert_eq!(first, [json!("a"), json!("b"), json!("c")]);
    assert_eq!(names(&format!("limit=3&cursor={}", cursor.as_str().expect("more"))).0, [json!("first")]);
    refused(&node.web("GET", "/api/xbus/accounts?status=odd", ""), 400, "status=odd");
}

#[test]
fn an_actor_is_accepted_changed_under_its_revision_and_deleted() {
    let node = start();
    let actors = json!([{ "name": "shop.orders", "kind": "emitter" }]);
    assert_eq!(registered(&node, "shop", &Program::new(), &actors).status, 200);
    let body = json!({ "config": { "language": "en" } });
    let actor = done(&node, "POST", "actors/shop.orders/accept", &body);
    assert_eq!((&actor["status"], &actor["config"]), (&json!("enabled"), &json!({ "language": "en" })), "{actor}");
    let path = "/api/xbus/actors/shop.orders";
    let put = |tag: &str, body: &Value| node.web_with("PUT", path, &[("If-Match", tag)], &body.to_string());
    let tag = node.web("GET", path, "").header("etag").expect("an ETag").to_owned();
    let changed = put(&tag, &json!({ "roles": ["orders"] }));
    assert_eq!((changed.status, &changed.json()["roles"]), (200, &json!(["orders"])), "{}", changed.text());
    assert_eq!(changed.json()["config"], json!({ "language": "en" }), "what is left out stays");
    assert_eq!(put(&tag, &json!({ "roles": ["x"] })).status, 412, "somebody was faster");
    let condemned = node.web_with("DELETE", path, &[("If-Match", &tag)], "");
    assert_eq!(condemned.status, 412, "{}", condemned.text());
    assert_eq!(done(&node, "POST", "actors/shop.orders/reject", &Value::Null)["status"], "rejected");
    assert_eq!(done(&node, "POST", "actors/shop.orders/disable", &Value::Null)["status"], "disabled");

    refused(&node.web("PUT", "/api/xbus/actors/shop.files", "{}"), 400, "name its account");
    let made = done(&node, "PUT", "actors/shop.files", &json!({ "account": "shop", "kind": "consumer" }));
    assert_eq!((&made["status"], &made["account"]), (&json!("pending"), &json!("shop")), "{made}");
    let listed = done(&node, "GET", "actors?account=shop&status=pending", &Value::Null);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
    done(&node, "DELETE", "actors/shop.files", &Value::Null);
    assert_eq!(node.web("GET", "/api/xbus/actors/shop.files", "").status, 404);
}

#[test]
fn a_pipeline_is_a_draft_with_faults_until_it_is_right_and_supersedes_the_version_before() {
    let node = start();
    let save = |version: &str, text: &str| node.web("PUT", &format!("/api/xbus/pipelines/orders/{version}"), text);
    refused(&save("1", "nodes:\n- id: in\n  typ: emitter\n"), 400, "line 3");
    let faulty = save("1", "nodes:\n- id: in\n  type: emitter\n  roles: [orders]\nedges:\n- in.default->out.default\n");
    let view = faulty.json();
    assert_eq!((faulty.status, &view["is_valid"]), (200, &json!(false)), "{view}");
    assert!(view["faults"].to_string().contains("out"), "{view}");
    let status = |version: &str, word: &str| {
        let path = format!("/api/xbus/pipelines/orders/{version}/status");
        node.web("POST", &path, &json!({ "status": word }).to_string())
    };
    refused(&status("1", "active"), 409, "has faults");
    let saved = save("1", GRAPH).json();
    assert_eq!((&saved["is_valid"], &saved["faults"], &saved["revision"]), (&json!(true), &json!([]), &json!(2)));
    assert_eq!((&saved["source"], &saved["graph"]["nodes"][1]["type"]), (&json!(GRAPH), &json!("consumer")));
    assert_eq!(status("1", "active").json()["status"], "active");
    refused(&save("1", GRAPH), 409, "is no draft");
    refused(&node.web("DELETE", "/api/xbus/pipelines/orders/1", ""), 409, "is active");
    assert_eq!(save("2", GRAPH).status, 200);
    assert_eq!(status("2", "active").json()["status"], "active");
    let versions = done(&node, "GET", "pipelines/orders", &Value::Null);
    let shown: Vec<_> = versions["items"].as_array().expect("items").iter().map(|one| one["status"].clone()).collect();
    assert_eq!(shown, [json!("inactive"), json!("active")], "at most one is active");
    done(&node, "DELETE", "pipelines/orders/1", &Value::Null);
    assert_eq!(node.web("GET", "/api/xbus/pipelines/orders/1", "").status, 404);
    assert_eq!(done(&node, "GET", "pipelines?active=true", &Value::Null)["items"].as_array().map(Vec::len), Some(1));
    let old = node.web_with("DELETE", "/api/xbus/pipelines/orders/2", &[("If-Match", "\"1\"")], "");
    assert_eq!(old.status, 412, "{}", old.text());
}

#[test]
fn what_is_not_there_is_said_by_name() {
    let node = start();
    for (method, path, body, part) in [
        ("GET", "accounts/none".to_owned(), "", "not found: account none"),
        ("POST", "accounts/none/accept".to_owned(), "", "not found: account none"),
        ("DELETE", "accounts/none".to_owned(), "", "not found: account none"),
        ("GET", "actors/none".to_owned(), "", "not found: actor none"),
        ("POST", "actors/none/accept".to_owned(), "", "not found: actor none"),
        ("GET", "actors?account=none".to_owned(), "", "not found: account none"),
        ("GET", "pipelines/none".to_owned(), "", "not found: pipeline none"),
        ("GET", "pipelines/none/1".to_owned(), "", "not found: pipeline none, version 1"),
        ("POST", "pipelines/none/1/status".to_owned(), r#"{"status":"active"}"#, "pipeline none, version 1"),
        ("GET", format!("processes/{UNKNOWN}"), "", "not found: process"),
        ("POST", format!("processes/{UNKNOWN}/pause"), "", "that goes on"),
        ("PUT", format!("processes/{UNKNOWN}/attention"), r#"{"status":"closed"}"#, "that needs attention"),
        ("GET", "processes?pipeline=none".to_owned(), "", "not found: pipeline none"),
        ("GET", format!("envelopes/{UNKNOWN}"), "", "not found: envelope"),
        ("GET", format!("replays/{UNKNOWN}"), "", "not found: replay"),
        ("DELETE", format!("replays/{UNKNOWN}"), "", "not found: replay"),
        ("POST", "replays".to_owned(), r#"{"filter":{"pipeline":"none"}}"#, "not found: pipeline none"),
        ("GET", "schemas/none".to_owned(), "", "not found: schema none"),
        ("DELETE", "schemas/none".to_owned(), "", "not found: schema none"),
    ] {
        let answer = node.web(method, &format!("/api/xbus/{path}"), body);
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
        assert_eq!(answer.json()["code"], "xbus_not_found", "{method} {path}");
        refused(&answer, 404, part);
    }
    for (method, path, body, part) in [
        ("GET", "processes/x", "", "no UUID"),
        ("GET", "processes?status=odd", "", "running, paused, done or error"),
        ("GET", "processes?from=now", "", "a time as 2026-11-21T10:00:00Z"),
        ("GET", "processes?version=1", "", "needs pipeline"),
        ("POST", "processes/purge", r#"{"status":"running","unchanged_for":"1h"}"#, "running"),
        ("POST", "processes/purge", r#"{"status":"done","unchanged_for":"soon"}"#, "unchanged_for"),
        ("POST", "logs/purge", r#"{"older":"-1h"}"#, "older"),
        ("POST", "replays", "{}", "filter"),
        ("POST", "replays", r#"{"filter":{"status":["running"]}}"#, "running"),
        ("POST", "replays", r#"{"filter":{},"version":"newest"}"#, "newest"),
        ("PUT", "schemas/order", r#"{"mode":"warn"}"#, "schema"),
        ("PUT", "schemas/order", r#"{"mode":"odd","schema":{}}"#, "odd"),
        ("PUT", "schemas/order", r#"{"mode":"warn","schema":{"type":"odd"}}"#, "/type"),
        ("PUT", "schemas/order", r#"{"mode":"warn","schema":{"$ref":"http://127.0.0.1/x"}}"#, "nothing is fetched"),
    ] {
        refused(&node.web(method, &format!("/api/xbus/{path}"), body), 400, part);
    }
}

#[test]
fn a_schema_is_set_under_its_revision_listed_and_deleted() {
    let node = start();
    let set = |mode: &str| json!({ "mode": mode, "schema": { "type": "object" } });
    let first = done(&node, "PUT", "schemas/shop.order", &set("warn"));
    assert_eq!((&first["mode"], &first["revision"]), (&json!("warn"), &json!(1)), "{first}");
    let path = "/api/xbus/schemas/shop.order";
    let tag = node.web("GET", path, "").header("etag").expect("an ETag").to_owned();
    let put = || node.web_with("PUT", path, &[("If-Match", &tag)], &set("enforce").to_string()).status;
    assert_eq!((put(), put()), (200, 412), "the tag is that of the first revision");
    done(&node, "PUT", "schemas/bill", &set("off"));
    let list = done(&node, "GET", "schemas", &Value::Null);
    let types = list["items"].as_array().into_iter().flatten().map(|item| (&item["event_type"], &item["mode"]));
    assert_eq!(types.collect::<Vec<_>>(), [(&json!("bill"), &json!("off")), (&json!("shop.order"), &json!("enforce"))]);
    assert_eq!(done(&node, "GET", "schemas/shop.order", &Value::Null)["schema"], json!({ "type": "object" }));
    done(&node, "DELETE", "schemas/shop.order", &Value::Null);
    assert_eq!(node.web("GET", path, "").status, 404);
}

#[test]
fn lists_of_processes_and_logs_are_empty_and_purges_count_what_they_removed() {
    let node = start();
    for path in ["processes", "processes?status=done,error&emitter=53131466-4e2e-11e7-916e-af2b1e6d242d", "attention"] {
        assert_eq!(done(&node, "GET", path, &Value::Null), json!({ "items": [], "next_cursor": null }), "{path}");
    }
    assert_eq!(done(&node, "GET", &format!("logs/{UNKNOWN}"), &Value::Null)["items"], json!([]));
    let body = json!({ "status": "done", "unchanged_for": "168h" });
    assert_eq!(done(&node, "POST", "processes/purge", &body), json!({ "removed": 0 }));
    for path in ["envelopes/purge", "logs/purge"] {
        assert_eq!(done(&node, "POST", path, &json!({ "older": "1h" })), json!({ "removed": 0 }), "{path}");
    }
}
