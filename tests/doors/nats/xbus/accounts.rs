//! Accounts register, are accepted, and connect with the certificate that the node has signed.

use std::io::Read as _;
use std::process::Command;

use rcgen::KeyPair;
use serde_json::json;

use super::client::{Bus, Client, registration, request, text};
use crate::doors::nats::client::address;
use crate::harness::examples::clients;
use crate::harness::node::run_command;
use crate::harness::tls::Authority;
use crate::harness::{SOON, wait_for};

const VIOLATION: &str = "-ERR 'Authorization Violation'";

#[test]
fn an_account_waits_for_an_operator_and_connects_with_its_certificate() {
    let bus = Bus::start();
    let (key, wanted) = registration("actor", "shop", &[("invoices", "emitter"), ("archive", "consumer")]);
    let mut anonymous = bus.anonymous();
    let pending = anonymous.call("registration.register", &wanted);
    assert_eq!((&pending["status"], &pending["registration_status"]), (&json!("success"), &json!("pending")));
    assert_eq!(anonymous.call("registration.register", &wanted), pending, "asking again changes nothing");

    let mut operator = bus.operator();
    let listed = operator.call("control.account.list", &json!({}));
    let account = &listed["account_list"][0];
    assert_eq!(
        (&account["name"], &account["status"], &account["csr_origin"]),
        (&json!("shop"), &json!("pending"), &json!("anonymous"))
    );
    operator.call("control.account.update", &json!({ "account": { "name": "shop", "status": "enabled" } }));
    let told = anonymous.call("registration.register", &wanted);
    assert_eq!(told["registration_status"], "accepted", "{told}");
    let ca = std::fs::read_to_string(bus.authority.path("ca.pem")).expect("the CA");
    assert_eq!(told["server_ca"], json!(ca));

    let mut client = bus.connect(&text(&told["signed_certificate"]), &key).expect("a client");
    let me = client.call_at("xbus.default.client.whoami.shop.reply", "client.whoami.shop", &json!({}));
    assert_eq!((&me["account"]["id"], &me["account"]["status"]), (&pending["id"], &json!("enabled")));
    let id = text(&pending["id"]);
    let inbox = format!("_INBOX.{id}.in.x");
    let actors = client.call_at(&inbox, &format!("client.{id}.getactors"), &json!({}));
    assert_eq!(actors["actors"].as_array().map(Vec::len), Some(2), "{actors}");
    assert_eq!(actors["actors"][0]["status"], "pending");
}

#[test]
fn a_request_that_is_not_for_the_account_is_refused() {
    let bus = Bus::start();
    let mut anonymous = bus.anonymous();
    let (key, wanted) = registration("actor", "shop", &[]);
    let mut refused = |csr: String, name: &str| {
        let mut body = wanted.clone();
        body["csr"] = csr.into();
        body["name"] = name.into();
        let answer = anonymous.call("registration.register", &body);
        assert_eq!(answer["__error__"]["type"], "CLIENT", "{answer}");
        text(&answer["__error__"]["message"])
    };
    assert!(refused(request("other", &key), "shop").contains("one common name"));
    assert!(refused("nonsense".to_owned(), "shop").contains("PKCS #10"));
    assert!(refused(request("a.b", &key), "a.b").contains("the name of an account"));
    let certificate = std::fs::read_to_string(bus.authority.path("ca.pem")).expect("the CA");
    assert!(refused(certificate, "shop").contains("PKCS #10"));
}

#[test]
fn another_key_is_rejected_until_the_operator_or_the_account_asks_for_it() {
    let bus = Bus::start();
    let mut shop = bus.account("actor", "shop", &[]);
    let mut anonymous = bus.anonymous();
    let (other, stolen) = registration("actor", "shop", &[]);
    let rejected = anonymous.call("registration.register", &stolen);
    assert_eq!(rejected, json!({ "status": "error", "registration_status": "rejected" }));
    // The account itself asks: the operator accepts the new key, and the old certificate counts no more.
    let own = shop.client.call(&format!("registration.update.{}", shop.id), &stolen);
    assert_eq!(own["registration_status"], "pending", "{own}");
    let mut operator = bus.operator();
    operator.call("control.account.update", &json!({ "account": { "id": shop.id, "status": "enabled" } }));
    assert_eq!(shop.client.line().as_deref(), Some(VIOLATION));
    let told = anonymous.call("registration.register", &stolen);
    drop(bus.connect(&text(&told["signed_certificate"]), &other).expect("the new certificate counts"));
    assert_eq!(bus.connect(&shop.certificate, &shop.key).err().as_deref(), Some(VIOLATION));
    // The operator asks: anybody may register then, and nobody is let in before.
    operator.call("control.account.resetcert", &json!({ "account_id": shop.id }));
    assert_eq!(bus.connect(&text(&told["signed_certificate"]), &other).err().as_deref(), Some(VIOLATION));
    assert_eq!(anonymous.call("registration.register", &shop.wanted)["registration_status"], "pending");
}

#[test]
fn an_account_that_is_shut_out_is_disconnected_at_once() {
    let bus = Bus::start();
    let mut shop = bus.account("actor", "shop", &[]);
    let mut operator = bus.operator();
    let mut set = |status: &str| {
        let told = operator.call("control.account.update", &json!({ "account": { "id": shop.id, "status": status } }));
        assert_eq!(told["account"]["status"], status, "{told}");
    };
    set("disabled");
    assert_eq!((shop.client.line().as_deref(), shop.client.line()), (Some(VIOLATION), None));
    assert_eq!(bus.connect(&shop.certificate, &shop.key).err().as_deref(), Some(VIOLATION));
    let told = bus.anonymous().call("registration.register", &shop.wanted);
    assert_eq!(told["registration_status"], "rejected", "{told}");
    set("enabled");
    drop(wait_for("the account", SOON, || bus.connect(&shop.certificate, &shop.key).ok()));
    operator.call("control.account.delete", &json!({ "account_id": shop.id }));
    wait_for("the end of the account", SOON, || bus.connect(&shop.certificate, &shop.key).err());
}

#[test]
fn a_certificate_of_another_ca_or_out_of_its_time_ends_the_connection() {
    let bus = Bus::start();
    let other = Authority::new(&["user:alice"]);
    let tcp = std::net::TcpStream::connect(address(&bus.node)).expect("a connection");
    tcp.set_read_timeout(Some(SOON)).expect("a timeout");
    // TLS 1.3 tells the client behind its own end of the handshake.
    let closed = crate::harness::tls::secure(tcp, bus.authority.client_of(&other, "user-alice"));
    closed.and_then(|mut stream| stream.read(&mut [0; 16])).expect_err("no certificate of this CA");

    let mut shop = bus.account("actor", "shop", &[]);
    let soon = after(8);
    let mut operator = bus.operator();
    let renew = json!({ "account": { "id": shop.id, "status": "enabled" }, "expire": soon });
    let told = operator.call("control.account.update", &renew);
    assert_eq!(shop.client.line().as_deref(), Some(VIOLATION), "the certificate before counts no more");
    let certificate = text(&told["account"]["cert"]);
    let mut short = bus.connect(&certificate, &shop.key).expect("a certificate that counts for seconds");
    assert_eq!(short.line().as_deref(), Some(VIOLATION), "the certificate has ended");
    wait_for("a refusal", SOON, || bus.connect(&certificate, &shop.key).err());
}

/// A point in time in so many seconds.
fn after(seconds: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string()
}

#[test]
fn another_major_version_of_the_protocol_is_refused() {
    let bus = Bus::start();
    let error = "-ERR 'incompatible xbus protocol version'";
    let door = bus.door(bus.authority.client(None));
    let connect = |name: &str| {
        let mut nats = crate::doors::nats::client::Nats::greeted(door);
        nats.send(&format!("CONNECT {{\"verbose\":false{name}}}\r\nPING\r\n"));
        nats.try_line()
    };
    assert_eq!(connect(",\"name\":\"tool@4.0\"").as_deref(), Some(error));
    assert_eq!(connect(",\"name\":\"@3.1\"").as_deref(), Some("PONG"));
    assert_eq!(connect("").as_deref(), Some("PONG"));
    let strict = Bus::start_with(|options| options.env("ROLLBOOK_NATS__XBUS_STRICT", "true"));
    let door = strict.door(strict.authority.client(None));
    let mut nats = crate::doors::nats::client::Nats::greeted(door);
    nats.send("CONNECT {\"verbose\":false}\r\nPING\r\n");
    assert_eq!((nats.try_line().as_deref(), nats.try_line()), (Some(error), None));
}

#[test]
fn an_api_key_is_shown_once_and_names_its_account_to_a_gateway() {
    let bus = Bus::start();
    let shop = bus.account("actor", "shop", &[]);
    let mut gateway = bus.account("gateway", "web", &[]);
    let mut operator = bus.operator();
    let id = json!({ "account_id": shop.id });
    let made = operator.call("control.account.renew_apikey", &id);
    let key = text(&made["account"]["api_key"]);
    let again = operator.call("control.account.get_apikey", &id);
    assert!(text(&again["__error__"]["message"]).contains("shown once"), "{again}");
    let who = gateway.client.call(&format!("client.whoami.{key}"), &json!({}));
    assert_eq!((&who["account"]["name"], &who["account"]["api_key"]), (&json!("shop"), &json!(null)));
    let named = gateway.client.call("client.whoami.shop", &json!({}));
    assert_eq!(named["__error__"]["type"], "CLIENT", "a gateway asks by key alone: {named}");
    let chosen = json!({ "account": { "id": shop.id, "api_key": "a-key-of-the-operator" } });
    operator.call("control.account.set_apikey", &chosen);
    assert_eq!(gateway.client.call(&format!("client.whoami.{key}"), &json!({}))["__error__"]["type"], "CLIENT");
    let who = gateway.client.call("client.whoami.a-key-of-the-operator", &json!({}));
    assert_eq!(who["account"]["name"], "shop");
}

#[test]
fn python_xbus_registers_connects_and_finds_its_actors() {
    let Some(clients) = clients() else { return };
    let bus = Bus::start_with(|options| options.env("ROLLBOOK_NATS__TLS_HANDSHAKE_FIRST", "auto"));
    let key = KeyPair::generate().expect("a key");
    let files = tempfile::tempdir().expect("a directory");
    std::fs::write(files.path().join("shop.key"), key.serialize_pem()).expect("write");
    std::fs::write(files.path().join("shop.csr"), request("shop", &key)).expect("write");
    let mut python = Command::new(clients.python());
    python.arg(clients.script("xbus_accounts.py")).arg(format!("nats://localhost:{}", address(&bus.node).port()));
    python.arg(bus.authority.path("ca.pem")).arg(files.path()).arg(&bus.root);
    let exit = run_command(python, b"", SOON * 6);
    let last = exit.stdout.trim().lines().last();
    assert_eq!((exit.code, last), (Some(0), Some(r#"{"ok": true}"#)), "{}", exit.stderr);
}

#[test]
fn without_a_ca_and_accounts_nobody_is_let_in_to_register() {
    let authority = Authority::new(&[]);
    let options = authority.options().arg("--nats").arg("127.0.0.1:0").env("ROLLBOOK_SECURITY__ENABLED", "true");
    let options = options.env("ROLLBOOK_NATS__TLS_HANDSHAKE_FIRST", "on");
    let node = crate::harness::node::Node::start(&options);
    let door = crate::harness::tls::tunnel(address(&node), authority.client(None));
    assert_eq!(Client::connect(door, "").err().as_deref(), Some(VIOLATION));
}
