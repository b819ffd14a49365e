//! README.md is true: its tables are those of the program, its commands print what stands below them.

use std::os::unix::fs::symlink;
use std::process::Command;

use rollbook::base::fault::FaultKind;
use rollbook::net::http::status::status;
use rollbook_core::error::Refusal;
use serde_json::Value;

use crate::harness::node::{Node, Options, rollbook, run_command};
use crate::harness::{SOON, report};

/// The text of README.md.
pub(crate) fn readme() -> String {
    // Asked at run time: clones share what is compiled.
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo");
    std::fs::read_to_string(format!("{root}/README.md")).expect("README.md")
}

/// A fenced block; lines are counted from 1.
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
    line: usize,
    end: usize,
}

/// All fenced blocks in order.
pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (line, content) in (1..).zip(text.lines()) {
        match (open.take(), content.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(Block { language: language.to_owned(), text: String::new(), line, end: 0 });
            }
            (Some(block), Some(_)) => blocks.push(Block { end: line, ..block }),
            (Some(mut block), None) => {
                block.text.push_str(content);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// Whether a line is the pattern; `...` stands for anything, and one blank for many.
fn is_like(pattern: &str, line: &str) -> bool {
    let tidy = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (pattern, line) = (tidy(pattern), tidy(line));
    let Some((start, tail)) = pattern.split_once("...") else { return pattern == line };
    let Some(mut rest) = line.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = tail.split("...").collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(end)
}

/// Where the output differs from what is expected.
fn difference(expected: &str, output: &str) -> Option<String> {
    let (want, got): (Vec<&str>, Vec<&str>) =
        (expected.trim_end().lines().collect(), output.trim_end().lines().collect());
    let same = want.len() == got.len() && want.iter().zip(&got).all(|(want, got)| is_like(want, got));
    (!same).then(|| format!("--- the README says\n{}\n--- it prints\n{}\n---", want.join("\n"), got.join("\n")))
}

#[test]
fn dots_stand_for_anything_and_nothing_else_does() {
    for (pattern, line) in
        [("a", "a"), ("e_... 4", "e_dc1 4"), ("...", ""), ("a...b...c", "axbxbyc"), ("x  y", " x y\r")]
    {
        assert!(is_like(pattern, line), "{pattern:?} {line:?}");
    }
    for (pattern, line) in [("a", "ab"), ("e_... 4", "e_dc1 5"), ("a...b", "b"), ("a...b", "abc"), ("ab...bc", "abc")] {
        assert!(!is_like(pattern, line), "{pattern:?} {line:?}");
    }
    assert_eq!(difference("a\n\n", "a\n"), None);
    assert!(difference("a\n", "a\nb\n").is_some() && difference("", "b").is_some());
}

#[test]
fn the_tour_prints_what_it_shows() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: there is no curl");
        return;
    }
    let blocks = blocks(&readme());
    let tested: Vec<usize> = (0..blocks.len())
        .filter(|&at| blocks[at].language == "sh" && blocks[at].text.starts_with("# tested\n"))
        .collect();
    assert!(tested.len() > 8, "only {} blocks are marked: this test has gone blind", tested.len());

    let node = Node::start(&Options::new());
    let (log, web) = (node.log.to_string(), node.web.to_string());
    let here = tempfile::tempdir().expect("temporary directory");
    let bin = here.path().join("bin");
    std::fs::create_dir(&bin).expect("a directory for the program");
    symlink(env!("CARGO_BIN_EXE_rollbook"), bin.join("rollbook")).expect("link the program");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());

    // One after the other: each builds on those before.
    for at in tested {
        let block = &blocks[at];
        let script = block.text.replace("127.0.0.1:2021", &log).replace("127.0.0.1:7440", &web);
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("exec 2>&1\n{script}")]).current_dir(here.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROLLBOOK_")) {
            shell.env_remove(name);
        }
        shell.env("PATH", &path);
        shell.env("ROLLBOOK_LOG_URL", format!("http://{log}")).env("ROLLBOOK_WEB_URL", format!("http://{web}"));
        let exit = run_command(shell, b"", SOON * 3);
        // Output belongs to a block when it is the next one and nothing is said between.
        let below = blocks.get(at + 1).filter(|next| next.language == "text" && next.line <= block.end + 2);
        let expected = below.map_or("", |next| &next.text);
        let output = exit.stdout.replace(&log, "127.0.0.1:2021").replace(&web, "127.0.0.1:7440");
        if let Some(difference) = difference(expected, &output) {
            panic!("README.md:{}\n{}{difference}", block.line, block.text);
        }
    }
}

#[test]
fn the_table_of_refusals_is_the_list_of_the_program() {
    let mut table = "| number | code | HTTP status | text |\n|---:|---|---:|---|\n".to_owned();
    for refusal in Refusal::all() {
        let (number, code, status) = (refusal.number(), refusal.code(), status(FaultKind::from(&refusal)).as_u16());
        table.push_str(&format!("| {number} | `{code}` | {status} | `{refusal}` |\n"));
    }
    let text = readme();
    let there =
        text.split_once("<!-- refusals: begin -->\n").and_then(|(_, rest)| rest.split_once("<!-- refusals: end -->"));
    let (there, _) = there.expect("the markers of the table");
    assert!(there == table, "the table in README.md must be:\n\n{table}");
}

#[test]
fn every_setting_and_every_metric_is_in_the_tables() {
    let text = readme();
    let mut failures = Vec::new();
    let mut dump = rollbook();
    dump.args(["config", "dump", "-o", "json"]);
    let exit = run_command(dump, b"", SOON);
    let settings: Value = serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {exit:#?}"));
    let settings = settings.as_object().expect("an object of settings");
    assert!(settings.len() > 10, "only {} settings: this test has gone blind", settings.len());
    for (key, value) in settings {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let variable = format!("ROLLBOOK_{}", key.replace('.', "__").to_uppercase());
        let row = format!("| `{key}` | `{value}` | `{variable}` |");
        if !text.contains(&row) {
            failures.push(row);
        }
    }
    let node = Node::shared();
    let metrics = node.web("GET", "/metrics", "").text();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        if !text.contains(&format!("`{name}`")) {
            failures.push(format!("metric {name}"));
        }
    }
    report("missing in README.md", &failures);
}
