//! What waits for one subscriber: shared events, bounded, with a wake-up.
//!
//! The feed puts events in; the subscription takes all of them at once. When too many
//! wait, they are dropped and the subscription reads the book from its cursor instead:
//! a slow client costs a cursor, not a queue.

use std::sync::{Arc, Mutex, MutexGuard};

use rollbook_cluster::lock::lock;
use tokio::sync::Notify;

use super::stored_event::StoredEvent;

/// Most events that wait for one subscriber of stored subjects.
pub const INBOX_EVENTS_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Waiting {
    items: Vec<Arc<StoredEvent>>,
    overflowed: bool,
}

/// What a subscription takes out.
#[derive(Debug)]
pub enum Taken {
    /// Events in order.
    Items(Vec<Arc<StoredEvent>>),
    /// Too many came; read the book from the cursor.
    Overflowed,
}

/// The queue between the feed and one subscriber.
#[derive(Debug)]
pub struct FeedBuffer {
    waiting: Mutex<Waiting>,
    notify: Notify,
    events_max: usize,
}

impl FeedBuffer {
    /// An empty one for at most so many events.
    #[must_use]
    pub fn new(events_max: usize) -> Self {
        Self { waiting: Mutex::default(), notify: Notify::new(), events_max }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    /// Whether so many more events fit in now.
    #[must_use]
    pub fn takes(&self, count: usize) -> bool {
        let waiting = self.lock();
        !waiting.overflowed && waiting.items.len().saturating_add(count) <= self.events_max
    }

    /// Puts an event in. `false` when it did not fit: then nothing more is kept until taken.
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

    /// Puts an event in, or drops it alone when it does not fit. For events that are in no log.
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

    /// Takes all that waits; pends until there is something.
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
