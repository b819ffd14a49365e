//! The central configuration: versions, conditions, merging, the way back, and the event that tells of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::cluster::Cluster;
use crate::harness::http::Response;
use crate::harness::node::{Node, Options};
use crate::harness::{SOON, wait_for};

const PATH: &str = "/api/config";

/// Status, document and `ETag`.
fn seen(answer: &Response) -> (u16, String, String) {
    (answer.status, answer.text(), answer.header("etag").unwrap_or_default().to_owned())
}

fn is(status: u16, document: &str, etag: &str) -> (u16, String, String) {
    (status, document.to_owned(), etag.to_owned())
}

#[test]
fn the_document_is_kept_as_it_came_with_a_version() {
    let mut node = Node::start(&Options::new());
    assert_eq!(seen(&node.web("GET", PATH, "")), is(200, "{}", "\"0\""), "before anybody set it");
    let document = r#"{ "z": 1.0, "a": [18446744073709551615], "ñ": "😀" }"#;
    assert_eq!(seen(&node.web("POST", PATH, document)), is(200, document, "\"1\""));
    assert_eq!(seen(&node.web("GET", PATH, "")), is(200, document, "\"1\""));
    assert_eq!(node.web_with("GET", PATH, &[("If-None-Match", "\"1\"")], "").status, 304);
    node.kill9();
    node.restart();
    assert_eq!(seen(&node.web("GET", PATH, "")), is(200, document, "\"1\""), "after kill -9");
}

#[test]
fn a_merge_changes_what_it_names_and_keeps_the_order() {
    let node = Node::start(&Options::new());
    node.web("POST", PATH, r#"{"z":{"x":1,"y":2},"a":3}"#);
    let merged = node.web("PATCH", PATH, r#"{"z":{"y":null,"w":[1]},"b":4}"#);
    assert_eq!(seen(&merged), is(200, r#"{"z":{"x":1,"w":[1]},"a":3,"b":4}"#, "\"2\""));
    let diff = node.web("GET", "/api/config/diff", "");
    assert_eq!(diff.header("content-type"), Some("application/json-patch+json"));
    assert_eq!(diff.json().as_array().map(Vec::len), Some(3), "{}", diff.text());
}

#[test]
fn two_administrators_do_not_overwrite_each_other() {
    let node = Node::start(&Options::new());
    let change = |method: &str, etag: &str, body: &str| node.web_with(method, PATH, &[("If-Match", etag)], body).status;
    assert_eq!(change("POST", "\"0\"", r#"{"a":1}"#), 200);
    assert_eq!(change("POST", "\"0\"", r#"{"a":2}"#), 412);
    assert_eq!(change("PATCH", "\"0\"", r#"{"a":2}"#), 412);
    assert_eq!(change("POST", "*", r#"{"a":3}"#), 200);
    assert_eq!(change("PATCH", "2", r#"{"a":4}"#), 400, "no ETag");
    let problem = node.web_with("POST", PATH, &[("If-Match", "\"0\"")], "{}").json();
    assert_eq!(problem["code"], "revision_mismatch", "{problem}");
    assert_eq!(node.web("GET", PATH, "").json(), json!({"a": 3}));
}

#[test]
fn merges_at_the_same_time_are_all_there() {
    let cluster = Cluster::start();
    std::thread::scope(|scope| {
        for id in 1..=3 {
            let node = cluster.node(id);
            scope.spawn(move || {
                for number in 0..5 {
                    let patch = format!(r#"{{"n{id}-{number}":true}}"#);
                    assert_eq!(node.web("PATCH", PATH, &patch).status, 200);
                }
            });
        }
    });
    for id in 1..=3 {
        let document = cluster.node(id).web("GET", PATH, "").json();
        assert_eq!(document.as_object().map(serde_json::Map::len), Some(15), "node {id}: {document}");
    }
}

#[test]
fn an_earlier_document_can_be_looked_at_and_comes_back_as_the_newest() {
    let node = Node::start(&Options::new());
    node.web("POST", &format!("{PATH}?reason=first%20try"), r#"{"a":1}"#);
    node.web("POST", PATH, r#"{"a":2}"#);
    assert_eq!(node.web("GET", "/api/config?revision=1", "").json(), json!({"a": 1}));
    assert_eq!(seen(&node.web("POST", "/api/config/rollback", r#"{"revision":1}"#)), is(200, r#"{"a":1}"#, "\"3\""));
    assert_eq!(node.web("POST", "/api/config/rollback", r#"{"revision":9}"#).status, 404);
    assert_eq!(node.web("GET", "/api/config?revision=9", "").status, 404);
    let history = node.web("GET", "/api/config/history", "").json();
    let rows: Vec<(u64, &str)> = history["items"].as_array().into_iter().flatten().map(row).collect();
    assert_eq!(rows, [(3, "back to revision 1"), (2, ""), (1, "first try")]);
}

fn row(item: &Value) -> (u64, &str) {
    (item["revision"].as_u64().unwrap_or_default(), item["reason"].as_str().unwrap_or_default())
}

#[test]
fn every_change_is_told_on_every_node_in_the_same_order_also_when_a_node_was_away() {
    let mut cluster = Cluster::start();
    let away = cluster.followers()[0];
    cluster.node(1).web("POST", PATH, r#"{"a":1}"#);
    cluster.kill(away);
    let here = away % 3 + 1;
    cluster.node(here).web("POST", PATH, r#"{"a":2}"#);
    cluster.up(&[away]);
    cluster.node(here).web("PATCH", PATH, r#"{"b":3}"#);
    wait_for("the node has caught up", Duration::from_secs(30), || {
        let answer = cluster.node(away).web("GET", "/api/config?consistency=stale", "");
        (answer.header("etag") == Some("\"3\"")).then_some(())
    });
    for id in 1..=3 {
        let told = cluster.node(id).replay("roll.config.updated").events(3, SOON);
        let told: Vec<Value> = told.iter().map(|event| event.payload()).collect();
        let wanted = [json!({"a": 1}), json!({"a": 2}), json!({"a": 2, "b": 3})];
        assert_eq!(told.iter().map(|told| told["config"].clone()).collect::<Vec<_>>(), wanted, "node {id}");
        assert_eq!(told.iter().map(|told| told["revision"].as_u64()).collect::<Vec<_>>(), [1, 2, 3].map(Some));
    }
}

#[test]
fn what_is_no_configuration_is_refused_and_changes_nothing() {
    let node = Node::start(&Options::new());
    let nested = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(300_000));
    let cases =
        [("", 400), ("{", 400), ("[]", 400), ("1", 400), ("null", 400), (nested.as_str(), 400), (large.as_str(), 413)];
    for method in ["POST", "PATCH"] {
        for (body, status) in cases {
            let answer = node.web(method, PATH, body);
            let problem = answer.header("content-type") == Some("application/problem+json");
            assert!(answer.status == status && problem, "{method} {body:.30}: {} {}", answer.status, answer.text());
        }
        assert_eq!(node.web_with(method, PATH, &[("If-Match", "nonsense")], "{}").status, 400, "{method}");
        assert_eq!(node.web(method, "/api/config?reson=x", "{}").status, 400, "{method}: a typo");
    }
    assert_eq!(node.web("DELETE", PATH, "").status, 405);
    assert_eq!(node.web("POST", "/api/config/rollback", r#"{"revision":"1"}"#).status, 400);
    assert_eq!(seen(&node.web("GET", PATH, "")), is(200, "{}", "\"0\""));
}
