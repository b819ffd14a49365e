//! The batcher: many asks become one raft entry, or one batch for the leader.
//!
//! It takes what waits, up to 128 KiB, while at most a few batches are in flight. No
//! timer for each ask: when the disk is quick, batches are small and prompt; when it is
//! slow, they grow by themselves. One attempt at the log is up to [`super::forward`].
//!
//! Batches are handed over in their order, one behind the other, and then waited for at
//! the same time. When an attempt fails, nothing new is sent until all that were in
//! flight have an answer; then those that failed are sent again, in their order.
//!
//! An ask that nobody waits for any more, because its deadline has passed or its client
//! has gone, is not given to raft.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};
use rollbook_core::error::Refusal;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::forward::{Attempt, HandedOver, Submit};
use super::proposal::{ENTRY_BYTES_MAX, Failure, Proposal, ProposalBatch, ProposalReceiver};
use crate::lab_faults::Bug;

/// Batches on their way at the same time: one gathers while one is being synced. More would make smaller
/// entries, each of which costs a round through raft and its share of an fsync.
const IN_FLIGHT_MAX: usize = 2;
/// A smaller batch leaves only when no other is on its way: by then it has grown.
const ALONE_BELOW_BYTES: usize = 32 << 10;
/// Between attempts, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(80);
/// Attempts that fail further apart than this are not of one time without a leader.
const APART: Duration = Duration::from_secs(1);
/// How long the effect of a command may take to show on this node.
const SHOW_MAX: Duration = Duration::from_secs(2);

/// How the flight of a batch ended.
enum FlightEnd {
    /// It is in the log, and everybody has an answer.
    Done,
    /// Everybody has another answer; `given`: it may be in the log.
    Settled { given: bool },
    /// Somebody waits still.
    Back(ProposalBatch),
}

struct Flight {
    order: u64,
    task: JoinHandle<FlightEnd>,
}

/// Since when attempts have failed, and the last one that did.
#[derive(Clone, Copy)]
struct Trouble {
    since: Instant,
    last: Instant,
}

/// Gathers asks until the queue is closed.
pub(crate) async fn run<S: Submit>(submit: Arc<S>, asks: ProposalReceiver) {
    let batcher = Batcher {
        submit,
        asks,
        closed: false,
        held: None,
        next: ProposalBatch::default(),
        order: 0,
        flights: VecDeque::new(),
        handed: None,
        back: Vec::new(),
        given: 0,
        trouble: None,
        pause: PAUSE_MIN,
    };
    batcher.run().await;
}

struct Batcher<S> {
    submit: Arc<S>,
    asks: ProposalReceiver,
    /// There will be no more asks.
    closed: bool,
    /// The ask that did not fit into `next`.
    held: Option<Proposal>,
    /// What is being gathered.
    next: ProposalBatch,
    /// How many batches were gathered.
    order: u64,
    /// In their order.
    flights: VecDeque<Flight>,
    /// Resolves when the newest of them was handed over.
    handed: Option<oneshot::Receiver<()>>,
    /// Those that have to be sent again, in their order.
    back: Vec<ProposalBatch>,
    /// The newest batch that is in the log, or may be.
    given: u64,
    trouble: Option<Trouble>,
    pause: Duration,
}

impl<S: Submit> Batcher<S> {
    async fn run(mut self) {
        let mut paused = false;
        loop {
            self.fill();
            if self.back.is_empty() {
                if self.has_room() {
                    self.launch_next();
                    continue;
                }
            } else if self.flights.is_empty() && std::mem::take(&mut paused) {
                self.send_again();
                continue;
            }
            if self.closed && self.next.is_empty() && self.flights.is_empty() && self.back.is_empty() {
                return;
            }
            let waits = self.back.iter().chain([&self.next]).filter_map(|gathered| gathered.askers.deadline()).min();
            let Self { submit, asks, flights, closed, next, back, pause, .. } = &mut self;
            let landed = tokio::select! {
                ask = asks.recv(), if !*closed && next.is_empty() => {
                    *closed = ask.is_none();
                    self.held = ask;
                    None
                }
                landed = landed(flights), if !flights.is_empty() => Some(landed),
                () = until(waits) => None,
                () = submit.changed_within(*pause), if !back.is_empty() && flights.is_empty() => {
                    paused = true;
                    None
                }
            };
            if let Some((order, flown)) = landed {
                self.lands(order, flown);
            }
        }
    }

    /// Takes what waits, as far as it fits, and leaves out what was given up.
    fn fill(&mut self) {
        let now = Instant::now();
        self.back.iter_mut().for_each(|gathered| gathered.prune(now));
        let given_up = self.back.extract_if(.., |gathered| gathered.is_empty());
        let given = given_up.filter(|gathered| gathered.unknown.is_some()).map(|gathered| gathered.order).max();
        self.given = self.given.max(given.unwrap_or(0));
        self.next.prune(now);
        while self.next.bytes() < ENTRY_BYTES_MAX {
            let Some(ask) = self.held.take().or_else(|| self.asks.try_recv()) else { return };
            let bytes = self.next.bytes().saturating_add(ask.frames.len());
            if !self.next.is_empty() && bytes > ENTRY_BYTES_MAX {
                self.held = Some(ask);
                return;
            }
            self.next.push(ask, now);
        }
    }

    /// Whether the next batch may leave.
    fn has_room(&self) -> bool {
        let in_flight = self.flights.len();
        let small = self.next.bytes() < ALONE_BELOW_BYTES;
        !self.next.is_empty() && in_flight < IN_FLIGHT_MAX && (in_flight == 0 || !small)
    }

    fn launch_next(&mut self) {
        if self.flights.is_empty() && self.submit.leader().is_some() {
            self.trouble = None;
        }
        self.order = self.order.saturating_add(1);
        let gathered = std::mem::take(&mut self.next);
        self.launch(ProposalBatch { order: self.order, ..gathered });
    }

    /// Sends a batch behind all that are in flight.
    fn launch(&mut self, mut gathered: ProposalBatch) {
        let first = gathered.content.mark.is_none() && gathered.unknown.is_none();
        if (first || Bug::BatchRenumbered.is_on()) && !gathered.has_no_own() {
            gathered.content.mark = self.submit.mark(gathered.content.replies());
        }
        let (next, handed) = oneshot::channel();
        let before = self.handed.replace(handed).filter(|_| !self.flights.is_empty());
        let order = gathered.order;
        let flight = fly(Arc::clone(&self.submit), gathered, before, HandedOver::new(next));
        self.flights.push_back(Flight { order, task: tokio::spawn(flight) });
    }

    fn lands(&mut self, order: u64, flown: FlightEnd) {
        let gathered = match flown {
            FlightEnd::Done => {
                self.given = self.given.max(order);
                self.trouble = None;
                self.pause = PAUSE_MIN;
                return;
            }
            FlightEnd::Settled { given } => {
                self.given = self.given.max(if given { order } else { 0 });
                return;
            }
            FlightEnd::Back(gathered) => gathered,
        };
        let now = Instant::now();
        let since =
            self.trouble.filter(|trouble| now.duration_since(trouble.last) < APART).map(|trouble| trouble.since);
        self.trouble = Some(Trouble { since: since.unwrap_or(now), last: now });
        let at = self.back.partition_point(|other| other.order < order);
        self.back.insert(at, gathered);
    }

    /// Sends what has come back once more, as long as there is hope for a leader.
    fn send_again(&mut self) {
        self.pause = self.pause.saturating_mul(2).min(PAUSE_MAX);
        let waited = self.trouble.map_or(Duration::ZERO, |trouble| trouble.since.elapsed());
        let waits_on = Bug::WaitsForEver.is_on() || Bug::GivenUpIsWritten.is_on();
        if self.submit.is_hopeless(waited) && !waits_on {
            return self.give_up();
        }
        let back = std::mem::take(&mut self.back);
        // One that was never given to a log must not get there behind a later one that may be there.
        let unknown = back.iter().filter(|gathered| gathered.unknown.is_some()).map(|gathered| gathered.order).max();
        let given = self.given.max(unknown.unwrap_or(0));
        let mut renumbered = false;
        for mut gathered in back {
            if gathered.unknown.is_none() {
                if gathered.order < given {
                    gathered.refuse(&Refusal::Unavailable("leadership was lost".to_owned()));
                    continue;
                }
                // Numbers rise in the order of the batches: behind a new one all are new.
                renumbered |= gathered.content.mark.is_none();
                gathered.content.mark = gathered.content.mark.filter(|_| !renumbered);
            }
            self.launch(gathered);
        }
    }

    /// Refuses everything that waits: there is no leader, and the clients must not wait as long, one behind the other.
    fn give_up(&mut self) {
        let refusal = || Refusal::Unavailable("no leader".to_owned());
        for gathered in std::mem::take(&mut self.back) {
            match gathered.unknown.clone() {
                Some(why) => gathered.refuse(&Refusal::OutcomeUnknown(why.into_owned())),
                None => gathered.refuse(&refusal()),
            }
        }
        let mut next = std::mem::take(&mut self.next);
        next.dismiss_guests(&Failure::NotLeader);
        next.refuse(&refusal());
        while let Some(ask) = self.held.take().or_else(|| self.asks.try_recv()) {
            ask.refuse(refusal());
        }
    }
}

/// The first flight that has ended, and how.
async fn landed(flights: &mut VecDeque<Flight>) -> (u64, FlightEnd) {
    let (at, flown) = poll_fn(|cx| {
        for (at, flight) in flights.iter_mut().enumerate() {
            if let Poll::Ready(flown) = Pin::new(&mut flight.task).poll(cx) {
                return Poll::Ready((at, flown));
            }
        }
        Poll::Pending
    })
    .await;
    let order = flights.remove(at).map_or(0, |flight| flight.order);
    // A flight that panicked has dropped its askers, and nobody knows what became of its batch.
    (order, flown.unwrap_or(FlightEnd::Settled { given: true }))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// One attempt at a batch, behind the one before. Answers everybody whose deadline passes meanwhile.
async fn fly<S: Submit>(
    submit: Arc<S>,
    mut gathered: ProposalBatch,
    before: Option<oneshot::Receiver<()>>,
    handed: HandedOver,
) -> FlightEnd {
    if let Some(before) = before.filter(|_| !Bug::BatchesRace.is_on())
        && before.await.is_err()
    {
        return FlightEnd::Back(gathered);
    }
    if Bug::BatchesRace.is_on() && gathered.order.is_multiple_of(2) {
        // As on a machine with more cores.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let Some(leader) = submit.leader() else { return fails(gathered, &Failure::NotLeader) };
    if leader != submit.id() {
        gathered.dismiss_guests(&Failure::NotLeader);
        if gathered.has_no_own() {
            handed.pass();
            return FlightEnd::Settled { given: false };
        }
    }
    let attempt = attempt(&*submit, leader, &mut gathered, &handed).await;
    match attempt {
        // Nobody waits for it any more.
        None => {
            handed.pass();
            FlightEnd::Settled { given: handed.is_given() }
        }
        Some(Attempt::Done(carried)) => {
            handed.pass();
            if gathered.commands {
                let left = gathered.askers.deadline().map(|until| until.saturating_duration_since(Instant::now()));
                submit.shown(carried.index, left.unwrap_or_default().min(SHOW_MAX)).await;
            }
            gathered.answer(carried);
            FlightEnd::Done
        }
        Some(Attempt::Elsewhere) => fails(gathered, &Failure::NotLeader),
        Some(Attempt::Unknown(why)) => {
            if gathered.content.mark.is_none() {
                gathered.dismiss_guests(&Failure::Unknown(why.clone()));
                gathered.refuse(&Refusal::OutcomeUnknown(why.into_owned()));
                return FlightEnd::Settled { given: true };
            }
            gathered.unknown = Some(why.clone());
            fails(gathered, &Failure::Unknown(why))
        }
        Some(Attempt::Refused(refusal)) => match gathered.unknown.clone() {
            None => {
                gathered.refuse(&refusal);
                FlightEnd::Settled { given: false }
            }
            Some(_) if Bug::RefusedThoughGiven.is_on() => {
                gathered.refuse(&refusal);
                FlightEnd::Settled { given: false }
            }
            // An earlier attempt may have stored it. When there is room the rules know.
            Some(_) if matches!(refusal, Refusal::Overloaded(_) | Refusal::Unavailable(_)) => FlightEnd::Back(gathered),
            Some(why) => {
                gathered.refuse(&Refusal::OutcomeUnknown(why.into_owned()));
                FlightEnd::Settled { given: true }
            }
        },
    }
}

/// Waits for an attempt and answers everybody whose deadline passes meanwhile; `None` when nobody is left who waits.
async fn attempt<S: Submit>(
    submit: &S,
    leader: u64,
    gathered: &mut ProposalBatch,
    handed: &HandedOver,
) -> Option<Attempt> {
    let ProposalBatch { content, askers, unknown, .. } = gathered;
    let mut attempt = pin!(submit.attempt(leader, content, handed));
    loop {
        let deadline = tokio::time::sleep_until(askers.deadline()?);
        match select(attempt.as_mut(), pin!(deadline)).await {
            Either::Left((attempt, _)) => return Some(attempt),
            Either::Right(_) => {
                let given = || handed.is_given().then_some("no answer in time".into());
                askers.expire(Instant::now(), unknown.clone().or_else(given).as_ref());
            }
        }
    }
}

/// The own part is to be sent again.
fn fails(mut gathered: ProposalBatch, guests: &Failure) -> FlightEnd {
    gathered.dismiss_guests(guests);
    if gathered.has_no_own() {
        return FlightEnd::Settled { given: matches!(guests, Failure::Unknown(_)) };
    }
    FlightEnd::Back(gathered)
}

#[cfg(test)]
mod tests;
