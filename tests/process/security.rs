//! The commands about who may do what, against a node that asks everybody for a credential.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::SOON;
use crate::harness::node::{Exit, Node, Options, rollbook, run_command};

/// A node with security, and its operator, who has the root token.
struct Office {
    node: Node,
    home: TempDir,
}

impl Office {
    fn open() -> Self {
        let node = Node::start(&Options::new().env("ROLLBOOK_SECURITY__ENABLED", "true"));
        let office = Self { node, home: tempfile::tempdir().expect("temporary directory") };
        let end = Instant::now() + SOON;
        while !office.root().exists() {
            assert!(Instant::now() < end, "no root token in {}", office.root().display());
            std::thread::yield_now();
        }
        office
    }

    fn root(&self) -> PathBuf {
        self.node.data.join("root.token")
    }

    /// A command of somebody without a token.
    fn nobody(&self, args: &[&str]) -> Command {
        let mut command = rollbook();
        command.args(args).env("XDG_CONFIG_HOME", self.home.path()).current_dir(self.home.path());
        command.args(["--log-url", &format!("http://{}", self.node.log)]);
        command.args(["--web-url", &format!("http://{}", self.node.web)]);
        command
    }

    /// A command of the operator.
    fn operator(&self, args: &[&str]) -> Command {
        let mut command = self.nobody(args);
        command.arg("--token-file").arg(self.root());
        command
    }

    fn run(&self, args: &[&str], input: &str) -> Exit {
        run_command(self.operator(args), input.as_bytes(), SOON * 2)
    }

    fn done(&self, args: &[&str]) -> String {
        self.done_with(args, "")
    }

    fn done_with(&self, args: &[&str], input: &str) -> String {
        let exit = self.run(args, input);
        assert_eq!(exit.code, Some(0), "{args:?}: {exit:#?}");
        exit.stdout
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.done(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    fn refused(&self, args: &[&str], part: &str) {
        let exit = self.run(args, "");
        assert_eq!(exit.code, Some(1), "{args:?}: {exit:#?}");
        assert!(exit.stderr.contains(part), "{part:?} is not told: {exit:#?}");
    }

    /// Publishes with that token.
    fn publish(&self, token: &str, subject: &str) -> Exit {
        let mut command = self.nobody(&["publish", subject, "1"]);
        command.env("ROLLBOOK_TOKEN", token);
        run_command(command, b"", SOON * 2)
    }
}

#[test]
fn an_operator_lets_a_service_in_and_shuts_it_out_again() {
    let office = Office::open();
    let nobody = run_command(office.nobody(&["principals", "list"]), b"", SOON);
    assert_eq!(nobody.code, Some(1), "{nobody:#?}");
    assert!(nobody.stderr.contains("rollbook login"), "{nobody:#?}");

    let (billing, create) = ("service:billing", ["tokens", "create", "service:billing", "--quiet"]);
    office.refused(&create, "create it, as with `rollbook principals set service:billing --role service`");
    let limit = ["--limit", "publishes_per_second=1000"];
    office.done(&[&["roles", "set", "writer", "--allow", "publish orders.>"][..], &limit].concat());
    office.done(&["principals", "set", billing, "--role", "writer", "--description", "pays"]);
    let made = office.run(&create, "");
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""), "{made:#?}");
    let token = made.stdout.trim();
    assert!(token.starts_with("rb1_") && made.stdout.lines().count() == 1, "{made:#?}");

    let exit = office.publish(token, "orders.created");
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    let exit = office.publish(token, "other.created");
    assert!(exit.code == Some(1) && exit.stderr.contains("may not publish other.created"), "{exit:#?}");
    office.done(&["principals", "grant", billing, "--deny", "publish orders.secret"]);
    let exit = office.publish(token, "orders.secret");
    assert_eq!(exit.code, Some(1), "{exit:#?}");

    let said = office.done(&["can", billing, "publish", "orders.created"]);
    assert!(said.contains("rule: publish orders.> (of the role writer)"), "{said}");
    let exit = office.run(&["can", billing, "publish", "orders.secret"], "");
    assert_eq!((exit.code, exit.stderr.as_str()), (Some(1), ""), "{exit:#?}");
    assert!(exit.stdout.contains("deny publish orders.secret"), "{exit:#?}");
    let who = office.done(&["who-can", "publish", "orders.created"]);
    assert!(who.contains(billing) && who.contains("user:root"), "{who}");

    let credentials = office.json(&["tokens", "list", billing]);
    let id = credentials[0]["id"].as_str().expect("an id");
    assert!(token.contains(id) && credentials.as_array().is_some_and(|all| all.len() == 1), "{credentials}");
    let exit = office.run(&["credentials", "revoke", id], "");
    assert!(exit.code == Some(2) && exit.stderr.contains("pass --yes"), "{exit:#?}");
    office.done(&["credentials", "revoke", id, "--yes"]);
    let exit = office.publish(token, "orders.created");
    assert!(exit.code == Some(1) && exit.stderr.contains("HTTP 401"), "{exit:#?}");

    let audit = office.json(&["audit", "--what", "security", "--principal", "user:root"]);
    let what: Vec<&str> =
        audit.as_array().expect("a list").iter().filter_map(|event| event["subject"].as_str()).collect();
    assert_eq!(what.last(), Some(&"_audit.security.credential_delete"), "{what:?}");
    assert!(what.contains(&"_audit.security.role_set") && what.contains(&"_audit.security.principal_set"), "{what:?}");
    let text = office.done(&["audit"]);
    let secret = token.rsplit('_').next().expect("a secret");
    assert!(text.contains("security.credential_add") && !text.contains(secret), "{text}");
    office.done(&["principals", "delete", billing, "--yes"]);
    office.refused(&["principals", "show", billing], "there is no principal service:billing");
}

#[test]
fn rights_and_roles_are_replaced_added_and_removed() {
    let office = Office::open();
    let set = ["principals", "set", "service:a", "--role", "service", "--allow", "publish a.>"];
    let row = office.json(&set);
    assert_eq!((&row["roles"], &row["rights"]), (&json!(["service"]), &json!(["publish a.>"])));
    let row = office.json(&["principals", "set", "service:a", "--role", "viewer"]);
    assert_eq!((&row["roles"], &row["rights"]), (&json!(["viewer"]), &json!(["publish a.>"])));
    let row = office.json(&["principals", "grant", "service:a", "--role", "service", "--allow", "call b:*"]);
    assert_eq!((&row["roles"], &row["rights"]), (&json!(["viewer", "service"]), &json!(["publish a.>", "call b:*"])));
    let row = office.json(&["principals", "revoke", "service:a", "--role", "viewer", "--allow", "publish a.>"]);
    assert_eq!((&row["roles"], &row["rights"]), (&json!(["service"]), &json!(["call b:*"])));
    office.refused(&["principals", "revoke", "service:a", "--allow", "call b"], "there is: call b:*");
    office.refused(&["principals", "set", "service:a", "--role", "nope"], "nope");
    let row = office.json(&["principals", "set", "service:a", "--disable"]);
    assert_eq!((&row["disabled"], &row["roles"]), (&json!(true), &json!(["service"])));

    office.done(&["roles", "set", "r", "--allow", "publish r.>", "--limit", "streams=3"]);
    office.done(&["roles", "grant", "r", "--deny", "publish r.secret"]);
    let row = office.json(&["roles", "revoke", "r", "--allow", "publish r.>"]);
    assert_eq!((&row["rights"], &row["limits"]), (&json!(["deny publish r.secret"]), &json!({ "streams": 3 })));
    office.refused(&["roles", "set", "root", "--no-rights"], "built in");
    assert!(office.done(&["roles", "list"]).contains("operator"));
    office.done(&["roles", "delete", "r", "--yes"]);
    office.refused(&["roles", "delete", "r", "--yes"], "`rollbook roles list`");
    office.refused(&["principals", "delete", "user:root", "--yes"], "last principal with the role root");
}

#[test]
fn a_user_logs_in_with_the_password_that_was_set() {
    let office = Office::open();
    let exit = office.run(&["passwords", "set", "ann"], "open:s3same\n");
    assert!(exit.code == Some(1) && exit.stderr.contains("principals set user:ann"), "{exit:#?}");
    office.done(&["principals", "set", "user:ann", "--role", "viewer"]);
    office.done_with(&["passwords", "set", "ann"], "open:s3same\n");
    let url = format!("http://{}", office.node.web);
    let mut login = rollbook();
    login.args(["login", "--password", "--user", "ann", "--url", &url, "--name", "lab"]);
    login.env("XDG_CONFIG_HOME", office.home.path());
    let exit = run_command(login, b"open:s3same\n", SOON * 2);
    assert!(exit.code == Some(0) && exit.stdout.contains("user:ann (viewer)"), "{exit:#?}");
    let kinds: Vec<Value> = office.json(&["credentials", "list", "user:ann"]).as_array().cloned().unwrap_or_default();
    let kinds: Vec<&str> = kinds.iter().filter_map(|credential| credential["kind"].as_str()).collect();
    assert!(kinds.contains(&"password") && kinds.contains(&"token"), "{kinds:?}");
}

#[test]
fn certificates_issuers_and_token_files_are_kept() {
    let office = Office::open();
    office.done(&["principals", "set", "service:a"]);
    office.done(&["cert", "dev"]);
    let added = office.json(&["certificates", "add", "service:a", "--file", "certs/ca.pem"]);
    let fingerprint = added["id"].as_str().expect("an id").to_owned();
    office.done(&["certificates", "add", "service:a", "--name", "cn:a.example.com"]);
    let listed = office.done(&["credentials", "list", "service:a"]);
    assert!(listed.contains(&fingerprint) && listed.contains("cn:a.example.com"), "{listed}");

    office.done(&["tokens", "create", "service:a", "--save", "a.token", "--expires-in", "30d"]);
    let mut with_file = office.nobody(&["can", "service:a", "publish", "x.y"]);
    with_file.args(["--token-file", "a.token"]);
    let exit = run_command(with_file, b"", SOON * 2);
    assert!(exit.code == Some(1) && exit.stdout.contains("may not"), "asking about itself: {exit:#?}");

    let issuer = ["issuers", "set", "corp", "--iss", "https://id.example.com", "--audience", "rollbook"];
    let keys = ["--algorithm", "RS256", "--jwks-url", "http://127.0.0.1:9/keys", "--map", "groups:ops=operator"];
    office.done(&[&issuer[..], &keys].concat());
    assert!(office.done(&["issuers", "list"]).contains("groups:ops=operator"));
    std::fs::write(office.home.path().join("secret"), "0123456789abcdef0123456789abcdef0123456789abcdef")
        .expect("write");
    let secret = [&issuer[..], &["--algorithm", "HS256", "--secret-file", "secret"]].concat();
    office.refused(&secret, "security.key_file");
    office.done(&["issuers", "delete", "corp", "--yes"]);
    office.refused(&["issuers", "show", "corp"], "there is no issuer corp");
}

#[test]
fn the_audit_is_followed_from_what_was_shown_on() {
    let office = Office::open();
    office.done(&["principals", "set", "user:before"]);
    let mut follow = office.operator(&["audit", "--follow", "--what", "security"]);
    let mut child = follow.stdout(Stdio::piped()).spawn().expect("start the program");
    let output = BufReader::new(child.stdout.take().expect("piped stdout"));
    let mut seen = Vec::new();
    // Ends the program, and with it the lines, when they do not come.
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        // Both ends of the wait mean the same: the program is not needed any more.
        waiting.recv_timeout(SOON * 2).ok();
        child.kill().ok();
        child.wait().ok();
    });
    for line in output.lines().map_while(Result::ok) {
        seen.push(line.clone());
        if line.contains("user:before") {
            office.done(&["principals", "set", "user:after"]);
        }
        if line.contains("user:after") {
            break;
        }
    }
    drop(done);
    watchdog.join().expect("no panic");
    let of = |name: &str| seen.iter().filter(|line| line.contains(name)).count();
    assert_eq!((of("user:before"), of("user:after")), (1, 1), "{seen:#?}");
}
