//! Jobs that have many processes go along again: they page through the processes of a filter and replay each one.
//!
//! A job is of this node alone, in memory, and ends with the node. Invariant: jobs are bounded in number, and one keeps
//! counts and a few reasons, never processes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use rollbook_core::security::actor::Actor;
use rollbook_core::xbus::change::{Change, Replay};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::limits::PROCESSES_PER_ENVELOPE_MAX;
use rollbook_core::xbus::process::row::ProcessRow;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::xbus::filter::ProcessFilter;
use crate::bus::xbus::flow::Flow;

/// Most jobs that are remembered, ended ones included. From so many on the oldest one that has ended is forgotten.
pub const JOBS_MAX: usize = 100;
/// Most jobs at a time that run.
pub const RUNNING_MAX: usize = 4;
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

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayState {
    /// The job works.
    Running,
    /// All processes were looked at.
    Done,
    /// Somebody has ended the job.
    Canceled,
    /// The job could not go on.
    Failed,
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
    /// How far the job is.
    pub state: ReplayState,
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
    /// Why the job failed; else empty.
    pub reason: String,
    /// When the job began, milliseconds since 1970.
    pub began: u64,
    /// When the job ended; 0: it works.
    pub ended: u64,
}

#[derive(Debug)]
struct Job {
    progress: Mutex<ReplayProgress>,
    canceled: AtomicBool,
}

impl Job {
    fn progress(&self) -> MutexGuard<'_, ReplayProgress> {
        lock(&self.progress)
    }

    fn is_canceled(&self) -> bool {
        self.canceled.load(Ordering::Relaxed)
    }

    fn replayed(&self) {
        let mut progress = self.progress();
        progress.replayed = progress.replayed.saturating_add(1);
    }

    fn refuse(&self, process: Id, reason: String) {
        let mut progress = self.progress();
        progress.refused = progress.refused.saturating_add(1);
        if progress.refusals.len() < REASONS_MAX {
            progress.refusals.push(ReplayRefusal { process, reason });
        }
    }

    fn end(&self, state: ReplayState, reason: String) {
        let mut progress = self.progress();
        (progress.state, progress.reason, progress.ended) = (state, reason, clock::millis());
    }
}

#[derive(Debug)]
struct Entry {
    job: Arc<Job>,
    task: AbortHandle,
}

/// The jobs of this node. When it is dropped, they end.
#[derive(Debug, Default)]
pub struct Replays {
    /// By the time at which they began, and their id.
    jobs: Mutex<BTreeMap<(u64, Id), Entry>>,
}

impl Drop for Replays {
    fn drop(&mut self) {
        lock(&self.jobs).values().for_each(|entry| entry.task.abort());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replays {
    /// Begins a job in the name of `actor`, who is in the audit with each process that is replayed.
    ///
    /// # Errors
    /// Too many jobs run.
    pub fn begin(&self, flow: Flow, wish: ReplayWish, actor: Actor) -> Result<ReplayProgress, Fault> {
        let mut jobs = lock(&self.jobs);
        let running = jobs.values().filter(|entry| entry.job.progress().state == ReplayState::Running).count();
        if running >= RUNNING_MAX {
            let text = format!("{RUNNING_MAX} replays run on this node; wait for one, or cancel one");
            return Err(Fault::new(FaultKind::Overloaded, text));
        }
        if jobs.len() >= JOBS_MAX {
            let ended = |entry: &Entry| entry.job.progress().state != ReplayState::Running;
            let oldest = jobs.iter().find(|(_, entry)| ended(entry)).map(|(key, _)| *key);
            if let Some(key) = oldest {
                jobs.remove(&key);
            }
        }
        let (id, began) = (Id::new(*Uuid::new_v4().as_bytes()), clock::millis());
        let progress = ReplayProgress {
            id,
            state: ReplayState::Running,
            dry_run: wish.dry_run,
            matched: 0,
            replayed: 0,
            refused: 0,
            refusals: Vec::new(),
            reason: String::new(),
            began,
            ended: 0,
        };
        let job = Arc::new(Job { progress: Mutex::new(progress.clone()), canceled: AtomicBool::new(false) });
        let task = tokio::spawn(run(flow, wish, actor, Arc::clone(&job))).abort_handle();
        jobs.insert((began, id), Entry { job, task });
        Ok(progress)
    }

    /// The jobs, newest first.
    #[must_use]
    pub fn list(&self) -> Vec<ReplayProgress> {
        lock(&self.jobs).values().rev().map(|entry| entry.job.progress().clone()).collect()
    }

    /// A job.
    #[must_use]
    pub fn find(&self, id: Id) -> Option<ReplayProgress> {
        let jobs = lock(&self.jobs);
        jobs.iter().find(|((_, of), _)| *of == id).map(|(_, entry)| entry.job.progress().clone())
    }

    /// Ends a job. What it has proposed by now is still done, at most eight processes.
    pub fn cancel(&self, id: Id) -> bool {
        let jobs = lock(&self.jobs);
        let found = jobs.iter().find(|((_, of), _)| *of == id).map(|(_, entry)| entry);
        found.iter().for_each(|entry| entry.job.canceled.store(true, Ordering::Relaxed));
        found.is_some()
    }
}

/// A job that ends in whatever way has an end, also when it panics or is aborted.
struct Ending<'j>(&'j Job);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if self.0.progress().state == ReplayState::Running {
            self.0.end(ReplayState::Failed, "the replay was broken off; see the log of the node".to_owned());
        }
    }
}

async fn run(flow: Flow, wish: ReplayWish, actor: Actor, job: Arc<Job>) {
    let _ending = Ending(&job);
    match pages(&flow, &wish, &actor, &job).await {
        Ok(()) if job.is_canceled() => job.end(ReplayState::Canceled, String::new()),
        Ok(()) => job.end(ReplayState::Done, String::new()),
        Err(fault) => {
            tracing::warn!(job = %job.progress().id, %fault, "a replay could not go on");
            job.end(ReplayState::Failed, fault.to_string());
        }
    }
}

/// Goes through all processes that fit. A new process is newer than those that are still to come, so none is replayed
/// twice.
async fn pages(flow: &Flow, wish: &ReplayWish, actor: &Actor, job: &Job) -> Result<(), Fault> {
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

async fn one(flow: &Flow, wish: &ReplayWish, actor: &Actor, job: &Job, (process, unmatched): (Id, bool)) {
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
                return job.replayed();
            }
            Err(fault) if tries < TRIES && may_pass(fault.kind) => tokio::time::sleep(PAUSE).await,
            // A try before may have been taken although nobody heard of it.
            Err(_) if tries > 1 && matches!(flow.client().process(first).await, Ok(Some(_))) => return job.replayed(),
            Err(fault) => return job.refuse(process, fault.text.into_owned()),
        }
    }
}

/// Whether the same replay may be taken later. The ids of the new processes stay, so one that was taken although nobody
/// heard of it is not taken twice.
const fn may_pass(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::Overloaded | FaultKind::Unavailable)
}
