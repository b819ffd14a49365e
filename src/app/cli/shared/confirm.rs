//! Asks for a confirmation before a command deletes something for good.

use std::io::{self, BufRead, IsTerminal};

use super::error::Usage;
use super::output::note;

/// Whether the command has to ask before it does `what`: not after `--yes`.
///
/// # Errors
/// [`Usage`] when there is no terminal. A question in a script would be unseen, or the input of the script would
/// answer it.
pub(in crate::app::cli) fn has_to_ask(yes: bool, what: &str) -> Result<bool, Usage> {
    if yes {
        return Ok(false);
    }
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        return Ok(true);
    }
    Err(Usage(format!("{what} is for good, and there is no terminal to ask on: pass --yes; nothing was changed")))
}

/// Asks on the terminal. The user has to type `word`.
///
/// # Errors
/// [`Usage`] when the user types another word.
pub(in crate::app::cli) fn ask(question: &str, word: &str) -> anyhow::Result<()> {
    note(&format!("{question} Type {word} to go on:"));
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed)?;
    if typed.trim() == word { Ok(()) } else { Err(Usage("nothing was changed".to_owned()).into()) }
}
