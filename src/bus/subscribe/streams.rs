//! The streams of the book that one connection has open beside other things, the same for every door that has them.
//! Pure, but for the tasks that move the streams along.
//!
//! One stream speaks at a time. What it has said must have left, up to a mark of the door, before the next one of the
//! ring is asked: a connection with a hundred replays has as much waiting as one with a single replay.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::bus::delivery::messages::AckResult;
use crate::bus::error::Fault;
use crate::bus::read::encoder::End;
use crate::bus::read::pieces::{self, Piece};
use crate::net::byte_queue::Body;

/// Most streams of one connection that has other things on it.
pub const STREAMS_MAX: usize = 100;
/// Most publishes and acknowledgements of one that have no end yet.
pub const UNANSWERED_MAX: usize = 1000;

/// The right of one stream to speak. The next stream speaks when this is dropped: the door keeps it until little of
/// what the stream has said waits for the client.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// What the task of a stream says to the connection that it belongs to.
#[derive(Debug)]
pub enum Streamed {
    /// It is open, under this consumer id; or why it is not.
    Opened(Result<String, Fault>),
    /// Pieces of it.
    Chunk(Bytes, Turn),
    /// What became of the acknowledgement of an event.
    Acknowledged(Answered),
    /// Nothing more comes.
    Ended,
}

/// What became of the acknowledgement of an event.
#[derive(Debug)]
pub struct Answered {
    /// The id of the stream, also when that has ended meanwhile.
    pub stream: String,
    /// The id of the event.
    pub event: String,
    /// What the client wants the answer under.
    pub asked: Option<u64>,
    /// Whether it was waited for; or why nobody knows.
    pub done: Result<AckResult, Fault>,
}

/// What a client is to be told of its streams. The numbers are what it wants an answer under.
#[derive(Debug)]
pub enum StreamMessage {
    /// The answer to its wish for a stream: the consumer id, or why there is none.
    Opened(Option<u64>, Result<String, Fault>),
    /// An event, as JSON.
    Event(Bytes),
    /// All events of a chunk are told: keep this until they have left.
    Told(Turn),
    /// The stream has ended by itself, and why.
    Ended(End, String),
    /// The answer to its acknowledgement of an event.
    Acknowledged(Answered),
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
    asked: Option<u64>,
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
    pub const fn begin(&mut self) -> Result<(), StreamRefusal> {
        if self.unanswered >= UNANSWERED_MAX {
            return Err(StreamRefusal::Unanswered);
        }
        self.unanswered = self.unanswered.saturating_add(1);
        Ok(())
    }

    /// It has its answer.
    pub const fn done(&mut self) {
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

    /// Begins a stream under `id`. What it says is handed to `tell`, which hands it back to [`Streams::told`] with the
    /// number.
    ///
    /// # Errors
    /// [`StreamRefusal::Taken`], [`StreamRefusal::TooMany`]
    pub fn subscribe(
        &mut self,
        id: String,
        asked: Option<u64>,
        opening: impl Future<Output = Result<(String, Body), Fault>> + 'static,
        tell: impl Fn(u64, Streamed) + 'static,
    ) -> Result<(), StreamRefusal> {
        if self.open.contains_key(&id) {
            return Err(StreamRefusal::Taken);
        }
        if self.open.len() >= STREAMS_MAX {
            return Err(StreamRefusal::TooMany);
        }
        self.number = self.number.wrapping_add(1);
        let (number, turns) = (self.number, Arc::clone(&self.turns));
        let task = actix_web::rt::spawn(run(opening, turns, move |streamed| tell(number, streamed)));
        self.open.insert(id, Stream { number, asked, consumer: String::new(), task, acks: 0, leaving: false });
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
        asked: Option<u64>,
        acknowledge: impl FnOnce(String, String) -> Done,
        tell: impl Fn(u64, Streamed) + 'static,
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
            tell(number, Streamed::Acknowledged(Answered { stream, event, asked, done }));
        });
        Ok(())
    }

    /// Ends a stream when all that was acknowledged has its answer: [`StreamMessage::Left`], now or later. Gives what is to be
    /// told now.
    ///
    /// # Errors
    /// [`StreamRefusal::Unknown`]
    pub fn unsubscribe(&mut self, id: &str, asked: Option<u64>) -> Result<Vec<StreamMessage>, StreamRefusal> {
        let stream = self.open.get_mut(id).filter(|stream| !stream.leaving).ok_or(StreamRefusal::Unknown)?;
        let mut words = Vec::new();
        if stream.consumer.is_empty() {
            let never = Fault::bad("unsubscribed before the stream was open");
            words.push(StreamMessage::Opened(stream.asked, Err(never)));
        }
        (stream.leaving, stream.asked) = (true, asked);
        words.extend(self.leave(id));
        Ok(words)
    }

    fn leave(&mut self, id: &str) -> Option<StreamMessage> {
        self.open.get(id).filter(|stream| stream.leaving && stream.acks == 0)?;
        self.open.remove(id).map(|stream| StreamMessage::Left(stream.asked))
    }

    /// The stream of that number says something: what its client is to be told, under the id that it gave the stream.
    pub fn told(&mut self, number: u64, streamed: Streamed) -> Option<(String, Vec<StreamMessage>)> {
        let id = self.open.iter().find(|(_, stream)| stream.number == number).map(|(id, _)| id.clone());
        let answered = match streamed {
            // Also when the stream has ended meanwhile.
            Streamed::Acknowledged(answered) => answered,
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

    fn said(&mut self, id: &str, streamed: Streamed) -> Vec<StreamMessage> {
        match streamed {
            Streamed::Opened(opened) => self.opened(id, opened),
            Streamed::Chunk(chunk, turn) => self.chunk(id, chunk, turn),
            Streamed::Ended => self.ended(id, End::Ended, End::Ended.text().to_owned()),
            Streamed::Acknowledged(_) => Vec::new(),
        }
    }

    fn opened(&mut self, id: &str, opened: Result<String, Fault>) -> Vec<StreamMessage> {
        let Some(stream) = self.open.get_mut(id) else { return Vec::new() };
        let asked = stream.asked;
        match &opened {
            Ok(consumer) => stream.consumer.clone_from(consumer),
            Err(_) => drop(self.open.remove(id)),
        }
        vec![StreamMessage::Opened(asked, opened)]
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
        words.push(StreamMessage::Told(turn));
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
    tell: impl Fn(Streamed),
) {
    let (consumer, mut body) = match opening.await {
        Ok(opened) => opened,
        Err(fault) => return tell(Streamed::Opened(Err(fault))),
    };
    tell(Streamed::Opened(Ok(consumer)));
    while let Some(chunk) = body.next().await {
        // First come, first served: those that wait form a ring.
        let Ok(permit) = Arc::clone(&turns).acquire_owned().await else { return };
        tell(Streamed::Chunk(chunk, Turn { _permit: permit }));
    }
    tell(Streamed::Ended);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::bus::read::encoder::EventEncoder as _;
    use crate::bus::read::pieces::PIECES;
    use crate::net::byte_queue::{self, Outlet};
    use rollbook_core::event::Event;

    type Heard = Rc<RefCell<Vec<(u64, Streamed)>>>;

    fn event() -> Bytes {
        let mut out = Vec::new();
        PIECES.event(1, &Event { subject: "a.b", ..Event::default() }, &mut out);
        out.into()
    }

    /// A stream that is open, with its writing end.
    fn opened(streams: &mut Streams, id: &str, heard: &Heard) -> Outlet {
        let (outlet, body) = byte_queue::pair();
        let tells = Rc::clone(heard);
        let opening = std::future::ready(Ok((format!("c_{id}"), body)));
        let tell = move |number, streamed| tells.borrow_mut().push((number, streamed));
        streams.subscribe(id.to_owned(), None, opening, tell).unwrap();
        outlet
    }

    /// What there is to be told now.
    async fn words(streams: &mut Streams, heard: &Heard) -> Vec<(String, StreamMessage)> {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        let told: Vec<_> = heard.borrow_mut().drain(..).collect();
        let told = told.into_iter().filter_map(|(number, streamed)| streams.told(number, streamed));
        told.flat_map(|(id, words)| words.into_iter().map(move |word| (id.clone(), word))).collect()
    }

    fn name(word: &StreamMessage) -> &'static str {
        match word {
            StreamMessage::Opened(_, Ok(_)) => "opened",
            StreamMessage::Opened(_, Err(_)) => "refused",
            StreamMessage::Event(_) => "event",
            StreamMessage::Told(_) => "told",
            StreamMessage::Ended(end, _) => end.code(),
            StreamMessage::Acknowledged(_) => "acknowledged",
            StreamMessage::Left(_) => "left",
        }
    }

    fn names(words: &[(String, StreamMessage)]) -> Vec<String> {
        words.iter().map(|(id, word)| format!("{id} {}", name(word))).collect()
    }

    #[actix_web::test]
    async fn one_stream_speaks_at_a_time_and_each_has_its_turn() {
        let (mut streams, heard) = (Streams::default(), Heard::default());
        let outlets: Vec<Outlet> = ["a", "b", "c"].map(|id| opened(&mut streams, id, &heard)).into();
        assert_eq!(names(&words(&mut streams, &heard).await), ["a opened", "b opened", "c opened"]);
        outlets.iter().for_each(|outlet| outlet.push(event()));
        let mut spoke = Vec::new();
        for _ in 0..6 {
            // Nobody else speaks while what this one has said has not left: its turn is kept.
            let mut said = words(&mut streams, &heard).await;
            let quiet = words(&mut streams, &heard).await;
            assert!(quiet.is_empty(), "{:?}", names(&quiet));
            assert_eq!(said.len(), 2, "{:?}", names(&said));
            let Some((id, StreamMessage::Told(turn))) = said.pop() else { panic!("no turn") };
            outlets.iter().zip(["a", "b", "c"]).filter(|(_, name)| *name == id).for_each(|(outlet, _)| {
                outlet.push(event());
            });
            spoke.push(id);
            // It has something to say again, and waits behind the others.
            tokio::task::yield_now().await;
            drop(turn);
        }
        assert_eq!(spoke, ["a", "b", "c", "a", "b", "c"]);
    }

    #[actix_web::test]
    async fn a_stream_that_is_left_ends_behind_the_answers_to_what_was_acknowledged() {
        let (mut streams, heard) = (Streams::default(), Heard::default());
        let outlet = opened(&mut streams, "a", &heard);
        words(&mut streams, &heard).await;
        let (answer, answers) = tokio::sync::oneshot::channel();
        let tells = Rc::clone(&heard);
        let tell = move |number, streamed| tells.borrow_mut().push((number, streamed));
        let acknowledge = |consumer: String, event: String| async move {
            assert_eq!((&*consumer, &*event), ("c_a", "e_1"));
            Ok(answers.await.unwrap())
        };
        streams.acknowledge("a", "e_1".to_owned(), Some(7), acknowledge, tell).unwrap();
        assert!(streams.unsubscribe("a", Some(8)).unwrap().is_empty() && streams.unanswered() == 1);
        outlet.push(event());
        assert!(words(&mut streams, &heard).await.is_empty(), "its client wants no more of it");
        assert_eq!(streams.unsubscribe("a", None).unwrap_err(), StreamRefusal::Unknown);
        answer.send(AckResult::Yes).unwrap();
        let told = words(&mut streams, &heard).await;
        assert_eq!(names(&told), ["a acknowledged", "a left"]);
        assert!(matches!(told[1].1, StreamMessage::Left(Some(8))) && streams.unanswered() == 0);
        outlet.gone().await;
        // One that is not open yet: who asked for it is told that it never will be.
        opened(&mut streams, "b", &heard);
        let told = streams.unsubscribe("b", None).unwrap();
        assert_eq!(told.iter().map(name).collect::<Vec<_>>(), ["refused", "left"]);
    }

    #[actix_web::test]
    async fn the_end_of_a_stream_has_a_code() {
        let (mut streams, heard) = (Streams::default(), Heard::default());
        for end in End::ALL {
            let outlet = opened(&mut streams, "a", &heard);
            let mut out = event().to_vec();
            if end != End::Ended {
                PIECES.end(end, &mut out);
            }
            outlet.push(out.into());
            outlet.end();
            let mut told = words(&mut streams, &heard).await;
            // What was said must have left before anything else is said.
            told.retain(|(_, word)| !matches!(word, StreamMessage::Told(_)));
            told.extend(words(&mut streams, &heard).await);
            assert_eq!(names(&told), ["a opened", "a event", &format!("a {}", end.code())], "{end:?}");
            outlet.gone().await;
            assert_eq!(streams.unsubscribe("a", None).unwrap_err(), StreamRefusal::Unknown);
        }
    }

    #[actix_web::test]
    async fn a_connection_has_so_many_streams_and_so_much_without_an_answer() {
        let (mut streams, heard) = (Streams::default(), Heard::default());
        let outlets: Vec<Outlet> = (0..STREAMS_MAX).map(|n| opened(&mut streams, &n.to_string(), &heard)).collect();
        let never = || std::future::pending::<Result<(String, Body), Fault>>();
        assert_eq!(streams.subscribe("0".to_owned(), None, never(), |_, _| ()), Err(StreamRefusal::Taken));
        assert_eq!(streams.subscribe("x".to_owned(), None, never(), |_, _| ()), Err(StreamRefusal::TooMany));
        assert_eq!(outlets.len(), STREAMS_MAX);
        assert!((0..UNANSWERED_MAX).all(|_| streams.begin().is_ok()));
        assert_eq!(streams.begin(), Err(StreamRefusal::Unanswered));
        streams.done();
        assert_eq!(streams.begin(), Ok(()));
    }
}
