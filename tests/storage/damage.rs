//! Damaged logs and other reasons not to start: refused with file and offset, never a silent loss.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::harness::node::{Exit, Node, Options};
use crate::harness::{Rng, SOON, copy_tree};

/// Cuts tried, spread over the last 64 KiB of the log.
const CUTS: u64 = 24;

/// A data directory as a killed node left it, and how many events were acknowledged in it.
struct Scene {
    keep: TempDir,
    events: usize,
    options: Options,
}

impl Scene {
    /// Writes enough that the last 64 KiB of the log are all acknowledged events.
    fn new() -> Self {
        let keep = tempfile::tempdir().expect("temporary directory");
        let options = Options::namespaces("app");
        let mut node = Node::start_at(&options, &keep.path().join("original"));
        let payload = format!("\"{}\"", "x".repeat(180));
        let item = format!("{{\"subject\":\"app.x\",\"payload\":{payload}}}");
        let mut http = node.http();
        for _ in 0..3 {
            let batch = format!("[{}]", vec![item.as_str(); 200].join(","));
            assert_eq!(http.post(batch).status, 202);
        }
        let mut events = 600;
        for _ in 0..400 {
            events = usize::try_from(http.post(&item).published().index).expect("an index");
        }
        node.kill9();
        Self { keep, events, options }
    }

    /// A fresh copy to damage.
    fn copy(&self) -> PathBuf {
        let copy = self.keep.path().join("copy");
        if copy.exists() {
            fs::remove_dir_all(&copy).expect("remove the last copy");
        }
        copy_tree(&self.keep.path().join("original"), &copy);
        copy
    }

    fn launch(&self, data: &Path) -> Result<Node, Exit> {
        Node::launch(&self.options, data)
    }

    /// The node must run and have every acknowledged event.
    fn assert_whole(&self, node: &Node, what: &str) {
        let mut stream = node.replay("app.>");
        for want in 1..=self.events {
            let event = stream.try_event(SOON);
            let event = event.unwrap_or_else(|| panic!("{what}: acknowledged event {want} is lost"));
            assert_eq!(event.json()["index"], want, "{what}");
        }
    }
}

/// The newest write-ahead file of the raft log.
fn newest_log(data: &Path) -> PathBuf {
    let entries = fs::read_dir(data.join("raft")).expect("the raft directory");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let logs = files.filter(|path| path.extension().is_some_and(|ext| ext == "log"));
    logs.max().expect("a write-ahead file")
}

/// The refusal: code 1, and a message that names the file and an offset.
fn assert_refused(launched: Result<Node, Exit>, file: &Path, what: &str) {
    let exit = match launched {
        Err(exit) => exit,
        Ok(_) => panic!("{what}: the node started"),
    };
    assert_eq!(exit.code, Some(1), "{what}: {exit:#?}");
    let name = file.file_name().and_then(|name| name.to_str()).expect("a file name");
    let lines = exit.stderr.lines().filter(|line| line.contains(name));
    let told = lines.filter(|line| {
        let after = line.to_lowercase();
        let after = after.split_once("offset").map(|(_, after)| after.to_owned());
        after.is_some_and(|after| after.bytes().any(|byte| byte.is_ascii_digit()))
    });
    assert!(told.count() > 0, "{what}: {name} and an offset are not named: {exit:#?}");
}

#[test]
fn a_log_cut_off_below_what_was_acknowledged_is_refused() {
    let scene = Scene::new();
    let mut rng = Rng::from_env("cut log");
    for cut in 0..CUTS {
        let data = scene.copy();
        let file = newest_log(&data);
        let length = fs::metadata(&file).expect("size of the log").len();
        let span = length.min(64 * 1024);
        let less = match cut {
            0 => 1,
            1 => span - 1,
            _ => rng.pick(1, span),
        };
        let what = format!("{} cut from {length} to {}", file.display(), length - less);
        let opened = OpenOptions::new().write(true).open(&file).expect("open the log");
        opened.set_len(length - less).expect("cut the log");
        match scene.launch(&data) {
            // The last record may be one that nobody was told about.
            Ok(node) if less < 4096 => scene.assert_whole(&node, &what),
            launched => assert_refused(launched, &file, &what),
        }
    }
    let node = scene.launch(&scene.copy());
    scene.assert_whole(&node.expect("the undamaged copy starts"), "undamaged");
}

#[test]
fn a_missing_newest_log_file_is_refused() {
    let scene = Scene::new();
    let data = scene.copy();
    let file = newest_log(&data);
    fs::remove_file(&file).expect("delete the log");
    let exit = match scene.launch(&data) {
        Err(exit) => exit,
        Ok(_) => panic!("started without its newest log"),
    };
    assert_eq!(exit.code, Some(1), "{exit:#?}");
    let name = file.file_name().and_then(|name| name.to_str()).expect("a file name");
    let named = exit.stderr.contains(name) || exit.stderr.contains("raft");
    assert!(named, "the message names no file: {exit:#?}");
    // A refused start must not make things worse: with the file back it starts.
    fs::copy(newest_log(&scene.keep.path().join("original")), &file).expect("put it back");
    match scene.launch(&data) {
        Ok(node) => scene.assert_whole(&node, "file put back"),
        Err(exit) => panic!("does not start with the file put back: {exit:#?}"),
    }
}

#[test]
fn a_flipped_byte_in_the_middle_of_the_log_is_refused() {
    let scene = Scene::new();
    let mut rng = Rng::from_env("flipped byte");
    for nth in 0..8 {
        let data = scene.copy();
        let file = newest_log(&data);
        let mut bytes = fs::read(&file).expect("read the log");
        let length = bytes.len() as u64;
        // Far enough from the end that acknowledged events follow.
        let place = rng.pick(length / 10, length * 8 / 10) as usize;
        bytes[place] ^= 1 << rng.pick(0, 8);
        fs::write(&file, &bytes).expect("write the log");
        let what = format!("flip {nth} at {place} of {length} in {}", file.display());
        assert_refused(scene.launch(&data), &file, &what);
    }
}

#[test]
fn a_lost_mark_is_refused_until_the_operator_asks_for_a_start_without_it() {
    let scene = Scene::new();
    for lost in ["removed", "emptied", "overwritten"] {
        let data = scene.copy();
        let mark = data.join("MARK");
        match lost {
            "removed" => fs::remove_file(&mark).expect("remove the mark"),
            "emptied" => fs::write(&mark, []).expect("empty the mark"),
            _ => fs::write(&mark, [0xa5; 8192]).expect("overwrite the mark"),
        }
        let exit = match scene.launch(&data) {
            Err(exit) => exit,
            Ok(_) => panic!("{lost}: started without its mark"),
        };
        assert_eq!(exit.code, Some(1), "{exit:#?}");
        let last = exit.stderr.lines().last().unwrap_or_default();
        assert!(last.contains("MARK") && last.contains("--accept-lost-mark"), "{lost}: {exit:#?}");
        match Node::launch(&scene.options.clone().arg("--accept-lost-mark"), &data) {
            Ok(node) => scene.assert_whole(&node, lost),
            Err(exit) => panic!("{lost}: does not start though it was asked for: {exit:#?}"),
        }
        // Once is enough.
        match scene.launch(&data) {
            Ok(node) => scene.assert_whole(&node, lost),
            Err(exit) => panic!("{lost}: the mark is still lost: {exit:#?}"),
        }
    }
}

#[test]
fn garbage_after_the_last_record_is_cut_off() {
    let scene = Scene::new();
    let mut rng = Rng::from_env("garbage");
    for length in [1_u64, 5, 700, 5000] {
        let data = scene.copy();
        let file = newest_log(&data);
        let garbage: Vec<u8> = (0..length).map(|_| rng.pick(0, 256) as u8).collect();
        let mut opened = OpenOptions::new().append(true).open(&file).expect("open the log");
        opened.write_all(&garbage).expect("append garbage");
        drop(opened);
        let what = format!("{length} bytes of garbage appended");
        match scene.launch(&data) {
            Ok(mut node) => {
                scene.assert_whole(&node, &what);
                let next = i64::try_from(scene.events + 1).expect("an index");
                assert_eq!(node.publish("app.x", "1").index, next, "{what}");
                node.restart();
                scene.assert_whole(&node, &what);
            }
            Err(exit) => panic!("{what}: {exit:#?}"),
        }
    }
}

#[test]
fn a_start_that_is_refused_late_closes_what_it_has_opened() {
    let keep = tempfile::tempdir().expect("temporary directory");
    let data = keep.path().join("data");
    let mut node = Node::start_at(&Options::new(), &data);
    node.publish("app.x", "1");
    node.terminate();
    // Read when the stores are open: their threads must have ended before the process does.
    fs::write(data.join("CLUSTER"), "garbage").expect("damage a file");
    for nth in 0..30 {
        let exit = match Node::launch(&Options::new(), &data) {
            Err(exit) => exit,
            Ok(_) => panic!("started in another cluster"),
        };
        assert_eq!(exit.code, Some(1), "start {nth}: {exit:#?}");
        assert!(exit.stderr.contains("CLUSTER: damaged"), "start {nth}: {exit:#?}");
    }
}

#[test]
fn a_port_in_use_is_a_clear_failure() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("take a port");
    let address = taken.local_addr().expect("its address").to_string();
    let keep = tempfile::tempdir().expect("temporary directory");
    let data = keep.path().join("data");
    for _ in 0..2 {
        let exit = match Node::launch(&Options::new().listen(&address), &data) {
            Err(exit) => exit,
            Ok(_) => panic!("two listeners on {address}"),
        };
        assert_eq!(exit.code, Some(1), "{exit:#?}");
        let text = exit.stderr.to_lowercase();
        assert!(text.contains(&address) && text.contains("in use"), "{exit:#?}");
        assert!(!exit.stdout.contains("ready"), "{exit:#?}");
        assert!(!text.contains("panicked"), "{exit:#?}");
    }
    drop(taken);
    Node::start_at(&Options::new().listen(&address), &data).publish("app.x", "1");
}

#[test]
fn a_data_directory_that_cannot_be_written_is_a_clear_failure() {
    let keep = tempfile::tempdir().expect("temporary directory");
    let file = keep.path().join("file");
    fs::write(&file, "not a directory").expect("a file in the way");
    for data in [file.join("data"), file.clone(), PathBuf::from("/proc/rollbook-test")] {
        let exit = match Node::launch(&Options::new(), &data) {
            Err(exit) => exit,
            Ok(_) => panic!("started on {}", data.display()),
        };
        assert_eq!(exit.code, Some(1), "{exit:#?}");
        let named = exit.stderr.contains(data.to_str().expect("a path"));
        assert!(named, "the message names no directory: {exit:#?}");
        assert!(!exit.stderr.contains("panicked"), "{exit:#?}");
    }
}

#[test]
fn two_nodes_on_one_data_directory_do_not_start() {
    let node = Node::start(&Options::new());
    node.publish("app.x", "1");
    let exit = match Node::launch(&Options::new(), &node.data) {
        Err(exit) => exit,
        Ok(_) => panic!("two nodes on {}", node.data.display()),
    };
    assert_eq!(exit.code, Some(1), "{exit:#?}");
    assert!(!exit.stderr.contains("panicked"), "{exit:#?}");
    node.publish("app.x", "2");
}

#[test]
fn another_node_number_on_the_same_data_is_refused() {
    let mut node = Node::start(&Options::new());
    node.publish("app.x", "1");
    node.terminate();
    let exit = match Node::launch(&Options::new().arg("--node").arg("2"), &node.data) {
        Err(exit) => exit,
        Ok(_) => panic!("node 2 took the data of node 1"),
    };
    assert!(matches!(exit.code, Some(1 | 2)), "{exit:#?}");
    assert!(!exit.stderr.contains("panicked"), "{exit:#?}");
}
