//! The actor of one session: puts the pure parts to work with time, transports and the bus.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::{Actor, ActorContext, AsyncContext, Context, Handler, Message, MessageResult};
use actix::{ActorFutureExt as _, WrapFuture as _};
use bytestring::ByteString;
use tokio::sync::oneshot;

use super::arrivals::Arrival;
use super::protocol::{Engine, Polled, Step, Timing, Wrong};
use super::table::SessionSlot;
use crate::base::actors::{Belongs, Kind, hint, must_tell};
use crate::base::clock;
use crate::bus::client::clients::ClientMessage;
use crate::bus::subscribe::streams::Turn;
use crate::doors::socketio::session::{Application, Away, Handshake, Out, Session};
use crate::net::websocket::connection::{Inbound, Received, Write, Writer};
use crate::net::websocket::reader::code;
use crate::net::websocket::writer::{Frame, ROOM_BYTES};

/// Messages that wait for a session: more than all it may be asked and all it may have asked.
const MAILBOX: usize = 4096;
/// How long a session that has shaken hands may say nothing at all.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What the sessions of a door share.
#[derive(Debug, Clone, Copy)]
pub(in crate::doors::socketio) struct Bounds {
    pub(in crate::doors::socketio) timing: Timing,
    /// From the handshake to the first CONNECT.
    pub(in crate::doors::socketio) connect_timeout: Duration,
    /// Most bytes that wait for a client.
    pub(in crate::doors::socketio) queue_bytes_max: usize,
}

/// A GET; the answer may take as long as the client is quiet.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(in crate::doors::socketio) struct Poll(pub(in crate::doors::socketio) oneshot::Sender<Result<String, Wrong>>);

/// The connection of the GET was cut.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(in crate::doors::socketio) struct PollGone;

/// A POST begins, under a number of its own. It goes on as long as the other end of the channel is there; that may also
/// say why it does not.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Wrong>")]
pub(in crate::doors::socketio) struct PostBegins(
    pub(in crate::doors::socketio) u64,
    pub(in crate::doors::socketio) oneshot::Receiver<&'static str>,
);

/// The POST of that number has come; `None` when it is no text.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Wrong>")]
pub(in crate::doors::socketio) struct PostEnds(
    pub(in crate::doors::socketio) u64,
    pub(in crate::doors::socketio) Option<ByteString>,
);

/// A WebSocket for this session: the first of it, or one that wants to take over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(in crate::doors::socketio) struct Attach {
    pub(in crate::doors::socketio) conn: u64,
    pub(in crate::doors::socketio) writer: Writer,
    /// What is written first.
    pub(in crate::doors::socketio) open: Option<ByteString>,
}

/// Tells when a request is dropped because its client has gone.
pub(in crate::doors::socketio) struct Gone<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Gone<F> {
    pub(in crate::doors::socketio) const fn new(tell: F) -> Self {
        Self(Some(tell))
    }

    pub(in crate::doors::socketio) fn disarm(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for Gone<F> {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell();
        }
    }
}

/// What was written to a WebSocket has left, or will never.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Written {
    conn: u64,
    left: bool,
}

/// What was queued leaves now.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Flush;

/// The actor.
pub(in crate::doors::socketio) struct SessionActor {
    engine: Engine,
    session: Session,
    queue_bytes_max: usize,
    /// When it must have joined a namespace, and when if it says anything.
    join_by: Instant,
    join_by_speaking: Instant,
    /// It is among those who have joined none.
    arrival: Option<Arrival>,
    poll: Option<oneshot::Sender<Result<String, Wrong>>>,
    writers: Vec<(u64, Writer)>,
    /// The timer that is set.
    armed: Option<Instant>,
    ended: bool,
    /// Messages that came behind one that is still being dealt with.
    backlog: VecDeque<Frame>,
    waits: bool,
    /// A flush is on its way.
    flushes: bool,
    /// The stream of the book that has spoken: the next one speaks when little of that waits for the client.
    turn: Option<Turn>,
    /// Its place in the table of the door.
    _place: SessionSlot<Self>,
}

impl SessionActor {
    /// A session that begins with polling, or with the WebSocket `conn`.
    pub(in crate::doors::socketio) fn new(
        bounds: Bounds,
        conn: Option<u64>,
        application: Arc<dyn Application>,
        handshake: Handshake,
        (place, arrival): (SessionSlot<Self>, Arrival),
    ) -> Self {
        let now = clock::now();
        let join_by_speaking = now + bounds.connect_timeout;
        Self {
            engine: Engine::new(bounds.timing, conn, now),
            session: Session::new(application, handshake),
            queue_bytes_max: bounds.queue_bytes_max,
            join_by: join_by_speaking.min(now + SILENCE_MAX),
            join_by_speaking,
            arrival: Some(arrival),
            poll: None,
            writers: Vec::new(),
            armed: None,
            ended: false,
            backlog: VecDeque::new(),
            waits: false,
            flushes: false,
            turn: None,
            _place: place,
        }
    }

    /// Something came from the client. Those who only shake hands are waited for less.
    fn speaks(&mut self) {
        self.join_by = self.join_by_speaking;
    }

    /// Does what the engine wants done.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        loop {
            let steps = self.engine.take();
            if steps.is_empty() {
                break;
            }
            for step in steps {
                self.step(step, ctx);
            }
        }
        if self.session.is_joined() || self.ended {
            self.arrival = None;
        }
        if self.engine.waiting_bytes() < ROOM_BYTES {
            self.turn = None;
        }
        self.arm(ctx);
    }

    fn step(&mut self, step: Step, ctx: &mut Context<Self>) {
        match step {
            Step::Answer(payload) => self.answer(Ok(payload)),
            Step::Write(conn, frames) => self.write(conn, Write::Frames(frames), ctx),
            Step::Shut(conn, code) => {
                self.write(conn, Write::Close(code), ctx);
                self.writers.retain(|(other, _)| *other != conn);
            }
            Step::Message(frame) if self.waits || !self.backlog.is_empty() => self.backlog.push_back(frame),
            Step::Message(frame) => self.message(frame, ctx),
            Step::Closed(reason) => self.closed(reason, ctx),
        }
    }

    /// Deals with what came, up to something that takes time.
    fn work_off(&mut self, ctx: &mut Context<Self>) {
        while !self.waits && !self.ended {
            let Some(frame) = self.backlog.pop_front() else { return };
            self.message(frame, ctx);
        }
    }

    fn message(&mut self, frame: Frame, ctx: &mut Context<Self>) {
        if self.ended {
            return;
        }
        match self.session.message(frame) {
            Ok(out) => self.carry_out(out, ctx),
            Err(malformed) => self.engine.close(malformed.0, code::NORMAL, clock::now()),
        }
    }

    fn closed(&mut self, reason: &'static str, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        tracing::debug!(reason, "a session ended");
        self.session.end();
        match self.engine.afterlife() {
            Duration::ZERO => ctx.stop(),
            afterlife => drop(ctx.run_later(afterlife, |_, ctx| ctx.stop())),
        }
    }

    fn answer(&mut self, answer: Result<String, Wrong>) {
        if let Some(poll) = self.poll.take() {
            // A client that has gone needs no answer.
            hint(poll, answer);
        }
    }

    fn write(&mut self, conn: u64, write: Write, ctx: &mut Context<Self>) {
        let Some((_, writer)) = self.writers.iter().find(|(other, _)| *other == conn) else { return };
        // Not a future of this actor: when the actor stops, its last word must still go out.
        let (request, session) = (writer.to().send(write), ctx.address());
        actix_web::rt::spawn(async move {
            let left = request.await.is_ok();
            must_tell(&session, Written { conn, left });
        });
    }

    fn carry_out(&mut self, mut out: Out, ctx: &mut Context<Self>) {
        if out.away == Some(Away::Kick) {
            self.session.kick(&mut out);
        }
        // What waits already says whether the client reads: a message that is large does not.
        let unread = self.engine.unread_bytes() > self.queue_bytes_max;
        if unread && out.frames.iter().map(Frame::len).sum::<usize>() > out.paced {
            self.engine.close("client does not read", code::NORMAL, clock::now());
        }
        self.turn = out.turn.take().or_else(|| self.turn.take());
        if !out.frames.is_empty() {
            self.engine.queue(out.frames, out.paced);
            // Behind all messages that wait now: what they have to say leaves in one write.
            if !std::mem::replace(&mut self.flushes, true) {
                ctx.notify(Flush);
            }
        }
        if let Some(Away::Drop(reason, code)) = out.away {
            self.engine.close(reason, code, clock::now());
        }
        if let Some(wait) = out.wait {
            // Nothing else happens until it is over.
            self.engine.flush();
            self.waits = true;
            let waited = wait.into_actor(self).map(|waited, act: &mut Self, ctx| {
                act.waits = false;
                if !act.ended {
                    let out = act.session.waited(waited);
                    act.carry_out(out, ctx);
                }
                act.work_off(ctx);
                act.settle(ctx);
            });
            ctx.wait(waited);
        }
    }

    fn tell(&mut self, told: ClientMessage, ctx: &mut Context<Self>) {
        if self.ended {
            return;
        }
        let out = self.session.told(told);
        self.carry_out(out, ctx);
        self.settle(ctx);
    }

    /// Sets the timer, unless one is set that comes first.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        if self.ended {
            return;
        }
        let mut next = self.engine.next_deadline();
        if !self.session.is_joined() {
            next = next.min(self.join_by);
        }
        if self.armed.is_some_and(|armed| armed <= next) {
            return;
        }
        self.armed = Some(next);
        ctx.run_later(next.saturating_duration_since(clock::now()), move |act, ctx| {
            if act.armed == Some(next) {
                act.armed = None;
            }
            let now = clock::now();
            if !act.session.is_joined() && now >= act.join_by {
                act.engine.close("no CONNECT in time", code::NORMAL, now);
            }
            act.engine.tick(now);
            act.settle(ctx);
        });
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.arm(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        if !self.ended {
            self.session.end();
        }
    }
}

impl Belongs for SessionActor {
    const KIND: Kind = Kind::Session;
}

impl Handler<Poll> for SessionActor {
    type Result = ();

    fn handle(&mut self, Poll(answer): Poll, ctx: &mut Self::Context) {
        let polled = self.engine.poll(clock::now());
        // Steps of an overlap concern the poll that was there before.
        self.settle(ctx);
        let answered = match polled {
            Polled::Now(payload) => answer.send(Ok(payload)),
            Polled::Wrong(wrong) => answer.send(Err(wrong)),
            Polled::Later => {
                self.poll = Some(answer);
                return;
            }
        };
        if answered.is_err() {
            self.engine.poll_gone();
        }
        if self.engine.is_over() && self.ended {
            ctx.stop();
        }
    }
}

impl Handler<PollGone> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: PollGone, ctx: &mut Self::Context) {
        self.engine.poll_gone();
        self.settle(ctx);
    }
}

impl Handler<PostBegins> for SessionActor {
    type Result = MessageResult<PostBegins>;

    fn handle(&mut self, PostBegins(post, goes_on): PostBegins, ctx: &mut Self::Context) -> Self::Result {
        self.speaks();
        let begun = self.engine.post_begins(post);
        if begun.is_ok() {
            // Whatever becomes of the handler of the POST: the session must not wait for it for ever.
            ctx.spawn(goes_on.into_actor(self).map(move |why, act: &mut Self, ctx| {
                act.engine.post_gone(post, why.unwrap_or("data request connection closed prematurely"));
                act.settle(ctx);
            }));
        }
        self.settle(ctx);
        MessageResult(begun)
    }
}

impl Handler<PostEnds> for SessionActor {
    type Result = MessageResult<PostEnds>;

    fn handle(&mut self, PostEnds(post, body): PostEnds, ctx: &mut Self::Context) -> Self::Result {
        let taken = self.engine.post(post, body.as_ref(), clock::now());
        self.settle(ctx);
        MessageResult(taken)
    }
}

impl Handler<Attach> for SessionActor {
    type Result = ();

    fn handle(&mut self, Attach { conn, writer, open }: Attach, ctx: &mut Self::Context) {
        self.writers.push((conn, writer));
        match open {
            Some(open) => self.engine.send([Frame::Text(open)]),
            None => self.engine.attach(conn, clock::now()),
        }
        self.settle(ctx);
    }
}

impl Handler<Flush> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        self.flushes = false;
        self.engine.flush();
        self.settle(ctx);
    }
}

impl Handler<Written> for SessionActor {
    type Result = ();

    fn handle(&mut self, Written { conn, left }: Written, ctx: &mut Self::Context) {
        if left {
            self.engine.written(conn);
        } else {
            self.engine.conn_closed(conn);
            self.writers.retain(|(other, _)| *other != conn);
        }
        self.settle(ctx);
    }
}

impl Handler<Received> for SessionActor {
    type Result = ();

    fn handle(&mut self, Received { conn, what }: Received, ctx: &mut Self::Context) {
        match what {
            Inbound::Frame(frame) => {
                self.speaks();
                self.engine.frame(conn, frame, clock::now());
            }
            Inbound::Closed => {
                self.engine.conn_closed(conn);
                self.writers.retain(|(other, _)| *other != conn);
            }
        }
        self.settle(ctx);
    }
}

impl Handler<ClientMessage> for SessionActor {
    type Result = ();

    fn handle(&mut self, told: ClientMessage, ctx: &mut Self::Context) {
        self.tell(told, ctx);
    }
}
