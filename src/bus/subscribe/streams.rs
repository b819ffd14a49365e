//! The streams of the book that one connection has open beside other things, the same for every door that has them.
//! Pure, but for the tasks that move the streams along.
//!
//! One stream speaks at a time. What it has said must have left, up to a mark of the door, before the next one of the
//! ring is asked: a connection with a hundred replays has as much waiting as one with a single replay.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::bus::delivery::messages::AckResult;
use crate::bus::error::Fault;
use crate::bus::read::encoder::End;
use crate::bus::read::pieces::{self, Piece};
use crate::bus::write::draft::Published;
use crate::net::byte_queue::Body;

/// Most streams of one connection that has other things on it.
pub const STREAMS_MAX: usize = 100;
/// Most publishes and acknowledgements of one that have no end yet.
pub const UNANSWERED_MAX: usize = 1000;

/// Where a published event is, or why it is not stored.
pub type PublishResult = Result<Option<Published>, Fault>;

/// The right of one stream to speak. The next stream speaks when this is dropped: the door keeps it until little of
/// what the stream has said waits for the client.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// What the task of a stream, or of a publish, says to the connection that it belongs to.
#[derive(Debug)]
pub enum StreamUpdate {
    /// What became of a publish.
    Published {
        /// What the client calls the publish.
        id: String,
        /// What the client wants the answer under.
        reply_to: Option<u64>,
        /// Where the event is; or why it is not stored.
        published: PublishResult,
    },
    /// It is open, under this consumer id; or why it is not.
    Opened(Result<String, Fault>),
    /// Pieces of it.
    Chunk(Bytes, Turn),
    /// What became of the acknowledgement of an event.
    Acknowledged(AckOutcome),
    /// Nothing more comes.
    Ended,
}

/// What became of the acknowledgement of an event.
#[derive(Debug)]
pub struct AckOutcome {
    /// The id of the stream, also when that has ended meanwhile.
    pub stream: String,
    /// The id of the event.
    pub event: String,
    /// What the client wants the answer under.
    pub reply_to: Option<u64>,
    /// Whether it was waited for; or why nobody knows.
    pub done: Result<AckResult, Fault>,
}

/// What a client is to be told of its publishes and streams. The numbers are what it wants an answer under.
#[derive(Debug)]
pub enum StreamMessage {
    /// The answer to its publish.
    Published(Option<u64>, PublishResult),
    /// The answer to its wish for a stream: the consumer id, or why there is none.
    Opened(Option<u64>, Result<String, Fault>),
    /// An event, as JSON.
    Event(Bytes),
    /// All events of a chunk are told: keep this until they have left.
    ChunkEnd(Turn),
    /// The stream has ended by itself, and why.
    Ended(End, String),
    /// The answer to its acknowledgement of an event.
    Acknowledged(AckOutcome),
    /// The stream has ended as the client wanted.
    Left(Option<u64>),
}

/// Why something is not done for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamRefusal {
    /// A stream of that id is there.
    #[error("a stream of this id is open")]
    Taken,
    /// It has [`STREAMS_MAX`].
    #[error("at most {} streams for each connection", STREAMS_MAX)]
    TooMany,
    /// No stream of that id is there.
    #[error("no stream of this id is open")]
    Unknown,
    /// It has [`UNANSWERED_MAX`].
    #[error("{} publishes and acknowledgements have no answer yet", UNANSWERED_MAX)]
    Unanswered,
}

#[derive(Debug)]
struct Stream {
    /// Tells it from an earlier one of the same id.
    number: u64,
    /// What the client wants the answer to its last wish under: to open it, then to end it.
    reply_to: Option<u64>,
    /// Empty while it is being opened.
    consumer: String,
    /// What moves it along.
    task: JoinHandle<()>,
    /// Acknowledgements on their way: a stream is not ended before them.
    acks: usize,
    /// Its client wants no more of it.
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
    open: HashMap<String, Stream>,
    number: u64,
    unanswered: usize,
    turns: Arc<Semaphore>,
}

impl Default for Streams {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(1));
        Self { open: HashMap::new(), number: 0, unanswered: 0, turns }
    }
}

impl Streams {
    /// Takes note of a publish or an acknowledgement that will be answered.
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

    /// It has its answer.
    const fn done(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// How many have none yet.
    #[must_use]
    pub const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Begins a publish, which the client calls `id`. What became of it when that is known at once; else it is handed to
    /// `tell`, which hands it back to [`Streams::update`].
    ///
    /// # Errors
    /// [`StreamRefusal::Unanswered`]
    pub fn publish(
        &mut self,
        id: String,
        reply_to: Option<u64>,
        publishing: impl Future<Output = PublishResult> + 'static,
        tell: impl Fn(u64, StreamUpdate) + 'static,
    ) -> Result<Option<StreamMessage>, StreamRefusal> {
        self.begin()?;
        let mut publishing = Box::pin(publishing);
        // Begun here: the events of one connection go into the book in their order.
        if let Some(published) = (&mut publishing).now_or_never() {
            self.done();
            return Ok(Some(StreamMessage::Published(reply_to, published)));
        }
        actix_web::rt::spawn(async move {
            let published = publishing.await;
            tell(0, StreamUpdate::Published { id, reply_to, published });
        });
        Ok(None)
    }

    /// Begins a stream under `id`. What it says is handed to `tell`, which hands it back to [`Streams::update`] with the
    /// number.
    ///
    /// # Errors
    /// [`StreamRefusal::Taken`], [`StreamRefusal::TooMany`]
    pub fn subscribe(
        &mut self,
        id: String,
        reply_to: Option<u64>,
        opening: impl Future<Output = Result<(String, Body), Fault>> + 'static,
        tell: impl Fn(u64, StreamUpdate) + 'static,
    ) -> Result<(), StreamRefusal> {
        if self.open.contains_key(&id) {
            return Err(StreamRefusal::Taken);
        }
        if self.open.len() >= STREAMS_MAX {
            return Err(StreamRefusal::TooMany);
        }
        self.number = self.number.wrapping_add(1);
        let (number, turns) = (self.number, Arc::clone(&self.turns));
        let task = actix_web::rt::spawn(run(opening, turns, move |update| tell(number, update)));
        self.open.insert(id, Stream { number, reply_to, consumer: String::new(), task, acks: 0, leaving: false });
        Ok(())
    }

    /// Begins the acknowledgement of an event: `acknowledge` makes it of the consumer id and the id of the event.
    ///
    /// # Errors
    /// [`StreamRefusal::Unknown`], [`StreamRefusal::Unanswered`]
    pub fn acknowledge<Done>(
        &mut self,
        id: &str,
        event: String,
        reply_to: Option<u64>,
        acknowledge: impl FnOnce(String, String) -> Done,
        tell: impl Fn(u64, StreamUpdate) + 'static,
    ) -> Result<(), StreamRefusal>
    where
        Done: Future<Output = Result<AckResult, Fault>> + 'static,
    {
        let opened = |stream: &&Stream| !stream.consumer.is_empty();
        let stream = self.open.get(id).filter(opened).ok_or(StreamRefusal::Unknown)?;
        let (number, acknowledging) = (stream.number, acknowledge(stream.consumer.clone(), event.clone()));
        self.begin()?;
        if let Some(stream) = self.open.get_mut(id) {
            stream.acks = stream.acks.saturating_add(1);
        }
        let stream = id.to_owned();
        actix_web::rt::spawn(async move {
            let done = acknowledging.await;
            tell(number, StreamUpdate::Acknowledged(AckOutcome { stream, event, reply_to, done }));
        });
        Ok(())
    }

    /// Ends a stream when all that was acknowledged has its answer: [`StreamMessage::Left`], now or later. Gives what is to be
    /// told now.
    ///
    /// # Errors
    /// [`StreamRefusal::Unknown`]
    pub fn unsubscribe(&mut self, id: &str, reply_to: Option<u64>) -> Result<Vec<StreamMessage>, StreamRefusal> {
        let stream = self.open.get_mut(id).filter(|stream| !stream.leaving).ok_or(StreamRefusal::Unknown)?;
        let mut words = Vec::new();
        if stream.consumer.is_empty() {
            let never = Fault::bad("unsubscribed before the stream was open");
            words.push(StreamMessage::Opened(stream.reply_to, Err(never)));
        }
        (stream.leaving, stream.reply_to) = (true, reply_to);
        words.extend(self.leave(id));
        Ok(words)
    }

    fn leave(&mut self, id: &str) -> Option<StreamMessage> {
        self.open.get(id).filter(|stream| stream.leaving && stream.acks == 0)?;
        self.open.remove(id).map(|stream| StreamMessage::Left(stream.reply_to))
    }

    /// The stream of that number says something: what its client is to be told, under the id that it gave the stream.
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
            other => return id.map(|id| (id.clone(), self.said(&id, other))),
        };
        self.done();
        let (stream, mut words) = (answered.stream.clone(), vec![StreamMessage::Acknowledged(answered)]);
        if let Some(id) = id {
            if let Some(stream) = self.open.get_mut(&id) {
                stream.acks = stream.acks.saturating_sub(1);
            }
            words.extend(self.leave(&id));
        }
        Some((stream, words))
    }

    fn said(&mut self, id: &str, update: StreamUpdate) -> Vec<StreamMessage> {
        match update {
            StreamUpdate::Opened(opened) => self.opened(id, opened),
            StreamUpdate::Chunk(chunk, turn) => self.chunk(id, chunk, turn),
            StreamUpdate::Ended => self.ended(id, End::Ended, End::Ended.text().to_owned()),
            StreamUpdate::Acknowledged(_) | StreamUpdate::Published { .. } => Vec::new(),
        }
    }

    fn opened(&mut self, id: &str, opened: Result<String, Fault>) -> Vec<StreamMessage> {
        let Some(stream) = self.open.get_mut(id) else { return Vec::new() };
        let reply_to = stream.reply_to;
        match &opened {
            Ok(consumer) => stream.consumer.clone_from(consumer),
            Err(_) => drop(self.open.remove(id)),
        }
        vec![StreamMessage::Opened(reply_to, opened)]
    }

    fn chunk(&mut self, id: &str, chunk: Bytes, turn: Turn) -> Vec<StreamMessage> {
        if self.open.get(id).is_none_or(|stream| stream.leaving) {
            return Vec::new();
        }
        let mut words = Vec::new();
        for piece in pieces::split(chunk) {
            match piece {
                Piece::Event(event) => words.push(StreamMessage::Event(event)),
                Piece::End(end, text) => {
                    words.extend(self.ended(id, end, String::from_utf8_lossy(&text).into_owned()));
                    break;
                }
            }
        }
        words.push(StreamMessage::ChunkEnd(turn));
        words
    }

    /// A stream has ended by itself. One that its client has left waits for the answers to what was acknowledged.
    fn ended(&mut self, id: &str, end: End, text: String) -> Vec<StreamMessage> {
        if self.open.get(id).is_none_or(|stream| stream.leaving) {
            return Vec::new();
        }
        self.open.remove(id);
        vec![StreamMessage::Ended(end, text)]
    }
}

/// Moves a stream along: opens it, and hands on what it says when it is its turn.
async fn run(
    opening: impl Future<Output = Result<(String, Body), Fault>>,
    turns: Arc<Semaphore>,
    tell: impl Fn(StreamUpdate),
) {
    let (consumer, mut body) = match opening.await {
        Ok(opened) => opened,
        Err(fault) => return tell(StreamUpdate::Opened(Err(fault))),
    };
    tell(StreamUpdate::Opened(Ok(consumer)));
    while let Some(chunk) = body.next().await {
        // First come, first served: those that wait form a ring.
        let Ok(permit) = Arc::clone(&turns).acquire_owned().await else { return };
        tell(StreamUpdate::Chunk(chunk, Turn { _permit: permit }));
    }
    tell(StreamUpdate::Ended);
}

#[cfg(test)]
mod tests;
