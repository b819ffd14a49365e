//! The real client libraries, and the examples of the documentation.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::SOON;
use crate::harness::node::{Exit, Node, Options, run_command};
use crate::readme::{blocks, readme};

/// The client libraries, when `make test` could install them.
#[derive(Clone)]
pub(crate) struct Clients(PathBuf);

/// Finds them, or says that there are none.
pub(crate) fn clients() -> Option<Clients> {
    let cache = std::env::var_os("ROLLBOOK_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache/rollbook")))?;
    let clients = cache.join("clients");
    if !clients.join("ready").exists() {
        eprintln!("skipped: the client libraries are not installed; make test does it");
        return None;
    }
    Some(Clients(clients))
}

impl Clients {
    /// A script of `tests/clients`.
    pub(crate) fn script(&self, name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
    }

    /// Where the packages are.
    pub(crate) fn modules(&self) -> PathBuf {
        self.0.join("node_modules")
    }

    /// The Python that has the packages.
    pub(crate) fn python(&self) -> PathBuf {
        self.0.join("venv/bin/python")
    }

    /// Runs a script of `tests/clients`.
    pub(crate) fn node(&self, script: &str, args: &[&str], bound: Duration) -> Exit {
        self.node_at(&self.script(script), args, bound)
    }

    /// Writes a program of README.md into a directory, for a node at that address.
    pub(crate) fn save(title: &str, directory: &Path, web: SocketAddr) -> PathBuf {
        let text = readme();
        let block = blocks(&text).into_iter().find(|block| block.language == "js" && block.text.contains(title));
        let block = block.unwrap_or_else(|| panic!("README.md has no {title}"));
        let code = block.text.replace("localhost:7440", &web.to_string());
        let path = directory.join(title);
        std::fs::write(&path, code.replace("'socket.io-client'", "'socket.io-client-4'")).expect("write");
        path
    }

    pub(crate) fn node_at(&self, script: &Path, args: &[&str], bound: Duration) -> Exit {
        let mut command = Command::new("node");
        command.arg(script).args(args);
        // The documentation says `socket.io-client`; here each version has a name of its own.
        command.env("NODE_PATH", self.modules());
        run_command(command, b"", bound)
    }
}

#[test]
fn the_two_services_of_the_documentation_call_each_other() {
    let Some(clients) = clients() else { return };
    let node = Node::start(&Options::new());
    let directory = tempfile::TempDir::new().expect("temporary directory");
    let users = Clients::save("users.js", directory.path(), node.web);
    let orders = Clients::save("orders.js", directory.path(), node.web);
    let serving = std::thread::spawn({
        let clients = clients.clone();
        move || clients.node_at(&users, &["5000"], SOON * 2)
    });
    let output = clients.node_at(&orders, &[], SOON * 2);
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
    assert!(output.stdout.contains("Ada Lovelace"), "{}{}", output.stdout, output.stderr);
    drop(serving);
}

#[test]
fn schemathesis_finds_no_violation() {
    let Some(clients) = clients() else { return };
    let program = clients.0.join("venv/bin/schemathesis");
    if !program.exists() {
        eprintln!("skipped: schemathesis is not installed; make test does it");
        return;
    }
    let node = Node::start(&Options::new());
    let mut command = Command::new(program);
    let directory = tempfile::TempDir::new().expect("temporary directory");
    command.current_dir(directory.path()).arg("run").arg(format!("http://{}/openapi.json", node.web));
    // Changes of the membership would take the node from itself; what the schema cannot say (a config that does not
    // exist, an id that is free) may be refused.
    command.args(["--checks", "all", "--exclude-checks", "positive_data_acceptance", "--max-examples", "10"]);
    command.args(["--exclude-path-regex", "cluster/(nodes|transfer)", "--seed", "1", "--no-color"]);
    let output = run_command(command, b"", SOON * 18);
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
}
