//! Follows the pages as a reader does: types the commands, saves and starts the programs, compares what they print.
//!
//! | block | what is done with it |
//! |---|---|
//! | `sh` whose first line is `# tested` | run; prints the `text` block right below |
//! | `js run`, `python run` | saved under the name in its first line, and run to its end; prints the `text` block right below |
//! | `js serve`, `python serve` | saved and started; runs until the page ends |
//! | `sh serve` | started: a node of the page's own, which runs until the page ends. Commands of its section know no other node than those that they name |
//! | `toml` | checked by `rollbook config check` |

use std::cell::Cell;
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Instant;

use tempfile::TempDir;

use super::{Block, blocks, difference, page, pages, root};
use crate::doors::nats::client::address;
use crate::doors::websocket::clients::build_typescript;
use crate::harness::cluster::free_addresses;
use crate::harness::examples::{Clients, clients};
use crate::harness::node::{Node, Options, run_command};
use crate::harness::{SOON, wait_for};

/// One node, and the directory in which the reader works.
struct Tour {
    node: Node,
    /// Addresses on the pages of a node that a page starts itself, and the free ones that stand for them.
    own: [(&'static str, String); 5],
    /// The addresses of two more nodes that are started with the node of a page: peer, log, web, nats. Empty: it is alone.
    more: Vec<String>,
    /// Counts the programs, so that each talks to another one of three nodes.
    programs: Cell<usize>,
    here: TempDir,
    path: String,
    clients: Option<Clients>,
}

impl Tour {
    fn new() -> Self {
        Self::with(&[])
    }

    /// A reader who starts three nodes where a page starts one of its own.
    fn of_three() -> Self {
        let addresses = free_addresses(9);
        let tour = Self::with(&addresses);
        assert_eq!(tour.more.len(), 9);
        tour
    }

    fn with(more: &[String]) -> Self {
        let here = tempfile::tempdir().expect("temporary directory");
        let bin = here.path().join("bin");
        std::fs::create_dir(&bin).expect("a directory for the program");
        symlink(env!("CARGO_BIN_EXE_rollbook"), bin.join("rollbook")).expect("link the program");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let clients = clients();
        if let Some(python) = clients.as_ref().map(Clients::python) {
            let wrapper = bin.join("python");
            std::fs::write(&wrapper, format!("#!/bin/sh\nexec {} \"$@\"\n", python.display())).expect("a wrapper");
            std::fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).expect("a program");
        }
        if let Some(clients) = &clients {
            let wrapper = bin.join("hms");
            let program = clients.modules().join("hms/bin/hms.js");
            std::fs::write(&wrapper, format!("#!/bin/sh\nexec node {} \"$@\"\n", program.display()))
                .expect("a wrapper");
            std::fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).expect("a program");
            install(clients, here.path());
        }
        let [log, web, own_nats, hms] = free_addresses(4).try_into().expect("three addresses");
        let node = Node::start(&Options::new().arg("--nats").arg("127.0.0.1:0"));
        let nats = address(&node).to_string();
        let own = [
            ("127.0.0.1:2121", log),
            ("127.0.0.1:7540", web),
            ("127.0.0.1:4222", nats),
            ("127.0.0.1:4322", own_nats),
            ("127.0.0.1:10102", hms),
        ];
        Self { node, own, more: more.to_vec(), programs: Cell::new(0), here, path, clients }
    }

    /// Follows one page; tells how many examples were tried.
    fn follow(&self, path: &str) -> usize {
        let blocks = blocks(&page(path));
        let mut serving = Vec::new();
        let mut tried = 0;
        let (mut left_out, mut has_node) = (None, None);
        for (at, block) in blocks.iter().enumerate() {
            let program = !block.role.is_empty();
            let without_npm = block.text.contains("\nhms ") && self.clients.is_none();
            if without_npm || program && !self.can_run(&block.language) {
                left_out = Some(block.section);
            }
            // What needs a program that could not be started is left out: the rest of its section.
            if left_out == Some(block.section) {
                continue;
            }
            let mut command = match (&*block.language, &*block.role) {
                ("sh", "") if block.text.starts_with("# tested\n") => self.shell(&block.text),
                ("sh", "serve") => {
                    serving.push(self.serve_node(block));
                    has_node = Some(block.section);
                    tried += 1;
                    continue;
                }
                ("toml", "") => self.check(&block.text),
                ("js" | "python", "run") => self.program(block),
                ("js" | "python", "serve") => {
                    serving.push(self.serve(block));
                    tried += 1;
                    continue;
                }
                (_, "") => continue,
                (language, role) => panic!("{path}:{}: nothing is known of {language} {role}", block.line),
            };
            if has_node == Some(block.section) {
                command.env_remove("ROLLBOOK_LOG_URL").env_remove("ROLLBOOK_WEB_URL");
            }
            let exit = run_command(command, b"", SOON * 3);
            tried += 1;
            // Output belongs to a block when it is the next one and nothing is said between.
            let below = blocks.get(at + 1).filter(|next| next.language == "text" && next.line <= block.end + 2);
            let expected = below.map_or("", |next| &next.text);
            if block.language == "toml" {
                assert_eq!(exit.code, Some(0), "{path}:{}\n{}{}", block.line, block.text, exit.stderr);
            } else if let Some(difference) = difference(expected, &self.as_on_the_page(&exit.stdout)) {
                panic!("{path}:{}\n{}{difference}\n{}", block.line, block.text, exit.stderr);
            }
        }
        drop(serving);
        self.wait_until_online(0);
        tried
    }

    fn can_run(&self, language: &str) -> bool {
        if language == "sh" {
            return true;
        }
        let Some(clients) = &self.clients else { return false };
        language != "python" || clients.python().exists()
    }

    /// A text of a page for this node.
    fn for_this_node(&self, text: &str) -> String {
        let text = text
            .replace("127.0.0.1:2021", &self.node.log.to_string())
            .replace("127.0.0.1:7440", &self.node.web.to_string());
        self.own.iter().fold(text, |text, (shown, free)| text.replace(shown, free))
    }

    /// The reverse.
    fn as_on_the_page(&self, text: &str) -> String {
        let text = text
            .replace(&self.node.log.to_string(), "127.0.0.1:2021")
            .replace(&self.node.web.to_string(), "127.0.0.1:7440");
        self.own.iter().fold(text, |text, (shown, free)| text.replace(free, shown))
    }

    /// A command of the reader.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.here.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROLLBOOK_")) {
            command.env_remove(name);
        }
        let (log, web) = (self.node.log, self.node.web);
        command.env("ROLLBOOK_LOG_URL", format!("http://{log}")).env("ROLLBOOK_WEB_URL", format!("http://{web}"));
        command.env("PATH", &self.path).env("XDG_CONFIG_HOME", self.here.path().join("config"));
        command.env("PYTHONPATH", root().join("clients/python")).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = self.command(Path::new("bash"));
        command.args(["-c", &format!("exec 2>&1\n{}", self.for_this_node(script))]);
        command
    }

    fn check(&self, text: &str) -> Command {
        let path = self.here.path().join("checked.toml");
        std::fs::write(&path, text).expect("save a configuration");
        let mut command = self.command(Path::new("rollbook"));
        command.args(["config", "check"]).arg(path);
        command
    }

    /// A program of a page, saved under the name that its first line says.
    fn program(&self, block: &Block) -> Command {
        let first = block.text.lines().next().unwrap_or_default();
        let name = first.trim_start_matches(['/', '#', ' ']).split(':').next().unwrap_or_default();
        assert!(name.contains('.') && !name.contains(['/', ' ']), "line {}: the first line names no file", block.line);
        let path = self.here.path().join(name);
        std::fs::write(&path, self.for_this_node(&self.for_another_node(&block.text))).expect("save a program");
        let python = self.clients.as_ref().map(Clients::python).filter(|_| block.language == "python");
        let mut command = self.command(&python.unwrap_or_else(|| PathBuf::from("node")));
        command.arg(path);
        command
    }

    /// Starts a service, and waits until it is online.
    fn serve(&self, block: &Block) -> Serving {
        let online = self.online();
        let mut command = self.program(block);
        // A process group of its own, so that whatever the program starts ends with it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        let serving = Serving(command.spawn().expect("start a program"));
        self.wait_until_online(online + 1);
        serving
    }

    /// A program of a page that talks to another one of three nodes than the program before.
    fn for_another_node(&self, text: &str) -> String {
        let place = self.programs.replace(self.programs.get() + 1) % 3;
        match self.more.chunks(4).nth(place).filter(|_| self.more.len() == 9) {
            Some([_, _, _, nats]) => text.replace("127.0.0.1:4322", nats),
            _ => text.to_owned(),
        }
    }

    /// The command that starts the node of a page; or three nodes instead of it.
    fn nodes(&self, text: &str) -> String {
        let (Some(first), true) = (self.more.get(8), text.contains("--peer off")) else { return text.to_owned() };
        let mut script = String::new();
        for line in text.lines() {
            let Some((before, after)) = line.split_once("--peer off") else {
                script.push_str(&format!("{line}\n"));
                continue;
            };
            let members = format!("1={first},2={},3={}", self.more[0], self.more[4]);
            script.push_str(&format!("{before}--node 1 --cluster {members}{after} &\n"));
            for (number, addresses) in (2..).zip(self.more.chunks(4).take(2)) {
                let before = before
                    .replace("/data", &format!("/data-{number}"))
                    .replace("127.0.0.1:2121", &addresses[1])
                    .replace("127.0.0.1:7540", &addresses[2])
                    .replace("127.0.0.1:4322", &addresses[3]);
                script.push_str(&format!("{before}--node {number} --cluster {members}{after} &\n"));
            }
            script.push_str("wait\n");
        }
        script
    }

    /// Starts a node of a page, and waits until it is ready.
    fn serve_node(&self, block: &Block) -> Serving {
        let mut command = self.shell(&self.nodes(&block.text));
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut serving = Serving(command.spawn().expect("start a node"));
        let output = BufReader::new(serving.0.stdout.take().expect("piped output"));
        let (sender, lines) = channel();
        // To the end, so that the node never waits for a reader.
        std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let (until, mut said) = (Instant::now() + SOON, Vec::new());
        let nodes = if self.more.is_empty() { 1 } else { 3 };
        while said.iter().filter(|line| *line == "ready").count() < nodes {
            let left = until.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => said.push(line),
                Err(_) => panic!("line {}: the node of the page is not ready; it said {said:#?}", block.line),
            }
        }
        if nodes > 1 {
            // One node of the three has written the token of the operator.
            let token = "xbus/data/token".replace("token", "root.token");
            let all = token.replace("data", "data*");
            let found = format!(
                "for i in $(seq 100); do cp {all} xbus/data 2> /dev/null && break; [ -e {token} ] && break; sleep 0.1; done"
            );
            let mut copy = self.shell(&found);
            assert!(copy.status().is_ok_and(|status| status.success()), "the token of the operator");
        }
        serving
    }

    fn online(&self) -> usize {
        let services = self.node.web("GET", "/api/services?status=online", "").json();
        services["items"].as_array().map_or(0, Vec::len)
    }

    fn wait_until_online(&self, services: usize) {
        wait_for(&format!("{services} services to be online"), SOON, || (self.online() == services).then_some(()));
    }
}

/// Processes of a dock outlive the dock; a page that ends early must not leave any.
impl Drop for Tour {
    fn drop(&mut self) {
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let here =
                std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.here.path()));
            if here {
                Command::new("kill").arg("-KILL").arg(process.file_name()).status().ok();
            }
        }
    }
}

/// The packages that the pages tell a reader to install, under the names that the pages say.
fn install(clients: &Clients, here: &Path) {
    let packages = here.join("node_modules");
    std::fs::create_dir(&packages).expect("a directory for packages");
    for package in ["ws", "nats", "socket.io-client-4"] {
        let name = package.strip_suffix("-4").unwrap_or(package);
        symlink(clients.modules().join(package), packages.join(name)).expect("link a package");
    }
    build_typescript(clients, &packages.join("rollbook"));
}

/// A program that serves until this is dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let killed = Command::new("kill").args(["-KILL", "--", &group]).status().and_then(|_| self.0.wait());
        if let Err(error) = killed {
            eprintln!("program {group}: {error}");
        }
    }
}

fn there_is_curl() -> bool {
    let found = Command::new("curl").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: there is no curl");
    }
    found
}

#[test]
fn the_pages_print_what_they_show_one_after_the_other_on_one_node() {
    if !there_is_curl() {
        return;
    }
    let tour = Tour::new();
    let tried: usize = pages().iter().map(|path| tour.follow(path)).sum();
    assert!(tried > 20, "only {tried} examples were tried: this test has gone blind");
}

#[test]
fn the_page_about_xbus_prints_the_same_on_three_nodes() {
    if !there_is_curl() {
        return;
    }
    let tried = Tour::of_three().follow("docs/xbus.md");
    assert!(tried > 10, "only {tried} examples were tried: this test has gone blind");
}

/// No page needs another one, or is disturbed by it.
#[test]
fn the_pages_print_the_same_in_any_order() {
    if !there_is_curl() {
        return;
    }
    let tour = Tour::new();
    for path in pages().iter().rev() {
        tour.follow(path);
    }
}
