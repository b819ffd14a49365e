//! The buffer between the feed and one subscription: shared events, bounded, with a wake-up.
//!
//! The feed puts events in, and the subscription takes all of them at once. Invariant: a slow client costs a cursor,
//! not a queue. When too many events wait, the buffer drops them and the subscription reads the book from its cursor.

use std::sync::{Arc, Mutex, MutexGuard};

use rollbook_cluster::lock::lock;
use tokio::sync::Notify;

use super::stored_event::StoredEvent;

/// Most events that wait for one subscription.
pub const INBOX_EVENTS_MAX: usize = 1024;

/// What waits.
#[derive(Debug, Default)]
struct Waiting {
    /// The events, in order.
    items: Vec<Arc<StoredEvent>>,
    /// Whether events were dropped since the last take. Nothing more is kept then, because the book has it.
    overflowed: bool,
}

/// What a subscription takes out.
#[derive(Debug)]
pub enum Taken {
    /// Events, in order.
    Items(Vec<Arc<StoredEvent>>),
    /// Events were dropped: read the book from the cursor.
    Overflowed,
}

/// The queue between the feed and one subscription.
#[derive(Debug)]
pub struct FeedBuffer {
    /// What waits.
    waiting: Mutex<Waiting>,
    /// Wakes the subscription.
    notify: Notify,
    /// Most events that may wait.
    events_max: usize,
}

impl FeedBuffer {
    /// An empty buffer for at most this many events.
    #[must_use]
    pub fn new(events_max: usize) -> Self {
        Self { waiting: Mutex::default(), notify: Notify::new(), events_max }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    /// Whether this many more events fit now.
    #[must_use]
    pub fn takes(&self, count: usize) -> bool {
        let waiting = self.lock();
        !waiting.overflowed && waiting.items.len().saturating_add(count) <= self.events_max
    }

    /// Puts an event in. Returns `false` when it does not fit: then nothing more is kept until the next take.
    pub fn put(&self, item: &Arc<StoredEvent>) -> bool {
        let mut waiting = self.lock();
        if waiting.overflowed {
            return false;
        }
        if waiting.items.len() >= self.events_max {
            waiting.items = Vec::new();
            waiting.overflowed = true;
            drop(waiting);
            self.notify.notify_one();
            return false;
        }
        waiting.items.push(Arc::clone(item));
        let first = waiting.items.len() == 1;
        drop(waiting);
        if first {
            self.notify.notify_one();
        }
        true
    }

    /// Puts an event in, or drops this event alone when it does not fit. For events that are in no log.
    pub fn put_or_drop(&self, item: &Arc<StoredEvent>) -> bool {
        let mut waiting = self.lock();
        if waiting.items.len() >= self.events_max {
            return false;
        }
        waiting.items.push(Arc::clone(item));
        drop(waiting);
        self.notify.notify_one();
        true
    }

    /// Takes all events; pends until there is one.
    pub async fn take(&self) -> Taken {
        loop {
            {
                let mut waiting = self.lock();
                if waiting.overflowed {
                    waiting.overflowed = false;
                    return Taken::Overflowed;
                }
                if !waiting.items.is_empty() {
                    return Taken::Items(std::mem::take(&mut waiting.items));
                }
            }
            self.notify.notified().await;
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.items.is_empty() && !waiting.overflowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[actix_web::test]
    async fn events_come_out_in_order_and_too_many_become_an_overflow() {
        let buffer = FeedBuffer::new(3);
        let item = |sequence| Arc::new(StoredEvent::stored(sequence, Bytes::new()));
        assert!(buffer.put(&item(1)) && buffer.put(&item(2)));
        let Taken::Items(items) = buffer.take().await else { panic!("items") };
        assert_eq!(items.iter().map(|item| item.sequence()).collect::<Vec<_>>(), [1, 2]);
        assert!((3..6).all(|at| buffer.put(&item(at))) && !buffer.put(&item(6)) && !buffer.put(&item(7)));
        assert!(matches!(buffer.take().await, Taken::Overflowed));
        assert!(buffer.put(&item(8)));
        assert!(matches!(buffer.take().await, Taken::Items(_)));
    }

    #[actix_web::test]
    async fn an_event_of_no_log_is_dropped_alone() {
        let buffer = FeedBuffer::new(1);
        let item = Arc::new(StoredEvent::unstored(Bytes::new()));
        assert!(buffer.put_or_drop(&item) && !buffer.put_or_drop(&item));
        assert!(matches!(buffer.take().await, Taken::Items(items) if items.len() == 1));
    }
}
