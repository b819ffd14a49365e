//! What the router remembers: requests in flight, the load of providers, breakers, deadlines. No I/O.

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

/// Requests that ended without an answer, so that one that comes later is known as such.
const OVER_MAX: usize = 1024;
/// So many providers are remembered before it is looked which of them have nothing any more.
const LOADS_MIN: usize = 1024;
/// So many capabilities have turns before all begin anew.
const TURNS_MAX: usize = 10_000;

struct Pending {
    flight: Flight,
    place: Assignment,
    /// The name under which the provider answers.
    id: String,
    begun: Instant,
    /// What it counts for.
    bytes: usize,
    /// Tells the node of the provider that nobody waits any more.
    abandon: Option<oneshot::Sender<()>>,
}

/// What is in flight for somebody.
#[derive(Debug, Default)]
struct Share {
    numbers: HashSet<u64>,
    bytes: usize,
}

/// A request that is given to its provider.
pub(super) struct HandOver {
    pub(super) place: Assignment,
    pub(super) id: String,
    pub(super) request: Arc<Request>,
    pub(super) payload: Payload,
    /// Its deadline is the earliest of all.
    pub(super) first: bool,
}

/// A request that ended at its provider without an answer.
struct Over {
    provider: u64,
    number: u64,
    id: String,
    /// What an answer is that comes nevertheless.
    answer: Answered,
}

/// What one provider has and had.
#[derive(Debug, Default)]
struct Load {
    in_flight: u32,
    asked: u64,
    answered: u64,
    failed: u64,
    busy: Duration,
    breakers: HashMap<String, Breaker>,
}

/// The state.
#[derive(Default)]
pub(super) struct State {
    next: u64,
    pending: HashMap<u64, Pending>,
    /// Bytes of all of them.
    bytes: usize,
    /// Those of each requester, who may leave and takes them with it.
    requesters: HashMap<Requester, Share>,
    /// How many are of HTTP callers, and their bytes: each of them is a requester of its own.
    http: (usize, usize),
    deadlines: BTreeSet<(Instant, u64)>,
    loads: HashMap<Connection, Load>,
    /// So many loads are too many.
    loads_max: usize,
    /// Requests that clients of this node have, by the name under which they answer.
    ids: HashMap<u64, HashMap<String, u64>>,
    /// Clients of this node that wait until they have no request any more.
    leaving: HashMap<u64, oneshot::Sender<()>>,
    turns: HashMap<String, u64>,
    over: VecDeque<Over>,
}

/// Why a request is given to nobody, and the request. Boxed: most requests have a provider.
pub(super) type NotBegun = Box<(Fault, Flight)>;

impl State {
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Bytes that are kept for all of them.
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

    /// Whether one more request of so many bytes may be in flight.
    fn has_room(&self, requester: Requester, bytes: usize, config: &RouterConfig) -> Result<(), Fault> {
        let fits = |(count, present): (usize, usize), part: usize| {
            // One alone always fits: the bound is on what gathers.
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
            // That node has its own bounds.
            Requester::Node(..) => true,
        };
        if own { Ok(()) } else { Err(Fault::overloaded("too much of this caller is in flight")) }
    }

    fn count(&mut self, requester: Requester, number: u64, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        let share = self.requesters.entry(requester).or_default();
        share.numbers.insert(number);
        share.bytes = share.bytes.saturating_add(bytes);
        if let Requester::Http(_) = requester {
            self.http = (self.http.0.saturating_add(1), self.http.1.saturating_add(bytes));
        }
    }

    /// Takes bytes of a request out of the counts, and the request itself when it has ended.
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

    /// Requests an instance has, and when it was asked last.
    pub(super) fn load(&self, provider: Connection) -> (u32, u64) {
        self.loads.get(&provider).map_or((0, 0), |load| (load.in_flight, load.asked))
    }

    pub(super) fn in_flight(&self, provider: Connection) -> u32 {
        self.load(provider).0
    }

    pub(super) fn permits(&self, capability: &str, provider: Connection, now: Instant) -> bool {
        let breaker = self.loads.get(&provider).and_then(|load| load.breakers.get(capability));
        breaker.is_none_or(|breaker| breaker.permits(now))
    }

    /// Takes note of a request that goes to a provider.
    pub(super) fn begin(&mut self, flight: Flight, place: Assignment, config: &RouterConfig) -> Result<u64, NotBegun> {
        let bytes = flight.bytes();
        if let Err(error) = self.has_room(flight.requester, bytes, config) {
            return Err(Box::new((error, flight)));
        }
        self.next = self.next.wrapping_add(1);
        let number = self.next;
        self.tidy_loads();
        let load = self.loads.entry(place.provider).or_default();
        load.in_flight = load.in_flight.saturating_add(1);
        load.asked = number;
        let now = clock::now();
        if let Some(breaker) = load.breakers.get_mut(&flight.request.capability) {
            breaker.pass(now);
        }
        // Two callers may use the same name at the same time; what the provider sees must be one of a kind.
        let mut id = flight.request.id.clone();
        if place.local {
            let ids = self.ids.entry(place.provider.serial).or_default();
            if id.is_empty() || ids.contains_key(&id) {
                id = format!("{id}#{number}");
            }
            ids.insert(id.clone(), number);
        }
        self.deadlines.insert((flight.request.deadline, number));
        self.count(flight.requester, number, bytes);
        self.pending.insert(number, Pending { flight, place, id, begun: now, bytes, abandon: None });
        Ok(number)
    }

    /// What is to be handed to the provider.
    pub(super) fn handed(&self, number: u64) -> Option<HandOver> {
        let Pending { flight, place, id, .. } = self.pending.get(&number)?;
        let first = self.deadlines.first().is_some_and(|(_, first)| *first == number);
        let (request, payload) = (Arc::clone(&flight.request), flight.payload.clone());
        Some(HandOver { place: *place, id: id.clone(), request, payload, first })
    }

    /// Takes note of how the node of its provider is told that nobody waits any more. Told at once when nobody does.
    pub(super) fn note_abandon(&mut self, number: u64, abandon: oneshot::Sender<()>) {
        match self.pending.get_mut(&number) {
            Some(pending) => pending.abandon = Some(abandon),
            // What has an outcome already does not listen.
            None => hint(abandon, ()),
        }
    }

    /// The provider has a request. Its payload is let go of when no other provider may get it.
    pub(super) fn took(&mut self, number: u64) {
        let Some(pending) = self.pending.get_mut(&number).filter(|pending| pending.flight.is_at_its_last()) else {
            return;
        };
        let freed = std::mem::take(&mut pending.flight.payload).len().min(pending.bytes);
        pending.bytes = pending.bytes.saturating_sub(freed);
        let requester = pending.flight.requester;
        self.discount(requester, number, freed, false);
    }

    /// Whoever waited for these requests has left: they end without an outcome.
    pub(super) fn abandon(&mut self, requester: Requester) -> Vec<Flight> {
        let numbers = self.requesters.get_mut(&requester).map(|share| std::mem::take(&mut share.numbers));
        let mut numbers: Vec<u64> = numbers.unwrap_or_default().into_iter().collect();
        numbers.sort_unstable();
        numbers.into_iter().filter_map(|number| self.abandon_one(number)).collect()
    }

    fn abandon_one(&mut self, number: u64) -> Option<Flight> {
        let pending = self.pending.remove(&number)?;
        self.deadlines.remove(&(pending.flight.request.deadline, number));
        self.discount(pending.flight.requester, number, pending.bytes, true);
        if let Some(load) = self.loads.get_mut(&pending.place.provider) {
            load.in_flight = load.in_flight.saturating_sub(1);
        }
        if let Some(abandon) = pending.abandon {
            // Its answer may just be coming.
            hint(abandon, ());
        }
        if pending.place.local {
            self.is_over(pending.place.provider.serial, number, pending.id, Answered::CallerGone);
        }
        Some(pending.flight)
    }

    /// A client of this node does not have that request any more.
    fn lets_go(&mut self, provider: u64, id: &str) {
        let Some(ids) = self.ids.get_mut(&provider) else { return };
        ids.remove(id);
        if ids.is_empty() {
            self.leaving.remove(&provider);
        }
    }

    /// Takes note of what an answer is that comes all the same.
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
                .is_some_and(|pending| pending.place.local && pending.place.provider.serial == provider)
        };
        match key {
            Key::Number(number) => Some(number).filter(asked),
            Key::Id(id) => self.ids.get(&provider).and_then(|ids| ids.get(id)).copied().filter(asked),
        }
    }

    /// What an answer is to something that this client does not have (any more).
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
        let (tell, told) = oneshot::channel();
        // Without requests the sender is dropped, which resolves it too.
        if self.held(provider) > 0 {
            self.leaving.insert(provider, tell);
        }
        told
    }

    /// Takes a request out.
    pub(super) fn end(&mut self, number: u64, failed: bool, now: Instant) -> Option<Flight> {
        let Pending { mut flight, place, id, begun, bytes, .. } = self.pending.remove(&number)?;
        self.deadlines.remove(&(flight.request.deadline, number));
        self.discount(flight.requester, number, bytes, true);
        if let Some(load) = self.loads.get_mut(&place.provider) {
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
        if place.local && (failed || one_way) {
            let answer = if one_way { Answered::NotAwaited } else { Answered::Late };
            self.is_over(place.provider.serial, number, id, answer);
        } else if place.local {
            self.lets_go(place.provider.serial, &id);
        }
        flight.tried.push(place.provider);
        Some(flight)
    }

    /// A client of this node is gone: the requests that it had.
    pub(super) fn leave(&mut self, provider: Connection) -> Vec<u64> {
        self.loads.remove(&provider);
        self.leaving.remove(&provider.serial);
        let held = self.ids.remove(&provider.serial).unwrap_or_default();
        let mut numbers: Vec<u64> = held.into_values().collect();
        // In the order in which they came.
        numbers.sort_unstable();
        numbers
    }

    /// Forgets providers that have nothing, when there are many: those of other nodes leave without a word.
    fn tidy_loads(&mut self) {
        if self.loads.len() < self.loads_max.max(LOADS_MIN) {
            return;
        }
        self.loads.retain(|_, load| load.in_flight > 0);
        self.loads_max = self.loads.len().saturating_mul(2);
    }

    /// What is over, and when the next will be.
    pub(super) fn overdue(&self, now: Instant) -> (Vec<u64>, Option<Instant>) {
        let over = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, number)| *number);
        let next = self.deadlines.iter().map(|(deadline, _)| *deadline).find(|deadline| *deadline > now);
        (over.collect(), next)
    }

    pub(super) fn all(&self) -> Vec<u64> {
        self.pending.keys().copied().collect()
    }

    /// Requests of a provider that ended with an answer, and without one.
    pub(super) fn ended(&self, provider: Connection) -> (u64, u64) {
        self.loads.get(&provider).map_or((0, 0), |load| (load.answered, load.failed))
    }

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
