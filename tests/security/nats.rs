//! Rights and credentials at the door for clients of NATS, while its clients are connected.

use super::secured::Secured;
use crate::doors::nats::client::{Nats, address};
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
