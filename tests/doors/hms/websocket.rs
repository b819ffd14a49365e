//! The same frames over a WebSocket of the web listener.

use std::net::TcpStream;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::client::{Hms, frame, kind, message, op, options};
use crate::harness::node::Node;
use crate::harness::{SOON, wait_for};

/// Sends frames in messages that begin and end anywhere, and reads the stream of answers.
struct Stream {
    socket: WebSocket<TcpStream>,
    read: Vec<u8>,
}

impl Stream {
    fn connect(node: &Node) -> Self {
        Self::try_connect(node, None).expect("an upgrade")
    }

    fn try_connect(node: &Node, origin: Option<&str>) -> Option<Self> {
        let tcp = TcpStream::connect(node.web).expect("a connection");
        tcp.set_read_timeout(Some(SOON)).expect("a timeout");
        let mut request = format!("ws://{}/hms", node.web).into_client_request().expect("a request");
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().expect("a header"));
        }
        let (socket, _) = tungstenite::client(request, tcp).ok()?;
        Some(Self { socket, read: Vec::new() })
    }

    fn send(&mut self, bytes: &[u8], piece: usize) {
        for piece in bytes.chunks(piece) {
            self.socket.send(Message::binary(piece.to_vec())).expect("sent");
        }
    }

    /// The next frame that is no ping.
    fn frame(&mut self) -> (u8, u16, Vec<u8>) {
        loop {
            if let Some(length) = self.read.get(3..7) {
                let length = usize::try_from(u32::from_le_bytes(length.try_into().expect("four"))).expect("fits");
                if self.read.len() >= 7 + length {
                    let rest = self.read.split_off(7 + length);
                    let whole = std::mem::replace(&mut self.read, rest);
                    if whole[0] != kind::PING {
                        return (whole[0], u16::from_le_bytes([whole[1], whole[2]]), whole[7..].to_vec());
                    }
                    continue;
                }
            }
            if let Message::Binary(bytes) = self.socket.read().expect("a message") {
                self.read.extend_from_slice(&bytes);
            }
        }
    }

    fn ask(&mut self, number: u16, operation: u8, id: &str, payload: &[u8]) -> Value {
        self.send(&frame(kind::REQUEST, number, &message(operation, id, payload)), 3);
        let (answer, id, body) = self.frame();
        assert_eq!((answer, id), (kind::RESPONSE, number), "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap_or_default()
    }
}

#[test]
fn a_dock_and_a_client_behind_a_proxy_speak_through_a_websocket() {
    let node = Node::start(&options());
    let mut client = Stream::connect(&node);
    let known = client.ask(0, op::HANDSHAKE, "", br#"{"type":"client","version":"1","protocol":1}"#);
    assert_eq!(known, json!({"type": "terminal", "version": "0.4.4"}));
    client.ask(1, op::ADD, "app1", b"{}");
    client.ask(2, op::SUBSCRIBE, "*", b"");
    let mut dock = Stream::connect(&node);
    dock.ask(0, op::HANDSHAKE, "", br#"{"type":"dock","id":"d1","version":"1","default":true,"protocol":1}"#);
    let (asked, id, body) = dock.frame();
    assert_eq!((asked, body), (kind::REQUEST, message(op::SUBSCRIBE, "*", b"")));
    dock.send(&frame(kind::RESPONSE, id, b""), 100);
    let large = vec![b'x'; 1_000_000];
    dock.send(&frame(kind::MESSAGE, 0, &message(op::STDOUT, "app1@d1", &large)), 70_000);
    let (_, _, body) = client.frame();
    assert!(body == message(op::STDOUT, "app1@d1", &large), "{} bytes came", body.len());
    // A client of the other listener sees the same dock.
    let mut other = Hms::client(&node);
    let number = other.request(op::PS, "", b"");
    let (_, id, _) = dock.frame();
    dock.send(&frame(kind::RESPONSE, id, br#"{"list":[]}"#), 100);
    let ps: Value = serde_json::from_slice(&other.answered(number).expect("an answer")).expect("JSON");
    assert_eq!(ps, json!([{"id": "d1", "list": []}]));
    drop((client, dock, other));
    wait_for("nothing is left", SOON, || {
        let left = node.actors("hms_connection") + node.actors("hms_websocket") + node.actors("socketio_websocket");
        (left == 0).then_some(())
    });
}

#[test]
fn browsers_and_texts_are_refused() {
    let node = Node::start(&options());
    assert!(Stream::try_connect(&node, Some("https://evil.example")).is_none(), "a page of another site");
    let plain = node.web("GET", "/hms", "");
    assert_eq!(plain.status, 400, "{}", plain.text());
    let mut client = Stream::connect(&node);
    client.socket.send(Message::text("hello")).expect("sent");
    let end = loop {
        match client.socket.read() {
            Ok(Message::Close(why)) => break why.map(|why| u16::from(why.code)),
            Ok(_) => {}
            Err(_) => break None,
        }
    };
    assert_eq!(end, Some(1003), "a text is no stream of bytes");
}
