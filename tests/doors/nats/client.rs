//! A client of NATS in plain bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::SOON;
use crate::harness::node::{Node, Options};

/// Options of a node with the door.
pub(crate) fn options() -> Options {
    Options::new().arg("--nats").arg("127.0.0.1:0")
}

/// The address of the door.
pub(crate) fn address(node: &Node) -> SocketAddr {
    let stdout = node.stdout();
    let line = stdout.lines().find_map(|line| line.strip_prefix("nats")?.trim().split_once("://"));
    let (_, address) = line.unwrap_or_else(|| panic!("the node says no address of the door nats: {stdout}"));
    address.trim_end_matches('/').parse().expect("an address")
}

/// What the server says to an operation of a client with this token: the text of its error, or nothing.
pub(crate) fn refusal(address: SocketAddr, token: Option<&str>, operation: &str) -> String {
    let mut client = Nats::greeted(address);
    let token = token.map_or_else(String::new, |token| format!(",\"auth_token\":\"{token}\""));
    client.send(&format!("CONNECT {{\"verbose\":false,\"headers\":true{token}}}\r\n{operation}PING\r\n"));
    while let Some(line) = client.try_line() {
        if line == "PONG" {
            return String::new();
        }
        if let Some(text) = line.strip_prefix("-ERR ") {
            return text.trim_matches('\'').to_owned();
        }
    }
    "closed".to_owned()
}

/// A connection.
pub(crate) struct Nats {
    socket: TcpStream,
    read: Vec<u8>,
    /// What the server said of itself.
    pub(crate) info: Value,
}

impl Nats {
    /// Connects and reads the first line.
    pub(crate) fn greeted(address: SocketAddr) -> Self {
        Self::try_greeted(address).expect("a server that says INFO")
    }

    /// The same; `None` when the server closes before it says anything.
    pub(crate) fn try_greeted(address: SocketAddr) -> Option<Self> {
        let socket = TcpStream::connect(address).expect("a connection");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        socket.set_nodelay(true).expect("no delay");
        let mut nats = Self { socket, read: Vec::new(), info: Value::Null };
        let line = nats.try_line()?;
        let json = line.strip_prefix("INFO ").unwrap_or_else(|| panic!("no INFO: {line}"));
        nats.info = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        Some(nats)
    }

    /// Connects and says `CONNECT`, without `+OK` from then on.
    pub(crate) fn connect(node: &Node) -> Self {
        Self::connect_with(node, "")
    }

    /// The same with more members of the CONNECT, such as `"echo":false`.
    pub(crate) fn connect_with(node: &Node, more: &str) -> Self {
        Self::connect_at(address(node), more)
    }

    /// The same at an address.
    pub(crate) fn connect_at(address: SocketAddr, more: &str) -> Self {
        let mut nats = Self::greeted(address);
        let more = if more.is_empty() { String::new() } else { format!(",{more}") };
        let base = r#""verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1"#;
        nats.send(&format!("CONNECT {{{base}{more}}}\r\n"));
        nats.flush();
        nats
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).expect("write");
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("write");
    }

    /// Everything before has been handled when this returns.
    pub(crate) fn flush(&mut self) {
        self.send("PING\r\n");
        let line = self.line();
        assert_eq!(line, "PONG", "the answer to a PING");
    }

    /// The answer to a PING, if the server still answers.
    pub(crate) fn try_ping(&mut self) -> Option<()> {
        self.socket.write_all(b"PING\r\n").ok()?;
        (self.try_line()? == "PONG").then_some(())
    }

    /// The messages that have come when everything before has been handled.
    pub(crate) fn flush_and_take(&mut self) -> Vec<Message> {
        self.send("PING\r\n");
        let mut messages = Vec::new();
        loop {
            let line = self.line();
            if line == "PONG" {
                return messages;
            }
            messages.push(self.message_of(&line));
        }
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> String {
        self.try_line().unwrap_or_else(|| panic!("the server closed; read before: {:?}", self.read))
    }

    /// The next line, but for an INFO that comes later; `None` when the server has closed.
    pub(crate) fn try_line(&mut self) -> Option<String> {
        loop {
            let line = self.any_line()?;
            match line.strip_prefix("INFO ").filter(|_| !self.info.is_null() && !line.contains("\"ldm\":true")) {
                Some(json) => self.info = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}")),
                None => return Some(line),
            }
        }
    }

    /// The next line; `None` when the server has closed.
    pub(crate) fn any_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8(self.read.drain(..end).collect()).expect("UTF-8");
                self.read.drain(..2);
                return Some(line);
            }
            self.more()?;
        }
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().is_some(), "the server closed");
        }
        self.read.drain(..count).collect()
    }

    fn more(&mut self) -> Option<()> {
        let mut buffer = [0; 65536];
        match self.socket.read(&mut buffer) {
            Ok(0) => None,
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                Some(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("nothing came: {error}; read before: {:?}", String::from_utf8_lossy(&self.read)),
        }
    }

    /// The next message: its line without the size, headers and payload.
    pub(crate) fn message(&mut self) -> Message {
        let line = self.line();
        self.message_of(&line)
    }

    fn message_of(&mut self, line: &str) -> Message {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[words.len() - at].parse::<usize>().unwrap_or_else(|_| panic!("{line}"));
        let (headers, total) = match words[0] {
            "MSG" => (0, number(1)),
            "HMSG" => (number(2), number(1)),
            _ => panic!("no message: {line}"),
        };
        let mut bytes = self.bytes(total + 2);
        assert_eq!(bytes.split_off(total), b"\r\n");
        let payload = bytes.split_off(headers);
        let last = words.len() - if headers > 0 || words[0] == "HMSG" { 2 } else { 1 };
        Message {
            subject: words[1].to_owned(),
            sid: words[2].to_owned(),
            reply: words[3..last].first().map(ToString::to_string),
            headers: String::from_utf8(bytes).expect("UTF-8"),
            bytes: payload.clone(),
            payload: String::from_utf8(payload).unwrap_or_else(|error| format!("{:?}", error.into_bytes())),
        }
    }

    /// Whether nothing comes for a while, but for an INFO.
    pub(crate) fn is_quiet(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let quiet = loop {
            while self.read.starts_with(b"INFO ") && self.read.windows(2).any(|pair| pair == b"\r\n") {
                let line = self.any_line().expect("a line that is there");
                self.info = serde_json::from_str(line.trim_start_matches("INFO "))
                    .unwrap_or_else(|error| panic!("{line}: {error}"));
            }
            if !self.read.is_empty() && !self.read.starts_with(b"INFO ") {
                break false;
            }
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).expect("a timeout");
            let mut buffer = [0; 65536];
            match self.socket.read(&mut buffer) {
                Ok(0) => break false,
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(_) => break true,
            }
        };
        self.socket.set_read_timeout(Some(SOON)).expect("a timeout");
        quiet
    }

    /// Publishes with a reply subject, and the JSON that comes back.
    pub(crate) fn record(&mut self, subject: &str, headers: &str, payload: &str) -> Value {
        self.send("SUB _INBOX.abcdefghijklmnopqrstuv ack\r\n");
        self.publish(subject, "_INBOX.abcdefghijklmnopqrstuv", headers, payload);
        let answer = self.message();
        self.send("UNSUB ack\r\n");
        serde_json::from_str(&answer.payload).unwrap_or_else(|error| panic!("{answer:?}: {error}"))
    }

    /// Publishes. `headers` are lines with their ends.
    pub(crate) fn publish(&mut self, subject: &str, reply: &str, headers: &str, payload: &str) {
        let reply = if reply.is_empty() { String::new() } else { format!("{reply} ") };
        let text = if headers.is_empty() {
            format!("PUB {subject} {reply}{}\r\n{payload}\r\n", payload.len())
        } else {
            let block = format!("NATS/1.0\r\n{headers}\r\n");
            let total = block.len() + payload.len();
            format!("HPUB {subject} {reply}{} {total}\r\n{block}{payload}\r\n", block.len())
        };
        self.send(&text);
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) subject: String,
    pub(crate) sid: String,
    pub(crate) reply: Option<String>,
    pub(crate) headers: String,
    /// The payload, or the list of its bytes where these are no text.
    pub(crate) payload: String,
    pub(crate) bytes: Vec<u8>,
}
