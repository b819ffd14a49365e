//! Jobs that have many processes go along again: they page through the processes of a filter and replay each one.
//!
//! A job is of this node alone, in memory, and ends with the node. Invariant: jobs are bounded in number, and one keeps
//! counts and a few reasons, never processes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use rollbook_core::security::actor::Actor;
use rollbook_core::xbus::change::{Change, Replay};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::limits::PROCESSES_PER_ENVELOPE_MAX;
use rollbook_core::xbus::process::row::ProcessRow;
use uuid::Uuid;

use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::jobs::{Course, Job, Jobs, Progress, RUNNING_MAX, TooManyJobs};
use crate::bus::xbus::filter::ProcessFilter;
use crate::bus::xbus::flow::Flow;

/// Processes of one read.
const PAGE: usize = 100;
/// Replays of a job that are proposed at a time.
const CONCURRENCY: usize = 8;
/// Reasons of refusals that a job keeps.
const REASONS_MAX: usize = 20;
/// How often a replay is tried while the cluster cannot take it, and the pause before the next try.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);

/// What is replayed.
#[derive(Debug, Clone, Default)]
pub struct ReplayWish {
    /// Which processes. Those that go on are left to the rules, which refuse them.
    pub filter: ProcessFilter,
    /// The node with which the new processes begin; empty: the start.
    pub from_node: String,
    /// Whether they go along the active version of the pipeline, rather than that of the old process.
    pub active: bool,
    /// Whether processes are only counted.
    pub dry_run: bool,
}

/// Why a process was not replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRefusal {
    /// The process.
    pub process: Id,
    /// Why, for people.
    pub reason: String,
}

/// What a job has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayProgress {
    /// The id of the job.
    pub id: Id,
    /// When the job ran, and how it ended.
    pub course: Course,
    /// Whether processes are only counted.
    pub dry_run: bool,
    /// Processes that fit.
    pub matched: u64,
    /// Processes that were replayed.
    pub replayed: u64,
    /// Processes that were not.
    pub refused: u64,
    /// Why, of the first ones.
    pub refusals: Vec<ReplayRefusal>,
}

impl Progress for ReplayProgress {
    const NAME: &'static str = "replay";

    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }
}

impl ReplayProgress {
    fn replayed(&mut self) {
        self.replayed = self.replayed.saturating_add(1);
    }

    fn refuse(&mut self, process: Id, reason: String) {
        self.refused = self.refused.saturating_add(1);
        if self.refusals.len() < REASONS_MAX {
            self.refusals.push(ReplayRefusal { process, reason });
        }
    }
}

/// The replays of this node. When it is dropped, they end.
pub type Replays = Jobs<Id, ReplayProgress>;

/// Begins a job in the name of `actor`, who is in the audit with each process that is replayed.
///
/// # Errors
/// Too many jobs run.
pub fn begin(replays: &Replays, flow: Flow, wish: ReplayWish, actor: Actor) -> Result<ReplayProgress, Fault> {
    let id = Id::new(*Uuid::new_v4().as_bytes());
    let dry_run = wish.dry_run;
    let progress =
        |course| ReplayProgress { id, course, dry_run, matched: 0, replayed: 0, refused: 0, refusals: Vec::new() };
    let work = |job: Arc<Job<ReplayProgress>>| async move {
        pages(&flow, &wish, &actor, &job).await.map_err(|fault| fault.to_string())
    };
    replays.begin(id, progress, work).map_err(|TooManyJobs| {
        let text = format!("{RUNNING_MAX} replays run on this node; wait for one, or cancel one");
        Fault::new(FaultKind::Overloaded, text)
    })
}

/// Goes through all processes that fit. A new process is newer than those that are still to come, so none is replayed
/// twice.
async fn pages(flow: &Flow, wish: &ReplayWish, actor: &Actor, job: &Job<ReplayProgress>) -> Result<(), Fault> {
    let mut behind = None;
    while !job.is_canceled() {
        let page = flow.client().processes(wish.filter.clone(), behind, PAGE).await?;
        let found: Vec<(Id, bool)> = page.items.iter().map(|row| (row.id(), is_unmatched(row))).collect();
        let next = page.next;
        drop(page);
        {
            let mut progress = job.progress();
            progress.matched = progress.matched.saturating_add(u64::try_from(found.len()).unwrap_or(u64::MAX));
        }
        if !wish.dry_run {
            let each = |(process, unmatched)| one(flow, wish, actor, job, (process, unmatched));
            stream::iter(found).for_each_concurrent(CONCURRENCY, each).await;
        }
        behind = next;
        if behind.is_none() {
            break;
        }
    }
    Ok(())
}

/// Whether no pipeline took the envelope of a process.
fn is_unmatched(row: &ProcessRow) -> bool {
    row.pipeline.is_empty()
}

async fn one(
    flow: &Flow,
    wish: &ReplayWish,
    actor: &Actor,
    job: &Job<ReplayProgress>,
    (process, unmatched): (Id, bool),
) {
    let count = if unmatched { flow.client().look(|xbus| xbus.active_pipelines().count()) } else { 1 };
    let first = Id::new(*Uuid::new_v4().as_bytes());
    let more = (1..count.min(PROCESSES_PER_ENVELOPE_MAX)).map(|_| Uuid::new_v4().as_bytes().to_vec());
    let ids = std::iter::once(first.to_vec()).chain(more).collect();
    let replay = Replay { process: process.to_vec(), ids, from_node: wish.from_node.clone(), active: wish.active };
    let mut tries = 0_u32;
    loop {
        if job.is_canceled() {
            return;
        }
        tries = tries.saturating_add(1);
        match flow.client().change_of(None, Change::Replay(replay.clone()), actor.clone()).await {
            Ok(done) => {
                // Whoever watches processes hears that a new one begins.
                flow.tell(&done);
                return job.progress().replayed();
            }
            Err(fault) if tries < TRIES && may_pass(fault.kind) => tokio::time::sleep(PAUSE).await,
            // A try before may have been taken although nobody heard of it.
            Err(_) if tries > 1 && matches!(flow.client().process(first).await, Ok(Some(_))) => {
                return job.progress().replayed();
            }
            Err(fault) => return job.progress().refuse(process, fault.text.into_owned()),
        }
    }
}

/// Whether the same replay may be taken later. The ids of the new processes stay, so one that was taken although nobody
/// heard of it is not taken twice.
const fn may_pass(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::Overloaded | FaultKind::Unavailable)
}
