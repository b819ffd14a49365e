//! Inbox subjects `_bus_.<name>`: live messages to whoever listens now, never stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use rollbook_cluster::lock::lock;

use crate::base::metrics::Metrics;
use crate::bus::read::feed_buffer::FeedBuffer;
use crate::bus::read::stored_event::StoredEvent;

/// Most messages that wait for one listener; more are dropped and counted.
pub const INBOX_MESSAGES_MAX: usize = 256;

type Listeners = HashMap<Box<str>, Vec<Arc<FeedBuffer>>>;

/// The listeners of this node, by subject. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ReplySubjects {
    listeners: Arc<Mutex<Listeners>>,
}

/// A listener's place. Leaves when dropped.
#[derive(Debug)]
pub struct Listening {
    inboxes: ReplySubjects,
    subject: Box<str>,
    inbox: Arc<FeedBuffer>,
}

impl Listening {
    /// Where its messages are.
    #[must_use]
    pub fn inbox(&self) -> Arc<FeedBuffer> {
        Arc::clone(&self.inbox)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listeners = self.inboxes.lock();
        if let Some(all) = listeners.get_mut(&self.subject) {
            all.retain(|other| !Arc::ptr_eq(other, &self.inbox));
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
        let inbox = Arc::new(FeedBuffer::new(INBOX_MESSAGES_MAX));
        self.lock().entry(subject.into()).or_default().push(Arc::clone(&inbox));
        Listening { inboxes: self.clone(), subject: subject.into(), inbox }
    }

    /// Gives a copy to every listener of the subject.
    pub fn post(&self, subject: &str, item: &Arc<StoredEvent>, metrics: &Metrics) {
        if let Some(all) = self.lock().get(subject) {
            for inbox in all {
                let counter = if inbox.put_or_drop(item) { &metrics.inbox_messages } else { &metrics.inbox_dropped };
                counter.inc();
            }
        }
    }
}
