//! The house rules that no compiler checks: arrows, circles, doors, sizes, the map, dependencies.
//!
//! Each check is a function over paths and texts, and has a test that shows it a violation.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking, and reads only files of this repository"
)]

#[path = "tidy/arrows.rs"]
mod arrows;
#[path = "tidy/clients.rs"]
mod clients;
#[path = "tidy/shapes.rs"]
mod shapes;
#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeMap;
use std::path::Path;

/// Not part of the project: build output, stores, fetched packages.
const SKIPPED: [&str; 4] = [".git", "target", "data", "node_modules"];

/// All text files, by path from the root of the repository.
type Tree = BTreeMap<String, String>;

fn house() -> Tree {
    // Asked at run time: clones share what is compiled.
    let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("run by cargo");
    let root = Path::new(&root);
    let mut tree = Tree::new();
    walk(root, root, &mut tree);
    assert!(tree.contains_key("src/main.rs") && tree.len() > 100, "this is not the repository: {}", root.display());
    tree
}

fn walk(root: &Path, folder: &Path, tree: &mut Tree) {
    for entry in std::fs::read_dir(folder).expect("list a folder of the repository") {
        let entry = entry.expect("read an entry");
        let (path, name) = (entry.path(), entry.file_name());
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if entry.file_type().expect("type of an entry").is_dir() {
            walk(root, &path, tree);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            // What is not text is none of our business.
            let path = path.strip_prefix(root).expect("a path below the root");
            tree.insert(path.to_str().expect("a name in UTF-8").to_owned(), text);
        }
    }
}

fn clean(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings\n  {}\n", findings.len(), findings.join("\n  "));
}

/// A repository of these files, for the tests of the checks.
#[cfg(test)]
fn tree(files: &[(&str, &str)]) -> Tree {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn arrows_point_down_and_doors_stand_apart() {
    clean(&arrows::floors(&house()));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let house = house();
    for root in arrows::CRATES {
        let seen: usize = arrows::arrows(&house, root).values().map(|targets| targets.len()).sum();
        assert!(seen > 20, "only {seen} imports seen in {root}: this test has gone blind");
    }
    clean(&arrows::circles(&house));
    for (folder, ending) in clients::CLIENTS {
        let seen: usize = clients::imports(&house, folder, ending).values().map(|targets| targets.len()).sum();
        assert!(seen > 3, "only {seen} imports seen in {folder}: this test has gone blind");
    }
    clean(&clients::circles(&house));
}

#[test]
fn rooms_re_export_nothing() {
    clean(&arrows::reexports(&house()));
}

#[test]
fn raft_and_rocksdb_stay_inside_the_cluster_crate() {
    clean(&arrows::hidden_crates(&house()));
}

#[test]
fn doors_are_alike() {
    let house = house();
    assert!(house.contains_key("src/doors/sse/mod.rs"), "no door was seen: this test has gone blind");
    clean(&shapes::doors(&house));
}

#[test]
fn files_say_what_they_are_for_and_are_short() {
    clean(&shapes::files(&house()));
}

#[test]
fn folders_are_rooms_and_no_halls() {
    clean(&shapes::folders(&house()));
}

#[test]
fn what_is_sent_to_an_actor_must_arrive_or_may_be_lost() {
    clean(&shapes::sends(&house()));
}

#[test]
fn nothing_unfinished_and_no_path_of_one_machine() {
    clean(&shapes::words(&house()));
}

#[test]
fn links_lead_somewhere_and_the_map_names_what_is_there() {
    let house = house();
    assert!(house.contains_key("src/ARCHITECTURE.md"), "the map is missing");
    clean(&shapes::links(&house));
}

#[test]
fn dependencies_are_the_ones_agreed_on() {
    clean(&shapes::lock(&house()["Cargo.lock"]));
}
