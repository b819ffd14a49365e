//! Dead letters of a part of the subjects are for whoever may read and publish there.

use serde_json::json;

use super::secured::{Secured, log, publish, rest, subscribe};
use crate::harness::{SOON, wait_for};

/// A node with one dead letter of `work.a` and one of `other.a`, the newest of which is at index 2.
fn with_letters() -> Secured {
    let secured = Secured::start();
    let root = secured.root.token.clone();
    for namespace in ["work", "other"] {
        secured.root.done("POST", "/api/namespaces", &json!({ "name": namespace }));
        let (subject, pattern) = (format!("{namespace}.a"), format!("{namespace}.>"));
        assert_eq!(publish(&secured, Some(&root), &subject).status, 202);
        let mut stream =
            subscribe(&secured, Some(&root), &[("subject", &pattern), ("start", "oldest"), ("ack", "manual")]);
        let event = stream.next_event(SOON).event_id();
        let ack = format!("/?consumer_id={}&event_id={event}&action=reject", stream.consumer_id());
        assert_eq!(log(secured.log, Some(&root), ("PUT", &ack, "")).status, 202);
        wait_for("the letter", SOON, || {
            let found = secured.root.done("GET", &format!("/api/dead-letters?subject={pattern}"), &json!(null)).json();
            (found["items"].as_array()?.len() == 1).then_some(())
        });
    }
    secured
}

#[test]
fn a_team_works_with_the_letters_of_its_own_subjects_and_no_others() {
    let secured = with_letters();
    let (team, _) = secured.root.principal("user:team", &["subscribe _dead_.work.>", "publish work.>"]);
    let (reader, _) = secured.root.principal("user:reader", &["subscribe _dead_.work.>"]);
    let ask = |token: &str, request| rest(secured.web, Some(token), request).status;
    for token in [&team, &reader] {
        assert_eq!(ask(token, ("GET", "/api/dead-letters?subject=work.>", "")), 200);
        assert_eq!(ask(token, ("GET", "/api/dead-letters", "")), 403, "all letters are more");
        assert_eq!(ask(token, ("GET", "/api/dead-letters?subject=other.>", "")), 403);
        assert_eq!(ask(token, ("GET", "/api/dead-letters/1", "")), 200);
        assert_eq!(ask(token, ("GET", "/api/dead-letters/2", "")), 403);
        assert_eq!(ask(token, ("GET", "/api/dead-letters/99", "")), 403, "nor which there are");
        assert_eq!(ask(token, ("POST", "/api/dead-letters/2/retry", "{}")), 403);
        assert_eq!(ask(token, ("POST", "/api/dead-letters/1/discard", "")), 403, "that needs admin:write");
        let job = r#"{"action":"discard","filter":{"subject":"work.>"}}"#;
        assert_eq!(ask(token, ("POST", "/api/dead-letter-jobs", job)), 403);
    }
    assert_eq!(ask(&reader, ("POST", "/api/dead-letters/1/retry", "{}")), 403, "who reads may not publish");
    assert_eq!(ask(&team, ("POST", "/api/dead-letters/1/retry", r#"{"to":"other.a"}"#)), 403);
    assert_eq!(ask(&team, ("POST", "/api/dead-letters/1/retry", "{}")), 200);
    let done = secured.root.done("GET", "/api/dead-letters/1", &json!(null)).json();
    assert_eq!(done["done"]["by"], "user:team", "{done}");
    let lines = secured.root.audit("&principal=user:team");
    assert!(lines.iter().any(|line| line.to_string().contains("dead_letter.retry")), "{lines:?}");
}

#[test]
fn a_job_publishes_only_where_its_principal_may_and_reads_only_what_it_may() {
    let secured = with_letters();
    let rights = ["subscribe _dead_.>", "publish work.>", "admin:write dead-letters", "admin:read dead-letters"];
    let (token, _) = secured.root.principal("user:operator", &rights);
    let begin = |body: &str| rest(secured.web, Some(&token), ("POST", "/api/dead-letter-jobs", body));
    assert_eq!(begin(r#"{"action":"retry","filter":{},"to":"other.b"}"#).status, 403);
    let begun = begin(r#"{"action":"retry","filter":{}}"#);
    assert_eq!(begun.status, 202, "{}", begun.text());
    let path = format!("/api/dead-letter-jobs/{}", begun.json()["id"].as_str().unwrap_or_default());
    let ended = wait_for("the end of the job", SOON, || {
        let job = rest(secured.web, Some(&token), ("GET", &path, "")).json();
        (job["state"] == "done").then_some(job)
    });
    assert_eq!((&ended["done"], &ended["refused"], &ended["by"]), (&json!(1), &json!(1), &json!("user:operator")));
    assert!(
        ended["refusals"][0]["reason"].as_str().is_some_and(|why| why.contains("may not publish other.a")),
        "{ended}"
    );
    let (narrow, _) = secured.root.principal("user:narrow", &["subscribe _dead_.work.>", "admin:write dead-letters"]);
    let all =
        rest(secured.web, Some(&narrow), ("POST", "/api/dead-letter-jobs", r#"{"action":"discard","filter":{}}"#));
    assert_eq!(all.status, 403, "{}", all.text());
}

#[test]
fn a_subscription_names_a_subject_for_its_dead_letters_only_where_it_may_publish() {
    let secured = with_letters();
    let (token, _) = secured.root.principal("user:reader", &["subscribe work.>", "publish other.failed"]);
    let ask = |dead_letter: &str| {
        let path = format!("/?subject=work.>&ack=manual&dead_letter={dead_letter}");
        log(secured.log, Some(&token), ("GET", &path, "")).status
    };
    assert_eq!([ask("other.x"), ask("_dead_.x")], [403, 400]);
    let query = [("subject", "work.>"), ("start", "oldest"), ("ack", "manual"), ("dead_letter", "other.failed")];
    let mut stream = subscribe(&secured, Some(&token), &query);
    assert_eq!(stream.next_event(SOON).subject(), "work.a");
}
