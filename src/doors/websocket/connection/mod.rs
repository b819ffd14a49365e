//! The actor of one connection: puts the pure parts to work with time, the socket and the bus.
//!
//! What it does for its client is in the files beside this one: [`registration`], [`calls`], [`notifications`], [`streams`].
//! Imports the pure parts of the door and the bus. A connection ends in one way, [`Connection::end`]: the client is told
//! why, and nobody finds it any more.

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
use super::context::ConnectionContext;
use super::outbound::{self, OutboundFrame};
use super::session::{Bounds, Session, Step};
use super::settings::{NAME, Settings};
use crate::base::actors::{Belongs, Kind};
use crate::base::clock;
use crate::bus::book_client::BookClient;
use crate::bus::client::announcement::Announcement;
use crate::bus::client::clients::{About, ClientHandle, ClientMessage, CloseReason};
use crate::bus::client::commands::Commands;
use crate::bus::roll::registration::Registration;
use crate::net::budget::Lease;
use crate::net::websocket::reader::{InboundFrame, code};
use crate::net::websocket::writer::{Frame, FrameWriter};

/// Messages that wait for a connection: more than all it may be asked and all it may have asked.
const MAILBOX: usize = 4096;
/// How long its streams may take to say that the node has ended them.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The actor.
pub(super) struct Connection {
    context: Arc<ConnectionContext>,
    session: Session,
    sink: FrameWriter,
    book: BookClient,
    handle: ClientHandle,
    /// When anything came from the client.
    last_heard: Instant,
    /// How many bytes had left for the client at the last look: while they become more the client lives.
    sent_before: u64,
    registration: Registration,
    /// The snapshot that the client has got tells of everything up to this index of the roll.
    snapshot_index: u64,
    /// Events that came while the registration was on its way: they follow the snapshot.
    held_events: Vec<Arc<Announcement>>,
    /// What the frames that wait for the registration take of what the node receives.
    backlog: Lease,
    commands: Commands,
    /// The connection ends when nothing of it is in flight any more: with which close code, and why.
    closing: Option<(u16, &'static str)>,
    /// Streams that the node has ended may say so before the connection ends.
    awaits_streams: bool,
    /// The client was told that the end comes, which is said once.
    disconnect_sent: bool,
    /// Nobody finds the client any more.
    left: bool,
}

impl Connection {
    /// A client that has just come.
    pub(super) fn new(
        context: Arc<ConnectionContext>,
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
        let handle = context.services.clients.connect(NAME, &ANNOUNCEMENTS, ctx.address().recipient(), about);
        context.count.fetch_add(1, Ordering::Relaxed);
        let connect = outbound::connect(&id, context.services.bus.node().id(), context.settings.message_bytes_max);
        outbound::write(&sink, &connect);
        let book = BookClient::new(context.access.clone(), Arc::clone(handle.client()));
        let registration = Registration::new(context.services.roll.clone(), Arc::clone(handle.client()));
        let backlog = context.services.bus.proposer().receiving().lease();
        Self {
            context,
            session: Session::new(bounds),
            sink,
            book,
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
            left: false,
        }
    }

    fn serial(&self) -> u64 {
        self.handle.client().serial
    }

    /// Writes something that may not be missed.
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

    /// Says farewell and leaves.
    fn end(&mut self, code: u16, reason: &str) {
        if self.session.is_closed() {
            return;
        }
        tracing::debug!(code, reason, "a connection ends");
        self.session.close();
        self.send_disconnect(code, reason);
        self.sink.close_saying(code, reason);
        self.leave();
    }

    /// Tells it that its end comes, once.
    fn send_disconnect(&mut self, code: u16, reason: &str) {
        if !std::mem::replace(&mut self.disconnect_sent, true) {
            outbound::write(&self.sink, &outbound::disconnect(code, reason));
        }
    }

    /// Nobody finds it any more.
    fn vacate(&mut self) {
        // In this order: a request that is being routed now finds nobody, or is found here.
        self.handle.vacate();
        self.registration.leave();
    }

    fn leave(&mut self) {
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        self.vacate();
        self.book.close();
        self.context.services.router.forget(self.serial());
    }

    /// Nothing new comes to it; it ends when what it has and what it asked has.
    fn drain(&mut self, code: u16, reason: &'static str, ctx: &mut Context<Self>) {
        if self.session.is_closed() || self.left {
            return;
        }
        self.session.drain();
        self.vacate();
        if code == code::AWAY {
            self.send_disconnect(code, reason);
        }
        self.closing = Some((code, reason));
        // Streams that the node ends have a last word.
        self.awaits_streams = code == code::AWAY;
        ctx.run_later(LAST_WORDS, |act, _| {
            act.awaits_streams = false;
            act.end_if_idle();
        });
        ctx.run_later(self.context.settings.drain_timeout, move |act, _| act.end(code, reason));
        let emptied = self.context.services.router.emptied(self.serial());
        ctx.spawn(emptied.into_actor(self).map(|(), act, _| act.end_if_idle()));
        self.end_if_idle();
    }

    /// Ends a connection that leaves, once nothing of it is in flight. Called behind everything that may have ended the
    /// last of it.
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

    fn close(&mut self, why: CloseReason, ctx: &mut Context<Self>) {
        match why {
            CloseReason::Draining => self.drain(code::AWAY, "node stopping", ctx),
            CloseReason::Replaced => {
                let by = self.handle.client().about().replaced_by.unwrap_or_default();
                let reason = format!("another connection is this instance now: {by}");
                self.end(close_codes::REPLACED, reason.trim_end_matches(": "));
            }
            CloseReason::Removed => self.end(close_codes::REMOVED, "removed by the operator"),
            CloseReason::Unresponsive => self.end(close_codes::TIMEOUT, "no sign of life"),
        }
    }

    /// Looks for signs of life: after a while of silence it is asked for one.
    fn watch_liveness(&self, wait: Duration, ctx: &mut Context<Self>) {
        ctx.run_later(wait, |act, ctx| {
            let Settings { ping_interval, silence_max, .. } = act.context.settings;
            let now = clock::now();
            // Who takes long to read something large, and may answer only behind that, lives.
            let sent = act.sink.sent();
            if std::mem::replace(&mut act.sent_before, sent) != sent && act.sink.waiting() > 0 {
                act.last_heard = now;
            }
            let silence = now.saturating_duration_since(act.last_heard);
            act.session.tidy(now);
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
        let Settings { ping_interval, register_timeout, .. } = self.context.settings;
        self.watch_liveness(ping_interval, ctx);
        ctx.run_later(register_timeout, |act, _| {
            if act.session.is_waited_for() {
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
    /// Also when it died without a word.
    fn drop(&mut self) {
        self.leave();
        self.context.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl StreamHandler<InboundFrame> for Connection {
    fn handle(&mut self, came: InboundFrame, ctx: &mut Self::Context) {
        self.last_heard = clock::now();
        match came {
            InboundFrame::Frame(Frame::Text(text)) => {
                if let Some(step) = self.session.hear(text, self.last_heard) {
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
        if self.handle.client().has_lost() {
            return self.end_slow();
        }
        match told {
            ClientMessage::Request(handed) => self.deliver(&handed),
            ClientMessage::Outcome(ticket, outcome) => self.message_ended(ticket, outcome),
            ClientMessage::Event(event) => self.event(event),
            ClientMessage::Command(command) => self.command(command),
            ClientMessage::Close(why) => self.close(why, ctx),
            ClientMessage::Stream(number, update) => self.update(number, update, ctx),
            // This door does not ask the bus for these.
            ClientMessage::Registered(..) | ClientMessage::Notified(..) | ClientMessage::Remind => {}
        }
        self.end_if_idle();
    }
}
