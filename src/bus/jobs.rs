//! Jobs: long work of this node that somebody begins, watches and cancels.
//!
//! A job is in memory, and ends with its table. Invariant: jobs are bounded in number; each keeps what its progress has,
//! which its maker bounds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rollbook_cluster::lock::lock;
use tokio::task::AbortHandle;

use crate::base::clock;

/// Most jobs of a table that are remembered, ended ones included. From so many on the oldest one that has ended is
/// forgotten.
pub const JOBS_MAX: usize = 100;
/// Most jobs of a table at a time that run.
pub const RUNNING_MAX: usize = 4;

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// The job works.
    Running,
    /// The job has done all of its work.
    Done,
    /// Somebody has ended the job.
    Canceled,
    /// The job could not go on.
    Failed,
}

impl JobState {
    /// The word that operators read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Canceled => "canceled",
            Self::Failed => "failed",
        }
    }
}

/// When a job ran, and how it ended: a part of every progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// How far the job is.
    pub state: JobState,
    /// Why the job failed; else empty.
    pub reason: String,
    /// When the job began, milliseconds since 1970.
    pub began: u64,
    /// When the job ended; 0: it works.
    pub ended: u64,
}

/// What a job tells of itself.
pub trait Progress: Clone + Send + 'static {
    /// What a job of this kind is called, in texts for people.
    const NAME: &'static str;
    /// When the job ran, and how it ended.
    fn course(&self) -> &Course;
    /// The same, to be changed by the table of jobs alone.
    fn course_mut(&mut self) -> &mut Course;
}

/// A job: its progress, and whether somebody has ended it.
#[derive(Debug)]
pub struct Job<P> {
    progress: Mutex<P>,
    canceled: AtomicBool,
}

impl<P: Progress> Job<P> {
    /// What the job has done so far, locked while it is looked at or changed.
    pub fn progress(&self) -> MutexGuard<'_, P> {
        lock(&self.progress)
    }

    /// Whether the job must stop.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.canceled.load(Ordering::Relaxed)
    }

    fn is_running(&self) -> bool {
        self.progress().course().state == JobState::Running
    }

    fn end(&self, state: JobState, reason: String) {
        let mut progress = self.progress();
        let course = progress.course_mut();
        (course.state, course.reason, course.ended) = (state, reason, clock::millis());
    }
}

/// A job that ends in whatever way has an end, also when it panics or is aborted.
struct Ending<P: Progress>(Arc<Job<P>>);

impl<P: Progress> Drop for Ending<P> {
    fn drop(&mut self) {
        if self.0.is_running() {
            self.0.end(JobState::Failed, format!("the {} was broken off; see the log of the node", P::NAME));
        }
    }
}

#[derive(Debug)]
struct Entry<P> {
    job: Arc<Job<P>>,
    task: AbortHandle,
}

/// [`RUNNING_MAX`] jobs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyJobs;

/// The jobs of one kind on this node. When the table is dropped, they end.
#[derive(Debug)]
pub struct Jobs<I, P> {
    /// By the time at which they began, and their id.
    jobs: Mutex<BTreeMap<(u64, I), Entry<P>>>,
}

impl<I, P> Default for Jobs<I, P> {
    fn default() -> Self {
        Self { jobs: Mutex::default() }
    }
}

impl<I, P> Drop for Jobs<I, P> {
    fn drop(&mut self) {
        lock(&self.jobs).values().for_each(|entry| entry.task.abort());
    }
}

impl<I: Copy + Ord, P: Progress> Jobs<I, P> {
    /// Begins a job. `progress` is what it tells at its beginning; `work` does it, and its error is the reason why it
    /// could not go on.
    ///
    /// # Errors
    /// Too many jobs run.
    pub fn begin<W: Future<Output = Result<(), String>> + Send + 'static>(
        &self,
        id: I,
        progress: impl FnOnce(Course) -> P,
        work: impl FnOnce(Arc<Job<P>>) -> W,
    ) -> Result<P, TooManyJobs> {
        let mut jobs = lock(&self.jobs);
        if jobs.values().filter(|entry| entry.job.is_running()).count() >= RUNNING_MAX {
            return Err(TooManyJobs);
        }
        if jobs.len() >= JOBS_MAX {
            let oldest = jobs.iter().find(|(_, entry)| !entry.job.is_running()).map(|(key, _)| *key);
            oldest.and_then(|key| jobs.remove(&key));
        }
        let began = clock::millis();
        let progress = progress(Course { state: JobState::Running, reason: String::new(), began, ended: 0 });
        let job = Arc::new(Job { progress: Mutex::new(progress.clone()), canceled: AtomicBool::new(false) });
        let task = tokio::spawn(run(Arc::clone(&job), work(Arc::clone(&job)))).abort_handle();
        jobs.insert((began, id), Entry { job, task });
        Ok(progress)
    }

    /// The jobs, newest first.
    #[must_use]
    pub fn list(&self) -> Vec<P> {
        lock(&self.jobs).values().rev().map(|entry| entry.job.progress().clone()).collect()
    }

    /// A job.
    #[must_use]
    pub fn find(&self, id: I) -> Option<P> {
        let jobs = lock(&self.jobs);
        jobs.iter().find(|((_, of), _)| *of == id).map(|(_, entry)| entry.job.progress().clone())
    }

    /// Tells a job to stop. What it has in hand is still done.
    pub fn cancel(&self, id: I) -> bool {
        let jobs = lock(&self.jobs);
        let found = jobs.iter().find(|((_, of), _)| *of == id).map(|(_, entry)| entry);
        found.iter().for_each(|entry| entry.job.canceled.store(true, Ordering::Relaxed));
        found.is_some()
    }
}

async fn run<P: Progress>(job: Arc<Job<P>>, work: impl Future<Output = Result<(), String>>) {
    let ending = Ending(Arc::clone(&job));
    match work.await {
        Ok(()) if job.is_canceled() => job.end(JobState::Canceled, String::new()),
        Ok(()) => job.end(JobState::Done, String::new()),
        Err(reason) => {
            tracing::warn!(began = job.progress().course().began, reason, "a {} could not go on", P::NAME);
            job.end(JobState::Failed, reason);
        }
    }
    drop(ending);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Debug, Clone)]
    struct Counted(Course);

    impl Progress for Counted {
        const NAME: &'static str = "count";

        fn course(&self) -> &Course {
            &self.0
        }

        fn course_mut(&mut self) -> &mut Course {
            &mut self.0
        }
    }

    async fn ended(jobs: &Jobs<u64, Counted>, id: u64) -> Course {
        loop {
            let course = jobs.find(id).unwrap().0;
            if course.state != JobState::Running {
                return course;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_job_ends_done_failed_canceled_or_broken_off() {
        let jobs = Jobs::<u64, Counted>::default();
        jobs.begin(1, Counted, |_| async { Ok(()) }).unwrap();
        jobs.begin(2, Counted, |_| async { Err("no disk".to_owned()) }).unwrap();
        let until_canceled = |job: Arc<Job<Counted>>| async move {
            while !job.is_canceled() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        };
        jobs.begin(3, Counted, until_canceled).unwrap();
        jobs.begin(4, Counted, |_| async { panic!("a fault") }).unwrap();
        assert!(jobs.cancel(3) && !jobs.cancel(9));
        let mut states = Vec::new();
        for id in 1..=4 {
            let course = ended(&jobs, id).await;
            assert!(course.ended >= course.began);
            states.push((course.state.word(), course.reason));
        }
        let broken = "the count was broken off; see the log of the node";
        let wanted = [("done", ""), ("failed", "no disk"), ("canceled", ""), ("failed", broken)];
        assert_eq!(states, wanted.map(|(state, reason)| (state, reason.to_owned())));
    }

    #[tokio::test]
    async fn jobs_are_bounded_and_end_with_their_table() {
        let jobs = Jobs::<u64, Counted>::default();
        for id in 0..150 {
            jobs.begin(id, Counted, |_| async { Ok(()) }).unwrap();
            ended(&jobs, id).await;
        }
        assert_eq!(jobs.list().len(), JOBS_MAX);
        assert!(jobs.find(0).is_none() && jobs.find(149).is_some());
        let (held, holders) = (Arc::new(()), 1000..);
        for id in holders.take(RUNNING_MAX) {
            let held = Arc::clone(&held);
            let forever = |_| async move {
                std::future::pending::<()>().await;
                drop(held);
                Ok(())
            };
            jobs.begin(id, Counted, forever).unwrap();
        }
        assert_eq!(jobs.begin(2000, Counted, |_| async { Ok(()) }).err(), Some(TooManyJobs));
        drop(jobs);
        while Arc::strong_count(&held) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
