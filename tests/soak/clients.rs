//! Clients of `/ws` and of Socket.IO that read on the thread of whoever asks them, so that hundreds of them are no more
//! threads than that. Nodes are killed under them: what fails is an error and never a panic.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::{BOUND, left, told};
use crate::harness::sse::is_timeout;

/// The handshake of a Socket.IO client that begins with a WebSocket.
pub(super) const SOCKET_IO: &str = "/socket.io/?EIO=4&transport=websocket";

/// A WebSocket with a bound for each read.
pub(super) struct Line(WebSocket<TcpStream>);

impl Line {
    pub(super) fn open(web: SocketAddr, target: &str) -> Result<Self, String> {
        let tcp = TcpStream::connect_timeout(&web, BOUND).map_err(told)?;
        tcp.set_nodelay(true).map_err(told)?;
        tcp.set_read_timeout(Some(BOUND)).map_err(told)?;
        tcp.set_write_timeout(Some(BOUND)).map_err(told)?;
        let (socket, _) = tungstenite::client(format!("ws://{web}{target}"), tcp).map_err(told)?;
        Ok(Self(socket))
    }

    pub(super) fn send(&mut self, text: String) -> Result<(), String> {
        self.0.send(Message::text(text)).map_err(told)
    }

    /// Sends bytes that are no frame.
    pub(super) fn send_raw(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.0.get_mut().write_all(bytes).map_err(told)
    }

    /// The next text, if one comes in time; an error when the connection has ended.
    pub(super) fn next(&mut self, bound: Duration) -> Result<Option<String>, String> {
        let deadline = Instant::now() + bound;
        loop {
            let remaining = left(deadline);
            if remaining.is_zero() {
                return Ok(None);
            }
            self.0.get_ref().set_read_timeout(Some(remaining)).map_err(told)?;
            match self.0.read() {
                Ok(Message::Text(text)) => return Ok(Some(text.to_string())),
                Ok(Message::Close(why)) => return Err(format!("close {:?}", why.map(|why| u16::from(why.code)))),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if is_timeout(&error) => {}
                Err(error) => return Err(told(error)),
            }
        }
    }
}

/// A registered client of the door `websocket`.
pub(super) struct Plain(Line);

impl Plain {
    /// Connects as a service with these methods, or as a consumer when there are none.
    pub(super) fn connect(web: SocketAddr, name: &str, methods: &[&str]) -> Result<Self, String> {
        let mut client = Self(Line::open(web, "/ws")?);
        client.wait(|frame| frame["type"] == "connect")?;
        let mut registration = json!({ "name": name, "version": "1.0.0" });
        if !methods.is_empty() {
            registration["methods"] = json!(methods);
        }
        client.send(&registration)?;
        client.wait(|frame| frame["type"] == "registered")?;
        Ok(client)
    }

    pub(super) fn send(&mut self, frame: &Value) -> Result<(), String> {
        self.0.send(frame.to_string())
    }

    /// The next frame, if one comes in time.
    pub(super) fn next(&mut self, bound: Duration) -> Result<Option<Value>, String> {
        let Some(text) = self.0.next(bound)? else { return Ok(None) };
        let frame: Value = serde_json::from_str(&text).map_err(told)?;
        if frame["type"] == "disconnect" {
            return Err(text);
        }
        Ok(Some(frame))
    }

    /// The first frame that is wanted; those before it are passed by.
    pub(super) fn wait(&mut self, is_it: impl Fn(&Value) -> bool) -> Result<Value, String> {
        let deadline = Instant::now() + BOUND;
        loop {
            let frame = self.next(left(deadline))?.ok_or("no answer in time over /ws")?;
            if is_it(&frame) {
                return Ok(frame);
            }
        }
    }
}

/// A Socket.IO client.
pub(super) struct SocketIo {
    line: Line,
    /// The number of the newest acknowledgement that was asked for.
    asked: u64,
    /// Events that came while an acknowledgement was waited for.
    told: VecDeque<Vec<Value>>,
}

enum Packet {
    /// The name, then the arguments.
    Event(Vec<Value>),
    Ack(u64, Value),
    Other,
}

/// Takes the next packet, which must begin like that.
fn begins(line: &mut Line, with: &str) -> Result<(), String> {
    let packet = line.next(BOUND)?.ok_or("no answer in time over Socket.IO")?;
    if packet.starts_with(with) { Ok(()) } else { Err(packet) }
}

impl SocketIo {
    pub(super) fn connect(web: SocketAddr) -> Result<Self, String> {
        let mut line = Line::open(web, SOCKET_IO)?;
        begins(&mut line, "0")?;
        line.send("40{}".to_owned())?;
        begins(&mut line, "40")?;
        Ok(Self { line, asked: 0, told: VecDeque::new() })
    }

    /// Sends a packet as it is.
    pub(super) fn send(&mut self, packet: &str) -> Result<(), String> {
        self.line.send(packet.to_owned())
    }

    pub(super) fn emit(&mut self, name: &str, arg: &Value) -> Result<(), String> {
        self.line.send(format!("42{}", json!([name, arg])))
    }

    /// Emits and gives the number of the acknowledgement.
    pub(super) fn begin(&mut self, name: &str, arg: &Value) -> Result<u64, String> {
        self.asked += 1;
        let id = self.asked;
        self.line.send(format!("42{id}{}", json!([name, arg])))?;
        Ok(id)
    }

    /// Waits for an acknowledgement, which must be a success.
    pub(super) fn acked(&mut self, id: u64) -> Result<Value, String> {
        let deadline = Instant::now() + BOUND;
        loop {
            match self.packet(left(deadline))?.ok_or("no acknowledgement in time over Socket.IO")? {
                Packet::Ack(acked, answer) if acked == id => {
                    return if answer["success"] == true { Ok(answer) } else { Err(answer.to_string()) };
                }
                Packet::Event(args) => self.told.push_back(args),
                Packet::Ack(..) | Packet::Other => {}
            }
        }
    }

    /// Emits and waits for the acknowledgement.
    pub(super) fn ask(&mut self, name: &str, arg: &Value) -> Result<Value, String> {
        let id = self.begin(name, arg)?;
        self.acked(id)
    }

    /// The next event, its name first, if one comes in time.
    pub(super) fn event(&mut self, bound: Duration) -> Result<Option<Vec<Value>>, String> {
        if let Some(args) = self.told.pop_front() {
            return Ok(Some(args));
        }
        let deadline = Instant::now() + bound;
        loop {
            match self.packet(left(deadline))? {
                None => return Ok(None),
                Some(Packet::Event(args)) => return Ok(Some(args)),
                Some(_) => {}
            }
        }
    }

    fn packet(&mut self, bound: Duration) -> Result<Option<Packet>, String> {
        let Some(text) = self.line.next(bound)? else { return Ok(None) };
        match &*text {
            "2" => {
                self.send("3")?;
                return Ok(Some(Packet::Other));
            }
            "1" | "41" => return Err("sent away".to_owned()),
            _ => {}
        }
        let (kind, rest) = text.split_at_checked(2).unwrap_or_default();
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, args) = rest.split_at(digits);
        let args: Vec<Value> = serde_json::from_str(args).unwrap_or_default();
        Ok(Some(match (kind, number.parse::<u64>()) {
            ("42", _) => Packet::Event(args),
            ("43", Ok(id)) => Packet::Ack(id, args.into_iter().next().unwrap_or_default()),
            _ => Packet::Other,
        }))
    }
}
