//! The real client libraries, where the tests find them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::harness::SOON;
use crate::harness::node::{Exit, Node, Options, run_command};

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
        let mut command = Command::new("node");
        command.arg(self.script(script)).args(args);
        command.env("NODE_PATH", self.modules());
        run_command(command, b"", bound)
    }
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
    // exist, an id that is free) may be refused. Logs do not end.
    command.args(["--checks", "all", "--exclude-checks", "positive_data_acceptance", "--max-examples", "10"]);
    command.args(["--exclude-path-regex", "cluster/(nodes|transfer)|/logs$", "--seed", "1", "--no-color"]);
    let output = run_command(command, b"", SOON * 18);
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
}
