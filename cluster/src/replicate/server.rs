//! The answering side of the peer protocol: accepts connections of other nodes and hands their frames to handlers.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{StreamExt as _, stream};
use openraft::raft::AppendEntriesRequest;
use prost::Message as _;
use rollbook_core::error::Refusal;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::contact::Contact;
use super::raft::Raft;
use super::receive::Receiver;
use crate::peer::conn::{Reader, Sender, start_writer};
use crate::peer::frame::{self, FRAME_BYTES_MAX, Frame, HELLO_BYTES_MAX, Kind};
use crate::peer::gate::{Gate, Pass};
use crate::peer::hello::{Hello, Welcome};
use crate::peer::identity::Identity;
use crate::peer::link::{Links, Purpose, halves};
use crate::peer::thread_connections::{Movable, ThreadConnections};
use crate::peer::transport::{self, Acceptor, PeerStream};
use crate::peer::wire;
use crate::store::files;
use crate::tls::Tls;
use crate::types::Types;

/// How long a caller may take to send its hello.
const HELLO_MAX: Duration = Duration::from_secs(5);
/// How often the server looks whether a caller was removed from the cluster.
const LOOK: Duration = Duration::from_millis(100);
/// How long the requests of a node that was removed may take to be answered before the connection to that node ends.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// An answer must leave before its connection ends.
const ANSWER_LEAVES: Duration = Duration::from_millis(50);
/// How long a node whose disk is full keeps an append request before it ends the session.
const FULL_PAUSE: Duration = Duration::from_millis(500);
/// Append requests that wait for raft in one session.
const APPENDS_MAX: usize = 64;
/// Requests of one connection that are being answered at the same time.
const REQUESTS_MAX: usize = 1024;
/// Requests between services on one connection that wait for their answer, which may take as long as a service likes.
const LIVE_REQUESTS_MAX: usize = 16_384;

/// The answer to a request.
pub(crate) enum Answer {
    /// The request was carried out.
    Done(Bytes),
    /// The request was refused.
    Refused(Refusal),
    /// This node is not the leader; nothing was done.
    NotLeader,
}

impl Answer {
    fn frame(self, session: u64) -> Frame {
        match self {
            Self::Done(body) => Frame::new(Kind::Reply, session, body),
            Self::Refused(refusal) => {
                Frame::new(Kind::Refused, session, rollbook_core::reply::encode_refusal(&refusal))
            }
            Self::NotLeader => Frame::new(Kind::NotLeader, session, Bytes::new()),
        }
    }
}

/// Answers the requests of other nodes that are not raft's own.
pub(crate) trait PeerRequestHandler: Send + Sync + 'static {
    /// Answers a request of a node.
    fn answer(&self, from: u64, kind: Kind, body: Bytes) -> impl Future<Output = Answer> + Send;
    /// Queues recorded writes of a node before it returns, so that they keep the order of the calls. The answer comes
    /// later; a caller that waits no more drops the future.
    fn forward(&self, from: u64, body: Bytes) -> impl Future<Output = Answer> + Send + use<Self>;
    /// Takes a live message of a node.
    fn hear(&self, from: u64, body: Bytes);
}

/// Everything the answering side needs.
pub(crate) struct Server<H> {
    pub(crate) identity: Arc<Identity>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) links: Arc<Links>,
    pub(crate) raft: Raft,
    pub(crate) contact: Arc<Contact>,
    pub(crate) receiver: Receiver,
    pub(crate) threads: Arc<ThreadConnections>,
    pub(crate) tls: Option<Tls>,
    pub(crate) handler: H,
}

impl<H: PeerRequestHandler> Server<H> {
    /// Takes calls until cancelled.
    pub(crate) async fn run(self: Arc<Self>, mut acceptor: Box<dyn Acceptor>, stop: CancellationToken) {
        // The bound holds for all nodes together, callers without a hello included.
        let room = Arc::new(Semaphore::new(files::peers_max()));
        let mut look = tokio::time::interval(LOOK);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {
                    self.gate.end_removed();
                    continue;
                }
                accepted = acceptor.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a peer connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                tracing::warn!(%address, "too many peer connections");
                continue;
            };
            let (server, stop) = (Arc::clone(&self), stop.clone());
            tokio::spawn(async move {
                let _permit = permit;
                if let Err(error) = server.take(stream, &address, stop).await {
                    tracing::debug!(%address, %error, "a peer connection ended");
                }
            });
        }
    }

    async fn take(self: Arc<Self>, stream: PeerStream, peer: &str, stop: CancellationToken) -> io::Result<()> {
        let shake = async {
            let (mut stream, certified): (PeerStream, _) = match &self.tls {
                None => (stream, None),
                Some(tls) => {
                    let (stream, nodes) = tls.accept(stream, peer).await?;
                    (Box::new(stream), Some(nodes))
                }
            };
            // Not one byte more than the hello: the rest may be read elsewhere.
            let first = frame::read(&mut stream, HELLO_BYTES_MAX).await?;
            Ok::<_, io::Error>((stream, certified, first))
        };
        let (mut stream, certified, first) =
            tokio::time::timeout(HELLO_MAX, shake).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let hello = first.filter(|frame| frame.kind == Kind::Hello).and_then(|frame| Hello::decode(frame.body).ok());
        let hello = hello.ok_or(io::ErrorKind::InvalidData)?;
        let initialized = self.raft.is_initialized().await.unwrap_or(true);
        let answering = async {
            let within = self.links.timing().connect();
            let conn = self.links.conn(hello.from, Purpose::Control, within).await.ok()?;
            conn.call(Kind::Ping, Bytes::new(), within).await.ok().map(|_| conn.process)
        };
        let pass = match self.gate.admit(&hello, certified.as_deref(), initialized, answering).await {
            Ok(pass) => pass,
            Err(no) => {
                tracing::warn!(from = hello.from, reason = %no.text, "a peer was refused");
                let no = Frame::new(Kind::HelloRefused, 0, no.encode_to_vec());
                let sender = start_writer(halves(stream).1);
                sender.send(no).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                tokio::time::sleep(ANSWER_LEAVES).await;
                sender.close();
                return Ok(());
            }
        };
        self.links.learn(hello.from, &hello.address);
        let bulk = Purpose::from_number(hello.purpose).is_some_and(Purpose::is_bulk);
        transport::configure(&stream, bulk, self.links.timing())?;
        if hello.purpose != u32::from(Purpose::Live.number()) {
            return self.welcome(&hello, pass, stream, stop).await;
        }
        let threads = Arc::clone(&self.threads);
        let serve = async move {
            stream.settle()?;
            self.welcome(&hello, pass, stream, stop).await
        };
        threads.run(serve).await
    }

    async fn welcome(
        self: Arc<Self>,
        hello: &Hello,
        pass: Pass,
        stream: PeerStream,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let (reader, writer) = halves(stream);
        let sender = start_writer(writer);
        let welcome = Welcome { process: self.identity.process, level: self.identity.level.get(), in_order: true };
        let welcome = Frame::new(Kind::Welcome, 0, welcome.encode_to_vec());
        sender.send(welcome).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.serve(Call { from: hello.from, reader, sender, pass }, stop).await
    }

    async fn serve(self: Arc<Self>, call: Call, stop: CancellationToken) -> io::Result<()> {
        let Call { from, mut reader, sender, pass } = call;
        let mut streams: HashMap<u64, mpsc::Sender<Frame>> = HashMap::new();
        let (requests, live_requests) =
            (Arc::new(Semaphore::new(REQUESTS_MAX)), Arc::new(Semaphore::new(LIVE_REQUESTS_MAX)));
        let (mut stopped, mut closed) = (pin!(stop.cancelled()), pin!(sender.closed()));
        let mut ended = pin!(pass.ended());
        loop {
            let frame = tokio::select! {
                biased;
                () = &mut stopped => return Ok(()),
                () = &mut closed => return Ok(()),
                () = &mut ended => {
                    // Requests before that are answered; one of them may be the removal itself.
                    let all = u32::try_from(REQUESTS_MAX).unwrap_or(u32::MAX);
                    tokio::time::timeout(DRAIN_MAX, requests.acquire_many(all)).await.ok();
                    tokio::time::sleep(ANSWER_LEAVES).await;
                    sender.close();
                    return Ok(());
                }
                frame = frame::read(&mut reader, FRAME_BYTES_MAX) => frame?,
            };
            let Some(frame) = frame else {
                sender.close();
                return Ok(());
            };
            match frame.kind {
                Kind::Append | Kind::Offer | Kind::Chunk | Kind::Complete | Kind::End => {
                    self.stream(&mut streams, from, &sender, frame).await;
                }
                Kind::Tell => self.handler.hear(from, frame.body),
                Kind::Forward => {
                    let Ok(permit) = Arc::clone(&requests).acquire_owned().await else { return Ok(()) };
                    let (answer, sender) = (self.handler.forward(from, frame.body), sender.clone());
                    tokio::spawn(async move {
                        let _permit = permit;
                        // A node whose connection has ended sends the batch again, on another connection.
                        if let Either::Left((answer, _)) = select(pin!(answer), pin!(sender.closed())).await {
                            sender.send(answer.frame(frame.session)).await.ok();
                        }
                    });
                }
                Kind::Ask => {
                    let Ok(permit) = Arc::clone(&live_requests).try_acquire_owned() else {
                        // Not waited for: a message without an answer must not stand behind a slow request.
                        let full =
                            Refusal::Overloaded("too many requests of this node wait for their answer".to_owned());
                        sender.send(Answer::Refused(full).frame(frame.session)).await.ok();
                        continue;
                    };
                    let (server, sender) = (Arc::clone(&self), sender.clone());
                    tokio::spawn(async move {
                        let _permit = permit;
                        // When the connection has ended, the answer has no receiver.
                        select(pin!(server.answer(from, &sender, frame)), pin!(sender.closed())).await;
                    });
                }
                _ => {
                    let Ok(permit) = Arc::clone(&requests).acquire_owned().await else { return Ok(()) };
                    let (server, sender) = (Arc::clone(&self), sender.clone());
                    tokio::spawn(async move {
                        let _permit = permit;
                        server.answer(from, &sender, frame).await;
                    });
                }
            }
        }
    }

    /// A further frame of a session.
    async fn stream(&self, streams: &mut HashMap<u64, mpsc::Sender<Frame>>, from: u64, sender: &Sender, frame: Frame) {
        let (session, end) = (frame.session, frame.kind == Kind::End);
        if end {
            streams.remove(&session);
            return;
        }
        if !streams.contains_key(&session) {
            // Sessions that ended by themselves.
            streams.retain(|_, stream| !stream.is_closed());
            let (frames, received) = mpsc::channel(APPENDS_MAX);
            match frame.kind {
                Kind::Append => drop(tokio::spawn(append(
                    self.raft.clone(),
                    Arc::clone(&self.identity),
                    sender.clone(),
                    session,
                    received,
                ))),
                Kind::Offer => {
                    let (receiver, raft, sender) = (self.receiver.clone(), self.raft.clone(), sender.clone());
                    tokio::spawn(async move { receiver.run(from, raft, sender, session, received).await });
                }
                // The rest of a session that ended.
                _ => return,
            }
            streams.insert(session, frames);
        }
        if let Some(stream) = streams.get(&session) {
            // Ended by itself: the caller has the reason already.
            stream.send(frame).await.ok();
        }
    }

    async fn answer(&self, from: u64, sender: &Sender, frame: Frame) {
        let answer = match frame.kind {
            Kind::Vote | Kind::PreVote | Kind::Transfer => Box::pin(self.answer_raft(frame.kind, &frame.body)).await,
            Kind::Ping => Answer::Done(self.contact.pong().encode_to_vec().into()),
            kind => self.handler.answer(from, kind, frame.body).await,
        };
        // The caller may have gone.
        sender.send(answer.frame(frame.session)).await.ok();
    }

    async fn answer_raft(&self, kind: Kind, body: &[u8]) -> Answer {
        let malformed = |what: &str| Answer::Refused(Refusal::Malformed(what.to_owned()));
        let fatal = |error: &dyn std::fmt::Display| Answer::Refused(Refusal::Unavailable(error.to_string()));
        if kind == Kind::Transfer {
            let request = match wire::decode_transfer(body) {
                Ok(request) => request,
                Err(what) => return malformed(what),
            };
            return match self.raft.handle_transfer_leader(request).await {
                Ok(Ok(())) => Answer::Done(Bytes::new()),
                Ok(Err(error)) => Answer::Refused(Refusal::Membership(error.to_string())),
                Err(error) => fatal(&error),
            };
        }
        let request = match wire::decode_vote_request(body) {
            Ok(request) => request,
            Err(what) => return malformed(what),
        };
        let voted = if kind == Kind::Vote { self.raft.vote(request).await } else { self.raft.pre_vote(request).await };
        match voted {
            Ok(response) => Answer::Done(wire::encode_vote_response(&response)),
            Err(error) => fatal(&error),
        }
    }
}

/// A connection that was taken.
struct Call {
    from: u64,
    reader: Reader,
    sender: Sender,
    pass: Pass,
}

/// Hands the append requests of a session to raft, and its answers back in order.
async fn append(raft: Raft, identity: Arc<Identity>, sender: Sender, session: u64, frames: mpsc::Receiver<Frame>) {
    let requests = stream::unfold((frames, identity), |(mut frames, identity)| async move {
        let frame = frames.recv().await?;
        match wire::decode_append(frame.body) {
            Ok(request) if !request.entries.is_empty() && identity.shortage.full.load(Ordering::Relaxed) => {
                // The leader tries again for as long as it takes; to write it would end the process.
                tokio::time::sleep(FULL_PAUSE).await;
                None
            }
            Ok(request) => {
                if request.vote.committed {
                    identity.hear_leader();
                }
                Some((request, (frames, identity)))
            }
            Err(error) => {
                tracing::error!(error, "an append of a peer is damaged");
                None
            }
        }
    });
    let requests: std::pin::Pin<Box<dyn futures_util::Stream<Item = AppendEntriesRequest<Types>> + Send>> =
        Box::pin(requests);
    let mut results = pin!(raft.stream_append(requests));
    while let Some(result) = results.next().await {
        let Ok(result) = result else { break };
        let frame = Frame::new(Kind::Appended, session, wire::encode_appended(&result));
        if sender.send(frame).await.is_err() {
            return;
        }
    }
    sender.send(Frame::new(Kind::End, session, Bytes::new())).await.ok();
}

#[cfg(test)]
mod tests;
