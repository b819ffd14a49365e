//! A node that was away during a revocation, and a node that has lost its majority.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{SOON, wait_for};
use crate::security::secured::{cluster, publish, rest, subscribe};

const SELF: (&str, &str, &str) = ("GET", "/api/security/self", "");

#[test]
fn a_node_that_was_away_during_a_revocation_lets_nobody_in_with_the_token() {
    let (mut cluster, operators) = cluster();
    let (token, id) = operators[0].principal("user:ann", &["publish app.>"]);
    wait_for("the token at node 3", SOON, || (rest(operators[2].web, Some(&token), SELF).status == 200).then_some(()));
    cluster.terminate(3);
    let present = wait_for("a node that takes the revocation", SOON, || {
        operators[..2].iter().find(|one| {
            let status = one.ask("DELETE", &format!("/api/security/credentials/{id}"), "").status;
            matches!(status, 204 | 404)
        })
    });
    assert_eq!(rest(present.web, Some(&operators[0].token), SELF).status, 200);
    cluster.up(&[3]);
    let node = cluster.node(3);
    // From the first answer on: not yet, or no.
    let mut statuses = Vec::new();
    wait_for("a node that has caught up", SOON, || {
        for answer in [publish(node, Some(&token), "app.x"), rest(node.web, Some(&token), SELF)] {
            statuses.push(answer.status);
        }
        statuses.contains(&401).then_some(())
    });
    assert!(statuses.iter().all(|status| matches!(status, 401 | 503)), "{statuses:?}");
}

#[test]
fn a_node_without_a_majority_keeps_what_it_knew_and_refuses_changes() {
    let (mut cluster, operators) = cluster();
    let (token, _) = operators[0].principal("user:ann", &["subscribe app.>", "admin:read >"]);
    publish(cluster.node(1), Some(&operators[0].token), "app.x").published();
    wait_for("the token at node 3", SOON, || (rest(operators[2].web, Some(&token), SELF).status == 200).then_some(()));
    let mut stream = subscribe(cluster.node(3), Some(&token), &[("subject", "app.>"), ("start", "oldest")]);
    stream.next_event(SOON);
    cluster.kill(1);
    cluster.kill(2);
    let alone = &operators[2];
    let change = wait_for("a refusal", Duration::from_secs(20), || {
        let body = json!({ "rights": [] }).to_string();
        let answer = alone.ask("PUT", "/api/security/principals/user:eve", &body);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!((change.status, change.json()["code"].clone()), (503, json!("unavailable")), "{}", change.text());
    assert!(change.header("retry-after").is_some(), "{change:?}");
    let own = ("GET", "/api/security/self?consistency=stale", "");
    let known = rest(alone.web, Some(&token), own);
    assert_eq!((known.status, known.json()["principal"].clone()), (200, json!("user:ann")), "{}", known.text());
    assert_eq!(rest(alone.web, Some(&crate::security::secured::forged()), own).status, 401);
    let view: Value = rest(alone.web, Some(&token), ("GET", "/api/cluster?consistency=stale", "")).json();
    assert!(view["leader"].is_null(), "the node says that there is no leader: {view}");
}
