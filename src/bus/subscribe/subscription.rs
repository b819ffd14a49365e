//! One open stream: an actor that owns a cursor and writes what its client may get.
//!
//! The client's pace is the outlet's: while it is full nothing is read. What is
//! waiting goes out in one write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Recipient, ResponseActFuture, ResponseFuture,
    SpawnHandle, WrapFuture,
};
use bytes::{Bytes, BytesMut};
use rollbook_core::error::Refusal;

use crate::base::actors::{Belongs, Kind, must_tell};
use crate::base::clock;
use crate::bus::consume::dead_letter::DeadLetter;
use crate::bus::consume::source::{Page, Source};
use crate::bus::delivery::messages::{AckResult, Deliver, EndReason, Leave, MemberAck, StreamCommand, WriteResult};
use crate::bus::delivery::window::{Departure, Member, RedeliveryPolicy, Step, Window};
use crate::bus::handle::{Bus, Live};
use crate::bus::live::reply_subjects::Listening;
use crate::bus::read::encoder::{End, EventEncoder};
use crate::bus::read::feed_buffer::Taken;
use crate::bus::read::stored_event::StoredEvent;
use crate::net::byte_queue::{JOIN_BYTES_MAX, Outlet};

/// What a stream delivers, and how.
#[derive(Debug)]
pub enum Delivery {
    /// Everything from a cursor on, as fast as the client reads.
    Stream(Source),
    /// One event at a time, each until it is acknowledged.
    Manual(Source, RedeliveryPolicy),
    /// Live messages of an inbox.
    Inbox(Listening),
    /// What a durable consumer gives to this member.
    Member(Membership),
}

/// The place of a member in a durable consumer: it leaves when this is dropped, however its stream ends.
#[derive(Debug)]
pub struct Membership {
    /// Namespace of the consumer.
    pub namespace: String,
    /// Name of the consumer.
    pub consumer: String,
    /// Number of the member.
    pub member: Member,
    /// Its client acknowledges.
    pub manual: bool,
    /// How it leaves, as far as is known now.
    pub departure: Departure,
    /// Where acknowledgements go.
    pub acknowledge: Recipient<MemberAck>,
    /// How to leave.
    pub leave: Recipient<Leave>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let (namespace, consumer) = (std::mem::take(&mut self.namespace), std::mem::take(&mut self.consumer));
        must_tell(&self.leave, Leave { namespace, consumer, member: self.member, departure: self.departure });
    }
}

/// What a subscription needs to start.
#[derive(Debug)]
pub struct Opening {
    /// The bus.
    pub bus: Bus,
    /// Id that acknowledgements name.
    pub consumer_id: String,
    /// Number of this connection; a newer one has a larger number.
    pub serial: u64,
    /// How its door writes.
    pub encoder: &'static dyn EventEncoder,
    /// The way to the client.
    pub outlet: Outlet,
    /// After this long without a write something is written.
    pub keep_alive: Duration,
    /// What it delivers.
    pub delivery: Delivery,
}

impl std::fmt::Debug for dyn EventEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "encoder {}", self.slot())
    }
}

/// What an acknowledged stream keeps.
struct Manual {
    source: Option<Source>,
    window: Window,
    timer: Option<SpawnHandle>,
}

enum State {
    Streaming,
    Manual(Box<Manual>),
    Member(Membership),
}

/// The actor of one stream.
pub struct Subscription {
    bus: Bus,
    consumer_id: String,
    serial: u64,
    encoder: &'static dyn EventEncoder,
    outlet: Outlet,
    keep_alive: Duration,
    written: Instant,
    /// Others find it by its consumer id.
    listed: bool,
    delivery: Option<Box<Delivery>>,
    state: State,
}

/// The only member of a subscription's own window.
const SELF: u64 = 0;

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("consumer_id", &self.consumer_id).finish_non_exhaustive()
    }
}

impl Subscription {
    /// A subscription that begins when it is started.
    #[must_use]
    pub fn new(opening: Opening) -> Self {
        Self {
            bus: opening.bus,
            consumer_id: opening.consumer_id,
            serial: opening.serial,
            encoder: opening.encoder,
            outlet: opening.outlet,
            keep_alive: opening.keep_alive,
            written: clock::now(),
            listed: false,
            delivery: Some(Box::new(opening.delivery)),
            state: State::Streaming,
        }
    }

    fn write(&mut self, chunk: Bytes) {
        self.written = clock::now();
        self.outlet.push(chunk);
    }

    fn write_items(&mut self, items: &[Arc<StoredEvent>]) {
        join(items, self.encoder, |chunk| self.write(chunk));
    }

    /// Writes a comment when nothing was written for long.
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
        let (outlet, encoder) = (self.outlet.clone(), self.encoder);
        let step = async move {
            let mut source = source;
            let page = if outlet.ready().await { Some(source.next(Some(encoder)).await) } else { None };
            (source, page)
        };
        ctx.spawn(step.into_actor(self).map(|(source, page), act, ctx| match page {
            None => ctx.stop(),
            Some(Ok(page)) => {
                match page {
                    Page::Bytes(bytes) => act.write(bytes),
                    Page::Items(items) => act.write_items(&items),
                }
                act.stream(source, ctx);
            }
            Some(Err(error)) => act.fail(&error.to_string(), ctx),
        }));
    }

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

    /// Fetches, sends, and arms the timer, as far as there is something to do.
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

    /// Writes an event that is to be acknowledged; its time begins when the client's connection has taken it.
    fn send(&mut self, item: Arc<StoredEvent>, ctx: &mut Context<Self>) {
        let sequence = item.sequence();
        if !self.outlet.is_open() {
            return;
        }
        self.write_items(&[item]);
        let (outlet, mark) = (self.outlet.clone(), self.outlet.mark());
        let taken = async move { outlet.taken(mark).await };
        ctx.spawn(taken.into_actor(self).map(move |taken, act, ctx| {
            let State::Manual(manual) = &mut act.state else { return };
            // A stream has one member, who leaves with it: nothing is to be carried out.
            drop(manual.window.answered(SELF, sequence, taken, clock::now()));
            if taken {
                act.pump(ctx);
            }
        }));
    }

    fn carry_out(&mut self, steps: Vec<Step>, ctx: &mut Context<Self>) {
        for step in steps {
            match step {
                Step::Send(_, item) => self.send(item, ctx),
                // The counts of a stream without a name end with it.
                Step::Record(..) => {}
                Step::DeadLetter(_, item, deliveries) => {
                    let letter = DeadLetter {
                        item: Arc::clone(&item),
                        consumer_id: Some(self.consumer_id.clone()),
                        consumer: None,
                        group: None,
                        deliveries,
                        once: None,
                    };
                    let bus = self.bus.clone();
                    let bury = async move { letter.store(&bus).await };
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

    fn arm_redelivery(&mut self, ctx: &mut Context<Self>) {
        let State::Manual(manual) = &mut self.state else { return };
        if let Some(timer) = manual.timer.take() {
            ctx.cancel_future(timer);
        }
        let Some(deadline) = manual.window.deadline() else { return };
        let wait = deadline.saturating_duration_since(clock::now());
        manual.timer = Some(ctx.run_later(wait, |act, ctx| {
            let State::Manual(manual) = &mut act.state else { return };
            manual.timer = None;
            let steps = manual.window.expire(clock::now());
            let again = steps.iter().filter(|step| matches!(step, Step::Send(..))).count();
            act.bus.metrics().redeliveries.inc_by(u64::try_from(again).unwrap_or_default());
            act.carry_out(steps, ctx);
            act.pump(ctx);
        }));
    }

    fn fail(&mut self, text: &str, ctx: &mut Context<Self>) {
        tracing::error!(consumer_id = %self.consumer_id, error = text, "a stream ends");
        let mut out = Vec::new();
        self.encoder.failure(text, &mut out);
        self.write(out.into());
        self.is_ended_by_the_bus();
        ctx.stop();
    }

    /// Its client may have had no chance to acknowledge.
    fn is_ended_by_the_bus(&mut self) {
        if let State::Member(membership) = &mut self.state {
            membership.departure = Departure::Returned;
        }
    }
}

/// All frames in few pieces: small ones are joined, and a large one, which other streams have as well, is not copied.
fn join(items: &[Arc<StoredEvent>], encoder: &'static dyn EventEncoder, mut write: impl FnMut(Bytes)) {
    if let [only] = items {
        return write(only.frame(encoder));
    }
    let mut joined = BytesMut::new();
    for item in items {
        let frame = item.frame(encoder);
        if !joined.is_empty() && joined.len().saturating_add(frame.len()) > JOIN_BYTES_MAX {
            write(joined.split().freeze());
        }
        if frame.len() >= JOIN_BYTES_MAX {
            write(frame);
        } else {
            joined.extend_from_slice(&frame);
        }
    }
    if !joined.is_empty() {
        write(joined.freeze());
    }
}

impl Actor for Subscription {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let live = Live { serial: self.serial, commands: ctx.address().recipient() };
        self.listed = true;
        if let Some(before) = self.bus.enlist(&self.consumer_id, live) {
            must_tell(&before.commands, StreamCommand::Close(EndReason::TakenOver));
        }
        self.arm_keep_alive(self.keep_alive, ctx);
        match self.delivery.take().map(|delivery| *delivery) {
            Some(Delivery::Stream(source)) => self.stream(source, ctx),
            Some(Delivery::Inbox(listening)) => self.listen(listening, ctx),
            Some(Delivery::Manual(source, policy)) => {
                let mut window = Window::default();
                window.join(SELF, policy);
                self.state = State::Manual(Box::new(Manual { source: Some(source), window, timer: None }));
                self.pump(ctx);
            }
            Some(Delivery::Member(mut membership)) => {
                // From now on its client may get events: when the stream ends, that is because the client has gone.
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
        // However the actor ends, its client must see the end and come back.
        self.outlet.end();
    }
}

impl Subscription {
    fn close(&mut self, reason: EndReason, ctx: &mut Context<Self>) {
        if reason != EndReason::TakenOver {
            self.is_ended_by_the_bus();
        }
        let mut out = Vec::new();
        match reason {
            EndReason::Draining => self.encoder.end_with_retry(spread_millis(), &mut out),
            EndReason::TakenOver => self.encoder.end(End::TakenOver, &mut out),
            EndReason::Deleted => self.encoder.end(End::Deleted, &mut out),
        }
        self.write(out.into());
        ctx.stop();
    }
}

/// 500 to 3000 ms at random, so that clients do not come back in one instant.
fn spread_millis() -> u64 {
    let random = uuid::Uuid::new_v4().as_u64_pair().0;
    500 + random % 2501
}

impl Handler<Deliver> for Subscription {
    type Result = ResponseActFuture<Self, WriteResult>;

    fn handle(&mut self, deliver: Deliver, _: &mut Context<Self>) -> Self::Result {
        let manual = matches!(&self.state, State::Member(membership) if membership.manual);
        let outlet = self.outlet.clone();
        if !outlet.is_open() {
            return Box::pin(actix::fut::ready(WriteResult::Gone));
        }
        if manual && outlet.is_full() && !deliver.items.is_empty() {
            // The client has a copy to read: a node of the release before sends one each time that its patience ends.
            let ready = async move { if outlet.ready().await { WriteResult::Skipped } else { WriteResult::Gone } };
            return Box::pin(ready.into_actor(self));
        }
        if !deliver.items.is_empty() {
            self.write_items(&deliver.items);
        }
        let mark = outlet.mark();
        let taken = async move { if outlet.taken(mark).await { WriteResult::Taken } else { WriteResult::Gone } };
        Box::pin(taken.into_actor(self))
    }
}

impl Handler<StreamCommand> for Subscription {
    type Result = ResponseFuture<Result<AckResult, Refusal>>;

    fn handle(&mut self, command: StreamCommand, ctx: &mut Context<Self>) -> Self::Result {
        let event_id = match command {
            StreamCommand::Acknowledge(event_id) => event_id,
            StreamCommand::Close(reason) => {
                self.close(reason, ctx);
                return Box::pin(std::future::ready(Ok(AckResult::NotInFlight)));
            }
        };
        match &mut self.state {
            State::Streaming => Box::pin(std::future::ready(Ok(AckResult::NotInFlight))),
            State::Manual(manual) => {
                let done = manual.window.ack(SELF, &event_id).is_some();
                if done {
                    self.bus.metrics().acks.inc();
                    self.pump(ctx);
                }
                let answer = if done { AckResult::Yes } else { AckResult::NotInFlight };
                Box::pin(std::future::ready(Ok(answer)))
            }
            State::Member(membership) => {
                let sent = membership.acknowledge.send(MemberAck {
                    namespace: membership.namespace.clone(),
                    consumer: membership.consumer.clone(),
                    member: self.serial,
                    event_id,
                });
                let gone = |_| Refusal::Unavailable("the consumer is being restarted".to_owned());
                Box::pin(async move { sent.await.map_err(gone)? })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::event::Event;

    use super::*;
    use crate::bus::read::pieces::PIECES;

    #[test]
    fn small_events_are_joined_and_a_large_one_is_a_piece_of_its_own() {
        let item = |sequence, size: usize| {
            let (mut record, payload) = (Vec::new(), vec![b'1'; size]);
            let event = Event { subject: "a.b", payload: Some(&payload), ..Event::default() };
            event.encode(&mut record).unwrap();
            Arc::new(StoredEvent::stored(sequence, record.into()))
        };
        let sizes = [10, 10, 1 << 20, 10, 40 << 10, 40 << 10, 1 << 20];
        let items: Vec<_> = (1_u64..).zip(sizes).map(|(sequence, size)| item(sequence, size)).collect();
        let mut chunks: Vec<Bytes> = Vec::new();
        join(&items, &PIECES, |chunk| chunks.push(chunk));
        let events: Vec<usize> =
            chunks.iter().map(|chunk| crate::bus::read::pieces::split(chunk.clone()).count()).collect();
        assert_eq!(events, [2, 1, 2, 1, 1]);
        assert_eq!(chunks[1].as_ptr(), items[2].frame(&PIECES).as_ptr(), "not copied");
        let whole: Vec<u8> = items.iter().flat_map(|item| item.frame(&PIECES).to_vec()).collect();
        assert_eq!(chunks.concat(), whole);
    }
}
