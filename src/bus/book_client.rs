//! The book as a connection uses it that has other things on it too: publishes, acknowledgements and streams, the same
//! for every door that has them. A door parses what its client says, and encodes what becomes of it.
//!
//! What takes time comes back by the mailbox of the connection, as [`ClientMessage::Stream`].

use std::sync::Arc;

use super::access::Access;
use super::client::clients::{Client, ClientMessage};
use super::subscribe::request::Subscribe;
use super::subscribe::streams::{StreamMessage, StreamRefusal, StreamUpdate, Streams};
use super::write::draft::Draft;
use crate::base::clock;

/// The book, for one connection.
#[derive(Debug)]
pub struct BookClient {
    access: Access,
    client: Arc<Client>,
    streams: Streams,
}

impl BookClient {
    /// The book for this client.
    #[must_use]
    pub fn new(access: Access, client: Arc<Client>) -> Self {
        Self { access, client, streams: Streams::default() }
    }

    /// Puts an event into the book. What became of it when that is known at once. The events of one client go into the
    /// book in their order, many at a time.
    ///
    /// # Errors
    /// [`StreamRefusal::Unanswered`]
    pub fn publish(
        &mut self,
        id: String,
        reply_to: Option<u64>,
        draft: Draft<'_>,
    ) -> Result<Option<StreamMessage>, StreamRefusal> {
        let access = self.access.clone();
        let parsed = draft.publish(clock::timestamp(), &|name| access.is_writable(name));
        let publishing = async move { access.publish(parsed?).await };
        self.streams.publish(id, reply_to, publishing, self.mailbox())
    }

    /// Opens a stream under `id`.
    ///
    /// # Errors
    /// [`StreamRefusal::Taken`], [`StreamRefusal::TooMany`]
    pub fn subscribe(&mut self, id: String, reply_to: Option<u64>, wanted: Subscribe) -> Result<(), StreamRefusal> {
        let access = self.access.clone();
        let opening = async move { access.follow(wanted).await };
        self.streams.subscribe(id, reply_to, opening, self.mailbox())
    }

    /// Acknowledges an event of the stream that the client calls `id`.
    ///
    /// # Errors
    /// [`StreamRefusal::Unknown`], [`StreamRefusal::Unanswered`]
    pub fn acknowledge(&mut self, id: &str, event: String, reply_to: Option<u64>) -> Result<(), StreamRefusal> {
        let access = self.access.clone();
        let acknowledge = |consumer: String, event: String| async move { access.acknowledge(&consumer, &event).await };
        self.streams.acknowledge(id, event, reply_to, acknowledge, self.mailbox())
    }

    /// Ends the stream that the client calls `id`, when all that was acknowledged has its answer. Gives what the client
    /// is to be told now.
    ///
    /// # Errors
    /// [`StreamRefusal::Unknown`]
    pub fn unsubscribe(&mut self, id: &str, reply_to: Option<u64>) -> Result<Vec<StreamMessage>, StreamRefusal> {
        self.streams.unsubscribe(id, reply_to)
    }

    /// Takes what came as [`ClientMessage::Stream`]: what the client is to be told, and under which id.
    pub fn update(&mut self, number: u64, update: StreamUpdate) -> Option<(String, Vec<StreamMessage>)> {
        self.streams.update(number, update)
    }

    /// Ends all streams: the client has left.
    pub fn close(&mut self) {
        self.streams = Streams::default();
    }

    /// Whether a stream is open.
    #[must_use]
    pub fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    /// How many publishes and acknowledgements have no answer yet.
    #[must_use]
    pub const fn unanswered(&self) -> usize {
        self.streams.unanswered()
    }

    /// How what takes time comes back to the connection.
    fn mailbox(&self) -> impl Fn(u64, StreamUpdate) + use<> {
        let client = Arc::clone(&self.client);
        move |number, update| client.must_tell(ClientMessage::Stream(number, update))
    }
}
