//! A connection between two nodes that many sessions share: each request and its answers are a session.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::frame::{self, FRAME_BYTES_MAX, Frame, Kind};
use crate::lock::lock;

/// The receiving half of the stream below a connection.
pub(crate) type Reader = BufReader<Box<dyn AsyncRead + Send + Unpin>>;
/// The sending half of the stream below a connection.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Most bytes of frames that wait to be written to one peer; a sender of more waits.
const OUT_BYTES_MAX: usize = 64 << 20;
/// Most frames that wait to be written to one peer.
const OUT_FRAMES_MAX: usize = 1024;
/// Most received frames that wait in one session.
const SESSION_FRAMES_MAX: usize = 64;
/// Small frames are written together, up to this many bytes.
const WRITE_BYTES: usize = 128 << 10;
/// The connection to a peer that reads nothing for this long is closed.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Why a call of another node failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    /// The peer could not be reached; the peer has seen nothing of the call.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The connection ended; the peer may have seen the call.
    #[error("the connection was lost")]
    Lost,
    /// No answer came in time; the peer may have seen the call.
    #[error("no answer in time")]
    Late,
    /// The peer is not the leader and did nothing.
    #[error("not the leader")]
    NotLeader,
    /// The peer refused.
    #[error("{0}")]
    Refused(rollbook_core::error::Refusal),
    /// The peer does not keep to the protocol.
    #[error("peer protocol: {0}")]
    Protocol(&'static str),
}

type Queued = (Frame, OwnedSemaphorePermit);

/// The queue of frames that are written to a connection. Clones share the queue.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    closed: CancellationToken,
}

impl Sender {
    /// Sends a frame as soon as there is room.
    pub(crate) async fn send(&self, frame: Frame) -> Result<(), CallError> {
        let bytes = frame.room();
        let frame = match Arc::clone(&self.room).try_acquire_many_owned(bytes) {
            // There is room, nearly always.
            Ok(permit) => match self.queue.try_send((frame, permit)) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(CallError::Lost),
                Err(TrySendError::Full((frame, _))) => frame,
            },
            Err(_) => frame,
        };
        let send = async {
            let permit = Arc::clone(&self.room).acquire_many_owned(bytes).await.map_err(|_| CallError::Lost)?;
            self.queue.send((frame, permit)).await.map_err(|_| CallError::Lost)
        };
        tokio::select! {
            sent = send => sent,
            () = self.closed.cancelled() => Err(CallError::Lost),
        }
    }

    /// Sends a frame when there is room now.
    pub(crate) fn try_send(&self, frame: Frame) -> Result<(), CallError> {
        let permit = Arc::clone(&self.room).try_acquire_many_owned(frame.room()).map_err(|_| CallError::Late)?;
        self.queue.try_send((frame, permit)).map_err(|_| CallError::Lost)
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Resolves when the connection has ended.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

/// Starts the task that writes the frames of the queue; the connection is closed when a write fails.
pub(crate) fn start_writer(writer: Writer) -> Sender {
    let (queue, frames) = mpsc::channel(OUT_FRAMES_MAX);
    let closed = CancellationToken::new();
    let sender = Sender { queue, room: Arc::new(Semaphore::new(OUT_BYTES_MAX)), closed: closed.clone() };
    tokio::spawn(async move {
        let _close = closed.clone().drop_guard();
        tokio::select! {
            () = closed.cancelled() => {}
            result = write(writer, frames) => if let Err(error) = result {
                tracing::debug!(%error, "a peer connection cannot be written");
            }
        }
    });
    sender
}

async fn write(mut writer: Writer, mut frames: mpsc::Receiver<Queued>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    while let Some((frame, permit)) = frames.recv().await {
        let mut permits = vec![permit];
        let large = gather(&mut buffer, frame);
        let mut large = large.into_iter().collect::<Vec<Bytes>>();
        while large.is_empty() && buffer.len() < WRITE_BYTES {
            let Ok((frame, permit)) = frames.try_recv() else { break };
            permits.push(permit);
            large.extend(gather(&mut buffer, frame));
        }
        let write = async {
            writer.write_all(&buffer).await?;
            for body in &large {
                writer.write_all(body).await?;
            }
            writer.flush().await
        };
        tokio::time::timeout(WRITE_MAX, write).await.map_err(|_| io::ErrorKind::TimedOut)??;
        buffer.clear();
        if buffer.capacity() > WRITE_BYTES.saturating_mul(2) {
            buffer = Vec::with_capacity(4096);
        }
        drop(permits);
    }
    Ok(())
}

/// Puts a frame into the buffer; a large body is returned instead, and is written without a copy.
fn gather(buffer: &mut Vec<u8>, frame: Frame) -> Option<Bytes> {
    buffer.extend_from_slice(&frame.header());
    if frame.body.len() >= WRITE_BYTES / 4 {
        return Some(frame.body);
    }
    buffer.extend_from_slice(&frame.body);
    None
}

/// The caller that waits for the frames of an exchange.
#[derive(Debug)]
enum Waiter {
    /// Waits for many frames.
    Session(mpsc::Sender<Frame>),
    /// Waits for one answer.
    Call(oneshot::Sender<Frame>),
}

type Sessions = HashMap<u64, Waiter>;

/// The calling side of a connection.
#[derive(Debug)]
pub(crate) struct Conn {
    sender: Sender,
    sessions: Arc<Mutex<Sessions>>,
    next: AtomicU64,
    /// The process at the other end.
    pub(crate) process: u64,
    /// Whether the other end takes forwarded writes in the order in which they are sent. The release before does not.
    pub(crate) takes_in_order: bool,
    /// The address of the other end.
    pub(crate) address: String,
    _closes: DropGuard,
}

/// Gives a frame to the caller that waits for it. A frame for a session is returned with the channel of the session,
/// which may be full. An answer that comes too late has no caller any more, and is dropped.
fn hand_over(sessions: &Mutex<Sessions>, frame: Frame) -> Option<(mpsc::Sender<Frame>, Frame)> {
    let mut sessions = lock(sessions);
    if let Waiter::Session(session) = sessions.get(&frame.session)? {
        return Some((session.clone(), frame));
    }
    if let Some(Waiter::Call(call)) = sessions.remove(&frame.session) {
        call.send(frame).ok();
    }
    None
}

impl Conn {
    /// A connection whose hello was answered.
    pub(crate) fn start(mut reader: Reader, sender: Sender, process: u64, address: String) -> Self {
        let sessions = Arc::new(Mutex::new(Sessions::new()));
        let (found, closed) = (Arc::clone(&sessions), sender.closed.clone());
        let guard = sender.closed.clone().drop_guard();
        tokio::spawn(async move {
            let _close = closed.clone().drop_guard();
            let mut cancelled = pin!(closed.cancelled());
            loop {
                let frame = tokio::select! {
                    biased;
                    () = &mut cancelled => break,
                    frame = frame::read(&mut reader, FRAME_BYTES_MAX) => frame,
                };
                let Ok(Some(frame)) = frame else { break };
                if let Some((session, frame)) = hand_over(&found, frame) {
                    session.send(frame).await.ok();
                }
            }
            lock(&found).clear();
        });
        Self { sender, sessions, next: AtomicU64::new(1), process, address, takes_in_order: false, _closes: guard }
    }

    /// A connection with the form of forwarded writes that the hello of the other end announced.
    pub(crate) fn taking_in_order(self, takes_in_order: bool) -> Self {
        Self { takes_in_order, ..self }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Resolves when the connection has ended.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Ends the connection: all calls that wait on it fail with [`CallError::Lost`].
    pub(crate) fn close(&self) {
        self.sender.close();
    }

    fn begin(self: &Arc<Self>, waiter: Waiter) -> Exchange {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.sessions).insert(id, waiter);
        if self.is_closed() {
            lock(&self.sessions).clear();
        }
        Exchange { id, conn: Arc::clone(self) }
    }

    /// Begins an exchange of many frames.
    pub(crate) fn open(self: &Arc<Self>) -> Session {
        let (sender, frames) = mpsc::channel(SESSION_FRAMES_MAX);
        Session { exchange: self.begin(Waiter::Session(sender)), frames }
    }

    /// Sends a request and waits for the answer.
    pub(crate) async fn call(self: &Arc<Self>, kind: Kind, body: Bytes, within: Duration) -> Result<Bytes, CallError> {
        let (sender, answer) = oneshot::channel();
        let exchange = self.begin(Waiter::Call(sender));
        let answer = async {
            exchange.send(kind, body).await?;
            reply(answer.await.map_err(|_| CallError::Lost)?)
        };
        tokio::time::timeout(within, answer).await.unwrap_or(Err(CallError::Late))
    }

    /// Sends a request and leaves the wait for the answer to the caller. The next request comes behind this one.
    pub(crate) async fn request(self: &Arc<Self>, kind: Kind, body: Bytes) -> Result<PendingCall, CallError> {
        let (sender, answer) = oneshot::channel();
        let exchange = self.begin(Waiter::Call(sender));
        // A request that was not even queued has not been seen by the peer.
        let closed = |_| CallError::Unreachable("the connection was lost".to_owned());
        exchange.send(kind, body).await.map_err(closed)?;
        Ok(PendingCall { _exchange: exchange, answer })
    }

    /// Sends a message without an answer, when there is room now.
    pub(crate) fn tell(&self, kind: Kind, body: Bytes) -> Result<(), CallError> {
        self.sender.try_send(Frame::new(kind, 0, body))
    }
}

/// The result that the frame of an answer stands for.
pub(crate) fn reply(frame: Frame) -> Result<Bytes, CallError> {
    match frame.kind {
        Kind::Reply => Ok(frame.body),
        Kind::NotLeader => Err(CallError::NotLeader),
        Kind::Refused => Err(rollbook_core::reply::decode_refusal(&frame.body)
            .map_or(CallError::Protocol("a refusal of an unknown kind"), CallError::Refused)),
        _ => Err(CallError::Protocol("an answer of another kind")),
    }
}

/// A request that was sent. When this is dropped, the answer is dropped too.
#[derive(Debug)]
pub(crate) struct PendingCall {
    _exchange: Exchange,
    answer: oneshot::Receiver<Frame>,
}

impl PendingCall {
    /// Waits for the answer.
    pub(crate) async fn answer(self, within: Duration) -> Result<Bytes, CallError> {
        match tokio::time::timeout(within, self.answer).await {
            Ok(Ok(frame)) => reply(frame),
            Ok(Err(_)) => Err(CallError::Lost),
            Err(_) => Err(CallError::Late),
        }
    }
}

/// One exchange on a connection. Ends when dropped.
#[derive(Debug)]
struct Exchange {
    id: u64,
    conn: Arc<Conn>,
}

impl Exchange {
    async fn send(&self, kind: Kind, body: Bytes) -> Result<(), CallError> {
        self.conn.sender.send(Frame::new(kind, self.id, body)).await
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        lock(&self.conn.sessions).remove(&self.id);
    }
}

/// An exchange of many frames. Ends when dropped, for the other side too.
#[derive(Debug)]
pub(crate) struct Session {
    exchange: Exchange,
    frames: mpsc::Receiver<Frame>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let (id, sender) = (self.exchange.id, self.exchange.conn.sender.clone());
        let end = move || Frame::new(Kind::End, id, Bytes::new());
        if sender.is_closed() || sender.try_send(end()).is_ok() {
            return;
        }
        // Without an end the other side would wait as long as the connection lives.
        match tokio::runtime::Handle::try_current() {
            // The end is sent behind the queued frames of the session, when there is room, or never when the connection
            // ends.
            Ok(runtime) => drop(runtime.spawn(async move { sender.send(end()).await })),
            Err(_) => sender.close(),
        }
    }
}

impl Session {
    pub(crate) async fn send(&self, kind: Kind, body: Bytes) -> Result<(), CallError> {
        self.exchange.send(kind, body).await
    }

    /// Both directions, to be used at the same time.
    pub(crate) fn halves(&mut self) -> (Outward<'_>, impl Future<Output = Result<Frame, CallError>> + '_) {
        let Self { exchange, frames } = self;
        let receive = async { frames.recv().await.ok_or(CallError::Lost) };
        (Outward { exchange }, receive)
    }

    /// The next frame from the other side.
    pub(crate) async fn receive(&mut self) -> Result<Frame, CallError> {
        self.frames.recv().await.ok_or(CallError::Lost)
    }

    /// The next frame, when one was received already.
    pub(crate) fn arrived(&mut self) -> Option<Frame> {
        self.frames.try_recv().ok()
    }
}

/// The sending half of a session.
pub(crate) struct Outward<'a> {
    exchange: &'a Exchange,
}

impl Outward<'_> {
    pub(crate) async fn send(&self, kind: Kind, body: Bytes) -> Result<(), CallError> {
        self.exchange.send(kind, body).await
    }
}
