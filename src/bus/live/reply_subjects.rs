//! The listeners of inbox subjects `_bus_.<name>`. Invariant: messages are delivered to the clients that listen now,
//! and are never stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use rollbook_cluster::lock::lock;

use crate::base::metrics::Metrics;
use crate::bus::read::feed_buffer::FeedBuffer;
use crate::bus::read::stored_event::StoredEvent;

/// Most messages that wait for one listener. Further messages are dropped and counted.
pub const INBOX_MESSAGES_MAX: usize = 256;

/// The buffers of the listeners, by subject.
type Listeners = HashMap<Box<str>, Vec<Arc<FeedBuffer>>>;

/// The listeners of this node. Clones share one table.
#[derive(Debug, Clone, Default)]
pub struct ReplySubjects {
    listeners: Arc<Mutex<Listeners>>,
}

/// A listener's place. The listener leaves when this is dropped.
#[derive(Debug)]
pub struct Listening {
    /// The table to leave.
    reply_subjects: ReplySubjects,
    /// The subject.
    subject: Box<str>,
    /// The messages.
    buffer: Arc<FeedBuffer>,
}

impl Listening {
    /// The buffer that gets the messages.
    #[must_use]
    pub fn buffer(&self) -> Arc<FeedBuffer> {
        Arc::clone(&self.buffer)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listeners = self.reply_subjects.lock();
        if let Some(all) = listeners.get_mut(&self.subject) {
            all.retain(|other| !Arc::ptr_eq(other, &self.buffer));
            if all.is_empty() {
                listeners.remove(&self.subject);
            }
        }
    }
}

impl ReplySubjects {
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        lock(&self.listeners)
    }

    /// Listens to a subject.
    #[must_use]
    pub fn listen(&self, subject: &str) -> Listening {
        let buffer = Arc::new(FeedBuffer::new(INBOX_MESSAGES_MAX));
        self.lock().entry(subject.into()).or_default().push(Arc::clone(&buffer));
        Listening { reply_subjects: self.clone(), subject: subject.into(), buffer }
    }

    /// Gives a message to every listener of the subject.
    pub fn post(&self, subject: &str, item: &Arc<StoredEvent>, metrics: &Metrics) {
        if let Some(all) = self.lock().get(subject) {
            for buffer in all {
                let counter = if buffer.put_or_drop(item) { &metrics.inbox_messages } else { &metrics.inbox_dropped };
                counter.inc();
            }
        }
    }
}
