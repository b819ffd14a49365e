//! Three nodes: a credential that one node has made is one at all of them, and what crosses nodes keeps its checks.

use serde_json::{Value, json};

use super::Outcome;
use crate::harness::http::Response;
use crate::harness::node::Node;
use crate::harness::sse::Sse;
use crate::harness::{SOON, report, wait_for};
use crate::security::secured::{cluster, connect, forged, log, publish, rest, subscribe};

fn outcome(answer: &Response) -> Outcome {
    Outcome::of_status(answer.status, || answer.text())
}

fn acknowledge(node: &Node, token: Option<&str>, consumer: &str, event: &str) -> Response {
    log(node.log, token, ("PUT", &format!("/?consumer_id={consumer}&event_id={event}"), ""))
}

fn called(node: &Node, token: &str) -> Value {
    let caller = connect(node.web, Some(token)).unwrap_or_else(|error| panic!("{error}"));
    caller.ask("bus:request", &json!({ "capability": "far", "action": "do", "timeout": 300 }))["error"]["code"].clone()
}

#[test]
fn a_credential_counts_at_every_node_and_calls_and_acknowledgements_across_nodes_are_checked() {
    let (cluster, operators) = cluster();
    let root = &operators[0];
    let mut failures = Vec::new();
    let mut expect = |what: &str, found: Outcome, wanted: Outcome| {
        if found != wanted {
            failures.push(format!("{what}: {found:?}, expected {wanted:?}"));
        }
    };
    let (able, id) = root.principal("service:able", &["publish orders.>", "subscribe orders.>", "call far:do"]);
    let (unable, _) = root.principal("service:unable", &["subscribe other.>", "call other:do"]);
    for node in (1..=3).map(|id| cluster.node(id)) {
        wait_for("the tokens at all nodes", SOON, || {
            let known = |token: &str| rest(node.web, Some(token), ("GET", "/api/security/self", "")).status == 200;
            (known(&able) && known(&unable)).then_some(())
        });
        for (token, wanted) in [
            (None, Outcome::Unauthenticated),
            (Some(forged().as_str()), Outcome::Unauthenticated),
            (Some(unable.as_str()), Outcome::Forbidden),
            (Some(able.as_str()), Outcome::Done),
        ] {
            expect("publish", outcome(&publish(node, token, "orders.a")), wanted.clone());
            expect("subscribe", outcome(&subscribe(node, token, &[("subject", "orders.>")]).head), wanted);
        }
    }
    let provider = connect(cluster.node(3).web, Some(&root.token)).unwrap_or_else(|error| panic!("{error}"));
    provider.register("far", &["far"]);
    wait_for("the provider at node 1", SOON, || {
        // A call that reaches the provider is not answered.
        (called(cluster.node(1), &able) == "deadline_exceeded").then_some(())
    });
    expect("call", Outcome::of_code(&called(cluster.node(1), &unable)), Outcome::Forbidden);
    let query = [("subject", "orders.>"), ("start", "oldest"), ("ack", "manual"), ("redelivery", "1h")];
    let mut stream = subscribe(cluster.node(3), Some(&able), &query);
    let (event, consumer) = (stream.next_event(SOON).event_id(), stream.consumer_id());
    let refused = acknowledge(cluster.node(1), Some(&unable), &consumer, &event);
    let waits = |answer: &Response| answer.header("x-bus-acknowledged").map(str::to_owned);
    assert_ne!(waits(&refused).as_deref(), Some("true"), "an acknowledgement without the right counts: {refused:?}");
    let counted = acknowledge(cluster.node(1), Some(&able), &consumer, &event);
    assert_eq!(
        waits(&counted).as_deref(),
        Some("true"),
        "an acknowledgement with the right does not count: {counted:?}"
    );
    assert_ne!(stream.next_event(SOON).event_id(), event, "the next event comes after the acknowledgement");
    // A load balancer may send the use of a ticket to another node than the request for it.
    let ticket = rest(cluster.node(1).web, Some(&able), ("POST", "/api/security/tickets", "")).json();
    let ticket = ticket["ticket"].as_str().unwrap_or_else(|| panic!("no ticket: {ticket}")).to_owned();
    let open = |id: usize| {
        let path = format!("/?subject=orders.%3E&ticket={ticket}");
        Sse::try_open(cluster.node(id).log, &path, &[], SOON).unwrap_or_else(|error| panic!("no answer: {error}"))
    };
    let used = open(2);
    expect("a ticket at another node", outcome(&used.head), Outcome::Done);
    for id in 1..=3 {
        expect("a used ticket", outcome(&open(id).head), Outcome::Unauthenticated);
    }
    root.revoke(&id);
    for node in (1..=3).map(|id| cluster.node(id)) {
        wait_for("the revocation at all nodes", SOON, || {
            (publish(node, Some(&able), "orders.a").status == 401).then_some(())
        });
    }
    report("matrix of three nodes", &failures);
}
