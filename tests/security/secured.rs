//! Nodes whose clients need credentials, and what an operator does with them.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::bus::BusClient;
use crate::harness::cluster::Cluster;
use crate::harness::http::{ANSWER, Http, Response};
use crate::harness::node::{Node, Options, target};
use crate::harness::socket::Socket;
use crate::harness::sse::Sse;
use crate::harness::{SOON, wait_for};

/// Options of a node whose local clients need credentials too.
pub(super) fn options() -> Options {
    Options::new().env("ROLLBOOK_SECURITY__ENABLED", "true").arg("--nats").arg("127.0.0.1:0")
}

/// The token that the first start of a cluster has written there.
pub(super) fn root_token(data: &Path) -> Option<String> {
    std::fs::read_to_string(data.join("root.token")).ok().map(|text| text.trim().to_owned())
}

/// The header of a token.
pub(super) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// What an operator with the root token does at one node.
pub(super) struct Operator {
    pub(super) web: SocketAddr,
    pub(super) token: String,
}

impl Operator {
    pub(super) fn at(web: SocketAddr, token: &str) -> Self {
        let operator = Self { web, token: token.to_owned() };
        wait_for("a node that knows the root token", SOON, || {
            (operator.ask("GET", "/api/security/self", "").status == 200).then_some(())
        });
        operator
    }

    pub(super) fn ask(&self, method: &str, path: &str, body: &str) -> Response {
        rest(self.web, Some(&self.token), (method, path, body))
    }

    /// A request that must succeed.
    pub(super) fn done(&self, method: &str, path: &str, body: &Value) -> Response {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.ask(method, path, &text);
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
        answer
    }

    /// Sets the rights of a principal.
    pub(super) fn allow(&self, principal: &str, rights: &[&str]) {
        self.done("PUT", &format!("/api/security/principals/{principal}"), &json!({ "rights": rights }));
    }

    /// Makes a principal with these rights. Its token, and the id of the token.
    pub(super) fn principal(&self, principal: &str, rights: &[&str]) -> (String, String) {
        self.allow(principal, rights);
        self.token(principal, "never")
    }

    /// Makes a token: itself and its id.
    pub(super) fn token(&self, principal: &str, expires_in: &str) -> (String, String) {
        let path = format!("/api/security/principals/{principal}/tokens");
        let made = self.done("POST", &path, &json!({ "expires_in": expires_in })).json();
        let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("{name} is missing: {made}")).to_owned();
        (text("token"), text("id"))
    }

    pub(super) fn revoke(&self, id: &str) {
        self.done("DELETE", &format!("/api/security/credentials/{id}"), &Value::Null);
    }

    /// Events of the audit, newest first.
    pub(super) fn audit(&self, query: &str) -> Vec<Value> {
        let answer = self.done("GET", &format!("/api/audit?limit=1000{query}"), &Value::Null).json();
        answer["items"].as_array().cloned().unwrap_or_default()
    }
}

/// One node and its operator.
pub(super) struct Secured {
    pub(super) node: Node,
    pub(super) root: Operator,
}

impl Secured {
    pub(super) fn start() -> Self {
        Self::start_with(&options())
    }

    pub(super) fn start_with(options: &Options) -> Self {
        let node = Node::start(options);
        let token = wait_for("root.token", SOON, || root_token(&node.data));
        let root = Operator::at(node.web, &token);
        Self { node, root }
    }
}

impl Deref for Secured {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

/// Three nodes whose clients need credentials, and an operator at each.
pub(super) fn cluster() -> (Cluster, Vec<Operator>) {
    let cluster = Cluster::start_with(options());
    let token = wait_for("root.token", SOON, || (1..=3).find_map(|id| root_token(&cluster.data(id))));
    let operators = (1..=3).map(|id| Operator::at(cluster.node(id).web, &token)).collect();
    (cluster, operators)
}

/// One request to the web listener.
pub(super) fn rest(web: SocketAddr, token: Option<&str>, (method, path, body): (&str, &str, &str)) -> Response {
    let header = token.map(bearer);
    let mut headers = vec![("Content-Type", "application/json")];
    headers.extend(header.iter().map(|header| ("Authorization", header.as_str())));
    Http::connect(web).request(method, path, &headers, body.as_bytes())
}

/// One request to the event log.
pub(super) fn log(log: SocketAddr, token: Option<&str>, (method, path, body): (&str, &str, &str)) -> Response {
    rest(log, token, (method, path, body))
}

/// Publishes one event to the event log.
pub(super) fn publish(node: &Node, token: Option<&str>, subject: &str) -> Response {
    let body = json!({ "subject": subject, "payload": 1 }).to_string();
    log(node.log, token, ("POST", "/", &body))
}

/// Opens a stream, or gives the head of what the node answers instead.
pub(super) fn subscribe(node: &Node, token: Option<&str>, query: &[(&str, &str)]) -> Sse {
    let header = token.map(bearer);
    let headers: Vec<_> = header.iter().map(|header| ("Authorization", header.as_str())).collect();
    Sse::try_open(node.log, &target(query), &headers, ANSWER).unwrap_or_else(|error| panic!("no answer: {error}"))
}

/// A Socket.IO client with a token.
pub(super) fn connect(web: SocketAddr, token: Option<&str>) -> Result<BusClient, String> {
    BusClient::try_connect(web, &token.map_or_else(|| json!({}), |token| json!({ "token": token })))
}

/// A client of the door `websocket` that is registered as a consumer.
pub(super) fn consumer(web: SocketAddr, token: &str) -> Socket {
    let client = Socket::try_with(web, Some(token)).unwrap_or_else(|code| panic!("no upgrade: {code}"));
    register(&client, web, Some(token));
    client
}

/// Registers a client as a consumer by the name of its principal, which needs no right.
pub(super) fn register(client: &Socket, web: SocketAddr, token: Option<&str>) {
    let own = rest(web, token, ("GET", "/api/security/self", "")).json();
    let name = own["principal"].as_str().and_then(|principal| principal.split_once(':'));
    let name = name.unwrap_or_else(|| panic!("no name: {own}")).1;
    client.send(&json!({ "name": name, "version": "1" }));
    client.next("registered");
}

/// A token that has the right shape and was never made.
pub(super) fn forged() -> String {
    format!("rb1_{}_{}", "0aZ".repeat(4), "9".repeat(43))
}

/// The half of a token that is secret.
pub(super) fn secret_of(token: &str) -> &str {
    token.rsplit('_').next().unwrap_or_default()
}
