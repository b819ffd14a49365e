//! From a definition to a running process.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::definition::document::Definition;
use super::super::output::task::Output;
use super::super::process::accounts::{Account, find_account};
use super::super::process::cgroup::Cgroup;
use super::super::process::launch::{Launch, launch};
use super::super::process::running::Process;
use super::context::Context;

/// The variable by which the processes of one start of a service are found.
const PROCESS_VARIABLE: &str = "ROLLBOOK_PROCESS";

/// Why no process was started.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    /// The service cannot be started as its definition says. Counts as an end of the service.
    #[error("{0}")]
    Service(String),
    /// The state file could not name the process. That is no fault of the service, and does not count.
    #[error("{0}")]
    State(String),
}

impl From<String> for SpawnError {
    fn from(text: String) -> Self {
        Self::Service(text)
    }
}

/// What is decided before a process is started, so that the state file can name the process.
#[derive(Debug)]
pub(super) struct Plan {
    /// `NAME=value` that only the new process has.
    pub(super) variable: String,
    /// The program and its arguments.
    pub(super) arguments: Vec<String>,
    /// The folder in which the process runs.
    pub(super) folder: PathBuf,
    /// The cgroup of the process.
    pub(super) cgroup: Option<Cgroup>,
    account: Option<Account>,
    memory: Option<u64>,
}

/// The folder in which a service runs: that of its build, or one of its own when the service has no build.
pub(super) fn folder(context: &Context, service: &str, definition: &Definition) -> Result<PathBuf, String> {
    match &definition.deployed {
        None => Ok(context.data.work(service)),
        Some(deployed) => context
            .builds
            .path(service, deployed)
            .ok_or_else(|| format!("`deployed` of {service} is not a time: {deployed:?}")),
    }
}

/// Decides how a process is started.
///
/// # Errors
///
/// The sentence says what of the definition is wrong or missing on this machine.
pub(super) fn plan(context: &Context, service: &str, definition: &Definition) -> Result<Plan, String> {
    let arguments = definition.arguments(service).map_err(|error| error.to_string())?;
    if arguments.first().is_none_or(String::is_empty) {
        return Err(format!("{service} has no start command"));
    }
    let account = definition.user.as_deref().map(find_account).transpose()?;
    let folder = folder(context, service, definition)?;
    if definition.deployed.is_none() {
        make_work_folder(&folder, account.as_ref())?;
    } else if !folder.is_dir() {
        return Err(format!("the build of {service} is not here: sync the service"));
    }
    let instance = uuid::Uuid::new_v4().simple().to_string();
    let (cgroup, memory) = make_cgroup(context, service, &instance, definition.memory);
    let variable = format!("{PROCESS_VARIABLE}={}/{service}/{instance}", context.dock);
    Ok(Plan { variable, arguments, folder, cgroup, account, memory })
}

/// A service without a cgroup runs too: its processes are then found by their environment, and memory is limited by the
/// limit of address space.
fn make_cgroup(context: &Context, service: &str, instance: &str, memory: Option<u64>) -> (Option<Cgroup>, Option<u64>) {
    let Some(cgroups) = &context.cgroups else { return (None, memory) };
    match cgroups.create(&format!("{service}-{instance}"), memory) {
        Ok(cgroup) => (Some(cgroup), memory.filter(|_| !cgroups.limits_memory())),
        Err(error) => {
            tracing::warn!(service, %error, "could not make a cgroup");
            (None, memory)
        }
    }
}

fn make_work_folder(folder: &Path, account: Option<&Account>) -> Result<(), String> {
    let made = fs::create_dir_all(folder).and_then(|()| match account {
        Some(account) if rustix::process::geteuid().is_root() => chown(folder, Some(account.uid), Some(account.gid)),
        _ => Ok(()),
    });
    made.map_err(|error| format!("could not make {}: {error}", folder.display()))
}

/// Starts a process.
///
/// # Errors
///
/// The sentence says why the process does not run.
pub(super) async fn start(
    context: &Arc<Context>,
    service: &str,
    definition: &Definition,
    plan: Plan,
    output: &Output,
) -> Result<Process, String> {
    let (stdout, stderr) = output.writers().map_err(|error| format!("could not open the output: {error}"))?;
    let env = environment(context, service, definition, &plan);
    let start = Launch {
        child_command: context.child_command.clone(),
        arguments: plan.arguments,
        folder: plan.folder,
        env,
        variable: plan.variable,
        stdout,
        stderr,
        nofile: definition.nofile,
        memory: plan.memory,
        cgroup: plan.cgroup,
        account: plan.account,
    };
    launch(start, &context.children).await.map_err(|error| error.to_string())
}

/// The environment of the agent without its secrets, and what the dock and the service add.
fn environment(context: &Context, service: &str, definition: &Definition, plan: &Plan) -> Vec<(OsString, OsString)> {
    let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().filter(|(name, _)| !is_private(name)).collect();
    if let Some(account) = &plan.account {
        for (name, value) in [("USER", &account.name), ("LOGNAME", &account.name), ("HOME", &account.home)] {
            match value {
                Some(value) => env.insert(name.into(), value.into()),
                None => env.remove(OsStr::new(name)),
            };
        }
    }
    env.insert("SERVICE_NAME".into(), service.into());
    env.extend(definition.env.iter().map(|(name, value)| (name.into(), value.into())));
    env.insert("ROLLBOOK_DOCK".into(), context.dock.as_str().into());
    if let Some((name, value)) = plan.variable.split_once('=') {
        env.insert(name.into(), value.into());
    }
    env.into_iter().collect()
}

/// Secrets of the agent, and what ties a process to whoever started the agent.
fn is_private(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_uppercase();
    let is_secret = ["TOKEN", "SECRET", "PASS", "CREDENTIAL", "KEY"].iter().any(|word| name.contains(word));
    name.starts_with("ROLLBOOK_") && is_secret
        || matches!(&*name, "NOTIFY_SOCKET" | "WATCHDOG_PID" | "WATCHDOG_USEC" | "LISTEN_PID" | "LISTEN_FDS")
        || matches!(&*name, "LISTEN_FDNAMES" | "INVOCATION_ID" | "JOURNAL_STREAM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_agent_stay_with_the_agent() {
        for private in ["ROLLBOOK_TOKEN", "rollbook_token", "ROLLBOOK_TOKEN_FILE", "ROLLBOOK_TLS_KEY", "NOTIFY_SOCKET"]
        {
            assert!(is_private(OsStr::new(private)), "{private}");
        }
        for public in ["PATH", "ROLLBOOK_URL", "HOME", "GITHUB_TOKEN"] {
            assert!(!is_private(OsStr::new(public)), "{public}");
        }
    }
}
