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

use crate::doors::hms::wire::op::Op;
use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::event::{Event, frame};
use super::room::{OutputRoom, Room};

/// Most events that the hub may not have read.
const EVENTS_MAX: usize = 10_000;
/// Bytes of answers and output that may wait for a hub that asks and does not read.
const UNREAD_BYTES_MAX: usize = 32 * 1024 * 1024;
/// About how many bytes one write takes.
const WRITE_BYTES: usize = 64 * 1024;

/// The queue before the connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    dock: String,
    inner: Mutex<Inner>,
    filled: Notify,
    event_written: Notify,
    overflowed: Notify,
    room: OutputRoom,
}

#[derive(Debug, Default)]
struct Inner {
    connected: bool,
    /// The number of the present or the last connection.
    connection: u64,
    /// Pings and pongs, which pass everything else.
    urgent: VecDeque<Bytes>,
    queue: VecDeque<Item>,
    /// The bytes of all frames in the two.
    queued_bytes: usize,
    /// The events in the queue.
    queued_events: usize,
    /// True when a frame of the present connection was dropped, because too much was unread.
    overflowed: bool,
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
    /// A frame, and its room if the frame is output.
    Frame {
        bytes: Bytes,
        _room: Option<Room>,
    },
    Event(Event),
}

impl Outbox {
    /// An empty queue of a dock.
    pub(crate) fn new(dock: &str) -> Self {
        let inner = Mutex::new(Inner::default());
        let (filled, event_written, overflowed) = (Notify::new(), Notify::new(), Notify::new());
        let room = OutputRoom::new();
        Self { dock: dock.to_owned(), inner, filled, event_written, overflowed, room }
    }

    /// Queues an event, also while there is no connection.
    pub(crate) fn event(&self, event: Event) {
        let mut inner = self.lock();
        if inner.connected {
            inner.push_event(event);
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
        if inner.connected && inner.connection == connection && self.has_room_for_answers(&mut inner) {
            inner.push_frame(frame, None);
        }
        drop(inner);
        self.filled.notify_one();
    }

    /// Queues a pong, which passes everything else.
    pub(crate) fn urgent(&self, frame: Bytes) {
        let mut inner = self.lock();
        if self.has_room_for_answers(&mut inner) {
            inner.push_urgent(frame);
        }
        drop(inner);
        self.filled.notify_one();
    }

    /// False when the hub asks and does not read. The connection has to end then.
    fn has_room_for_answers(&self, inner: &mut Inner) -> bool {
        if inner.queued_bytes <= UNREAD_BYTES_MAX {
            return true;
        }
        inner.overflowed = true;
        self.overflowed.notify_one();
        false
    }

    /// Returns when the hub asks and does not read, so that an answer was dropped.
    pub(crate) async fn overflow(&self) {
        loop {
            let overflowed = self.overflowed.notified();
            if self.lock().overflowed {
                return;
            }
            overflowed.await;
        }
    }

    /// Queues a ping, which passes everything else.
    pub(crate) fn ping(&self, frame: Bytes) {
        let mut inner = self.lock();
        inner.before_ping = inner.unconfirmed.len();
        inner.push_urgent(frame);
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

    /// True when everything was written.
    pub(crate) fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.queue.is_empty() && inner.urgent.is_empty() && inner.waiting.is_empty()
    }

    /// The room for output, which is asked for before the output is read.
    pub(crate) fn room(&self) -> &OutputRoom {
        &self.room
    }

    /// Queues output of a process, which takes as much of `room` as its frame is long.
    pub(crate) fn output(&self, op: Op, service: &str, bytes: Bytes, room: &mut Room) {
        let frame = frame(op, service, &self.dock, bytes);
        let taken = room.split(frame.len());
        let mut inner = self.lock();
        if inner.connected {
            inner.push_frame(frame, taken);
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
        for event in waiting {
            inner.push_event(event);
        }
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
            Item::Frame { .. } => None,
        });
        inner.waiting = unconfirmed.into_iter().chain(queued).chain(waiting).collect();
        inner.drop_oldest_events();
    }

    /// Waits for something to write, and takes about [`WRITE_BYTES`] of it into `out`.
    pub(crate) async fn take(&self, out: &mut BytesMut) {
        loop {
            let filled = self.filled.notified();
            self.take_now(out);
            if !out.is_empty() {
                return;
            }
            filled.await;
        }
    }

    fn take_now(&self, out: &mut BytesMut) {
        let mut inner = self.lock();
        while let Some(frame) = inner.urgent.pop_front() {
            inner.queued_bytes = inner.queued_bytes.saturating_sub(frame.len());
            out.extend_from_slice(&frame);
        }
        while out.len() < WRITE_BYTES {
            match inner.queue.pop_front() {
                None => break,
                Some(Item::Frame { bytes: frame, .. }) => {
                    inner.queued_bytes = inner.queued_bytes.saturating_sub(frame.len());
                    out.extend_from_slice(&frame);
                }
                Some(Item::Event(event)) => {
                    inner.queued_events = inner.queued_events.saturating_sub(1);
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
    fn push_frame(&mut self, frame: Bytes, room: Option<Room>) {
        self.queued_bytes = self.queued_bytes.saturating_add(frame.len());
        self.queue.push_back(Item::Frame { bytes: frame, _room: room });
    }

    fn push_event(&mut self, event: Event) {
        self.queued_events = self.queued_events.saturating_add(1);
        self.queue.push_back(Item::Event(event));
    }

    fn push_urgent(&mut self, frame: Bytes) {
        self.queued_bytes = self.queued_bytes.saturating_add(frame.len());
        self.urgent.push_back(frame);
    }

    /// Keeps the number of events within its bound.
    fn drop_oldest_events(&mut self) {
        while self.unconfirmed.len().saturating_add(self.queued_events).saturating_add(self.waiting.len()) > EVENTS_MAX
        {
            if self.unconfirmed.pop_front().is_some() {
                self.before_ping = self.before_ping.saturating_sub(1);
            } else if self.queued_events > 0 {
                self.drop_queued_event();
            } else {
                self.waiting.pop_front();
            }
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn drop_queued_event(&mut self) {
        let oldest = self.queue.iter().position(|item| matches!(item, Item::Event(_)));
        drop(oldest.and_then(|at| self.queue.remove(at)));
        self.queued_events = self.queued_events.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::EventKind;
    use super::super::room::CHUNK_BYTES_MAX;
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

    fn chunk() -> Bytes {
        Bytes::from(vec![b'x'; CHUNK_BYTES_MAX])
    }

    #[test]
    fn output_waits_when_the_hub_does_not_read_and_events_do_not() {
        let outbox = Outbox::new("d");
        outbox.connect();
        let mut queued = 0;
        while let Some(mut room) = outbox.room().try_take() {
            outbox.output(Op::Stdout, "app", chunk(), &mut room);
            queued += 1;
        }
        assert_eq!(queued, 32);
        outbox.event(event(1));
        let mut all = Vec::new();
        while !outbox.is_empty() {
            all.extend(written(&outbox));
        }
        assert!(all.ends_with(&encoded([1])) && outbox.room().try_take().is_some());
        assert!(outbox.lock().queued_bytes == 0 && outbox.room.is_unused());
    }

    #[test]
    fn output_takes_only_the_room_that_it_needs_and_gives_it_back_when_the_connection_ends() {
        let outbox = Outbox::new("d");
        outbox.connect();
        for _ in 0..1_000 {
            outbox.output(Op::Stdout, "app", Bytes::from_static(b"a line"), &mut outbox.room().try_take().unwrap());
        }
        outbox.urgent(Bytes::from_static(b"pong"));
        assert!(outbox.lock().queued_bytes > 6_000);
        outbox.disconnect();
        assert!(outbox.lock().queued_bytes == 0 && outbox.room.is_unused());
    }

    #[tokio::test]
    async fn a_loud_service_leaves_others_their_turn() {
        let outbox = Outbox::new("d");
        outbox.connect();
        while let Some(mut room) = outbox.room().try_take() {
            outbox.output(Op::Stdout, "loud", chunk(), &mut room);
        }
        let output = async |service: &str, chunks: usize| {
            for _ in 0..chunks {
                let mut room = outbox.room().take().await.unwrap();
                outbox.output(Op::Stdout, service, chunk(), &mut room);
            }
        };
        let hub = async {
            tokio::task::yield_now().await;
            for _ in 0..20 {
                written(&outbox);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = hub => panic!("the quiet service had no turn"),
            () = output("loud", 1_000) => panic!("the hub reads less"),
            () = output("quiet", 5) => {}
        }
    }

    #[test]
    fn many_small_pieces_of_output_push_no_event_out() {
        let outbox = Outbox::new("d");
        outbox.connect();
        outbox.event(event(1));
        while let Some(mut room) = outbox.room().try_take() {
            outbox.output(Op::Stdout, "app", Bytes::from_static(b"x"), &mut room);
        }
        outbox.event(event(2));
        let inner = outbox.lock();
        assert!(inner.queue.len() > 20_000 && inner.queue.len() < 100_000, "{}", inner.queue.len());
        assert_eq!((inner.lost, inner.queued_events), (0, 2));
    }

    #[tokio::test]
    async fn a_hub_that_asks_and_does_not_read_is_left() {
        let outbox = Outbox::new("d");
        let connection = outbox.connect();
        for _ in 0..40 {
            outbox.frame(connection, Bytes::from(vec![b'x'; 1024 * 1024]));
        }
        assert!(outbox.lock().queued_bytes <= UNREAD_BYTES_MAX + 1024 * 1024);
        outbox.overflow().await;
        outbox.disconnect();
        outbox.connect();
        assert!(!outbox.lock().overflowed);
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
