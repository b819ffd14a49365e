//! The first token of a cluster, listeners that are open, and what says that they are.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use super::secured::{Operator, Secured, options, publish, rest, root_token};
use crate::harness::cluster::Cluster;
use crate::harness::node::{Node, Options};
use crate::harness::{SOON, wait_for};

const SELF: (&str, &str, &str) = ("GET", "/api/security/self", "");

fn mode(data: &Path) -> u32 {
    std::fs::metadata(data.join("root.token")).expect("root.token").permissions().mode() & 0o777
}

/// Lines about the root token on standard output.
fn lines(node: &Node) -> Vec<String> {
    node.stdout().lines().filter(|line| line.contains("root token")).map(str::to_owned).collect()
}

#[test]
fn a_cluster_writes_one_root_token_for_its_owner_alone_and_says_so_in_one_line() {
    let mut cluster = Cluster::start_with(options());
    let having = wait_for("root.token", SOON, || (1..=3).find(|id| root_token(&cluster.data(*id)).is_some()));
    let token = root_token(&cluster.data(having)).expect("a token");
    assert_eq!(mode(&cluster.data(having)), 0o600);
    for id in 1..=3 {
        let data = cluster.data(id);
        wait_for("a start that has ended its attempt", SOON, || (!data.join("root.token.new").exists()).then_some(()));
        assert_eq!(root_token(&data).is_some(), id == having, "node {id}");
        Operator::at(cluster.node(id).web, &token);
    }
    let said: Vec<String> = (1..=3).flat_map(|id| lines(cluster.node(id))).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(&cluster.data(having).join("root.token").display().to_string()), "{said:?}");
    assert!(!said[0].contains(&token), "the line names the file, not the token");
    cluster.terminate(having);
    cluster.up(&[having]);
    assert_eq!(root_token(&cluster.data(having)), Some(token), "a start that is not the first makes no token");
    assert_eq!(lines(cluster.node(having)), Vec::<String>::new());
}

#[test]
fn a_lost_root_token_is_replaced_when_the_operator_asks_for_that() {
    let mut secured = Secured::start();
    let first = secured.root.token.clone();
    secured.node.restart_with(&options().arg("--new-root-token"));
    let second = wait_for("another token", SOON, || root_token(&secured.node.data).filter(|token| *token != first));
    assert_eq!((mode(&secured.node.data), lines(&secured.node).len()), (0o600, 1));
    let root = Operator::at(secured.node.web, &second);
    assert_eq!(rest(root.web, Some(&first), SELF).status, 200, "the first token counts until it is revoked");
    let credentials = root.done("GET", "/api/security/principals/user:root/credentials", &json!(null)).json();
    assert_eq!(credentials["items"].as_array().map(Vec::len), Some(2), "{credentials}");
    assert!(root.audit("&what=security.bootstrap").len() == 2);
}

#[test]
fn loopback_without_configuration_is_open_and_knows_credentials_all_the_same() {
    let node = Node::start(&Options::new());
    let open = rest(node.web, None, SELF).json();
    assert_eq!((&open["principal"], &open["open"]), (&json!("anonymous"), &json!(true)), "{open}");
    publish(&node, None, "app.x").published();
    let token = wait_for("root.token", SOON, || root_token(&node.data));
    let root = Operator::at(node.web, &token);
    let own = root.ask("GET", SELF.1, "").json();
    assert_eq!((&own["principal"], &own["open"]), (&json!("user:root"), &json!(false)), "{own}");
    let (limited, _) = root.principal("user:ann", &["publish other.>"]);
    assert_eq!(publish(&node, Some(&limited), "app.x").status, 403, "who shows a credential is who it is of");
    assert_eq!(publish(&node, Some("rb1_x"), "app.x").status, 401, "a wrong credential is not nothing");
}

#[test]
fn with_security_enabled_anonymous_has_what_it_was_given() {
    let secured = Secured::start();
    assert_eq!(publish(&secured, None, "app.x").status, 401);
    secured.root.allow("anonymous", &["publish app.>"]);
    wait_for("the right", SOON, || (publish(&secured, None, "app.x").status == 202).then_some(()));
    assert_eq!(publish(&secured, None, "other.x").status, 401, "more needs a credential");
    let refused = secured.root.ask("PUT", "/api/security/principals/anonymous", r#"{"roles":["root"]}"#);
    assert_eq!(refused.status, 409, "{}", refused.text());
}

#[test]
fn the_last_root_cannot_be_taken_away() {
    let secured = Secured::start();
    let path = "/api/security/principals/user:root";
    for (method, body) in [("DELETE", ""), ("PUT", r#"{"roles":[]}"#), ("PUT", r#"{"roles":["root"],"disabled":true}"#)]
    {
        let refused = secured.root.ask(method, path, body);
        assert_eq!(refused.status, 409, "{method} {body}: {}", refused.text());
    }
    let credentials = secured.root.ask("GET", &format!("{path}/credentials"), "").json();
    let id = credentials["items"][0]["id"].as_str().expect("an id").to_owned();
    let refused = secured.root.ask("DELETE", &format!("/api/security/credentials/{id}"), "");
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_eq!(secured.root.ask("GET", SELF.1, "").status, 200);
}

#[test]
fn insecure_is_said_in_the_start_lines_in_the_view_of_the_cluster_and_in_a_metric() {
    let insecure = Node::start(&Options::new().arg("--insecure"));
    assert!(insecure.stdout().contains("warning: --insecure"), "{}", insecure.stdout());
    assert_eq!(insecure.web("GET", "/api/cluster", "").json()["insecure"], true);
    assert_eq!(insecure.metric("rollbook_insecure"), 1);
    let secure = Node::start(&Options::new());
    assert!(!secure.stdout().contains("--insecure"), "{}", secure.stdout());
    assert_eq!(secure.web("GET", "/api/cluster", "").json()["insecure"], false);
    assert_eq!(secure.metric("rollbook_insecure"), 0);
}

#[test]
fn a_token_says_how_long_it_counts() {
    let secured = Secured::start();
    secured.root.allow("user:ann", &[]);
    for days in ["90d", "2160h"] {
        let path = "/api/security/principals/user:ann/tokens";
        let made = secured.root.done("POST", path, &json!({ "expires_in": days })).json();
        assert!(made["expires_at"].is_string(), "{made}");
    }
}
