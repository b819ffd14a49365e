//! The stock command line and the stock dock, hms 0.4.4 of npm.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::client::{Hms, address, op, options};
use crate::harness::examples::{Clients, clients};
use crate::harness::node::{Node, run_command};
use crate::harness::{SOON, wait_for};

/// Long enough for node to start and a dock to fetch a build.
const LONG: Duration = Duration::from_secs(60);

fn hms(clients: &Clients, folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = stock(clients, folder, args);
    command.env("HOME", folder);
    let exit = run_command(command, b"", LONG);
    (exit.code, format!("{}{}", exit.stdout, exit.stderr))
}

fn stock(clients: &Clients, folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.arg("-r").arg(clients.script("hms_shim.js")).arg(clients.modules().join("hms/bin/hms.js")).args(args);
    command.current_dir(folder).env("HOME", folder);
    command
}

/// A stock dock, until this is dropped.
struct Dock(Child);

impl Drop for Dock {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        // It ends its processes with it.
        Command::new("kill").args(["-TERM", &pid]).status().ok();
        for _ in 0..50 {
            if self.0.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn dock(clients: &Clients, folder: &Path, id: &str, remote: &str) -> Dock {
    let port = crate::harness::cluster::free_addresses(1)[0].rsplit(':').next().unwrap_or_default().to_owned();
    let mut command = stock(clients, folder, &["dock", remote, "--id", id, "--port", &port, "--default"]);
    Dock(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("node"))
}

#[test]
fn the_stock_command_line_and_the_stock_dock_work_as_with_their_own_hub() {
    let Some(clients) = clients() else { return };
    let node = Node::start(&options());
    let remote = address(&node).to_string();
    let (folder, home) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let service = "console.log('hello from', process.env.SERVICE_NAME, process.env.COLOR); setInterval(function(){ console.log('tick') }, 100)";
    std::fs::write(folder.path().join("index.js"), service).expect("a file");
    let run = |args: &[&str]| hms(&clients, folder.path(), args);
    let (code, text) = run(&["list", &remote]);
    assert!(code == Some(0) && text.contains("(empty)"), "{text}");
    let (code, text) = run(&["add", &remote, "app1", "--start", "node index.js", "--env", "COLOR=green"]);
    assert!(code == Some(0) && text.contains("[+] Adding app1"), "{text}");
    let (code, text) = run(&["add", &remote, "app1", "--start", "x"]);
    assert!(code == Some(1) && text.contains("Service already exist"), "{text}");
    let _dock = dock(&clients, home.path(), "dock1", &remote);
    wait_for("the stock dock", LONG, || {
        let (_, text) = run(&["ps", &remote]);
        text.contains("dock1").then_some(())
    });
    let mut follower = Hms::client(&node);
    follower.do_(op::SUBSCRIBE, "app1").expect("subscribed");
    let mut command = stock(&clients, folder.path(), &["deploy", &remote, "app1"]);
    let mut deploying =
        Dock(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("node"));
    let hello = wait_for("the process", LONG, || {
        let message = follower.heard();
        (message.op == op::STDOUT && message.text().contains("hello")).then(|| message.text())
    });
    assert!(hello.contains("hello from app1 green"), "{hello}");
    deploying.0.kill().ok();
    let (code, text) = run(&["ps", &remote]);
    assert!(code == Some(0) && text.contains("app1") && text.contains("running"), "{text}");
    for (verb, shown, status) in
        [("stop", "Stopping", "stopped"), ("start", "Starting", "running"), ("restart", "Restarting", "running")]
    {
        // The stock command line follows the process otherwise.
        let (code, text) = run(&[verb, &remote, "app1", "--no-log"]);
        assert!(code == Some(0) && text.contains(&format!("[+] {shown} app1")), "{verb}: {text}");
        wait_for(status, LONG, || run(&["ps", &remote]).1.contains(status).then_some(()));
    }
    let (code, text) = run(&["update", &remote, "app1", "--env", "COLOR=blue"]);
    assert!(code == Some(0) && text.contains("[+] Updating app1"), "{text}");
    let (code, text) = run(&["sync", &remote, "app1"]);
    assert!(code == Some(0) && text.contains("[+] Syncing app1"), "{text}");
    let (code, text) = run(&["remove", &remote, "app1"]);
    assert!(code == Some(0) && text.contains("[+] Removing app1"), "{text}");
    wait_for("an empty dock", SOON, || run(&["ps", &remote]).1.contains("(empty)").then_some(()));
}
