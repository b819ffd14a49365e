//! One running process: a child of the agent, or one that an earlier start of the agent left behind.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::process::Child;

use super::proc_fs::stat;
use super::reaper::Children;
use super::tree::Tree;

/// How often a process that is no child of the agent is looked for.
const POLL: Duration = Duration::from_millis(100);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With a code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Nobody knows: the process was not a child of this agent.
    Unknown,
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    tree: Tree,
    started: SystemTime,
    /// The run time before this agent watched, and since when this agent has. Unlike `started`, the two do not jump with
    /// the clock of the machine.
    ran_before: Duration,
    watched_since: Instant,
    watch: Watch,
}

#[derive(Debug)]
enum Watch {
    Child {
        child: Child,
        children: Arc<Children>,
    },
    /// Not a child: the kernel tells nobody but the parent.
    Poll,
}

impl Process {
    pub(super) fn of_child(child: Child, children: Arc<Children>, tree: Tree, started: SystemTime) -> Self {
        Self::new(tree, started, Watch::Child { child, children })
    }

    /// Takes over a process that runs already. None when the process has ended or another one has its number.
    pub(crate) fn adopt(tree: Tree, started: SystemTime) -> Option<Self> {
        let process = Self::new(tree, started, Watch::Poll);
        process.is_same().then_some(process)
    }

    fn new(tree: Tree, started: SystemTime, watch: Watch) -> Self {
        let ran_before = started.elapsed().unwrap_or_default();
        Self { tree, started, ran_before, watched_since: Instant::now(), watch }
    }

    /// How long the process has run.
    pub(crate) fn ran(&self) -> Duration {
        self.ran_before.saturating_add(self.watched_since.elapsed())
    }

    /// The number of the process.
    pub(crate) fn pid(&self) -> i32 {
        self.tree.pid
    }

    /// When the process was started.
    pub(crate) fn started(&self) -> SystemTime {
        self.started
    }

    /// The process with all that it started.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Waits for the end of the process. May be cancelled and called again.
    pub(crate) async fn wait(&mut self) -> Exit {
        match &mut self.watch {
            Watch::Child { child, children } => match children.wait(child).await {
                Some(status) => match (status.code(), status.signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => Exit::Unknown,
                },
                None => Exit::Unknown,
            },
            Watch::Poll => {
                self.poll().await;
                Exit::Unknown
            }
        }
    }

    async fn poll(&self) {
        while self.is_same() {
            tokio::time::sleep(POLL).await;
        }
    }

    fn is_same(&self) -> bool {
        stat(self.tree.pid).is_some_and(|stat| stat.start_time == self.tree.start_time && stat.is_alive())
    }
}
