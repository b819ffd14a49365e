//! A payload: JSON from an argument, a file or standard input.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::value::RawValue;

use super::error::Usage;
use super::lines;
use super::output::note;

/// After so long without the end of the payload it is said that it is waited for.
const HINT_AFTER: Duration = Duration::from_secs(2);
/// The shell eats the outer quotes, which files and standard input do not have.
const SHELL_QUOTES: &str = "; a string needs double quotes inside the shell's: '\"hello\"'";

/// What an argument says, `-` being standard input, or else a file, or else what is `piped` in; `None` when there is
/// neither, or nothing comes through the pipe.
///
/// # Errors
/// It cannot be read, or is no JSON.
pub(in crate::app::cli) fn read(
    argument: Option<&str>,
    file: Option<&Path>,
    piped: bool,
) -> anyhow::Result<Option<Box<RawValue>>> {
    let path = match (argument, file) {
        (Some("-"), _) => Path::new("-"),
        (Some(text), _) => return Ok(Some(json(text, "the payload", SHELL_QUOTES)?.to_owned())),
        (None, Some(path)) => path,
        (None, None) if piped => return from_pipe(),
        (None, None) => return Ok(None),
    };
    let text = text_of(path)?;
    Ok(Some(json(&text, "the payload", "")?.to_owned()))
}

/// What comes through the pipe, when anything does. Whoever did not mean to give a payload is told what is waited for.
fn from_pipe() -> anyhow::Result<Option<Box<RawValue>>> {
    let (read, reads) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if reads.recv_timeout(HINT_AFTER) == Err(mpsc::RecvTimeoutError::Timeout) {
            note("waiting for the payload on standard input; for an event without one, give it </dev/null");
        }
    });
    let text = text_of(Path::new("-"))?;
    drop(read);
    if text.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(json(&text, "the payload on standard input", "")?.to_owned()))
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let (mut source, _) = lines::open(Some(path))?;
    source.read_to_string(&mut text).with_context(|| format!("cannot read the payload from {}", path.display()))?;
    Ok(text)
}

/// Whether standard input is a pipe or a file: then it is the payload, when no other is given. A terminal, /dev/null (the
/// standard input of cron jobs and services) and a socket (which some programs leave open for good) are not.
pub(in crate::app::cli) fn is_piped() -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    let Ok(input) = io::stdin().as_fd().try_clone_to_owned() else { return false };
    let Ok(metadata) = File::from(input).metadata() else { return false };
    metadata.file_type().is_fifo() || metadata.is_file()
}

/// The JSON that a text is.
///
/// # Errors
/// It is none; says so of `what`, and gives this hint.
pub(in crate::app::cli) fn json<'a>(text: &'a str, what: &str, hint: &str) -> anyhow::Result<&'a RawValue> {
    serde_json::from_str(text).map_err(|error| Usage(format!("{what} is not JSON ({error}){hint}")).into())
}
