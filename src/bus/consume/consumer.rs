//! A durable consumer or group with members on this node: who gets what, and how far it is.
//!
//! With acknowledgement the cursor is the ack floor: it moves when every event up to it
//! is done with. Without, the node acknowledges for its clients, what their connections
//! have taken. How often an event was delivered is stored with the cursor: before a delivery
//! that may be one of many, and within a second otherwise.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::fut;
use actix::prelude::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, ResponseActFuture, SpawnHandle,
    WrapFuture,
};
use rollbook_core::consumer::{Consumer as Known, Range};
use rollbook_core::error::Refusal;

use super::cursor::{Cursor, CursorUpdate};
use super::source::{Page, Source, SourceProgress};
use crate::base::actors::{Belongs, Kind, must_tell};
use crate::base::clock;
use crate::bus::delivery::messages::{
    AckResult, ConsumerTerms, Deliver, EndReason, Join, Leave, MemberAck, MemberState, Members, StreamCommand,
    WriteResult,
};
use crate::bus::delivery::shares::Shares;
use crate::bus::delivery::window::{Departure, Member, Step, Window};
use crate::bus::handle::Bus;
use crate::bus::read::stored_event::StoredEvent;

mod durable;

/// How often a consumer notes what is new, and looks whether it is paused and still the one that serves.
const NOTE: Duration = Duration::from_secs(1);
/// How long a consumer tries to begin, and one without members to bring everything to an end.
const TRY_MAX: Duration = Duration::from_secs(10);
/// How long it waits before it tries again.
const TRY_PAUSE: Duration = Duration::from_millis(250);

struct MemberHandle {
    join: Join,
    /// Is being written to; only without acknowledgement.
    busy: bool,
}

/// What a consumer has from its start on.
struct Serving {
    cursor: Cursor,
    source: Option<Source>,
    place: Rc<SourceProgress>,
    /// The cursor as it is in the replicated state, as far as we know.
    floor: u64,
    /// What the replicated state has beside it.
    done: Vec<Range>,
    counts: BTreeMap<u64, u32>,
}

/// The actor of one durable consumer.
pub struct Consumer {
    bus: Bus,
    terms: ConsumerTerms,
    /// `None` until the cluster has let it begin.
    serving: Option<Serving>,
    handles: BTreeMap<Member, MemberHandle>,
    /// With acknowledgement.
    window: Window,
    /// Without.
    shares: Shares,
    /// Who got a share last.
    turn: Member,
    /// The operator has stopped delivery.
    paused: bool,
    noting: bool,
    /// Answers that are still to come, of members, of the book and of the cluster: it does not stop before them.
    awaited: usize,
    timer: Option<SpawnHandle>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("terms", &self.terms).finish_non_exhaustive()
    }
}

impl Consumer {
    /// A consumer that goes on where its cursor is.
    #[must_use]
    pub fn new(bus: &Bus, terms: ConsumerTerms) -> Self {
        // Members of a group share; a consumer has one member after the other.
        let window = if terms.group { Window::default() } else { Window::in_order() };
        Self {
            bus: bus.clone(),
            terms,
            serving: None,
            handles: BTreeMap::new(),
            window,
            shares: Shares::default(),
            turn: 0,
            paused: false,
            noting: false,
            awaited: 0,
            timer: None,
        }
    }

    /// Asks the cluster to hear this start from now on, and no other.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        let (bus, terms, until) = (self.bus.clone(), self.terms.clone(), clock::now() + TRY_MAX);
        let begin = async move {
            loop {
                match Cursor::start(&bus, &terms).await {
                    Err(Refusal::Unavailable(_) | Refusal::OutcomeUnknown(_) | Refusal::Overloaded(_))
                        if clock::now() < until =>
                    {
                        tokio::time::sleep(TRY_PAUSE).await;
                    }
                    started => return started,
                }
            }
        };
        ctx.spawn(begin.into_actor(self).map(|started, act, ctx| match started {
            Ok((cursor, known)) => act.serve(cursor, known, ctx),
            Err(refusal) => act.give_up(&refusal.to_string(), ctx),
        }));
    }

    fn serve(&mut self, cursor: Cursor, known: Known, ctx: &mut Context<Self>) {
        let source = Source::new(&self.bus, self.terms.pattern.clone(), known.ack_floor.saturating_add(1));
        let counts = known.attempts.iter().map(|of| (of.sequence, of.count)).collect();
        self.paused = known.paused;
        if self.terms.manual {
            self.window.set_records(cursor.counts());
            self.window.resume(known.done.clone(), &known.attempts);
        }
        self.serving = Some(Serving {
            cursor,
            place: source.place(),
            source: Some(source),
            floor: known.ack_floor,
            done: known.done,
            counts,
        });
        self.pump(ctx);
    }

    /// Ends with all its members: they come again, and the consumer is started anew.
    fn give_up(&mut self, why: &str, ctx: &mut Context<Self>) {
        tracing::error!(consumer = %self.terms.name, error = why, "a consumer starts anew");
        self.close_all(EndReason::Draining);
        ctx.stop();
    }

    /// Looks at what the cluster says of this consumer; `false` when another start serves it, and this one has ended.
    fn look(&mut self, ctx: &mut Context<Self>) -> bool {
        let Some(serving) = &self.serving else { return true };
        if !serving.cursor.holds() {
            tracing::warn!(
                namespace = self.terms.pattern.namespace(),
                consumer = %self.terms.name,
                "this start does not serve the consumer any more; its members must come again"
            );
            let known = self.bus.consumer(self.terms.pattern.namespace(), &self.terms.name);
            self.close_all(if known.is_some() { EndReason::Draining } else { EndReason::Deleted });
            ctx.stop();
            return false;
        }
        self.window.set_records(serving.cursor.counts());
        let paused = serving.cursor.is_paused();
        if std::mem::replace(&mut self.paused, paused) && !paused {
            self.pump(ctx);
        }
        true
    }

    fn pump(&mut self, ctx: &mut Context<Self>) {
        if self.paused || self.serving.is_none() {
            return;
        }
        let hungry = if self.terms.manual {
            let steps = self.window.assign(clock::now());
            self.carry_out(steps, ctx);
            self.arm_redelivery(ctx);
            self.window.wants_more()
        } else {
            self.share_out(ctx);
            self.shares.is_empty() && self.handles.values().any(|handle| !handle.busy)
        };
        if hungry && let Some(source) = self.serving.as_mut().and_then(|serving| serving.source.take()) {
            self.fetch(source, ctx);
        }
    }

    fn fetch(&mut self, mut source: Source, ctx: &mut Context<Self>) {
        let fetch = async move {
            let page = source.next(None).await;
            (source, page)
        };
        ctx.spawn(fetch.into_actor(self).map(|(source, page), act, ctx| {
            let items = match page {
                Ok(Page::Items(items)) => items,
                Ok(Page::Bytes(_)) => Vec::new(),
                Err(error) => return act.give_up(&error.to_string(), ctx),
            };
            let Some(serving) = &mut act.serving else { return };
            serving.source = Some(source);
            if act.terms.manual {
                act.window.offer(items);
            } else {
                // Acknowledged when it was served with acknowledgement.
                let done = |item: &Arc<StoredEvent>| {
                    serving.done.iter().any(|of| (of.first..=of.last).contains(&item.sequence()))
                };
                act.shares.offer(items.into_iter().filter(|item| !done(item)).collect());
            }
            // What was asked for before a pause waits for its end.
            if act.look(ctx) {
                act.pump(ctx);
            }
        }));
    }

    /// The next member in turn that waits.
    fn next_free(&self) -> Option<Member> {
        let behind = self.handles.range((Bound::Excluded(self.turn), Bound::Unbounded));
        let mut around = behind.chain(self.handles.range(..=self.turn));
        around.find(|(_, handle)| !handle.busy).map(|(member, _)| *member)
    }

    /// Gives what was read to members that wait, a share each.
    fn share_out(&mut self, ctx: &mut Context<Self>) {
        while let Some(member) = self.next_free() {
            let Some(handle) = self.handles.get_mut(&member) else { return };
            let Some(share) = self.shares.take() else { return };
            handle.busy = true;
            self.turn = member;
            let write = handle.join.deliver.send(Deliver { items: share.clone() });
            let given = self.awaiting(write, move |written, act, ctx| {
                let written = written.unwrap_or(WriteResult::Gone);
                act.shares.answered(share, written == WriteResult::Taken);
                if let Some(handle) = act.handles.get_mut(&member) {
                    handle.busy = false;
                }
                act.answered(member, written, ctx);
                act.note(ctx);
            });
            ctx.spawn(given);
        }
    }

    fn carry_out(&mut self, steps: impl IntoIterator<Item = Step>, ctx: &mut Context<Self>) {
        let mut recording = Vec::new();
        for step in steps {
            match step {
                Step::Record(member, sequence) => recording.push((member, sequence)),
                Step::Send(member, item) => self.deliver(member, item, ctx),
                Step::Bury(member, item, deliveries) => self.bury(member, item, deliveries, ctx),
            }
        }
        if !recording.is_empty() {
            self.record(recording, ctx);
        }
    }

    /// Makes deliveries durable, and begins them. Nothing is delivered while the cluster does not answer.
    fn record(&mut self, recording: Vec<(Member, u64)>, ctx: &mut Context<Self>) {
        self.tell_counts(ctx, move |told, act, ctx| {
            if told {
                for (member, sequence) in recording {
                    if let Some(item) = act.window.recorded(member, sequence, clock::now()) {
                        act.deliver(member, item, ctx);
                    }
                }
                act.arm_redelivery(ctx);
            } else if act.look(ctx) {
                ctx.run_later(TRY_PAUSE, move |act, ctx| act.record(recording, ctx));
            }
        });
    }

    fn deliver(&mut self, member: Member, item: Arc<StoredEvent>, ctx: &mut Context<Self>) {
        let Some(handle) = self.handles.get(&member) else { return };
        let sequence = item.sequence();
        let write = handle.join.deliver.send(Deliver { items: vec![item] });
        let given = self.awaiting(write, move |written, act, ctx| {
            let written = written.unwrap_or(WriteResult::Gone);
            let step = act.window.answered(member, sequence, written == WriteResult::Taken, clock::now());
            act.carry_out(step, ctx);
            act.answered(member, written, ctx);
        });
        ctx.spawn(given);
    }

    /// A member has answered what was given to it.
    fn answered(&mut self, member: Member, written: WriteResult, ctx: &mut Context<Self>) {
        match written {
            WriteResult::Taken | WriteResult::Skipped => {}
            WriteResult::Unreachable => self.lose(member, ctx),
            // A stream that has ended leaves by itself; one that its own node does not know any more must be told.
            WriteResult::Gone => {
                if let Some(handle) = self.remove_member(member, Departure::Returned, ctx) {
                    must_tell(&handle.join.commands, StreamCommand::Close(EndReason::Draining));
                }
            }
        }
        self.pump(ctx);
    }

    fn arm_redelivery(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let Some(deadline) = self.window.deadline() else { return };
        let wait = deadline.saturating_duration_since(clock::now());
        self.timer = Some(ctx.run_later(wait, Self::redeliver));
    }

    /// Deals with what was not acknowledged in time.
    fn redeliver(&mut self, ctx: &mut Context<Self>) {
        self.timer = None;
        if self.paused {
            // Nothing is sent again, and nothing given up, until it goes on.
            return;
        }
        if self.bus.node().consensus().ready().is_err() {
            // Without a majority no acknowledgement is taken: nothing is given up meanwhile.
            self.timer = Some(ctx.run_later(NOTE, Self::redeliver));
            return;
        }
        let steps = self.window.expire(clock::now());
        let again = steps.iter().filter(|step| !matches!(step, Step::Bury(..))).count();
        self.bus.metrics().redeliveries.inc_by(u64::try_from(again).unwrap_or_default());
        self.carry_out(steps, ctx);
        self.pump(ctx);
    }

    /// A member that cannot be reached loses its place: its client must come again.
    fn lose(&mut self, member: Member, ctx: &mut Context<Self>) {
        let Some(handle) = self.remove_member(member, Departure::Returned, ctx) else { return };
        self.bus.metrics().members_lost.inc();
        tracing::warn!(
            namespace = self.terms.pattern.namespace(),
            consumer = %self.terms.name,
            consumer_id = %handle.join.consumer_id,
            ack = if self.terms.manual { "manual" } else { "none" },
            "a member does not answer and loses its place; its client must come again"
        );
        must_tell(&handle.join.commands, StreamCommand::Close(EndReason::Draining));
    }

    fn remove_member(&mut self, member: Member, departure: Departure, ctx: &mut Context<Self>) -> Option<MemberHandle> {
        let step = self.window.leave(member, departure);
        self.carry_out(step, ctx);
        self.handles.remove(&member)
    }

    fn close_all(&mut self, reason: EndReason) {
        for (member, handle) in std::mem::take(&mut self.handles) {
            // Nobody is left who could be given it: there is no step to carry out.
            drop(self.window.leave(member, Departure::Returned));
            must_tell(&handle.join.commands, StreamCommand::Close(reason));
        }
    }
}

impl Actor for Consumer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
        ctx.run_interval(NOTE, |act, ctx| {
            if act.look(ctx) {
                act.note(ctx);
            }
        });
        self.begin(ctx);
    }
}

impl Belongs for Consumer {
    const KIND: Kind = Kind::Consumer;

    /// The registry has let go of it. What is known now becomes durable before it stops.
    fn released(&mut self, ctx: &mut Context<Self>) {
        self.close_all(EndReason::Draining);
        self.left(ctx);
    }
}

impl Handler<Join> for Consumer {
    type Result = MessageResult<Join>;

    fn handle(&mut self, join: Join, ctx: &mut Context<Self>) -> Self::Result {
        if join.terms != self.terms {
            let ack = if self.terms.manual { "manual" } else { "none" };
            let text = format!("{} (in use with ack={ack})", self.terms.name);
            return MessageResult(Err(Refusal::ConsumerKind(text)));
        }
        // A consumer has one member; in a group only the same name replaces.
        let replaced =
            |handle: &MemberHandle| !self.terms.group || (join.name.is_some() && handle.join.name == join.name);
        let gone: Vec<Member> = self.handles.iter().filter(|(_, handle)| replaced(handle)).map(|(id, _)| *id).collect();
        for member in gone {
            if let Some(handle) = self.remove_member(member, Departure::Gone, ctx) {
                must_tell(&handle.join.commands, StreamCommand::Close(EndReason::TakenOver));
            }
        }
        if self.terms.manual {
            self.window.join(join.member, join.patience);
        }
        self.handles.insert(join.member, MemberHandle { join, busy: false });
        self.pump(ctx);
        MessageResult(Ok(()))
    }
}

impl Handler<Leave> for Consumer {
    type Result = ();

    fn handle(&mut self, leave: Leave, ctx: &mut Context<Self>) {
        drop(self.remove_member(leave.member, leave.departure, ctx));
        self.left(ctx);
    }
}

impl Handler<MemberAck> for Consumer {
    type Result = ResponseActFuture<Self, Result<AckResult, Refusal>>;

    fn handle(&mut self, ack: MemberAck, ctx: &mut Context<Self>) -> Self::Result {
        if self.window.ack(ack.member, &ack.event_id).is_none() {
            return Box::pin(fut::ready(Ok(AckResult::NotInFlight)));
        }
        self.bus.metrics().acks.inc();
        let floor = self.present_floor();
        self.pump(ctx);
        let Some(serving) = self.serving.as_ref().filter(|serving| floor > serving.floor) else {
            return Box::pin(fut::ready(Ok(AckResult::Yes)));
        };
        let (cursor, news) = (serving.cursor.clone(), CursorUpdate { floor, ..CursorUpdate::default() });
        let told = news.clone();
        let durable = async move { cursor.advance(told).await };
        Box::pin(self.awaiting(durable, |durable, act, _| {
            durable.map(|()| {
                act.known(news);
                AckResult::Yes
            })
        }))
    }
}

impl Handler<Members> for Consumer {
    type Result = MessageResult<Members>;

    fn handle(&mut self, _: Members, _: &mut Context<Self>) -> Self::Result {
        let flights: BTreeMap<Member, Option<u64>> = self.window.in_flight().collect();
        let state = |(member, handle): (&Member, &MemberHandle)| MemberState {
            consumer_id: handle.join.consumer_id.clone(),
            in_flight: flights.get(member).copied().flatten(),
        };
        MessageResult(self.handles.iter().map(state).collect())
    }
}
