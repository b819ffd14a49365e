//! A full disk: publishes are refused, nothing acknowledged is lost, space that returns is used at once.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::node::{Node, Options};
use crate::harness::{SOON, ms, wait_for};

/// Free bytes below which the node under test refuses publishes.
const RESERVE: u64 = 150 * 1024 * 1024;

/// A small file system of its own; unmounted when dropped.
struct Mount {
    dir: TempDir,
}

impl Mount {
    /// Nothing when mounting is not allowed here.
    fn new(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path());
        let output = mount.output();
        match output {
            Ok(output) if output.status.success() => Some(Self { dir }),
            other => {
                eprintln!("skipped: a tmpfs cannot be mounted here: {other:?}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Free bytes.
    fn free(&self) -> u64 {
        let mut stat = Command::new("stat");
        let output = stat.args(["-f", "-c", "%a %S"]).arg(self.path()).output();
        let text = String::from_utf8(output.expect("run stat").stdout).expect("text");
        let mut numbers = text.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        numbers.next().unwrap_or(0) * numbers.next().unwrap_or(0)
    }

    /// Writes zeros until only that many bytes are free; gives the file to delete.
    fn fill_to(&self, left: u64) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = OpenOptions::new().create(true).append(true).open(&path).expect("a file");
        let zeros = vec![0; 64 * 1024];
        while self.free() > left {
            let count = (self.free() - left).min(zeros.len() as u64) as usize;
            if file.write_all(&zeros[..count]).is_err() {
                break;
            }
        }
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(self.path()).status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.path().display());
        }
    }
}

/// Publishes until the status changes to `want`; gives how many were stored meanwhile.
fn publish_until(node: &Node, want: u16, bound: Duration) -> Vec<i64> {
    let mut stored = Vec::new();
    wait_for(&format!("status {want}"), bound, || {
        let answer = node.post("{\"subject\":\"app.x\",\"payload\":\"some bytes\"}");
        match answer.status {
            202 => stored.push(answer.published().index),
            507 => {
                let text = answer.text();
                let detail = text.strip_prefix("insufficient storage: ").map(str::trim);
                assert!(detail.is_some_and(|detail| !detail.is_empty()), "{text:?}");
                answer.refusal_headers().expect("headers of a refusal");
            }
            other => panic!("status {other}: {}", answer.text()),
        }
        (answer.status == want).then_some(())
    });
    stored
}

#[test]
fn a_full_disk_refuses_publishes_and_recovers_without_a_restart() {
    let Some(mount) = Mount::new(400) else { return };
    let options = Options::namespaces("app").env("ROLLBOOK_BOOK__RESERVE_BYTES", &RESERVE.to_string());
    let mut node = Node::start_at(&options, &mount.path().join("data"));
    let mut stored = vec![node.publish("app.x", "1").index];
    for left in [RESERVE / 2, 0] {
        let ballast = mount.fill_to(left.max(RESERVE / 2));
        stored.extend(publish_until(&node, 507, SOON));
        if left == 0 {
            // Not a byte left: still refused, still readable.
            mount.fill_to(0);
            publish_until(&node, 507, SOON);
        }
        let first = node.replay("app.>").next_event(SOON);
        assert_eq!(first.index(), 1, "reading goes on");
        let batch = node.post("[{\"subject\":\"app.x\"},{\"subject\":\"app.x\"}]");
        assert_eq!(batch.status, 507, "{}", batch.text());
        std::thread::sleep(ms(100));
        fs::remove_file(ballast).expect("make space");
        stored.extend(publish_until(&node, 202, SOON * 2));
    }
    node.restart();
    assert_eq!(node.web("GET", "/readyz", "").status, 200);
    let indexes: Vec<i64> = node.replay("app.>").events(stored.len(), SOON).iter().map(|event| event.index()).collect();
    assert_eq!(indexes, stored, "acknowledged events, and no refused one");
    drop(node);
}

#[test]
fn a_disk_that_fills_up_at_once_loses_nothing_acknowledged() {
    let Some(mount) = Mount::new(400) else { return };
    let options = Options::namespaces("app").env("ROLLBOOK_BOOK__RESERVE_BYTES", "1048576");
    let mut node = Node::start_at(&options, &mount.path().join("data"));
    let mut acknowledged = vec![node.publish("app.x", "1").index];
    let ballast = mount.fill_to(2 * 1024 * 1024);
    let body = format!("{{\"subject\":\"app.x\",\"payload\":\"{}\"}}", "x".repeat(50_000));
    for _ in 0..200 {
        match node.http().try_request("POST", "/", &[], body.as_bytes()) {
            Ok(answer) if answer.status == 202 => acknowledged.push(answer.published().index),
            Ok(answer) => assert!(answer.status >= 500, "{}: {}", answer.status, answer.text()),
            Err(_) => break,
        }
    }
    fs::remove_file(ballast).expect("make space");
    node.restart();
    let mut stream = node.replay("app.>");
    for want in acknowledged {
        // Events whose publish ended in an unclear 5xx may lie in between.
        let found = loop {
            let index = stream.next_event(SOON).index();
            if index >= want {
                break index;
            }
        };
        assert_eq!(found, want, "an acknowledged event is lost");
    }
    node.publish("app.x", "1");
}
