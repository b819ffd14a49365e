//! What waits to be written to one client: messages of its subscriptions, from whichever thread they come, and what the
//! connection itself says.
//!
//! Publishers encode a message straight into the bytes that the socket will take, so a message is copied once. Invariant:
//! what waits is bounded in bytes; a client beyond the bound is slow and is disconnected.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};

use super::wire::encode::{self, Delivery};
use crate::bus::live::message::{Delivered, LiveMessage, LiveSink};

/// The largest buffer that is kept for the next messages.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// A subscription, as the client knows it.
#[derive(Debug)]
struct Subscription {
    /// The name that the client gave the subscription.
    sid: Bytes,
    /// Messages that were delivered since the SUB.
    delivered: u64,
    /// Messages after which the subscription ends.
    max: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// What is written next.
    bytes: BytesMut,
    /// Bytes that the connection has taken out and not written yet.
    taken: usize,
    subscriptions: HashMap<u64, Subscription>,
    /// Subscriptions that have had as many messages as they wanted.
    ended: Vec<Bytes>,
    /// Whether the client understands headers.
    headers: bool,
    /// Wakes the connection.
    waker: Option<Waker>,
    /// Whether the connection waits for something to write. When it waits for its socket, messages need not wake it.
    sleeping: bool,
    /// Whether a message has come meanwhile: whoever has brought it will wake the connection at the end of a batch.
    waking: bool,
    /// More waited than may wait: the client does not read.
    slow: bool,
    /// The connection has ended.
    closed: bool,
}

/// What waits for one client.
#[derive(Debug)]
pub(super) struct Outbox {
    /// The serial number of the client.
    client: u64,
    bytes_max: usize,
    state: Mutex<State>,
}

impl Outbox {
    pub(super) fn new(client: u64, bytes_max: usize) -> Self {
        Self { client, bytes_max, state: Mutex::default() }
    }

    /// Nothing that could leave the state in two parts runs under the lock, so a poisoned state is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the client understands headers.
    pub(super) fn set_headers(&self, headers: bool) {
        self.lock().headers = headers;
    }

    /// A subscription begins.
    pub(super) fn open(&self, number: u64, sid: Bytes) {
        self.lock().subscriptions.insert(number, Subscription { sid, delivered: 0, max: None });
    }

    /// A subscription ends.
    pub(super) fn close(&self, number: u64) {
        self.lock().subscriptions.remove(&number);
    }

    /// A subscription ends after so many messages, counted from its SUB. Returns whether it has ended already.
    pub(super) fn limit(&self, number: u64, max: u64) -> bool {
        let mut state = self.lock();
        let Some(subscription) = state.subscriptions.get_mut(&number) else { return true };
        subscription.max = Some(max);
        subscription.delivered >= max
    }

    /// Appends what the connection says. Returns whether the client still reads.
    pub(super) fn say(&self, write: impl FnOnce(&mut BytesMut)) -> bool {
        let mut state = self.lock();
        write(&mut state.bytes);
        let waiting = state.bytes.len().saturating_add(state.taken);
        state.slow |= waiting > self.bytes_max;
        !state.slow
    }

    /// Where what is said next will stand, until the connection takes what waits.
    pub(super) fn position(&self) -> usize {
        self.lock().bytes.len()
    }

    /// Says something in front of what was said since [`Outbox::position`]. Returns whether the client still reads.
    pub(super) fn say_at(&self, position: usize, write: impl FnOnce(&mut BytesMut)) -> bool {
        let mut later = BytesMut::new();
        self.say(|bytes| {
            later = bytes.split_off(position.min(bytes.len()));
            write(bytes);
            bytes.extend_from_slice(&later);
        })
    }

    /// Tells the client that nobody was there to get a message: by the subscription of its own on the reply subject.
    pub(super) fn no_responders(&self, number: u64, reply: &[u8], subject: &[u8]) {
        let mut state = self.lock();
        let State { bytes, subscriptions, .. } = &mut *state;
        if let Some(subscription) = subscriptions.get(&number) {
            encode::no_responders(bytes, reply, &subscription.sid, subject);
        }
    }

    /// Takes what waits, in exchange for an empty buffer. When nothing waits, the connection sleeps from now on.
    pub(super) fn take(&self, empty: &mut BytesMut, cx: &Context<'_>) -> Taken {
        let mut state = self.lock();
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        if state.slow {
            return Taken::Slow;
        }
        if state.bytes.is_empty() {
            (state.taken, state.sleeping) = (0, true);
            return Taken::Nothing;
        }
        state.sleeping = false;
        // A buffer that one large message has made is not kept for small ones.
        if empty.capacity() > KEPT_BYTES_MAX {
            *empty = BytesMut::new();
        }
        mem::swap(&mut state.bytes, empty);
        state.taken = empty.len();
        Taken::Bytes
    }

    /// Wakes the connection: something waits that its own thread has put there.
    pub(super) fn rouse(&self) {
        let state = &mut *self.lock();
        if mem::take(&mut state.sleeping) {
            state.awaken();
        }
    }

    /// Whether more waits than may wait, because the client does not read.
    pub(super) fn is_slow(&self) -> bool {
        self.lock().slow
    }

    /// The names of subscriptions that have had as many messages as they wanted.
    pub(super) fn take_ended(&self) -> Vec<Bytes> {
        mem::take(&mut self.lock().ended)
    }

    /// Bytes that wait, those included that the connection is writing.
    pub(super) fn waiting(&self) -> usize {
        let state = self.lock();
        state.bytes.len().saturating_add(state.taken)
    }

    /// Nothing more is taken.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        *state = State { closed: true, ..State::default() };
    }
}

/// What [`Outbox::take`] has found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Bytes,
    Nothing,
    /// The client does not read.
    Slow,
}

impl Subscription {
    /// Counts a message. Returns whether the subscription still wants it.
    fn counts(&mut self, ended: &mut Vec<Bytes>) -> bool {
        if self.max.is_some_and(|max| self.delivered >= max) {
            return false;
        }
        self.delivered = self.delivered.saturating_add(1);
        if self.max == Some(self.delivered) {
            ended.push(self.sid.clone());
        }
        true
    }
}

impl State {
    fn awaken(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

impl LiveSink for Outbox {
    fn deliver(&self, number: u64, message: &LiveMessage) -> Delivered {
        let mut state = self.lock();
        let State { bytes, taken, subscriptions, ended, headers, sleeping, waking, slow, closed, .. } = &mut *state;
        if *closed || *slow {
            return Delivered::Refused;
        }
        let Some(subscription) = subscriptions.get_mut(&number) else { return Delivered::Refused };
        if bytes.len().saturating_add(*taken).saturating_add(message.bytes()) > self.bytes_max {
            // Nobody took the message, and the connection has to end, also while it waits for its socket.
            *slow = true;
            state.awaken();
            return Delivered::Refused;
        }
        if !subscription.counts(ended) {
            return Delivered::Refused;
        }
        let delivery = Delivery {
            subject: message.subject.as_bytes(),
            sid: &subscription.sid,
            reply: Some(&**message.reply.as_bytes()).filter(|reply| !reply.is_empty()),
            headers: Some(&*message.headers).filter(|block| *headers && !block.is_empty()),
            payload: &message.payload,
        };
        encode::message(bytes, &delivery);
        // Of many messages only the first one has to wake the connection.
        if !mem::take(sleeping) {
            return Delivered::Queued;
        }
        *waking = true;
        Delivered::Sleeping
    }

    fn wake(&self) {
        let state = &mut *self.lock();
        if mem::take(&mut state.waking) {
            state.awaken();
        }
    }

    fn client(&self) -> u64 {
        self.client
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn message(payload: &'static str) -> LiveMessage {
        LiveMessage { subject: "a.b".into(), payload: payload.into(), ..LiveMessage::default() }
    }

    fn taken(outbox: &Outbox) -> String {
        let mut bytes = BytesMut::new();
        match outbox.take(&mut bytes, &Context::from_waker(Waker::noop())) {
            Taken::Bytes => String::from_utf8(bytes.to_vec()).unwrap(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn messages_wait_as_the_bytes_that_are_written() {
        let outbox = Outbox::new(1, 1000);
        outbox.open(7, Bytes::from_static(b"s1"));
        assert_eq!(outbox.deliver(7, &message("x")), Delivered::Queued);
        assert_eq!(outbox.deliver(8, &message("x")), Delivered::Refused, "there is no such subscription");
        assert_eq!(taken(&outbox), "MSG a.b s1 1\r\nx\r\n");
        outbox.close(7);
        assert_eq!(outbox.deliver(7, &message("x")), Delivered::Refused);
        assert_eq!(taken(&outbox), "Nothing");
    }

    #[test]
    fn headers_go_to_clients_that_understand_them() {
        let outbox = Outbox::new(1, 1000);
        outbox.open(1, Bytes::from_static(b"1"));
        let with = LiveMessage { headers: Bytes::from_static(b"NATS/1.0\r\nA: b\r\n\r\n"), ..message("x") };
        outbox.deliver(1, &with);
        assert_eq!(taken(&outbox), "MSG a.b 1 1\r\nx\r\n");
        outbox.set_headers(true);
        outbox.deliver(1, &with);
        assert_eq!(taken(&outbox), "HMSG a.b 1 18 19\r\nNATS/1.0\r\nA: b\r\n\r\nx\r\n");
    }

    #[test]
    fn something_may_be_said_in_front_of_messages() {
        let outbox = Outbox::new(1, 1000);
        outbox.open(1, Bytes::from_static(b"1"));
        outbox.say(encode::pong);
        let position = outbox.position();
        outbox.deliver(1, &message("x"));
        assert!(outbox.say_at(position, encode::ok));
        assert_eq!(taken(&outbox), "PONG\r\n+OK\r\nMSG a.b 1 1\r\nx\r\n");
    }

    #[test]
    fn a_connection_that_sleeps_is_woken_once() {
        let (outbox, counter) = (Outbox::new(1, 1000), Arc::new(Counter::default()));
        outbox.open(1, Bytes::from_static(b"1"));
        let waker = Waker::from(Arc::clone(&counter));
        let mut buffer = BytesMut::new();
        assert_eq!(outbox.take(&mut buffer, &Context::from_waker(&waker)), Taken::Nothing);
        let delivered: Vec<Delivered> = (0..3).map(|_| outbox.deliver(1, &message("x"))).collect();
        assert_eq!(delivered, [Delivered::Sleeping, Delivered::Queued, Delivered::Queued]);
        (0..3).for_each(|_| outbox.wake());
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        assert_eq!(outbox.deliver(1, &message("x")), Delivered::Queued, "the connection is awake");
    }

    #[test]
    fn a_subscription_ends_after_as_many_messages_as_it_wanted() {
        let outbox = Outbox::new(1, 1000);
        outbox.open(1, Bytes::from_static(b"1"));
        outbox.deliver(1, &message("x"));
        assert!(!outbox.limit(1, 2));
        assert_eq!(
            (outbox.deliver(1, &message("x")), outbox.take_ended()),
            (Delivered::Queued, vec![Bytes::from_static(b"1")])
        );
        assert_eq!((outbox.deliver(1, &message("x")), outbox.take_ended()), (Delivered::Refused, vec![]));
        assert!(outbox.limit(1, 2) && outbox.limit(9, 1), "it has ended");
    }

    #[test]
    fn a_client_that_does_not_read_is_slow_and_gets_nothing_more() {
        let outbox = Outbox::new(1, 60);
        outbox.open(1, Bytes::from_static(b"1"));
        while outbox.deliver(1, &message("0123456789")) != Delivered::Refused {}
        assert!(outbox.waiting() <= 100);
        assert_eq!(taken(&outbox), "Slow");
        assert!(!outbox.say(encode::ping));
        outbox.end();
        assert_eq!((outbox.deliver(1, &message("")), outbox.waiting()), (Delivered::Refused, 0));
    }
}
