//! The tables of the router: requests in flight, the load of providers, circuit breakers and deadlines. No I/O.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rollbook_core::service::Connection;
use tokio::sync::oneshot;

use super::breaker::Breaker;
use super::flight::{Assignment, Flight};
use super::types::{Answered, BreakerView, CLIENT_SHARE, HTTP_SHARE, Key, LoadView, Requester, RouterConfig};
use crate::base::actors::hint;
use crate::base::clock;
use crate::bus::client::call::{Payload, Request, Responder};
use crate::bus::error::Fault;

/// Most requests that are remembered after they ended without an answer, to recognize a late one.
const OVER_MAX: usize = 1024;
/// Below this many providers the table of loads is not cleaned up.
const LOADS_MIN: usize = 1024;
/// Most capabilities whose turns are counted. At this number all counts start again.
const TURNS_MAX: usize = 10_000;

/// A request that a provider has.
struct Pending {
    /// The request, which goes to another provider when this one is lost.
    flight: Flight,
    /// The provider.
    assignment: Assignment,
    /// The id under which the provider answers. It differs from the id of the caller when two callers use the same one.
    id: String,
    /// When the provider got the request, for its mean time.
    begun: Instant,
    /// What the request counts for in the bounds.
    bytes: usize,
    /// Tells the node of the provider that no caller waits any more.
    abandon: Option<oneshot::Sender<()>>,
}

/// The requests of one requester.
#[derive(Debug, Default)]
struct Share {
    /// Their numbers, to end them when the requester leaves.
    numbers: HashSet<u64>,
    /// Their bytes, for the bound of one requester.
    bytes: usize,
}

/// A request as its provider gets it.
pub(super) struct HandOver {
    /// The provider.
    pub(super) assignment: Assignment,
    /// The id under which the provider answers.
    pub(super) id: String,
    /// The request.
    pub(super) request: Arc<Request>,
    /// Its payload.
    pub(super) payload: Payload,
    /// Whether its deadline is the earliest of all: the watcher must be woken.
    pub(super) first: bool,
}

/// A request that ended at its provider without an answer.
struct Over {
    /// Serial number of the provider.
    provider: u64,
    /// Number of the request.
    number: u64,
    /// The id under which the provider would answer.
    id: String,
    /// The result of an answer that comes all the same.
    answer: Answered,
}

/// The load of one provider.
#[derive(Debug, Default)]
struct Load {
    /// Requests that it has.
    in_flight: u32,
    /// Number of its newest request, for `least_in_flight`.
    asked: u64,
    /// Requests that ended with an answer.
    answered: u64,
    /// Requests that ended without one.
    failed: u64,
    /// Total time of all ended requests.
    busy: Duration,
    /// Circuit breakers, by capability. A capability without a failure has none.
    breakers: HashMap<String, Breaker>,
}

/// The tables.
#[derive(Default)]
pub(super) struct State {
    /// Number of the newest request.
    next: u64,
    /// The requests in flight, by number.
    pending: HashMap<u64, Pending>,
    /// Bytes of all of them, for the bound of the node.
    bytes: usize,
    /// The requests of each requester, which end when the requester leaves.
    requesters: HashMap<Requester, Share>,
    /// Number and bytes of the requests of all HTTP callers. Each HTTP caller is a requester of its own, but they share
    /// one bound.
    http: (usize, usize),
    /// All deadlines, the earliest first.
    deadlines: BTreeSet<(Instant, u64)>,
    /// The load of each provider.
    loads: HashMap<Connection, Load>,
    /// The number of loads at which the table is cleaned up next.
    loads_max: usize,
    /// Requests of providers of this node, by serial number and id, to find the request of an answer.
    ids: HashMap<u64, HashMap<String, u64>>,
    /// Providers of this node that wait until they have no request any more.
    leaving: HashMap<u64, oneshot::Sender<()>>,
    /// How often each capability was asked for, for `round_robin` and `random`.
    turns: HashMap<String, u64>,
    /// Requests that ended without an answer, the oldest first.
    over: VecDeque<Over>,
}

/// Why a request was given to no provider, and the request. Boxed, because most requests get one.
pub(super) type NotBegun = Box<(Fault, Flight)>;

impl State {
    /// Requests in flight.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Bytes of all requests in flight.
    #[cfg(test)]
    pub(super) const fn bytes_in_flight(&self) -> usize {
        self.bytes
    }

    /// Counts how often a capability was asked for.
    pub(super) fn turn(&mut self, capability: &str) -> u64 {
        if let Some(turn) = self.turns.get_mut(capability) {
            *turn = turn.wrapping_add(1);
            return *turn;
        }
        if self.turns.len() >= TURNS_MAX {
            self.turns.clear();
        }
        self.turns.insert(capability.to_owned(), 1);
        1
    }

    /// Checks whether one more request of this size fits into the bounds of the node and of the requester.
    fn has_room(&self, requester: Requester, bytes: usize, config: &RouterConfig) -> Result<(), Fault> {
        let fits = |(count, present): (usize, usize), part: usize| {
            // A single request always fits: the bound is on requests together.
            count == 0
                || (count < (config.in_flight_max / part).max(1)
                    && present.saturating_add(bytes) <= config.in_flight_bytes_max / part)
        };
        if !fits((self.pending.len(), self.bytes), 1) {
            return Err(Fault::overloaded("too much is in flight at this node"));
        }
        let own = match requester {
            Requester::Client(_) => {
                let held = self.requesters.get(&requester);
                fits(held.map_or((0, 0), |share| (share.numbers.len(), share.bytes)), CLIENT_SHARE)
            }
            Requester::Http(_) => fits(self.http, HTTP_SHARE),
            // The other node has its own bounds.
            Requester::Node(..) => true,
        };
        if own { Ok(()) } else { Err(Fault::overloaded("too much of this caller is in flight")) }
    }

    /// Adds a request to the counts.
    fn count(&mut self, requester: Requester, number: u64, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        let share = self.requesters.entry(requester).or_default();
        share.numbers.insert(number);
        share.bytes = share.bytes.saturating_add(bytes);
        if let Requester::Http(_) = requester {
            self.http = (self.http.0.saturating_add(1), self.http.1.saturating_add(bytes));
        }
    }

    /// Takes bytes of a request out of the counts, and the request itself when it has `ended`.
    fn discount(&mut self, requester: Requester, number: u64, bytes: usize, ended: bool) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Requester::Http(_) = requester {
            self.http = (self.http.0.saturating_sub(usize::from(ended)), self.http.1.saturating_sub(bytes));
        }
        let Some(share) = self.requesters.get_mut(&requester) else { return };
        share.bytes = share.bytes.saturating_sub(bytes);
        if ended {
            share.numbers.remove(&number);
            if share.numbers.is_empty() {
                self.requesters.remove(&requester);
            }
        }
    }

    /// Requests in flight to a provider, and the number of its newest one.
    pub(super) fn load(&self, provider: Connection) -> (u32, u64) {
        self.loads.get(&provider).map_or((0, 0), |load| (load.in_flight, load.asked))
    }

    /// Requests in flight to a provider.
    pub(super) fn in_flight(&self, provider: Connection) -> u32 {
        self.load(provider).0
    }

    /// Whether the circuit breaker lets a request through.
    pub(super) fn permits(&self, capability: &str, provider: Connection, now: Instant) -> bool {
        let breaker = self.loads.get(&provider).and_then(|load| load.breakers.get(capability));
        breaker.is_none_or(|breaker| breaker.permits(now))
    }

    /// Adds a request that goes to a provider. Returns its number.
    pub(super) fn begin(
        &mut self,
        flight: Flight,
        assignment: Assignment,
        config: &RouterConfig,
    ) -> Result<u64, NotBegun> {
        let bytes = flight.bytes();
        if let Err(error) = self.has_room(flight.requester, bytes, config) {
            return Err(Box::new((error, flight)));
        }
        self.next = self.next.wrapping_add(1);
        let number = self.next;
        self.tidy_loads();
        let load = self.loads.entry(assignment.provider).or_default();
        load.in_flight = load.in_flight.saturating_add(1);
        load.asked = number;
        let now = clock::now();
        if let Some(breaker) = load.breakers.get_mut(&flight.request.capability) {
            breaker.pass(now);
        }
        // Two callers may use the same id at the same time; the id that the provider sees must be unique.
        let mut id = flight.request.id.clone();
        if assignment.local {
            let ids = self.ids.entry(assignment.provider.serial).or_default();
            if id.is_empty() || ids.contains_key(&id) {
                id = format!("{id}#{number}");
            }
            ids.insert(id.clone(), number);
        }
        self.deadlines.insert((flight.request.deadline, number));
        self.count(flight.requester, number, bytes);
        self.pending.insert(number, Pending { flight, assignment, id, begun: now, bytes, abandon: None });
        Ok(number)
    }

    /// The request as its provider gets it.
    pub(super) fn handed(&self, number: u64) -> Option<HandOver> {
        let Pending { flight, assignment, id, .. } = self.pending.get(&number)?;
        let first = self.deadlines.first().is_some_and(|(_, first)| *first == number);
        let (request, payload) = (Arc::clone(&flight.request), flight.payload.clone());
        Some(HandOver { assignment: *assignment, id: id.clone(), request, payload, first })
    }

    /// Remembers how to tell the node of the provider that no caller waits any more. If none waits by now, that node is
    /// told at once.
    pub(super) fn note_abandon(&mut self, number: u64, abandon: oneshot::Sender<()>) {
        match self.pending.get_mut(&number) {
            Some(pending) => pending.abandon = Some(abandon),
            // The receiver of a request with an outcome ignores the hint.
            None => hint(abandon, ()),
        }
    }

    /// The provider has received a request. The payload is dropped when no other provider may get it.
    pub(super) fn took(&mut self, number: u64) {
        let Some(pending) = self.pending.get_mut(&number).filter(|pending| pending.flight.is_at_its_last()) else {
            return;
        };
        let freed = std::mem::take(&mut pending.flight.payload).len().min(pending.bytes);
        pending.bytes = pending.bytes.saturating_sub(freed);
        let requester = pending.flight.requester;
        self.discount(requester, number, freed, false);
    }

    /// The requester has left: its requests end without an outcome.
    pub(super) fn abandon(&mut self, requester: Requester) -> Vec<Flight> {
        let numbers = self.requesters.get_mut(&requester).map(|share| std::mem::take(&mut share.numbers));
        let mut numbers: Vec<u64> = numbers.unwrap_or_default().into_iter().collect();
        numbers.sort_unstable();
        numbers.into_iter().filter_map(|number| self.abandon_one(number)).collect()
    }

    /// Ends one request without an outcome.
    fn abandon_one(&mut self, number: u64) -> Option<Flight> {
        let pending = self.pending.remove(&number)?;
        self.deadlines.remove(&(pending.flight.request.deadline, number));
        self.discount(pending.flight.requester, number, pending.bytes, true);
        if let Some(load) = self.loads.get_mut(&pending.assignment.provider) {
            load.in_flight = load.in_flight.saturating_sub(1);
        }
        if let Some(abandon) = pending.abandon {
            // The answer may be on its way: nothing more than a hint.
            hint(abandon, ());
        }
        if pending.assignment.local {
            self.is_over(pending.assignment.provider.serial, number, pending.id, Answered::CallerGone);
        }
        Some(pending.flight)
    }

    /// A provider of this node does not have the request any more.
    fn lets_go(&mut self, provider: u64, id: &str) {
        let Some(ids) = self.ids.get_mut(&provider) else { return };
        ids.remove(id);
        if ids.is_empty() {
            self.leaving.remove(&provider);
        }
    }

    /// Remembers a request that ended without an answer, to recognize a late one.
    fn is_over(&mut self, provider: u64, number: u64, id: String, answer: Answered) {
        self.lets_go(provider, &id);
        if self.over.len() >= OVER_MAX {
            self.over.pop_front();
        }
        self.over.push_back(Over { provider, number, id, answer });
    }

    /// The request that a client of this node answers.
    pub(super) fn find(&self, provider: u64, key: Key<'_>) -> Option<u64> {
        let asked = |number: &u64| {
            self.pending
                .get(number)
                .is_some_and(|pending| pending.assignment.local && pending.assignment.provider.serial == provider)
        };
        match key {
            Key::Number(number) => Some(number).filter(asked),
            Key::Id(id) => self.ids.get(&provider).and_then(|ids| ids.get(id)).copied().filter(asked),
        }
    }

    /// The result of an answer to a request that the client does not have, or has no more.
    pub(super) fn answered_late(&self, provider: u64, key: Key<'_>) -> Answered {
        let is_it = |over: &&Over| match key {
            Key::Number(number) => number == over.number,
            Key::Id(id) => id == over.id,
        };
        let over = self.over.iter().filter(|over| over.provider == provider).find(is_it);
        over.map_or(Answered::Unknown, |over| over.answer)
    }

    /// How many requests a client of this node has.
    pub(super) fn held(&self, provider: u64) -> usize {
        self.ids.get(&provider).map_or(0, HashMap::len)
    }

    /// Resolves when a client of this node has no request any more, however the last one ended.
    pub(super) fn emptied(&mut self, provider: u64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        // Without requests the sender is dropped, which resolves the receiver too.
        if self.held(provider) > 0 {
            self.leaving.insert(provider, sender);
        }
        receiver
    }

    /// Removes a request and records its result for load and breaker.
    pub(super) fn end(&mut self, number: u64, failed: bool, now: Instant) -> Option<Flight> {
        let Pending { mut flight, assignment, id, begun, bytes, .. } = self.pending.remove(&number)?;
        self.deadlines.remove(&(flight.request.deadline, number));
        self.discount(flight.requester, number, bytes, true);
        if let Some(load) = self.loads.get_mut(&assignment.provider) {
            load.in_flight = load.in_flight.saturating_sub(1);
            load.busy = load.busy.saturating_add(now.saturating_duration_since(begun));
            let count = if failed { &mut load.failed } else { &mut load.answered };
            *count = count.saturating_add(1);
            let capability = &flight.request.capability;
            if let Some(breaker) = load.breakers.get_mut(capability) {
                breaker.record(failed, now);
            } else if failed {
                let mut breaker = Breaker::new(now);
                breaker.record(true, now);
                load.breakers.insert(capability.clone(), breaker);
            }
        }
        let one_way = flight.request.responder == Responder::Nobody;
        if assignment.local && (failed || one_way) {
            let answer = if one_way { Answered::NotAwaited } else { Answered::Late };
            self.is_over(assignment.provider.serial, number, id, answer);
        } else if assignment.local {
            self.lets_go(assignment.provider.serial, &id);
        }
        flight.tried.push(assignment.provider);
        Some(flight)
    }

    /// A client of this node has disconnected. Returns the numbers of the requests that it had, in their order.
    pub(super) fn leave(&mut self, provider: Connection) -> Vec<u64> {
        self.loads.remove(&provider);
        self.leaving.remove(&provider.serial);
        let held = self.ids.remove(&provider.serial).unwrap_or_default();
        let mut numbers: Vec<u64> = held.into_values().collect();
        numbers.sort_unstable();
        numbers
    }

    /// Removes providers without requests when the table has grown: clients of other nodes leave without notice.
    fn tidy_loads(&mut self) {
        if self.loads.len() < self.loads_max.max(LOADS_MIN) {
            return;
        }
        self.loads.retain(|_, load| load.in_flight > 0);
        self.loads_max = self.loads.len().saturating_mul(2);
    }

    /// The requests whose deadline has passed, and the next deadline.
    pub(super) fn overdue(&self, now: Instant) -> (Vec<u64>, Option<Instant>) {
        let over = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, number)| *number);
        let next = self.deadlines.iter().map(|(deadline, _)| *deadline).find(|deadline| *deadline > now);
        (over.collect(), next)
    }

    /// The numbers of all requests in flight.
    pub(super) fn all(&self) -> Vec<u64> {
        self.pending.keys().copied().collect()
    }

    /// Requests of a provider that ended with an answer, and without one.
    pub(super) fn ended(&self, provider: Connection) -> (u64, u64) {
        self.loads.get(&provider).map_or((0, 0), |load| (load.answered, load.failed))
    }

    /// The load of a provider, for the operator.
    pub(super) fn view(&self, provider: Connection) -> LoadView {
        let Some(load) = self.loads.get(&provider) else { return LoadView::default() };
        let view = |(capability, breaker): (&String, &Breaker)| BreakerView {
            capability: capability.clone(),
            state: breaker.name(),
            failures: breaker.failures(),
        };
        let mut breakers: Vec<BreakerView> = load.breakers.iter().map(view).collect();
        breakers.sort_by(|one, two| one.capability.cmp(&two.capability));
        LoadView { in_flight: load.in_flight, answered: load.answered, failed: load.failed, busy: load.busy, breakers }
    }
}
