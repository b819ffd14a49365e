//! Events that wait for their time: a publish like others, and cancelled by whoever could publish them.

use serde_json::{Value, json};

use super::secured::{Secured, log, rest};
use crate::harness::{SOON, wait_for};

#[test]
fn a_waiting_event_is_published_seen_and_cancelled_by_those_who_may() {
    let secured = Secured::start();
    let token = |name: &str, rights: &[&str]| secured.root.principal(&format!("service:{name}"), rights).0;
    let shop = token("shop", &["publish shop.>"]);
    let other = token("other", &["publish other.>", "subscribe >"]);
    let viewer = token("viewer", &["admin:read delayed"]);
    let keeper = token("keeper", &["admin:write delayed/shop"]);
    let publish = |token: &str, key: &str| {
        let body = json!({ "subject": "shop.x", "delay": "1h", "key": key }).to_string();
        log(secured.log, Some(token), ("POST", "/", &body))
    };
    assert_eq!(publish(&other, "k").status, 403);
    let waits = |key: &str| {
        let answer = publish(&shop, key);
        answer.header("x-bus-delayed-id").unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
    };
    let ids = [waits("1"), waits("2"), waits("3")];
    let list = |token: &str| rest(secured.web, Some(token), ("GET", "/api/delayed", ""));
    assert_eq!([list(&shop).status, list(&other).status, list(&keeper).status], [403; 3]);
    assert_eq!(list(&viewer).json()["items"].as_array().map(Vec::len), Some(3));
    let cancel =
        |token: Option<&str>, id: &str| rest(secured.web, token, ("DELETE", &format!("/api/delayed/{id}"), "")).status;
    assert_eq!([cancel(Some(&other), &ids[0]), cancel(Some(&viewer), &ids[0]), cancel(None, &ids[0])], [403, 403, 401]);
    assert_eq!([cancel(Some(&shop), &ids[0]), cancel(Some(&keeper), &ids[1])], [204, 204]);
    assert_eq!(cancel(Some(&secured.root.token), &ids[2]), 204);
    let lines = wait_for("the audit", SOON, || {
        let lines = secured.root.audit("");
        let of = |line: &&Value| line["subject"] == "_audit.delayed.cancel";
        let done: Vec<Value> = lines.iter().filter(of).cloned().collect();
        (done.len() >= 3).then_some(done)
    });
    for id in &ids {
        assert!(lines.iter().any(|line| line.to_string().contains(id.as_str())), "{id}: {lines:?}");
    }
}
