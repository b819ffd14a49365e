//! One connection: request after request, each answered before the next one is parsed.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::error::PayloadError;
use actix_http::h1::{Codec, Message, MessageType};
use actix_http::{HttpMessage as _, Payload, Request, Response};
use actix_service::Service;
use actix_web::Error;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, RETRY_AFTER, UPGRADE,
};
use actix_web::http::{Method, Version};
use actix_web::rt::net::TcpStream;
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::Stream;
use tokio::time::{Instant, Sleep};
use tokio_util::codec::Decoder as _;

use super::answer::{Asked, send};
use super::head::{self, Fault, HEAD_BYTES_MAX};
use super::incoming::Incoming;
use super::inflate::{self, Inflated};
use super::settings::HttpListener;
use super::socket::{BufferedSocket, Slot, Taken};
use super::worker::{Idle, Worker};
use crate::base::clock;
use crate::net::listener::admission::{Admitted, Arrival, Rejected};
use crate::net::listener::limits::{ConnectionSlot, TurnedAway};
use crate::net::peer::Peer;
use crate::net::socket::Socket;

/// Longest time from the first byte of a head to its last.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a closing connection waits until the client has read its answer.
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);
/// The same wait for a client that has sent nothing beyond its request, as most have: a stopping node waits for all of
/// them.
const LINGER_SILENT_MAX: Duration = Duration::from_millis(250);
/// Most bytes that are read and discarded during that wait.
const LINGER_BYTES_MAX: usize = 32 << 20;
/// How long the rest of a body is read that the application did not read, so that the connection can go on.
const UNWANTED_TIME_MAX: Duration = Duration::from_millis(250);
/// Most bytes of such a rest.
const UNWANTED_BYTES_MAX: u64 = 64 << 10;

/// An application, as a connection calls it.
pub(super) trait Application<B>: Service<Request, Response: Into<Response<B>>, Error: Into<Error>> {}

impl<B, S: Service<Request, Response: Into<Response<B>>, Error: Into<Error>>> Application<B> for S {}

/// What comes next on a connection.
enum Next {
    /// A request.
    Request(Box<Request>),
    /// Bytes that are not a request. Nothing behind them can be understood.
    Fault(Fault),
    /// The client has gone, or the connection was idle for too long.
    End,
}

/// What happens to the connection after an answer.
enum Then {
    /// The connection waits for another request.
    Next,
    /// The connection closes after its last answer.
    Close,
    /// The application has taken the connection over.
    Gone,
}

/// A connection that was let in.
struct Connection<S> {
    /// The socket and its buffers, shared with the body of the request.
    wire: Rc<RefCell<BufferedSocket>>,
    /// What the connections of the thread share.
    thread: Rc<Worker<S>>,
    /// The slot of this connection in the bound of the listener.
    place: ConnectionSlot,
    /// The client.
    peer: Peer,
    /// The timer of all waits.
    timer: Timer,
}

/// Serves a connection until it ends.
pub(super) async fn serve<S: Application<B>, B: MessageBody + 'static>(io: TcpStream, thread: Rc<Worker<S>>) {
    let limits = &thread.listener.limits;
    let Some(arrival) = Arrival::new(io, limits) else { return };
    match thread.admit() {
        Some(Ok(place)) => match arrival.enter(limits, &thread.stopping).await {
            Ok(Admitted { socket, read, peer, .. }) => {
                let (wire, timer) = (Rc::new(RefCell::new(wire(socket, read, &thread))), Timer::new());
                Connection { wire, thread, place, peer, timer }.run().await;
            }
            Err(rejected) => answer_plaintext(rejected, &thread).await,
        },
        full => {
            limits.count(TurnedAway::Connections);
            let Some(Err(_place)) = full else { return };
            let entered = match limits.tls() {
                Some(_) => arrival.enter(limits, &thread.stopping).await,
                None => Ok(arrival.unchecked()),
            };
            match entered {
                Ok(Admitted { socket, read, .. }) => {
                    let text = "too many connections; raise the maximum, or come back later";
                    answer_last(wire(socket, read, &thread), &thread, &Fault::new(503, text)).await;
                }
                Err(rejected) => answer_plaintext(rejected, &thread).await,
            }
        }
    }
}

fn wire<S>(socket: Socket, read: BytesMut, thread: &Worker<S>) -> BufferedSocket {
    let mut wire = BufferedSocket::new(socket, Codec::new(thread.codec.clone()));
    wire.read = read;
    wire
}

/// Says to a client that speaks HTTP without TLS what to do. Others would not understand any answer.
async fn answer_plaintext<S>(rejected: Rejected, thread: &Worker<S>) {
    let Rejected::Plaintext(socket, read, peer) = rejected else { return };
    if read.first().is_some_and(u8::is_ascii_uppercase) {
        tracing::debug!(?peer, "a request came without TLS");
        let text = "this listener speaks TLS; use https:// (wss:// for a WebSocket)";
        answer_last(wire(socket, read, thread), thread, &Fault::new(400, text)).await;
    }
}

/// Sends an answer to bytes that are no request, and ends the connection.
async fn answer_last<S>(wire: BufferedSocket, thread: &Worker<S>, fault: &Fault) {
    let wire = RefCell::new(wire);
    if refuse(&wire, thread, fault).await.is_ok() {
        linger(&wire, LINGER_TIME_MAX).await;
    }
}

impl<S> Connection<S> {
    /// Serves request after request.
    async fn run<B: MessageBody + 'static>(mut self)
    where
        S: Application<B>,
    {
        loop {
            let mut speaks = false;
            let served = match self.next().await {
                Next::Request(request) => self.serve(*request).await,
                Next::Fault(fault) => {
                    tracing::debug!(peer = ?self.peer, status = fault.status, text = %fault.text, "no request");
                    self.thread.listener.limits.count(TurnedAway::Malformed);
                    speaks = true;
                    refuse(&self.wire, &self.thread, &fault).await.map(|()| Then::Close)
                }
                Next::End => return say_end(&self.wire).await,
            };
            match served {
                Ok(Then::Next) => {}
                Ok(Then::Close) => {
                    let speaks = speaks || self.wire.borrow().has_more();
                    let most = if speaks { LINGER_TIME_MAX } else { LINGER_SILENT_MAX };
                    return linger(&self.wire, most).await;
                }
                Ok(Then::Gone) => return,
                Err(error) => {
                    tracing::debug!(peer = ?self.peer, %error, "a connection broke");
                    return;
                }
            }
        }
    }

    /// Waits for a request.
    async fn next(&mut self) -> Next {
        let found = self.head().await;
        match found.and_then(|end| self.parse(end).map_err(Some)) {
            Ok(request) => Next::Request(Box::new(request)),
            Err(Some(fault)) => Next::Fault(fault),
            Err(None) => Next::End,
        }
    }

    /// Waits for the head of a request. Returns its length; or the fault to answer, or `None` when the connection just
    /// ends.
    async fn head(&mut self) -> Result<usize, Option<Fault>> {
        let Self { wire, thread, timer, .. } = self;
        let idle_until = Instant::from_std(clock::now()) + thread.listener.settings.idle_timeout;
        let (mut head_until, mut scanned, mut idle) = (None, 0, None);
        let mut woken = pin!(thread.idle.notified());
        poll_fn(|cx| {
            let wire = &mut *wire.borrow_mut();
            loop {
                match look(wire, &mut scanned) {
                    Some(found) => return Poll::Ready(found),
                    None => match wire.fill(cx) {
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(None)),
                        Poll::Pending => break,
                    },
                }
            }
            if wire.read.is_empty() {
                idle.get_or_insert_with(|| Idle::new(&thread.idle_count));
                wire.settle();
                let called = woken.as_mut().poll(cx).is_ready();
                if called {
                    thread.woken();
                }
                if called || thread.stopping.is_cancelled() || timer.is_over(idle_until, cx) {
                    return Poll::Ready(Err(None));
                }
            } else {
                if idle.take().is_some() {
                    // A wake-up for an idle connection goes to the next idle one.
                    woken.set(thread.idle.notified());
                }
                let until = *head_until.get_or_insert_with(|| Instant::from_std(clock::now()) + HEAD_TIME_MAX);
                if timer.is_over(until, cx) {
                    return Poll::Ready(Err(Some(Fault::new(408, "the head of the request did not arrive in time"))));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Parses the head, which has this length.
    fn parse(&self, mut end: usize) -> Result<Request, Fault> {
        let wire = &mut *self.wire.borrow_mut();
        let mended = head::mended(wire.read.get(..end).unwrap_or_default())?;
        if let Some(mended) = mended {
            let rest = wire.read.split_off(end);
            end = mended.len();
            wire.read = BytesMut::from(mended.as_slice());
            wire.read.extend_from_slice(&rest);
        }
        let bytes = wire.read.get_mut(..end).unwrap_or_default();
        head::stay(bytes, self.thread.listener.settings.websockets);
        let mut scratch = self.thread.scratch.borrow_mut();
        scratch.clear();
        scratch.extend_from_slice(bytes);
        match wire.codec.decode(&mut wire.read) {
            Ok(Some(Message::Item(mut request))) => {
                wire.body = wire.codec.message_type() == MessageType::Payload;
                wire.request = wire.request.wrapping_add(1);
                wire.waits = request.head().expect();
                request.head_mut().peer_addr = Some(self.peer.address);
                request.extensions_mut().insert(self.peer.clone());
                Ok(request)
            }
            Ok(_) => Err(Fault::new(400, "this is no request of HTTP/1.1")),
            Err(error) => Err(head::explain(&scratch, &error)),
        }
    }

    /// Answers a request.
    async fn serve<B: MessageBody + 'static>(&mut self, mut request: Request) -> io::Result<Then>
    where
        S: Application<B>,
    {
        let (head, old) = (*request.method() == Method::HEAD, request.version() < Version::HTTP_11);
        if let Some(refusal) = self.refusal(&mut request) {
            return self.answer(refusal, Asked { head, old, last: false }).await;
        }
        let taken = is_websocket(&request) && self.thread.listener.settings.websockets;
        let slot = if taken { self.hand_over(&request) } else { None };
        let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let answer = self.call(request, slot.is_none()).await?;
        let mut last = false;
        if let Some(slot) = slot {
            let Some(Taken { io, rest }) = slot.take() else { return Ok(Then::Gone) };
            let mut wire = self.wire.borrow_mut();
            (wire.io, wire.read, last) = (Some(io), rest, true);
        }
        self.read_past(length).await;
        self.answer(answer, Asked { head, old, last }).await
    }

    /// Calls the application. When `watched`, the call ends if the connection breaks meanwhile.
    async fn call<B: MessageBody + 'static>(&self, request: Request, watched: bool) -> io::Result<Response<BoxBody>>
    where
        S: Application<B>,
    {
        let service = &self.thread.service;
        let ready = poll_fn(|cx| service.poll_ready(cx)).await;
        ready.map_err(|error| io::Error::other(error.into().to_string()))?;
        let mut call = pin!(service.call(request));
        let answer = poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if watched => self.wire.borrow_mut().watch(cx).map(|()| None),
            Poll::Pending => Poll::Pending,
        });
        match answer.await.ok_or(io::ErrorKind::ConnectionReset)? {
            Ok(answer) => Ok(answer.into().map_into_boxed_body()),
            Err(error) => Ok(error.into().error_response().into()),
        }
    }

    /// The answer to a request that the application is not asked about.
    fn refusal(&self, request: &mut Request) -> Option<Response<BoxBody>> {
        let HttpListener { settings, limits } = &*self.thread.listener;
        let refuse = |fault: &Fault| {
            tracing::debug!(peer = ?self.peer, status = fault.status, text = %fault.text, "a request was refused");
            (settings.refuse)(fault)
        };
        let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or("?"));
        let asked = [request.uri().authority().map(|authority| authority.as_str()), host];
        if let Some(other) = asked.into_iter().flatten().find(|host| !settings.hosts.allow(host)) {
            limits.count(TurnedAway::Host);
            let other: String = other.chars().take(100).filter(|c| !c.is_control()).collect();
            let name = other.rsplit_once(':').map_or(other.as_str(), |(name, _)| name);
            let text = format!(
                "this node does not answer to the name {name}: a page of another site could reach it by a name of its own. \
                 If the name is yours, set node.hosts = \"{name}\" (environment: ROLLBOOK_NODE__HOSTS), or ask by IP address"
            );
            return Some(refuse(&Fault::new(421, text)).into());
        }
        if !self.wire.borrow().body {
            return None;
        }
        let incoming = Incoming::new(&self.wire);
        let payload: Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>> = match inflate::coding(request.headers())
        {
            Ok(None) => Box::pin(incoming),
            Ok(Some(coding)) => {
                // Whoever is behind sees the body as it is now.
                let headers: &mut HeaderMap = request.headers_mut();
                headers.remove(CONTENT_ENCODING);
                headers.remove(CONTENT_LENGTH);
                Box::pin(Inflated::new(coding, incoming))
            }
            Err(fault) => {
                let mut refused = refuse(&fault);
                refused.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(inflate::CODINGS));
                return Some(refused.into());
            }
        };
        *request.payload() = Payload::Stream { payload };
        None
    }

    /// Puts the socket where the application can take it.
    fn hand_over(&self, request: &Request) -> Option<Slot> {
        let mut wire = self.wire.borrow_mut();
        let taken = Taken { io: wire.io.take()?, rest: std::mem::take(&mut wire.read) };
        let slot = Slot::new(taken);
        request.extensions_mut().insert(slot.clone());
        Some(slot)
    }

    /// Reads past the rest of a small body that the application did not want.
    async fn read_past(&mut self, length: Option<u64>) {
        let unwanted = {
            let wire = self.wire.borrow();
            wire.body && !wire.waits && length.is_some_and(|length| length <= UNWANTED_BYTES_MAX)
        };
        if !unwanted {
            return;
        }
        let mut rest = Incoming::new(&self.wire);
        let until = Instant::from_std(clock::now()) + UNWANTED_TIME_MAX;
        let timer = &mut self.timer;
        poll_fn(|cx| {
            loop {
                match Pin::new(&mut rest).poll_next(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending if timer.is_over(until, cx) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }

    async fn answer(&mut self, answer: Response<BoxBody>, asked: Asked) -> io::Result<Then> {
        let last = asked.last || self.wire.borrow().body || self.thread.stopping.is_cancelled();
        // Streams are bounded by their door.
        self.place.stream(answer.body().size() == BodySize::Stream);
        let keeps = send(&self.wire, answer, Asked { last, ..asked }).await?;
        self.place.stream(false);
        Ok(if keeps && !last { Then::Next } else { Then::Close })
    }
}

fn is_websocket(request: &Request) -> bool {
    request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Looks for a head at the beginning of what was read. Returns its length, or why there will be none.
fn look(wire: &mut BufferedSocket, scanned: &mut usize) -> Option<Result<usize, Option<Fault>>> {
    if *scanned == 0 {
        // Some clients send an empty line behind a body.
        let empty = wire.read.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        wire.read.advance(empty);
    }
    if let Some(fault) = head::hopeless(&wire.read) {
        return Some(Err(Some(fault)));
    }
    let end = head::end(&wire.read, *scanned);
    if end.unwrap_or(wire.read.len()) > HEAD_BYTES_MAX {
        let target = !wire.read.get(..HEAD_BYTES_MAX).unwrap_or_default().contains(&b'\n');
        let (status, part) = if target { (414, "target") } else { (431, "head") };
        return Some(Err(Some(Fault::new(
            status,
            format!("the {part} of the request is longer than {HEAD_BYTES_MAX} bytes"),
        ))));
    }
    if let Some(end) = end {
        return Some(Ok(end));
    }
    *scanned = wire.read.len().saturating_sub(3);
    let cut = || Fault::new(400, "the request ends in the middle of its head");
    wire.ended.then(|| Err((!wire.read.is_empty()).then(cut)))
}

/// Answers bytes that are not a request.
async fn refuse<S>(wire: &RefCell<BufferedSocket>, thread: &Worker<S>, fault: &Fault) -> io::Result<()> {
    let mut answer = (thread.listener.settings.refuse)(fault);
    if fault.status == 503 {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    // The state of the codec belongs to an earlier request.
    wire.borrow_mut().codec = Codec::new(thread.codec.clone());
    send(wire, answer.into(), Asked { head: false, old: false, last: true }).await.map(drop)
}

/// Tells a client over TLS that the end of the connection is no accident.
async fn say_end(wire: &RefCell<BufferedSocket>) {
    poll_fn(|cx| {
        wire.borrow_mut().say_end(cx);
        Poll::Ready(())
    })
    .await;
}

/// Lets a client read its last answer: closing a socket with unread bytes discards what was sent.
async fn linger(wire: &RefCell<BufferedSocket>, most: Duration) {
    let mut left = LINGER_BYTES_MAX;
    let read = poll_fn(|cx| {
        let wire = &mut *wire.borrow_mut();
        if wire.shutdown(cx)?.is_pending() {
            return Poll::Pending;
        }
        while !wire.ended {
            wire.read.clear();
            let count = std::task::ready!(wire.fill(cx))?;
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
        Poll::Ready(Ok::<_, io::Error>(()))
    });
    // Whoever does not close in time has had its chance.
    if let Ok(Err(error)) = tokio::time::timeout(most, read).await {
        tracing::trace!(%error, "a client did not wait for the end");
    }
}

/// One timer for all waits of a connection. The timer is moved when it fires, not for each request.
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    const fn new() -> Self {
        Self(None)
    }

    /// Whether this time has come. If not, the task is woken then.
    fn is_over(&mut self, until: Instant, cx: &mut Context<'_>) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= until {
                return true;
            }
            sleep.as_mut().reset(until);
        }
        false
    }
}
