//! Jobs that retry or discard many dead letters: they page through the letters of a filter and do one after the other.
//!
//! A job is of this node alone, in memory, and ends with the node. What it did by then stays done, so the same job can
//! be begun again and goes on with the letters that are still open. Invariant: jobs are bounded in number, and one
//! keeps counts and a few reasons, never letters.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use uuid::Uuid;

use super::filter::{LetterFilter, WantedState};
use super::read::{self, Span};
use super::retry::{Done, discard, retry};
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::handle::Bus;
use crate::bus::jobs::{Course, Job, Jobs, Progress, RUNNING_MAX, TooManyJobs};
use crate::bus::security::identity::Identity;

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
    /// When the job ran, and how it ended.
    pub course: Course,
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
}

impl Progress for JobProgress {
    const NAME: &'static str = "job";

    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }
}

impl JobProgress {
    fn looked(&mut self, index: u64, matched: usize) {
        self.index = index;
        self.matched = self.matched.saturating_add(u64::try_from(matched).unwrap_or(u64::MAX));
    }

    fn count(&mut self, done: &Done) {
        match done {
            Done::Now(_) => self.done = self.done.saturating_add(1),
            Done::Before(_) => self.skipped = self.skipped.saturating_add(1),
        }
    }

    fn refuse(&mut self, letter: String, reason: String) {
        self.refused = self.refused.saturating_add(1);
        if self.refusals.len() < REASONS_MAX {
            self.refusals.push(JobRefusal { letter, reason });
        }
    }
}

/// The jobs of this node. When it is dropped, they end.
pub type LetterJobs = Jobs<Uuid, JobProgress>;

/// Begins a job in the name of `identity`, whose rights count for each letter when its turn comes.
///
/// # Errors
/// Too many jobs run.
pub fn begin(jobs: &LetterJobs, bus: Bus, wish: JobWish, identity: Arc<Identity>) -> Result<JobProgress, Fault> {
    let id = Uuid::new_v4();
    let (action, by, dry_run) = (wish.action.clone(), identity.name().to_owned(), wish.dry_run);
    // A letter that comes of a retry is behind this, so no job runs in a circle.
    let last_index = read::newest(&bus);
    let progress = |course| JobProgress {
        id,
        action,
        by,
        course,
        dry_run,
        last_index,
        index: 0,
        matched: 0,
        done: 0,
        skipped: 0,
        refused: 0,
        refusals: Vec::new(),
    };
    let work = |job| async move {
        let work = Work { bus, wish, identity, job };
        work.pages().await.map_err(|fault| fault.to_string())
    };
    jobs.begin(id, progress, work).map_err(|TooManyJobs| {
        Fault::overloaded(format!("{RUNNING_MAX} jobs run on this node; wait for one, or cancel one"))
    })
}

/// What the task of a job has.
struct Work {
    bus: Bus,
    wish: JobWish,
    identity: Arc<Identity>,
    job: Arc<Job<JobProgress>>,
}

impl Work {
    /// Goes through the letters that fit and were there when the job began.
    async fn pages(&self) -> Result<(), Fault> {
        let until = self.job.progress().last_index;
        let mut filter = self.wish.filter.clone();
        filter.state = WantedState::Open;
        let mut from = Some(1);
        while let Some(at) = from.filter(|_| !self.job.is_canceled()) {
            self.check_rights()?;
            let page = read::page(&self.bus, &filter, Span { from: at, until }, PAGE).await?;
            self.job.progress().looked(page.next.map_or(until, |next| next.saturating_sub(1)), page.letters.len());
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
                Ok(done) => return self.job.progress().count(&done),
                Err(fault) if tries < TRIES && may_pass(fault.kind) => tokio::time::sleep(PAUSE).await,
                Err(fault) => return self.job.progress().refuse(id, fault.text.into_owned()),
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
