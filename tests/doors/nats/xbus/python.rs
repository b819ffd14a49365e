//! python-xbus sends envelopes along a pipeline, at one node and at three.

use std::process::Command;

use crate::doors::nats::client::address;
use crate::harness::cluster::Cluster;
use crate::harness::examples::clients;
use crate::harness::node::{Node, Options, run_command};
use crate::harness::tls::Authority;
use crate::harness::xbus::Program;
use crate::harness::{SOON, ms, wait_for};

/// Options of a node of which python-xbus knows the address as `localhost`.
fn options(authority: &Authority) -> Options {
    let options = Options::new().arg("--nats").arg("127.0.0.1:0");
    let options = options.arg("--tls-certificate").arg(&authority.text("server.pem"));
    let options = options.arg("--tls-key").arg(&authority.text("server.key"));
    let options = options.env("ROLLBOOK_NATS__XBUS_CA_CERTIFICATE", &authority.text("ca.pem"));
    let options = options.env("ROLLBOOK_NATS__XBUS_CA_KEY", &authority.text("ca.key"));
    options.env("ROLLBOOK_SECURITY__ENABLED", "true").env("ROLLBOOK_NATS__TLS_HANDSHAKE_FIRST", "off")
}

fn root(node: &Node) -> String {
    let token = wait_for("root.token", SOON, || std::fs::read_to_string(node.data.join("root.token")).ok());
    token.trim().to_owned()
}

/// Sends so many envelopes of so many bytes; emitter, worker and consumer are at nodes of their own.
fn run(nodes: &[&Node], authority: &Authority, root: &str, (count, bytes): (usize, usize)) {
    let Some(clients) = clients() else { return };
    let (program, files) = (Program::new(), tempfile::tempdir().expect("a directory"));
    std::fs::write(files.path().join("flow.key"), program.key()).expect("write");
    std::fs::write(files.path().join("flow.csr"), program.request("flow")).expect("write");
    let urls: Vec<String> = nodes.iter().map(|node| format!("nats://localhost:{}", address(node).port())).collect();
    let mut python = Command::new(clients.python());
    python.arg(clients.script("xbus_flow.py")).arg(urls.join(",")).arg(authority.path("ca.pem")).arg(files.path());
    python.arg(root).arg(count.to_string()).arg(bytes.to_string());
    let exit = run_command(python, b"", SOON * 12);
    assert_eq!(exit.code, Some(0), "{}{}", exit.stdout, exit.stderr);
    assert!(exit.stdout.contains(&format!("\"ok\": true, \"consumed\": {count}")), "{}", exit.stdout);
}

#[test]
fn python_xbus_emits_works_and_consumes_at_one_node() {
    let authority = Authority::new(&[]);
    let node = Node::start(&options(&authority));
    let root = root(&node);
    std::thread::sleep(ms(1000));
    run(&[&node], &authority, &root, (50, 1024));
}

#[test]
fn python_xbus_retrieves_an_envelope_of_several_fragments() {
    let authority = Authority::new(&[]);
    let node = Node::start(&options(&authority));
    let root = root(&node);
    std::thread::sleep(ms(1000));
    run(&[&node], &authority, &root, (2, 3_000_000));
}

#[test]
fn python_xbus_emits_works_and_consumes_at_three_nodes() {
    let authority = Authority::new(&[]);
    let cluster = Cluster::start_with(options(&authority));
    let nodes: Vec<&Node> = (1..=3).map(|id| cluster.node(id)).collect();
    let having = |node: &&Node| std::fs::read_to_string(node.data.join("root.token")).ok();
    let root = wait_for("root.token", SOON, || nodes.iter().find_map(having)).trim().to_owned();
    std::thread::sleep(ms(1000));
    run(&nodes, &authority, &root, (20, 1024));
}
