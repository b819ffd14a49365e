//! What the router remembers: requests in flight, the load of providers, breakers, deadlines. No I/O.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rollbook_core::service::Connection;
use tokio::sync::oneshot;

use super::breaker::Breaker;
use super::flight::{Flight, Place};
use super::terms::{Answered, BreakerView, Config, Key, LoadView};
use crate::bus::call::{CallError, Request, Responder};
use crate::bus::clock;

/// Requests that ended without an answer, so that one that comes later is known as such.
const OVER_MAX: usize = 1024;
/// So many providers are remembered before it is looked which of them have nothing any more.
const LOADS_MIN: usize = 1024;
/// So many capabilities have turns before all begin anew.
const TURNS_MAX: usize = 10_000;

struct Pending {
    flight: Flight,
    place: Place,
    /// The name under which the provider answers.
    id: String,
    begun: Instant,
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

impl State {
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Counts how often a capability was asked for.
    pub(super) fn turn(&mut self, capability: &str) -> u64 {
        if self.turns.len() > TURNS_MAX {
            self.turns.clear();
        }
        let turn = self.turns.entry(capability.to_owned()).or_default();
        *turn = turn.wrapping_add(1);
        *turn
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
    pub(super) fn begin(&mut self, flight: Flight, place: Place, config: &Config) -> Result<u64, (CallError, Flight)> {
        if self.pending.len() >= config.in_flight_max {
            return Err((CallError::Overloaded("too many requests in flight".to_owned()), flight));
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
        self.pending.insert(number, Pending { flight, place, id, begun: now });
        Ok(number)
    }

    /// What is to be handed to the provider, and whether its deadline is the earliest of all.
    pub(super) fn handed(&self, number: u64) -> Option<(Place, String, Arc<Request>, bool)> {
        let pending = self.pending.get(&number)?;
        let first = self.deadlines.first().is_some_and(|(_, first)| *first == number);
        Some((pending.place, pending.id.clone(), Arc::clone(&pending.flight.request), first))
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
        let Pending { mut flight, place, id, begun } = self.pending.remove(&number)?;
        self.deadlines.remove(&(flight.request.deadline, number));
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
        if place.local
            && let Some(ids) = self.ids.get_mut(&place.provider.serial)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.leaving.remove(&place.provider.serial);
            }
        }
        let one_way = flight.request.responder == Responder::Nobody;
        if place.local && (failed || one_way) {
            if self.over.len() >= OVER_MAX {
                self.over.pop_front();
            }
            let answer = if one_way { Answered::NotAwaited } else { Answered::Late };
            self.over.push_back(Over { provider: place.provider.serial, number, id, answer });
        }
        flight.tried.push(place.provider);
        Some(flight)
    }

    /// A provider is gone: what it had.
    pub(super) fn leave(&mut self, provider: Connection) -> Vec<u64> {
        let numbers = self.pending.iter().filter(|(_, pending)| pending.place.provider == provider);
        let numbers = numbers.map(|(number, _)| *number).collect();
        self.loads.remove(&provider);
        self.ids.remove(&provider.serial);
        self.leaving.remove(&provider.serial);
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
