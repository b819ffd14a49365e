//! Publishes, acknowledgements and streams of a connection that also carries requests of services, the same for every
//! door with such connections. A door parses what its client sends, and encodes the results.
//!
//! Results that are not known at once come back by the mailbox of the connection, as [`ClientMessage::Stream`].

use std::sync::Arc;

use super::access::Access;
use super::client::clients::{Client, ClientMessage};
use super::delivery::acknowledgement::Acknowledgement;
use super::subscribe::request::Subscribe;
use super::subscribe::streams::{StreamMessage, StreamRefusal, StreamUpdate, Streams};
use super::write::draft::Draft;
use crate::base::clock;

/// The use of the book by one connection.
#[derive(Debug)]
pub struct BookClient {
    /// Checks and carries out what the client asks for.
    access: Access,
    /// Where results are sent.
    client: Arc<Client>,
    /// The open streams of the connection.
    streams: Streams,
}

impl BookClient {
    /// The book for this client.
    #[must_use]
    pub fn new(access: Access, client: Arc<Client>) -> Self {
        Self { access, client, streams: Streams::default() }
    }

    /// Publishes an event. Returns the result when it is known at once. Events of one client are stored in the order in
    /// which they were sent, and many may be on their way.
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

    /// Takes what the client says of events of the stream that the client calls `id`.
    ///
    /// # Errors
    /// [`StreamRefusal::Unknown`], [`StreamRefusal::Unanswered`]
    pub fn acknowledge(&mut self, id: &str, said: Acknowledgement, reply_to: Option<u64>) -> Result<(), StreamRefusal> {
        let access = self.access.clone();
        let acknowledge =
            |consumer: String, said: Acknowledgement| async move { access.acknowledge(&consumer, said).await };
        self.streams.acknowledge(id, said, reply_to, acknowledge, self.mailbox())
    }

    /// Ends the stream that the client calls `id`, when all its acknowledgements are answered. Returns the messages for
    /// the client that are due now.
    ///
    /// # Errors
    /// [`StreamRefusal::Unknown`]
    pub fn unsubscribe(&mut self, id: &str, reply_to: Option<u64>) -> Result<Vec<StreamMessage>, StreamRefusal> {
        self.streams.unsubscribe(id, reply_to)
    }

    /// Handles a [`ClientMessage::Stream`]. Returns the id under which the client knows the stream or publish, and the
    /// messages for it.
    pub fn update(&mut self, number: u64, update: StreamUpdate) -> Option<(String, Vec<StreamMessage>)> {
        self.streams.update(number, update)
    }

    /// Ends all streams: the client has disconnected.
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

    /// Sends results to the connection.
    fn mailbox(&self) -> impl Fn(u64, StreamUpdate) + use<> {
        let client = Arc::clone(&self.client);
        move |number, update| client.must_tell(ClientMessage::Stream(number, update))
    }
}
