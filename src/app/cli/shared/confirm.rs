//! Commands that take something away for good are carried out only for whoever meant it.

use std::io::{self, BufRead, IsTerminal};

use super::error::Usage;
use super::output::note;

/// Whether the command has to ask before it does `what`: not when the caller has said `yes`.
///
/// # Errors
/// [`Usage`] when there is no terminal to ask on: a question that nobody sees, or whose answer would be the input of a
/// script, is no question.
pub(in crate::app::cli) fn has_to_ask(yes: bool, what: &str) -> Result<bool, Usage> {
    if yes {
        return Ok(false);
    }
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        return Ok(true);
    }
    Err(Usage(format!("{what} is for good, and there is no terminal to ask on: pass --yes; nothing was changed")))
}

/// Asks on the terminal: `word` is what has to be typed.
///
/// # Errors
/// [`Usage`] when another word was typed.
pub(in crate::app::cli) fn ask(question: &str, word: &str) -> anyhow::Result<()> {
    note(&format!("{question} Type {word} to go on:"));
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed)?;
    if typed.trim() == word { Ok(()) } else { Err(Usage("nothing was changed".to_owned()).into()) }
}
