//! The router: live requests from a caller to one provider and back.
//!
//! A shared handle, not an actor: a request touches one mutex twice and no mailbox of its own. Who offers
//! what is asked of the replicated machine; how much is in flight, and which instance keeps failing, is what
//! this node has seen. A provider on another node is asked over the peer link; the router there knows which of
//! its clients it is. Everything ends once: by an answer, by the loss of the provider, by its deadline, or when
//! whoever asked has left. What is kept for requests in flight is bounded in number and in bytes.

use std::cell::Cell;
use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rollbook_cluster::lock::lock;
use rollbook_cluster::node::Node;
use rollbook_core::machine::Machine;
use rollbook_core::service::{Connection, Instance};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::choice::{Candidate, Strategy, Turn};
use super::flight::{Assignment, Flight, Reply};
use super::state::{HandOver, NotBegun, State};
use super::types::{Answered, Key, LoadView, RemoteCaller, Requester, RouterConfig, Sent};
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::base::metrics::Metrics;
use crate::bus::client::call::{Answer, HandedPayload, Outcome, Payload, Request, Responder};
use crate::bus::client::clients::{ClientMessage, Clients};
use crate::bus::error::Fault;

/// A payload that is larger than this is let go of as soon as its last provider has it; for a smaller one that would
/// cost more than it frees.
const LETS_GO_BYTES: usize = 4096;
/// How long the wait for deadlines may be; one that comes earlier wakes it.
const IDLE: Duration = Duration::from_secs(3600);

struct Inner {
    node: Node,
    clients: Clients,
    config: RouterConfig,
    metrics: Metrics,
    random: RandomState,
    remote_caller: Box<dyn RemoteCaller>,
    state: Mutex<State>,
    /// A deadline came that is earlier than all others.
    earlier: Notify,
    /// The last number of an HTTP caller.
    http: AtomicU64,
}

/// The requests of somebody who may stop waiting for them: they end when this is dropped.
#[derive(Debug)]
pub struct Waiting {
    router: Router,
    requester: Requester,
    over: bool,
}

impl Waiting {
    /// For whom they are.
    #[must_use]
    pub const fn requester(&self) -> Requester {
        self.requester
    }

    /// All of them have an outcome.
    pub fn done(mut self) {
        self.over = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.over {
            self.router.abandon(self.requester);
        }
    }
}

/// The router. Clones share it.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").finish_non_exhaustive()
    }
}

impl Router {
    /// A router of this node; [`Router::watch_deadlines`] ends what takes too long.
    #[must_use]
    pub fn new(
        node: Node,
        clients: Clients,
        config: RouterConfig,
        metrics: Metrics,
        remote_caller: Box<dyn RemoteCaller>,
    ) -> Self {
        let inner = Inner {
            node,
            clients,
            config,
            metrics,
            random: RandomState::new(),
            remote_caller,
            state: Mutex::default(),
            earlier: Notify::new(),
            http: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Somebody asks over HTTP, and waits as long as the result lives.
    #[must_use]
    pub fn http_caller(&self) -> Waiting {
        self.waiting(Requester::Http(self.inner.http.fetch_add(1, Ordering::Relaxed)))
    }

    /// The requests of `requester` end when the result is dropped.
    #[must_use]
    pub fn waiting(&self, requester: Requester) -> Waiting {
        Waiting { router: self.clone(), requester, over: false }
    }

    /// How long requests may take.
    #[must_use]
    pub fn config(&self) -> &RouterConfig {
        &self.inner.config
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.inner.state)
    }

    /// Asks a provider of the request's capability. `reply` is called once, at the latest at the deadline, or dropped
    /// when `requester` has left.
    pub fn call(&self, requester: Requester, request: Request, payload: Payload, reply: Reply) {
        self.launch(Flight::new(requester, Arc::new(request), payload, reply));
    }

    /// Asks that client of this node, for another node.
    pub fn call_here(&self, to: Connection, requester: Requester, request: Request, payload: Payload, reply: Reply) {
        let flight = Flight::chosen(requester, Arc::new(request), payload, reply);
        let local = to.owner == self.inner.node.owner();
        let begun = match self.inner.clients.find(to.serial).filter(|_| local) {
            Some(_) => self.state().begin(flight, Assignment { provider: to, local: true }, &self.inner.config),
            None => Err(Box::new((Fault::new(FaultKind::NoProvider, "the provider is gone"), flight))),
        };
        match begun {
            Ok(number) => self.hand_over(number),
            Err(not_begun) => {
                let (error, flight) = *not_begun;
                self.end(flight, Err(error));
            }
        }
    }

    fn launch(&self, flight: Flight) {
        let picked = self.pick(flight);
        match picked {
            Ok(number) => self.hand_over(number),
            Err(not_begun) => {
                let (error, flight) = *not_begun;
                self.end(flight, Err(error));
            }
        }
    }

    /// Chooses a provider and takes note of it.
    fn pick(&self, flight: Flight) -> Result<u64, NotBegun> {
        let state = self.state();
        // Behind the lock: whoever ends the requests of a provider that is gone finds this one, or it is not picked.
        self.inner.node.state().with_machine(|machine| self.pick_of(machine, state, flight))
    }

    fn pick_of(&self, machine: &Machine, mut state: MutexGuard<'_, State>, flight: Flight) -> Result<u64, NotBegun> {
        let strategy = self.inner.config.strategies.of(&flight.request.capability);
        let turns = matches!(strategy, Strategy::RoundRobin | Strategy::Random);
        // Only of what somebody offers: names that a caller makes up are not remembered.
        let turns = turns && machine.providers(&flight.request.capability).next().is_some();
        let turn = if turns { state.turn(&flight.request.capability) } else { 0 };
        let turn = Turn { turn, key: &flight.request.key };
        let (seen, now) = (Seen::default(), clock::now());
        // Nothing is collected: there may be many thousands.
        let candidates = || {
            let providers = machine.providers(&flight.request.capability);
            let fit = providers.filter(|instance| self.fits(&state, instance, &flight, &seen, now));
            fit.map(|instance| (instance, self.candidate(&state, instance)))
        };
        let chosen = strategy.choose(candidates, turn, &self.inner.random);
        let Some(instance) = chosen else { return Err(Box::new((seen.error(&flight), flight))) };
        let provider = instance.connection;
        let local = provider.owner == self.inner.node.owner();
        let number = state.begin(flight, Assignment { provider, local }, &self.inner.config)?;
        drop(state);
        Ok(number)
    }

    /// Whether an instance may be asked, or why not.
    fn fits(&self, state: &State, instance: &Instance, flight: &Flight, seen: &Seen, now: Instant) -> bool {
        let (request, node) = (&flight.request, &self.inner.node);
        let offered = instance.capability(&request.capability).is_none_or(|offer| offer.offers(&request.action));
        if !offered {
            seen.without_action.set(true);
            return false;
        }
        if Some(instance.connection) == request.from.connection {
            seen.itself.set(true);
            return false;
        }
        let there = if instance.connection.owner == node.owner() {
            self.inner.clients.find(instance.connection.serial).is_some()
        } else {
            node.messages().reaches(instance.connection.owner.node)
        };
        if !instance.is_available() || !there || flight.tried.contains(&instance.connection) {
            seen.unavailable.set(true);
            return false;
        }
        if !state.permits(&request.capability, instance.connection, now) {
            seen.tripped.set(true);
            return false;
        }
        if state.in_flight(instance.connection) >= self.inner.config.in_flight_per_instance {
            seen.full.set(true);
            return false;
        }
        true
    }

    fn candidate<'i>(&self, state: &State, instance: &'i Instance) -> Candidate<'i> {
        let (in_flight, asked) = state.load(instance.connection);
        let local = instance.connection.owner == self.inner.node.owner();
        Candidate { instance: &instance.id, local, in_flight, asked }
    }

    /// Gives a request that was noted to its provider.
    fn hand_over(&self, number: u64) {
        let Some(HandOver { place, id, request, payload, first }) = self.state().handed(number) else { return };
        if first {
            self.inner.earlier.notify_one();
        }
        if place.local {
            let handed = HandedPayload { id, number, request, payload };
            match self.inner.clients.find(place.provider.serial) {
                Some(client) if client.tell(ClientMessage::Request(handed)) => {}
                client => self.pass_on(number, client.is_some()),
            }
            return;
        }
        let router = self.clone();
        let reply = Box::new(move |outcome| match outcome {
            Err(Fault { kind: FaultKind::ProviderLost | FaultKind::Unavailable, .. }) => router.lose(number),
            Err(Fault { kind: FaultKind::NoProvider | FaultKind::NoAction | FaultKind::NoCapability, .. }) => {
                router.pass_on(number, false);
            }
            Err(Fault { kind: FaultKind::Overloaded, .. }) => router.pass_on(number, true),
            outcome => router.finish(number, outcome),
        });
        let abandon = self.inner.remote_caller.call(Sent { to: place.provider, number, request, payload }, reply);
        self.state().note_abandon(number, abandon);
    }

    /// A client answers what it was asked.
    pub fn answer(&self, provider: u64, key: Key<'_>, answer: Answer) -> Answered {
        let found = {
            let state = self.state();
            state.find(provider, key).ok_or_else(|| state.answered_late(provider, key))
        };
        let answered = match found {
            Ok(number) => {
                self.finish(number, Ok(answer));
                Answered::Yes
            }
            Err(answered) => answered,
        };
        if answered == Answered::Late {
            self.inner.metrics.answers_late.inc();
        }
        answered
    }

    /// A client of this node has got this request: it is over if nobody waits for an answer, and its payload is needed
    /// no more if no other provider may get it.
    pub fn taken(&self, provider: u64, handed: &HandedPayload) {
        if handed.request.responder != Responder::Nobody {
            if handed.payload.len() > LETS_GO_BYTES {
                self.state().took(handed.number);
            }
            return;
        }
        let found = self.state().find(provider, Key::Number(handed.number));
        if let Some(number) = found {
            self.finish(number, Ok(Answer { success: true, body: Payload::default() }));
        }
    }

    /// A client of this node cannot be given the request of that number: nothing more fits into its queue.
    pub fn decline(&self, provider: u64, number: u64) {
        let found = self.state().find(provider, Key::Number(number));
        if let Some(number) = found {
            self.pass_on(number, true);
        }
    }

    /// Whether a client of this node has the request of that number and somebody waits for its answer.
    #[must_use]
    pub fn holds(&self, provider: u64, number: u64) -> bool {
        self.state().find(provider, Key::Number(number)).is_some()
    }

    /// A client of this node can never be given the request of that number, for this reason.
    pub fn refuse(&self, provider: u64, number: u64, fault: Fault) {
        let found = self.state().find(provider, Key::Number(number));
        if let Some(number) = found {
            self.finish(number, Err(fault));
        }
    }

    /// Requests that a client of this node has and that somebody waits for.
    #[must_use]
    pub fn held(&self, provider: u64) -> usize {
        self.state().held(provider)
    }

    /// Resolves when a client of this node has no request any more, at once when it has none.
    pub fn emptied(&self, provider: u64) -> impl Future<Output = ()> + use<> {
        let told = self.state().emptied(provider);
        async move {
            // The sender says nothing: it is dropped.
            told.await.ok();
        }
    }

    /// A client of this node is gone. What it asked for ends; what it was asked is given to another provider if its
    /// caller allows that, and fails otherwise.
    pub fn forget(&self, serial: u64) {
        self.abandon(Requester::Client(serial));
        let connection = Connection { owner: self.inner.node.owner(), serial };
        let numbers = self.state().leave(connection);
        numbers.into_iter().for_each(|number| self.lose(number));
    }

    /// Whoever waited for these requests has left: they end without an outcome. Their providers are not told; what they
    /// answer is refused.
    pub fn abandon(&self, requester: Requester) {
        let abandoned = self.state().abandon(requester);
        if let Ok(count) = u64::try_from(abandoned.len())
            && count > 0
        {
            self.inner.metrics.requests.get_or_create(&[("outcome", "abandoned")]).inc_by(count);
        }
    }

    /// The provider of a request has not got it: it is gone, or full. Nothing has happened yet, so another one may
    /// have it, whatever the caller says of retries.
    fn pass_on(&self, number: u64, full: bool) {
        let Some(mut flight) = self.state().end(number, true, clock::now()) else { return };
        flight.full |= full;
        if flight.may_go_on(clock::now()) {
            return self.launch(flight);
        }
        let error = match full {
            true => Fault::overloaded("the provider takes nothing more"),
            false => Fault::new(FaultKind::NoProvider, "the provider is gone"),
        };
        self.end(flight, Err(error));
    }

    /// The provider of a request was lost.
    fn lose(&self, number: u64) {
        let Some(mut flight) = self.state().end(number, true, clock::now()) else { return };
        flight.lost = flight.lost.saturating_add(1);
        if flight.may_retry(clock::now()) {
            self.inner.metrics.requests_retried.inc();
            return self.launch(flight);
        }
        self.end(flight, Err(Fault::provider_lost()));
    }

    fn finish(&self, number: u64, outcome: Outcome) {
        let failed = matches!(&outcome, Err(fault) if [FaultKind::DeadlineExceeded, FaultKind::ProviderLost].contains(&fault.kind));
        let Some(flight) = self.state().end(number, failed, clock::now()) else { return };
        self.end(flight, outcome);
    }

    fn end(&self, flight: Flight, outcome: Outcome) {
        let what = match &outcome {
            Ok(Answer { success: true, .. }) => "success",
            Ok(Answer { success: false, .. }) => "failure",
            Err(error) => error.code(),
        };
        self.inner.metrics.requests.get_or_create(&[("outcome", what)]).inc();
        (flight.reply)(outcome);
    }

    /// Ends requests whose time is over, until cancelled.
    pub async fn watch_deadlines(self, stop: CancellationToken) {
        loop {
            let now = clock::now();
            let (over, next) = self.state().overdue(now);
            over.into_iter().for_each(|number| self.finish(number, Err(Fault::deadline_exceeded())));
            let pause = next.map_or(IDLE, |next| next.saturating_duration_since(clock::now()));
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.inner.earlier.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        let all = self.state().all();
        all.into_iter().for_each(|number| self.finish(number, Err(Fault::cancelled())));
    }

    /// Requests in flight at this node.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.state().len()
    }

    /// What this node knows of the load of an instance.
    #[must_use]
    pub fn load_of(&self, provider: Connection) -> LoadView {
        self.state().view(provider)
    }

    /// Requests of these clients of this node that ended with an answer, and without one, all together.
    #[must_use]
    pub fn ended_here(&self, serials: impl Iterator<Item = u64>) -> (u64, u64) {
        let (owner, state) = (self.inner.node.owner(), self.state());
        serials.fold((0, 0), |(answered, failed): (u64, u64), serial| {
            let (more, lost) = state.ended(Connection { owner, serial });
            (answered.saturating_add(more), failed.saturating_add(lost))
        })
    }

    /// The same of a client of this node.
    #[must_use]
    pub fn load_here(&self, serial: u64) -> LoadView {
        self.load_of(Connection { owner: self.inner.node.owner(), serial })
    }
}

/// Why nobody fits.
#[derive(Default)]
struct Seen {
    without_action: Cell<bool>,
    itself: Cell<bool>,
    unavailable: Cell<bool>,
    tripped: Cell<bool>,
    full: Cell<bool>,
}

impl Seen {
    fn error(&self, flight: &Flight) -> Fault {
        let Request { capability, action, .. } = &*flight.request;
        if self.full.get() || (self.unavailable.get() && flight.full) {
            return Fault::overloaded(format!("all providers of {capability} have too many requests"));
        }
        if self.tripped.get() {
            let text = format!("all providers of \"{capability}\" keep failing; try again later");
            return Fault::new(FaultKind::NoProvider, text);
        }
        if self.unavailable.get() {
            let text = format!("no provider of \"{capability}\" is available now");
            return Fault::new(FaultKind::NoProvider, text);
        }
        if self.itself.get() {
            return Fault::bad(format!("the caller is the only provider of \"{capability}\""));
        }
        if self.without_action.get() {
            return Fault::new(FaultKind::NoAction, format!("no provider of \"{capability}\" offers \"{action}\""));
        }
        Fault::new(FaultKind::NoCapability, format!("nobody offers \"{capability}\""))
    }
}
