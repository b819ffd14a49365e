//! The log lines of a node, and the last line of a thread that panics.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Write as _;
use std::io;
use std::panic::PanicHookInfo;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::config::settings::Config;
use super::config::values::{LogFormat, log_filter};
use super::lines::Lines;

/// How long a thread that logs an error waits until the line is written. The error may be about to end the process.
const ERROR_WAIT: Duration = Duration::from_millis(250);
/// How long the end of the process waits for the last lines.
const END_WAIT: Duration = Duration::from_secs(1);
/// Threads without which the node cannot go on.
const NODE_THREADS: [&str; 4] = ["raft", "raft-wal", "settle", "feed"];

/// The standard streams of a node.
#[derive(Debug, Clone)]
pub(super) struct StandardStreams {
    log: LogLines,
    /// Standard output, for scripts.
    announcements: Lines,
}

impl StandardStreams {
    /// Writes a line to standard output.
    pub(super) fn announce(&self, text: &str) {
        self.announcements.put(format!("{text}\n").as_bytes());
    }

    /// Waits for the last lines, at most a second for each stream.
    pub(super) fn end(&self) {
        self.announcements.flush(END_WAIT);
        self.log.0.flush(END_WAIT);
    }
}

/// The queue of standard error, in the form that the logger needs.
#[derive(Debug, Clone)]
struct LogLines(Lines);

/// One log line. The logger writes a line with one call of `write_all`.
struct Line<'a> {
    lines: &'a Lines,
    is_error: bool,
}

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.put(bytes);
        if self.is_error {
            self.lines.flush(ERROR_WAIT);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: &self.0, is_error: false }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line { lines: &self.0, is_error: *meta.level() == Level::ERROR }
    }
}

/// Starts the logger. A line that cannot be written is lost. No other code writes to standard error, because a closed
/// stream would cause a panic.
///
/// # Errors
/// The filter is invalid.
pub(super) fn start(config: &Config) -> anyhow::Result<StandardStreams> {
    // The configured filter comes last and wins.
    let configured = log_filter(&config.log.filter).map_err(anyhow::Error::msg).context("log.filter")?;
    let filter = format!("openraft=error,actix_server=warn,{configured}");
    let filter = tracing_subscriber::EnvFilter::try_new(filter).context("log.filter")?;
    let format = config.log.format;
    let notice = match format {
        LogFormat::Text => |lost: u64| format_line(LogFormat::Text, Level::WARN, &lost_lines(lost)),
        LogFormat::Json => |lost: u64| format_line(LogFormat::Json, Level::WARN, &lost_lines(lost)),
    };
    let log = LogLines(Lines::start("log", io::stderr(), notice));
    let announcements = Lines::start("announce", io::stdout(), |_| String::new());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).log_internal_errors(false);
    let builder = builder.with_writer(log.clone());
    // A second call in one process, as in tests, keeps the first logger.
    match format {
        LogFormat::Json => builder.json().try_init().ok(),
        LogFormat::Text => builder.try_init().ok(),
    };
    end_with_node_threads(log.0.clone(), format);
    Ok(StandardStreams { log, announcements })
}

fn lost_lines(lost: u64) -> String {
    format!("{lost} log lines were lost: standard error was not read fast enough")
}

/// Ends the process after a panic on one of [`NODE_THREADS`]. The log is durable, and a node without one of these
/// parts would give wrong answers. A panic of one connection ends only that connection.
fn end_with_node_threads(lines: Lines, format: LogFormat) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        lines.put(format_line(format, Level::ERROR, &last_words(name, panic)).as_bytes());
        lines.flush(END_WAIT);
        if NODE_THREADS.contains(&name) {
            std::process::abort();
        }
    }));
}

fn last_words(thread: &str, panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let why = panic.payload_as_str().unwrap_or("no reason given");
    let backtrace = Backtrace::capture();
    let trace = if backtrace.status() == BacktraceStatus::Captured { format!("\n{backtrace}") } else { String::new() };
    format!("thread {thread} panicked{place}: {why}{trace}")
}

/// Formats a line as the logger would, without the logger, which may have caused the panic.
fn format_line(format: LogFormat, level: Level, text: &str) -> String {
    const TARGET: &str = "rollbook::app";
    let mut time = String::new();
    // A line without its time is better than no line.
    SystemTime.format_time(&mut Writer::new(&mut time)).ok();
    match format {
        LogFormat::Json => {
            let level = level.as_str();
            let line = json!({ "timestamp": time, "level": level, "fields": { "message": text }, "target": TARGET });
            format!("{line}\n")
        }
        LogFormat::Text => {
            let mut line = String::new();
            writeln!(line, "{time} {level:>5} {TARGET}: {text}").ok();
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_its_own_looks_like_those_of_the_logger() {
        let text = format_line(LogFormat::Text, Level::WARN, "x");
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && rest == " WARN rollbook::app: x\n", "{text}");
        let json = format_line(LogFormat::Json, Level::ERROR, "two\nlines");
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&line["level"], &line["fields"]["message"]), (&"ERROR".into(), &"two\nlines".into()));
        assert_eq!(json.matches('\n').count(), 1);
    }
}
