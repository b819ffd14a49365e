//! Rights on accounts and pipelines of Xbus, and what changes of them leave in the audit.

use serde_json::{Value, json};

use super::secured::{Secured, rest};
use crate::harness::http::Response;
use crate::harness::xbus::Program;
use crate::harness::{SOON, wait_for};

fn register(secured: &Secured, token: &str, name: &str, program: &Program) -> Response {
    let body = json!({ "name": name, "type": "actor", "csr": program.request(name) }).to_string();
    rest(secured.web, Some(token), ("POST", "/api/xbus/accounts", &body))
}

fn account(secured: &Secured, name: &str, program: &Program) -> Value {
    let root = secured.root.token.as_str();
    wait_for("an account", SOON, || {
        let answer = register(secured, root, name, program);
        (answer.status == 200).then(|| answer.json())
    })
}

#[test]
fn an_account_by_its_id_needs_the_right_to_its_name() {
    let secured = Secured::start();
    let id = account(&secured, "shop", &Program::new())["id"].as_str().unwrap_or_default().to_owned();
    let rights = [
        "admin:read xbus/>",
        "admin:write xbus/>",
        "deny admin:read xbus/accounts/shop",
        "deny admin:write xbus/accounts/shop",
    ];
    let (token, _) = secured.root.principal("user:most", &rights);
    for (method, path) in [("GET", ""), ("POST", "/disable"), ("POST", "/api-key"), ("DELETE", "")] {
        for named in ["shop", id.as_str()] {
            let answer = rest(secured.web, Some(&token), (method, &format!("/api/xbus/accounts/{named}{path}"), ""));
            assert_eq!(answer.status, 403, "{method} {named}{path}: {}", answer.text());
        }
    }
}

#[test]
fn nobody_accepts_an_account_whose_principal_may_more_than_itself() {
    let secured = Secured::start();
    let program = Program::new();
    account(&secured, "shop", &program);
    secured.root.allow("actor:shop", &["publish secret.>"]);
    let (token, _) = secured.root.principal("user:some", &["admin:write xbus/>"]);
    let body = json!({ "certificate": program.certificate("shop") }).to_string();
    let accept = || rest(secured.web, Some(&token), ("POST", "/api/xbus/accounts/shop/accept", &body));
    let answer = accept();
    assert_eq!(answer.status, 403, "{}", answer.text());
    secured.root.allow("user:some", &["admin:write xbus/>", "publish secret.>"]);
    wait_for("the right", SOON, || (accept().status == 200).then_some(()));
}

#[test]
fn a_right_to_one_pipeline_is_none_to_another() {
    let secured = Secured::start();
    account(&secured, "shop", &Program::new());
    let (token, _) = secured.root.principal("user:ann", &["pipeline orders", "admin:read xbus/pipelines/orders"]);
    let save =
        |name: &str| rest(secured.web, Some(&token), ("PUT", &format!("/api/xbus/pipelines/{name}/1"), "nodes: []"));
    assert_eq!((save("orders").status, save("other").status), (200, 403));
    let get = |path: &str| rest(secured.web, Some(&token), ("GET", path, "")).status;
    assert_eq!((get("/api/xbus/pipelines/orders/1"), get("/api/xbus/pipelines")), (200, 403));
}

#[test]
fn changes_of_xbus_are_in_the_audit() {
    let secured = Secured::start();
    let (root, program) = (&secured.root, Program::new());
    let id = account(&secured, "shop", &program)["id"].clone();
    root.done("POST", "/api/xbus/accounts/shop/accept", &json!({ "certificate": program.certificate("shop") }));
    root.done("POST", "/api/xbus/accounts/shop/disable", &Value::Null);
    root.done("PUT", "/api/xbus/actors/shop.a", &json!({ "account": "shop", "kind": "worker" }));
    let saved = root.ask("PUT", "/api/xbus/pipelines/orders/1", "nodes: []");
    assert_eq!(saved.status, 200, "{}", saved.text());
    root.done("DELETE", "/api/xbus/accounts/shop", &Value::Null);
    let items = root.audit("&what=xbus");
    for (what, target) in [
        ("account_register", json!("xbus/accounts")),
        ("account_accept", id.clone()),
        ("account_enable", id.clone()),
        ("actor_set", json!("shop.a")),
        ("pipeline_save", json!("orders/1")),
        ("account_delete", id),
    ] {
        let subject = format!("_audit.xbus.{what}");
        let of = |item: &&Value| item["subject"] == *subject && item["payload"]["outcome"] == "done";
        let line = items.iter().find(of).unwrap_or_else(|| panic!("{what}: {items:?}"));
        let payload = &line["payload"];
        assert_eq!((&payload["principal"], &payload["target"]), (&json!("user:root"), &target), "{line}");
    }
}
