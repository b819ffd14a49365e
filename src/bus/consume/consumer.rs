//! The actor of a durable consumer or group: it delivers events to its members and saves the progress.
//!
//! With acknowledgement the cursor is the ack floor: the floor moves when every event up to it is done. Without
//! acknowledgement the node acknowledges for its clients what their connections have taken. The number of deliveries of
//! an event is saved with the cursor: before a delivery that may be repeated, and within a second otherwise.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, WrapFuture};
use rollbook_core::consumer::{Consumer as Known, Range};
use rollbook_core::error::Refusal;
use rollbook_core::subjects::subject::Subject;

use super::cursor::Cursor;
use super::source::{Page, Source, SourceProgress};
use crate::base::actors::{Belongs, Kind, must_tell};
use crate::base::alarm::Alarm;
use crate::base::clock;
use crate::bus::delivery::messages::{
    ConsumerSpec, Deliver, EndReason, Finish, Join, Leave, MemberState, Members, StreamCommand, WriteResult,
};
use crate::bus::delivery::shares::Shares;
use crate::bus::delivery::window::given::Given;
use crate::bus::delivery::window::{Departure, Member, Step, Window};
use crate::bus::handle::Bus;
use crate::bus::read::stored_event::StoredEvent;

mod acknowledge;
mod durable;

/// How often a consumer checks whether it is paused and still the one that serves, and saves its progress when nothing
/// else has made it do so.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a consumer tries to start, and how long one without members waits for its last answers.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// A member, as its consumer reaches it.
struct MemberHandle {
    /// The message by which the member joined: its addresses and its name.
    join: Join,
    /// Whether a share is being written to the member. Used only without acknowledgement; the window knows it
    /// otherwise.
    busy: bool,
}

/// The state of a consumer from its start on.
struct Serving {
    /// The replicated cursor, fenced by the epoch of this start.
    cursor: Cursor,
    /// Reads the events; `None` while a read is running.
    source: Option<Source>,
    /// How far the source is, readable while a read is running.
    progress: Rc<SourceProgress>,
    /// The ack floor in the replicated state, as far as this node knows. Only a higher one is proposed.
    floor: u64,
    /// The done ranges in the replicated state, to propose only what is new.
    done: Vec<Range>,
    /// The delivery counts in the replicated state, to propose only those that changed.
    counts: BTreeMap<u64, u32>,
}

/// The actor of one durable consumer.
pub struct Consumer {
    /// The node, the book and the metrics.
    bus: Bus,
    /// The specification of the first member. Members with another one are refused.
    spec: ConsumerSpec,
    /// `None` until the cluster has accepted the start.
    serving: Option<Serving>,
    /// The members, in the order of service.
    members: BTreeMap<Member, MemberHandle>,
    /// Deliveries with acknowledgement.
    window: Window,
    /// Deliveries without acknowledgement.
    shares: Shares,
    /// The member that got a share last. The next share goes to a member behind it, so that all get work.
    last_served: Member,
    /// Whether the operator has stopped delivery.
    paused: bool,
    /// Whether a save is under way. Only one at a time is proposed.
    is_saving: bool,
    /// Answers of members, of the book and of the cluster that are still to come. The consumer does not stop before
    /// them.
    pending_answers: usize,
    /// Acknowledged events that are not in a save yet.
    unsaved: u32,
    /// Whether a save of them is due, see [`acknowledge`].
    save_is_due: bool,
    /// Wakes the consumer when the wait for an acknowledgement ends.
    alarm: Alarm,
    /// The subject of dead letters that the member which joined last has named: for events whose member has left.
    dead_letter: Option<Subject>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Consumer {
    /// A consumer that will continue at its replicated cursor.
    #[must_use]
    pub fn new(bus: &Bus, spec: ConsumerSpec) -> Self {
        // Members of a group share; a consumer has one member after the other.
        let window = if spec.group { Window::default() } else { Window::in_order() };
        let window = window.ordered_by(spec.order_by.clone());
        Self {
            bus: bus.clone(),
            spec,
            serving: None,
            members: BTreeMap::new(),
            window,
            shares: Shares::default(),
            last_served: 0,
            paused: false,
            is_saving: false,
            pending_answers: 0,
            unsaved: 0,
            save_is_due: false,
            alarm: Alarm::default(),
            dead_letter: None,
        }
    }

    /// Asks the cluster to accept this start as the only one that moves the cursor.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        let (bus, spec, until) = (self.bus.clone(), self.spec.clone(), clock::now() + RETRY_MAX);
        let begin = async move {
            loop {
                match Cursor::start(&bus, &spec).await {
                    Err(Refusal::Unavailable(_) | Refusal::OutcomeUnknown(_) | Refusal::Overloaded(_))
                        if clock::now() < until =>
                    {
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    started => return started,
                }
            }
        };
        ctx.spawn(begin.into_actor(self).map(|started, act, ctx| match started {
            Ok((cursor, row)) => act.serve(cursor, row, ctx),
            Err(refusal) => act.give_up(&refusal.to_string(), ctx),
        }));
    }

    /// Begins to deliver from the replicated cursor.
    fn serve(&mut self, cursor: Cursor, row: Known, ctx: &mut Context<Self>) {
        let source = Source::new(&self.bus, self.spec.pattern.clone(), row.ack_floor.saturating_add(1));
        let source = source.filtered(self.spec.filter.clone());
        let counts = row.attempts.iter().map(|of| (of.sequence, of.count)).collect();
        self.paused = row.paused;
        if self.spec.manual {
            self.window.set_records(cursor.counts());
            self.window.resume(row.done.clone(), &row.attempts);
        }
        self.serving = Some(Serving {
            cursor,
            progress: source.progress(),
            source: Some(source),
            floor: row.ack_floor,
            done: row.done,
            counts,
        });
        self.pump(ctx);
    }

    /// Ends the consumer and the streams of its members after an error. The members connect again, which starts the
    /// consumer anew.
    fn give_up(&mut self, why: &str, ctx: &mut Context<Self>) {
        tracing::error!(consumer = %self.spec.name, error = why, "a consumer starts anew");
        self.close_all(EndReason::Draining);
        ctx.stop();
    }

    /// Checks whether this start still serves the consumer, and whether delivery is paused. Returns `false` when
    /// another start serves it and this one has ended.
    fn check_serving(&mut self, ctx: &mut Context<Self>) -> bool {
        let Some(serving) = &self.serving else { return true };
        if !serving.cursor.holds() {
            tracing::warn!(
                namespace = self.spec.pattern.namespace(),
                consumer = %self.spec.name,
                "this start does not serve the consumer any more; its members must come again"
            );
            let row = self.bus.consumer(self.spec.pattern.namespace(), &self.spec.name);
            self.close_all(if row.is_some() { EndReason::Draining } else { EndReason::Deleted });
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

    /// Delivers what members can take, and fetches more when a member is idle. Called after every change.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        if self.paused || self.serving.is_none() {
            return;
        }
        let hungry = if self.spec.manual {
            let steps = self.window.assign(clock::now());
            self.run_steps(steps, ctx);
            self.arm_redelivery(ctx);
            self.window.wants_more()
        } else {
            self.share_out(ctx);
            self.shares.is_empty() && self.members.values().any(|handle| !handle.busy)
        };
        if hungry && let Some(source) = self.serving.as_mut().and_then(|serving| serving.source.take()) {
            self.fetch(source, ctx);
        }
    }

    /// Reads the next page, then delivers it.
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
            if act.spec.manual {
                act.window.offer(items);
            } else {
                // Acknowledged when it was served with acknowledgement.
                let done = |item: &Arc<StoredEvent>| {
                    serving.done.iter().any(|of| (of.first..=of.last).contains(&item.sequence()))
                };
                act.shares.offer(items.into_iter().filter(|item| !done(item)).collect());
            }
            // What was asked for before a pause waits for its end.
            if act.check_serving(ctx) {
                act.pump(ctx);
            }
        }));
    }

    /// The next member without a share, behind the one that was served last.
    fn next_free(&self) -> Option<Member> {
        let behind = self.members.range((Bound::Excluded(self.last_served), Bound::Unbounded));
        let mut around = behind.chain(self.members.range(..=self.last_served));
        around.find(|(_, handle)| !handle.busy).map(|(member, _)| *member)
    }

    /// Gives waiting events to free members, one share each.
    fn share_out(&mut self, ctx: &mut Context<Self>) {
        while let Some(member) = self.next_free() {
            let Some(handle) = self.members.get_mut(&member) else { return };
            let Some(share) = self.shares.take() else { return };
            handle.busy = true;
            self.last_served = member;
            let write = handle.join.deliver.send(Deliver { items: share.clone() });
            let given = self.await_before_stop(write, move |written, act, ctx| {
                let written = written.unwrap_or(WriteResult::Gone);
                act.shares.answered(share, written == WriteResult::Taken);
                if let Some(handle) = act.members.get_mut(&member) {
                    handle.busy = false;
                }
                act.answered(member, written, ctx);
                act.save_progress(ctx);
            });
            ctx.spawn(given);
        }
    }

    /// Carries out what the window has decided.
    fn run_steps(&mut self, steps: impl IntoIterator<Item = Step>, ctx: &mut Context<Self>) {
        let mut recording = Vec::new();
        for step in steps {
            match step {
                Step::Record(member, sequences) => recording.push((member, sequences)),
                Step::Send(member, given) => self.deliver(member, given, ctx),
                Step::DeadLetter(member, item, deliveries, why) => {
                    self.store_dead_letter((member, item), (deliveries, why), ctx);
                }
            }
        }
        self.bus.metrics().redeliveries.inc_by(self.window.take_sent_again());
        if !recording.is_empty() {
            self.record(recording, ctx);
        }
    }

    /// Saves delivery counts, then begins the deliveries. Nothing is delivered while the cluster does not answer.
    fn record(&mut self, recording: Vec<(Member, Vec<u64>)>, ctx: &mut Context<Self>) {
        self.save_counts(ctx, move |durable, act, ctx| {
            if durable {
                for (member, sequences) in recording {
                    let given = act.window.recorded(member, &sequences, clock::now());
                    if !given.is_empty() {
                        act.deliver(member, given, ctx);
                    }
                }
                act.arm_redelivery(ctx);
            } else if act.check_serving(ctx) {
                ctx.run_later(RETRY_PAUSE, move |act, ctx| act.record(recording, ctx));
            }
        });
    }

    /// Writes events to a member and reports the result to the window.
    fn deliver(&mut self, member: Member, given: Vec<Given>, ctx: &mut Context<Self>) {
        let Some(handle) = self.members.get(&member) else { return };
        let sequences: Vec<u64> = given.iter().map(Given::sequence).collect();
        let at = clock::timestamp();
        let items = given.into_iter().map(|given| given.into_item(at)).collect();
        let write = handle.join.deliver.send(Deliver { items });
        let given = self.await_before_stop(write, move |written, act, ctx| {
            let written = written.unwrap_or(WriteResult::Gone);
            let steps = act.window.answered(member, &sequences, written == WriteResult::Taken, clock::now());
            act.run_steps(steps, ctx);
            act.answered(member, written, ctx);
        });
        ctx.spawn(given);
    }

    /// Called when a member has answered a write.
    fn answered(&mut self, member: Member, written: WriteResult, ctx: &mut Context<Self>) {
        match written {
            WriteResult::Taken | WriteResult::Skipped => {}
            WriteResult::Unreachable => self.drop_unreachable(member, ctx),
            // A stream that has ended leaves by itself; one that its own node does not know any more must be told.
            WriteResult::Gone => {
                if let Some(handle) = self.remove_member(member, Departure::Returned, ctx) {
                    must_tell(&handle.join.commands, StreamCommand::Close(EndReason::Draining));
                }
            }
        }
        self.pump(ctx);
    }

    /// Sets the alarm to the next end of a wait.
    fn arm_redelivery(&mut self, ctx: &mut Context<Self>) {
        if let Some(deadline) = self.window.deadline() {
            self.alarm.ring_by(deadline, ctx, Self::redeliver);
        }
    }

    /// Handles the events that were not acknowledged in time.
    fn redeliver(&mut self, ctx: &mut Context<Self>) {
        self.alarm.rang();
        if self.paused {
            // Nothing is sent again, and nothing given up, until it goes on.
            return;
        }
        if self.bus.node().consensus().ready().is_err() {
            // Without a majority no acknowledgement is taken: nothing is given up meanwhile.
            self.alarm.ring_by(clock::now() + SAVE_INTERVAL, ctx, Self::redeliver);
            return;
        }
        let steps = self.window.expire(clock::now());
        self.run_steps(steps, ctx);
        self.pump(ctx);
    }

    /// Removes a member whose node does not answer. Its client must connect again.
    fn drop_unreachable(&mut self, member: Member, ctx: &mut Context<Self>) {
        let Some(handle) = self.remove_member(member, Departure::Returned, ctx) else { return };
        self.bus.metrics().members_lost.inc();
        tracing::warn!(
            namespace = self.spec.pattern.namespace(),
            consumer = %self.spec.name,
            consumer_id = %handle.join.consumer_id,
            ack = if self.spec.manual { "manual" } else { "none" },
            "a member does not answer and loses its place; its client must come again"
        );
        must_tell(&handle.join.commands, StreamCommand::Close(EndReason::Draining));
    }

    /// Removes a member and carries out what follows for its event.
    fn remove_member(&mut self, member: Member, departure: Departure, ctx: &mut Context<Self>) -> Option<MemberHandle> {
        let steps = self.window.leave(member, departure);
        self.run_steps(steps, ctx);
        self.members.remove(&member)
    }

    /// Ends the streams of all members.
    fn close_all(&mut self, reason: EndReason) {
        for (member, handle) in std::mem::take(&mut self.members) {
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
        ctx.run_interval(SAVE_INTERVAL, |act, ctx| {
            if act.check_serving(ctx) {
                act.save_progress(ctx);
            }
        });
        self.begin(ctx);
    }
}

impl Belongs for Consumer {
    const KIND: Kind = Kind::Consumer;

    /// Called when the registry drops the handle. The consumer saves its progress, then stops.
    fn released(&mut self, ctx: &mut Context<Self>) {
        self.close_all(EndReason::Draining);
        self.member_left(ctx);
    }
}

impl Handler<Join> for Consumer {
    type Result = MessageResult<Join>;

    fn handle(&mut self, join: Join, ctx: &mut Context<Self>) -> Self::Result {
        if join.spec != self.spec {
            let text = format!("{} (in use with {})", self.spec.name, self.spec.terms());
            return MessageResult(Err(Refusal::ConsumerKind(text)));
        }
        // A consumer has one member; in a group only the same name replaces.
        let replaced =
            |handle: &MemberHandle| !self.spec.group || (join.name.is_some() && handle.join.name == join.name);
        let gone: Vec<Member> = self.members.iter().filter(|(_, handle)| replaced(handle)).map(|(id, _)| *id).collect();
        for member in gone {
            if let Some(handle) = self.remove_member(member, Departure::Gone, ctx) {
                must_tell(&handle.join.commands, StreamCommand::Close(EndReason::TakenOver));
            }
        }
        if self.spec.manual {
            self.dead_letter.clone_from(&join.policy.dead_letter);
            self.window.join(join.member, join.policy.clone());
        }
        self.members.insert(join.member, MemberHandle { join, busy: false });
        self.pump(ctx);
        MessageResult(Ok(()))
    }
}

impl Handler<Leave> for Consumer {
    type Result = ();

    fn handle(&mut self, leave: Leave, ctx: &mut Context<Self>) {
        drop(self.remove_member(leave.member, leave.departure, ctx));
        self.member_left(ctx);
    }
}

impl Handler<Finish> for Consumer {
    type Result = ();

    fn handle(&mut self, finish: Finish, _: &mut Context<Self>) {
        self.window.finish(finish.member);
    }
}

impl Handler<Members> for Consumer {
    type Result = MessageResult<Members>;

    fn handle(&mut self, _: Members, _: &mut Context<Self>) -> Self::Result {
        let flights: BTreeMap<Member, (usize, Option<u64>)> =
            self.window.in_flight().map(|(member, count, oldest)| (member, (count, oldest))).collect();
        let state = |(member, handle): (&Member, &MemberHandle)| {
            let (count, oldest) = flights.get(member).copied().unwrap_or_default();
            MemberState {
                consumer_id: handle.join.consumer_id.clone(),
                in_flight: oldest,
                in_flight_count: u32::try_from(count).unwrap_or(u32::MAX),
            }
        };
        MessageResult(self.members.iter().map(state).collect())
    }
}
