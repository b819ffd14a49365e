//! The children of the agent: those that the agent started, and orphans of services that fall to the agent.
//!
//! The agent is a child subreaper, so a process whose parent ended becomes a child of the agent. Nobody else waits for
//! such orphans. The agent must not wait for its own children here, or their exit codes would be lost.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, set_child_subreaper, waitpid};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use super::proc_fs::{Stat, children, pids, stat};
use super::tree::send;

/// The least time between two looks for ended orphans.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest time, for the case that a signal was missed.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long the last orphans may take to end after SIGKILL.
const ORPHANS_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two looks whether they have ended.
const ORPHANS_PAUSE: Duration = Duration::from_millis(20);

/// The numbers of the children that the agent started and waits for.
#[derive(Debug)]
pub(crate) struct Children {
    own: Mutex<HashSet<i32>>,
    /// Children from before the agent started: a script that became the agent may have started some.
    inherited: HashSet<i32>,
}

impl Children {
    /// The children of an agent that starts.
    pub(crate) fn new() -> Self {
        Self { own: Mutex::default(), inherited: children_of_agent().into_iter().collect() }
    }

    /// Starts a child. The lock is held meanwhile, so a child that ends at once is not taken for an orphan.
    ///
    /// # Errors
    ///
    /// The child could not be started.
    pub(crate) fn spawn(&self, spawn: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
        let mut own = self.lock();
        let child = spawn()?;
        own.extend(child.id().and_then(|pid| i32::try_from(pid).ok()));
        Ok(child)
    }

    /// Waits for a child. May be cancelled and called again.
    pub(crate) async fn wait(&self, child: &mut Child) -> Option<std::process::ExitStatus> {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let status = child.wait().await;
        if let Some(pid) = pid {
            self.lock().remove(&pid);
        }
        status.ok()
    }

    /// Makes this process the parent of the orphans of services, and waits for them as long as the future lives.
    pub(crate) async fn reap_orphans(self: Arc<Self>) {
        if let Err(error) = set_child_subreaper(rustix::process::getpid().into()) {
            tracing::warn!(%error, "orphans of services fall to init");
        }
        let mut signals = match signal(SignalKind::child()) {
            Ok(signals) => Some(signals),
            Err(error) => {
                tracing::warn!(%error, "ended children are found late");
                None
            }
        };
        loop {
            self.reap();
            sleep(PAUSE).await;
            let next = async {
                match &mut signals {
                    Some(signals) => signals.recv().await,
                    None => std::future::pending().await,
                }
            };
            timeout(LONGEST_PAUSE, next).await.ok();
        }
    }

    fn reap(&self) {
        let own = self.lock();
        for orphan in children_of_agent().into_iter().filter(|pid| !own.contains(pid)) {
            if let Some(pid) = Pid::from_raw(orphan)
                && let Err(error) = waitpid(Some(pid), WaitOptions::NOHANG)
            {
                tracing::debug!(orphan, %error, "an orphan was not waited for");
            }
        }
    }

    /// Ends the orphans that are left when all services have ended: processes that detached themselves and cleared their
    /// environment, so that nothing tells to which service they belong.
    pub(crate) async fn end_orphans(&self) {
        let deadline = Instant::now() + ORPHANS_TIMEOUT;
        while Instant::now() < deadline {
            self.reap();
            let orphans = self.orphans();
            if orphans.is_empty() {
                return;
            }
            for orphan in &orphans {
                tracing::info!(pid = orphan.pid, "a service left a process behind, which is killed");
                send(orphan, Signal::KILL);
            }
            sleep(ORPHANS_PAUSE).await;
        }
        tracing::error!("processes that services left behind outlived SIGKILL");
    }

    fn orphans(&self) -> Vec<Stat> {
        let own = self.lock();
        let orphans = children_of_agent().into_iter().filter(|pid| !own.contains(pid) && !self.inherited.contains(pid));
        orphans.filter_map(stat).filter(Stat::is_alive).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<i32>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn children_of_agent() -> Vec<i32> {
    let agent = i32::try_from(std::process::id()).unwrap_or_default();
    children(agent).unwrap_or_else(|| {
        pids().into_iter().filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == agent)).collect()
    })
}
