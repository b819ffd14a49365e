//! Behind a load balancer that speaks the PROXY protocol.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::SOON;
use crate::harness::node::{Node, Options};
use crate::harness::socket::Socket;

/// What a listener answers to these bytes.
fn say(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).expect("connect");
    stream.set_read_timeout(Some(SOON)).expect("a time");
    stream.write_all(bytes).expect("write");
    let mut answer = Vec::new();
    // A connection that is closed with unread bytes ends in a reset.
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

fn behind(balancers: &str) -> Node {
    let setting = |listener: &str| format!("ROLLBOOK_{listener}__PROXY_PROTOCOL_FROM");
    // Who comes through a load balancer is not on this machine, and needs a credential unless nobody does.
    let open = Options::new().env("ROLLBOOK_NODE__INSECURE", "true");
    Node::start(&open.env(&setting("SSE"), balancers).env(&setting("WEB"), balancers))
}

const HEADER: &str = "PROXY TCP4 192.0.2.7 127.0.0.1 4711 7440\r\n";

#[test]
fn a_listed_load_balancer_says_whose_connection_it_passes_on() {
    let node = behind("127.0.0.0/8");
    let ask = "GET /api/connections HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = say(node.web, format!("{HEADER}{ask}").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body = r#"{"subject":"app.x","payload":1}"#;
    let publish = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = say(node.log, format!("{HEADER}{publish}").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let v2 =
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &[192, 0, 2, 7, 127, 0, 0, 1, 0x12, 0x67, 0x1d, 0x10][..]].concat();
    let answer = say(node.log, &[&v2, publish.as_bytes()].concat());
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    // Without its header, or with one that cannot be, a connection is none of a client.
    for bad in ["", "PROXY TCP4 nobody nowhere 1 2\r\n"] {
        let answer = say(node.log, format!("{bad}{publish}").as_bytes());
        assert_eq!(answer, "", "{bad:?}");
    }
}

#[test]
fn the_address_of_a_client_is_the_one_that_the_load_balancer_says() {
    let node = behind("127.0.0.1");
    let mut stream = TcpStream::connect(node.web).expect("connect");
    stream.write_all(HEADER.as_bytes()).expect("write");
    let client = Socket::over(stream, node.web);
    client.send(&json!({ "name": "behind", "version": "1.0.0" }));
    client.next("registered");
    let listed = say(
        node.web,
        format!("{HEADER}GET /api/connections HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    );
    assert!(listed.contains("192.0.2.7:4711"), "{listed}");
}

#[test]
fn nobody_else_is_believed() {
    for balancers in ["", "192.0.2.1"] {
        let node = behind(balancers);
        let answer =
            say(node.log, format!("{HEADER}GET /?subject=app.x HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{balancers:?}: {answer}");
        assert!(answer.contains("proxy_protocol_from"), "it says what to do: {answer}");
        node.publish("app.x", "1");
    }
}

#[test]
fn a_connection_without_its_header_does_not_delay_a_stop() {
    let mut node = behind("127.0.0.1");
    let silent = [node.log, node.web].map(|listener| TcpStream::connect(listener).expect("connect"));
    // Behind them, so that both are accepted and waited for.
    for listener in [node.log, node.web] {
        assert_eq!(say(listener, b"GET / HTTP/1.1\r\n\r\n"), "");
    }
    let began = Instant::now();
    node.terminate();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(silent);
}
