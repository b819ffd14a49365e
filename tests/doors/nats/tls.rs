//! The door over TLS: the handshake behind INFO, or before it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use super::client::address;
use crate::harness::node::Node;
use crate::harness::tls::{Authority, Secure};
use crate::harness::{SOON, wait_for};

pub(crate) fn connect(node: &Node) -> TcpStream {
    let tcp = TcpStream::connect(address(node)).expect("a connection");
    tcp.set_read_timeout(Some(SOON)).expect("a timeout");
    tcp
}

fn secure(authority: &Authority, tcp: TcpStream) -> Secure {
    secure_as(authority, None, tcp)
}

/// The same with a certificate of the client.
pub(crate) fn secure_as(authority: &Authority, client: Option<&str>, tcp: TcpStream) -> Secure {
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(authority.client(client), name).expect("a client"), tcp)
}

/// The first line, byte by byte: what follows belongs to the handshake.
pub(crate) fn line(from: &mut impl std::io::Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        from.read_exact(&mut byte).expect("a line");
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("UTF-8").trim_end().to_owned()
}

fn info(line: &str) -> Value {
    serde_json::from_str(line.strip_prefix("INFO ").unwrap_or_else(|| panic!("no INFO: {line}"))).expect("JSON")
}

#[test]
fn the_handshake_comes_behind_info_and_plain_text_is_refused() {
    let authority = Authority::new(&[]);
    let node = Node::start(&authority.options().arg("--nats").arg("127.0.0.1:0"));
    let mut tcp = connect(&node);
    assert_eq!(info(&line(&mut tcp))["tls_required"], true);
    let mut client = secure(&authority, tcp);
    client.write_all(b"CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 2\r\nhi\r\nPING\r\n").expect("write");
    let mut lines = BufReader::new(client).lines().map(|line| line.expect("a line"));
    assert_eq!([lines.next(), lines.next(), lines.next()].map(Option::unwrap), ["MSG a 1 2", "hi", "PONG"]);

    let mut plain = connect(&node);
    line(&mut plain);
    plain.write_all(b"CONNECT {}\r\nPING\r\n").expect("write");
    let mut said = String::new();
    plain.read_to_string(&mut said).expect("the end");
    assert_eq!(said, "-ERR 'Secure Connection - TLS Required'\r\n");
}

#[test]
fn a_client_may_start_the_handshake_first_where_the_settings_say_so() {
    let authority = Authority::new(&[]);
    for mode in ["auto", "on"] {
        let options = authority.options().arg("--nats").arg("127.0.0.1:0");
        let node = Node::start(&options.env("ROLLBOOK_NATS__TLS_HANDSHAKE_FIRST", mode));
        // On a busy machine the client may be late, and is then greeted in clear.
        let mut client = wait_for("a handshake in time", SOON, || {
            let mut client = secure(&authority, connect(&node));
            client.conn.complete_io(&mut client.sock).is_ok().then_some(client)
        });
        info(&line(&mut client));
        client.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").expect("write");
        assert_eq!(line(&mut client), "PONG", "{mode}");
    }
    let options = authority.options().arg("--nats").arg("127.0.0.1:0");
    let node = Node::start(&options.env("ROLLBOOK_NATS__TLS_HANDSHAKE_FIRST", "auto"));
    let mut late = connect(&node);
    assert_eq!(info(&line(&mut late))["tls_required"], true, "whoever waits is greeted in clear");
}
