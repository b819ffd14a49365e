//! The streams of the book that a client has open.

use std::collections::HashMap;

use tokio::task::JoinHandle;

/// The streams of a client.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) open: HashMap<String, Stream>,
    pub(super) number: u64,
    /// Publishes and acknowledgements that have no end yet.
    pub(super) unanswered: usize,
}

#[derive(Debug)]
pub(super) struct Stream {
    /// Tells it from an earlier one of the same id.
    pub(super) number: u64,
    /// Of the acknowledgement that is waited for while it is being opened.
    pub(super) ack: Option<u64>,
    /// Empty while it is being opened.
    pub(super) consumer: String,
    /// What moves it along.
    pub(super) task: JoinHandle<()>,
    /// Acknowledgements on their way: a stream is not ended before them.
    pub(super) acks: Vec<JoinHandle<()>>,
}

impl Stream {
    /// Ends it when all that was acknowledged has its answer.
    pub(super) fn end(mut self) {
        let acks = std::mem::take(&mut self.acks);
        actix_web::rt::spawn(async move {
            for ack in acks {
                // One that failed has nothing to wait for.
                ack.await.unwrap_or(());
            }
            drop(self);
        });
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}
