//! The router: live requests from a caller to one provider, and the answers.
//!
//! The router is a shared handle, not an actor: a request takes two short locks and passes no mailbox of the router.
//! The replicated machine says which instances offer a capability. How many requests are in flight, and which instance
//! keeps failing, is what this node has seen. A provider on another node is asked over the peer link, and the router of
//! that node finds the client.
//!
//! Invariant: a request ends once, by an answer, by the loss of the provider, by its deadline, or when the requester
//! leaves. Requests in flight are bounded in number and in bytes.

use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rollbook_cluster::lock::lock;
use rollbook_cluster::node::Node;
use rollbook_core::machine::Machine;
use rollbook_core::security::right::Verb;
use rollbook_core::service::{Connection, Instance};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::choice::{Candidate, Strategy, Turn};
use super::flight::{Assignment, Flight, Reply};
use super::rejections::Rejections;
use super::state::{HandOver, NotBegun, State};
use super::types::{Answered, Key, LoadView, RemoteCaller, RemoteRequest, Requester, RouterConfig};
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::base::metrics::Metrics;
use crate::bus::client::call::{Answer, HandedPayload, Outcome, Payload, Request, Responder};
use crate::bus::client::clients::{ClientMessage, Clients};
use crate::bus::error::Fault;
use crate::bus::security::identity::Identity;

/// A payload that is larger than this is dropped as soon as its last provider has it. For a smaller one the second lock
/// would cost more than the memory.
const LETS_GO_BYTES: usize = 4096;
/// Longest sleep of the deadline watcher; a new earliest deadline wakes it.
const IDLE: Duration = Duration::from_secs(3600);

/// The shared state of all clones of [`Router`].
struct Inner {
    /// Knows the roll, and which nodes are reachable.
    node: Node,
    /// The providers of this node.
    clients: Clients,
    /// Bounds and strategies.
    config: RouterConfig,
    /// The counters.
    metrics: Metrics,
    /// Seeds the strategy `random`.
    random: RandomState,
    /// Sends requests to other nodes.
    remote_caller: Box<dyn RemoteCaller>,
    /// The requests in flight. Never held across an await.
    state: Mutex<State>,
    /// Wakes the deadline watcher when a deadline became the earliest of all.
    earlier: Notify,
    /// Number of the newest HTTP caller.
    http: AtomicU64,
}

/// A requester that may stop waiting: its requests end when this is dropped.
#[derive(Debug)]
pub struct Waiting {
    /// Where the requests are.
    router: Router,
    /// Whose requests end.
    requester: Requester,
    /// Whether all requests have an outcome, so that a drop ends nothing.
    over: bool,
}

impl Waiting {
    /// The requester.
    #[must_use]
    pub const fn requester(&self) -> Requester {
        self.requester
    }

    /// All requests have an outcome.
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

/// The router of a node. Clones share one state.
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
    /// A router of this node. [`Router::watch_deadlines`] must run for deadlines.
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

    /// A new HTTP caller, which waits as long as the result lives.
    #[must_use]
    pub fn http_caller(&self) -> Waiting {
        self.waiting(Requester::Http(self.inner.http.fetch_add(1, Ordering::Relaxed)))
    }

    /// Ends the requests of `requester` when the result is dropped.
    #[must_use]
    pub fn waiting(&self, requester: Requester) -> Waiting {
        Waiting { router: self.clone(), requester, over: false }
    }

    /// The bounds.
    #[must_use]
    pub fn config(&self) -> &RouterConfig {
        &self.inner.config
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.inner.state)
    }

    /// Asks a provider of the capability. `reply` is called once, at the latest at the deadline, or dropped when
    /// `requester` has left.
    pub fn call(
        &self,
        identity: &Identity,
        requester: Requester,
        (request, payload): (Request, Payload),
        reply: Reply,
    ) {
        let target = format!("{}:{}", request.capability, request.action);
        let may = identity.check(Verb::Call, &target).and_then(|()| identity.usage().call(clock::now()));
        if let Err(fault) = may {
            self.inner.metrics.requests.get_or_create(&[("outcome", fault.code())]).inc();
            return reply(Err(fault));
        }
        self.launch(Flight::new(requester, Arc::new(request), payload, reply));
    }

    /// Asks a client of this node, for another node.
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

    /// Chooses a provider and hands the request over, or ends the request.
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

    /// Chooses a provider and records the request.
    fn pick(&self, flight: Flight) -> Result<u64, NotBegun> {
        let state = self.state();
        // Under the lock of the state: when a provider disconnects, either its requests end with it, or it is not
        // picked.
        self.inner.node.state().with_machine(|machine| self.pick_of(machine, state, flight))
    }

    /// Chooses a provider from the replicated roll.
    fn pick_of(&self, machine: &Machine, mut state: MutexGuard<'_, State>, flight: Flight) -> Result<u64, NotBegun> {
        let strategy = self.inner.config.strategies.of(&flight.request.capability);
        let turns = matches!(strategy, Strategy::RoundRobin | Strategy::Random);
        // Only capabilities that an instance offers are counted: a caller could make up any number of names.
        let turns = turns && machine.providers(&flight.request.capability).next().is_some();
        let turn = if turns { state.turn(&flight.request.capability) } else { 0 };
        let turn = Turn { turn, key: &flight.request.key };
        let (rejections, now) = (Rejections::default(), clock::now());
        // Nothing is collected, because there may be thousands of providers.
        let candidates = || {
            let providers = machine.providers(&flight.request.capability);
            let fit = providers.filter(|instance| self.fits(&state, instance, &flight, &rejections, now));
            fit.map(|instance| (instance, self.candidate(&state, instance)))
        };
        let chosen = strategy.choose(candidates, turn, &self.inner.random);
        let Some(instance) = chosen else { return Err(Box::new((rejections.error(&flight), flight))) };
        let provider = instance.connection;
        let local = provider.owner == self.inner.node.owner();
        let number = state.begin(flight, Assignment { provider, local }, &self.inner.config)?;
        drop(state);
        Ok(number)
    }

    /// Whether an instance may be asked. The reasons against go to `rejections`.
    fn fits(&self, state: &State, instance: &Instance, flight: &Flight, rejections: &Rejections, now: Instant) -> bool {
        let (request, node) = (&flight.request, &self.inner.node);
        let offered = instance.capability(&request.capability).is_none_or(|offer| offer.offers(&request.action));
        if !offered {
            rejections.without_action.set(true);
            return false;
        }
        if Some(instance.connection) == request.from.connection {
            rejections.itself.set(true);
            return false;
        }
        let there = if instance.connection.owner == node.owner() {
            self.inner.clients.find(instance.connection.serial).is_some()
        } else {
            node.messages().reaches(instance.connection.owner.node)
        };
        if !instance.is_available() || !there || flight.tried.contains(&instance.connection) {
            rejections.unavailable.set(true);
            return false;
        }
        if !state.permits(&request.capability, instance.connection, now) {
            rejections.tripped.set(true);
            return false;
        }
        if state.in_flight(instance.connection) >= self.inner.config.in_flight_per_instance {
            rejections.full.set(true);
            return false;
        }
        true
    }

    /// An instance with its load.
    fn candidate<'i>(&self, state: &State, instance: &'i Instance) -> Candidate<'i> {
        let (in_flight, asked) = state.load(instance.connection);
        let local = instance.connection.owner == self.inner.node.owner();
        Candidate { instance: &instance.id, local, in_flight, asked }
    }

    /// Gives a recorded request to its provider.
    fn hand_over(&self, number: u64) {
        let Some(HandOver { assignment, id, request, payload, first }) = self.state().handed(number) else { return };
        if first {
            self.inner.earlier.notify_one();
        }
        if assignment.local {
            let handed = HandedPayload { id, number, request, payload };
            match self.inner.clients.find(assignment.provider.serial) {
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
        let abandon =
            self.inner.remote_caller.call(RemoteRequest { to: assignment.provider, number, request, payload }, reply);
        self.state().note_abandon(number, abandon);
    }

    /// A client answers a request.
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

    /// A client of this node has received a request. The request ends if no answer is awaited, and its payload is
    /// dropped if no other provider may get it.
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

    /// A client of this node cannot take a request, because its queue is full.
    pub fn decline(&self, provider: u64, number: u64) {
        let found = self.state().find(provider, Key::Number(number));
        if let Some(number) = found {
            self.pass_on(number, true);
        }
    }

    /// Whether a client of this node has a request and a caller waits for the answer.
    #[must_use]
    pub fn holds(&self, provider: u64, number: u64) -> bool {
        self.state().find(provider, Key::Number(number)).is_some()
    }

    /// A client of this node can never take a request, for this reason.
    pub fn refuse(&self, provider: u64, number: u64, fault: Fault) {
        let found = self.state().find(provider, Key::Number(number));
        if let Some(number) = found {
            self.finish(number, Err(fault));
        }
    }

    /// Requests of a client of this node that callers wait for.
    #[must_use]
    pub fn held(&self, provider: u64) -> usize {
        self.state().held(provider)
    }

    /// Resolves when a client of this node has no request any more, at once when it has none.
    pub fn emptied(&self, provider: u64) -> impl Future<Output = ()> + use<> {
        let emptied = self.state().emptied(provider);
        async move {
            // Nothing is sent: the sender is dropped.
            emptied.await.ok();
        }
    }

    /// Called when a client of this node has disconnected. Requests that it sent end. Requests that it had not answered
    /// are given to another provider if the caller allows retries; otherwise they fail with `ProviderLost`.
    pub fn forget(&self, serial: u64) {
        self.abandon(Requester::Client(serial));
        let connection = Connection { owner: self.inner.node.owner(), serial };
        let numbers = self.state().leave(connection);
        numbers.into_iter().for_each(|number| self.lose(number));
    }

    /// The requester has left: its requests end without an outcome. Providers on this node are not told; their answers
    /// are refused.
    pub fn abandon(&self, requester: Requester) {
        let abandoned = self.state().abandon(requester);
        if let Ok(count) = u64::try_from(abandoned.len())
            && count > 0
        {
            self.inner.metrics.requests.get_or_create(&[("outcome", "abandoned")]).inc_by(count);
        }
    }

    /// The provider has not received the request, because it is gone or its queue is full. Nothing has happened yet, so
    /// another provider may get the request without a retry being used up.
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

    /// The provider was lost while it had the request.
    fn lose(&self, number: u64) {
        let Some(mut flight) = self.state().end(number, true, clock::now()) else { return };
        flight.lost = flight.lost.saturating_add(1);
        if flight.may_retry(clock::now()) {
            self.inner.metrics.requests_retried.inc();
            return self.launch(flight);
        }
        self.end(flight, Err(Fault::provider_lost()));
    }

    /// Ends a request with an outcome.
    fn finish(&self, number: u64, outcome: Outcome) {
        let failed = matches!(&outcome, Err(fault) if [FaultKind::DeadlineExceeded, FaultKind::ProviderLost].contains(&fault.kind));
        let Some(flight) = self.state().end(number, failed, clock::now()) else { return };
        self.end(flight, outcome);
    }

    /// Counts the outcome and tells the caller.
    fn end(&self, flight: Flight, outcome: Outcome) {
        let what = match &outcome {
            Ok(Answer { success: true, .. }) => "success",
            Ok(Answer { success: false, .. }) => "failure",
            Err(error) => error.code(),
        };
        self.inner.metrics.requests.get_or_create(&[("outcome", what)]).inc();
        (flight.reply)(outcome);
    }

    /// Ends requests whose deadline has passed, until cancelled. Then all requests end.
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

    /// The load of an instance, as this node has seen it.
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

    /// The load of a client of this node.
    #[must_use]
    pub fn load_here(&self, serial: u64) -> LoadView {
        self.load_of(Connection { owner: self.inner.node.owner(), serial })
    }
}
