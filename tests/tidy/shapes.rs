//! How things look: doors, file sizes, words, links, the lock file.

use std::collections::{BTreeMap, BTreeSet};

use super::Tree;
use super::arrows::CRATES;
use super::source::tokens;

const DOOR_FILES: [&str; 3] = ["README.md", "mod.rs", "settings.rs"];
/// What is one file or, in a door with more of it, a folder.
const DOOR_PARTS: [(&str, &str); 3] =
    [("codec.rs", "wire/mod.rs"), ("session.rs", "connection/mod.rs"), ("tests.rs", "wire/tests/mod.rs")];
const LINES_MAX: usize = 500;
/// Most sources in one folder: with more, nobody finds the right one by its name.
const FILES_MAX: usize = 16;
/// Crates that must not be in the tree, with the start of the version when only some are meant.
const BANNED: [(&str, &str); 5] =
    [("h2", "0.3."), ("bincode", ""), ("openssl", ""), ("openssl-sys", ""), ("native-tls", "")];
/// Crates that only one other crate may depend on. ring is banned too, but rustls-webpki names it in a feature
/// that does not switch it on, which is enough for the lock file; what does switch it on shows as a dependency.
const HIDDEN: [(&str, &str); 4] = [
    ("openraft", "rollbook-cluster"),
    ("rocksdb", "rollbook-cluster"),
    ("librocksdb-sys", "rocksdb"),
    ("ring", "rustls-webpki"),
];

pub(crate) fn doors(tree: &Tree) -> Vec<String> {
    let mut doors: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for path in tree.keys().filter_map(|path| path.strip_prefix("src/doors/")) {
        match path.split_once('/') {
            Some((door, file)) => drop(doors.entry(door).or_default().insert(file)),
            None if matches!(path, "mod.rs" | "door.rs") => {}
            None => drop(doors.entry(path).or_default()),
        }
    }
    let mut findings = Vec::new();
    for (door, files) in doors {
        let missing = DOOR_FILES.into_iter().filter(|file| !files.contains(file));
        findings.extend(missing.map(|file| format!("src/doors/{door}: {file} is missing")));
        let parts = DOOR_PARTS.into_iter().filter(|(file, folder)| !files.contains(file) && !files.contains(folder));
        findings.extend(parts.map(|(file, folder)| format!("src/doors/{door}: {file} or {folder} is missing")));
        let odd = files.iter().filter(|file| !DOOR_FILES.contains(file) && !file.ends_with(".rs"));
        findings.extend(odd.map(|file| format!("src/doors/{door}/{file}: no door has such a file")));
    }
    findings
}

pub(crate) fn files(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in tree.iter().filter(|(path, _)| path.ends_with(".rs")) {
        if !text.starts_with("//!") && !text.starts_with("#![doc = include_str!") {
            findings.push(format!("{path}: the first line must say what the file is for (//!)"));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            findings.push(format!("{path}: {lines} lines, split it (at most {LINES_MAX})"));
        }
    }
    findings
}

/// Folders of sources that have become halls.
pub(crate) fn folders(tree: &Tree) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for path in tree.keys().filter(|path| path.ends_with(".rs")) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            *counts.entry(folder).or_default() += 1;
        }
    }
    let halls = counts
        .into_iter()
        .filter(|(folder, count)| CRATES.iter().any(|root| folder.starts_with(root)) && *count > FILES_MAX);
    halls.map(|(folder, count)| format!("{folder}: {count} files, make rooms of it (at most {FILES_MAX})")).collect()
}

/// Results of sends that are thrown away, where `must_tell` or `hint` would say which of the two is meant.
pub(crate) fn sends(tree: &Tree) -> Vec<String> {
    // Nothing of the node: the command line and the benchmark have no actors.
    let aside = |path: &str| path.starts_with("src/app/cli/") || path.starts_with("src/app/bench/");
    let tests = |path: &str| path.ends_with("tests.rs") || path.contains("/conformance");
    let meant = |path: &str| path == "src/base/actors.rs" || aside(path) || tests(path);
    let mut findings = Vec::new();
    for (path, text) in tree.iter().filter(|(path, _)| path.starts_with("src/") && path.ends_with(".rs")) {
        if meant(path) {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            let Some((before, behind)) = line.split_once("send(") else { continue };
            let thrown = behind.contains(").ok();") || behind.contains(").unwrap_or(())") || before.contains("drop(");
            if before.ends_with("do_") || thrown {
                findings.push(format!("{path}:{number}: must it arrive (`must_tell`), or may it be lost (`hint`)?"));
            }
        }
    }
    findings
}

/// Words that do not belong into a finished file, and paths of one machine.
pub(crate) fn words(tree: &Tree) -> Vec<String> {
    let banned = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("/wo", "rk"), concat!("/ro", "ot")];
    let mut findings = Vec::new();
    for (path, text) in tree {
        for (number, line) in (1..).zip(text.lines()) {
            for word in banned {
                let alone = |at: usize| {
                    let joins = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
                    let before = line[..at].chars().next_back().is_some_and(|c| joins(c) || c == '.' || c == '}');
                    !before && !line[at + word.len()..].chars().next().is_some_and(joins)
                };
                if line.match_indices(word).any(|(at, _)| alone(at)) {
                    findings.push(format!("{path}:{number}: {word}"));
                }
            }
        }
    }
    findings
}

/// Every relative link of a Markdown file leads to a file or folder, and its anchor to a heading. A code span right
/// behind a link to a Rust file names something in that file: ``[`a.rs`](a.rs) `Thing::act` ``.
pub(crate) fn links(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in tree.iter().filter(|(path, _)| path.ends_with(".md")) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for line in prose(text) {
            for piece in line.split("](").skip(1) {
                let Some((link, behind)) = piece.split_once(')') else { continue };
                if link.contains(':') {
                    continue;
                }
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { path.clone() } else { joined(folder, file) };
                let folder_of_files = format!("{}/", target.trim_end_matches('/'));
                if !tree.contains_key(&target) && !tree.keys().any(|path| path.starts_with(&folder_of_files)) {
                    findings.push(format!("{path}: nothing is at {link}"));
                }
                let Some(linked) = tree.get(&target) else { continue };
                if !anchor.is_empty() && target.ends_with(".md") && !anchors(linked).contains(anchor) {
                    findings.push(format!("{path}: {target} has no heading for #{anchor}"));
                }
                let Some(name) = behind.strip_prefix(" `") else { continue };
                let name = name.split('`').next().unwrap_or_default();
                let last = name.rsplit("::").next().unwrap_or(name).trim_end_matches("()");
                if target.ends_with(".rs") && !tokens(linked).contains(&last) {
                    findings.push(format!("{path}: {target} has no `{name}`"));
                }
            }
        }
    }
    findings
}

/// The anchors of a Markdown text, made of its headings as GitHub makes them; a repeated one gets a number.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in prose(text).filter(|line| line.starts_with('#')) {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(numbered).find(|anchor| !anchors.contains(anchor));
        anchors.extend(free);
    }
    anchors
}

/// The lines of a Markdown text outside of fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

fn joined(folder: &str, link: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/').filter(|part| !matches!(*part, "." | "")) {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// Looks at the lock file, which holds every crate of every platform: nothing is fetched.
pub(crate) fn lock(lock: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for package in lock.split("[[package]]").skip(1) {
        let field =
            |key: &str| package.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim_matches('"'));
        let (name, version) = (field("name = ").unwrap_or_default(), field("version = ").unwrap_or_default());
        if BANNED.iter().any(|(banned, start)| name == *banned && version.starts_with(start)) {
            findings.push(format!("Cargo.lock: {name} {version} is banned, see .deny.toml"));
        }
        let dependencies = package.lines().filter_map(|line| line.strip_prefix(" \"")?.split(['"', ' ']).next());
        for dependency in dependencies {
            if HIDDEN.iter().any(|(hidden, only)| dependency == *hidden && name != *only) {
                findings.push(format!("Cargo.lock: {name} must not depend on {dependency}, see .deny.toml"));
            }
        }
    }
    findings
}

#[test]
fn a_door_with_a_missing_or_an_odd_file_is_reported() {
    let whole = DOOR_FILES.into_iter().chain(DOOR_PARTS.map(|(file, _)| file));
    let mut tree: Tree = whole.map(|file| (format!("src/doors/sse/{file}"), String::new())).collect();
    tree.remove("src/doors/sse/codec.rs");
    tree.insert("src/doors/sse/wire/mod.rs".to_owned(), String::new());
    tree.insert("src/doors/sse/groups.rs".to_owned(), String::new());
    assert_eq!(doors(&tree), [""; 0]);
    tree.remove("src/doors/sse/session.rs");
    tree.insert("src/doors/sse/notes.txt".to_owned(), String::new());
    tree.insert("src/doors/loose.rs".to_owned(), String::new());
    let findings = doors(&tree);
    assert!(findings.contains(&"src/doors/sse: session.rs or connection/mod.rs is missing".to_owned()), "{findings:?}");
    assert!(findings.contains(&"src/doors/sse/notes.txt: no door has such a file".to_owned()), "{findings:?}");
    assert!(findings.contains(&"src/doors/loose.rs: README.md is missing".to_owned()), "{findings:?}");
}

#[test]
fn a_file_without_a_purpose_or_too_long_is_reported() {
    let lines = |count: usize| format!("//! x\n{}", "\n".repeat(count - 1));
    let tree: Tree =
        [("a.rs", "fn f() {}".to_owned()), ("b.rs", lines(500)), ("c.rs", lines(501)), ("f.md", String::new())]
            .map(|(path, text)| (path.to_owned(), text))
            .into();
    let findings = files(&tree);
    let starts = |at: usize, start: &str| findings[at].starts_with(start);
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(starts(0, "a.rs: the first line") && starts(1, "c.rs: 501"), "{findings:?}");
}

#[test]
fn a_folder_with_too_many_files_is_reported() {
    let many =
        |count: usize| (0..count).map(|number| (format!("src/bus/f{number}.rs"), String::new())).collect::<Tree>();
    assert_eq!(folders(&many(16)), [""; 0]);
    assert_eq!(folders(&many(17)), ["src/bus: 17 files, make rooms of it (at most 16)"]);
}

#[test]
fn a_send_whose_result_is_thrown_away_is_reported() {
    for line in ["a.try_send(M).ok();", "a.send(M).unwrap_or(());", "drop(a.send(M));", "a.do_send(M);"] {
        assert_eq!(sends(&super::tree(&[("src/a.rs", line)])).len(), 1, "{line}");
        assert_eq!(sends(&super::tree(&[("src/base/actors.rs", line), ("src/a/tests.rs", line)])), [""; 0]);
    }
    for line in ["hint(&a, M);", "let sent = a.try_send(M).is_ok();", "a.send(M).await?;"] {
        assert_eq!(sends(&super::tree(&[("src/a.rs", line)])), [""; 0], "{line}");
    }
}

#[test]
fn unfinished_words_and_machine_paths_are_reported() {
    let bad = [concat!("// TO", "DO: x"), concat!("FIX", "ME"), concat!("cd /wo", "rk/main"), concat!("\"/ro", "ot\"")];
    for line in bad {
        assert_eq!(words(&super::tree(&[("a.sh", line)])).len(), 1, "{line}");
    }
    let fine = concat!("src/wo", "rkers /wo", "rkload ./wo", "rk TO", "DOS ${X}/ro", "ot");
    assert_eq!(words(&super::tree(&[("a.sh", fine)])), [""; 0]);
}

#[test]
fn a_link_to_nothing_and_a_name_that_is_gone_are_reported() {
    let map = "# The map `x`
[`a.rs`](bus/a.rs) `A::go`, [up](../README.md#one-more), [room](bus), [web](https://x.y/z), [x](#the-map-x)
```text
[not](a link)
# no heading
```
[gone](bus/b.rs) [`a.rs`](bus/a.rs) `A::stop` [far](../README.md#two) [here](#no-heading) [again](../README.md#one-more-1)";
    let tree = super::tree(&[
        ("src/ARCHITECTURE.md", map),
        ("src/bus/a.rs", "impl A { fn go() {} } // stop"),
        ("README.md", "## One, more!\n### One more\n"),
    ]);
    assert_eq!(
        links(&tree),
        [
            "src/ARCHITECTURE.md: nothing is at bus/b.rs",
            "src/ARCHITECTURE.md: src/bus/a.rs has no `A::stop`",
            "src/ARCHITECTURE.md: README.md has no heading for #two",
            "src/ARCHITECTURE.md: src/ARCHITECTURE.md has no heading for #no-heading"
        ]
    );
}

#[test]
fn a_banned_crate_and_a_leaked_one_are_reported() {
    let lock = "version = 4\n\n[[package]]\nname = \"h2\"\nversion = \"0.3.27\"\n\n[[package]]\nname = \"h2\"\nversion = \"0.4.1\"\n
[[package]]\nname = \"rollbook\"\nversion = \"0.1.0\"\ndependencies = [\n \"ringbuf\",\n \"rocksdb 0.25.0\",\n]\n
[[package]]\nname = \"rollbook-cluster\"\nversion = \"0.1.0\"\ndependencies = [\n \"rocksdb 0.25.0\",\n]\n";
    assert_eq!(
        super::shapes::lock(lock),
        [
            "Cargo.lock: h2 0.3.27 is banned, see .deny.toml",
            "Cargo.lock: rollbook must not depend on rocksdb, see .deny.toml"
        ]
    );
}
