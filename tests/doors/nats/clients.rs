//! The stock clients of NATS, in their ordinary scenarios.

use std::process::Command;

use super::client::{address, options};
use crate::harness::SOON;
use crate::harness::cluster::Cluster;
use crate::harness::examples::clients;
use crate::harness::node::{Node, run_command};

/// Runs the scenarios of both clients.
fn run(urls: &[String]) {
    let Some(clients) = clients() else { return };
    let mut python = Command::new(clients.python());
    python.arg(clients.script("nats_python.py")).args(urls);
    let exit = run_command(python, b"", SOON * 6);
    assert_eq!((exit.code, exit.stdout.trim()), (Some(0), r#"{"ok": true}"#), "{}", exit.stderr);
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let exit = clients.node("nats_node.js", &urls, SOON * 6);
    assert_eq!((exit.code, exit.stdout.trim()), (Some(0), r#"{"ok":true}"#), "{}", exit.stderr);
}

#[test]
fn nats_py_and_the_npm_package_run_against_one_node() {
    let node = Node::start(&options().arg("--namespaces").arg("app"));
    run(&[format!("nats://{}", address(&node))]);
}

#[test]
fn nats_py_and_the_npm_package_run_against_three_nodes() {
    let cluster = Cluster::start_with(options().arg("--namespaces").arg("app"));
    let urls: Vec<String> = (1..=3).map(|id| format!("nats://{}", address(cluster.node(id)))).collect();
    // A queue group at two nodes prefers the members of the publisher's node, so both clients use one.
    run(&urls[..1]);
}
