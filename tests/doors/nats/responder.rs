//! A responder of the services API of NATS, and a caller of services, in plain bytes.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::client::{Message, Nats};

/// The inbox of a caller.
const INBOX: &str = "_INBOX.abcdefghijklmnopqrstuv";

/// Asks a service of any door: its answer, or the code of the error.
pub(crate) fn call(address: SocketAddr, capability: &str, action: &str, payload: &str) -> Result<Value, String> {
    let mut client = Nats::connect_at(address, "");
    client.send(&format!("SUB {INBOX}.* 1\r\n"));
    client.publish(&format!("rollbook.call.{capability}.{action}"), &format!("{INBOX}.1"), "", payload);
    let answer = client.message();
    let header = |name: &str| answer.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    match (header("Nats-Service-Error"), header("Nats-Service-Error-Code")) {
        (None, _) => Ok(serde_json::from_str(&answer.payload).unwrap_or_else(|_| panic!("{answer:?}"))),
        // What the node itself says has the number of HTTP, and its own code in the text.
        (Some(text), Some(code)) if code.parse::<u16>().is_ok() => {
            Err(text.split(':').next().unwrap_or_default().to_owned())
        }
        (Some(_), code) => Err(code.unwrap_or_default().to_owned()),
    }
}

/// A responder.
pub(crate) struct Responder {
    pub(crate) client: Nats,
    name: String,
    pub(crate) id: String,
    actions: Vec<String>,
}

impl Responder {
    /// Connects and listens as the stock clients do: where it is asked what it is, and on `NAME.ACTION` in the group `q`.
    pub(crate) fn start(address: SocketAddr, name: &str, id: &str, actions: &[&str]) -> Self {
        Self::start_as(Nats::connect_at(address, ""), name, id, actions)
    }

    /// The same over a connection.
    pub(crate) fn start_as(client: Nats, name: &str, id: &str, actions: &[&str]) -> Self {
        let actions = actions.iter().map(ToString::to_string).collect();
        let mut responder = Self { client, name: name.to_owned(), id: id.to_owned(), actions };
        responder.client.send(&format!("SUB $SRV.INFO.{name}.{id} info.{name}.{id}\r\n"));
        for action in &responder.actions {
            responder.client.send(&format!("SUB {name}.{action} q {name}.{action}\r\n"));
        }
        responder.tell();
        responder
    }

    /// What it says of itself.
    pub(crate) fn info(&self) -> Value {
        let endpoint = |action: &String| json!({ "name": action, "subject": format!("{}.{action}", self.name) });
        let endpoints: Vec<Value> = self.actions.iter().map(endpoint).collect();
        json!({
            "type": "io.nats.micro.v1.info_response", "name": self.name, "id": self.id, "version": "1.0.0",
            "description": "a test", "metadata": {}, "endpoints": endpoints,
        })
    }

    /// Waits until it is asked what it is, and says so.
    pub(crate) fn tell(&mut self) {
        let asked = self.client.message();
        assert_eq!(asked.subject, format!("$SRV.INFO.{}.{}", self.name, self.id));
        let info = self.info().to_string();
        self.client.publish(&asked.reply.expect("a reply subject"), "", "", &info);
        self.client.send("PING\r\n");
        assert_eq!(self.client.line(), "PONG");
    }

    /// The next request. When subscriptions of the connection have changed, it is asked again what it is.
    pub(crate) fn request(&mut self) -> Message {
        loop {
            let message = self.client.message();
            if !message.subject.starts_with("$SRV.INFO.") {
                return message;
            }
        }
    }

    /// Answers the next request.
    pub(crate) fn serve_one(&mut self, serve: impl FnOnce(Value) -> Value) -> Message {
        let request = self.request();
        let payload = serde_json::from_str(&request.payload).unwrap_or_else(|_| panic!("{request:?}"));
        let reply = request.reply.clone().expect("a reply subject");
        self.client.publish(&reply, "", "", &serve(payload).to_string());
        request
    }

    /// Answers the next request with an error.
    pub(crate) fn fail_one(&mut self, code: &str, text: &str) {
        let reply = self.request().reply.expect("a reply subject");
        let headers = format!("Nats-Service-Error: {text}\r\nNats-Service-Error-Code: {code}\r\n");
        self.client.publish(&reply, "", &headers, "");
    }
}
