//! A client of the door `websocket`: frames of JSON, one thread that reads.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::HandshakeError;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::SOON;
use super::shared::Shared;

#[derive(Debug, Default)]
struct Inbox {
    frames: VecDeque<(Value, String)>,
    /// The close code, or why there is none.
    ended: Option<Result<u16, String>>,
}

/// The client. Its connection is cut when it is dropped.
pub(crate) struct Socket {
    writer: Mutex<WebSocket<TcpStream>>,
    tcp: TcpStream,
    shared: Arc<Shared<Inbox>>,
}

impl Socket {
    /// Connects, and takes the frame `connect`.
    pub(crate) fn connect(web: SocketAddr) -> Self {
        Self::over(TcpStream::connect(web).unwrap_or_else(|error| panic!("no connection to {web}: {error}")), web)
    }

    /// The same on a connection that is there.
    pub(crate) fn over(tcp: TcpStream, web: SocketAddr) -> Self {
        Self::upgrade(tcp, web, "").unwrap_or_else(|code| panic!("no upgrade: {code}"))
    }

    /// Connects with a token among the subprotocols, as a browser does. The error is the code of the refusal.
    pub(crate) fn try_with(web: SocketAddr, token: Option<&str>) -> Result<Self, String> {
        let tcp = TcpStream::connect(web).unwrap_or_else(|error| panic!("no connection to {web}: {error}"));
        let offered = token.map_or("rollbook.v1".to_owned(), |token| format!("rollbook.v1, bearer.{token}"));
        Self::upgrade(tcp, web, &offered)
    }

    fn upgrade(tcp: TcpStream, web: SocketAddr, offered: &str) -> Result<Self, String> {
        tcp.set_nodelay(true).expect("an option");
        let clone = |tcp: &TcpStream| tcp.try_clone().expect("one more handle");
        let mut request = format!("ws://{web}/ws").into_client_request().expect("a request");
        if !offered.is_empty() {
            request.headers_mut().insert("sec-websocket-protocol", offered.parse().expect("a header"));
        }
        let (reader, answer) = match tungstenite::client(request, clone(&tcp)) {
            Ok(upgraded) => upgraded,
            Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                return Err(match answer.status().as_u16() {
                    401 => "unauthenticated".to_owned(),
                    403 => "forbidden".to_owned(),
                    429 => "overloaded".to_owned(),
                    status => status.to_string(),
                });
            }
            Err(error) => panic!("no upgrade: {error}"),
        };
        let agreed = answer.headers().get("sec-websocket-protocol").map(|value| value.as_bytes().to_vec());
        assert_eq!(agreed.as_deref(), (!offered.is_empty()).then_some(&b"rollbook.v1"[..]), "the subprotocol");
        let shared = Arc::<Shared<Inbox>>::default();
        let writer = Mutex::new(WebSocket::from_raw_socket(clone(&tcp), Role::Client, None));
        let client = Self { writer, tcp, shared: Arc::clone(&shared) };
        std::thread::spawn(move || follow(reader, &shared));
        client.next("connect");
        if offered.is_empty() {
            return Ok(client);
        }
        // A page does not see the status of an upgrade, so it is told afterwards.
        client.send(&json!({ "type": "ping" }));
        let first = client.take_where("an answer", |frame| frame["type"] == "pong" || frame["type"] == "error");
        match first["code"].as_str() {
            None => Ok(client),
            Some(code) => {
                assert_eq!(client.end(), 4401, "{first}");
                Err(code.to_owned())
            }
        }
    }

    /// Connects as a service.
    pub(crate) fn service(web: SocketAddr, name: &str, methods: &[&str]) -> Self {
        let client = Self::connect(web);
        client.send(&json!({ "name": name, "version": "1.0.0", "methods": methods }));
        client.next("registered");
        client
    }

    /// Connects as a consumer.
    pub(crate) fn consumer(web: SocketAddr, name: &str) -> Self {
        let client = Self::connect(web);
        client.send(&json!({ "name": name, "version": "1.0.0" }));
        client.next("registered");
        client
    }

    pub(crate) fn send(&self, frame: &Value) {
        self.send_text(&frame.to_string());
    }

    /// Sends a frame as it is.
    pub(crate) fn send_text(&self, text: &str) {
        self.send_message(Message::text(text));
    }

    pub(crate) fn send_message(&self, message: Message) {
        // Who writes to a connection that has ended is told by what does not come.
        drop(self.writer.lock().expect("the writer").send(message));
    }

    /// Sends a message that wants a response.
    pub(crate) fn ask(&self, id: &str, destination: &str, payload: &Value) {
        self.send(&json!({
            "type": "message", "id": id, "destination": destination, "responder": "cb", "payload": payload,
        }));
    }

    /// The next frame of that type; others stay.
    pub(crate) fn next(&self, kind: &str) -> Value {
        self.take(kind, |frame| frame["type"] == kind).0
    }

    /// The same as it came.
    pub(crate) fn next_text(&self, kind: &str) -> String {
        self.take(kind, |frame| frame["type"] == kind).1
    }

    /// The next event of that name.
    pub(crate) fn event(&self, name: &str) -> Value {
        self.take(name, |frame| frame["type"] == "event" && frame["event"] == name).0
    }

    /// The next frame that is wanted; others stay.
    pub(crate) fn take_where(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.take(what, is_it).0
    }

    fn take(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> (Value, String) {
        self.shared.wait(what, SOON, |inbox| {
            let at = inbox.frames.iter().position(|(frame, _)| is_it(frame))?;
            inbox.frames.remove(at)
        })
    }

    /// Takes the next message and answers it with what `answer` makes of its payload.
    pub(crate) fn serve_one(&self, answer: impl FnOnce(&Value) -> Value) -> Value {
        let asked = self.next("message");
        self.send(&json!({ "type": "response", "id": asked["id"], "payload": answer(&asked["payload"]) }));
        asked
    }

    /// Whether a frame of that type comes within a time.
    pub(crate) fn hears(&self, kind: &str, within: Duration) -> bool {
        let is_it = |(frame, _): &(Value, String)| frame["type"] == kind;
        self.shared.within(within, |inbox| inbox.frames.iter().any(is_it).then_some(())).is_some()
    }

    /// The names of all events that have come and were not taken, with their index.
    pub(crate) fn events(&self) -> Vec<(String, u64)> {
        let event = |(frame, _): &(Value, String)| {
            let name = frame["event"].as_str().filter(|_| frame["type"] == "event")?;
            Some((name.to_owned(), frame["index"].as_u64().unwrap_or_default()))
        };
        self.shared.lock().frames.iter().filter_map(event).collect()
    }

    /// How many events of that name have come and were not taken.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.events().iter().filter(|(event, _)| event == name).count()
    }

    /// Waits for the end of the connection: its close code.
    pub(crate) fn end(&self) -> u16 {
        let ended = self.shared.wait("the end of the connection", SOON, |inbox| inbox.ended.clone());
        ended.unwrap_or_else(|error| panic!("the connection ended without a code: {error}"))
    }

    /// Cuts the connection without a word.
    pub(crate) fn cut(&self) {
        drop(self.tcp.shutdown(std::net::Shutdown::Both));
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.cut();
    }
}

fn follow(mut reader: WebSocket<TcpStream>, shared: &Shared<Inbox>) {
    let ended = loop {
        match reader.read() {
            Ok(Message::Text(text)) => {
                let frame = serde_json::from_str(&text).expect("a frame is JSON");
                shared.change(|inbox| inbox.frames.push_back((frame, text.to_string())));
            }
            Ok(Message::Close(why)) => break Ok(why.map_or(1005, |why| u16::from(why.code))),
            Ok(_) => {}
            Err(error) => break Err(error.to_string()),
        }
    };
    // The answer to a farewell.
    drop(reader.flush());
    shared.change(|inbox| inbox.ended = Some(ended));
}
