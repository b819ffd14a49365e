//! The output of the commands: lines and tables on standard output, notes and progress on standard error.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// How often a command checks whether standard output has a reader.
const READER_LOOK: Duration = Duration::from_millis(200);

/// The reader of standard output closed the pipe (`| head`). The command ends without a failure.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub(crate) struct Closed;

/// A buffered output that tells a closed pipe from a failure.
pub(in crate::app::cli) struct Out {
    writer: BufWriter<Box<dyn Write>>,
}

impl Out {
    pub(in crate::app::cli) fn stdout() -> Self {
        Self::new(Box::new(io::stdout()))
    }

    pub(in crate::app::cli) fn new(writer: Box<dyn Write>) -> Self {
        Self { writer: BufWriter::with_capacity(64 * 1024, writer) }
    }

    /// Writes the text and a line feed.
    pub(in crate::app::cli) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        let written = self.writer.write_all(text.as_bytes()).and_then(|()| self.writer.write_all(b"\n"));
        written.map_err(from_io)
    }

    /// Writes the buffered text.
    pub(in crate::app::cli) fn flush(&mut self) -> anyhow::Result<()> {
        self.writer.flush().map_err(from_io)
    }
}

fn from_io(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Closed.into()
    } else {
        anyhow::Error::new(error).context("cannot write the output")
    }
}

/// Resolves when the reader of standard output closes the pipe (`| head`). A waiting command would notice only at its
/// next write.
pub(in crate::app::cli) async fn unread() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = io::stdout();
    loop {
        tokio::time::sleep(READER_LOOK).await;
        let mut looked = [PollFd::new(&stdout, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut looked, Some(&now)).is_ok() && looked.iter().any(|one| one.revents().contains(PollFlags::ERR)) {
            return;
        }
    }
}

/// Writes one line to standard output.
///
/// # Errors
/// [`Closed`] when the reader closed the pipe, or another error of the system.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = Out::stdout();
    out.line(text)?;
    out.flush()
}

/// Writes one line to standard error. A closed stream does not stop the command.
pub(in crate::app::cli) fn note(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

/// Formats a table that is as wide as its content, or as the terminal.
pub(in crate::app::cli) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    if io::stdout().is_terminal() {
        table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    }
    table.add_rows(rows);
    table.trim_fmt()
}

/// The unit of a progress bar.
#[derive(Clone, Copy)]
pub(in crate::app::cli) enum Unit {
    Events,
    Bytes,
}

/// A progress bar on standard error, shown only on a terminal. Without a total the bar only counts.
pub(in crate::app::cli) fn progress(total: Option<u64>, unit: Unit) -> ProgressBar {
    let template = match (total, unit) {
        (Some(_), Unit::Events) => "{bar:30} {human_pos}/{human_len} events  {rate}  {eta} left  {msg}",
        (Some(_), Unit::Bytes) => "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}",
        (None, Unit::Events) => "{spinner} {human_pos} events  {rate}  {msg}",
        (None, Unit::Bytes) => "{spinner} {bytes}  {bytes_per_sec}  {msg}",
    };
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) = ProgressStyle::with_template(template) {
        let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
            // A bar that cannot be drawn does not stop the command.
            write!(text, "{:.0}/s", state.per_sec()).ok();
        };
        bar.set_style(style.with_key("rate", rate));
    }
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    bar
}

/// Bytes for people: `1.5 MiB`.
pub(in crate::app::cli) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A count with its noun: `1 event`, `2 events`.
pub(in crate::app::cli) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pipe(io::ErrorKind);

    impl Write for Pipe {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_not_a_failure() {
        let mut out = Out::new(Box::new(Pipe(io::ErrorKind::BrokenPipe)));
        out.line("x").unwrap();
        assert!(out.flush().unwrap_err().is::<Closed>());
        let mut out = Out::new(Box::new(Pipe(io::ErrorKind::StorageFull)));
        out.line("x").unwrap();
        assert!(!out.flush().unwrap_err().is::<Closed>());
    }

    #[test]
    fn a_table_has_its_header_and_rows() {
        let text = table(&["NAME", "EVENTS"], vec![vec!["app".into(), "42".into()]]);
        assert!(text.contains("NAME") && text.contains("app") && text.contains("42"), "{text}");
    }
}
