//! Reads a payload: JSON from an argument, a file or standard input.

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

/// A command that waits this long for the end of the payload says so.
const HINT_AFTER: Duration = Duration::from_secs(2);
/// A hint for JSON in an argument: the shell removes the outer quotes.
const SHELL_QUOTES: &str = "; a string needs double quotes inside the shell's: '\"hello\"'";

/// Reads the payload from an argument (`-` means standard input), else from a file, else from a pipe. `None` means
/// that there is no payload.
///
/// # Errors
/// The payload cannot be read, or is not JSON.
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

/// Reads the payload from the pipe, if anything comes. A note tells a caller who meant no payload what the command
/// waits for.
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

/// Whether standard input is a pipe or a file, and so the payload when there is no other. A terminal, /dev/null (the
/// standard input of cron jobs and services) and a socket (which some programs never close) are not.
pub(in crate::app::cli) fn is_piped() -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    let Ok(input) = io::stdin().as_fd().try_clone_to_owned() else { return false };
    let Ok(metadata) = File::from(input).metadata() else { return false };
    metadata.file_type().is_fifo() || metadata.is_file()
}

/// Checks that a text is JSON.
///
/// # Errors
/// The text is not JSON. The error names `what` and gives this hint.
pub(in crate::app::cli) fn json<'a>(text: &'a str, what: &str, hint: &str) -> anyhow::Result<&'a RawValue> {
    serde_json::from_str(text).map_err(|error| Usage(format!("{what} is not JSON ({error}){hint}")).into())
}
