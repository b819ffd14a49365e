//! The behaviours that clients rely on, over real connections, with an application that echoes.

mod engine;
mod socket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_server::Server;
use actix_web::App;
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::engine::table::{self, SessionTable};
use super::session::{Application, ConnectError, Disconnect, Event, Handshake, Out, Socket};
use super::settings::Settings;
use super::{Budget, SocketIoDoor};
use crate::bus::client::clients::ClientMessage;
use crate::doors::door::Door as _;
use crate::net::http::server;
use crate::net::http::settings::HttpListener;

/// An application that echoes events, and refuses a client that asks for a refusal.
struct Echo;

struct Echoing {
    auth: String,
    query: String,
}

impl Application for Echo {
    fn sid(&self) -> String {
        table::sid(1)
    }

    fn connect(
        &self,
        namespace: &str,
        _: &str,
        handshake: &Handshake,
        auth: Option<&str>,
    ) -> Result<Box<dyn Socket>, ConnectError> {
        if !["/", "/custom"].contains(&namespace) {
            return Err(ConnectError { message: "Invalid namespace".to_owned(), data: None });
        }
        let auth = auth.unwrap_or("{}").to_owned();
        if auth.contains("\"deny\"") {
            return Err(ConnectError { message: "not authorized".to_owned(), data: Some(json!({ "code": "E1" })) });
        }
        let query: serde_json::Map<String, Value> =
            form_urlencoded::parse(handshake.query.as_bytes()).map(|(key, value)| (key.into(), value.into())).collect();
        Ok(Box::new(Echoing { auth, query: Value::from(query).to_string() }))
    }
}

impl Socket for Echoing {
    fn joined(&mut self, out: &mut Out) {
        out.emit(None, "auth", &[&self.auth], Vec::new());
    }

    fn event(&mut self, event: Event, out: &mut Out) {
        let args: Vec<&str> = event.args.iter().map(|arg| &**arg).collect();
        match (&*event.name, event.id) {
            ("message", _) => out.emit(None, "message-back", &args, event.attachments),
            ("message-with-ack", Some(id)) => out.ack(id, &args, event.attachments),
            ("query", Some(id)) => out.ack(id, &[&self.query], Vec::new()),
            ("kick", _) => out.disconnect = Some(Disconnect::Kick),
            ("drop", _) => out.disconnect = Some(Disconnect::Drop("dropped", 1000)),
            ("ask-me", _) => out.emit(Some(7), "question", &["1"], Vec::new()),
            _ => {}
        }
    }

    fn acked(&mut self, id: u64, args: Vec<ByteString>, _: Vec<Bytes>, out: &mut Out) {
        assert_eq!(id, 7);
        out.emit(None, "answered", &["null", &format!("[{}]", args.join(","))], Vec::new());
    }

    fn client_message(&mut self, _: ClientMessage, _: &mut Out) {}

    fn disconnected(&mut self, _: bool) {}
}

/// A server with the times of the public suites, but for how long a pong may take.
pub(super) fn serve(ping_timeout: Duration) -> SocketAddr {
    let ms = Duration::from_millis;
    let settings = Settings {
        ping_interval: ms(300),
        ping_timeout,
        upgrade_timeout: ms(1000),
        connect_timeout: ms(1000),
        message_bytes_max: 1_000_000,
        queue_bytes_max: 4_000_000,
        connections_max: 1000,
        max_disconnection: Duration::ZERO,
        origins: "*".into(),
    };
    let of_node = (Budget::new(1 << 30), Default::default());
    let door = SocketIoDoor::with(1, (settings, of_node), SessionTable::default(), Arc::new(Echo), None);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its number");
    let application = move || App::new().configure(|services| Arc::clone(&door).routes(services));
    let builder = Server::build().workers(1).disable_signals();
    let server = server::listen(builder, listener, HttpListener::for_tests(), CancellationToken::new(), application)
        .expect("listen");
    actix_web::rt::spawn(server);
    address
}

/// A client of the transport alone.
pub(super) struct Client {
    pub(super) at: SocketAddr,
    pub(super) http: reqwest::Client,
}

pub(super) type Ws = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

impl Client {
    pub(super) fn new() -> Self {
        Self { at: serve(Duration::from_millis(200)), http: crate::base::https::client().build().expect("a client") }
    }

    pub(super) fn url(&self, query: &str) -> String {
        format!("http://{}/socket.io/?{query}", self.at)
    }

    pub(super) async fn get(&self, query: &str) -> (u16, String) {
        let answer = self.http.get(self.url(query)).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    pub(super) async fn post(&self, sid: &str, body: &'static str) -> (u16, String) {
        let request = self.http.post(self.url(&format!("EIO=4&transport=polling&sid={sid}"))).body(body);
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    pub(super) async fn poll(&self, sid: &str) -> (u16, String) {
        self.get(&format!("EIO=4&transport=polling&sid={sid}")).await
    }

    /// A session over polling.
    pub(super) async fn sid(&self) -> String {
        let (status, body) = self.get("EIO=4&transport=polling").await;
        assert_eq!(status, 200, "{body}");
        let open: Value = serde_json::from_str(body.strip_prefix('0').expect("an open packet")).expect("JSON");
        open["sid"].as_str().expect("a sid").to_owned()
    }

    pub(super) async fn ws(&self, query: &str) -> Option<Ws> {
        let stream = tokio::net::TcpStream::connect(self.at).await.expect("connect");
        let url = format!("ws://{}/socket.io/?{query}", self.at);
        tokio_tungstenite::client_async(url, stream).await.ok().map(|(ws, _)| ws)
    }

    /// A session over a WebSocket, behind its open packet.
    pub(super) async fn opened(&self) -> Ws {
        let mut ws = self.ws("EIO=4&transport=websocket").await.expect("an upgrade");
        assert!(text(&mut ws).await.starts_with('0'));
        ws
    }

    /// A session that has joined the main namespace.
    pub(super) async fn joined(&self) -> Ws {
        let mut ws = self.opened().await;
        send(&mut ws, "40").await;
        assert!(text(&mut ws).await.starts_with("40{"));
        assert_eq!(text(&mut ws).await, "42[\"auth\",{}]");
        ws
    }
}

pub(super) async fn send(ws: &mut Ws, text: &str) {
    ws.send(Message::text(text)).await.expect("send");
}

pub(super) async fn send_binary(ws: &mut Ws, bytes: &'static [u8]) {
    ws.send(Message::binary(bytes)).await.expect("send");
}

const SOON: Duration = Duration::from_secs(3);

pub(super) async fn next(ws: &mut Ws) -> Option<Message> {
    loop {
        match tokio::time::timeout(SOON, ws.next()).await.expect("something within 3 s") {
            Some(Ok(Message::Close(_))) | Some(Err(_)) | None => return None,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(message)) => return Some(message),
        }
    }
}

pub(super) async fn text(ws: &mut Ws) -> String {
    let message = next(ws).await.expect("a message, not the end");
    message.into_text().expect("text").to_string()
}

/// The next event, without heartbeats.
pub(super) async fn event(ws: &mut Ws) -> String {
    loop {
        match text(ws).await.as_str() {
            "2" => send(ws, "3").await,
            other => return other.to_owned(),
        }
    }
}

pub(super) async fn binary(ws: &mut Ws) -> Bytes {
    next(ws).await.expect("a message, not the end").into_data()
}

/// Waits for the end; nothing but heartbeats may come before it.
pub(super) async fn closed(mut ws: Ws) {
    while let Some(message) = next(&mut ws).await {
        assert_eq!(message, Message::text("2"));
    }
}

pub(super) async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
