//! The place where the program of one actor gets its jobs: attached to the engine while the program polls, and for a
//! grace behind the last sign of life.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::wrap_future;
use actix::prelude::{Actor, ActorContext as _, Addr, AsyncContext as _, Context, Handler, Message};
use rollbook_core::xbus::id::Id;
use tokio::sync::oneshot;

use super::settings::NAME;
use crate::base::actors::{Belongs, Kind, must_tell};
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::client::clients::ClientMessage;
use crate::bus::error::Fault;
use crate::bus::roll::actor_place::{ActorConnection, ActorPlace};
use crate::bus::roll::services::Services;
use crate::bus::xbus::jobs::engine::Engine;
use crate::bus::xbus::jobs::give_back::{come_back, give_back, is_away};
use crate::bus::xbus::jobs::workers::{Deliver, WorkerHandle};

/// How long an actor counts as connected behind the last sign of life of its program. With the minute that the cluster
/// waits for the actor of a detached job, a program may be silent for two minutes.
const GRACE: Duration = Duration::from_secs(60);
/// How often programs that have gone are noticed.
const TICK: Duration = Duration::from_secs(1);
/// Most requests that wait for jobs of one actor.
const POLLS_MAX: usize = 64;

/// A request that waits for a job.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Fault>")]
pub(super) struct Poll(pub(super) oneshot::Sender<Handover>);

/// A job that a request has got. When this is dropped before the job is detached, the sweep gives the job back.
#[derive(Debug)]
pub(super) struct Handover {
    pub(super) deliver: Deliver,
    station: Addr<Station>,
}

impl Drop for Handover {
    fn drop(&mut self) {
        must_tell(&self.station, Handed);
    }
}

/// A job that a request got is detached, or given back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Handed;

/// The program said something.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Alive;

/// What a station is made of.
pub(super) struct Parts {
    pub(super) services: Services,
    pub(super) engine: Engine,
    pub(super) connection: ActorConnection,
    /// Called when the station is not needed any more.
    pub(super) done: Arc<dyn Fn(Id) + Send + Sync>,
}

/// The station of one actor.
pub(super) struct Station {
    parts: Parts,
    id: Id,
    worker: Option<WorkerHandle>,
    place: Option<ActorPlace>,
    polls: VecDeque<oneshot::Sender<Handover>>,
    /// Jobs on their way to a program.
    handed: usize,
    last: Instant,
}

impl Station {
    pub(super) fn new(parts: Parts) -> Self {
        let id = Id::from_slice(&parts.connection.actor.id).unwrap_or_default();
        Self { parts, id, worker: None, place: None, polls: VecDeque::new(), handed: 0, last: clock::now() }
    }

    /// Takes as many jobs as requests wait.
    fn fit(&self) {
        if let Some(worker) = &self.worker {
            worker.set_jobs_max(self.polls.len().saturating_add(self.handed));
            worker.set_ready(!self.polls.is_empty());
        }
    }

    fn tick(&mut self) {
        let before = self.polls.len();
        self.polls.retain(|poll| !poll.is_closed());
        if !self.polls.is_empty() {
            self.last = clock::now();
        }
        if self.polls.len() != before {
            self.fit();
        }
        let silent = clock::now().saturating_duration_since(self.last);
        if self.polls.is_empty() && self.handed == 0 && silent >= GRACE {
            (self.parts.done)(self.id);
        }
    }

    /// Detached jobs go on of which the cluster thinks that their actor is away.
    fn revive(&self) {
        let (engine, id) = (self.parts.engine.clone(), self.id);
        if is_away(&engine, id) {
            actix_web::rt::spawn(async move { come_back(&engine, id).await });
        }
    }
}

impl Actor for Station {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Parts { services, engine, connection, .. } = &self.parts;
        self.worker = Some(engine.workers().attach(self.id, ctx.address().recipient(), 0));
        self.place = Some(ActorPlace::take(services, engine, connection.clone(), ctx.address().recipient()));
        ctx.run_interval(TICK, |act, _| act.tick());
    }
}

impl Belongs for Station {
    const KIND: Kind = Kind::XbusStation;
}

impl Handler<Poll> for Station {
    type Result = Result<(), Fault>;

    fn handle(&mut self, Poll(poll): Poll, _: &mut Self::Context) -> Self::Result {
        self.polls.retain(|poll| !poll.is_closed());
        if self.polls.len() >= POLLS_MAX {
            return Err(Fault::overloaded(format!("{POLLS_MAX} requests wait for jobs of this actor already")));
        }
        self.last = clock::now();
        self.polls.push_back(poll);
        self.fit();
        self.revive();
        Ok(())
    }
}

impl Handler<Deliver> for Station {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, ctx: &mut Self::Context) {
        let mut handover = Handover { deliver, station: ctx.address() };
        self.handed = self.handed.saturating_add(1);
        // The newest request first: an older one may be that of a program that has gone, which shows only when the
        // answer is written.
        while let Some(poll) = self.polls.pop_back() {
            match poll.send(handover) {
                Ok(()) => return self.fit(),
                Err(back) => handover = back,
            }
        }
        // The program has gone meanwhile.
        let (engine, process, actor) = (self.parts.engine.clone(), handover.deliver.process, self.id);
        ctx.spawn(wrap_future(async move {
            give_back(&engine, process, actor).await;
            drop(handover);
        }));
        self.fit();
    }
}

impl Handler<Handed> for Station {
    type Result = ();

    fn handle(&mut self, _: Handed, _: &mut Self::Context) {
        self.handed = self.handed.saturating_sub(1);
        self.last = clock::now();
        self.fit();
    }
}

impl Handler<Alive> for Station {
    type Result = ();

    fn handle(&mut self, _: Alive, _: &mut Self::Context) {
        self.last = clock::now();
        self.revive();
    }
}

impl Handler<ClientMessage> for Station {
    type Result = ();

    fn handle(&mut self, message: ClientMessage, ctx: &mut Self::Context) {
        match message {
            ClientMessage::Request(handed) => {
                let Some(place) = &self.place else { return };
                let fault = Fault::new(FaultKind::NoAction, "an actor of Xbus takes envelopes, not requests");
                self.parts.services.router.refuse(place.serial(), handed.number, fault);
            }
            // The place is taken away, or the node stops: requests that wait are answered that there is no job.
            ClientMessage::Close(reason) => {
                tracing::debug!(actor = self.parts.connection.actor.name, ?reason, door = NAME, "a station closes");
                self.polls.clear();
                (self.parts.done)(self.id);
                ctx.stop();
            }
            _ => {}
        }
    }
}
