//! A client of the service bus: Socket.IO over a WebSocket, just enough of it, one thread that reads.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::SOON;
use super::shared::Shared;

/// An event of the bus.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) args: Vec<Value>,
    /// The bus wants it acknowledged under this number.
    pub(crate) ack: Option<u64>,
}

#[derive(Debug, Default)]
struct Inbox {
    events: VecDeque<Told>,
    acks: Vec<(u64, Value)>,
    ended: Option<String>,
    /// The last string that ended an event, as client libraries take note of it.
    offset: Option<String>,
}

/// The client. Its connection is cut when it is dropped.
pub(crate) struct BusClient {
    writer: Mutex<(WebSocket<TcpStream>, u64)>,
    tcp: TcpStream,
    shared: Arc<Shared<Inbox>>,
    pub(crate) sid: String,
    /// The name of its state, when that is kept.
    pub(crate) pid: Option<String>,
}

impl BusClient {
    /// Connects without a name.
    pub(crate) fn connect(web: SocketAddr) -> Self {
        Self::connect_as(web, &json!({}))
    }

    /// Connects with that auth.
    pub(crate) fn connect_as(web: SocketAddr, auth: &Value) -> Self {
        Self::try_connect(web, auth).unwrap_or_else(|error| panic!("no connection to {web}: {error}"))
    }

    /// Connects, or says why not.
    pub(crate) fn try_connect(web: SocketAddr, auth: &Value) -> Result<Self, String> {
        let tcp = TcpStream::connect(web).map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        tcp.set_read_timeout(Some(SOON)).map_err(|error| error.to_string())?;
        let url = format!("ws://{web}/socket.io/?EIO=4&transport=websocket&app=test");
        let copy = tcp.try_clone().map_err(|error| error.to_string())?;
        let (mut reader, _) = tungstenite::client(url, copy).map_err(|error| error.to_string())?;
        let read = |reader: &mut WebSocket<TcpStream>| loop {
            match reader.read().map_err(|error| error.to_string())? {
                Message::Text(text) => return Ok::<String, String>(text.to_string()),
                Message::Close(_) => return Err("closed".to_owned()),
                _ => {}
            }
        };
        read(&mut reader)?;
        reader.send(Message::text(format!("40{auth}"))).map_err(|error| error.to_string())?;
        let answer = read(&mut reader)?;
        let object: Value = serde_json::from_str(answer.get(2..).unwrap_or_default()).unwrap_or_default();
        let sid = object["sid"].as_str().ok_or(answer)?.to_owned();
        let pid = object["pid"].as_str().map(str::to_owned);
        tcp.set_read_timeout(None).map_err(|error| error.to_string())?;
        let shared = Arc::<Shared<Inbox>>::default();
        let role = tungstenite::protocol::Role::Client;
        let clone = |tcp: &TcpStream| tcp.try_clone().expect("one more handle");
        // Reading and writing take turns of their own; a pong is the only thing that both would write.
        let writer = WebSocket::from_raw_socket(clone(&tcp), role, None);
        let client = Self { writer: Mutex::new((writer, 0)), tcp: clone(&tcp), shared: Arc::clone(&shared), sid, pid };
        let pongs = clone(&tcp);
        std::thread::spawn(move || follow(reader, &pongs, &shared));
        Ok(client)
    }

    fn send(&self, text: String) {
        // Who writes to a connection that has ended is told by what does not come.
        drop(self.writer.lock().expect("the writer").0.send(Message::text(text)));
    }

    /// Sends a packet as it is.
    pub(crate) fn send_raw(&self, text: &str) {
        self.send(text.to_owned());
    }

    /// Sends a packet with one binary part.
    pub(crate) fn send_with(&self, text: &str, part: &'static [u8]) {
        self.send_raw(text);
        drop(self.writer.lock().expect("the writer").0.send(Message::binary(part)));
    }

    pub(crate) fn emit(&self, name: &str, arg: &Value) {
        self.send(format!("42{}", json!([name, arg])));
    }

    /// Emits and gives the number of the acknowledgement.
    pub(crate) fn begin(&self, name: &str, arg: &Value) -> u64 {
        let mut writer = self.writer.lock().expect("the writer");
        writer.1 += 1;
        let id = writer.1;
        drop(writer.0.send(Message::text(format!("42{id}{}", json!([name, arg])))));
        id
    }

    /// Emits and waits for the acknowledgement.
    pub(crate) fn ask(&self, name: &str, arg: &Value) -> Value {
        let id = self.begin(name, arg);
        self.acked(id)
    }

    /// Waits for an acknowledgement.
    pub(crate) fn acked(&self, id: u64) -> Value {
        self.shared.wait(&format!("acknowledgement {id}"), SOON, |inbox| {
            let at = inbox.acks.iter().position(|(acked, _)| *acked == id)?;
            Some(inbox.acks.swap_remove(at).1)
        })
    }

    /// Whether an acknowledgement has come and was not taken.
    pub(crate) fn is_acked(&self, id: u64) -> bool {
        self.shared.lock().acks.iter().any(|(acked, _)| *acked == id)
    }

    /// Acknowledges an event of the bus.
    pub(crate) fn ack(&self, id: u64, arg: &Value) {
        self.send(format!("43{id}{}", json!([arg])));
    }

    /// Registers a service with capabilities; panics when it is refused.
    pub(crate) fn register(&self, id: &str, capabilities: &[&str]) -> String {
        let answer = self.ask("bus:register", &json!({ "id": id, "capabilities": capabilities }));
        assert_eq!(answer["success"], true, "{answer}");
        answer["instanceId"].as_str().expect("an instance id").to_owned()
    }

    /// A request; the answer is the acknowledgement.
    pub(crate) fn request(&self, capability: &str, payload: &Value) -> Value {
        self.ask("bus:request", &json!({ "capability": capability, "action": "do", "payload": payload }))
    }

    /// The next event of that name; others stay.
    pub(crate) fn event(&self, name: &str) -> Told {
        self.shared.wait(&format!("event {name}"), SOON, |inbox| {
            let at = inbox.events.iter().position(|told| told.name == name)?;
            inbox.events.remove(at)
        })
    }

    /// Whether an event of that name comes within a time.
    pub(crate) fn hears(&self, name: &str, within: Duration) -> bool {
        self.shared.within(within, |inbox| inbox.events.iter().any(|told| told.name == name).then_some(())).is_some()
    }

    /// Names of all events that have come and were not taken.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.shared.lock().events.iter().map(|told| told.name.clone()).collect()
    }

    /// Answers the next request with `success` and what `answer` makes of its payload.
    pub(crate) fn serve_one(&self, answer: impl FnOnce(&Value) -> Value) -> Told {
        let asked = self.event("bus:request");
        let request = &asked.args[0];
        let data = answer(&request["payload"]);
        self.emit("bus:response", &json!({ "requestId": request["requestId"], "success": true, "data": data }));
        asked
    }

    /// Cuts the connection, and gives what a client library says when it comes back.
    pub(crate) fn cut(&self) -> Value {
        self.tcp.shutdown(std::net::Shutdown::Both).ok();
        self.end();
        let offset = self.shared.lock().offset.clone();
        json!({ "pid": self.pid, "offset": offset })
    }

    /// Waits for the end of the connection and says how it came.
    pub(crate) fn end(&self) -> String {
        self.shared.wait("the end of the connection", SOON, |inbox| inbox.ended.clone())
    }

    /// Whether the connection has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.lock().ended.is_some()
    }
}

impl Drop for BusClient {
    fn drop(&mut self) {
        drop(self.tcp.shutdown(std::net::Shutdown::Both));
    }
}

fn follow(mut reader: WebSocket<TcpStream>, pongs: &TcpStream, shared: &Shared<Inbox>) {
    let role = tungstenite::protocol::Role::Client;
    let mut pongs = WebSocket::from_raw_socket(pongs, role, None);
    let ended = loop {
        let text = match reader.read() {
            Ok(Message::Text(text)) => text.to_string(),
            Ok(Message::Close(why)) => break format!("close {:?}", why.map(|why| u16::from(why.code))),
            Ok(_) => continue,
            Err(error) => break error.to_string(),
        };
        if text == "2" {
            drop(pongs.send(Message::text("3")));
            continue;
        }
        if text == "41" {
            break "sent away".to_owned();
        }
        let (kind, rest) = text.split_at_checked(2).unwrap_or_default();
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, args) = rest.split_at(digits);
        let id = number.parse().ok();
        let args: Vec<Value> = serde_json::from_str(args).unwrap_or_default();
        shared.change(|inbox| match (kind, id) {
            ("42", ack) => {
                let mut args = args.into_iter();
                let name = args.next().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
                if let Some(offset) = args.as_slice().last().and_then(Value::as_str) {
                    inbox.offset = Some(offset.to_owned());
                }
                inbox.events.push_back(Told { name, args: args.collect(), ack });
            }
            ("43", Some(id)) => inbox.acks.push((id, args.into_iter().next().unwrap_or_default())),
            _ => {}
        });
    };
    shared.change(|inbox| inbox.ended = Some(ended));
}
