//! The actor of one connection: puts the pure parts to work with time, the socket and the bus.
//!
//! Size: what a connection is told by its socket, its session and the bus, in one place.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::prelude::{Actor, ActorContext, AsyncContext, Context, Handler, StreamHandler};
use actix::{ActorFutureExt as _, WrapFuture as _};
use rollbook_core::error::Refusal;
use rollbook_core::service::Registered;

use super::close;
use super::codec::{Code, Message, Registers, Wrong};
use super::config::{Config, NAME};
use super::frames::{self, Text};
use super::session::{Bounds, Identity, Session, Step};
use super::shared::Shared;
use super::snapshot::Snapshot;
use super::wire::FRAMES;
use crate::base::actors::{Belongs, Kind};
use crate::base::clock;
use crate::bus::call::terms::{Answered, Key, Requester};
use crate::bus::client::announcement::{Announcement, Log};
use crate::bus::client::call::{Answer, CallError, Caller, HandedPayload, Outcome, Payload, Request};
use crate::bus::client::clients::{About, Client, ClientHandle, ClientMessage, CloseReason, Command};
use crate::bus::client::commands::Commands;
use crate::bus::subscribe::streams::Streams;
use crate::net::budget::Lease;
use crate::net::websocket::reader::{InboundFrame, code};
use crate::net::websocket::writer::{Frame, FrameWriter};

/// Messages that wait for a connection: more than all it may be asked and all it may have asked.
const MAILBOX: usize = 4096;
/// How long its streams may take to say that the node has ended them.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The actor.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) session: Session,
    pub(super) sink: FrameWriter,
    pub(super) streams: Streams,
    seat: ClientHandle,
    /// When anything came from it.
    sign: Instant,
    /// How many bytes had left for it when it was last looked at.
    sent: u64,
    /// The service and instance that it is, or may be when nobody knows what became of its registration.
    attempted: Option<(String, String)>,
    /// The snapshot that it has got tells of everything up to this index of the roll.
    floor: u64,
    /// Events that came while its registration was on its way.
    held: Vec<Arc<Announcement>>,
    /// What its frames that wait for its registration take of what the node receives.
    backlog: Lease,
    commands: Commands,
    /// It leaves when nothing of it is in flight any more: with which close code, and why.
    leaving: Option<(u16, &'static str)>,
    /// It waits a moment for what its streams have to say before it ends.
    listens: bool,
    /// It knows that its end comes.
    told: bool,
    left: bool,
}

impl Connection {
    /// A client that has just come.
    pub(super) fn new(shared: Arc<Shared>, sink: FrameWriter, address: String, ctx: &Context<Self>) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        let bounds = shared.services.router.config();
        let bounds = Bounds {
            in_flight_max: shared.config.in_flight_max,
            timeout: bounds.timeout,
            timeout_max: bounds.timeout_max,
        };
        let about = About { id: id.clone(), address, transport: NAME, ..About::default() };
        let seat = shared.services.clients.seat(NAME, &FRAMES, ctx.address().recipient(), about);
        shared.count.fetch_add(1, Ordering::Relaxed);
        let connect = frames::connect(&id, shared.services.bus.node().id(), shared.config.message_bytes_max);
        frames::write(&sink, &connect);
        let backlog = shared.services.bus.proposer().receiving().lease();
        Self {
            shared,
            session: Session::new(bounds),
            sink,
            streams: Streams::default(),
            seat,
            sign: clock::now(),
            sent: 0,
            attempted: None,
            floor: 0,
            held: Vec::new(),
            backlog,
            commands: Commands::new(0),
            leaving: None,
            listens: false,
            told: false,
            left: false,
        }
    }

    pub(super) const fn client(&self) -> &Arc<Client> {
        self.seat.client()
    }

    fn serial(&self) -> u64 {
        self.seat.client().serial
    }

    /// Writes something that may not be missed.
    pub(super) fn send(&mut self, text: &Text) {
        if self.session.is_closed() {
            return;
        }
        if self.is_full() {
            return self.slow();
        }
        frames::write(&self.sink, text);
    }

    fn is_full(&self) -> bool {
        self.sink.unread() >= self.shared.config.queue_bytes_max
    }

    fn slow(&mut self) {
        self.shared.services.bus.metrics().clients_slow.inc();
        self.end(close::SLOW, "client does not read");
    }

    /// Says farewell and leaves.
    fn end(&mut self, code: u16, reason: &str) {
        if self.session.is_closed() {
            return;
        }
        tracing::debug!(code, reason, "a connection ends");
        self.session.close();
        self.bids_farewell(code, reason);
        self.sink.close(code);
        self.leave();
    }

    /// Tells it that its end comes, once.
    fn bids_farewell(&mut self, code: u16, reason: &str) {
        if !std::mem::replace(&mut self.told, true) {
            frames::write(&self.sink, &frames::disconnect(code, reason));
        }
    }

    /// Nobody finds it any more.
    fn vacate(&mut self) {
        // In this order: a request that is being routed now finds nobody, or is found here.
        self.seat.vacate();
        if let Some((service, instance)) = self.attempted.take() {
            self.shared.services.roll.leave(self.serial(), &service, &instance);
        }
    }

    fn leave(&mut self) {
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        self.vacate();
        self.streams = Streams::default();
        self.shared.services.router.forget(self.serial());
    }

    /// Nothing new comes to it; it ends when what it has and what it asked has.
    fn drain(&mut self, code: u16, reason: &'static str, ctx: &mut Context<Self>) {
        if self.session.is_closed() || self.left {
            return;
        }
        self.session.drain();
        self.vacate();
        if code == code::AWAY {
            self.bids_farewell(code, reason);
        }
        self.leaving = Some((code, reason));
        // Streams that the node ends have a last word.
        self.listens = code == code::AWAY;
        ctx.run_later(LAST_WORDS, |act, _| {
            act.listens = false;
            act.end_if_idle();
        });
        ctx.run_later(self.shared.config.drain_timeout, move |act, _| act.end(code, reason));
        let emptied = self.shared.services.router.emptied(self.serial());
        ctx.spawn(emptied.into_actor(self).map(|(), act, _| act.end_if_idle()));
        self.end_if_idle();
    }

    /// Ends a connection that leaves, once nothing of it is in flight. Called behind everything that may have ended the
    /// last of it.
    pub(super) fn end_if_idle(&mut self) {
        let Some((code, reason)) = self.leaving else { return };
        if self.listens && !self.streams.is_empty() {
            return;
        }
        let held = self.shared.services.router.held(self.serial());
        if held == 0 && self.session.in_flight() == 0 && self.streams.unanswered() == 0 {
            self.end(code, reason);
        }
    }

    fn step(&mut self, step: Step, ctx: &mut Context<Self>) {
        match step {
            Step::Send(text) => self.send(&text),
            Step::Register(registers) => self.register(registers, ctx),
            Step::Call(ticket, message, timeout) => self.call(ticket, message, timeout),
            Step::Answer(id, answer) => self.answer(&id, answer),
            Step::Broadcast(id, payload) => self.broadcast(id, &payload),
            Step::Done(id, handled) => self.commands.done(id, handled),
            Step::Publish(publishes) => self.publish(&publishes, ctx),
            Step::Subscribe(subscribes) => self.subscribe(*subscribes),
            Step::Ack(id, event) => self.ack(&id, event),
            Step::Unsubscribe(id) => self.unsubscribe(&id, ctx),
            Step::Leave => self.drain(code::NORMAL, "as asked", ctx),
            Step::Close(last, code, reason) => {
                self.send(&last);
                self.end(code, reason);
            }
        }
    }

    fn register(&mut self, registers: Registers, ctx: &mut Context<Self>) {
        let services = self.shared.services.clone();
        if services.bus.node().consensus().ready().is_err() {
            return self.refused(&Refusal::Unavailable("the cluster has no majority".to_owned()));
        }
        let snapshot = self.shared.snapshots.take(services.bus.node().state());
        let name = registers.name.clone();
        self.seat.client().describe(|about| about.name.clone_from(&name));
        if registers.methods.is_empty() {
            let identity = Identity { name, instance: String::new() };
            return self.registered(identity, &snapshot, None, ctx);
        }
        let register = registers.into_register();
        if let Err(refusal) = register.service.check().and_then(|()| register.instance.check()) {
            return self.refused(&refusal);
        }
        let identity = Identity { name, instance: register.instance.id.clone() };
        self.attempted = Some((identity.name.clone(), identity.instance.clone()));
        let client = Arc::clone(self.seat.client());
        let registering = async move { services.roll.register(&client, register).await };
        ctx.spawn(registering.into_actor(self).map(move |registered, act, ctx| {
            act.became(registered, identity, &snapshot, ctx);
        }));
    }

    fn became(
        &mut self,
        registered: Result<Registered, Refusal>,
        identity: Identity,
        snapshot: &Snapshot,
        ctx: &mut Context<Self>,
    ) {
        if !self.session.is_registering() {
            return;
        }
        match registered {
            Ok(Registered { replaced, .. }) => {
                self.registered(identity, snapshot, replaced.map(|replaced| replaced.owner.node), ctx);
            }
            Err(refusal) => self.refused(&refusal),
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        let (code, close, reason) = match CallError::from(refusal.clone()) {
            CallError::Unavailable(_) => (Code::Unavailable, code::AGAIN, "no majority"),
            CallError::Overloaded(_) => (Code::Overloaded, code::AGAIN, "too much is on its way"),
            _ => (Code::BadRegistration, close::BAD_REGISTRATION, "bad registration"),
        };
        self.send(&Text::from(&Wrong::new(code, refusal.to_string())));
        self.end(close, reason);
    }

    /// `replaced`: the node of a connection that was this instance before.
    fn registered(&mut self, identity: Identity, snapshot: &Snapshot, replaced: Option<u64>, ctx: &mut Context<Self>) {
        let Snapshot { index, services } = snapshot;
        let instance = Some(&*identity.instance).filter(|instance| !instance.is_empty());
        let replaced = replaced.map(frames::node_name);
        let names = frames::Names { name: &identity.name, instance, replaced: replaced.as_deref() };
        self.send(&frames::registered(names, *index, services.clone()));
        self.floor = *index;
        let backlog = self.session.registered(identity);
        self.backlog.free();
        for event in std::mem::take(&mut self.held) {
            self.announce(&event);
        }
        for frame in backlog {
            if let Some(step) = self.session.hear(frame, clock::now()) {
                self.step(step, ctx);
            }
        }
    }

    fn call(&self, ticket: u64, message: Message, timeout: Duration) {
        let Message { id, service, method, consumer, responder, payload, key, traceparent, .. } = message;
        let instance = self.session.identity().map(|identity| identity.instance.clone()).unwrap_or_default();
        let payload = Payload::json(payload);
        let request = Request {
            id,
            capability: service,
            action: method,
            // A service may send to itself.
            from: Caller { service: consumer.unwrap_or_default(), instance, connection: None },
            deadline: clock::now() + timeout,
            retries: 0,
            key,
            responder,
            traceparent,
        };
        let client = Arc::clone(self.seat.client());
        let reply = move |outcome| {
            if !client.tell(ClientMessage::Outcome(ticket, outcome)) {
                client.loses();
            }
        };
        self.shared.services.router.call(Requester::Client(self.serial()), request, payload, Box::new(reply));
    }

    /// A message of this client has ended.
    fn ended(&mut self, ticket: u64, outcome: Outcome) {
        let reason = outcome.as_ref().err().and_then(frames::unhandled_reason);
        let Some((asked, told)) = self.session.ended(ticket, outcome, clock::now()) else { return };
        if let Some(reason) = reason {
            self.unhandled(&asked, reason);
        }
        if let Some(told) = told {
            self.send(&told);
        }
    }

    fn answer(&mut self, id: &str, answer: Answer) {
        match self.shared.services.router.answer(self.serial(), Key::Id(id), answer) {
            Answered::Yes => {}
            Answered::Late | Answered::NotAwaited | Answered::CallerGone | Answered::Unknown => {
                let wrong = Wrong::new(Code::UnknownRequest, "nobody waits for that").of(id);
                self.send(&Text::from(&wrong));
            }
        }
    }

    /// Hands it a request, unless it does not read what it has.
    fn ask(&mut self, handed: &HandedPayload) {
        let router = &self.shared.services.router;
        if self.is_full() {
            return router.decline(self.serial(), handed.number);
        }
        match frames::delivered(handed) {
            Ok(message) => frames::write(&self.sink, &message),
            Err(error) => return router.refuse(self.serial(), handed.number, error),
        }
        router.taken(self.serial(), handed);
    }

    fn event(&mut self, event: Arc<Announcement>) {
        if self.session.is_registering() {
            // Not more than its mailbox would hold.
            if self.held.len() >= MAILBOX {
                return self.slow();
            }
            return self.held.push(event);
        }
        if self.session.is_registered() {
            self.announce(&event);
        }
    }

    fn announce(&mut self, event: &Announcement) {
        if matches!(event.at, Some((Log::Roll, at)) if at.roll <= self.floor) {
            return;
        }
        let frame = event.frame(&FRAMES);
        if event.at.is_none() && self.is_full() {
            return self.shared.services.clients.skips();
        }
        self.send(&Text { payload: frame, ..Text::default() });
    }

    fn command(&mut self, Command { name, json, done }: Command) {
        if self.session.is_registered()
            && let Some(number) = self.commands.give(done)
        {
            self.send(&frames::command(number, name, &json));
        }
    }

    fn farewell(&mut self, why: CloseReason, ctx: &mut Context<Self>) {
        match why {
            CloseReason::Draining => self.drain(code::AWAY, "node stopping", ctx),
            CloseReason::Replaced => {
                let by = self.seat.client().about().replaced_by.unwrap_or_default();
                let reason = format!("another connection is this instance now: {by}");
                self.end(close::REPLACED, reason.trim_end_matches(": "));
            }
            CloseReason::Removed => self.end(close::REMOVED, "removed by the operator"),
            CloseReason::Unresponsive => self.end(close::TIMEOUT, "no sign of life"),
        }
    }

    /// Looks for signs of life: after a while of silence it is asked for one.
    fn watch(&self, wait: Duration, ctx: &mut Context<Self>) {
        ctx.run_later(wait, |act, ctx| {
            let Config { ping_interval, silence_max, .. } = act.shared.config;
            let now = clock::now();
            // Who takes long to read something large, and may answer only behind that, lives.
            let sent = act.sink.sent();
            if std::mem::replace(&mut act.sent, sent) != sent && act.sink.waiting() > 0 {
                act.sign = now;
            }
            let silence = now.saturating_duration_since(act.sign);
            act.session.tidy(now);
            if silence >= silence_max {
                return act.end(close::TIMEOUT, "no sign of life");
            }
            let next = match ping_interval.checked_sub(silence) {
                Some(left) if !left.is_zero() => left,
                _ => {
                    act.sink.ping();
                    silence_max.saturating_sub(silence).min(ping_interval)
                }
            };
            act.watch(next, ctx);
        });
    }
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        let Config { ping_interval, register_timeout, .. } = self.shared.config;
        self.watch(ping_interval, ctx);
        ctx.run_later(register_timeout, |act, _| {
            if act.session.is_waited_for() {
                act.end(close::TIMEOUT, "no registration in time");
            }
        });
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.leave();
    }
}

impl Belongs for Connection {
    const KIND: Kind = Kind::Connection;
}

impl Drop for Connection {
    /// Also when it died without a word.
    fn drop(&mut self) {
        self.leave();
        self.shared.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl StreamHandler<InboundFrame> for Connection {
    fn handle(&mut self, came: InboundFrame, ctx: &mut Self::Context) {
        self.sign = clock::now();
        match came {
            InboundFrame::Frame(Frame::Text(text)) => {
                if let Some(step) = self.session.hear(text, self.sign) {
                    self.step(step, ctx);
                }
                if !self.backlog.cover(self.session.backlog_bytes()) {
                    self.end(code::AGAIN, "too much is being received");
                }
            }
            InboundFrame::Frame(Frame::Binary(_)) => self.end(code::UNSUPPORTED, "binary frame"),
            InboundFrame::Sign => {}
            InboundFrame::Closed => {
                self.session.close();
                self.leave();
                ctx.stop();
            }
        }
        self.end_if_idle();
    }
}

impl Handler<ClientMessage> for Connection {
    type Result = ();

    fn handle(&mut self, told: ClientMessage, ctx: &mut Self::Context) {
        if self.session.is_closed() {
            return;
        }
        if self.seat.client().has_lost() {
            return self.slow();
        }
        match told {
            ClientMessage::Request(handed) => self.ask(&handed),
            ClientMessage::Outcome(ticket, outcome) => self.ended(ticket, outcome),
            ClientMessage::Event(event) => self.event(event),
            ClientMessage::Command(command) => self.command(command),
            ClientMessage::Close(why) => self.farewell(why, ctx),
            ClientMessage::Stream(number, streamed) => self.streamed(number, streamed, ctx),
            // This door does not ask the bus for these.
            ClientMessage::Registered(..)
            | ClientMessage::Notified(..)
            | ClientMessage::Published(..)
            | ClientMessage::Remind => {}
        }
        self.end_if_idle();
    }
}
