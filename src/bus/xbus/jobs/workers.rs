//! The actors that are connected to this node and take jobs, and the jobs that they have.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use actix::{Message, Recipient};
use rollbook_cluster::lock::lock;
use rollbook_core::xbus::done::JobDelivery;
use rollbook_core::xbus::id::Id;
use tokio::sync::Notify;

/// A job of an actor, by what tells it apart: process, node and actor.
pub type JobKey = (Id, String, Id);

/// A job for an actor: the receiver brings it to the actor. The job counts as being worked on until the guard is
/// dropped; what has not ended then is given back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Deliver {
    /// The process.
    pub process: Id,
    /// What the actor gets.
    pub job: JobDelivery,
    /// Ends the work of this node on the job.
    pub guard: JobGuard,
}

/// A connection of an actor.
#[derive(Debug)]
struct Worker {
    number: u64,
    to: Recipient<Deliver>,
    /// Most jobs at a time.
    jobs_max: usize,
    jobs: usize,
    /// Whether it takes jobs now.
    ready: bool,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// The connections of each actor.
    workers: HashMap<Id, Vec<Worker>>,
    /// The jobs that this node brings, with the connection that has each.
    jobs: HashMap<JobKey, u64>,
}

/// The actors of this node. Clones share one table.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    table: Arc<Mutex<Table>>,
    /// Woken when an actor may take more jobs.
    changed: Arc<Notify>,
    /// Woken when an actor has gone.
    gone: Arc<Notify>,
}

impl Workers {
    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// Resolves when an actor may take more jobs.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Resolves when an actor has gone.
    pub async fn gone(&self) {
        self.gone.notified().await;
    }

    /// An actor is connected. It takes no jobs before it is ready.
    #[must_use]
    pub fn attach(&self, actor: Id, to: Recipient<Deliver>, jobs_max: usize) -> WorkerHandle {
        let mut table = self.table();
        table.next = table.next.wrapping_add(1);
        let number = table.next;
        let worker = Worker { number, to, jobs_max, jobs: 0, ready: false };
        table.workers.entry(actor).or_default().push(worker);
        WorkerHandle { workers: self.clone(), actor, number }
    }

    /// Whether an actor is connected here.
    #[must_use]
    pub fn is_connected(&self, actor: Id) -> bool {
        self.table().workers.contains_key(&actor)
    }

    /// The actors that are connected here.
    #[must_use]
    pub fn connected(&self) -> Vec<Id> {
        self.table().workers.keys().copied().collect()
    }

    /// The actors that can take jobs now, each with how many.
    #[must_use]
    pub fn free(&self) -> HashMap<Id, usize> {
        let table = self.table();
        let free = |workers: &[Worker]| {
            let ready = workers.iter().filter(|worker| worker.ready);
            ready.map(|worker| worker.jobs_max.saturating_sub(worker.jobs)).sum::<usize>()
        };
        table.workers.iter().map(|(actor, workers)| (*actor, free(workers))).filter(|(_, free)| *free > 0).collect()
    }

    /// The jobs that this node brings.
    #[must_use]
    pub fn jobs(&self) -> HashSet<JobKey> {
        self.table().jobs.keys().cloned().collect()
    }

    /// Keeps a place for a job at the connection of its actor with the fewest jobs; `None` when no connection has room,
    /// or the job is being brought already.
    #[must_use]
    pub fn reserve(&self, key: JobKey) -> Option<(Recipient<Deliver>, JobGuard)> {
        let mut table = self.table();
        if table.jobs.contains_key(&key) {
            return None;
        }
        let workers = table.workers.get_mut(&key.2)?;
        let open = workers.iter_mut().filter(|worker| worker.ready && worker.jobs < worker.jobs_max);
        let worker = open.min_by_key(|worker| worker.jobs)?;
        worker.jobs = worker.jobs.saturating_add(1);
        let (number, to) = (worker.number, worker.to.clone());
        table.jobs.insert(key.clone(), number);
        drop(table);
        Some((to, JobGuard { workers: self.clone(), key }))
    }

    fn release(&self, key: &JobKey) {
        let mut table = self.table();
        let Some(number) = table.jobs.remove(key) else { return };
        let workers = table.workers.get_mut(&key.2).into_iter().flatten();
        if let Some(worker) = workers.into_iter().find(|worker| worker.number == number) {
            worker.jobs = worker.jobs.saturating_sub(1);
        }
        drop(table);
        self.changed.notify_one();
    }
}

/// A connection of an actor. The actor is gone from this node when this is dropped.
#[derive(Debug)]
pub struct WorkerHandle {
    workers: Workers,
    actor: Id,
    number: u64,
}

impl WorkerHandle {
    /// From now on the actor has at most so many jobs at a time. Jobs that it has are not taken away.
    pub fn set_jobs_max(&self, jobs_max: usize) {
        self.change(|worker| worker.jobs_max = jobs_max);
    }

    /// From now on the actor takes jobs, or takes no more.
    pub fn set_ready(&self, ready: bool) {
        self.change(|worker| worker.ready = ready);
    }

    fn change(&self, change: impl FnOnce(&mut Worker)) {
        let mut table = self.workers.table();
        let workers = table.workers.get_mut(&self.actor).into_iter().flatten();
        if let Some(worker) = workers.into_iter().find(|worker| worker.number == self.number) {
            change(worker);
        }
        drop(table);
        self.workers.changed.notify_one();
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        let mut table = self.workers.table();
        if let Some(workers) = table.workers.get_mut(&self.actor) {
            workers.retain(|worker| worker.number != self.number);
            if workers.is_empty() {
                table.workers.remove(&self.actor);
            }
        }
        drop(table);
        self.workers.gone.notify_one();
    }
}

/// A job that this node brings to an actor.
#[derive(Debug)]
pub struct JobGuard {
    workers: Workers,
    key: JobKey,
}

impl JobGuard {
    /// Process, node and actor.
    #[must_use]
    pub const fn key(&self) -> &JobKey {
        &self.key
    }
}

impl Drop for JobGuard {
    fn drop(&mut self) {
        self.workers.release(&self.key);
    }
}
