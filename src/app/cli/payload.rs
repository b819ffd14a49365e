//! A payload: JSON from an argument, a file or standard input.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::value::RawValue;

use super::error::Usage;
use super::lines;

/// The shell eats the outer quotes, which files and standard input do not have.
const SHELL_QUOTES: &str = "; a string needs double quotes inside the shell's: '\"hello\"'";

/// What an argument says, `-` being standard input, or else a file; `None` when there is neither.
///
/// # Errors
/// It cannot be read, or is no JSON.
pub(super) fn read(argument: Option<&str>, file: Option<&Path>) -> anyhow::Result<Option<Box<RawValue>>> {
    let path = match (argument, file) {
        (Some("-"), _) => Path::new("-"),
        (Some(text), _) => return Ok(Some(json(text, "the payload", SHELL_QUOTES)?.to_owned())),
        (None, Some(path)) => path,
        (None, None) => return Ok(None),
    };
    let mut text = String::new();
    let (mut source, _) = lines::open(Some(path))?;
    source.read_to_string(&mut text).with_context(|| format!("cannot read the payload from {}", path.display()))?;
    Ok(Some(json(&text, "the payload", "")?.to_owned()))
}

/// The JSON that a text is.
///
/// # Errors
/// It is none; says so of `what`, and gives this hint.
pub(super) fn json<'a>(text: &'a str, what: &str, hint: &str) -> anyhow::Result<&'a RawValue> {
    serde_json::from_str(text).map_err(|error| Usage(format!("{what} is not JSON ({error}){hint}")).into())
}
