//! The actor of a connection of an Xbus actor: takes jobs, and shows the actor on the roll while it takes them.
//!
//! ```text
//! link     what is said to the client of the connection
//! job      one job over nrpc, from the request to its end;  end  how its end is proposed
//! letters  one job in the JSON of the specification page, by messages
//! inputs   the envelopes of a job
//! ```
//!
//! Imports `bus` and the types and the service beside this room. Invariant: a job has a guard from its start to its end,
//! and ends with this actor at the latest.

mod end;
mod inputs;
mod job;
mod letters;
pub mod link;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::prelude::{Actor, ActorFutureExt as _, AsyncContext, Context, Handler, Message};
use bytes::Bytes;
use rollbook_core::xbus::account::row::ActorRow;
use rollbook_core::xbus::id::Id;
use tokio::sync::mpsc;

use crate::base::actors::{Belongs, Kind};
use crate::base::fault::FaultKind;
use crate::bus::client::clients::ClientMessage;
use crate::bus::error::Fault;
use crate::bus::roll::actor_place::{ActorConnection, ActorPlace};
use crate::bus::roll::services::Services;
use crate::bus::security::identity::Identity;
use crate::bus::xbus::jobs::engine::Engine;
use crate::bus::xbus::jobs::workers::{Deliver, WorkerHandle};
use crate::doors::nats::settings::NAME;
use link::Link;

/// Messages of one job that wait to be read.
const STATES_MAX: usize = 64;
/// How long an actor gets no jobs that says it is too busy: the first time, and at most.
const BUSY: Duration = Duration::from_secs(1);
const BUSY_MAX: Duration = Duration::from_secs(60);

/// How the client wants its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// By nrpc, in protobuf.
    Nrpc,
    /// By messages in JSON.
    Letters,
}

/// A message of a job that the client has published.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct JobMessage {
    /// The last token of the subject, which says the job.
    pub token: String,
    /// The payload.
    pub payload: Bytes,
}

/// Whether the actor takes jobs from now on.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Ready(pub bool);

/// How the client wants its jobs from now on.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Prefers(pub Profile);

/// A job that was done resets the pauses of an actor that was too busy.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Idle;

/// What an agent is made of.
#[derive(Debug)]
pub struct Parts {
    /// Roll, router and clients.
    pub services: Services,
    /// The engine, which gives jobs.
    pub engine: Engine,
    /// The row of the actor.
    pub actor: ActorRow,
    /// Who the client is.
    pub identity: Arc<Identity>,
    /// What is said to the client.
    pub link: Link,
    /// The address of the client.
    pub address: String,
    /// Most jobs at a time.
    pub jobs_max: usize,
}

/// The actor of a connection of an Xbus actor.
#[derive(Debug)]
pub struct Agent {
    parts: Parts,
    id: Id,
    profile: Profile,
    worker: Option<WorkerHandle>,
    place: Option<ActorPlace>,
    /// Where the messages of each job go, by token.
    jobs: HashMap<String, mpsc::Sender<Bytes>>,
    /// The next pause when the actor says that it is too busy.
    pause: Duration,
}

impl Agent {
    /// The agent of an actor, which takes no jobs before [`Ready`].
    #[must_use]
    pub fn new(parts: Parts, profile: Profile) -> Self {
        let id = Id::from_slice(&parts.actor.id).unwrap_or_default();
        Self { parts, id, profile, worker: None, place: None, jobs: HashMap::new(), pause: BUSY }
    }

    fn set_ready(&mut self, ready: bool, ctx: &Context<Self>) {
        if let Some(worker) = &self.worker {
            worker.set_ready(ready);
        }
        match (ready, self.place.is_some()) {
            (true, false) => self.appear(ctx),
            (false, true) => self.place = None,
            _ => {}
        }
    }

    /// Takes a place on the roll.
    fn appear(&mut self, ctx: &Context<Self>) {
        let Parts { services, engine, actor, identity, link, address, .. } = &self.parts;
        let connection = ActorConnection {
            actor: actor.clone(),
            identity: Arc::clone(identity),
            address: address.clone(),
            door: NAME,
            tag: link.connection().to_string(),
        };
        self.place = Some(ActorPlace::take(services, engine, connection, ctx.address().recipient()));
    }
}

impl Actor for Agent {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let to = ctx.address().recipient::<Deliver>();
        self.worker = Some(self.parts.engine.workers().attach(self.id, to, self.parts.jobs_max));
    }
}

impl Belongs for Agent {
    const KIND: Kind = Kind::XbusAgent;
}

impl Handler<Deliver> for Agent {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, ctx: &mut Self::Context) {
        let (engine, link) = (self.parts.engine.clone(), self.parts.link.clone());
        if self.profile == Profile::Letters {
            let work = letters::run(engine, link, deliver);
            ctx.spawn(wrap_future(work));
            return;
        }
        let token = uuid::Uuid::new_v4().simple().to_string();
        let (states, taken) = mpsc::channel(STATES_MAX);
        self.jobs.insert(token.clone(), states);
        let account = Id::from_slice(&self.parts.actor.account).unwrap_or_default();
        let inbox = link::inbox(account, &token);
        let work = job::run(engine, link, (deliver, inbox), taken, ctx.address().recipient());
        ctx.spawn(wrap_future::<_, Self>(work).map(move |outcome, act: &mut Self, ctx| {
            act.jobs.remove(&token);
            match outcome {
                job::Outcome::Done => ctx.notify(Idle),
                job::Outcome::Leaving => ctx.notify(Ready(false)),
                job::Outcome::Busy | job::Outcome::Lost => {}
            }
        }));
    }
}

impl Handler<JobMessage> for Agent {
    type Result = ();

    fn handle(&mut self, message: JobMessage, _: &mut Self::Context) {
        let Some(states) = self.jobs.get(&message.token) else { return };
        if states.try_send(message.payload).is_err() {
            // The job has ended, or its actor says more than anybody reads: the job is given back.
            self.jobs.remove(&message.token);
        }
    }
}

impl Handler<Ready> for Agent {
    type Result = ();

    fn handle(&mut self, Ready(ready): Ready, ctx: &mut Self::Context) {
        self.set_ready(ready, ctx);
    }
}

impl Handler<Prefers> for Agent {
    type Result = ();

    fn handle(&mut self, Prefers(profile): Prefers, _: &mut Self::Context) {
        self.profile = profile;
    }
}

impl Handler<job::Busy> for Agent {
    type Result = ();

    fn handle(&mut self, _: job::Busy, ctx: &mut Self::Context) {
        let Some(worker) = self.worker.as_ref().filter(|_| self.place.is_some()) else { return };
        worker.set_ready(false);
        ctx.run_later(self.pause, |act, _| {
            if let Some(worker) = act.worker.as_ref().filter(|_| act.place.is_some()) {
                worker.set_ready(true);
            }
        });
        self.pause = self.pause.saturating_mul(2).min(BUSY_MAX);
    }
}

impl Handler<Idle> for Agent {
    type Result = ();

    fn handle(&mut self, _: Idle, _: &mut Self::Context) {
        self.pause = BUSY;
    }
}

impl Handler<ClientMessage> for Agent {
    type Result = ();

    fn handle(&mut self, message: ClientMessage, _: &mut Self::Context) {
        match message {
            ClientMessage::Request(handed) => {
                let Some(place) = &self.place else { return };
                let fault = Fault::new(FaultKind::NoAction, "an actor of Xbus takes envelopes, not requests");
                self.parts.services.router.refuse(place.serial(), handed.number, fault);
            }
            // The place is taken by another connection, or an operator took it away: no jobs come here any more.
            ClientMessage::Close(reason) => {
                tracing::info!(actor = self.parts.actor.name, ?reason, "an actor of Xbus takes no more jobs here");
                if let Some(worker) = &self.worker {
                    worker.set_ready(false);
                }
                self.place = None;
            }
            _ => {}
        }
    }
}
