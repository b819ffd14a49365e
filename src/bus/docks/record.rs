//! Lines of processes on their way into a namespace of the book, for whoever wants to read them later.
//!
//! Subject: `NAMESPACE.ID.stdout` or `NAMESPACE.ID.stderr`, in which the dots of the id are dashes; payload: `definition`,
//! `dock`, `text`, an event for each line. Invariant: what waits is bounded in bytes; lines that find no room are counted and
//! told in the book, and no process waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rollbook_core::command::{Command, NamespaceCreate};
use rollbook_core::entry::{begin_publish, finish_publish};
use rollbook_core::error::Refusal;
use rollbook_core::event::Event;
use rollbook_core::namespace::Retention;
use rollbook_core::subjects::subject::Namespace;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::output::{OutputKind, is_id};
use crate::base::clock;
use crate::bus::handle::Bus;

/// Most bytes that wait for the book.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of the lines of one publish, about.
const BATCH_BYTES: usize = 256 * 1024;
/// Most lines of one publish.
const BATCH_LINES: usize = 1000;
/// Longest line; the rest of a longer one is another event.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Most processes whose last line has no end yet.
const OPEN_MAX: usize = 10_000;
/// How long lines may wait for company, so that a line costs less than a publish.
const COMPANY: Duration = Duration::from_millis(100);
/// Pause before a batch is tried again that could not be stored.
const PAUSE: Duration = Duration::from_secs(1);

/// Where lines are recorded, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordConfig {
    /// The namespace, which is made when it is not there.
    pub namespace: Namespace,
    /// How long a namespace that is made so keeps its events.
    pub age_max: Duration,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    is_error: bool,
    id: String,
    dock: String,
    text: String,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    bytes: usize,
    dropped: u64,
    /// The beginnings of lines that have no end yet, by dock, process and stream.
    open: BTreeMap<(String, String, bool), Vec<u8>>,
}

/// Takes output for the book. Clones share one queue.
#[derive(Debug, Clone)]
pub struct LineRecorder {
    config: Arc<RecordConfig>,
    state: Arc<Mutex<State>>,
}

impl LineRecorder {
    /// A recorder into this namespace.
    #[must_use]
    pub fn new(config: RecordConfig) -> Self {
        Self { config: Arc::new(config), state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a process wrote.
    pub fn take(&self, kind: OutputKind, dock: &str, id: &str, data: &[u8]) {
        let is_error = match kind {
            OutputKind::Stdout => false,
            OutputKind::Stderr => true,
            OutputKind::Spawn | OutputKind::Exit => return,
        };
        if is_id(id) {
            self.lock().take(is_error, dock, id, data);
        }
    }

    /// Stores what was taken, until cancelled.
    pub async fn run(self, bus: Bus, stop: CancellationToken) {
        let mut tick = tokio::time::interval(COMPANY);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            loop {
                let lines = self.lock().batch();
                if lines.is_empty() {
                    break;
                }
                if stop.run_until_cancelled(self.store(&bus, &lines)).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Stores lines, again and again while the cluster cannot: meanwhile others wait, up to their bound.
    async fn store(&self, bus: &Bus, lines: &[Line]) {
        let namespace = self.config.namespace.as_str();
        let Some(frame) = frame(namespace, lines) else { return };
        loop {
            match bus.proposer().publish(frame.clone()).await {
                Ok(_) => return,
                Err(Refusal::NamespaceNotFound(_)) => self.create(bus).await,
                Err(refusal @ (Refusal::Unavailable(_) | Refusal::Overloaded(_) | Refusal::InsufficientStorage(_))) => {
                    tracing::debug!(%refusal, "lines of processes wait");
                }
                Err(refusal) => {
                    tracing::warn!(%refusal, lines = lines.len(), "lines of processes are not recorded");
                    return;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn create(&self, bus: &Bus) {
        let age_ms_max = u64::try_from(self.config.age_max.as_millis()).unwrap_or(u64::MAX);
        let retention = Retention { age_ms_max, ..Retention::default() };
        let create = NamespaceCreate { name: self.config.namespace.as_str().to_owned(), retention };
        match bus.proposer().command(Command::NamespaceCreate(create)).await {
            Ok(_) | Err(Refusal::NamespaceExists(_)) => {}
            Err(refusal) => tracing::warn!(%refusal, "the namespace for lines of processes is not there"),
        }
    }
}

impl State {
    fn take(&mut self, is_error: bool, dock: &str, id: &str, data: &[u8]) {
        let key = (dock.to_owned(), id.to_owned(), is_error);
        let mut open = self.open.remove(&key).unwrap_or_default();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let mut rest = piece;
            while !rest.is_empty() {
                let room = LINE_BYTES_MAX.saturating_sub(open.len()).max(1);
                let (part, behind) = rest.split_at_checked(room).unwrap_or((rest, &[]));
                rest = behind;
                open.extend_from_slice(part);
                if part.ends_with(b"\n") || open.len() >= LINE_BYTES_MAX {
                    let text = String::from_utf8_lossy(&open);
                    let text = text.trim_end_matches(['\n', '\r']).to_owned();
                    open.clear();
                    self.push(Line { is_error, id: id.to_owned(), dock: dock.to_owned(), text });
                }
            }
        }
        if !open.is_empty() && self.open.len() < OPEN_MAX {
            self.open.insert(key, open);
        }
    }

    fn push(&mut self, line: Line) {
        let bytes = weight(&line);
        if self.bytes.saturating_add(bytes) > WAITING_BYTES_MAX {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.lines.push(line);
    }

    /// The lines of the next publish.
    fn batch(&mut self) -> Vec<Line> {
        let (mut bytes, mut count) = (0_usize, 0_usize);
        for line in self.lines.iter().take(BATCH_LINES) {
            if count > 0 && bytes >= BATCH_BYTES {
                break;
            }
            bytes = bytes.saturating_add(weight(line));
            count = count.saturating_add(1);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        let mut lines: Vec<Line> = self.lines.drain(..count).collect();
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let text =
                format!("{dropped} lines of processes were not recorded, because the book did not take them in time");
            lines.push(Line { is_error: true, id: "rollbook".to_owned(), dock: String::new(), text });
        }
        lines
    }
}

/// About the bytes that a line takes.
fn weight(line: &Line) -> usize {
    line.text.len().saturating_add(line.id.len()).saturating_add(line.dock.len()).saturating_add(64)
}

fn frame(namespace: &str, lines: &[Line]) -> Option<Bytes> {
    let mut frame = Vec::new();
    begin_publish(&mut frame, namespace).ok()?;
    for Line { is_error, id, dock, text } in lines {
        let stream = if *is_error { "stderr" } else { "stdout" };
        let subject = format!("{namespace}.{}.{stream}", id.replace('.', "-"));
        let payload = json!({ "definition": id, "dock": dock, "text": text }).to_string();
        let event = Event {
            subject: &subject,
            created_at: clock::timestamp(),
            payload: Some(payload.as_bytes()),
            ..Event::default()
        };
        event.encode(&mut frame).ok()?;
    }
    finish_publish(&mut frame, 0, 0, u32::try_from(lines.len()).ok()?).ok()?;
    Some(frame.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn pieces_become_lines_of_their_stream_wherever_they_are_cut() {
        let whole = b"one\ntwo\r\n\nthree";
        for cut in 0..whole.len() {
            let mut state = State::default();
            let (first, rest) = whole.split_at(cut);
            state.take(false, "d", "a", first);
            state.take(true, "d", "a", b"other\n");
            state.take(false, "d", "a", rest);
            state.take(false, "d", "a", b"\n");
            let lines = state.batch();
            let out: Vec<Line> = lines.into_iter().filter(|line| !line.is_error).collect();
            assert_eq!(texts(&out), ["one", "two", "", "three"], "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_line_is_cut_and_what_waits_is_bounded() {
        let mut state = State::default();
        for _ in 0..1000 {
            state.take(false, "d", "a", &[b'x'; 100_000]);
        }
        assert!(state.bytes <= WAITING_BYTES_MAX && state.dropped > 0, "{} {}", state.bytes, state.dropped);
        assert!(state.open.values().all(|open| open.len() < LINE_BYTES_MAX));
        let lines = state.batch();
        assert!(lines.iter().all(|line| line.text.len() <= LINE_BYTES_MAX), "a line is too long");
        assert!(lines.last().is_some_and(|line| line.id == "rollbook" && line.text.contains("were not recorded")));
    }
}
