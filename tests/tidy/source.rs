//! Reads what a source file imports, without a parser: words, brackets and `use` trees.

/// Identifiers, `::` and single characters of a source text; comments and literals are left out.
pub(crate) fn tokens(text: &str) -> Vec<&str> {
    let (bytes, mut found, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let (rest, start) = (&text[at..], at);
        let end = |needle: &str, from: usize| rest[from..].find(needle).map_or(rest.len(), |n| n + from + needle.len());
        if rest.starts_with("//") {
            at += end("\n", 0);
        } else if rest.starts_with("/*") {
            at += block_comment(rest);
        } else if let Some(hashes) = raw_string(rest) {
            let open = rest.find('"').unwrap_or(0) + 1;
            at += end(&format!("\"{}", "#".repeat(hashes)), open);
        } else if rest.starts_with('"') || rest.starts_with("b\"") {
            at += quoted(rest, b'"');
        } else if rest.starts_with('\'') || rest.starts_with("b'") {
            let quote = rest.find('\'').unwrap_or(0);
            let mut inner = rest[quote + 1..].chars();
            let character = inner.next() == Some('\\') || inner.next() == Some('\'');
            // Otherwise a lifetime.
            at += if character { quoted(rest, b'\'') } else { quote + 1 };
        } else if is_word(bytes[at]) {
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
            found.push(&text[start..at]);
        } else {
            at += if rest.starts_with("::") { 2 } else { 1 };
            found.extend(Some(&text[start..at]).filter(|token| !token.trim().is_empty()));
        }
    }
    found
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match rest.as_bytes().get(at..at + 2) {
            Some(b"/*") => depth += 1,
            Some(b"*/") => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Number of `#` of a raw string that starts here.
fn raw_string(rest: &str) -> Option<usize> {
    let rest = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('r')?;
    let quoted = rest.trim_start_matches('#');
    quoted.starts_with('"').then_some(rest.len() - quoted.len())
}

fn quoted(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = rest.find(char::from(quote)).unwrap_or(0) + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// What one file says about others. Code that only exists in tests is left out.
#[derive(Default)]
pub(crate) struct Said {
    /// Paths of imports, from the crate's root; `?` first when they may also be of another crate.
    pub(crate) paths: Vec<Vec<String>>,
    /// Child modules that only exist in tests.
    pub(crate) test_modules: Vec<String>,
    /// Whether it re-exports something.
    pub(crate) reexports: bool,
}

pub(crate) fn read(module: &[String], text: &str) -> Said {
    let tokens = tokens(text);
    let (mut said, mut here, mut depth, mut at) = (Said::default(), vec![], 0_usize, 0);
    while at < tokens.len() {
        let next = |n: usize| tokens.get(at + n).copied().unwrap_or_default();
        match tokens[at] {
            "#" if next(1) == "[" => {
                let end = closing(&tokens, at + 1);
                let attribute = tokens[at + 2..end].concat();
                at = end + 1;
                if attribute == "cfg(test)" || attribute.starts_with("cfg(all(test") {
                    let item = skip_item(&tokens, at);
                    let names = tokens[at..item].iter().skip_while(|token| **token != "mod").skip(1);
                    said.test_modules.extend(names.take(1).map(|name| (*name).to_owned()));
                    at = item;
                }
                continue;
            }
            "mod" if next(2) == "{" => here.push((next(1).to_owned(), depth)),
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                here.pop_if(|(_, outer)| *outer == depth);
            }
            "use" if next(1) != "<" => {
                said.reexports |= at > 0 && matches!(tokens[at - 1], "pub" | ")");
                let mut paths = Vec::new();
                at = flatten(&tokens, at + 1, &[], &mut paths);
                said.paths.extend(paths.iter().map(|path| rooted(module, &here, path)));
                continue;
            }
            // Who may see an item is no arrow.
            "(" if next(1) == "in" => at = closing(&tokens, at),
            "crate" | "super" | "self" if next(1) == "::" => {
                let names = tokens[at..].chunks(2).take_while(|pair| is_word(pair[0].as_bytes()[0]));
                let mut path: Vec<&str> = Vec::new();
                for pair in names {
                    path.push(pair[0]);
                    if pair.get(1) != Some(&"::") {
                        break;
                    }
                }
                said.paths.push(rooted(module, &here, &path));
                at += path.len() * 2 - 2;
            }
            _ => {}
        }
        at += 1;
    }
    said
}

/// Index of the bracket that closes the one at `at`.
fn closing(tokens: &[&str], at: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match *token {
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return index;
        }
    }
    tokens.len()
}

/// Index behind the item that starts at `at`, its other attributes included.
fn skip_item(tokens: &[&str], mut at: usize) -> usize {
    while at < tokens.len() {
        match tokens[at] {
            ";" => return at + 1,
            "{" => return (closing(tokens, at) + 1).min(tokens.len()),
            "[" | "(" => at = closing(tokens, at) + 1,
            // The braces of an import do not end it.
            "use" => return tokens[at..].iter().position(|token| *token == ";").map_or(tokens.len(), |n| at + n + 1),
            _ => at += 1,
        }
    }
    at
}

/// Reads one import tree from `at`; gives the index behind its `;`, `,` or `}`.
fn flatten<'a>(tokens: &[&'a str], mut at: usize, prefix: &[&'a str], paths: &mut Vec<Vec<&'a str>>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(at).copied() {
        at += 1;
        match token {
            "{" => {
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    at = flatten(tokens, at, &path, paths);
                }
                at += 1;
                path.clear();
            }
            "," | ";" => break,
            "}" => {
                at -= 1;
                break;
            }
            // The new name does not matter.
            "as" => at += 1,
            "::" => {}
            name => path.push(name),
        }
    }
    if path.len() > prefix.len() {
        paths.push(path);
    }
    at
}

fn rooted(module: &[String], here: &[(String, usize)], path: &[&str]) -> Vec<String> {
    let mut base: Vec<String> = module.iter().chain(here.iter().map(|(name, _)| name)).cloned().collect();
    let mut rest = path;
    match path.first().copied() {
        Some("crate" | "rollbook") => (base, rest) = (vec![], &path[1..]),
        Some("self" | "super") => {}
        _ => base.insert(0, "?".to_owned()),
    }
    while let Some((first @ ("self" | "super"), others)) = rest.split_first().map(|(first, others)| (*first, others)) {
        if first == "super" {
            base.pop();
        }
        rest = others;
    }
    base.extend(rest.iter().map(|name| (*name).to_owned()));
    base
}

#[test]
fn comments_and_literals_hide_nothing_and_show_nothing() {
    let text = r##"
        // use crate::a;
        /* use crate::b; /* nested */ use crate::c; */
        const T: &str = "use crate::d; \" use crate::e;";
        const R: &str = r#"use crate::f; " "#;
        const C: (char, char, u8) = ('"', '\'', b'"');
        fn x<'a>(it: &'a str) -> impl Iterator + use<'a> { it }
        use crate::g;
    "##;
    assert_eq!(read(&[], text).paths, [["g"]]);
}

#[cfg(test)]
fn paths(module: &[&str], text: &str) -> Vec<String> {
    let module: Vec<String> = module.iter().map(|name| (*name).to_owned()).collect();
    read(&module, text).paths.iter().map(|path| path.join("::")).collect()
}

#[test]
fn import_trees_are_flattened_and_resolved() {
    assert_eq!(
        paths(&["bus", "feed"], "use super::{handle::{Bus, Live as L}, self as up, item::*}; use std::fmt;"),
        ["bus::handle::Bus", "bus::handle::Live", "bus", "bus::item::*", "?::bus::feed::std::fmt"]
    );
    assert_eq!(paths(&["bus"], "pub(crate) use self::item::Item; use rollbook::app;"), ["bus::item::Item", "app"]);
}

#[test]
fn arrows_inside_functions_and_inline_modules_are_seen() {
    assert_eq!(paths(&["a"], "fn f() { use crate::b::c; crate::d::e::<u8>(); }"), ["b::c", "d::e"]);
    assert_eq!(paths(&["a"], "mod inner { use super::super::b; } fn g() { super::c::d() }"), ["b", "c::d"]);
    assert_eq!(paths(&["a"], "pub(in crate::b) fn f() {} pub(super) fn g(&self) { self.x }"), [""; 0]);
}

#[test]
fn code_of_tests_is_left_out() {
    let text = "#[cfg(test)] #[path = \"x\"] mod tests; #[cfg(test)] use crate::{a, b}; use crate::c;
        #[cfg(test)] mod inner { use crate::d; fn f() { {} } } #[cfg(all(test, unix))] fn g() { crate::e::f() }
        #[cfg(any(test, debug_assertions))] fn h() { crate::i::j() }";
    let said = read(&[], text);
    assert_eq!(said.paths, [vec!["c"], vec!["i", "j"]]);
    assert_eq!(said.test_modules, ["tests", "inner"]);
}

#[test]
fn re_exports_are_told_from_imports() {
    assert!(read(&[], "pub use a::B;").reexports && read(&[], "pub(crate) use a::B;").reexports);
    assert!(!read(&[], "use a::B; pub fn f() { use c::D; }").reexports);
}
