//! The start of one process.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

use super::accounts::Account;
use super::cgroup::Cgroup;
use super::child_program::Limits;
use super::proc_fs::stat;
use super::reaper::Children;
use super::running::Process;
use super::tree::Tree;

/// How long the child program may take until the program of the service runs.
const EXEC_TIMEOUT: Duration = Duration::from_secs(20);
/// Most bytes of the text of an error.
const REPORT_BYTES_MAX: u64 = 4096;

/// What is started.
#[derive(Debug)]
pub(crate) struct Launch {
    /// Our own binary with the hidden subcommand.
    pub(crate) child_command: Vec<OsString>,
    /// The program of the service and its arguments.
    pub(crate) arguments: Vec<String>,
    /// The folder in which the program runs.
    pub(crate) folder: PathBuf,
    /// The whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// `NAME=value` of the environment that no other process has.
    pub(crate) variable: String,
    /// Where standard output goes.
    pub(crate) stdout: File,
    /// Where standard error goes.
    pub(crate) stderr: File,
    /// The limit of open files.
    pub(crate) nofile: Option<u64>,
    /// The limit of address space; none where the cgroup limits memory.
    pub(crate) memory: Option<u64>,
    /// The cgroup to join.
    pub(crate) cgroup: Option<Cgroup>,
    /// Whom the process runs as.
    pub(crate) account: Option<Account>,
}

/// A process could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The child program could not be started.
    #[error("could not start a process: {0}")]
    Spawn(io::Error),
    /// The child program could not become the program of the service.
    #[error("{0}")]
    Exec(String),
    /// The child program did neither.
    #[error("the process did not start within {} s", EXEC_TIMEOUT.as_secs())]
    Timeout,
}

/// Starts a process, and returns when its program runs.
///
/// # Errors
///
/// The program does not run; nothing is left of the process.
pub(crate) async fn launch(launch: Launch, children: &Arc<Children>) -> Result<Process, LaunchError> {
    let (report, report_end) = io::pipe().map_err(LaunchError::Spawn)?;
    let mut child = children.spawn(|| command(&launch, report_end)?.spawn()).map_err(LaunchError::Spawn)?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
    // Taken before the program runs: the child cannot be waited for, and its number cannot be used again, before this
    // function gives the child away.
    let start_time = stat(pid).map_or(0, |stat| stat.start_time);
    let failure = match tokio::time::timeout(EXEC_TIMEOUT, read_report(report)).await {
        Ok(Ok(text)) if text.is_empty() => None,
        Ok(Ok(text)) => Some(LaunchError::Exec(text)),
        Ok(Err(error)) => Some(LaunchError::Spawn(error)),
        Err(_) => Some(LaunchError::Timeout),
    };
    let tree = Tree { pid, start_time, variable: launch.variable, cgroup: launch.cgroup };
    match failure {
        None => Ok(Process::of_child(child, Arc::clone(children), tree, SystemTime::now())),
        Some(failure) => {
            clean_up(&mut child, children, &tree).await;
            Err(failure)
        }
    }
}

/// Reads what the child program says until its end of the pipe closes: nothing when the program runs.
async fn read_report(report: io::PipeReader) -> io::Result<String> {
    let mut text = Vec::new();
    Receiver::from_owned_fd(OwnedFd::from(report))?.take(REPORT_BYTES_MAX).read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn command(launch: &Launch, report: io::PipeWriter) -> io::Result<Command> {
    let limits = Limits {
        nofile: launch.nofile,
        memory: launch.memory,
        cgroup: launch.cgroup.as_ref().map(|cgroup| cgroup.path().join("cgroup.procs").into_os_string()),
        groups: launch.account.as_ref().map(|account| account.groups.clone()),
        gid: launch.account.as_ref().map(|account| account.gid),
        uid: launch.account.as_ref().map(|account| account.uid),
    };
    let mut words = launch.child_command.iter();
    let mut command = Command::new(words.next().cloned().unwrap_or_default());
    command
        .args(words)
        .args(limits.arguments())
        .args(&launch.arguments)
        .current_dir(&launch.folder)
        .env_clear()
        .envs(launch.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(report))
        .stdout(launch.stdout.try_clone()?)
        .stderr(launch.stderr.try_clone()?);
    Ok(command)
}

async fn clean_up(child: &mut Child, children: &Children, tree: &Tree) {
    if let Err(error) = child.start_kill() {
        tracing::debug!(%error, "the child program has ended by itself");
    }
    children.wait(child).await;
    tree.end(Duration::ZERO).await;
}
