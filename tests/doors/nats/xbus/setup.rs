//! Accounts, actors and pipelines of a bus without security, made by REST.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::harness::node::Node;
use crate::harness::xbus::Program;
use crate::harness::{SOON, wait_for};

/// The account of all actors of a test.
const ACCOUNT: &str = "shop";

/// What was made.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// The id of the account.
    pub(super) account: String,
    /// The ids of the actors, by name.
    actors: HashMap<String, String>,
}

impl Setup {
    /// The id of an actor.
    pub(super) fn actor(&self, name: &str) -> &str {
        self.actors.get(name).unwrap_or_else(|| panic!("there is no actor {name}"))
    }
}

/// A request to REST of Xbus that must be answered well.
pub(super) fn rest(node: &Node, method: &str, path: &str, body: &str) -> Value {
    let answer = node.web(method, &format!("/api/xbus/{path}"), body);
    assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

/// An account whose actors (name, kind and role) are enabled, and pipelines (name and text) that are active.
pub(super) fn set_up(node: &Node, actors: &[(&str, &str, &str)], pipelines: &[(&str, &str)]) -> Setup {
    let program = Program::new();
    let listed: Vec<Value> =
        actors.iter().map(|(name, kind, role)| json!({ "name": name, "kind": kind, "roles": [role] })).collect();
    let body = json!({ "name": ACCOUNT, "type": "actor", "csr": program.request(ACCOUNT), "actors": listed });
    wait_for("the feature level", SOON, || {
        (node.web("POST", "/api/xbus/accounts", &body.to_string()).status == 200).then_some(())
    });
    let certificate = json!({ "certificate": program.certificate(ACCOUNT) });
    let account = rest(node, "POST", &format!("accounts/{ACCOUNT}/accept"), &certificate.to_string());
    let mut ids = HashMap::new();
    for (name, ..) in actors {
        let actor = rest(node, "POST", &format!("actors/{name}/accept"), "{}");
        ids.insert((*name).to_owned(), actor["id"].as_str().expect("an id").to_owned());
    }
    for (name, text) in pipelines {
        activate(node, name, "1", text);
    }
    Setup { account: account["id"].as_str().expect("an id").to_owned(), actors: ids }
}

/// Makes a version of a pipeline the active one.
pub(super) fn activate(node: &Node, name: &str, version: &str, text: &str) {
    let saved = rest(node, "PUT", &format!("pipelines/{name}/{version}"), text);
    assert_eq!(saved["is_valid"], true, "{saved}");
    rest(node, "POST", &format!("pipelines/{name}/{version}/status"), r#"{"status":"active"}"#);
}

/// The processes of a query, all pages.
pub(super) fn processes(node: &Node, query: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = rest(node, "GET", &format!("processes?limit=1000{query}{cursor}"), "");
        all.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}
