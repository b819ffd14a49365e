//! The queue before the connection to the hub.
//!
//! ```text
//! events ----> queue ----> written ----> gone, when a pong shows that the hub has read
//! output ----> queue ----> written
//! ```
//!
//! TCP keeps the order, so the answer to a ping shows that the hub has read all that was written before the ping. When a
//! connection ends, all events without such a proof are sent again on the next connection. An event may therefore come
//! twice, and never not at all, unless more than [`EVENTS_MAX`] wait.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::doors::hms::wire::op::Op;
use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::event::{Event, frame};

/// Bytes in the queue from which on output has to wait.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// Most events that wait for the hub.
const EVENTS_MAX: usize = 10_000;
/// About how many bytes one write takes.
const WRITE_BYTES: usize = 64 * 1024;

/// The queue before the connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    dock: String,
    inner: Mutex<Inner>,
    filled: Notify,
    emptied: Notify,
    event_written: Notify,
}

/// Whether output may be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// At once.
    Yes,
    /// When the hub has read some.
    Full,
}

#[derive(Debug, Default)]
struct Inner {
    connected: bool,
    /// The number of the present or the last connection.
    connection: u64,
    /// Pings and pongs, which pass everything else.
    urgent: VecDeque<Bytes>,
    queue: VecDeque<Item>,
    queued_bytes: usize,
    /// Events that were written to the present connection and that the hub may not have read.
    unconfirmed: VecDeque<Event>,
    /// How many of them were written before the ping that is not answered yet.
    before_ping: usize,
    /// Events while there is no connection.
    waiting: VecDeque<Event>,
    /// Events that were given up because too many waited.
    lost: u64,
}

#[derive(Debug)]
enum Item {
    Frame(Bytes),
    Event(Event),
}

impl Outbox {
    /// An empty queue of a dock.
    pub(crate) fn new(dock: &str) -> Self {
        let inner = Mutex::new(Inner::default());
        let (filled, emptied, event_written) = (Notify::new(), Notify::new(), Notify::new());
        Self { dock: dock.to_owned(), inner, filled, emptied, event_written }
    }

    /// Queues an event, also while there is no connection.
    pub(crate) fn event(&self, event: Event) {
        let mut inner = self.lock();
        if inner.connected {
            inner.queue.push_back(Item::Event(event));
        } else {
            inner.waiting.push_back(event);
        }
        inner.drop_oldest_events();
        drop(inner);
        self.filled.notify_one();
    }

    /// Queues an answer. Nothing happens when the connection of the request has ended.
    pub(crate) fn frame(&self, connection: u64, frame: Bytes) {
        let mut inner = self.lock();
        if inner.connected && inner.connection == connection {
            inner.push_frame(frame);
        }
        drop(inner);
        self.filled.notify_one();
    }

    /// Queues a pong, which passes everything else.
    pub(crate) fn urgent(&self, frame: Bytes) {
        self.lock().urgent.push_back(frame);
        self.filled.notify_one();
    }

    /// Queues a ping, which passes everything else.
    pub(crate) fn ping(&self, frame: Bytes) {
        let mut inner = self.lock();
        inner.before_ping = inner.unconfirmed.len();
        inner.urgent.push_back(frame);
        drop(inner);
        self.filled.notify_one();
    }

    /// The hub has read all that was written before the last ping.
    pub(crate) fn confirm(&self) {
        let mut inner = self.lock();
        let read = inner.before_ping.min(inner.unconfirmed.len());
        inner.unconfirmed.drain(..read);
        inner.before_ping = 0;
    }

    /// Returns when the hub may not have read all events that were written.
    pub(crate) async fn wait_for_unconfirmed(&self) {
        loop {
            let written = self.event_written.notified();
            if !self.lock().unconfirmed.is_empty() {
                return;
            }
            written.await;
        }
    }

    /// The bytes in the queue.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().queued_bytes
    }

    /// True when everything was written.
    pub(crate) fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.queue.is_empty() && inner.urgent.is_empty() && inner.waiting.is_empty()
    }

    /// Output may be queued, or has to wait.
    pub(crate) fn room(&self) -> Room {
        match self.lock().queued_bytes < OUTPUT_BYTES_MAX {
            true => Room::Yes,
            false => Room::Full,
        }
    }

    /// Waits for room for output, at most `longest`.
    pub(crate) async fn wait_for_room(&self, longest: Duration) {
        let emptied = self.emptied.notified();
        if self.room() == Room::Full {
            timeout(longest, emptied).await.ok();
        }
    }

    /// Queues output of a process.
    pub(crate) fn output(&self, op: Op, service: &str, bytes: Bytes) {
        let frame = frame(op, service, &self.dock, bytes);
        let mut inner = self.lock();
        if inner.connected {
            inner.push_frame(frame);
        }
        drop(inner);
        self.filled.notify_one();
    }

    /// Begins a connection: the events that waited are queued. Gives the number of the connection.
    pub(crate) fn connect(&self) -> u64 {
        let mut inner = self.lock();
        inner.connected = true;
        inner.connection = inner.connection.saturating_add(1);
        let connection = inner.connection;
        let waiting = std::mem::take(&mut inner.waiting);
        inner.queue.extend(waiting.into_iter().map(Item::Event));
        let lost = std::mem::take(&mut inner.lost);
        drop(inner);
        if lost > 0 {
            tracing::warn!(lost, "more events of processes waited for the hub than are kept");
        }
        self.filled.notify_one();
        connection
    }

    /// Ends the connection: its frames are dropped, and events that the hub may not have read wait for the next one.
    pub(crate) fn disconnect(&self) {
        let mut inner = self.lock();
        let Inner { unconfirmed, queue, waiting, lost, connection, .. } = std::mem::take(&mut *inner);
        (inner.lost, inner.connection) = (lost, connection);
        let queued = queue.into_iter().filter_map(|item| match item {
            Item::Event(event) => Some(event),
            Item::Frame(_) => None,
        });
        inner.waiting = unconfirmed.into_iter().chain(queued).chain(waiting).collect();
        inner.drop_oldest_events();
        drop(inner);
        self.emptied.notify_waiters();
    }

    /// Waits for something to write, and takes about [`WRITE_BYTES`] of it into `out`.
    pub(crate) async fn take(&self, out: &mut BytesMut) {
        loop {
            let filled = self.filled.notified();
            self.take_now(out);
            if !out.is_empty() {
                self.emptied.notify_waiters();
                return;
            }
            filled.await;
        }
    }

    fn take_now(&self, out: &mut BytesMut) {
        let mut inner = self.lock();
        while let Some(frame) = inner.urgent.pop_front() {
            out.extend_from_slice(&frame);
        }
        while out.len() < WRITE_BYTES {
            match inner.queue.pop_front() {
                None => break,
                Some(Item::Frame(frame)) => {
                    inner.queued_bytes = inner.queued_bytes.saturating_sub(frame.len());
                    out.extend_from_slice(&frame);
                }
                Some(Item::Event(event)) => {
                    out.extend_from_slice(&event.encode(&self.dock));
                    inner.unconfirmed.push_back(event);
                    self.event_written.notify_one();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn push_frame(&mut self, frame: Bytes) {
        self.queued_bytes = self.queued_bytes.saturating_add(frame.len());
        self.queue.push_back(Item::Frame(frame));
    }

    /// Keeps the number of events within its bound. Those of the queue go first into the count, because the hub does
    /// not read when they are many.
    fn drop_oldest_events(&mut self) {
        while self.waiting.len().saturating_add(self.unconfirmed.len()) > EVENTS_MAX {
            if self.unconfirmed.pop_front().is_some() {
                self.before_ping = self.before_ping.saturating_sub(1);
            } else {
                self.waiting.pop_front();
            }
            self.lost = self.lost.saturating_add(1);
        }
        let queued = self.queue.len();
        if queued > EVENTS_MAX.saturating_mul(2) {
            let oldest = self.queue.iter().position(|item| matches!(item, Item::Event(_)));
            if oldest.and_then(|at| self.queue.remove(at)).is_some() {
                self.lost = self.lost.saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::EventKind;
    use super::*;

    fn event(number: u32) -> Event {
        Event { service: "app".into(), kind: EventKind::Spawn(number) }
    }

    fn written(outbox: &Outbox) -> Vec<u8> {
        let mut out = BytesMut::new();
        outbox.take_now(&mut out);
        out.to_vec()
    }

    fn encoded(numbers: impl IntoIterator<Item = u32>) -> Vec<u8> {
        numbers.into_iter().flat_map(|number| event(number).encode("d")).collect()
    }

    #[test]
    fn events_that_the_hub_may_not_have_read_come_again_in_their_order() {
        let outbox = Outbox::new("d");
        outbox.event(event(1));
        outbox.connect();
        outbox.event(event(2));
        assert_eq!(written(&outbox), encoded([1, 2]));
        outbox.ping(Bytes::from_static(b"ping"));
        outbox.event(event(3));
        assert_eq!(written(&outbox), [b"ping".to_vec(), encoded([3])].concat());
        outbox.confirm();
        outbox.event(event(4));
        outbox.disconnect();
        outbox.event(event(5));
        outbox.connect();
        assert_eq!(written(&outbox), encoded([3, 4, 5]));
        assert_eq!(outbox.lock().unconfirmed.len(), 3);
    }

    #[test]
    fn frames_belong_to_one_connection() {
        let outbox = Outbox::new("d");
        outbox.frame(0, Bytes::from_static(b"early"));
        let first = outbox.connect();
        outbox.frame(first, Bytes::from_static(b"old"));
        outbox.disconnect();
        let second = outbox.connect();
        outbox.frame(first, Bytes::from_static(b"late"));
        outbox.frame(second, Bytes::from_static(b"new"));
        outbox.urgent(Bytes::from_static(b"pong"));
        assert_eq!(written(&outbox), b"pongnew");
    }

    #[test]
    fn output_waits_when_the_hub_does_not_read_and_events_do_not() {
        let outbox = Outbox::new("d");
        outbox.connect();
        let mut queued = 0;
        while outbox.room() == Room::Yes {
            outbox.output(Op::Stdout, "app", Bytes::from(vec![b'x'; 32 * 1024]));
            queued += 1;
        }
        assert_eq!(queued, 32);
        outbox.event(event(1));
        let mut all = Vec::new();
        while !outbox.is_empty() {
            all.extend(written(&outbox));
        }
        assert!(all.ends_with(&encoded([1])) && outbox.room() == Room::Yes);
    }

    #[test]
    fn the_oldest_of_too_many_events_are_dropped_and_counted() {
        let outbox = Outbox::new("d");
        for number in 0..10_005 {
            outbox.event(event(number));
        }
        assert_eq!(outbox.lock().lost, 5);
        outbox.connect();
        let mut all = Vec::new();
        while !outbox.is_empty() {
            all.extend(written(&outbox));
        }
        assert_eq!(all, encoded(5..10_005));
    }
}
