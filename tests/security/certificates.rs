//! Client certificates: whom they stand for, what counts more, and how they end.

use std::io::Write as _;

use serde_json::{Value, json};

use super::secured::{Operator, forged, root_token};
use crate::doors::nats::tls::{connect, line, secure_as};
use crate::harness::http::head;
use crate::harness::node::Node;
use crate::harness::tls::{Authority, exchange};
use crate::harness::{SOON, wait_for};

/// A node with TLS that asks for certificates, and its operator behind a tunnel.
fn start(authority: &Authority, mode: &str) -> (Node, Operator) {
    let options = authority.options().env("ROLLBOOK_SECURITY__ENABLED", "true");
    let options = options.env("ROLLBOOK_TLS__CLIENT_CERTIFICATES", mode).arg("--nats").arg("127.0.0.1:0");
    let node = Node::start(&options);
    let token = wait_for("root.token", SOON, || root_token(&node.data));
    let root = Operator::at(authority.tunnel(node.web), &token);
    (node, root)
}

/// Whom the node takes the client for, or the status.
fn principal(authority: &Authority, node: &Node, client: Option<&str>, token: Option<&str>) -> Result<String, u16> {
    let mut stream = authority.try_connect(node.web, client).unwrap_or_else(|error| panic!("no TLS: {error}"));
    let header = token.map(super::secured::bearer);
    let mut headers = vec![("Connection", "close")];
    headers.extend(header.iter().map(|value| ("Authorization", value.as_str())));
    let request = String::from_utf8(head("GET", "/api/security/self", &headers)).expect("text") + "\r\n";
    let answer = exchange(&mut stream, &request).expect("an answer");
    let status: u16 = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap_or_default()).unwrap_or_default();
    if status == 200 { Ok(body["principal"].as_str().unwrap_or_default().to_owned()) } else { Err(status) }
}

#[test]
fn a_certificate_stands_for_the_principal_that_it_names_until_that_is_gone() {
    let authority = Authority::new(&["user:alice", "service:billing"]);
    let (node, root) = start(&authority, "optional");
    let who = |client: Option<&str>, token: Option<&str>| principal(&authority, &node, client, token);
    assert_eq!(who(Some("user-alice"), None), Err(401), "nobody of that name is there");
    root.allow("user:alice", &["publish app.>"]);
    let alice = || who(Some("user-alice"), None).ok();
    assert_eq!(wait_for("alice", SOON, alice), "user:alice");
    assert_eq!(who(Some("service-billing"), None), Err(401));
    assert_eq!(who(None, None), Err(401));
    // A token counts more than a certificate, also when the token is wrong.
    assert_eq!(who(Some("user-alice"), Some(&root.token)).as_deref(), Ok("user:root"));
    let wrong = forged();
    assert_eq!(who(Some("user-alice"), Some(&wrong)), Err(401));
    // A certificate may be given to another principal, and taken away.
    root.allow("user:carol", &["publish app.>"]);
    let name = json!({ "certificate": "uri:rollbook:service:billing" });
    let made = root.done("POST", "/api/security/principals/user:carol/certificates", &name).json();
    let billing = || who(Some("service-billing"), None);
    assert_eq!(wait_for("carol", SOON, || billing().ok()), "user:carol");
    let id = made["id"].as_str().expect("an id").replace(':', "%3A");
    root.done("DELETE", &format!("/api/security/credentials/{id}"), &Value::Null);
    wait_for("the end of the credential", SOON, || (billing() == Err(401)).then_some(()));
    root.done("DELETE", "/api/security/principals/user:alice", &Value::Null);
    wait_for("the end of alice", SOON, || (who(Some("user-alice"), None) == Err(401)).then_some(()));
}

#[test]
fn a_certificate_of_another_ca_and_none_where_one_is_required_end_the_handshake() {
    let (authority, other) = (Authority::new(&["user:root"]), Authority::new(&["user:root"]));
    let options = authority.options().env("ROLLBOOK_TLS__CLIENT_CERTIFICATES", "required");
    let node = Node::start(&options.env("ROLLBOOK_SECURITY__ENABLED", "true"));
    wait_for("root.token", SOON, || root_token(&node.data));
    assert_eq!(principal(&authority, &node, Some("user-root"), None).as_deref(), Ok("user:root"));
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for (name, config) in
        [("none", authority.client(None)), ("of another CA", authority.client_of(&other, "user-root"))]
    {
        let tcp = std::net::TcpStream::connect(node.web).expect("a connection");
        tcp.set_read_timeout(Some(SOON)).expect("an option");
        // TLS 1.3 tells the client after its handshake.
        let answer = crate::harness::tls::secure(tcp, config).and_then(|mut stream| exchange(&mut stream, request));
        assert!(answer.is_err() || answer.as_deref().is_ok_and(str::is_empty), "{name}: {answer:?}");
    }
}

#[test]
fn a_client_of_nats_is_whom_its_certificate_names() {
    let authority = Authority::new(&["service:billing", "service:nobody"]);
    let (node, root) = start(&authority, "optional");
    root.allow("service:billing", &["subscribe bills.>", "publish bills.>"]);
    // What a client with this certificate is told for these bytes, line by line.
    let told = |client: Option<&str>, says: &str, lines: usize| -> Vec<String> {
        let mut tcp = connect(&node);
        line(&mut tcp);
        let mut stream = secure_as(&authority, client, tcp);
        stream.write_all(says.as_bytes()).expect("write");
        (0..lines).map(|_| line(&mut stream)).collect()
    };
    let says = "CONNECT {\"verbose\":false}\r\nSUB bills.> 1\r\nSUB other 2\r\nPUB bills.a 1\r\nx\r\nPING\r\n";
    let billing = || {
        let lines = told(Some("service-billing"), says, 1);
        lines[0].contains("Subscription to \"other\"").then(|| told(Some("service-billing"), says, 4))
    };
    let lines = wait_for("billing", SOON, billing);
    assert_eq!(lines[1..], ["MSG bills.a 1 1", "x", "PONG"]);
    for (client, says) in [
        // Nobody of that name is there; no certificate; and a token counts more, also when it is wrong.
        (Some("service-nobody"), says.to_owned()),
        (None, says.to_owned()),
        (Some("service-billing"), format!("CONNECT {{\"auth_token\":\"{}\"}}\r\n", forged())),
    ] {
        assert_eq!(told(client, &says, 1), ["-ERR 'Authorization Violation'"], "{client:?}");
    }
    root.done("DELETE", "/api/security/principals/service:billing", &Value::Null);
    let gone = || (told(Some("service-billing"), says, 1) == ["-ERR 'Authorization Violation'"]).then_some(());
    wait_for("the end of billing", SOON, gone);
}
