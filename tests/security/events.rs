//! What of the stored events somebody may look up: those of the subjects that it may subscribe to.

use super::secured::{Secured, publish, rest};
use crate::harness::{SOON, wait_for};

/// The subjects of a page, or the status and code of the refusal.
fn page(secured: &Secured, token: Option<&str>, query: &str) -> Result<Vec<String>, (u16, String)> {
    let answer = rest(secured.web, token, ("GET", &format!("/api/namespaces/orders/events?{query}"), ""));
    let body = answer.json();
    if answer.status != 200 {
        return Err((answer.status, body["code"].as_str().unwrap_or_default().to_owned()));
    }
    let items = body["items"].as_array().cloned().unwrap_or_default();
    Ok(items.iter().filter_map(|item| item["subject"].as_str().map(str::to_owned)).collect())
}

#[test]
fn a_page_has_the_events_of_the_subjects_that_one_may_subscribe_to() {
    let secured = Secured::start();
    let root = Some(secured.root.token.as_str());
    let subjects = ["orders.eu.created", "orders.us.created", "orders.eu.secret", "orders.eu.paid"];
    let ids: Vec<String> = subjects.iter().map(|subject| publish(&secured, root, subject).published().id).collect();
    let token = |name: &str, rights: &[&str]| secured.root.principal(&format!("service:{name}"), rights).0;
    let part = token("part", &["subscribe orders.eu.>", "deny subscribe orders.eu.secret"]);
    let other = token("other", &["subscribe others.>", "admin:read >"]);
    let most = token("most", &["subscribe >", "deny subscribe orders.eu.>"]);
    let refused = |status: u16, code: &str| Err((status, code.to_owned()));
    let eu = Ok(vec!["orders.eu.created".to_owned(), "orders.eu.paid".to_owned()]);
    let us = Ok(vec!["orders.us.created".to_owned()]);
    for (token, query, wanted) in [
        (root, "", Ok(subjects.map(str::to_owned).to_vec())),
        (Some(part.as_str()), "", eu.clone()),
        (Some(&part), "subject=orders.*.*", eu.clone()),
        (Some(&part), "subject=orders.eu.>&order=asc", eu),
        (Some(&part), "subject=orders.us.>", refused(403, "forbidden")),
        (Some(&part), "subject=orders.eu.secret", refused(403, "forbidden")),
        (Some(&most), "", us),
        (Some(&other), "", refused(403, "forbidden")),
        (None, "", refused(401, "unauthenticated")),
    ] {
        assert_eq!(page(&secured, token, query), wanted, "{query}");
    }
    let one = |token: &str, which: &str| {
        rest(secured.web, Some(token), ("GET", &format!("/api/namespaces/orders/events/{which}"), "")).status
    };
    assert_eq!((one(&part, &ids[0]), one(&part, "1"), one(&most, "2")), (200, 200, 200));
    assert_eq!((one(&part, &ids[2]), one(&part, "2"), one(&part, "99")), (404, 404, 404), "as if it was not there");
    assert_eq!(one(&other, "1"), 403);
}

#[test]
fn the_audit_needs_its_own_right() {
    let secured = Secured::start();
    let (token, _) = secured.root.principal("service:all", &["subscribe >", "admin:read >"]);
    let ask = |token: &str| {
        let answer = rest(secured.web, Some(token), ("GET", "/api/namespaces/_audit/events?limit=1", ""));
        (answer.status, answer.json()["items"].as_array().map(Vec::len))
    };
    assert_eq!(ask(&token), (403, None));
    let (token, _) = secured.root.principal("service:auditor", &["subscribe _audit.>"]);
    assert_eq!(ask(&token), (200, Some(1)));
    wait_for("the refusal in the audit", SOON, || {
        let denied = secured.root.audit("&what=denied&principal=service:all");
        denied.iter().any(|event| event["payload"]["target"] == "_audit.>").then_some(())
    });
}
