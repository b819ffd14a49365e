//! Rights at the door for processes.

use std::process::{Child, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::secured::{Secured, bearer, options};
use crate::doors::hms::builds::archive;
use crate::doors::hms::client::{Hms, address, op};
use crate::harness::http::Http;
use crate::harness::node::{rollbook, run_command};
use crate::harness::sse::Sse;
use crate::harness::{SOON, ms, wait_for};

fn known(hms: &mut Hms, kind: &str, id: &str, token: Option<&str>) -> Result<Value, String> {
    let options = json!({"type": kind, "id": id, "version": "1", "protocol": 1, "token": token, "default": true});
    hms.ask(op::HANDSHAKE, "", &options)
}

#[test]
fn rights_decide_what_a_client_sees_and_does_and_who_is_a_dock() {
    let secured = Secured::start_with(&options().arg("--hms").arg("127.0.0.1:0"));
    let node = &secured.node;
    let (operator, _) = secured.root.principal("user:operator", &["process >"]);
    let (limited, _) = secured.root.principal("user:limited", &["process d1/app1"]);
    let (dock_token, _) = secured.root.principal("dock:d1", &[]);
    let nobody = known(&mut Hms::raw(address(node)), "client", "", None).expect_err("no credential");
    assert!(nobody.contains("a credential is needed"), "{nobody}");
    let mut wrong = Hms::raw(address(node));
    assert!(known(&mut wrong, "dock", "d2", Some(&dock_token)).is_err(), "a dock has its own id alone");
    let mut dock = Hms::raw(address(node));
    known(&mut dock, "dock", "d1", Some(&dock_token)).expect("a dock");
    let (id, _) = dock.asked();
    dock.answer(id, b"");
    let mut all = Hms::raw(address(node));
    known(&mut all, "client", "", Some(&operator)).expect("a client");
    all.ask(op::ADD, "app1", &json!({})).expect("may");
    all.ask(op::ADD, "app2", &json!({})).expect("may");
    let mut one = Hms::raw(address(node));
    known(&mut one, "client", "", Some(&limited)).expect("a client");
    let refused = one.do_(op::START, "app2").expect_err("may not");
    assert!(refused.contains("may not process all/app2"), "{refused}");
    one.do_(op::SUBSCRIBE, "*").expect("follows what it may see");
    all.do_(op::SUBSCRIBE, "*").expect("follows all");
    dock.tell(op::STDOUT, "app2@d1", b"hidden");
    dock.tell(op::STDOUT, "app1@d1", b"seen");
    assert_eq!(one.heard().text(), "seen");
    assert_eq!(all.heard().text(), "hidden");
    let number = one.request(op::PS, "", b"");
    let (id, _) = dock.asked();
    dock.answer(id, br#"{"list":[{"id":"app1","command":[]},{"id":"app2","command":[]}]}"#);
    let ps: Value = serde_json::from_slice(&one.answered(number).expect("an answer")).expect("JSON");
    assert_eq!(ps, json!([{"id": "d1", "list": [{"id": "app1", "command": []}]}]));
}

/// The placement of a given definition decides where processes end, so a right to one dock is not enough.
#[test]
fn whoever_may_do_things_on_one_dock_syncs_no_definition_of_their_own() {
    let secured = Secured::start_with(&options().arg("--hms").arg("127.0.0.1:0"));
    let (operator, _) = secured.root.principal("user:operator", &["process >"]);
    let (limited, _) = secured.root.principal("user:limited", &["process d1/app1"]);
    let mut all = Hms::raw(address(&secured.node));
    known(&mut all, "client", "", Some(&operator)).expect("a client");
    all.ask(op::ADD, "app1", &json!({})).expect("may");
    let mut one = Hms::raw(address(&secured.node));
    let options = json!({"type": "client", "version": "1", "protocol": 1, "token": limited, "route": "d1"});
    one.ask(op::HANDSHAKE, "", &options).expect("a client");
    one.do_(op::SYNC, "app1").expect("the definition as it is, on this dock");
    let refused = one.ask(op::SYNC, "app1", &json!({"id": "app1", "docks": ["d2"]})).expect_err("may not");
    assert!(refused.contains("may not process all/app1"), "{refused}");
}

#[test]
fn output_is_followed_over_rest_as_long_as_the_token_counts() {
    let secured = Secured::start_with(&options().arg("--hms").arg("127.0.0.1:0"));
    secured.root.done("PUT", "/api/definitions/app1", &json!({"start": "x"}));
    let (token, id) = secured.root.principal("user:reader", &["process all/app1"]);
    let bearer = bearer(&token);
    let mut logs = Sse::open(secured.node.web, "/api/definitions/app1/logs", &[("authorization", &bearer)]);
    secured.root.revoke(&id);
    logs.end(SOON);
}

/// A build runs a command on the node, which only those nodes allow whose door for processes is open.
#[test]
fn a_node_whose_door_for_processes_is_closed_runs_no_builds() {
    let secured = Secured::start_with(&options());
    secured.root.done("PUT", "/api/definitions/app1", &json!({"build": "touch made"}));
    let mut http = Http::connect(secured.node.web);
    let token = bearer(&secured.root.token);
    let body = archive(&[("a", b'0', "", b"a")]);
    let refused = http.request("POST", "/api/definitions/app1/builds", &[("authorization", &token)], &body);
    assert!(refused.status == 403 && refused.text().contains("hms.listen"), "{} {}", refused.status, refused.text());
    secured.root.done("PUT", "/api/definitions/app1", &json!({"start": "x"}));
    secured.root.done("DELETE", "/api/definitions/app1", &Value::Null);
}

#[test]
fn a_dock_of_rollbook_shows_its_token_over_tls_alone() {
    let folder = TempDir::new().expect("a folder");
    let certs = folder.path().join("certs");
    let mut made = rollbook();
    made.args(["cert", "dev", "--dir"]).arg(&certs);
    assert_eq!(run_command(made, b"", SOON).code, Some(0));
    let options = options()
        .arg("--hms")
        .arg("127.0.0.1:0")
        .env("ROLLBOOK_TLS__CERTIFICATE", certs.join("server.pem").to_str().expect("text"))
        .env("ROLLBOOK_TLS__KEY", certs.join("server.key").to_str().expect("text"))
        .env("ROLLBOOK_WEB__TLS", "off")
        .env("ROLLBOOK_SSE__TLS", "off");
    let secured = Secured::start_with(&options);
    let (token, _) = secured.root.principal("dock:eu-1", &[]);
    let file = folder.path().join("dock.token");
    std::fs::write(&file, token).expect("a file");
    let node = address(&secured.node).to_string();
    let dock = |id: &str, more: &[&str]| {
        let mut command = rollbook();
        command.args(["dock", "--hms", &node, "--id", id, "--data"]).arg(folder.path().join(id)).args(more);
        command.arg("--token-file").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ended(command.spawn().expect("a dock"))
    };
    let ca = certs.join("ca.pem");
    let docks = || secured.root.ask("GET", "/api/docks", "").json()["items"].clone();
    let _other = dock("eu-2", &["--ca", ca.to_str().expect("text")]);
    let _itself = dock("eu-1", &["--ca", ca.to_str().expect("text")]);
    let found = wait_for("the dock", SOON, || docks().as_array()?.first().cloned());
    assert_eq!((&found["id"], &found["principal"]), (&json!("eu-1"), &json!("dock:eu-1")), "{found}");
    std::thread::sleep(ms(500));
    assert_eq!(docks().as_array().map(Vec::len), Some(1), "the token is that of another dock");
    let mut far = rollbook();
    far.args(["dock", "--hms", "192.0.2.1:10002", "--id", "x", "--data"]).arg(folder.path().join("x"));
    let refused = run_command(
        {
            far.arg("--token-file").arg(&file);
            far
        },
        b"",
        SOON,
    );
    assert!(refused.code == Some(2) && refused.stderr.contains("in clear"), "{refused:?}");
}

/// A program that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
