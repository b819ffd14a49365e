//! Rights and credentials at the door for clients of NATS, while its clients are connected.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::json;

use super::secured::{Operator, Secured};
use crate::doors::nats::client::{Nats, address};
use crate::doors::nats::responder::Responder;
use crate::harness::examples::clients;
use crate::harness::node::run_command;
use crate::harness::{SOON, ms, wait_for};

/// A client with a token that answers.
fn connect(secured: &Secured, token: &str) -> Nats {
    let mut client = Nats::greeted(address(&secured.node));
    client.send(&format!("CONNECT {{\"verbose\":false,\"pass\":\"{token}\"}}\r\n"));
    client.flush();
    client
}

#[test]
fn a_right_that_is_taken_away_ends_its_subscription_and_a_revoked_token_the_connection() {
    let secured = Secured::start();
    let (token, id) = secured.root.principal("service:reader", &["subscribe news.>", "subscribe sport.>"]);
    let mut reader = connect(&secured, &token);
    reader.send("SUB news.> 1\r\nSUB sport.* 2\r\n");
    reader.flush();
    let root = secured.root.token.clone();
    let mut writer = connect(&secured, &root);
    writer.publish("news.a", "", "", "1");
    writer.flush();
    assert_eq!(reader.message().sid, "1");
    secured.root.allow("service:reader", &["subscribe sport.>"]);
    assert_eq!(reader.line(), "-ERR 'Permissions Violation for Subscription to \"news.>\"'");
    writer.publish("news.a", "", "", "2");
    writer.publish("sport.a", "", "", "3");
    writer.flush();
    assert_eq!(reader.message().sid, "2", "what the client may still have goes on");
    secured.root.allow("service:reader", &["subscribe other.>"]);
    assert_eq!(reader.line(), "-ERR 'Permissions Violation for Subscription to \"sport.*\"'", "each change counts");
    secured.root.revoke(&id);
    assert_eq!(reader.line(), "-ERR 'Authorization Violation'");
    assert_eq!(reader.try_line(), None);
}

#[test]
fn an_answer_of_the_node_goes_where_the_client_itself_may_publish_alone() {
    let secured = Secured::start();
    let root = secured.root.token.clone();
    crate::security::secured::publish(&secured, Some(&root), "orders.first").published();
    let (token, _) = secured.root.principal("service:writer", &["publish orders.>"]);
    let mut watcher = connect(&secured, &root);
    watcher.send("SUB victim 1\r\nSUB orders.> 2\r\n");
    watcher.flush();
    let mut writer = connect(&secured, &token);
    // Neither to a subject without the right, nor, as an event that nobody has stored, to one of the book.
    writer.publish("orders.a", "victim", "", "1");
    writer.publish("$JS.API.STREAM.NAMES", "orders.made.up", "", "");
    writer.flush();
    let stored = watcher.message();
    assert_eq!((&*stored.sid, &*stored.subject), ("2", "orders.a"));
    assert!(watcher.is_quiet(ms(200)));
}

#[test]
fn nobody_is_told_more_than_that_a_credential_is_needed() {
    let secured = Secured::start();
    for connect in ["CONNECT {}\r\n", "CONNECT {\"user\":\"root\",\"pass\":\"wrong word\"}\r\n", "PING\r\n"] {
        let mut client = Nats::greeted(address(&secured.node));
        assert_eq!(client.info["auth_required"], true);
        client.send(connect);
        assert_eq!(client.line(), "-ERR 'Authorization Violation'", "{connect}");
        assert_eq!(client.try_line(), None);
    }
    let mut silent = Nats::greeted(address(&secured.node));
    let line = wait_for("the end of a client that says nothing", SOON, || Some(silent.line()));
    assert_eq!(line, "-ERR 'Authentication Timeout'");
}

/// Gives a principal a key.
fn add_key(root: &Operator, principal: &str, pair: &KeyPair) {
    let path = format!("/api/security/principals/{principal}/nkeys");
    let made = root.done("POST", &path, &json!({ "nkey": pair.public_key() })).json();
    assert_eq!((&made["kind"], &made["names"]), (&json!("nkey"), &json!(pair.public_key())), "{made}");
}

/// The CONNECT of a client that signs what it was asked to sign.
fn signed(client: &Nats, key: &str, signer: &KeyPair) -> String {
    let nonce = client.info["nonce"].as_str().expect("a nonce");
    let sig = URL_SAFE_NO_PAD.encode(signer.sign(nonce.as_bytes()).expect("a signature"));
    format!("CONNECT {{\"verbose\":false,\"nkey\":\"{key}\",\"sig\":\"{sig}\"}}\r\n")
}

#[test]
fn a_client_that_signs_is_its_principal_until_the_key_is_revoked() {
    let secured = Secured::start();
    let (pair, other) = (KeyPair::new_user(), KeyPair::new_user());
    assert_eq!(Nats::greeted(address(&secured.node)).info.get("nonce"), None, "nobody has a key");
    secured.root.allow("service:signer", &["publish orders.>", "subscribe orders.>"]);
    add_key(&secured.root, "service:signer", &pair);
    wait_for("a nonce", SOON, || Nats::greeted(address(&secured.node)).info["nonce"].as_str().map(drop));
    let mut client = Nats::greeted(address(&secured.node));
    let key = pair.public_key();
    let connect = signed(&client, &key, &pair);
    client.send(&connect);
    client.send("SUB orders.> 1\r\n");
    client.publish("orders.a", "", "", "x");
    assert_eq!(client.message().payload, "x");
    client.send("SUB other 2\r\n");
    assert_eq!(client.line(), "-ERR 'Permissions Violation for Subscription to \"other\"'");
    // The signature of another connection, or by another key, or none.
    let mut replay = Nats::greeted(address(&secured.node));
    replay.send(&connect);
    assert_eq!(replay.line(), "-ERR 'Authorization Violation'");
    for wrong in [
        |client: &Nats, key: &str, other: &KeyPair| signed(client, key, other),
        |client: &Nats, _: &str, other: &KeyPair| signed(client, &other.public_key(), other),
        |_: &Nats, key: &str, _: &KeyPair| format!("CONNECT {{\"nkey\":\"{key}\"}}\r\n"),
        |_: &Nats, key: &str, _: &KeyPair| format!("CONNECT {{\"nkey\":\"{key}\",\"sig\":\"{}\"}}\r\n", "A".repeat(86)),
    ] {
        let mut client = Nats::greeted(address(&secured.node));
        let connect = wrong(&client, &key, &other);
        client.send(&connect);
        assert_eq!(client.line(), "-ERR 'Authorization Violation'", "{connect}");
        assert_eq!(client.try_line(), None);
    }
    let denied = wait_for("the audit", SOON, || {
        let lines = secured.root.audit("");
        lines.iter().any(|line| line.to_string().contains("the nkey or its signature is not valid")).then_some(lines)
    });
    assert!(!denied.is_empty());
    secured.root.revoke(&format!("nkey:{key}"));
    assert_eq!(client.line(), "-ERR 'Authorization Violation'", "a key that is revoked ends its connections");
    let mut late = Nats::greeted(address(&secured.node));
    assert_eq!(late.info.get("nonce"), None);
    late.send(&format!("CONNECT {{\"nkey\":\"{key}\",\"sig\":\"AAAA\"}}\r\n"));
    assert_eq!(late.line(), "-ERR 'Authorization Violation'");
}

#[test]
fn the_stock_clients_sign_with_the_seed_of_a_key() {
    let Some(clients) = clients() else { return };
    let secured = Secured::start();
    let pair = KeyPair::new_user();
    secured.root.allow("service:signer", &["publish orders.>", "subscribe orders.>"]);
    add_key(&secured.root, "service:signer", &pair);
    let (seed, url) = (pair.seed().expect("a seed"), format!("nats://{}", address(&secured.node)));
    let mut python = Command::new(clients.python());
    python.arg(clients.script("nats_nkey.py")).arg(&url).env("SEED", &seed);
    let mut node = Command::new("node");
    node.arg(clients.script("nats_nkey.js")).arg(&url).env("SEED", &seed).env("NODE_PATH", clients.modules());
    for command in [python, node] {
        let exit = run_command(command, b"", SOON * 2);
        assert_eq!((exit.code, exit.stdout.trim()), (Some(0), "signed"), "{}", exit.stderr);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        use futures_util::StreamExt as _;
        let options = async_nats::ConnectOptions::with_nkey(seed);
        let client = options.connect(url).await.expect("a connection");
        let mut orders = client.subscribe("orders.>").await.expect("a subscription");
        client.publish("orders.a", "signed".into()).await.expect("a publish");
        assert_eq!(&*orders.next().await.expect("a message").payload, b"signed");
    });
}

#[test]
fn a_responder_needs_the_right_to_offer_and_loses_its_place_with_it() {
    let secured = Secured::start();
    let subscribes = ["subscribe $SRV.>", "subscribe math.>", "publish math.>"];
    let (token, _) = secured.root.principal("service:maths", &subscribes);
    let online = || {
        let answer = secured.root.ask("GET", "/api/services/math", "");
        answer.status == 200 && answer.json()["instances"].as_array().is_some_and(|all| !all.is_empty())
    };
    let start = || Responder::start_as(connect(&secured, &token), "math", "I1", &["add"]);
    let mut without = start();
    wait_for("the log", SOON, || {
        secured.node.stderr().contains("a responder of NATS is not registered as a service").then_some(())
    });
    assert!(!online());
    // Its client goes on.
    without.client.publish("math.add", "", "", "x");
    assert_eq!(without.client.message().payload, "x");
    drop(without);
    let with = [&subscribes[..], &["offer math"]].concat();
    secured.root.allow("service:maths", &with);
    let mut responder = start();
    wait_for("the service", SOON, || online().then_some(()));
    secured.root.allow("service:maths", &subscribes);
    wait_for("the end of the service", SOON, || (!online()).then_some(()));
    responder.client.publish("math.add", "", "", "y");
    assert_eq!(responder.client.message().payload, "y");
}
