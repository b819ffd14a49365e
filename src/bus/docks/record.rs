//! Lines of processes on their way into a namespace of the book, for whoever wants to read them later.
//!
//! Subject: `NAMESPACE.ID.stdout` or `NAMESPACE.ID.stderr`, in which the dots of the id are dashes; payload: `definition`,
//! `dock`, `text`, an event for each line. Invariant: what waits is bounded in bytes; lines that find no room are counted and
//! told in the book, and no process waits. A line that the end of its process leaves without an end is an event too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rollbook_core::command::{Command, NamespaceCreate};
use rollbook_core::error::Refusal;
use rollbook_core::event::Event;
use rollbook_core::namespace::Retention;
use rollbook_core::subjects::subject::Namespace;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::output::{OutputKind, is_id};
use crate::base::clock;
use crate::bus::error::Fault;
use crate::bus::handle::Bus;
use crate::bus::write::draft;

/// Most bytes that wait for the book.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of the lines of one publish, about.
const BATCH_BYTES: usize = 256 * 1024;
/// Most lines of one publish.
const BATCH_LINES: usize = 1000;
/// Longest line; the rest of a longer one is another event.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of lines that have no end yet; beyond that the pieces are recorded as lines.
const OPEN_BYTES_MAX: usize = 8 * 1024 * 1024;
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
    open_bytes: usize,
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
        if !is_id(id) {
            return;
        }
        match kind {
            OutputKind::Stdout => self.lock().take(false, dock, id, data),
            OutputKind::Stderr => self.lock().take(true, dock, id, data),
            OutputKind::Spawn | OutputKind::Exit => self.lock().end_lines(dock, id),
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
        let frame = match frame(namespace, lines) {
            Ok(frame) => frame,
            Err(fault) => {
                tracing::error!(%fault, lines = lines.len(), "lines of processes cannot be encoded");
                return;
            }
        };
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
        self.open_bytes = self.open_bytes.saturating_sub(weight_open(&key, &open));
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let mut rest = piece;
            while !rest.is_empty() {
                let room = LINE_BYTES_MAX.saturating_sub(open.len()).max(1);
                let (part, behind) = rest.split_at_checked(room).unwrap_or((rest, &[]));
                rest = behind;
                open.extend_from_slice(part);
                if part.ends_with(b"\n") || open.len() >= LINE_BYTES_MAX {
                    self.push_line((dock, id, is_error), &open);
                    open.clear();
                }
            }
        }
        if open.is_empty() {
            return;
        }
        let bytes = weight_open(&key, &open);
        if self.open_bytes.saturating_add(bytes) > OPEN_BYTES_MAX {
            self.push_line((dock, id, is_error), &open);
            return;
        }
        self.open_bytes = self.open_bytes.saturating_add(bytes);
        self.open.insert(key, open);
    }

    /// The process has ended, or begins: what it wrote last has no end to wait for.
    fn end_lines(&mut self, dock: &str, id: &str) {
        for is_error in [false, true] {
            let key = (dock.to_owned(), id.to_owned(), is_error);
            if let Some(open) = self.open.remove(&key) {
                self.open_bytes = self.open_bytes.saturating_sub(weight_open(&key, &open));
                self.push_line((dock, id, is_error), &open);
            }
        }
    }

    fn push_line(&mut self, (dock, id, is_error): (&str, &str, bool), line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\n', '\r']).to_owned();
        self.push(Line { is_error, id: id.to_owned(), dock: dock.to_owned(), text });
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

/// About the bytes that a line without an end takes.
fn weight_open((dock, id, _): &(String, String, bool), open: &[u8]) -> usize {
    open.len().saturating_add(dock.len()).saturating_add(id.len()).saturating_add(64)
}

fn frame(namespace: &str, lines: &[Line]) -> Result<Bytes, Fault> {
    let encoded = lines.iter().map(|Line { is_error, id, dock, text }| {
        let stream = if *is_error { "stderr" } else { "stdout" };
        let subject = format!("{namespace}.{}.{stream}", id.replace('.', "-"));
        (subject, json!({ "definition": id, "dock": dock, "text": text }).to_string())
    });
    let encoded: Vec<(String, String)> = encoded.collect();
    let created_at = clock::timestamp();
    let events = encoded.iter().map(|(subject, payload)| Event {
        subject,
        created_at,
        payload: Some(payload.as_bytes()),
        ..Event::default()
    });
    draft::frame(namespace, &events.collect::<Vec<_>>(), None).map(Bytes::from)
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
    fn a_line_ends_with_its_process_and_is_not_the_beginning_of_what_the_next_one_says() {
        let mut state = State::default();
        state.take(false, "d", "a", b"last words");
        state.take(false, "d", "b", b"of another");
        state.end_lines("d", "a");
        state.take(false, "d", "a", b"first words\n");
        assert_eq!(texts(&state.batch()), ["last words", "first words"]);
        state.end_lines("d", "b");
        assert_eq!((state.open_bytes, texts(&state.batch())), (0, vec!["of another"]));
    }

    #[test]
    fn lines_without_an_end_take_a_bounded_memory() {
        let mut state = State::default();
        for number in 0..2000 {
            state.take(false, "d", &number.to_string(), &[b'x'; 10_000]);
        }
        assert!(state.open_bytes <= OPEN_BYTES_MAX, "{}", state.open_bytes);
        assert!(!state.lines.is_empty(), "what finds no room is a line of its own");
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
