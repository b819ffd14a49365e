//! Jobs that retry or discard many dead letters: they page through the letters of a filter and do one after the other.
//!
//! A job is of this node alone, in memory, and ends with the node. What it did by then stays done, so the same job can
//! be begun again and goes on with the letters that are still open. Invariant: jobs are bounded in number, and one
//! keeps counts and a few reasons, never letters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use rollbook_cluster::lock::lock;
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::filter::{LetterFilter, WantedState};
use super::read::{self, Span};
use super::retry::{Done, discard, retry};
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::handle::Bus;
use crate::bus::security::identity::Identity;

/// Most jobs that are remembered, ended ones included. From so many on the oldest one that has ended is forgotten.
pub const JOBS_MAX: usize = 100;
/// Most jobs at a time that run.
pub const RUNNING_MAX: usize = 4;
/// Letters of one read.
const PAGE: usize = 100;
/// Letters of a job that are done at a time. One of them may be as large as an event.
const CONCURRENCY: usize = 8;
/// Reasons of refusals that a job keeps.
const REASONS_MAX: usize = 20;
/// How often a letter is tried while the cluster cannot take it, and the pause before the next try.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);

/// What is done with the letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Their events are published again.
    Retry {
        /// Under this subject rather than their own.
        to: Option<String>,
    },
    /// They are put away.
    Discard,
}

/// A job as it is begun.
#[derive(Debug, Clone)]
pub struct JobWish {
    /// Which letters; those that are done are passed by.
    pub filter: LetterFilter,
    /// What is done with them.
    pub action: Action,
    /// Whether letters are only counted.
    pub dry_run: bool,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// The job works.
    Running,
    /// All letters were looked at.
    Done,
    /// Somebody has ended the job.
    Canceled,
    /// The job could not go on.
    Failed,
}

/// Why a letter is still open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRefusal {
    /// Id of the letter.
    pub letter: String,
    /// Why, for people.
    pub reason: String,
}

/// What a job has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobProgress {
    /// The id of the job.
    pub id: Uuid,
    /// What is done with the letters.
    pub action: Action,
    /// Who began the job.
    pub by: String,
    /// How far the job is.
    pub state: JobState,
    /// Whether letters are only counted.
    pub dry_run: bool,
    /// Position of the newest letter when the job began, with which it ends.
    pub last_index: u64,
    /// Position up to which the job has looked for letters.
    pub index: u64,
    /// Letters that fit.
    pub matched: u64,
    /// Letters that the job has retried or discarded.
    pub done: u64,
    /// Letters that somebody else was faster with.
    pub skipped: u64,
    /// Letters that are still open.
    pub refused: u64,
    /// Why, of the first ones.
    pub refusals: Vec<JobRefusal>,
    /// Why the job failed; else empty.
    pub reason: String,
    /// When the job began, milliseconds since 1970.
    pub began: u64,
    /// When the job ended; 0: it works.
    pub ended: u64,
}

#[derive(Debug)]
struct Job {
    progress: Mutex<JobProgress>,
    canceled: AtomicBool,
}

impl Job {
    fn progress(&self) -> MutexGuard<'_, JobProgress> {
        lock(&self.progress)
    }

    fn is_canceled(&self) -> bool {
        self.canceled.load(Ordering::Relaxed)
    }

    fn is_running(&self) -> bool {
        self.progress().state == JobState::Running
    }

    fn looked(&self, index: u64, matched: usize) {
        let mut progress = self.progress();
        progress.index = index;
        progress.matched = progress.matched.saturating_add(u64::try_from(matched).unwrap_or(u64::MAX));
    }

    fn count(&self, done: &Done) {
        let mut progress = self.progress();
        match done {
            Done::Now(_) => progress.done = progress.done.saturating_add(1),
            Done::Before(_) => progress.skipped = progress.skipped.saturating_add(1),
        }
    }

    fn refuse(&self, letter: String, reason: String) {
        let mut progress = self.progress();
        progress.refused = progress.refused.saturating_add(1);
        if progress.refusals.len() < REASONS_MAX {
            progress.refusals.push(JobRefusal { letter, reason });
        }
    }

    fn end(&self, state: JobState, reason: String) {
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
pub struct LetterJobs {
    /// By the time at which they began, and their id.
    jobs: Mutex<BTreeMap<(u64, Uuid), Entry>>,
}

impl Drop for LetterJobs {
    fn drop(&mut self) {
        lock(&self.jobs).values().for_each(|entry| entry.task.abort());
    }
}

impl LetterJobs {
    /// Begins a job in the name of `identity`, whose rights count for each letter when its turn comes.
    ///
    /// # Errors
    /// Too many jobs run.
    pub fn begin(&self, bus: Bus, wish: JobWish, identity: Arc<Identity>) -> Result<JobProgress, Fault> {
        let mut jobs = lock(&self.jobs);
        if jobs.values().filter(|entry| entry.job.is_running()).count() >= RUNNING_MAX {
            let text = format!("{RUNNING_MAX} jobs run on this node; wait for one, or cancel one");
            return Err(Fault::overloaded(text));
        }
        if jobs.len() >= JOBS_MAX {
            let oldest = jobs.iter().find(|(_, entry)| !entry.job.is_running()).map(|(key, _)| *key);
            oldest.and_then(|key| jobs.remove(&key));
        }
        let (id, began) = (Uuid::new_v4(), clock::millis());
        let progress = JobProgress {
            id,
            action: wish.action.clone(),
            by: identity.name().to_owned(),
            state: JobState::Running,
            dry_run: wish.dry_run,
            // A letter that comes of a retry is behind this, so no job runs in a circle.
            last_index: read::newest(&bus),
            index: 0,
            matched: 0,
            done: 0,
            skipped: 0,
            refused: 0,
            refusals: Vec::new(),
            reason: String::new(),
            began,
            ended: 0,
        };
        let job = Arc::new(Job { progress: Mutex::new(progress.clone()), canceled: AtomicBool::new(false) });
        let work = Work { bus, wish, identity, job: Arc::clone(&job) };
        let task = tokio::spawn(work.run()).abort_handle();
        jobs.insert((began, id), Entry { job, task });
        Ok(progress)
    }

    /// The jobs, newest first.
    #[must_use]
    pub fn list(&self) -> Vec<JobProgress> {
        lock(&self.jobs).values().rev().map(|entry| entry.job.progress().clone()).collect()
    }

    /// A job.
    #[must_use]
    pub fn find(&self, id: Uuid) -> Option<JobProgress> {
        let jobs = lock(&self.jobs);
        jobs.iter().find(|((_, of), _)| *of == id).map(|(_, entry)| entry.job.progress().clone())
    }

    /// Ends a job. Letters that it has in hand, at most eight, are still done.
    pub fn cancel(&self, id: Uuid) -> bool {
        let jobs = lock(&self.jobs);
        let found = jobs.iter().find(|((_, of), _)| *of == id).map(|(_, entry)| entry);
        found.iter().for_each(|entry| entry.job.canceled.store(true, Ordering::Relaxed));
        found.is_some()
    }
}

/// A job that ends in whatever way has an end, also when it panics or is aborted.
struct Ending(Arc<Job>);

impl Drop for Ending {
    fn drop(&mut self) {
        if self.0.is_running() {
            self.0.end(JobState::Failed, "the job was broken off; see the log of the node".to_owned());
        }
    }
}

/// What the task of a job has.
struct Work {
    bus: Bus,
    wish: JobWish,
    identity: Arc<Identity>,
    job: Arc<Job>,
}

impl Work {
    async fn run(self) {
        let ending = Ending(Arc::clone(&self.job));
        match self.pages().await {
            Ok(()) if self.job.is_canceled() => self.job.end(JobState::Canceled, String::new()),
            Ok(()) => self.job.end(JobState::Done, String::new()),
            Err(fault) => {
                tracing::warn!(job = %self.job.progress().id, %fault, "a job of dead letters could not go on");
                self.job.end(JobState::Failed, fault.to_string());
            }
        }
        drop(ending);
    }

    /// Goes through the letters that fit and were there when the job began.
    async fn pages(&self) -> Result<(), Fault> {
        let until = self.job.progress().last_index;
        let mut filter = self.wish.filter.clone();
        filter.state = WantedState::Open;
        let mut from = Some(1);
        while let Some(at) = from.filter(|_| !self.job.is_canceled()) {
            self.check_rights()?;
            let page = read::page(&self.bus, &filter, Span { from: at, until }, PAGE).await?;
            self.job.looked(page.next.map_or(until, |next| next.saturating_sub(1)), page.letters.len());
            if !self.wish.dry_run {
                let ids = page.letters.into_iter().map(|(letter, _)| letter.id);
                stream::iter(ids).for_each_concurrent(CONCURRENCY, |id| self.one(id)).await;
            }
            from = page.next;
        }
        Ok(())
    }

    /// Whether whoever began the job may still read the letters. The rights to publish are asked for each letter.
    fn check_rights(&self) -> Result<(), Fault> {
        if let Some(why) = self.bus.authority().lost(&self.identity) {
            return Err(Fault::new(FaultKind::Unauthenticated, why));
        }
        self.identity.check_subscription(self.wish.filter.pattern())
    }

    async fn one(&self, id: String) {
        let mut tries = 0_u32;
        while !self.job.is_canceled() {
            tries = tries.saturating_add(1);
            match self.attempt(&id).await {
                Ok(done) => return self.job.count(&done),
                Err(fault) if tries < TRIES && may_pass(fault.kind) => tokio::time::sleep(PAUSE).await,
                Err(fault) => return self.job.refuse(id, fault.text.into_owned()),
            }
        }
    }

    async fn attempt(&self, id: &str) -> Result<Done, Fault> {
        let Some(letter) = read::find(&self.bus, id).await? else {
            return Err(Fault::new(FaultKind::NotFound, "the letter is not kept any more"));
        };
        match &self.wish.action {
            Action::Retry { to } => retry(&self.bus, &self.identity, &letter, to.as_deref()).await,
            Action::Discard => discard(&self.bus, &self.identity, &letter).await,
        }
    }
}

/// Whether the same try may succeed later. The dedupe key and the disposition stay, so what was taken although nobody
/// heard of it is not done twice.
const fn may_pass(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::Overloaded | FaultKind::Unavailable | FaultKind::StorageFull)
}
