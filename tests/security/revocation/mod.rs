//! What ends when a credential, a right or a principal goes, and when.

/// A thousand connections on three nodes.
mod crowd;
/// Nodes that were away, and nodes that are alone.
mod nodes;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::jwt::{self, Key};
use super::secured::{Secured, bearer, connect, consumer, publish, rest, subscribe};
use crate::harness::http::Http;
use crate::harness::socket::Socket;
use crate::harness::sse::End;
use crate::harness::{SOON, wait_for};

/// Seconds for which a JWT counts after its end, because clocks differ.
const LEEWAY: i64 = 30;

#[test]
fn a_revoked_token_ends_what_it_opened_and_leaves_the_other_token_of_its_principal() {
    let secured = Secured::start();
    let (one, id) = secured.root.principal("user:ann", &["subscribe app.>", "publish app.>", "offer ann"]);
    let (two, _) = secured.root.token("user:ann", "never");
    let (plain, plain_stays) = (consumer(secured.web, &one), consumer(secured.web, &two));
    let socketio = connect(secured.web, Some(&one)).expect("a connection");
    let stays = connect(secured.web, Some(&two)).expect("a connection");
    let (mut stream, mut stream_stays) = (
        subscribe(&secured, Some(&one), &[("subject", "app.>")]),
        subscribe(&secured, Some(&two), &[("subject", "app.>")]),
    );
    secured.root.revoke(&id);
    assert_eq!(plain.end(), 4401);
    let told = socketio.event("bus:error");
    assert_eq!(told.args[0]["error"]["code"], "unauthenticated", "{told:?}");
    socketio.end();
    assert_eq!(stream.end(SOON), End::Clean, "{}", stream.raw());
    assert_eq!(publish(&secured, Some(&one), "app.x").status, 401);
    let index = publish(&secured, Some(&two), "app.x").published().index;
    assert_eq!(stream_stays.next_event(SOON).index(), index);
    assert!(!stays.has_ended() && !plain_stays.hears("disconnect", Duration::ZERO));
}

#[test]
fn a_lost_right_ends_the_streams_and_registrations_that_needed_it_and_nothing_else() {
    let secured = Secured::start();
    let role = |rights: &[&str]| {
        secured.root.done("PUT", "/api/security/roles/worker", &json!({ "rights": rights }));
    };
    role(&["subscribe app.>", "subscribe other.>", "offer worker"]);
    secured.root.done("PUT", "/api/security/principals/service:worker", &json!({ "roles": ["worker"] }));
    let (token, _) = secured.root.token("service:worker", "never");
    let registered = Socket::try_with(secured.web, Some(&token)).expect("an upgrade");
    registered.send(&json!({ "name": "worker", "version": "1", "methods": ["do"] }));
    registered.next("registered");
    let socketio = connect(secured.web, Some(&token)).expect("a connection");
    socketio.register("worker", &["worker"]);
    let client = consumer(secured.web, &token);
    for (id, subject) in [("gone", "app.>"), ("stays", "other.>")] {
        client.send(&json!({ "type": "subscribe", "id": id, "subject": subject }));
        client.take_where("a stream", |frame| frame["type"] == "subscribed" && frame["id"] == id);
    }
    let mut stream = subscribe(&secured, Some(&token), &[("subject", "app.>")]);
    role(&["subscribe other.>"]);
    let ended = client.next("unsubscribed");
    assert_eq!(
        (&ended["id"], &ended["code"], &ended["retryable"]),
        (&json!("gone"), &json!("forbidden"), &json!(false))
    );
    assert_eq!(stream.end(SOON), End::Clean, "{}", stream.raw());
    assert!(stream.raw().contains("event: error\ndata: forbidden"), "{}", stream.raw());
    assert_eq!(registered.end(), 4403);
    assert_eq!(socketio.event("bus:error").args[0]["error"]["code"], "forbidden");
    publish(&secured, Some(&secured.root.token), "other.x").published();
    let delivery = client.next("delivery");
    assert_eq!(delivery["id"], "stays", "{delivery}");
    let again = subscribe(&secured, Some(&token), &[("subject", "app.>")]);
    assert_eq!(again.head.status, 403);
}

#[test]
fn every_publish_of_a_principal_that_is_deleted_meanwhile_has_an_answer() {
    let secured = Secured::start();
    let (token, _) = secured.root.principal("service:loop", &["publish app.>"]);
    let (log, header) = (secured.log, bearer(&token));
    let publisher = std::thread::spawn(move || {
        let mut http = Http::connect(log);
        let mut statuses = Vec::new();
        let deadline = Instant::now() + SOON;
        // A few more after the first refusal, which must all be the same.
        while statuses.iter().filter(|status| **status == 401).count() < 20 && Instant::now() < deadline {
            let headers = [("Authorization", header.as_str())];
            let answer = http.request("POST", "/", &headers, br#"{"subject":"app.x","payload":1}"#);
            statuses.push(answer.status);
        }
        statuses
    });
    wait_for("some publishes", SOON, || {
        let seen = secured.root.ask("GET", "/api/namespaces/app?consistency=stale", "");
        (seen.status == 200 && seen.json()["events"].as_u64() > Some(5)).then_some(())
    });
    secured.root.done("DELETE", "/api/security/principals/service:loop", &Value::Null);
    let statuses = publisher.join().expect("a publisher");
    let taken = statuses.iter().take_while(|status| **status == 202).count();
    assert!(taken > 5, "{statuses:?}");
    assert!(statuses[taken..].iter().all(|status| *status == 401) && statuses.len() >= taken + 20, "{statuses:?}");
}

#[test]
fn an_expired_token_and_the_end_of_a_jwt_end_their_connections() {
    let secured = Secured::start();
    let key = Key::ed25519();
    secured.root.done("PUT", "/api/security/issuers/corp", &jwt::issuer(&["EdDSA"], &[key.jwk("k1")], "subscriber"));
    secured.root.allow("user:short", &["subscribe app.>"]);
    let (token, _) = secured.root.token("user:short", "3s");
    let mut claims = jwt::claims();
    // The leeway for clocks is added to that.
    claims["exp"] = json!(jwt::seconds(3 - LEEWAY));
    let bearer = key.sign("k1", &claims);
    wait_for("the issuer", SOON, || {
        (rest(secured.web, Some(&bearer), ("GET", "/api/security/self", "")).status == 200).then_some(())
    });
    let (plain, by_jwt) = (consumer(secured.web, &token), consumer(secured.web, &bearer));
    let mut stream = subscribe(&secured, Some(&token), &[("subject", "app.>")]);
    let mut stream_by_jwt = subscribe(&secured, Some(&bearer), &[("subject", "app.>")]);
    let start = Instant::now();
    assert_eq!((plain.end(), by_jwt.end()), (4401, 4401));
    assert_eq!((stream.end(SOON), stream_by_jwt.end(SOON)), (End::Clean, End::Clean));
    eprintln!("expired credentials of three seconds ended their connections after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    for token in [&token, &bearer] {
        assert_eq!(publish(&secured, Some(token), "app.x").status, 401);
    }
}

#[test]
fn a_principal_that_is_shut_out_and_an_issuer_that_is_deleted_end_their_connections() {
    let secured = Secured::start();
    let key = Key::ed25519();
    secured.root.done("PUT", "/api/security/issuers/corp", &jwt::issuer(&["EdDSA"], &[key.jwk("k1")], "subscriber"));
    let bearer = key.sign("k1", &jwt::claims());
    wait_for("the issuer", SOON, || {
        (rest(secured.web, Some(&bearer), ("GET", "/api/security/self", "")).status == 200).then_some(())
    });
    let (token, _) = secured.root.principal("user:bob", &["subscribe app.>"]);
    let (plain, by_jwt) = (consumer(secured.web, &token), consumer(secured.web, &bearer));
    secured.root.done(
        "PUT",
        "/api/security/principals/user:bob",
        &json!({ "rights": ["subscribe app.>"], "disabled": true }),
    );
    assert_eq!(plain.end(), 4401);
    secured.root.done("DELETE", "/api/security/issuers/corp", &Value::Null);
    assert_eq!(by_jwt.end(), 4401);
    for token in [&token, &bearer] {
        assert_eq!(publish(&secured, Some(token), "app.x").status, 401);
    }
}
