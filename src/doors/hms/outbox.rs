//! What waits to be written to one client or dock: answers, and output of processes that it follows.
//!
//! Invariant: what waits is bounded in bytes. Output that finds no room is dropped and counted, and the client is told as
//! soon as there is room; a client that does not read its own answers is slow, and is disconnected.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::Notify;

use super::wire::message::Message;
use super::wire::op::Op;
use crate::bus::docks::output::{Gaps, Output, OutputKind};

/// The largest buffer that is kept for what comes next.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Most processes whose losses are told one by one.
const LOSSES_MAX: usize = 1024;
/// Bytes of starts and ends of processes beyond the bound for output: they are few, and clients count on them.
const EVENT_BYTES: usize = 1024 * 1024;

/// What a client has missed of one process.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Loss {
    messages: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    /// What is written next.
    bytes: BytesMut,
    /// Bytes that the writer has taken and not written yet.
    taken: usize,
    /// By id and dock.
    losses: BTreeMap<(String, String), Loss>,
    gaps: Gaps,
    /// Whether the writer waits for something to write.
    sleeping: bool,
    /// The client does not read its answers.
    slow: bool,
    /// Nothing more follows.
    ended: bool,
}

/// What waits for one client or dock.
#[derive(Debug)]
pub(super) struct Outbox {
    bytes_max: usize,
    state: Mutex<State>,
    more: Notify,
}

impl Outbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default(), more: Notify::new() }
    }

    /// Nothing that could leave the state in two parts runs under the lock, so a poisoned state is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what the connection says. Returns whether the client still reads: what waited before this is counted, so that
    /// whoever reads may ask for an answer of any length.
    pub(super) fn say<E>(&self, write: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> bool {
        let mut state = self.lock();
        let waiting = state.bytes.len().saturating_add(state.taken);
        // What is too long for a frame is longer than any bound.
        let written = write(&mut state.bytes).is_ok();
        state.slow |= !written || waiting > self.bytes_max.saturating_mul(2).saturating_add(EVENT_BYTES);
        let wakes = std::mem::take(&mut state.sleeping);
        let reads = !state.slow;
        drop(state);
        if wakes {
            self.more.notify_one();
        }
        reads
    }

    /// Appends a message of a process, or counts it as lost. Returns whether the writer sleeps, so that
    /// [`Outbox::wake`] has to follow.
    pub(super) fn deliver(&self, output: Output) -> bool {
        let mut state = self.lock();
        if state.ended || state.slow {
            return false;
        }
        let missed = state.gaps.before(&output);
        if missed > 0 {
            state.lose(&output, Loss { messages: missed, bytes: 0 });
        }
        let waiting = state.bytes.len().saturating_add(state.taken);
        let is_event = matches!(output.kind, OutputKind::Spawn | OutputKind::Exit);
        let bound = if is_event { self.bytes_max.saturating_add(EVENT_BYTES) } else { self.bytes_max };
        let length = output.data.len();
        if waiting.saturating_add(length) > bound && waiting > 0 {
            state.lose(&output, Loss { messages: 1, bytes: u64::try_from(length).unwrap_or(u64::MAX) });
            return state.sleeping;
        }
        let op = match output.kind {
            OutputKind::Stdout => Op::Stdout,
            OutputKind::Stderr => Op::Stderr,
            OutputKind::Spawn => Op::Spawn,
            OutputKind::Exit => Op::Exit,
        };
        let message = Message::new(op, output.id).with_origin(output.dock).with_payload(output.data);
        if message.encode_message(&mut state.bytes).is_err() {
            tracing::debug!("a message of a process is too long for a frame");
        }
        state.sleeping
    }

    /// Wakes the writer.
    pub(super) fn wake(&self) {
        if std::mem::take(&mut self.lock().sleeping) {
            self.more.notify_one();
        }
    }

    /// Takes what waits, in exchange for an empty buffer; waits for something. `false`: everything is written, and nothing
    /// more follows.
    pub(super) async fn take(&self, empty: &mut BytesMut) -> bool {
        if empty.capacity() > KEPT_BYTES_MAX {
            *empty = BytesMut::new();
        }
        empty.clear();
        loop {
            {
                let mut state = self.lock();
                state.taken = 0;
                state.tell_losses(self.bytes_max);
                if !state.bytes.is_empty() {
                    std::mem::swap(&mut state.bytes, empty);
                    state.taken = empty.len();
                    return true;
                }
                if state.ended {
                    return false;
                }
                *empty = BytesMut::new();
                state.sleeping = true;
            }
            self.more.notified().await;
        }
    }

    /// So many bytes of what was taken are written.
    pub(super) fn written(&self, bytes: usize) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(bytes);
    }

    /// Nothing more follows.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.more.notify_one();
    }

    /// Bytes that wait, those included that are being written.
    pub(super) fn waiting(&self) -> usize {
        let state = self.lock();
        state.bytes.len().saturating_add(state.taken)
    }
}

impl State {
    fn lose(&mut self, output: &Output, loss: Loss) {
        let key = (output.id.clone(), output.dock.clone());
        if self.losses.len() >= LOSSES_MAX && !self.losses.contains_key(&key) {
            return;
        }
        let sum = self.losses.entry(key).or_default();
        sum.messages = sum.messages.saturating_add(loss.messages);
        sum.bytes = sum.bytes.saturating_add(loss.bytes);
    }

    /// Says what was lost, as a line of the process, when there is room for what follows.
    fn tell_losses(&mut self, bytes_max: usize) {
        if self.losses.is_empty() || self.bytes.len() > bytes_max / 2 {
            return;
        }
        for ((id, dock), Loss { messages, bytes }) in std::mem::take(&mut self.losses) {
            let line = format!(
                "rollbook: {messages} messages ({bytes} bytes) of this process were dropped, because they were not read fast enough\n"
            );
            let message = Message::new(Op::Stderr, id).with_origin(dock).with_payload(line);
            if message.encode_message(&mut self.bytes).is_err() {
                tracing::debug!("the id of a process is too long for a frame");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::doors::hms::wire::decoder::Decoder;

    fn output(number: u64, kind: OutputKind, bytes: usize) -> Output {
        Output { kind, id: "app".to_owned(), dock: "d1".to_owned(), number, data: Bytes::from(vec![b'x'; bytes]) }
    }

    fn messages(bytes: &[u8]) -> Vec<Message> {
        let mut decoder = Decoder::new(1 << 20);
        decoder.feed(bytes);
        std::iter::from_fn(|| decoder.next_frame().unwrap()).map(|frame| Message::parse(&frame.body).unwrap()).collect()
    }

    async fn taken(outbox: &Outbox) -> Vec<Message> {
        let mut bytes = BytesMut::new();
        assert!(outbox.take(&mut bytes).await);
        let all = messages(&bytes);
        outbox.written(bytes.len());
        all
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_holds_a_bounded_memory_and_is_told_what_it_missed() {
        let outbox = Outbox::new(10_000);
        for number in 1..=1000 {
            outbox.deliver(output(number, OutputKind::Stdout, 100));
        }
        assert!(outbox.waiting() < 12_000, "{}", outbox.waiting());
        let first = taken(&outbox).await;
        let second = taken(&outbox).await;
        let told = second.first().unwrap();
        let line = String::from_utf8_lossy(&told.payload).into_owned();
        assert_eq!((told.op, told.id.as_str(), told.origin()), (Op::Stderr, "app", "d1"));
        assert!(line.contains(&format!("{} messages", 1000 - first.len())), "{line}");
        assert!(first.len() > 50, "{}", first.len());
    }

    #[tokio::test]
    async fn starts_and_ends_of_processes_find_room_where_output_does_not() {
        let outbox = Outbox::new(1000);
        for number in 1..=100 {
            outbox.deliver(output(number, OutputKind::Stdout, 100));
        }
        outbox.deliver(Output { data: "7".into(), ..output(101, OutputKind::Exit, 0) });
        let last = taken(&outbox).await.pop().unwrap();
        assert_eq!((last.op, &last.payload[..]), (Op::Exit, &b"7"[..]));
    }

    #[tokio::test]
    async fn what_is_missing_between_nodes_is_told_too() {
        let outbox = Outbox::new(1000);
        outbox.deliver(output(4, OutputKind::Stdout, 1));
        outbox.deliver(output(9, OutputKind::Stdout, 1));
        let told = taken(&outbox).await.pop().unwrap();
        assert!(String::from_utf8_lossy(&told.payload).contains("4 messages"), "{told:?}");
    }

    #[tokio::test]
    async fn an_answer_may_be_longer_than_the_bound_but_many_are_not_kept_for_who_does_not_read() {
        let outbox = Outbox::new(1000);
        let say = |bytes: usize| {
            outbox.say(|out| {
                out.extend_from_slice(&vec![b'x'; bytes]);
                Ok::<_, Infallible>(())
            })
        };
        assert!(say(4 * EVENT_BYTES), "the first answer is longer than the bound");
        assert!(!say(1), "what waits is over the bound already");
    }

    #[tokio::test]
    async fn the_writer_ends_when_everything_is_written() {
        let outbox = Outbox::new(1000);
        assert!(outbox.say(|out| {
            out.extend_from_slice(b"last");
            Ok::<_, Infallible>(())
        }));
        outbox.end();
        let mut bytes = BytesMut::new();
        assert!(outbox.take(&mut bytes).await);
        assert_eq!(&bytes[..], b"last");
        assert_eq!(outbox.take(&mut bytes).now_or_never(), Some(false));
    }
}
