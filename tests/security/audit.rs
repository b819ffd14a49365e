//! What operations and refusals leave in the audit.

use serde_json::{Value, json};

use super::secured::{Secured, cluster, publish, rest};
use crate::harness::cluster::Cluster;
use crate::harness::http::Http;
use crate::harness::{SOON, wait_for};

/// Lines of that subject, oldest first.
fn lines(items: &[Value], what: &str) -> Vec<Value> {
    let subject = format!("_audit.{what}");
    items.iter().rev().filter(|item| item["subject"] == *subject).map(|item| item["payload"].clone()).collect()
}

#[test]
fn each_administrative_operation_is_in_the_audit_with_who_what_and_how_it_ended() {
    let secured = Secured::start();
    let root = &secured.root;
    let (_, id) = root.principal("user:ann", &["publish app.>"]);
    let operations = [
        ("PUT", "/api/security/roles/writer", json!({ "rights": ["publish x.>"] }), "security.role_set"),
        ("PUT", "/api/security/principals/user:bob", json!({ "roles": ["writer"] }), "security.principal_set"),
        ("POST", "/api/security/principals/user:bob/tokens", json!({}), "security.credential_add"),
        (
            "PUT",
            "/api/security/principals/user:bob/password",
            json!({ "password": "a long one" }),
            "security.credential_add",
        ),
        (
            "POST",
            "/api/security/principals/user:bob/certificates",
            json!({ "certificate": "cn:bob" }),
            "security.credential_add",
        ),
        ("DELETE", "/api/security/credentials/cn:bob", Value::Null, "security.credential_delete"),
        ("DELETE", "/api/security/principals/user:bob", Value::Null, "security.principal_delete"),
        ("DELETE", "/api/security/roles/writer", Value::Null, "security.role_delete"),
        ("POST", "/api/namespaces", json!({ "name": "made" }), "namespace.create"),
        ("PATCH", "/api/namespaces/made", json!({ "retention": { "max_events": 9 } }), "namespace.retention"),
        ("DELETE", "/api/namespaces/made", Value::Null, "namespace.delete"),
        ("PUT", "/api/schedules/s", json!({ "subject": "app.x", "cron": "@daily" }), "schedule.set"),
        ("PATCH", "/api/schedules/s", json!({ "paused": true }), "schedule.set"),
        ("POST", "/api/schedules/s/run", Value::Null, "schedule.run"),
        ("DELETE", "/api/schedules/s", Value::Null, "schedule.delete"),
        ("POST", "/api/config", json!({ "a": 1 }), "config.set"),
    ];
    let token_id = root.token.split('_').nth(1).expect("an id").to_owned();
    let mut expected = Vec::new();
    for (number, (method, path, body, what)) in operations.iter().enumerate() {
        let request = format!("request-{number}");
        let header = super::secured::bearer(&root.token);
        let headers =
            [("Authorization", header.as_str()), ("X-Request-Id", &request), ("Content-Type", "application/json")];
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let answer = Http::connect(root.web).request(method, path, &headers, text.as_bytes());
        assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text());
        let shown = answer.header("x-request-id").map_or(request, str::to_owned);
        expected.push((*what, shown));
    }
    let items = root.audit("");
    for (what, request) in expected {
        let of = lines(&items, what);
        let line =
            of.iter().find(|line| line["request"] == *request).unwrap_or_else(|| panic!("{what} {request}: {of:?}"));
        let about = [&line["principal"], &line["credential"], &line["door"], &line["outcome"]];
        assert_eq!(about, [&json!("user:root"), &json!(token_id), &json!("rest"), &json!("done")], "{line}");
        assert!(line["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1")), "{line}");
        assert!(line["at"].is_string() && line["target"].is_string(), "{line}");
        if what.starts_with("security.") {
            let (before, after) = (line["revision_before"].as_u64(), line["revision_after"].as_u64());
            assert!(before < after && before.is_some(), "{line}");
        }
    }
    // A change that the cluster refuses is there too, and one that the caller may not.
    assert_eq!(root.ask("DELETE", "/api/security/principals/user:nobody", "").status, 404);
    let items = root.audit("&what=security.principal_delete");
    let refused = lines(&items, "security.principal_delete").pop().expect("a line");
    assert_eq!((&refused["outcome"], &refused["target"]), (&json!("refused"), &json!("user:nobody")), "{refused}");
    assert!(refused["reason"].is_string() && !root.audit("").is_empty(), "{refused}");
    root.revoke(&id);
}

#[test]
fn refusals_are_gathered_and_the_audit_is_found_by_principal_and_by_what() {
    let secured = Secured::start();
    let root = &secured.root;
    let (token, _) = root.principal("user:eve", &["subscribe x.>"]);
    for _ in 0..50 {
        assert_eq!(publish(&secured, Some(&token), "app.x").status, 403);
    }
    let counted =
        |items: &[Value]| items.iter().map(|item| item["payload"]["count"].as_u64().unwrap_or(1)).sum::<u64>();
    let items = wait_for("all refusals", SOON, || {
        let items = root.audit("&principal=user:eve&what=denied");
        (counted(&items) >= 50).then_some(items)
    });
    assert!(items.len() <= 4 && counted(&items) == 50, "{items:?}");
    let line = &items[0]["payload"];
    assert_eq!(
        (&line["principal"], &line["target"], &line["outcome"]),
        (&json!("user:eve"), &json!("app.x"), &json!("denied"))
    );
    assert_eq!(items[0]["subject"], "_audit.denied.publish");
    let all = root.audit("");
    let indexes: Vec<i64> = all.iter().filter_map(|item| item["index"].as_i64()).collect();
    assert!(indexes.windows(2).all(|pair| pair[0] > pair[1]), "newest first: {indexes:?}");
    let before = root.audit(&format!("&before={}", indexes[0]));
    assert_eq!(before[0]["index"], indexes[1]);
    let only = root.audit("&what=security.principal_set");
    assert!(!only.is_empty() && only.iter().all(|item| item["subject"] == "_audit.security.principal_set"), "{only:?}");
    assert_eq!(rest(secured.web, Some(&token), ("GET", "/api/audit", "")).status, 403);
    assert_eq!(rest(secured.web, Some(&root.token), ("GET", "/api/audit?what=a%20b", "")).status, 400);
}

#[test]
fn nobody_shortens_writes_or_deletes_the_audit() {
    let secured = Secured::start();
    let root = &secured.root;
    let retention =
        |json: Value| root.ask("PATCH", "/api/namespaces/_audit", &json!({ "retention": json }).to_string());
    for short in [
        json!({ "max_age": "1h" }),
        json!({ "max_age": "719h" }),
        json!({ "max_events": 10 }),
        json!({ "max_bytes": 1000 }),
    ] {
        let answer = retention(short.clone());
        assert!((400..500).contains(&answer.status), "{short}: {} {}", answer.status, answer.text());
    }
    let answer = retention(json!({ "max_age": "721h" }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let refused = root.ask("DELETE", "/api/namespaces/_audit", "");
    assert!((400..500).contains(&refused.status), "{} {}", refused.status, refused.text());
    let refused = publish(&secured, Some(&root.token), "_audit.security.principal_set");
    assert!((400..500).contains(&refused.status), "{} {}", refused.status, refused.text());
}

#[test]
fn the_audit_outlives_its_leader() {
    let (mut cluster, operators) = cluster();
    operators[0].principal("user:ann", &["publish app.>"]);
    let leader = leader(&cluster, &operators[0].token);
    let other = operators.iter().enumerate().find(|(at, _)| at + 1 != leader).expect("another node").1;
    cluster.kill(leader);
    let items = wait_for("the audit at another node", SOON * 2, || {
        let made = other.ask("PUT", "/api/security/principals/user:bob", "{}").status == 200;
        made.then(|| other.audit("&what=security.principal_set"))
    });
    let targets: Vec<&str> = items.iter().filter_map(|item| item["payload"]["target"].as_str()).collect();
    assert!(targets.contains(&"user:ann") && targets.contains(&"user:bob"), "{targets:?}");
}

fn leader(cluster: &Cluster, token: &str) -> usize {
    wait_for("a leader", SOON, || {
        let view = rest(cluster.node(1).web, Some(token), ("GET", "/api/cluster", "")).json();
        view["leader"].as_u64().and_then(|id| usize::try_from(id).ok())
    })
}
