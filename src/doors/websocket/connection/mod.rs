//! The actor of one connection. It connects the state machine [`Session`], which is pure, to time, to the socket and
//! to the bus.
//!
//! The files beside this one handle what a client does: [`registration`], [`calls`], [`notifications`], [`streams`].
//! Imports the pure parts of the door, and the bus. Invariant: a connection ends by [`Connection::end`] alone, which
//! tells the client why and removes the client from the bus.

mod calls;
mod notifications;
mod registration;
mod streams;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::prelude::{Actor, ActorContext, AsyncContext, Context, Handler, StreamHandler};
use actix::{ActorFutureExt as _, WrapFuture as _};

use super::announcements::ANNOUNCEMENTS;
use super::close_codes;
use super::context::{Admitted, ConnectionContext};
use super::error::{ErrorCode, FrameError};
use super::outbound::{self, OutboundFrame};
use super::payloads::SubscribePayload;
use super::session::{Bounds, Session, Step};
use super::settings::{NAME, Settings};
use crate::base::actors::{Belongs, Kind};
use crate::base::clock;
use crate::bus::book_client::BookClient;
use crate::bus::client::announcement::Announcement;
use crate::bus::client::clients::{About, ClientHandle, ClientMessage, CloseReason};
use crate::bus::client::commands::Commands;
use crate::bus::error::Fault;
use crate::bus::roll::registration::Registration;
use crate::net::budget::Lease;
use crate::net::websocket::reader::{InboundFrame, code};
use crate::net::websocket::writer::{Frame, FrameWriter};

/// Messages that may wait in the mailbox of a connection: more than the requests that the client may receive and send
/// at a time.
const MAILBOX: usize = 4096;
/// How long the streams may take to send their end after the node has ended them.
const STREAM_END_WAIT: Duration = Duration::from_secs(1);

/// The actor of one connection.
pub(super) struct Connection {
    /// The parts that all connections share.
    context: Arc<ConnectionContext>,
    /// The state machine, which decides what a frame means.
    session: Session,
    /// Writes to the socket, and counts what waits.
    sink: FrameWriter,
    /// The publishes and streams of the client.
    book: BookClient,
    /// What the bus subscribes to for the client when it is registered.
    listeners: Vec<SubscribePayload>,
    /// Makes the client known to the bus until the connection ends.
    handle: ClientHandle,
    /// When the last frame of the client came, for the check of liveness.
    last_heard: Instant,
    /// The sent bytes at the last check of liveness. A client lives as long as this number grows.
    sent_before: u64,
    /// The registration of the client on the roll.
    registration: Registration,
    /// The index of the roll up to which the snapshot of the client is complete, so that no earlier event is sent
    /// again.
    snapshot_index: u64,
    /// Events that came during the registration. They follow the snapshot.
    held_events: Vec<Arc<Announcement>>,
    /// The share of the node's receive budget that the waiting frames of the registration use.
    backlog: Lease,
    /// Commands that wait for the frame `done` of the client.
    commands: Commands,
    /// The close code and the reason with which a draining connection ends, once nothing of it is in flight.
    closing: Option<(u16, &'static str)>,
    /// Whether the connection waits for the ends of its streams before it closes.
    awaits_streams: bool,
    /// Whether the client got the frame `disconnect`, which is sent once.
    disconnect_sent: bool,
    /// Whether the client is removed from the bus, which happens once.
    vacated: bool,
    /// Why the client is not let in. It is told so, and nothing else happens.
    refusal: Option<Fault>,
}

impl Connection {
    /// Creates the actor of a new connection.
    pub(super) fn new(
        (context, (identity, place), refusal): (Arc<ConnectionContext>, Admitted, Option<Fault>),
        sink: FrameWriter,
        address: String,
        ctx: &Context<Self>,
    ) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        let bounds = context.services.router.config();
        let bounds = Bounds {
            in_flight_max: context.settings.in_flight_max,
            timeout: bounds.timeout,
            timeout_max: bounds.timeout_max,
        };
        let about = About { id: id.clone(), address, transport: NAME, ..About::default() };
        let handle = context.services.clients.connect(
            (Arc::clone(&identity), place),
            &ANNOUNCEMENTS,
            ctx.address().recipient(),
            about,
        );
        context.count.fetch_add(1, Ordering::Relaxed);
        let connect = outbound::connect(&id, context.services.bus.node().id(), context.settings.message_bytes_max);
        outbound::write(&sink, &connect);
        let book = BookClient::new(context.access.of(identity), Arc::clone(handle.client()));
        let registration = Registration::new(context.services.roll.clone(), Arc::clone(handle.client()));
        let backlog = context.services.bus.proposer().receiving().lease();
        Self {
            context,
            session: Session::new(bounds),
            sink,
            book,
            listeners: Vec::new(),
            handle,
            last_heard: clock::now(),
            sent_before: 0,
            registration,
            snapshot_index: 0,
            held_events: Vec::new(),
            backlog,
            commands: Commands::new(0),
            closing: None,
            awaits_streams: false,
            disconnect_sent: false,
            vacated: false,
            refusal,
        }
    }

    fn serial(&self) -> u64 {
        self.handle.client().serial
    }

    /// Writes a frame that the client may not miss.
    pub(super) fn send(&mut self, text: &OutboundFrame) {
        if self.session.is_closed() {
            return;
        }
        if self.is_full() {
            return self.end_slow();
        }
        outbound::write(&self.sink, text);
    }

    fn is_full(&self) -> bool {
        self.sink.unread() >= self.context.settings.queue_bytes_max
    }

    fn end_slow(&mut self) {
        self.context.services.bus.metrics().clients_slow.inc();
        self.end(close_codes::SLOW, "client does not read");
    }

    /// Tells the client why the connection ends, closes the socket and removes the client from the bus.
    fn end(&mut self, code: u16, reason: &str) {
        if self.session.is_closed() {
            return;
        }
        tracing::debug!(code, reason, connection = self.serial(), "the connection of a client ends");
        self.session.close();
        self.send_disconnect(code, reason);
        self.sink.close_saying(code, reason);
        self.leave();
    }

    /// Sends the frame `disconnect`, once.
    fn send_disconnect(&mut self, code: u16, reason: &str) {
        if !std::mem::replace(&mut self.disconnect_sent, true) {
            outbound::write(&self.sink, &outbound::disconnect(code, reason));
        }
    }

    /// Removes the client from the clients and from the roll.
    fn vacate(&mut self) {
        // The handle goes first. A request that is being routed then finds no client, or is found by `forget`.
        self.handle.vacate();
        self.registration.leave();
    }

    fn leave(&mut self) {
        if std::mem::replace(&mut self.vacated, true) {
            return;
        }
        self.vacate();
        self.book.close();
        self.context.services.router.forget(self.serial());
    }

    /// Takes nothing new. The connection ends once its requests and messages have an outcome.
    fn drain(&mut self, code: u16, reason: &'static str, ctx: &mut Context<Self>) {
        if self.session.is_closed() || self.vacated {
            return;
        }
        self.session.drain();
        self.vacate();
        if code == code::AWAY {
            self.send_disconnect(code, reason);
        }
        self.closing = Some((code, reason));
        // A stream that the node ends still sends its end.
        self.awaits_streams = code == code::AWAY;
        ctx.run_later(STREAM_END_WAIT, |act, _| {
            act.awaits_streams = false;
            act.end_if_idle();
        });
        ctx.run_later(self.context.settings.drain_timeout, move |act, _| act.end(code, reason));
        let emptied = self.context.services.router.emptied(self.serial());
        ctx.spawn(emptied.into_actor(self).map(|(), act, _| act.end_if_idle()));
        self.end_if_idle();
    }

    /// Ends a draining connection once nothing of it is in flight. Called after everything that may have ended the
    /// last request.
    pub(super) fn end_if_idle(&mut self) {
        let Some((code, reason)) = self.closing else { return };
        if self.awaits_streams && self.book.has_streams() {
            return;
        }
        let held = self.context.services.router.held(self.serial());
        if held == 0 && self.session.in_flight() == 0 && self.book.unanswered() == 0 {
            self.end(code, reason);
        }
    }

    fn step(&mut self, step: Step, ctx: &mut Context<Self>) {
        match step {
            Step::Send(text) => self.send(&text),
            Step::Register(payload) => self.register(payload, ctx),
            Step::Call(ticket, message, timeout) => self.call(ticket, message, timeout),
            Step::Answer(id, answer) => self.answer(&id, answer),
            Step::Broadcast(id, payload) => self.broadcast(id, &payload),
            Step::Done(id, handled) => self.commands.done(id, handled),
            Step::Publish(payload) => self.publish(&payload, ctx),
            Step::Subscribe(payload) => self.subscribe(*payload),
            Step::Ack(id, said) => self.ack(&id, said),
            Step::Unsubscribe(id) => self.unsubscribe(&id, ctx),
            Step::Leave => self.drain(code::NORMAL, "as message", ctx),
            Step::Close(last, code, reason) => {
                self.send(&last);
                self.end(code, reason);
            }
        }
    }

    fn close(&mut self, close_reason: CloseReason, ctx: &mut Context<Self>) {
        match close_reason {
            CloseReason::Draining => self.drain(code::AWAY, "node stopping", ctx),
            CloseReason::Replaced => {
                let by = self.handle.client().about().replaced_by.unwrap_or_default();
                let reason = format!("another connection is this instance now: {by}");
                self.end(close_codes::REPLACED, reason.trim_end_matches(": "));
            }
            CloseReason::Removed => self.end(close_codes::REMOVED, "removed by the operator"),
            CloseReason::Unresponsive => self.end(close_codes::TIMEOUT, "no sign of life"),
            CloseReason::Unauthenticated => {
                self.end(close_codes::UNAUTHENTICATED, "the credential does not count any more")
            }
            CloseReason::Forbidden => self.end(close_codes::FORBIDDEN, "the right to this registration was taken away"),
        }
    }

    /// Checks for signs of life, and sends a ping after some silence.
    fn watch_liveness(&self, wait: Duration, ctx: &mut Context<Self>) {
        ctx.run_later(wait, |act, ctx| {
            let Settings { ping_interval, silence_max, .. } = act.context.settings;
            let now = clock::now();
            // A client that takes long to read a large frame lives, even if its answers wait behind that frame.
            let sent = act.sink.sent();
            if std::mem::replace(&mut act.sent_before, sent) != sent && act.sink.waiting() > 0 {
                act.last_heard = now;
            }
            let silence = now.saturating_duration_since(act.last_heard);
            act.session.expire_ids(now);
            if silence >= silence_max {
                return act.end(close_codes::TIMEOUT, "no sign of life");
            }
            let next = match ping_interval.checked_sub(silence) {
                Some(left) if !left.is_zero() => left,
                _ => {
                    act.sink.ping();
                    silence_max.saturating_sub(silence).min(ping_interval)
                }
            };
            act.watch_liveness(next, ctx);
        });
    }
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        if let Some(fault) = self.refusal.take() {
            self.send(&OutboundFrame::from(&FrameError::new(ErrorCode::Unauthenticated, fault.text)));
            return self.end(close_codes::UNAUTHENTICATED, "unauthenticated");
        }
        let Settings { ping_interval, register_timeout, .. } = self.context.settings;
        self.watch_liveness(ping_interval, ctx);
        ctx.run_later(register_timeout, |act, _| {
            if act.session.is_unregistered() {
                act.end(close_codes::TIMEOUT, "no registration in time");
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
    /// Also runs when the actor ended without a disconnect.
    fn drop(&mut self) {
        self.leave();
        self.context.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl StreamHandler<InboundFrame> for Connection {
    fn handle(&mut self, inbound: InboundFrame, ctx: &mut Self::Context) {
        self.last_heard = clock::now();
        match inbound {
            InboundFrame::Frame(Frame::Text(text)) => {
                if let Some(step) = self.session.receive(text, self.last_heard) {
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

    fn handle(&mut self, message: ClientMessage, ctx: &mut Self::Context) {
        if self.session.is_closed() {
            return;
        }
        if self.handle.client().has_lost() {
            return self.end_slow();
        }
        match message {
            ClientMessage::Request(handed) => self.deliver(&handed),
            ClientMessage::Outcome(ticket, outcome) => self.message_ended(ticket, outcome),
            ClientMessage::Event(event) => self.event(event),
            ClientMessage::Command(command) => self.command(command),
            ClientMessage::Close(reason) => self.close(reason, ctx),
            ClientMessage::Stream(number, update) => self.update(number, update, ctx),
            // This door does not ask the bus for these.
            ClientMessage::Registered(..)
            | ClientMessage::Notified(..)
            | ClientMessage::Remind
            | ClientMessage::RightsChanged => {}
        }
        self.end_if_idle();
    }
}
