//! A durable consumer or group with members on this node: who gets what, and how far it is.
//!
//! With acknowledgement the cursor is the ack floor: it moves when every event up to it
//! is done with. Without, it moves before the events are written, so that none is ever
//! delivered twice.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::fut;
use actix::prelude::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, ResponseActFuture, SpawnHandle,
    WrapFuture,
};
use rollbook_core::command::{Command, ConsumerAdvance};
use rollbook_core::consumer::Consumer as Known;
use rollbook_core::error::Refusal;

use super::clock;
use super::deadletter::DeadLetter;
use super::handle::Bus;
use super::item::Item;
use super::message::{
    Acknowledged, Deliver, Dismiss, Join, Leave, MemberAck, MemberState, Members, Reason, Tell, Terms,
};
use super::source::{Page, Place, Source};
use super::window::{Member, Step, Window};

/// How often a consumer with nothing to do notes how far it has looked.
const NOTE: Duration = Duration::from_secs(1);
/// How often a page that was read waits for the end of a pause.
const PAUSE_LOOK: Duration = Duration::from_millis(250);
/// Most events that one member without acknowledgement gets in one go.
const SHARE_EVENTS_MAX: usize = 64;

struct Seat {
    join: Join,
    /// Is being written to.
    busy: bool,
    /// Who this member acted as last, for dead letters.
    consumer_id: String,
}

/// The actor of one durable consumer.
pub struct Consumer {
    bus: Bus,
    terms: Terms,
    source: Option<Source>,
    place: Rc<Place>,
    seats: BTreeMap<Member, Seat>,
    window: Window,
    /// Read, but not yet given to a member; only without acknowledgement.
    shares: VecDeque<Arc<Item>>,
    /// The cursor as it is in the replicated state, as far as we know.
    floor: u64,
    /// Which life of the cursor that belongs to: a reset begins the next.
    generation: u64,
    /// The operator has stopped delivery.
    paused: bool,
    advancing: bool,
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
    pub fn new(bus: &Bus, terms: Terms, known: &Known) -> Self {
        let Known { ack_floor: floor, generation, paused, .. } = *known;
        let source = Source::new(bus, terms.pattern.clone(), floor.saturating_add(1));
        Self {
            bus: bus.clone(),
            terms,
            place: source.place(),
            source: Some(source),
            seats: BTreeMap::new(),
            window: Window::default(),
            shares: VecDeque::new(),
            floor,
            generation,
            paused,
            advancing: false,
            timer: None,
        }
    }

    /// Whether the operator has stopped delivery, as the cluster has it now.
    fn look_at_pause(&mut self, ctx: &mut Context<Self>) {
        let paused = is_paused(&self.bus, &self.terms);
        if std::mem::replace(&mut self.paused, paused) && !paused {
            self.pump(ctx);
        }
    }

    fn pump(&mut self, ctx: &mut Context<Self>) {
        if self.paused {
            return;
        }
        if self.terms.manual {
            let steps = self.window.assign(clock::now());
            self.carry_out(steps, ctx);
            self.arm_redelivery(ctx);
        } else {
            self.share_out(ctx);
        }
        let hungry = if self.terms.manual {
            self.window.wants_more()
        } else {
            self.shares.is_empty() && self.seats.values().any(|seat| !seat.busy)
        };
        if hungry && let Some(source) = self.source.take() {
            self.fetch(source, ctx);
        }
    }

    fn fetch(&mut self, mut source: Source, ctx: &mut Context<Self>) {
        let (manual, bus, terms, generation) =
            (self.terms.manual, self.bus.clone(), self.terms.clone(), self.generation);
        let fetch = async move {
            let page = source.next(None).await;
            let items = match page {
                Ok(Page::Items(items)) => items,
                Ok(Page::Bytes(_)) => Vec::new(),
                Err(error) => return (source, Err(error.to_string())),
            };
            // What was asked for before the pause waits here, not yet counted as delivered.
            while is_paused(&bus, &terms) {
                tokio::time::sleep(PAUSE_LOOK).await;
            }
            if !manual && let Some(last) = items.last() {
                // At most once: the cursor is durable before the first byte is written.
                if let Err(refusal) = advance(&bus, &terms, last.sequence(), generation).await {
                    return (source, Err(refusal.to_string()));
                }
            }
            (source, Ok(items))
        };
        ctx.spawn(fetch.into_actor(self).map(|(source, items), act, ctx| {
            act.source = Some(source);
            match items {
                Ok(items) if act.terms.manual => act.window.offer(items),
                Ok(items) => {
                    act.floor = items.last().map_or(act.floor, |last| last.sequence());
                    act.shares.extend(items);
                }
                Err(error) => {
                    tracing::error!(consumer = %act.terms.name, %error, "a consumer starts anew");
                    act.close_all(Reason::Draining);
                    ctx.stop();
                    return;
                }
            }
            act.pump(ctx);
        }));
    }

    /// Gives what was read to members that wait, a share each.
    fn share_out(&mut self, ctx: &mut Context<Self>) {
        while !self.shares.is_empty() {
            let Some((member, seat)) = self.seats.iter_mut().find(|(_, seat)| !seat.busy) else { return };
            seat.busy = true;
            let share = self.shares.drain(..self.shares.len().min(SHARE_EVENTS_MAX)).collect();
            let (member, write) = (*member, seat.join.deliver.send(Deliver { items: share }));
            ctx.spawn(write.into_actor(self).map(move |written, act, ctx| {
                if let (Some(seat), Ok(true)) = (act.seats.get_mut(&member), written) {
                    seat.busy = false;
                }
                act.pump(ctx);
            }));
        }
    }

    fn carry_out(&mut self, steps: Vec<Step>, ctx: &mut Context<Self>) {
        for step in steps {
            match step {
                Step::Send(member, item) => {
                    let Some(seat) = self.seats.get(&member) else { continue };
                    // One event at a time: its mailbox cannot be full, and a member that died leaves.
                    seat.join.deliver.try_send(Deliver { items: vec![item] }).ok();
                }
                Step::Bury(member, item, deliveries) => self.bury(member, item, deliveries, ctx),
            }
        }
    }

    fn bury(&mut self, member: Member, item: Arc<Item>, deliveries: u32, ctx: &mut Context<Self>) {
        let seat = self.seats.get(&member);
        let named = seat.and_then(|seat| seat.join.name.clone());
        let letter = DeadLetter {
            item: Arc::clone(&item),
            consumer_id: seat.map(|seat| seat.consumer_id.clone()).unwrap_or_default(),
            consumer: if self.terms.group { named } else { Some(self.terms.name.clone()) },
            group: self.terms.group.then(|| self.terms.name.clone()),
            deliveries,
        };
        let bus = self.bus.clone();
        let bury = async move { letter.store(&bus).await };
        ctx.spawn(bury.into_actor(self).map(move |(), act, ctx| {
            act.window.buried(item.sequence());
            act.note_floor(ctx);
            act.pump(ctx);
        }));
    }

    fn arm_redelivery(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let Some(deadline) = self.window.deadline() else { return };
        let wait = deadline.saturating_duration_since(clock::now());
        self.timer = Some(ctx.run_later(wait, |act, ctx| {
            act.timer = None;
            if act.paused {
                // Nothing is sent again, and nothing given up, until it goes on.
                return;
            }
            let steps = act.window.expire(clock::now());
            let again = steps.iter().filter(|step| matches!(step, Step::Send(..))).count();
            act.bus.metrics().redeliveries.inc_by(u64::try_from(again).unwrap_or_default());
            act.carry_out(steps, ctx);
            act.pump(ctx);
        }));
    }

    /// How far everything is done with now.
    fn present_floor(&mut self) -> u64 {
        let considered = self.place.considered();
        if self.terms.manual {
            self.window.floor(considered)
        } else if self.shares.is_empty() {
            considered.saturating_sub(1)
        } else {
            self.floor
        }
    }

    /// Makes the floor durable when it has moved and nobody waits for it.
    fn note_floor(&mut self, ctx: &mut Context<Self>) {
        let floor = self.present_floor();
        // In a pause a page may have been read that nobody has got.
        if floor <= self.floor || self.advancing || is_paused(&self.bus, &self.terms) {
            return;
        }
        self.advancing = true;
        let (bus, terms, generation) = (self.bus.clone(), self.terms.clone(), self.generation);
        let note = async move { advance(&bus, &terms, floor, generation).await };
        ctx.spawn(note.into_actor(self).map(move |noted, act, _| {
            act.advancing = false;
            match noted {
                Ok(()) => act.floor = act.floor.max(floor),
                Err(refusal) => tracing::debug!(consumer = %act.terms.name, %refusal, "the floor is noted later"),
            }
        }));
    }

    fn close_all(&mut self, reason: Reason) {
        for seat in self.seats.values() {
            // A member that died needs no word.
            seat.join.tell.try_send(Tell::Close(reason)).ok();
        }
        self.seats.clear();
    }
}

fn is_paused(bus: &Bus, terms: &Terms) -> bool {
    let head = bus.node().namespace(terms.pattern.namespace());
    head.and_then(|head| bus.node().consumer(&head, &terms.name)).is_some_and(|known| known.paused)
}

async fn advance(bus: &Bus, terms: &Terms, ack_floor: u64, generation: u64) -> Result<(), Refusal> {
    let namespace = terms.pattern.namespace().to_owned();
    let command = Command::ConsumerAdvance(ConsumerAdvance {
        namespace,
        name: terms.name.clone(),
        ack_floor,
        owner: Some(bus.node().owner()),
        generation,
        ..ConsumerAdvance::default()
    });
    bus.proposer().command(command).await.map(drop)
}

impl Actor for Consumer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
        ctx.run_interval(NOTE, |act, ctx| {
            act.note_floor(ctx);
            act.look_at_pause(ctx);
        });
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
        let replaced = |seat: &Seat| !self.terms.group || (join.name.is_some() && seat.join.name == join.name);
        let gone: Vec<Member> = self.seats.iter().filter(|(_, seat)| replaced(seat)).map(|(id, _)| *id).collect();
        for member in gone {
            if let Some(seat) = self.seats.remove(&member) {
                self.window.leave(member);
                seat.join.tell.try_send(Tell::Close(Reason::TakenOver)).ok();
            }
        }
        if self.terms.manual {
            self.window.join(join.member, join.patience);
        }
        let consumer_id = join.consumer_id.clone();
        self.seats.insert(join.member, Seat { join, busy: false, consumer_id });
        self.pump(ctx);
        MessageResult(Ok(()))
    }
}

impl Handler<Leave> for Consumer {
    type Result = ();

    fn handle(&mut self, leave: Leave, ctx: &mut Context<Self>) {
        self.seats.remove(&leave.member);
        self.window.leave(leave.member);
        if self.seats.is_empty() {
            // The next member starts from the durable floor.
            ctx.stop();
        } else {
            self.pump(ctx);
        }
    }
}

impl Handler<MemberAck> for Consumer {
    type Result = ResponseActFuture<Self, Result<Acknowledged, Refusal>>;

    fn handle(&mut self, ack: MemberAck, ctx: &mut Context<Self>) -> Self::Result {
        if self.window.ack(ack.member, &ack.event_id).is_none() {
            return Box::pin(fut::ready(Ok(Acknowledged::NotInFlight)));
        }
        self.bus.metrics().acks.inc();
        let floor = self.present_floor();
        self.pump(ctx);
        if floor <= self.floor {
            return Box::pin(fut::ready(Ok(Acknowledged::Yes)));
        }
        let (bus, terms, generation) = (self.bus.clone(), self.terms.clone(), self.generation);
        let durable = async move { advance(&bus, &terms, floor, generation).await };
        Box::pin(durable.into_actor(self).map(move |durable, act, _| {
            durable.map(|()| {
                act.floor = act.floor.max(floor);
                Acknowledged::Yes
            })
        }))
    }
}

impl Handler<Dismiss> for Consumer {
    type Result = ();

    fn handle(&mut self, dismiss: Dismiss, ctx: &mut Context<Self>) {
        self.close_all(dismiss.0);
        ctx.stop();
    }
}

impl Handler<Members> for Consumer {
    type Result = MessageResult<Members>;

    fn handle(&mut self, _: Members, _: &mut Context<Self>) -> Self::Result {
        let flights: BTreeMap<Member, Option<u64>> = self.window.in_flight().into_iter().collect();
        let state = |(member, seat): (&Member, &Seat)| MemberState {
            consumer_id: seat.consumer_id.clone(),
            in_flight: flights.get(member).copied().flatten(),
        };
        MessageResult(self.seats.iter().map(state).collect())
    }
}
