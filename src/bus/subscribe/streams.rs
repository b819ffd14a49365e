//! Streams of the book on a connection that also carries requests, the same for every door with such connections. Pure,
//! except for the tasks that read the streams.
//!
//! Invariant: one stream of a connection sends at a time. Its chunk must have left, up to a mark of the door, before
//! the next stream gets its turn. A connection with a hundred replays has as much memory waiting as one with a single
//! replay.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::bus::delivery::acknowledgement::{Acknowledged, Acknowledgement};
use crate::bus::error::Fault;
use crate::bus::read::encoder::End;
use crate::bus::read::pieces::{self, Piece};
use crate::bus::write::draft::Published;
use crate::net::byte_queue::Body;

/// Most streams of one connection.
pub const STREAMS_MAX: usize = 100;
/// Most publishes and acknowledgements of one connection without an answer.
pub const UNANSWERED_MAX: usize = 1000;

/// Where a published event is, or why it is not stored.
pub type PublishResult = Result<Option<Published>, Fault>;

/// The permit of one stream to send. The next stream sends when the permit is dropped: the door keeps it until little
/// of the chunk waits for the client.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// What the task of a stream or publish reports to its connection.
#[derive(Debug)]
pub enum StreamUpdate {
    /// The result of a publish.
    Published {
        /// The id that the client gave the publish.
        id: String,
        /// The reply number of the client.
        reply_to: Option<u64>,
        /// Where the event is, or why it is not stored.
        published: PublishResult,
    },
    /// The stream is open, under this consumer id; or why it is not.
    Opened(Result<String, Fault>),
    /// Encoded events of the stream.
    Chunk(Bytes, Turn),
    /// The result of an acknowledgement.
    Acknowledged(AckOutcome),
    /// The stream has ended.
    Ended,
}

/// The result of an acknowledgement.
#[derive(Debug)]
pub struct AckOutcome {
    /// Id of the stream, also when the stream has ended meanwhile.
    pub stream: String,
    /// Id of the event, when the acknowledgement was of one.
    pub event: Option<String>,
    /// The reply number of the client.
    pub reply_to: Option<u64>,
    /// Which events were in flight; or why nobody knows.
    pub done: Result<Acknowledged, Fault>,
}

/// A message to the client about its publishes and streams. The numbers are reply numbers of the client.
#[derive(Debug)]
pub enum StreamMessage {
    /// The answer to a publish.
    Published(Option<u64>, PublishResult),
    /// The answer to a subscribe: the consumer id, or why there is no stream.
    Opened(Option<u64>, Result<String, Fault>),
    /// An event, as JSON.
    Event(Bytes),
    /// The end of a chunk. The door keeps the permit until the chunk has left.
    ChunkEnd(Turn),
    /// The stream has ended by itself, and why.
    Ended(End, String),
    /// The answer to an acknowledgement.
    Acknowledged(AckOutcome),
    /// The stream has ended as the client asked.
    Left(Option<u64>),
}

/// Why a call of a client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamRefusal {
    /// A stream of this id is open.
    #[error("a stream of this id is open")]
    Taken,
    /// The connection has [`STREAMS_MAX`] streams.
    #[error("at most {} streams for each connection", STREAMS_MAX)]
    TooMany,
    /// No stream of this id is open.
    #[error("no stream of this id is open")]
    Unknown,
    /// The connection has [`UNANSWERED_MAX`] calls without an answer.
    #[error("{} publishes and acknowledgements have no answer yet", UNANSWERED_MAX)]
    Unanswered,
}

/// One stream of the connection.
#[derive(Debug)]
struct Stream {
    /// Distinguishes the stream from an earlier one of the same id, whose task may still report.
    number: u64,
    /// The reply number of the last call of the client: of the subscribe, then of the unsubscribe.
    reply_to: Option<u64>,
    /// The consumer id; empty while the stream is being opened.
    consumer: String,
    /// Reads the stream. Aborted when the stream is removed.
    task: JoinHandle<()>,
    /// Acknowledgements without a result. The stream does not end before them.
    acks: usize,
    /// Whether the client has unsubscribed.
    leaving: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The streams of a connection, by the ids that its client gave them.
#[derive(Debug)]
pub struct Streams {
    /// The streams.
    open: HashMap<String, Stream>,
    /// Number of the newest stream.
    number: u64,
    /// Publishes and acknowledgements without an answer, for [`UNANSWERED_MAX`].
    unanswered: usize,
    /// The one permit to send.
    turns: Arc<Semaphore>,
}

impl Default for Streams {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(1));
        Self { open: HashMap::new(), number: 0, unanswered: 0, turns }
    }
}

impl Streams {
    /// Counts a publish or an acknowledgement that will be answered.
    ///
    /// # Errors
    /// [`StreamRefusal::Unanswered`]
    const fn begin(&mut self) -> Result<(), StreamRefusal> {
        if self.unanswered >= UNANSWERED_MAX {
            return Err(StreamRefusal::Unanswered);
        }
        self.unanswered = self.unanswered.saturating_add(1);
        Ok(())
    }

    /// A publish or an acknowledgement has its answer.
    const fn done(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// How many publishes and acknowledgements have no answer yet.
    #[must_use]
    pub const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Whether no stream is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Begins a publish with the id of the client. Returns the result when it is known at once; otherwise `send`
    /// reports it to the connection, which calls [`Streams::update`].
    ///
    /// # Errors
    /// [`StreamRefusal::Unanswered`]
    pub fn publish(
        &mut self,
        id: String,
        reply_to: Option<u64>,
        publishing: impl Future<Output = PublishResult> + 'static,
        send: impl Fn(u64, StreamUpdate) + 'static,
    ) -> Result<Option<StreamMessage>, StreamRefusal> {
        self.begin()?;
        let mut publishing = Box::pin(publishing);
        // Polled here, so that the events of one connection are stored in their order.
        if let Some(published) = (&mut publishing).now_or_never() {
            self.done();
            return Ok(Some(StreamMessage::Published(reply_to, published)));
        }
        actix_web::rt::spawn(async move {
            let published = publishing.await;
            send(0, StreamUpdate::Published { id, reply_to, published });
        });
        Ok(None)
    }

    /// Begins a stream under `id`. `send` reports its updates with the number of the stream to the connection, which
    /// calls [`Streams::update`].
    ///
    /// # Errors
    /// [`StreamRefusal::Taken`], [`StreamRefusal::TooMany`]
    pub fn subscribe(
        &mut self,
        id: String,
        reply_to: Option<u64>,
        opening: impl Future<Output = Result<(String, Body), Fault>> + 'static,
        send: impl Fn(u64, StreamUpdate) + 'static,
    ) -> Result<(), StreamRefusal> {
        if self.open.contains_key(&id) {
            return Err(StreamRefusal::Taken);
        }
        if self.open.len() >= STREAMS_MAX {
            return Err(StreamRefusal::TooMany);
        }
        self.number = self.number.wrapping_add(1);
        let (number, turns) = (self.number, Arc::clone(&self.turns));
        let task = actix_web::rt::spawn(run(opening, turns, move |update| send(number, update)));
        self.open.insert(id, Stream { number, reply_to, consumer: String::new(), task, acks: 0, leaving: false });
        Ok(())
    }

    /// Begins an acknowledgement. `acknowledge` gets the consumer id and what the client says.
    ///
    /// # Errors
    /// [`StreamRefusal::Unknown`], [`StreamRefusal::Unanswered`]
    pub fn acknowledge<Done>(
        &mut self,
        id: &str,
        said: Acknowledgement,
        reply_to: Option<u64>,
        acknowledge: impl FnOnce(String, Acknowledgement) -> Done,
        send: impl Fn(u64, StreamUpdate) + 'static,
    ) -> Result<(), StreamRefusal>
    where
        Done: Future<Output = Result<Acknowledged, Fault>> + 'static,
    {
        let opened = |stream: &&Stream| !stream.consumer.is_empty();
        let stream = self.open.get(id).filter(opened).ok_or(StreamRefusal::Unknown)?;
        let event = said.single().map(str::to_owned);
        let (number, acknowledging) = (stream.number, acknowledge(stream.consumer.clone(), said));
        self.begin()?;
        if let Some(stream) = self.open.get_mut(id) {
            stream.acks = stream.acks.saturating_add(1);
        }
        let stream = id.to_owned();
        actix_web::rt::spawn(async move {
            let done = acknowledging.await;
            send(number, StreamUpdate::Acknowledged(AckOutcome { stream, event, reply_to, done }));
        });
        Ok(())
    }

    /// Ends a stream when all its acknowledgements have a result: [`StreamMessage::Left`], now or later. Returns the
    /// messages that are due now.
    ///
    /// # Errors
    /// [`StreamRefusal::Unknown`]
    pub fn unsubscribe(&mut self, id: &str, reply_to: Option<u64>) -> Result<Vec<StreamMessage>, StreamRefusal> {
        let stream = self.open.get_mut(id).filter(|stream| !stream.leaving).ok_or(StreamRefusal::Unknown)?;
        let mut messages = Vec::new();
        if stream.consumer.is_empty() {
            let never = Fault::bad("unsubscribed before the stream was open");
            messages.push(StreamMessage::Opened(stream.reply_to, Err(never)));
        }
        (stream.leaving, stream.reply_to) = (true, reply_to);
        messages.extend(self.leave(id));
        Ok(messages)
    }

    /// Removes a stream that the client has left, once no acknowledgement is without a result.
    fn leave(&mut self, id: &str) -> Option<StreamMessage> {
        self.open.get(id).filter(|stream| stream.leaving && stream.acks == 0)?;
        self.open.remove(id).map(|stream| StreamMessage::Left(stream.reply_to))
    }

    /// Handles an update of the stream of this number. Returns the id that the client gave the stream, and the messages
    /// for the client.
    pub fn update(&mut self, number: u64, update: StreamUpdate) -> Option<(String, Vec<StreamMessage>)> {
        let update = match update {
            StreamUpdate::Published { id, reply_to, published } => {
                self.done();
                return Some((id, vec![StreamMessage::Published(reply_to, published)]));
            }
            update => update,
        };
        let id = self.open.iter().find(|(_, stream)| stream.number == number).map(|(id, _)| id.clone());
        let answered = match update {
            // Also when the stream has ended meanwhile.
            StreamUpdate::Acknowledged(answered) => answered,
            other => return id.map(|id| (id.clone(), self.handle(&id, other))),
        };
        self.done();
        let (stream, mut messages) = (answered.stream.clone(), vec![StreamMessage::Acknowledged(answered)]);
        if let Some(id) = id {
            if let Some(stream) = self.open.get_mut(&id) {
                stream.acks = stream.acks.saturating_sub(1);
            }
            messages.extend(self.leave(&id));
        }
        Some((stream, messages))
    }

    /// Handles an update of an open stream.
    fn handle(&mut self, id: &str, update: StreamUpdate) -> Vec<StreamMessage> {
        match update {
            StreamUpdate::Opened(opened) => self.opened(id, opened),
            StreamUpdate::Chunk(chunk, turn) => self.chunk(id, chunk, turn),
            StreamUpdate::Ended => self.ended(id, End::Ended, End::Ended.text().to_owned()),
            StreamUpdate::Acknowledged(_) | StreamUpdate::Published { .. } => Vec::new(),
        }
    }

    /// The stream is open, or refused.
    fn opened(&mut self, id: &str, opened: Result<String, Fault>) -> Vec<StreamMessage> {
        let Some(stream) = self.open.get_mut(id) else { return Vec::new() };
        let reply_to = stream.reply_to;
        match &opened {
            Ok(consumer) => stream.consumer.clone_from(consumer),
            Err(_) => drop(self.open.remove(id)),
        }
        vec![StreamMessage::Opened(reply_to, opened)]
    }

    /// Splits a chunk into messages.
    fn chunk(&mut self, id: &str, chunk: Bytes, turn: Turn) -> Vec<StreamMessage> {
        if self.open.get(id).is_none_or(|stream| stream.leaving) {
            return Vec::new();
        }
        let mut messages = Vec::new();
        for piece in pieces::split(chunk) {
            match piece {
                Piece::Event(event) => messages.push(StreamMessage::Event(event)),
                Piece::End(end, text) => {
                    messages.extend(self.ended(id, end, String::from_utf8_lossy(&text).into_owned()));
                    break;
                }
            }
        }
        messages.push(StreamMessage::ChunkEnd(turn));
        messages
    }

    /// The stream has ended by itself. A stream that its client has left waits for its acknowledgements instead.
    fn ended(&mut self, id: &str, end: End, text: String) -> Vec<StreamMessage> {
        if self.open.get(id).is_none_or(|stream| stream.leaving) {
            return Vec::new();
        }
        self.open.remove(id);
        vec![StreamMessage::Ended(end, text)]
    }
}

/// The task of a stream: opens the stream and sends its chunks when it has the permit.
async fn run(
    opening: impl Future<Output = Result<(String, Body), Fault>>,
    turns: Arc<Semaphore>,
    send: impl Fn(StreamUpdate),
) {
    let (consumer, mut body) = match opening.await {
        Ok(opened) => opened,
        Err(fault) => return send(StreamUpdate::Opened(Err(fault))),
    };
    send(StreamUpdate::Opened(Ok(consumer)));
    while let Some(chunk) = body.next().await {
        // First come, first served: those that wait form a ring.
        let Ok(permit) = Arc::clone(&turns).acquire_owned().await else { return };
        send(StreamUpdate::Chunk(chunk, Turn { _permit: permit }));
    }
    send(StreamUpdate::Ended);
}

#[cfg(test)]
mod tests;
