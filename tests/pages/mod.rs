//! The documents are true: their tables are those of the program, and their examples print what stands below them.

mod browser;
mod tour;

use std::path::{Path, PathBuf};

use rollbook::base::fault::FaultKind;
use rollbook::net::http::status::status;
use rollbook_core::error::Refusal;
use serde_json::Value;

use crate::harness::node::{Node, rollbook, run_command};
use crate::harness::{SOON, report};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    // Asked at run time: clones share what is compiled.
    std::env::var_os("CARGO_MANIFEST_DIR").expect("run by cargo").into()
}

/// The text of a page, by its path from the root of the repository.
pub(crate) fn page(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All pages for users, in the order in which a reader meets them: README, docs, containers, doors, clients.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    let mut all_of = |folder: &str, wanted: fn(&Path) -> bool| {
        let entries = std::fs::read_dir(root().join(folder)).expect("a folder of pages").flatten();
        let mut found: Vec<String> = entries
            .map(|entry| entry.path())
            .map(|path| if path.is_dir() { path.join("README.md") } else { path })
            .filter(|path| path.exists() && wanted(path))
            .map(|path| path.strip_prefix(root()).expect("a path below the root").display().to_string())
            .collect();
        found.sort();
        assert!(!found.is_empty(), "no page in {folder}: this test has gone blind");
        pages.append(&mut found);
    };
    let is_page: fn(&Path) -> bool = |path| path.extension().is_some_and(|ending| ending == "md");
    for folder in ["docs", "docker", "src/doors", "clients"] {
        all_of(folder, is_page);
    }
    pages
}

/// A fenced block; lines are counted from 1.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) language: String,
    /// What is to be done with the block, the second word of its fence: `run`, `serve` or nothing.
    role: String,
    pub(crate) text: String,
    line: usize,
    end: usize,
    /// The line of the heading above, of the first or second order.
    section: usize,
}

/// All fenced blocks in order.
pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut section = 0;
    for (line, content) in (1..).zip(text.lines()) {
        match (open.take(), content.strip_prefix("```")) {
            (None, Some(fence)) => {
                let (language, role) = fence.split_once(' ').unwrap_or((fence, ""));
                let (language, role) = (language.to_owned(), role.to_owned());
                open = Some(Block { language, role, line, section, ..Block::default() });
            }
            (Some(block), Some(_)) => blocks.push(Block { end: line, ..block }),
            (Some(mut block), None) => {
                block.text.push_str(content);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) if content.starts_with("# ") || content.starts_with("## ") => section = line,
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
    (!same).then(|| format!("--- the page says\n{}\n--- it prints\n{}\n---", want.join("\n"), got.join("\n")))
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
fn a_block_knows_its_language_its_role_and_its_section() {
    let blocks = blocks("# A\n```js run\nx\n```\n## B\n```\n# no heading\n```\n```sh\n```\n");
    let seen: Vec<_> = blocks.iter().map(|block| (&*block.language, &*block.role, block.section)).collect();
    assert_eq!(seen, [("js", "run", 1), ("", "", 5), ("sh", "", 5)]);
    assert_eq!((&*blocks[0].text, blocks[0].line, blocks[0].end), ("x\n", 2, 4));
}

#[test]
fn the_readme_is_a_front_page() {
    let lines = page("README.md").lines().count();
    assert!(lines <= 280, "README.md has {lines} lines, at most 280; reference belongs into docs");
}

#[test]
fn the_index_names_every_page_of_the_docs() {
    let index = page("docs/README.md");
    let missing = pages().into_iter().filter_map(|path| {
        let name = path.strip_prefix("docs/").filter(|name| *name != "README.md")?;
        (!index.contains(&format!("]({name})"))).then(|| name.to_owned())
    });
    report("missing in docs/README.md", &missing.collect::<Vec<_>>());
}

#[test]
fn the_table_of_refusals_is_the_list_of_the_program() {
    let mut table = "| number | code | HTTP status | text |\n|---:|---|---:|---|\n".to_owned();
    for refusal in Refusal::all() {
        let (number, code, status) = (refusal.number(), refusal.code(), status(FaultKind::from(&refusal)).as_u16());
        table.push_str(&format!("| {number} | `{code}` | {status} | `{refusal}` |\n"));
    }
    let text = page("docs/refusals.md");
    let there =
        text.split_once("<!-- refusals: begin -->\n").and_then(|(_, rest)| rest.split_once("<!-- refusals: end -->"));
    let (there, _) = there.expect("the markers of the table");
    assert!(there == table, "the table in docs/refusals.md must be:\n\n{table}");
}

/// The settings of the program by key, with their defaults.
fn settings() -> serde_json::Map<String, Value> {
    let mut dump = rollbook();
    dump.args(["config", "dump", "-o", "json"]);
    let exit = run_command(dump, b"", SOON);
    let settings: Value = serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {exit:#?}"));
    let settings = settings.as_object().expect("an object of settings").clone();
    assert!(settings.len() > 10, "only {} settings: this test has gone blind", settings.len());
    settings
}

#[test]
fn every_setting_and_every_metric_is_in_the_tables() {
    let text = page("docs/configuration.md");
    let mut failures = Vec::new();
    for (key, value) in settings() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let variable = format!("ROLLBOOK_{}", key.replace('.', "__").to_uppercase());
        let row = format!("| `{key}` | `{value}` | `{variable}` |");
        if !text.contains(&row) {
            failures.push(row);
        }
    }
    report("missing in docs/configuration.md", &failures);

    let text = page("docs/metrics.md");
    let node = Node::shared();
    let metrics = node.web("GET", "/metrics", "").text();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        if !text.contains(&format!("`{name}`")) {
            failures.push(format!("metric {name}"));
        }
    }
    report("missing in docs/metrics.md", &failures);
}

#[test]
fn every_path_of_the_description_is_on_the_page_of_rest() {
    let description = Node::shared().web("GET", "/openapi.json", "").json();
    let paths = description["paths"].as_object().expect("paths");
    assert!(paths.len() > 20, "only {} paths: this test has gone blind", paths.len());
    let text = page("docs/rest.md");
    let missing = paths.keys().filter(|path| {
        // Siblings stand in one row: `/restart`, `/shutdown`.
        let (parent, last) = path.rsplit_once('/').expect("a path");
        let sibling = format!("`/{last}`");
        !text.lines().any(|row| row.contains(&***path) || (row.contains(parent) && row.contains(&sibling)))
    });
    report("missing in docs/rest.md", &missing.cloned().collect::<Vec<_>>());
}

#[test]
fn every_command_is_on_the_page_of_the_command_line() {
    let mut help = rollbook();
    help.arg("--help");
    let help = run_command(help, b"", SOON).stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 10, "only {commands:?}: this test has gone blind");
    let text = page("docs/command-line.md");
    let missing =
        commands.iter().filter(|command| **command != "help" && !text.contains(&format!("`rollbook {command}")));
    report("missing in docs/command-line.md", &missing.map(ToString::to_string).collect::<Vec<_>>());
}

/// A setting that a page names is one of the program, so that a renamed setting is noticed on every page.
#[test]
fn every_setting_that_a_page_names_exists() {
    let settings = settings();
    let sections: Vec<&str> = settings.keys().filter_map(|key| key.split('.').next()).collect();
    let mut failures = Vec::new();
    let mut named = 0;
    for path in pages() {
        let text = page(&path);
        for span in text.split('`').skip(1).step_by(2) {
            let Some((section, key)) = span.split_once('.') else { continue };
            let plain = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            // Names of files and subjects look like settings; those of settings have one dot and no capital.
            if !sections.contains(&section) || !plain(key) || ["json", "rs", "sh", "toml"].contains(&key) {
                continue;
            }
            named += 1;
            if !settings.contains_key(span) {
                failures.push(format!("{path}: {span}"));
            }
        }
    }
    assert!(named > 60, "only {named} settings seen: this test has gone blind");
    report("settings that do not exist", &failures);
}

/// Sources as one text in which string literals that go over several lines are whole.
fn said_by_the_program() -> String {
    fn walk(folder: &Path, said: &mut String) {
        for entry in std::fs::read_dir(folder).expect("a folder of sources").flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, said);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                for line in std::fs::read_to_string(&path).expect("a source").lines() {
                    let line = line.trim_start();
                    match line.strip_suffix('\\') {
                        Some(line) => said.push_str(line),
                        None => said.extend([line, "\n"]),
                    }
                }
            }
        }
    }
    let mut said = String::new();
    for folder in ["src", "cluster/src", "cluster/core/src"] {
        walk(&root().join(folder), &mut said);
    }
    said
}

#[test]
fn what_troubleshooting_quotes_is_what_the_program_says() {
    let said = said_by_the_program();
    let (mut failures, mut quoted) = (Vec::new(), 0);
    for row in page("docs/troubleshooting.md").lines().filter(|line| line.starts_with("| ")) {
        let symptom = row.split('|').nth(1).unwrap_or_default();
        for text in symptom.split('`').skip(1).step_by(2) {
            quoted += 1;
            if !said.contains(text) {
                failures.push(text.to_owned());
            }
        }
    }
    assert!(quoted > 40, "only {quoted} texts seen: this test has gone blind");
    report("nothing in the sources says", &failures);
}
