//! A full disk: publishes are refused, nothing acknowledged is lost, space that returns is used at once.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::cluster::Cluster;
use crate::harness::node::{Node, Options};
use crate::harness::{SOON, ms, wait_for};

/// Free bytes below which the node under test refuses publishes.
const RESERVE: u64 = 150 * 1024 * 1024;

/// A small file system of its own; unmounted when dropped.
struct Mount {
    path: PathBuf,
    /// Where it is mounted, when nobody else has made that directory.
    dir: Option<TempDir>,
}

impl Mount {
    /// Nothing when mounting is not allowed here.
    fn new(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut mount = Self::at(dir.path(), options)?;
        mount.dir = Some(dir);
        Some(mount)
    }

    /// One on a directory that is there.
    fn at(path: &Path, options: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path);
        let output = mount.output();
        match output {
            Ok(output) if output.status.success() => Some(Self { path: path.to_path_buf(), dir: None }),
            other => {
                eprintln!("skipped: a tmpfs cannot be mounted here: {other:?}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn stat(&self, what: &str) -> Vec<u64> {
        let mut stat = Command::new("stat");
        let output = stat.args(["-f", "-c", what]).arg(self.path()).output();
        let text = String::from_utf8(output.expect("run stat").stdout).expect("text");
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    }

    /// Free bytes.
    fn free(&self) -> u64 {
        self.stat("%a %S").iter().product()
    }

    /// Creates empty files until only that many can be created; gives the directory to delete.
    fn use_inodes(&self, left: u64) -> PathBuf {
        let path = self.path().join("files");
        fs::create_dir_all(&path).expect("a directory");
        let mut name = fs::read_dir(&path).expect("list it").count();
        while self.stat("%d")[0] > left {
            for _ in 0..(self.stat("%d")[0] - left).min(500) {
                fs::write(path.join(name.to_string()), []).expect("an empty file");
                name += 1;
            }
        }
        path
    }

    /// Writes zeros until only that many bytes are free; gives the file to delete.
    fn fill_to(&self, left: u64) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = OpenOptions::new().create(true).append(true).open(&path).expect("a file");
        let zeros = vec![0; 8 * 1024 * 1024];
        while self.free() > left {
            // The last part in small steps, so that the node can see it coming.
            let step = if self.free() - left > 64 * 1024 * 1024 { zeros.len() } else { 64 * 1024 };
            let count = (self.free() - left).min(step as u64) as usize;
            if file.write_all(&zeros[..count]).is_err() {
                break;
            }
        }
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(&self.path).status();
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
fn a_stop_on_a_full_disk_is_a_clean_one_and_nothing_is_lost() {
    let Some(mount) = Mount::new("size=96m") else { return };
    let options = Options::namespaces("app").env("ROLLBOOK_BOOK__RESERVE_BYTES", "1000000");
    let mut node = Node::start_at(&options, &mount.path().join("data"));
    let event = format!("\"{}\"", "x".repeat(300_000));
    for _ in 0..30 {
        node.publish("app.x", &event);
    }
    let ballast = mount.fill_to(0);
    let stored = 30 + publish_until(&node, 507, SOON).len();
    // What is in memory finds no room.
    node.terminate();
    fs::remove_file(ballast).expect("free the disk");
    let node = Node::start_at(&options, &mount.path().join("data"));
    assert_eq!(node.replay("app.>").events(stored, SOON).len(), stored);
    assert_eq!(usize::try_from(node.publish("app.x", "1").index), Ok(stored + 1));
}

#[test]
fn a_full_disk_refuses_publishes_and_recovers_without_a_restart() {
    let Some(mount) = Mount::new("size=400m") else { return };
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
    let Some(mount) = Mount::new("size=400m") else { return };
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

#[test]
fn free_inodes_count_as_free_bytes_do() {
    let Some(mount) = Mount::new("size=400m,nr_inodes=4000") else { return };
    let options = Options::namespaces("app").env("ROLLBOOK_BOOK__RESERVE_BYTES", "1048576");
    let mut node = Node::start_at(&options, &mount.path().join("data"));
    let mut stored = vec![node.publish("app.x", "1").index];
    let pid = node.pid();
    for left in [900, 6] {
        let files = mount.use_inodes(left);
        stored.extend(publish_until(&node, 507, SOON));
        let refused = node.post("{\"subject\":\"app.x\"}");
        assert!(refused.status == 507 && refused.text().contains("inodes free"), "{}", refused.text());
        let ready = node.web("GET", "/readyz", "");
        assert!(ready.status == 200 && ready.text().contains("inodes free"), "{}", ready.text());
        // Long enough for steps that create files.
        std::thread::sleep(SOON);
        publish_until(&node, 507, SOON);
        assert_eq!(node.replay("app.>").next_event(SOON).index(), 1, "reading goes on");
        fs::remove_dir_all(files).expect("make room");
        stored.extend(publish_until(&node, 202, SOON));
    }
    assert_eq!(node.pid(), pid);
    node.restart();
    let indexes: Vec<i64> = node.replay("app.>").events(stored.len(), SOON).iter().map(|event| event.index()).collect();
    assert_eq!(indexes, stored, "acknowledged events, and no refused one");
}

/// Three nodes, each with a disk of its own.
fn on_disks() -> Option<(Cluster, Vec<Mount>)> {
    let options = Options::namespaces("app")
        .env("ROLLBOOK_BOOK__RESERVE_BYTES", &RESERVE.to_string())
        .env("ROLLBOOK_CLUSTER__LOG_KEEP_BYTES", "1000000");
    let mut cluster = Cluster::prepare(options);
    let mut mounts = Vec::new();
    for id in 1..=3 {
        fs::create_dir_all(cluster.data(id)).expect("a directory");
        mounts.push(Mount::at(&cluster.data(id), "size=700m")?);
    }
    cluster.up(&[1, 2, 3]);
    Some((cluster, mounts))
}

fn write(node: &Node, events: usize) {
    let padding = "x".repeat(400);
    let item = format!("{{\"subject\":\"app.x\",\"payload\":\"{padding}\"}}");
    let mut http = node.http();
    for _ in 0..events.div_ceil(500) {
        assert_eq!(http.post(format!("[{}]", vec![item.as_str(); 500].join(","))).status, 202);
    }
}

#[test]
fn a_leader_with_a_full_disk_outlives_a_follower_that_needs_a_snapshot() {
    let Some((mut cluster, mounts)) = on_disks() else { return };
    let away = cluster.followers()[0];
    let missed = cluster.node(away).metric("rollbook_raft_last_index");
    cluster.kill(away);
    let leader = cluster.leader();
    let other = 6 - leader - away;
    wait_for("the log is purged", Duration::from_secs(90), || {
        write(cluster.node(leader), 5000);
        std::thread::sleep(ms(500));
        let first = |id: &usize| cluster.node(*id).metric("rollbook_raft_first_index");
        [leader, other].iter().all(|id| first(id) > missed + 20).then_some(())
    });
    let fill = |left| [leader, other].map(|id| mounts[id - 1].fill_to(left));
    let refused = |left: u64| {
        for id in [leader, other] {
            publish_until(cluster.node(id), 507, SOON);
        }
        // The leader tries to make a snapshot again and again.
        std::thread::sleep(SOON / 2);
        for id in [leader, other] {
            assert_eq!(cluster.node(id).post("{\"subject\":\"app.x\"}").status, 507, "node {id}, {left} bytes left");
        }
    };
    // Above the part of the reserve in which nothing is written, below what a snapshot needs.
    fill(RESERVE / 6);
    let (options, data) = (cluster.options_of(away), cluster.data(away));
    let coming = std::thread::spawn(move || Node::start_at(&options, &data));
    refused(RESERVE / 6);
    let ballast = fill(0);
    refused(0);
    ballast.iter().for_each(|file| fs::remove_file(file).expect("make room"));
    publish_until(cluster.node(leader), 202, SOON * 2);
    let last = cluster.node(leader).publish("app.x", "1").index;
    let back = coming.join().expect("the follower is ready");
    assert!(cluster.data(away).join("INSTALLED").exists(), "it came as a snapshot, not by the log");
    wait_for("the follower has caught up", Duration::from_secs(60), || {
        let app = back.web("GET", "/api/namespaces/app?consistency=stale", "");
        (app.status == 200 && app.json()["next_index"].as_i64() > Some(last)).then_some(())
    });
}

#[test]
fn a_publish_anywhere_is_refused_while_the_leader_is_short_of_disk_and_a_full_follower_lives_on() {
    let Some((cluster, mounts)) = on_disks() else { return };
    let leader = cluster.leader();
    let followers = cluster.followers();
    let ballast = mounts[leader - 1].fill_to(RESERVE / 2);
    for id in 1..=3 {
        publish_until(cluster.node(id), 507, SOON);
    }
    let text = cluster.node(followers[0]).post("{\"subject\":\"app.x\"}").text();
    assert!(text.contains("leader"), "{text}");
    fs::remove_file(ballast).expect("make room");
    for id in 1..=3 {
        publish_until(cluster.node(id), 202, SOON * 2);
    }
    // One follower without a byte: the majority has room, so it is left behind, alive.
    let full = followers[0];
    let ballast = mounts[full - 1].fill_to(0);
    std::thread::sleep(ms(500));
    write(cluster.node(leader), 20_000);
    assert_eq!(cluster.node(full).post("{\"subject\":\"app.x\"}").status, 507);
    // Two of them: no majority could store anything.
    let second = mounts[followers[1] - 1].fill_to(RESERVE / 2);
    for id in 1..=3 {
        publish_until(cluster.node(id), 507, SOON * 2);
    }
    fs::remove_file(second).expect("make room");
    fs::remove_file(ballast).expect("make room");
    publish_until(cluster.node(full), 202, SOON * 4);
    let last = cluster.node(leader).publish("app.x", "1").index;
    wait_for("the full one has caught up", SOON * 4, || {
        let app = cluster.node(full).web("GET", "/api/namespaces/app?consistency=stale", "");
        (app.status == 200 && app.json()["next_index"].as_i64() > Some(last)).then_some(())
    });
}
