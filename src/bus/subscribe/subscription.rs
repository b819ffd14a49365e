//! The actor of one open stream: it owns a cursor and writes what its client may get.
//!
//! The queue to the client sets the pace: while the queue is full nothing is read. All events that wait leave in one
//! write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture,
};
use bytes::Bytes;
use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::subjects::subject::Subject;

use self::pull::Pull;
use super::batch::Batch;
use super::chunks::join_frames;
use super::membership::Membership;
use crate::base::actors::{Belongs, Kind, must_tell};
use crate::base::alarm::Alarm;
use crate::base::clock;
use crate::bus::consume::dead_letter::DeadLetter;
use crate::bus::consume::source::{Page, Source};
use crate::bus::delivery::messages::{Deliver, EndReason, StreamCommand, WriteResult};
use crate::bus::delivery::order::OrderBy;
use crate::bus::delivery::policy::DeliveryPolicy;
use crate::bus::delivery::window::given::Given;
use crate::bus::delivery::window::{Departure, Step, Window};
use crate::bus::handle::{Bus, Live};
use crate::bus::live::reply_subjects::Listening;
use crate::bus::read::encoder::{End, EventEncoder};
use crate::bus::read::feed_buffer::Taken;
use crate::bus::read::stored_event::StoredEvent;
use crate::bus::security::identity::Identity;
use crate::bus::security::usage::Place;
use crate::net::byte_queue::Outlet;

mod batch;
mod commands;
mod pull;

/// What a stream delivers, and how.
#[derive(Debug)]
pub enum Delivery {
    /// All events from a cursor on, as fast as the client reads.
    Stream(Source),
    /// As many events at a time as the policy says, each until it is acknowledged, in the order of keys if there are some.
    Manual(Source, DeliveryPolicy, Option<OrderBy>),
    /// Live messages of an inbox subject.
    Inbox(Listening),
    /// The events that a durable consumer gives to this member.
    Member(Membership),
}

/// The parts of a subscription.
#[derive(Debug)]
pub struct Opening {
    /// The bus.
    pub bus: Bus,
    /// The id that acknowledgements name.
    pub consumer_id: String,
    /// Number of the connection; a newer one has a larger number.
    pub serial: u64,
    /// Whose stream it is, and its place among the streams of the principal.
    pub identity: Arc<Identity>,
    /// See [`Opening::identity`].
    pub place: Place,
    /// What it subscribes to.
    pub pattern: Pattern,
    /// Encodes events for the door.
    pub encoder: &'static dyn EventEncoder,
    /// The queue to the client.
    pub outlet: Outlet,
    /// After this long without a write a keep-alive is written.
    pub keep_alive: Duration,
    /// What the stream delivers.
    pub delivery: Delivery,
    /// The bounds of a stream that ends by itself, and the longest wait for an acknowledgement if its client
    /// acknowledges.
    pub batch: Option<(Batch, Option<Duration>)>,
}

impl std::fmt::Debug for dyn EventEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "encoder {}", self.slot())
    }
}

/// The state of a stream with acknowledgement.
struct Manual {
    /// Reads the events; `None` while a read is running.
    source: Option<Source>,
    /// The deliveries of its one member.
    window: Window,
    /// Wakes the stream when the wait for an acknowledgement ends.
    alarm: Alarm,
    /// The subject of dead letters that the client has named.
    dead_letter: Option<Subject>,
}

/// How the actor gets its events.
enum State {
    /// From the book, the feed or an inbox, without acknowledgement.
    Streaming,
    /// From its own cursor, with acknowledgement.
    Manual(Box<Manual>),
    /// From a durable consumer.
    Member(Membership),
}

/// The actor of one stream.
pub struct Subscription {
    /// The book, the feed and the list of live subscriptions.
    bus: Bus,
    /// The id under which the stream is listed.
    consumer_id: String,
    /// Number of the connection, so that a late end does not remove a newer stream of the same id from the list.
    serial: u64,
    /// Whose stream it is.
    identity: Arc<Identity>,
    /// Its place among the streams of the principal.
    _place: Place,
    /// What it subscribes to.
    pattern: Pattern,
    /// Encodes events for the door.
    encoder: &'static dyn EventEncoder,
    /// The queue to the client.
    outlet: Outlet,
    /// After this long without a write a keep-alive is written.
    keep_alive: Duration,
    /// When something was written last.
    written: Instant,
    /// Whether the stream was put into the list of live subscriptions.
    listed: bool,
    /// What to deliver, until the actor has started.
    delivery: Option<Box<Delivery>>,
    /// How the actor gets its events.
    state: State,
    /// How far a batch is; `None` for a stream without an end.
    pull: Option<Pull>,
}

/// The member number of the client in the window of its own stream.
const SELF: u64 = 0;

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("consumer_id", &self.consumer_id).finish_non_exhaustive()
    }
}

impl Subscription {
    /// A subscription that begins to deliver when its actor starts.
    #[must_use]
    pub fn new(opening: Opening) -> Self {
        Self {
            bus: opening.bus,
            consumer_id: opening.consumer_id,
            serial: opening.serial,
            identity: opening.identity,
            _place: opening.place,
            pattern: opening.pattern,
            encoder: opening.encoder,
            outlet: opening.outlet,
            keep_alive: opening.keep_alive,
            written: clock::now(),
            listed: false,
            delivery: Some(Box::new(opening.delivery)),
            state: State::Streaming,
            pull: opening.batch.map(|(batch, longest_wait)| Pull::new(batch, longest_wait)),
        }
    }

    /// Queues a chunk.
    fn write(&mut self, chunk: Bytes) {
        self.written = clock::now();
        self.outlet.push(chunk);
    }

    /// Queues events.
    fn write_items(&mut self, items: &[Arc<StoredEvent>]) {
        join_frames(items, self.encoder, |chunk| self.write(chunk));
    }

    /// Writes a keep-alive when nothing was written for long.
    fn arm_keep_alive(&self, wait: Duration, ctx: &mut Context<Self>) {
        ctx.run_later(wait, |act, ctx| {
            let idle = clock::now().saturating_duration_since(act.written);
            let wait = match act.keep_alive.checked_sub(idle) {
                Some(left) if !left.is_zero() => left,
                // A client that does not read has enough to read.
                _ if act.outlet.is_full() => act.keep_alive,
                _ => {
                    let mut out = Vec::new();
                    act.encoder.keep_alive(&mut out);
                    act.write(out.into());
                    act.keep_alive
                }
            };
            act.arm_keep_alive(wait, ctx);
        });
    }

    /// Delivers pages until the client has gone or the book cannot be read.
    fn stream(&mut self, source: Source, ctx: &mut Context<Self>) {
        // The events of a batch are counted.
        let (outlet, encoder) = (self.outlet.clone(), self.pull.is_none().then_some(self.encoder));
        let step = async move {
            let mut source = source;
            let page = if outlet.ready().await { Some(source.next(encoder).await) } else { None };
            (source, page)
        };
        ctx.spawn(step.into_actor(self).map(|(source, page), act, ctx| match page {
            None => ctx.stop(),
            Some(Ok(page)) => {
                match page {
                    Page::Bytes(bytes) => act.write(bytes),
                    Page::Items(mut items) => {
                        items.truncate(act.pull.as_ref().map_or(usize::MAX, Pull::left));
                        act.write_items(&items);
                        act.pulled(items.len(), ctx);
                    }
                }
                act.stream(source, ctx);
            }
            Some(Err(error)) => act.fail(&error.to_string(), ctx),
        }));
    }

    /// Delivers inbox messages until the client has gone.
    fn listen(&mut self, listening: Listening, ctx: &mut Context<Self>) {
        let outlet = self.outlet.clone();
        let step = async move {
            let buffer = listening.buffer();
            let taken = if outlet.ready().await { Some(buffer.take().await) } else { None };
            (listening, taken)
        };
        ctx.spawn(step.into_actor(self).map(|(listening, taken), act, ctx| match taken {
            None => ctx.stop(),
            Some(Taken::Items(items)) => {
                act.write_items(&items);
                act.listen(listening, ctx);
            }
            Some(Taken::Overflowed) => act.listen(listening, ctx),
        }));
    }

    /// Delivers, fetches and sets the timer, as far as there is something to do.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        let State::Manual(manual) = &mut self.state else { return };
        let steps = manual.window.assign(clock::now());
        if manual.window.wants_more()
            && let Some(mut source) = manual.source.take()
        {
            let fetch = async move {
                let page = source.next(None).await;
                (source, page)
            };
            ctx.spawn(fetch.into_actor(self).map(|(source, page), act, ctx| match page {
                Ok(page) => {
                    if let State::Manual(manual) = &mut act.state {
                        manual.source = Some(source);
                        if let Page::Items(items) = page {
                            manual.window.offer(items);
                        }
                    }
                    act.pump(ctx);
                }
                Err(error) => act.fail(&error.to_string(), ctx),
            }));
        }
        self.carry_out(steps, ctx);
        self.arm_redelivery(ctx);
    }

    /// Writes events that must be acknowledged. Their wait begins when the connection of the client has taken them.
    fn send(&mut self, given: Vec<Given>, ctx: &mut Context<Self>) {
        let sequences: Vec<u64> = given.iter().map(Given::sequence).collect();
        if !self.outlet.is_open() {
            return;
        }
        let at = clock::timestamp();
        let items: Vec<Arc<StoredEvent>> = given.into_iter().map(|given| given.into_item(at)).collect();
        self.write_items(&items);
        let (outlet, mark) = (self.outlet.clone(), self.outlet.mark());
        let taken = async move { outlet.taken(mark).await };
        ctx.spawn(taken.into_actor(self).map(move |taken, act, ctx| {
            let State::Manual(manual) = &mut act.state else { return };
            // The window has one member, which leaves with the stream: there is no step to carry out.
            drop(manual.window.answered(SELF, &sequences, taken, clock::now()));
            if taken {
                act.pump(ctx);
            }
        }));
        self.pulled(items.len(), ctx);
    }

    /// Carries out what the window has decided.
    fn carry_out(&mut self, steps: Vec<Step>, ctx: &mut Context<Self>) {
        if let State::Manual(manual) = &mut self.state {
            self.bus.metrics().redeliveries.inc_by(manual.window.take_sent_again());
        }
        for step in steps {
            match step {
                Step::Send(_, given) => self.send(given, ctx),
                // Counts of a stream that is not durable end with the stream.
                Step::Record(..) => {}
                Step::DeadLetter(_, item, deliveries, why) => {
                    let letter = DeadLetter {
                        item: Arc::clone(&item),
                        consumer_id: Some(self.consumer_id.clone()),
                        consumer: None,
                        group: None,
                        deliveries,
                        why,
                        once: None,
                        to: self.letters_to(),
                    };
                    let bus = self.bus.clone();
                    let bury = async move { letter.store_beyond_the_stream(&bus).await };
                    ctx.spawn(bury.into_actor(self).map(move |(), act, ctx| {
                        if let State::Manual(manual) = &mut act.state {
                            manual.window.dead_letter_done(item.sequence());
                        }
                        act.pump(ctx);
                    }));
                }
            }
        }
    }

    /// The subject of dead letters, if the client has named one.
    fn letters_to(&self) -> Option<Subject> {
        if let State::Manual(manual) = &self.state { manual.dead_letter.clone() } else { None }
    }

    /// Sets the alarm to the next end of a wait.
    fn arm_redelivery(&mut self, ctx: &mut Context<Self>) {
        let State::Manual(manual) = &mut self.state else { return };
        if let Some(deadline) = manual.window.deadline() {
            manual.alarm.ring_by(deadline, ctx, Self::redeliver);
        }
    }

    /// Handles the events that were not acknowledged in time.
    fn redeliver(&mut self, ctx: &mut Context<Self>) {
        let State::Manual(manual) = &mut self.state else { return };
        manual.alarm.rang();
        let steps = manual.window.expire(clock::now());
        self.carry_out(steps, ctx);
        self.pump(ctx);
    }

    /// Ends the stream because the book cannot be read.
    fn fail(&mut self, text: &str, ctx: &mut Context<Self>) {
        tracing::error!(consumer_id = %self.consumer_id, error = text, "a stream ends");
        let mut out = Vec::new();
        self.encoder.failure(text, &mut out);
        self.write(out.into());
        self.is_ended_by_the_bus();
        ctx.stop();
    }

    /// The bus ends the stream: its client may have had no chance to acknowledge, so the last delivery does not count.
    fn is_ended_by_the_bus(&mut self) {
        if let State::Member(membership) = &mut self.state {
            membership.departure = Departure::Returned;
        }
    }
}

impl Actor for Subscription {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (identity, pattern) = (Arc::clone(&self.identity), self.pattern.clone());
        let live = Live { serial: self.serial, identity, pattern, commands: ctx.address().recipient() };
        self.listed = true;
        if let Some(before) = self.bus.enlist(&self.consumer_id, live) {
            must_tell(&before.commands, StreamCommand::Close(EndReason::TakenOver));
        }
        self.arm_keep_alive(self.keep_alive, ctx);
        self.begin_pull(ctx);
        match self.delivery.take().map(|delivery| *delivery) {
            Some(Delivery::Stream(source)) => self.stream(source, ctx),
            Some(Delivery::Inbox(listening)) => self.listen(listening, ctx),
            Some(Delivery::Manual(source, policy, order_by)) => {
                let mut window = Window::default().ordered_by(order_by);
                let dead_letter = policy.dead_letter.clone();
                window.join(SELF, policy);
                let manual = Manual { source: Some(source), window, alarm: Alarm::default(), dead_letter };
                self.state = State::Manual(Box::new(manual));
                self.pump(ctx);
            }
            Some(Delivery::Member(mut membership)) => {
                // From now on the client may get events: when the stream ends, the client has gone.
                membership.departure = Departure::Gone;
                self.state = State::Member(membership);
            }
            None => ctx.stop(),
        }
    }
}

impl Belongs for Subscription {
    const KIND: Kind = Kind::Subscription;
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.listed {
            self.bus.delist(&self.consumer_id, self.serial);
        }
        // However the actor ends, the client must see the end and come back.
        self.outlet.end();
    }
}

impl Subscription {
    /// Ends the stream for a reason, which the client is told.
    fn close(&mut self, reason: EndReason, ctx: &mut Context<Self>) {
        if reason != EndReason::TakenOver {
            self.is_ended_by_the_bus();
        }
        let mut out = Vec::new();
        match reason {
            EndReason::Draining => self.encoder.end_with_retry(spread_millis(), &mut out),
            EndReason::TakenOver => self.encoder.end(End::TakenOver, &mut out),
            EndReason::Deleted => self.encoder.end(End::Deleted, &mut out),
            EndReason::Forbidden => {
                self.encoder.end(End::Forbidden, &mut out);
                if out.is_empty() {
                    // A door whose protocol has no such end says it as a failure.
                    self.encoder.failure(End::Forbidden.text(), &mut out);
                }
            }
        }
        self.write(out.into());
        ctx.stop();
    }
}

/// A random wait of 500 to 3000 ms, so that clients do not come back all at once.
fn spread_millis() -> u64 {
    let random = uuid::Uuid::new_v4().as_u64_pair().0;
    500 + random % 2501
}

impl Handler<Deliver> for Subscription {
    type Result = ResponseActFuture<Self, WriteResult>;

    fn handle(&mut self, deliver: Deliver, ctx: &mut Context<Self>) -> Self::Result {
        if self.pull.as_ref().is_some_and(Pull::is_over) {
            // Given before the consumer knew that the answer has ended.
            return Box::pin(actix::fut::ready(WriteResult::Skipped));
        }
        let one = matches!(&self.state, State::Member(membership) if membership.manual && !membership.many);
        let outlet = self.outlet.clone();
        if !outlet.is_open() {
            return Box::pin(actix::fut::ready(WriteResult::Gone));
        }
        if one && outlet.is_full() && !deliver.items.is_empty() {
            // A copy waits that the client has not read: a node of the release before sends one at each end of the
            // wait.
            let ready = async move { if outlet.ready().await { WriteResult::Skipped } else { WriteResult::Gone } };
            return Box::pin(ready.into_actor(self));
        }
        if !deliver.items.is_empty() {
            self.write_items(&deliver.items);
        }
        let mark = outlet.mark();
        self.pulled(deliver.items.len(), ctx);
        let taken = async move { if outlet.taken(mark).await { WriteResult::Taken } else { WriteResult::Gone } };
        Box::pin(taken.into_actor(self))
    }
}
