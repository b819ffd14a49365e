//! What a peer may say, and when: the handshake first, then requests one after the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::sync::oneshot;

use super::super::admit::Shown;
use super::super::context::DoorContext;
use super::super::outbox::Outbox;
use super::super::settings::NAME;
use super::super::wire::answer::{Answer, encode_error};
use super::super::wire::decoder::Decoder;
use super::super::wire::frame::{EncodeError, Frame, FrameKind};
use super::super::wire::handshake::{Handshake, HandshakeReply};
use super::super::wire::message::Message;
use super::super::wire::op::Op;
use super::super::wire::request_ids::RequestIds;
use super::super::wire::texts::{ALL_SERVICES, NOT_SUPPORTED, VERSION};
use super::admission::{Admitted, admit};
use super::client::ClientRequest;
use super::dock::{Dock, answered, op_of};
use super::follower::{ALL, Follower};
use super::keep_alive::{Due, KeepAlive};
use super::signals::Signals;
use crate::base::actors::hint;
use crate::base::clock;
use crate::bus::access::Access;
use crate::bus::client::clients::{About, ClientHandle, CloseReason};
use crate::bus::client::no_announcements::NO_ANNOUNCEMENTS;
use crate::bus::docks::order::Order;
use crate::bus::docks::output;
use crate::bus::live::subjects::LiveSubscription;
use crate::net::peer::Peer;

/// Requests of one connection that wait; no more is read then.
const WAITING_MAX: usize = 256;
/// Bytes of their payloads, about.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Processes that one client follows one by one.
const FOLLOWED_MAX: usize = 10_000;
/// Bytes of a message before the handshake.
const UNKNOWN_MESSAGE_BYTES_MAX: u32 = 64 * 1024;

/// The connection is over.
#[derive(Debug)]
pub(super) struct Over;

/// What a connection is made of.
pub(super) struct Setup {
    pub(super) context: Arc<DoorContext>,
    pub(super) peer: Peer,
    pub(super) shown: Shown,
    pub(super) outbox: Arc<Outbox>,
    pub(super) signals: Signals,
}

/// Something that a session waits for.
pub(super) enum Event {
    /// The connection has to end.
    Close(CloseReason),
    /// Rights have changed.
    Rights,
    /// A request is done.
    Done(Finished),
    /// A dock gets an order; `None`: another connection has its place.
    Order(Option<Order>),
    /// It is time for a ping, or for the end of a wait. With the last sign of life of the other end.
    Timer(Instant),
}

/// What a request has come to.
pub(super) enum Finished {
    /// An answer, for the request with this number if it wants one.
    Answered(Message, Option<u16>, Answer),
    /// The handshake.
    Admitted(Option<u16>, Result<Admitted, String>),
}

/// A client or dock that was admitted.
struct AdmittedPeer {
    handle: ClientHandle,
    access: Access,
    follower: Arc<Follower>,
    route: Option<String>,
    dock: Option<Box<Dock>>,
    /// What the client follows: the subscriptions end when they are dropped.
    followed: BTreeMap<String, LiveSubscription>,
}

/// What waits for an answer of the other end.
enum Waiting {
    Pong,
    Order(Op, oneshot::Sender<Result<Bytes, String>>),
    /// Nobody: the door has to ask, and does not need the answer.
    Nobody,
}

/// One connection, as far as the protocol goes.
pub(super) struct Session {
    context: Arc<DoorContext>,
    peer: Peer,
    shown: Shown,
    outbox: Arc<Outbox>,
    signals: Signals,
    decoder: Decoder,
    known: Option<Box<AdmittedPeer>>,
    /// Requests in their order, with their numbers if they want answers.
    requests: VecDeque<(Option<u16>, Message)>,
    requests_bytes: usize,
    /// The request that is being done.
    current: Option<LocalBoxFuture<'static, Finished>>,
    asked: RequestIds<Waiting>,
    since: Instant,
    pings: KeepAlive,
}

impl Session {
    pub(super) fn new(setup: Setup) -> Self {
        let Setup { context, peer, shown, outbox, signals } = setup;
        let since = clock::now();
        let pings = KeepAlive::new(context.settings.ping_interval, context.settings.ping_timeout, since);
        let bytes_max = message_bytes_max(&context).min(UNKNOWN_MESSAGE_BYTES_MAX);
        Self {
            context,
            peer,
            shown,
            outbox,
            signals,
            decoder: Decoder::new(bytes_max),
            known: None,
            requests: VecDeque::new(),
            requests_bytes: 0,
            current: None,
            asked: RequestIds::default(),
            since,
            pings,
        }
    }

    pub(super) fn outbox(&self) -> Arc<Outbox> {
        Arc::clone(&self.outbox)
    }

    /// Whether more may be read.
    pub(super) fn is_listening(&self) -> bool {
        !self.is_admitting() && self.requests.len() < WAITING_MAX && self.requests_bytes < WAITING_BYTES_MAX
    }

    /// Whether the handshake is being answered. What comes behind it waits, because it may be longer then.
    const fn is_admitting(&self) -> bool {
        self.known.is_none() && self.current.is_some()
    }

    /// When something has to be done that nobody else calls for.
    pub(super) fn wakes_at(&self) -> Instant {
        let ping = self.pings.at();
        self.handshake_by().map_or(ping, |by| ping.min(by))
    }

    /// Until when the other end must have said who it is, where that has to be said.
    fn handshake_by(&self) -> Option<Instant> {
        let open = self.known.is_some() || self.context.services.bus.authority().is_open_to(self.peer.local);
        (!open).then(|| self.since + self.context.settings.auth_timeout)
    }

    /// What happens next, beside what the other end says.
    pub(super) async fn next(&mut self) -> Event {
        let Self { signals, current, known, .. } = self;
        let orders = known.as_mut().and_then(|known| known.dock.as_mut()).map(|dock| &mut dock.place.orders);
        let done = async {
            match current {
                Some(current) => current.await,
                None => std::future::pending().await,
            }
        };
        let order = async {
            match orders {
                Some(orders) => orders.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = signals.closing.changed() => {
                let reason = *signals.closing.borrow_and_update();
                // The actor is gone, and with it this task.
                Event::Close(reason.filter(|_| changed.is_ok()).unwrap_or(CloseReason::Removed))
            }
            Ok(()) = signals.rights.changed() => Event::Rights,
            finished = done => Event::Done(finished),
            order = order => Event::Order(order),
        }
    }

    pub(super) fn handle(&mut self, event: Event) -> Result<(), Over> {
        match event {
            Event::Close(reason) => {
                tracing::debug!(?reason, address = %self.peer.address, "a connection has to end");
                Err(Over)
            }
            Event::Rights => self.check_rights(),
            Event::Done(finished) => {
                self.current = None;
                self.finish(finished)?;
                self.begin_next();
                self.take_frames()
            }
            Event::Order(order) => self.order(order.ok_or(Over)?),
            Event::Timer(last_sign) => self.wake(last_sign),
        }
    }

    /// Takes what the other end says.
    pub(super) fn take_bytes(&mut self, bytes: &[u8]) -> Result<(), Over> {
        self.decoder.feed(bytes);
        self.take_frames()
    }

    fn take_frames(&mut self) -> Result<(), Over> {
        while !self.is_admitting() {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => self.frame(frame)?,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, address = %self.peer.address, "a connection ends");
                    return Err(Over);
                }
            }
        }
        if let Some(dock) = self.known.as_mut().and_then(|known| known.dock.as_mut()) {
            dock.flush();
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Over> {
        let Frame { kind, id, body } = frame;
        let wants_answer = match kind {
            FrameKind::Message => None,
            FrameKind::Request => Some(id),
            FrameKind::Response | FrameKind::Error => {
                self.answer(id, kind, &body);
                return Ok(());
            }
            FrameKind::Ping => return self.say(|out| Frame::pong(id).encode(out)),
            FrameKind::Unknown(_) => return Ok(()),
        };
        match Message::parse(&body) {
            Ok(message) => self.message(wants_answer, message),
            Err(error) => match wants_answer {
                Some(id) => self.say(|out| encode_error(&error.to_string(), id, out)),
                None => Ok(()),
            },
        }
    }

    /// A message or request, in its place behind those that came before.
    fn message(&mut self, wants_answer: Option<u16>, message: Message) -> Result<(), Over> {
        if message.op.is_event() {
            let dock = self.known.as_mut().and_then(|known| known.dock.as_mut());
            if let Some(dock) = dock {
                dock.tell(&message);
            }
            return Ok(());
        }
        // The payload shares the memory of what came with it.
        let message = Message { payload: Bytes::copy_from_slice(&message.payload), origin: None, ..message };
        self.requests_bytes = self.requests_bytes.saturating_add(weight(&message));
        self.requests.push_back((wants_answer, message));
        self.begin_next();
        Ok(())
    }

    /// Begins the next request, if none is being done.
    fn begin_next(&mut self) {
        while self.current.is_none() {
            let Some((wants_answer, message)) = self.requests.pop_front() else { return };
            self.requests_bytes = self.requests_bytes.saturating_sub(weight(&message));
            self.current = Some(self.begin(wants_answer, message));
        }
    }

    fn begin(&mut self, wants_answer: Option<u16>, message: Message) -> LocalBoxFuture<'static, Finished> {
        let refused = |message: Message| {
            let answer = Answer::Error(NOT_SUPPORTED.to_owned());
            std::future::ready(Finished::Answered(message, wants_answer, answer)).boxed_local()
        };
        match (&self.known, message.op) {
            (None, Op::Handshake) => self.admit(wants_answer, &message),
            (None, _) | (Some(_), Op::Handshake) => refused(message),
            (Some(known), _) if known.dock.is_some() => refused(message),
            (Some(known), _) => {
                let (docks, identity) = (self.context.docks.clone(), Arc::clone(known.access.identity()));
                let asking = ClientRequest { docks, identity, route: known.route.clone() };
                async move {
                    let answer = asking.answer(message.clone()).await;
                    Finished::Answered(message, wants_answer, answer)
                }
                .boxed_local()
            }
        }
    }

    fn admit(&mut self, wants_answer: Option<u16>, message: &Message) -> LocalBoxFuture<'static, Finished> {
        let handshake = match Handshake::parse(&message.payload) {
            Ok(handshake) => handshake,
            Err(error) => {
                let refused = Finished::Admitted(wants_answer, Err(error.to_string()));
                return std::future::ready(refused).boxed_local();
            }
        };
        let mut shown = std::mem::take(&mut self.shown);
        shown.take_token(&message.payload);
        let (context, peer) = (Arc::clone(&self.context), self.peer.clone());
        async move {
            let admitted = admit(&context, peer, shown, handshake).await;
            Finished::Admitted(wants_answer, admitted.map_err(|fault| fault.text.into_owned()))
        }
        .boxed_local()
    }

    fn finish(&mut self, finished: Finished) -> Result<(), Over> {
        match finished {
            Finished::Answered(message, wants_answer, answer) => {
                let answer = match (message.op, answer) {
                    (Op::Subscribe, Answer::Done) => self.follow(&message.id),
                    (Op::Unsubscribe, Answer::Done) => {
                        self.unfollow(&message.id);
                        Answer::Done
                    }
                    (_, answer) => answer,
                };
                match wants_answer {
                    Some(id) => self.say(|out| answer.encode(message.op, id, out)),
                    None => Ok(()),
                }
            }
            Finished::Admitted(wants_answer, Err(text)) => match wants_answer {
                Some(id) => self.say(|out| encode_error(&text, id, out)),
                None => Ok(()),
            },
            Finished::Admitted(wants_answer, Ok(admitted)) => self.enter(wants_answer, admitted),
        }
    }

    /// The peer is known from now on.
    fn enter(&mut self, wants_answer: Option<u16>, admitted: Admitted) -> Result<(), Over> {
        let Admitted { access, place, name, dock, route } = admitted;
        let number = self.context.next.fetch_add(1, Ordering::Relaxed);
        let transport = match (dock.is_some(), self.peer.tls) {
            (true, _) => "hms-dock",
            (false, true) => "hms+tls",
            (false, false) => NAME,
        };
        let (id, address) = (number.to_string(), self.peer.address.to_string());
        let about = About { id, address, name, transport, ..About::default() };
        let client = (Arc::clone(access.identity()), Some(place));
        let handle = self.context.services.clients.connect(client, &NO_ANNOUNCEMENTS, self.signals.to.clone(), about);
        let follower = Follower::new(handle.client().serial, Arc::clone(access.identity()), Arc::clone(&self.outbox));
        let is_dock = dock.is_some();
        let followed = BTreeMap::new();
        self.decoder.set_max_body(message_bytes_max(&self.context));
        self.known = Some(Box::new(AdmittedPeer { handle, access, follower, route, dock, followed }));
        if let Some(id) = wants_answer {
            let body = HandshakeReply::terminal(VERSION).encode();
            self.say(|out| Frame { kind: FrameKind::Response, id, body }.encode(out))?;
        }
        // Behind the answer, because a stock dock drops what comes before it.
        if is_dock { self.ask(Message::new(Op::Subscribe, ALL_SERVICES), Waiting::Nobody) } else { Ok(()) }
    }

    /// The client follows a process, or all.
    fn follow(&mut self, id: &str) -> Answer {
        let Some(known) = &mut self.known else { return Answer::Error(NOT_SUPPORTED.to_owned()) };
        if known.followed.contains_key(id) {
            return Answer::Done;
        }
        if known.followed.len() >= FOLLOWED_MAX {
            return Answer::Error(format!("one connection follows at most {FOLLOWED_MAX} processes"));
        }
        let all = id == ALL_SERVICES;
        let Some(filter) = output::filter(Some(id).filter(|_| !all)) else { return Answer::Done };
        let number = if all { ALL } else { 1 };
        let (subjects, sink) = (self.context.services.bus.live_subjects(), Arc::clone(&known.follower));
        match subjects.subscribe(filter, "", (sink, number), true) {
            Ok(subscription) => {
                known.followed.insert(id.to_owned(), subscription);
                if all {
                    known.follower.set_all(true);
                }
                Answer::Done
            }
            Err(full) => Answer::Error(full.to_string()),
        }
    }

    fn unfollow(&mut self, id: &str) {
        let Some(known) = &mut self.known else { return };
        if id == ALL_SERVICES {
            known.follower.set_all(false);
        }
        known.followed.remove(id);
    }

    /// Rights have changed: what a client may not see any more is looked at anew, and a dock may have to go.
    fn check_rights(&mut self) -> Result<(), Over> {
        let Some(known) = &self.known else { return Ok(()) };
        known.handle.client().takes_rights_change();
        known.follower.forget_rights();
        match &known.dock {
            Some(dock) if !self.context.docks.may_be(known.access.identity(), dock.id()) => Err(Over),
            _ => Ok(()),
        }
    }

    fn order(&mut self, order: Order) -> Result<(), Over> {
        let Order { op, id, payload, done } = order;
        let op = op_of(op);
        self.ask(Message::new(op, id).with_payload(payload), Waiting::Order(op, done))
    }

    /// Asks the other end something.
    fn ask(&mut self, message: Message, waiting: Waiting) -> Result<(), Over> {
        // Whoever waits is told that the dock has too much to do, when the number of its requests is used up.
        let Ok(id) = self.asked.insert(waiting) else { return Ok(()) };
        self.say(|out| message.encode_request(id, out))
    }

    fn answer(&mut self, id: u16, kind: FrameKind, body: &Bytes) {
        match self.asked.remove(id) {
            Some(Waiting::Pong) => self.pings.pong(clock::now()),
            Some(Waiting::Order(op, done)) => {
                let result = answered(op, Answer::parse(Some(op), kind, body));
                // Whoever has given the order may have stopped to wait.
                if let Some(result) = result {
                    hint(done, result);
                }
            }
            Some(Waiting::Nobody) | None => {}
        }
    }

    /// Sends a ping, or gives the other end up.
    fn wake(&mut self, last_sign: Instant) -> Result<(), Over> {
        let now = clock::now();
        if self.handshake_by().is_some_and(|by| now >= by) {
            return Err(Over);
        }
        match self.pings.due(now, last_sign, self.is_listening()) {
            Due::Nothing => Ok(()),
            Due::Ping => {
                let Ok(id) = self.asked.insert(Waiting::Pong) else { return Ok(()) };
                self.say(|out| Frame::ping(id).encode(out))
            }
            Due::End => {
                self.give_up("answers no ping");
                Err(Over)
            }
        }
    }

    fn give_up(&self, why: &str) {
        let waiting = self.outbox.waiting();
        self.context.services.bus.metrics().clients_slow.inc();
        tracing::info!(address = %self.peer.address, waiting, "a client or dock that {why} is disconnected");
    }

    /// Says something. A client that does not read what it is told is disconnected.
    fn say(&self, write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>) -> Result<(), Over> {
        if self.outbox.say(write) {
            return Ok(());
        }
        self.give_up("does not read");
        Err(Over)
    }
}

/// Most bytes of a message of a peer that is known.
fn message_bytes_max(context: &DoorContext) -> u32 {
    u32::try_from(context.settings.message_bytes_max).unwrap_or(u32::MAX)
}

/// About the bytes that a waiting request takes.
fn weight(message: &Message) -> usize {
    message.payload.len().saturating_add(message.id.len()).saturating_add(64)
}
