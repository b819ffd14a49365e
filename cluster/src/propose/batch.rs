//! The batcher: many proposals become one raft entry, or one batch for the leader.
//!
//! The batcher takes the proposals that wait, up to 128 KiB, while at most a few batches are in flight. No proposal has
//! a timer: when the disk is quick, batches are small and leave at once; when the disk is slow, batches grow. One
//! attempt to get a batch into the log is made by [`super::forward`].
//!
//! Batches are handed over one behind the other, in their order, and then waited for at the same time. When an attempt
//! fails, no new batch is sent until all batches in flight have an answer; then the failed ones are sent again, in
//! their order.
//!
//! A proposal whose deadline has passed, or whose client has gone, is not given to raft.

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

/// Batches on their way at the same time: one grows while one is being synced. More would make smaller
/// entries, each of which costs a round through raft and its share of an fsync.
const IN_FLIGHT_MAX: usize = 2;
/// A smaller batch leaves only when no other batch is on its way; until then the batch grows.
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
    /// The batch is in the log, and all proposers have their answer.
    Done,
    /// All proposers have another answer; `given`: the batch may be in the log.
    Settled { given: bool },
    /// Some proposer still waits: the batch has to be sent again.
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

/// Makes batches of proposals until the queue is closed.
pub(crate) async fn run<S: Submit>(submit: Arc<S>, proposals: ProposalReceiver) {
    let batcher = Batcher {
        submit,
        proposals,
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
    proposals: ProposalReceiver,
    /// The queue is closed: there will be no more proposals.
    closed: bool,
    /// The proposal that did not fit into `next`.
    held: Option<Proposal>,
    /// The batch that is filled at present.
    next: ProposalBatch,
    /// How many batches were made.
    order: u64,
    /// The batches in flight, in their order.
    flights: VecDeque<Flight>,
    /// Resolves when the newest batch in flight was handed over.
    handed: Option<oneshot::Receiver<()>>,
    /// The batches that have to be sent again, in their order.
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
            let waits = self.back.iter().chain([&self.next]).filter_map(|batch| batch.proposers.deadline()).min();
            let Self { submit, proposals, flights, closed, next, back, pause, .. } = &mut self;
            let landed = tokio::select! {
                proposal = proposals.recv(), if !*closed && next.is_empty() => {
                    *closed = proposal.is_none();
                    self.held = proposal;
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

    /// Fills the next batch from the queue, and takes out the proposals whose proposers have given up.
    fn fill(&mut self) {
        let now = Instant::now();
        self.back.iter_mut().for_each(|batch| batch.prune(now));
        let given_up = self.back.extract_if(.., |batch| batch.is_empty());
        let given = given_up.filter(|batch| batch.unknown.is_some()).map(|batch| batch.order).max();
        self.given = self.given.max(given.unwrap_or(0));
        self.next.prune(now);
        while self.next.bytes() < ENTRY_BYTES_MAX {
            let Some(proposal) = self.held.take().or_else(|| self.proposals.try_recv()) else { return };
            let bytes = self.next.bytes().saturating_add(proposal.frames.len());
            if !self.next.is_empty() && bytes > ENTRY_BYTES_MAX {
                self.held = Some(proposal);
                return;
            }
            self.next.push(proposal, now);
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
        let batch = std::mem::take(&mut self.next);
        self.launch(ProposalBatch { order: self.order, ..batch });
    }

    /// Sends a batch behind all batches in flight.
    fn launch(&mut self, mut batch: ProposalBatch) {
        let first = batch.content.mark.is_none() && batch.unknown.is_none();
        if (first || Bug::BatchRenumbered.is_on()) && !batch.has_no_own() {
            batch.content.mark = self.submit.mark(batch.content.replies());
        }
        let (next, handed) = oneshot::channel();
        let before = self.handed.replace(handed).filter(|_| !self.flights.is_empty());
        let order = batch.order;
        let flight = fly(Arc::clone(&self.submit), batch, before, HandedOver::new(next));
        self.flights.push_back(Flight { order, task: tokio::spawn(flight) });
    }

    fn lands(&mut self, order: u64, flown: FlightEnd) {
        let batch = match flown {
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
            FlightEnd::Back(batch) => batch,
        };
        let now = Instant::now();
        let since =
            self.trouble.filter(|trouble| now.duration_since(trouble.last) < APART).map(|trouble| trouble.since);
        self.trouble = Some(Trouble { since: since.unwrap_or(now), last: now });
        let at = self.back.partition_point(|other| other.order < order);
        self.back.insert(at, batch);
    }

    /// Sends the failed batches once more, as long as a leader may be found.
    fn send_again(&mut self) {
        self.pause = self.pause.saturating_mul(2).min(PAUSE_MAX);
        let waited = self.trouble.map_or(Duration::ZERO, |trouble| trouble.since.elapsed());
        let waits_on = Bug::WaitsForEver.is_on() || Bug::GivenUpIsWritten.is_on();
        if self.submit.is_hopeless(waited) && !waits_on {
            return self.give_up();
        }
        let back = std::mem::take(&mut self.back);
        // A batch that was never given to a log must not get there behind a later batch that may be there.
        let unknown = back.iter().filter(|batch| batch.unknown.is_some()).map(|batch| batch.order).max();
        let given = self.given.max(unknown.unwrap_or(0));
        let mut renumbered = false;
        for mut batch in back {
            if batch.unknown.is_none() {
                if batch.order < given {
                    batch.refuse(&Refusal::Unavailable("leadership was lost".to_owned()));
                    continue;
                }
                // Numbers rise in the order of the batches: behind a new one all are new.
                renumbered |= batch.content.mark.is_none();
                batch.content.mark = batch.content.mark.filter(|_| !renumbered);
            }
            self.launch(batch);
        }
    }

    /// Refuses all that wait: there is no leader, and clients must not wait for the same timeout one behind the other.
    fn give_up(&mut self) {
        let refusal = || Refusal::Unavailable("no leader".to_owned());
        for batch in std::mem::take(&mut self.back) {
            match batch.unknown.clone() {
                Some(why) => batch.refuse(&Refusal::OutcomeUnknown(why.into_owned())),
                None => batch.refuse(&refusal()),
            }
        }
        let mut next = std::mem::take(&mut self.next);
        next.fail_forwarded(&Failure::NotLeader);
        next.refuse(&refusal());
        while let Some(proposal) = self.held.take().or_else(|| self.proposals.try_recv()) {
            proposal.refuse(refusal());
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
    // A flight that panicked has dropped its proposers, and the outcome of its batch is not known.
    (order, flown.unwrap_or(FlightEnd::Settled { given: true }))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// One attempt at a batch, behind the batch before. Answers the proposers whose deadline passes meanwhile.
async fn fly<S: Submit>(
    submit: Arc<S>,
    mut batch: ProposalBatch,
    before: Option<oneshot::Receiver<()>>,
    handed: HandedOver,
) -> FlightEnd {
    if let Some(before) = before.filter(|_| !Bug::BatchesRace.is_on())
        && before.await.is_err()
    {
        return FlightEnd::Back(batch);
    }
    if Bug::BatchesRace.is_on() && batch.order.is_multiple_of(2) {
        // As on a machine with more cores.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let Some(leader) = submit.leader() else { return fails(batch, &Failure::NotLeader) };
    if leader != submit.id() {
        batch.fail_forwarded(&Failure::NotLeader);
        if batch.has_no_own() {
            handed.pass();
            return FlightEnd::Settled { given: false };
        }
    }
    let attempt = attempt(&*submit, leader, &mut batch, &handed).await;
    match attempt {
        // No proposer waits any more.
        None => {
            handed.pass();
            FlightEnd::Settled { given: handed.is_given() }
        }
        Some(Attempt::Done(committed)) => {
            handed.pass();
            if batch.commands {
                let left = batch.proposers.deadline().map(|until| until.saturating_duration_since(Instant::now()));
                submit.shown(committed.index, left.unwrap_or_default().min(SHOW_MAX)).await;
            }
            batch.answer(committed);
            FlightEnd::Done
        }
        Some(Attempt::NotLeader) => fails(batch, &Failure::NotLeader),
        Some(Attempt::Unknown(why)) => {
            if batch.content.mark.is_none() {
                batch.fail_forwarded(&Failure::Unknown(why.clone()));
                batch.refuse(&Refusal::OutcomeUnknown(why.into_owned()));
                return FlightEnd::Settled { given: true };
            }
            batch.unknown = Some(why.clone());
            fails(batch, &Failure::Unknown(why))
        }
        Some(Attempt::Refused(refusal)) => match batch.unknown.clone() {
            None => {
                batch.refuse(&refusal);
                FlightEnd::Settled { given: false }
            }
            Some(_) if Bug::RefusedThoughGiven.is_on() => {
                batch.refuse(&refusal);
                FlightEnd::Settled { given: false }
            }
            // An earlier attempt may have stored the batch. When there is room the rules know.
            Some(_) if matches!(refusal, Refusal::Overloaded(_) | Refusal::Unavailable(_)) => FlightEnd::Back(batch),
            Some(why) => {
                batch.refuse(&Refusal::OutcomeUnknown(why.into_owned()));
                FlightEnd::Settled { given: true }
            }
        },
    }
}

/// Waits for an attempt and answers the proposers whose deadline passes meanwhile; `None` when none of them waits.
async fn attempt<S: Submit>(
    submit: &S,
    leader: u64,
    batch: &mut ProposalBatch,
    handed: &HandedOver,
) -> Option<Attempt> {
    let ProposalBatch { content, proposers, unknown, .. } = batch;
    let mut attempt = pin!(submit.attempt(leader, content, handed));
    loop {
        let deadline = tokio::time::sleep_until(proposers.deadline()?);
        match select(attempt.as_mut(), pin!(deadline)).await {
            Either::Left((attempt, _)) => return Some(attempt),
            Either::Right(_) => {
                let given = || handed.is_given().then_some("no answer in time".into());
                proposers.expire(Instant::now(), unknown.clone().or_else(given).as_ref());
            }
        }
    }
}

/// An attempt has failed: the own proposals are to be sent again.
fn fails(mut batch: ProposalBatch, failure: &Failure) -> FlightEnd {
    batch.fail_forwarded(failure);
    if batch.has_no_own() {
        return FlightEnd::Settled { given: matches!(failure, Failure::Unknown(_)) };
    }
    FlightEnd::Back(batch)
}

#[cfg(test)]
mod tests;
