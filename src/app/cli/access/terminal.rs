//! Questions whose answers are secrets: the terminal does not show what is typed.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::ctrl_c;
use tokio::task::spawn_blocking;

use super::secret::Secret;

/// Longest line that is read, in bytes: a large JWT with room to spare.
const LINE_BYTES_MAX: u64 = 20 * 1024;

/// Whether somebody sits at standard input.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal()
}

/// Reads one line that everybody may see. On a terminal the question is asked first.
///
/// # Errors
/// The input has ended or cannot be read, or the user interrupted the question.
pub(crate) async fn ask(question: &str) -> anyhow::Result<String> {
    line(question).await
}

/// Reads one line that nobody may see. On a terminal the question is asked first, and what is typed is not shown.
///
/// # Errors
/// The input has ended or cannot be read, the terminal cannot be told to hide the answer, or the user interrupted the
/// question.
pub(crate) async fn ask_secret(question: &str) -> anyhow::Result<Secret> {
    let hidden = is_there().then(HiddenInput::start).transpose();
    let hidden = hidden.context("the terminal cannot hide what is typed; pass the secret in by a pipe")?;
    let answer = line(question).await.map(Secret::new);
    if hidden.is_some() {
        // The line feed that was typed was not shown either.
        writeln!(io::stderr()).ok();
    }
    answer
}

async fn line(question: &str) -> anyhow::Result<String> {
    if is_there() {
        let mut stderr = io::stderr();
        // Without a reader of the question, the answer may still come.
        write!(stderr, "{question}: ").and_then(|()| stderr.flush()).ok();
    }
    let read = spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().take(LINE_BYTES_MAX).read_line(&mut line).map(|count| (count, line))
    });
    // Ending here, and not by the signal itself, gives the terminal back as it was.
    let (count, line) = tokio::select! {
        read = read => read?.context("cannot read standard input")?,
        _ = ctrl_c() => bail!("interrupted; nothing was changed"),
    };
    if count == 0 {
        bail!("standard input ended before the {}", question.to_lowercase());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Hides what is typed until this value is dropped.
struct HiddenInput {
    before: Termios,
}

impl HiddenInput {
    fn start() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hiding = before.clone();
        hiding.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hiding)?;
        Ok(Self { before })
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing back.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.before).ok();
    }
}
