//! Limits of roles: each is answered, and given back.

use serde_json::{Value, json};

use super::secured::{Secured, connect, consumer, publish, rest, subscribe};
use crate::harness::http::Response;
use crate::harness::socket::Socket;
use crate::harness::{SOON, wait_for};

/// A principal of a role with these limits, and its token.
fn limited(secured: &Secured, name: &str, limits: &Value) -> String {
    let role = json!({ "rights": ["publish >", "subscribe >", "call >", "offer >", "admin:read >"], "limits": limits });
    secured.root.done("PUT", &format!("/api/security/roles/{name}"), &role);
    secured.root.done("PUT", &format!("/api/security/principals/service:{name}"), &json!({ "roles": [name] }));
    secured.root.token(&format!("service:{name}"), "never").0
}

#[track_caller]
fn is_overloaded(answer: &Response) {
    assert_eq!(answer.status, 429, "{answer:?}");
    assert!(answer.header("retry-after").is_some_and(|value| value.parse::<u32>().is_ok()), "{answer:?}");
    assert!(answer.text().contains("the role of this principal"), "{}", answer.text());
}

#[test]
fn connections_and_streams_have_places_that_are_given_back() {
    let secured = Secured::start();
    let token = limited(&secured, "few", &json!({ "connections": 2, "streams": 2 }));
    let (one, two) = (consumer(secured.web, &token), connect(secured.web, Some(&token)).expect("a connection"));
    assert_eq!(Socket::try_with(secured.web, Some(&token)).err().as_deref(), Some("overloaded"));
    let refused = connect(secured.web, Some(&token)).err().unwrap_or_default();
    assert!(refused.contains("overloaded"), "{refused}");
    drop(two);
    let three = wait_for("a place", SOON, || Socket::try_with(secured.web, Some(&token)).ok());
    let query = [("subject", "app.>")];
    let streams = [subscribe(&secured, Some(&token), &query), subscribe(&secured, Some(&token), &query)];
    is_overloaded(&rest(secured.log, Some(&token), ("GET", "/?subject=app.x", "")));
    one.send(&json!({ "type": "subscribe", "id": "s", "subject": "app.>" }));
    assert_eq!(one.next("error")["code"], "overloaded");
    drop(streams);
    wait_for("a place of a stream", SOON, || {
        one.send(&json!({ "type": "subscribe", "id": "again", "subject": "app.>" }));
        let answer = one.take_where("an answer", |frame| frame["type"] == "error" || frame["type"] == "subscribed");
        (answer["type"] == "subscribed").then_some(())
    });
    drop(three);
}

#[test]
fn rates_of_publishes_bytes_calls_and_connects_are_answered_and_pass() {
    let secured = Secured::start();
    let provider = connect(secured.web, Some(&secured.root.token)).expect("a connection");
    provider.register("prov", &["prov"]);
    let token = limited(&secured, "slow", &json!({ "publishes_per_second": 3 }));
    let answers: Vec<Response> = (0..8).map(|_| publish(&secured, Some(&token), "app.x")).collect();
    let taken = answers.iter().filter(|answer| answer.status == 202).count();
    assert!((3..8).contains(&taken), "{taken}");
    is_overloaded(answers.iter().find(|answer| answer.status != 202).expect("a refusal"));
    wait_for("the next second", SOON, || (publish(&secured, Some(&token), "app.x").status == 202).then_some(()));
    let bytes = limited(&secured, "thin", &json!({ "publish_bytes_per_second": 1000 }));
    let body = json!({ "subject": "app.x", "payload": "x".repeat(1500) }).to_string();
    let large = || rest(secured.log, Some(&bytes), ("POST", "/", &body));
    assert_eq!(large().status, 202);
    is_overloaded(&large());
    wait_for("bytes of the next second", SOON, || (large().status == 202).then_some(()));
    let caller = limited(&secured, "quiet", &json!({ "calls_per_second": 2 }));
    let client = connect(secured.web, Some(&caller)).expect("a connection");
    let ids: Vec<u64> = (0..6)
        .map(|_| client.begin("bus:request", &json!({ "capability": "prov", "action": "do", "timeout": 200 })))
        .collect();
    let codes: Vec<Value> = ids.iter().map(|id| client.acked(*id)["error"]["code"].clone()).collect();
    assert_eq!(
        (&codes[0], codes.iter().filter(|code| **code == "overloaded").count() >= 3),
        (&json!("deadline_exceeded"), true),
        "{codes:?}"
    );
    is_overloaded(&wait_for("a refused call", SOON, || {
        let answer = rest(secured.web, Some(&caller), ("POST", "/api/call/prov/do", "{}"));
        (answer.status == 429).then_some(answer)
    }));
    let comer = limited(&secured, "rare", &json!({ "connects_per_second": 2 }));
    let found: Vec<Option<String>> = (0..6).map(|_| Socket::try_with(secured.web, Some(&comer)).err()).collect();
    assert!(found[0].is_none() && found.contains(&Some("overloaded".to_owned())), "{found:?}");
    wait_for("a connect of the next second", SOON, || Socket::try_with(secured.web, Some(&comer)).ok());
}

#[test]
fn a_full_namespace_is_told_and_other_principals_may_go_on() {
    let secured = Secured::start();
    let token = limited(&secured, "small", &json!({ "namespace_bytes": 20_000 }));
    let body = json!({ "subject": "app.x", "payload": "x".repeat(4000) }).to_string();
    let refused = wait_for("a full namespace", SOON, || {
        let answer = rest(secured.log, Some(&token), ("POST", "/", &body));
        (answer.status != 202).then_some(answer)
    });
    is_overloaded(&refused);
    publish(&secured, Some(&token), "other.x").published();
    publish(&secured, Some(&secured.root.token), "app.x").published();
    let role = json!({ "rights": ["publish >"], "limits": { "namespace_bytes": 1_000_000 } });
    secured.root.done("PUT", "/api/security/roles/small", &role);
    wait_for("the new limit", SOON, || (publish(&secured, Some(&token), "app.x").status == 202).then_some(()));
}
