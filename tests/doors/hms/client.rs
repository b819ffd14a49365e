//! A client and a dock of hms in plain bytes, written from the description of the protocol.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::SOON;
use crate::harness::node::{Node, Options};

/// Options of a node with the door.
pub(crate) fn options() -> Options {
    Options::new().arg("--hms").arg("127.0.0.1:0")
}

/// The address of the door.
pub(crate) fn address(node: &Node) -> SocketAddr {
    let stdout = node.stdout();
    let line = stdout.lines().find_map(|line| line.strip_prefix("hms")?.trim().split_once("://"));
    let (_, address) = line.unwrap_or_else(|| panic!("the node says no address of the door hms: {stdout}"));
    address.trim_end_matches('/').parse().expect("an address")
}

/// The numbers of operations.
pub(crate) mod op {
    pub(crate) const HANDSHAKE: u8 = 0;
    pub(crate) const ADD: u8 = 1;
    pub(crate) const UPDATE: u8 = 2;
    pub(crate) const REMOVE: u8 = 3;
    pub(crate) const LIST: u8 = 4;
    pub(crate) const PS: u8 = 5;
    pub(crate) const START: u8 = 6;
    pub(crate) const STOP: u8 = 7;
    pub(crate) const RESTART: u8 = 8;
    pub(crate) const SYNC: u8 = 9;
    pub(crate) const SUBSCRIBE: u8 = 10;
    pub(crate) const UNSUBSCRIBE: u8 = 11;
    pub(crate) const STDOUT: u8 = 12;
    pub(crate) const STDERR: u8 = 13;
    pub(crate) const SPAWN: u8 = 14;
    pub(crate) const EXIT: u8 = 15;
    pub(crate) const GET: u8 = 16;
}

/// The kinds of frames.
pub(crate) mod kind {
    pub(crate) const MESSAGE: u8 = 0;
    pub(crate) const REQUEST: u8 = 1;
    pub(crate) const RESPONSE: u8 = 2;
    pub(crate) const ERROR: u8 = 3;
    pub(crate) const PING: u8 = 4;
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) id: u16,
    pub(crate) body: Vec<u8>,
}

/// The message in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) op: u8,
    /// With its origin.
    pub(crate) id: String,
    pub(crate) payload: Vec<u8>,
}

impl Message {
    pub(crate) fn of(frame: &Frame) -> Self {
        let length = usize::from(u16::from_le_bytes([frame.body[1], frame.body[2]]));
        let (id, payload) = frame.body[3..].split_at(length);
        Self { op: frame.body[0], id: String::from_utf8_lossy(id).into_owned(), payload: payload.to_vec() }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

pub(crate) fn frame(kind: u8, id: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a length");
    [&[kind][..], &id.to_le_bytes(), &length.to_le_bytes(), body].concat()
}

pub(crate) fn message(op: u8, id: &str, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(id.len()).expect("a length");
    [&[op][..], &length.to_le_bytes(), id.as_bytes(), payload].concat()
}

/// A connection.
pub(crate) struct Hms {
    pub(crate) socket: TcpStream,
    read: Vec<u8>,
    /// Frames that came while something else was waited for.
    set_aside: VecDeque<Frame>,
    next: u16,
}

impl Hms {
    /// Connects, with frames from the first byte on.
    pub(crate) fn raw(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("a connection");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        socket.set_nodelay(true).expect("no delay");
        Self { socket, read: Vec::new(), set_aside: VecDeque::new(), next: 0 }
    }

    /// Connects as stock peers do, without the handshake.
    pub(crate) fn through_connect(address: SocketAddr) -> Self {
        let mut hms = Self::raw(address);
        hms.send(b"CONNECT / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n\r\n");
        let head = hms.head();
        let expected = "HTTP/1.1 101 Swiching Protocols\r\nUpgrade: hms-protocol\r\nConnection: Upgrade\r\n\r\n";
        assert_eq!(head, expected);
        hms
    }

    /// A client that is known.
    pub(crate) fn client(node: &Node) -> Self {
        let mut hms = Self::through_connect(address(node));
        let reply = hms.ask(op::HANDSHAKE, "", &json!({"type": "client", "version": "0.4.4", "protocol": 1}));
        assert_eq!(reply, Ok(json!({"type": "terminal", "version": "0.4.4"})));
        hms
    }

    /// A dock that is known, and was asked for all that its processes do.
    pub(crate) fn dock(node: &Node, id: &str, tags: &[&str]) -> Self {
        Self::try_dock(address(node), id, tags).expect("a dock")
    }

    /// The same at an address, or why the dock is refused.
    pub(crate) fn try_dock(address: SocketAddr, id: &str, tags: &[&str]) -> Result<Self, String> {
        let mut hms = Self::through_connect(address);
        let options = json!({
            "type": "dock", "version": "0.4.4", "id": id, "tags": tags, "default": tags.is_empty(), "protocol": 1
        });
        hms.ask(op::HANDSHAKE, "", &options)?;
        let (id, asked) = hms.asked();
        assert_eq!((asked.op, asked.id.as_str()), (op::SUBSCRIBE, "*"));
        hms.answer(id, b"");
        Ok(hms)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("write");
    }

    /// The head of an answer of HTTP.
    pub(crate) fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let rest = self.read.split_off(end + 4);
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).expect("text");
            }
            assert!(self.more(), "the connection ended");
        }
    }

    /// Reads once; `false` at the end of the connection.
    fn more(&mut self) -> bool {
        let mut bytes = [0; 65536];
        match self.socket.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.read.extend_from_slice(&bytes[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came: {error}"),
        }
    }

    /// The next frame, pings included; `None` at the end of the connection.
    pub(crate) fn try_frame(&mut self) -> Option<Frame> {
        loop {
            if self.read.len() >= 7 {
                let length =
                    usize::try_from(u32::from_le_bytes(self.read[3..7].try_into().expect("four"))).expect("fits");
                if self.read.len() >= 7 + length {
                    let rest = self.read.split_off(7 + length);
                    let whole = std::mem::replace(&mut self.read, rest);
                    let id = u16::from_le_bytes([whole[1], whole[2]]);
                    return Some(Frame { kind: whole[0], id, body: whole[7..].to_vec() });
                }
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// The next frame that is no ping; pings are answered.
    pub(crate) fn frame(&mut self) -> Frame {
        loop {
            let next = self.try_frame().expect("the connection ended");
            if next.kind != kind::PING {
                return next;
            }
            self.send(&frame(kind::RESPONSE, next.id, b""));
        }
    }

    /// Sends a request and gives its number.
    pub(crate) fn request(&mut self, op: u8, id: &str, payload: &[u8]) -> u16 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.send(&frame(kind::REQUEST, number, &message(op, id, payload)));
        number
    }

    /// Sends a message that nobody answers.
    pub(crate) fn tell(&mut self, op: u8, id: &str, payload: &[u8]) {
        self.send(&frame(kind::MESSAGE, 0, &message(op, id, payload)));
    }

    /// The answer to a request, or its error. What else comes is set aside.
    pub(crate) fn answered(&mut self, number: u16) -> Result<Vec<u8>, String> {
        loop {
            let next = self.frame();
            match next.kind {
                kind::RESPONSE if next.id == number => return Ok(next.body),
                kind::ERROR if next.id == number => return Err(String::from_utf8_lossy(&next.body).into_owned()),
                _ => self.set_aside.push_back(next),
            }
        }
    }

    /// Asks something. No payload for `null`.
    pub(crate) fn ask(&mut self, op: u8, id: &str, payload: &Value) -> Result<Value, String> {
        let payload = if payload.is_null() { Vec::new() } else { payload.to_string().into_bytes() };
        let number = self.request(op, id, &payload);
        let body = self.answered(number)?;
        Ok(if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") })
    }

    /// Asks something without a payload.
    pub(crate) fn do_(&mut self, op: u8, id: &str) -> Result<Value, String> {
        self.ask(op, id, &Value::Null)
    }

    /// The next message that came, requests excluded.
    pub(crate) fn heard(&mut self) -> Message {
        if let Some(place) = self.set_aside.iter().position(|frame| frame.kind == kind::MESSAGE) {
            return Message::of(&self.set_aside.remove(place).expect("is there"));
        }
        loop {
            let next = self.frame();
            match next.kind {
                kind::MESSAGE => return Message::of(&next),
                _ => self.set_aside.push_back(next),
            }
        }
    }

    /// The next request that came.
    pub(crate) fn asked(&mut self) -> (u16, Message) {
        if let Some(place) = self.set_aside.iter().position(|frame| frame.kind == kind::REQUEST) {
            let frame = self.set_aside.remove(place).expect("is there");
            return (frame.id, Message::of(&frame));
        }
        loop {
            let next = self.frame();
            match next.kind {
                kind::REQUEST => return (next.id, Message::of(&next)),
                _ => self.set_aside.push_back(next),
            }
        }
    }

    /// Answers a request.
    pub(crate) fn answer(&mut self, id: u16, body: &[u8]) {
        self.send(&frame(kind::RESPONSE, id, body));
    }

    /// Answers a request with an error.
    pub(crate) fn fail(&mut self, id: u16, text: &str) {
        self.send(&frame(kind::ERROR, id, text.as_bytes()));
    }

    /// Does what is asked next, and tells what that was: `update app1`.
    pub(crate) fn obey(&mut self) -> String {
        let (id, asked) = self.asked();
        let names =
            ["handshake", "add", "update", "remove", "list", "ps", "start", "stop", "restart", "sync", "subscribe"];
        self.answer(id, if asked.op == op::PS { br#"{"list":[]}"# } else { b"" });
        format!("{} {}", names[usize::from(asked.op)], asked.id)
    }

    /// Whether nothing comes for so long.
    pub(crate) fn is_quiet(&mut self, wait: Duration) -> bool {
        if !self.set_aside.is_empty() || !self.read.is_empty() {
            return false;
        }
        self.socket.set_read_timeout(Some(wait)).expect("a timeout");
        let mut byte = [0; 1];
        let quiet = self.socket.peek(&mut byte).is_err();
        self.socket.set_read_timeout(Some(SOON)).expect("a timeout");
        quiet
    }

    /// Whether the other end closes the connection soon.
    pub(crate) fn is_closed(&mut self) -> bool {
        let until = Instant::now() + SOON;
        while Instant::now() < until {
            match self.try_frame() {
                None => return true,
                Some(next) if next.kind == kind::PING => self.send(&frame(kind::RESPONSE, next.id, b"")),
                Some(_) => {}
            }
        }
        false
    }
}

/// A request of HTTP with a body, and its whole answer.
pub(crate) fn http(address: SocketAddr, head: &str, body: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    socket.write_all(head.as_bytes()).expect("write");
    socket.write_all(body).expect("write");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}
