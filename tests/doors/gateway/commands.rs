//! `rollbook emit` and `rollbook actor run`.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::Shop;
use crate::harness::node::{rollbook, run_command};
use crate::harness::{SOON, wait_for};

/// A command that talks to the node of a shop with its key.
fn command(shop: &Shop, key: &Path, arguments: &[&str]) -> Command {
    let mut command = rollbook();
    command.args(arguments).arg("--web-url").arg(format!("http://{}", shop.node.web));
    command.arg("--api-key-file").arg(key);
    command
}

/// A program that runs a command for each job of an actor.
struct Runner(Child);

impl Drop for Runner {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn run(shop: &Shop, key: &Path, actor: &str, script: &str) -> Runner {
    let mut command = command(shop, key, &["actor", "run", actor]);
    command.args(["--", "sh", "-c", script]);
    Runner(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("start the program"))
}

#[test]
fn commands_are_the_actors_of_a_pipeline() {
    let shop = Shop::start();
    let dir = tempfile::tempdir().expect("a directory");
    let (key, archive) = (dir.path().join("key"), dir.path().join("archive"));
    std::fs::write(&key, &shop.key).expect("write the key");
    let _upper = run(&shop, &key, "shop.upper", "tr a-z A-Z");
    let mut consumer = run(&shop, &key, "shop.archive", &format!("cat >> {}; echo kept >&2", archive.display()));
    let emit = |more: &[&str]| {
        let arguments = [&["emit", "shop.orders", "--wait", "--output", "json"][..], more].concat();
        run_command(command(&shop, &key, &arguments), b"", SOON)
    };
    let done = emit(&["--type", "order", "--item", "one", "--item", "two"]);
    assert_eq!(done.code, Some(0), "{} {}", done.stdout, done.stderr);
    let told: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(told["processes"][0]["status"], "done", "{told}");
    assert_eq!(std::fs::read_to_string(&archive).expect("the archive"), "ONE\nTWO\n");
    let process = told["processes"][0]["id"].as_str().unwrap_or_default();
    let logs = shop.operator("GET", &format!("logs/{process}"), "");
    assert_eq!(logs["items"][0]["messages"][0]["text"], "kept", "{logs}");

    // SIGTERM ends the program between two jobs.
    let pid = rustix::process::Pid::from_child(&consumer.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    let code = wait_for("the end of the program", SOON, || consumer.0.try_wait().expect("wait"));
    assert!(code.success(), "{code}");
    let _failing = run(&shop, &key, "shop.archive", "echo disk full >&2; exit 3");
    let failed = emit(&["--type", "order", "--item", "x"]);
    assert_eq!(failed.code, Some(1), "{}", failed.stdout);
    let told: Value = serde_json::from_str(&failed.stdout).expect("JSON");
    assert_eq!(told["processes"][0]["status"], "error", "{told}");
    assert!(failed.stderr.contains("ended in error"), "{}", failed.stderr);
}

#[test]
fn a_job_whose_program_was_killed_comes_to_the_next_one() {
    let shop = Shop::start();
    let dir = tempfile::tempdir().expect("a directory");
    let (key, begun) = (dir.path().join("key"), dir.path().join("begun"));
    std::fs::write(&key, &shop.key).expect("write the key");
    let hanging = run(&shop, &key, "shop.upper", &format!("touch {}; sleep 30", begun.display()));
    let sent = run_command(command(&shop, &key, &["emit", "shop.orders", "--type", "t", "--item", "a"]), b"", SOON);
    assert!(sent.stdout.starts_with("envelope ") && sent.stdout.trim_end().ends_with(" accepted"), "{}", sent.stdout);
    wait_for("the command", SOON, || begun.exists().then_some(()));
    drop(hanging);
    let _next = run(&shop, &key, "shop.upper", "cat");
    let envelope = sent.stdout.split(' ').nth(1).expect("an id").to_owned();
    wait_for("the job at the next actor", SOON, || {
        let page = shop.operator("GET", &format!("processes?envelope={envelope}"), "");
        let id = page["items"][0]["id"].as_str()?.to_owned();
        let nodes = shop.operator("GET", &format!("processes/{id}"), "")["nodes"].clone();
        nodes.as_array()?.iter().any(|node| node["id"] == "up" && node["state"] == "success").then_some(())
    });
}
