//! A node that signs certificates of accounts, and clients of Xbus that talk JSON to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::doors::nats::client::{Nats, address};
use crate::harness::node::{Node, Options};
use crate::harness::tls::{Authority, exchange, tunnel};
use crate::harness::{SOON, wait_for};

/// The inbox of a client: nobody guesses its token.
pub(super) const INBOX: &str = "_INBOX.abcdefghijklmnopqrstuv";

/// A node with security whose own CA signs certificates of accounts. No other CA of clients is known.
pub(super) struct Bus {
    pub(super) node: Node,
    pub(super) authority: Authority,
    /// The token of the operator.
    pub(super) root: String,
}

impl Bus {
    pub(super) fn start() -> Self {
        Self::start_with(|options| options)
    }

    pub(super) fn start_with(more: impl FnOnce(Options) -> Options) -> Self {
        let authority = Authority::new(&[]);
        let options = Options::new().arg("--nats").arg("127.0.0.1:0");
        let options = options.arg("--tls-certificate").arg(&authority.text("server.pem"));
        let options = options.arg("--tls-key").arg(&authority.text("server.key"));
        let options = options.env("ROLLBOOK_NATS__XBUS_CA_CERTIFICATE", &authority.text("ca.pem"));
        let options = options.env("ROLLBOOK_NATS__XBUS_CA_KEY", &authority.text("ca.key"));
        let options = options.env("ROLLBOOK_SECURITY__ENABLED", "true").env("ROLLBOOK_NATS__TLS_HANDSHAKE_FIRST", "on");
        let node = Node::start(&more(options));
        let root = wait_for("root.token", SOON, || std::fs::read_to_string(node.data.join("root.token")).ok());
        let bus = Self { node, authority, root: root.trim().to_owned() };
        wait_for("a node that lets its operator in", SOON, || bus.try_operator());
        bus
    }

    /// Where the door is behind TLS, for a client with this configuration.
    pub(super) fn door(&self, client: Arc<ClientConfig>) -> SocketAddr {
        tunnel(address(&self.node), client)
    }

    /// A request to REST with the root token: status and body.
    pub(super) fn rest(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = self.authority.try_connect(self.node.web, None).expect("TLS");
        let request = format!(
            "{method} /api/xbus/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.root,
            body.len()
        );
        let answer = exchange(&mut stream, &request).expect("an answer");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    /// A client without a certificate.
    pub(super) fn anonymous(&self) -> Client {
        Client::connect(self.door(self.authority.client(None)), "").unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_operator(&self) -> Option<Client> {
        let token = format!(",\"auth_token\":\"{}\"", self.root);
        Client::connect(self.door(self.authority.client(None)), &token).ok()
    }

    /// A client with the root token.
    pub(super) fn operator(&self) -> Client {
        self.try_operator().expect("a client with the root token")
    }

    /// Connects with a certificate.
    ///
    /// # Errors
    /// What the node said last, or that it closed.
    pub(super) fn connect(&self, certificate: &str, key: &KeyPair) -> Result<Client, String> {
        Client::connect(self.door(self.authority.client_with(certificate, &key.serialize_pem())), "")
    }

    /// An account that registers, is accepted, and whose actors are enabled: its client, its id, and those of its actors.
    pub(super) fn account(&self, kind: &str, name: &str, actors: &[(&str, &str)]) -> Account {
        let (key, wanted) = registration(kind, name, actors);
        let mut anonymous = self.anonymous();
        let pending = anonymous.call("registration.register", &wanted);
        assert_eq!(pending["registration_status"], "pending", "{pending}");
        let mut operator = self.operator();
        let id = text(&pending["id"]);
        let accept = json!({ "account": { "id": id, "status": "enabled" } });
        let accepted = operator.call("control.account.update", &accept);
        assert_eq!(accepted["account"]["status"], "enabled", "{accepted}");
        let enabled: Vec<Value> = pending["actor_list"].as_array().into_iter().flatten().map(enable).collect();
        let enabled = operator.call("control.actor.update", &json!({ "actor_list": enabled }));
        assert_eq!(enabled["status"], "success", "{enabled}");
        let told = anonymous.call("registration.register", &wanted);
        assert_eq!(told["registration_status"], "accepted", "{told}");
        let certificate = text(&told["signed_certificate"]);
        let mut client = self.connect(&certificate, &key).unwrap_or_else(|error| panic!("{error}"));
        let mut listed: Vec<&Value> = told["actor_list"].as_array().into_iter().flatten().collect();
        listed.sort_by_key(|actor| actor["name"].as_str());
        let ids: Vec<String> = listed.into_iter().map(|actor| text(&actor["id"])).collect();
        // What an operator decided reaches all clients a moment later.
        for actor in &ids {
            wait_for("the rights of an enabled actor", SOON, || {
                let log = format!("PUB xbus.default.director.log.{actor} 0\r\n");
                client.refusal(&log).is_empty().then_some(())
            });
        }
        Account { client, id, actors: ids, key, certificate, wanted }
    }
}

fn enable(actor: &Value) -> Value {
    json!({ "id": actor["id"], "status": "enabled" })
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// An account that is connected.
pub(super) struct Account {
    pub(super) client: Client,
    pub(super) id: String,
    /// In the order of their names.
    pub(super) actors: Vec<String>,
    pub(super) key: KeyPair,
    pub(super) certificate: String,
    /// What the account registers.
    pub(super) wanted: Value,
}

/// A certificate request for this common name.
pub(super) fn request(name: &str, key: &KeyPair) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serialize_request(key).expect("a request").pem().expect("PEM")
}

/// What an account registers: its key and the body.
pub(super) fn registration(kind: &str, name: &str, actors: &[(&str, &str)]) -> (KeyPair, Value) {
    let key = KeyPair::generate().expect("a key");
    let actors: Vec<Value> =
        actors.iter().map(|(name, kind)| json!({ "name": name, "kind": kind, "roles": ["all"] })).collect();
    let body = json!({ "name": name, "type": kind, "csr": request(name, &key), "actor_list": actors });
    (key, body)
}

/// A client of Xbus.
pub(super) struct Client {
    nats: Nats,
    /// Its own, so that no answer to another client comes here.
    inbox: String,
}

static INBOXES: AtomicU64 = AtomicU64::new(0);

impl Client {
    /// Connects through a tunnel. `more` are members of the CONNECT.
    ///
    /// # Errors
    /// What the node said last, or that it closed.
    pub(super) fn connect(door: SocketAddr, more: &str) -> Result<Self, String> {
        let mut nats = Nats::try_greeted(door).ok_or("closed before the first line")?;
        nats.send(&format!("CONNECT {{\"verbose\":false,\"name\":\"@3.0\",\"headers\":true{more}}}\r\nPING\r\n"));
        match nats.try_line() {
            Some(line) if line == "PONG" => {
                let inbox = format!("{INBOX}{}", INBOXES.fetch_add(1, Ordering::Relaxed));
                Ok(Self { nats, inbox })
            }
            Some(line) => Err(line),
            None => Err("closed".to_owned()),
        }
    }

    /// Calls with JSON, and the answer.
    pub(super) fn call(&mut self, subject: &str, body: &Value) -> Value {
        let inbox = self.inbox.clone();
        self.call_at(&inbox, subject, body)
    }

    /// The same with an inbox of the caller's choice.
    pub(super) fn call_at(&mut self, inbox: &str, subject: &str, body: &Value) -> Value {
        self.nats.send(&format!("SUB {inbox} answer\r\n"));
        self.nats.publish(&format!("xbus.default.{subject}.json"), inbox, "", &body.to_string());
        let answer = self.nats.message();
        self.nats.send("UNSUB answer\r\n");
        serde_json::from_str(&answer.payload).unwrap_or_else(|error| panic!("{answer:?}: {error}"))
    }

    /// Calls with JSON, and all messages of the answer.
    pub(super) fn stream(&mut self, subject: &str, body: &Value) -> Vec<Value> {
        let inbox = self.inbox.clone();
        self.nats.send(&format!("SUB {inbox} answer\r\n"));
        self.nats.publish(&format!("xbus.default.{subject}.json"), &inbox, "", &body.to_string());
        let mut messages = Vec::new();
        loop {
            let message: Value = serde_json::from_str(&self.nats.message().payload).expect("JSON");
            if message["__error__"]["type"] == "EOS" {
                assert_eq!(message["__error__"]["msgCount"], messages.len(), "the number of messages");
                self.nats.send("UNSUB answer\r\n");
                return messages;
            }
            assert_eq!(message["status"], "success", "{subject}: {message}");
            messages.push(message);
        }
    }

    /// Hears of a subject from now on.
    pub(super) fn hear(&mut self, subject: &str) {
        self.nats.send(&format!("SUB {subject} heard\r\n"));
        self.nats.flush();
    }

    /// The next message of a subject that this client hears of: its subject and its bytes as text.
    pub(super) fn heard(&mut self) -> (String, String) {
        let message = self.nats.message();
        (message.subject, String::from_utf8_lossy(&message.bytes).into_owned())
    }

    /// What the node says to an operation: its error, or nothing.
    pub(super) fn refusal(&mut self, operation: &str) -> String {
        self.nats.send(&format!("{operation}\r\nPING\r\n"));
        let line = self.nats.line();
        if line == "PONG" {
            return String::new();
        }
        assert_eq!(self.nats.line(), "PONG", "the connection stays");
        line
    }

    /// The next line; `None` when the node has closed.
    pub(super) fn line(&mut self) -> Option<String> {
        self.nats.try_line()
    }
}
