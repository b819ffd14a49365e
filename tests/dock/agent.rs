//! The agent as a process, which ends with the test, and all its services too.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::dock::hub::{Hub, PATIENCE};
use crate::harness;
use crate::harness::node::rollbook;

pub(crate) struct Agent {
    child: Option<Child>,
    arguments: Vec<String>,
    pub(crate) id: String,
    pub(crate) folder: TempDir,
}

impl Agent {
    /// Starts an agent of a dock with a name of its own.
    pub(crate) fn start(hubs: &[&Hub], arguments: &[&str]) -> Self {
        let addresses: Vec<String> = hubs.iter().map(|hub| hub.address.clone()).collect();
        Self::start_at(&addresses, arguments)
    }

    /// Starts an agent that connects to one of these addresses.
    pub(crate) fn start_at(addresses: &[String], arguments: &[&str]) -> Self {
        let id = format!("dock-{}", uuid::Uuid::new_v4().simple());
        let mut all = vec!["--hms".into(), addresses.join(","), "--id".into(), id.clone(), "--default".into()];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let mut agent = Self { child: None, arguments: all, id, folder: TempDir::new().unwrap() };
        agent.start_again();
        agent
    }

    pub(crate) fn start_again(&mut self) {
        self.child = Some(self.command().spawn().unwrap());
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = rollbook();
        command
            .arg("dock")
            .args(&self.arguments)
            .arg("--data")
            .arg(self.folder.path())
            .env("ROLLBOOK_TOKEN", "secret")
            .env("ROLLBOOK_URL", "http://public")
            .stdin(Stdio::null())
            .stderr(fs::File::options().append(true).create(true).open(self.folder.path().join("agent.log")).unwrap());
        command
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// SIGKILL, and what is left of the services stays.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        signal(self.pid(), Signal::TERM);
        let child = self.child.as_mut().unwrap();
        let status = wait_for("the agent stops", || child.try_wait().unwrap());
        self.child = None;
        status
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        let variable = format!("ROLLBOOK_DOCK={}", self.id);
        for pid in pids().into_iter().filter(|pid| has_variable(*pid, &variable)) {
            signal(pid, Signal::KILL);
        }
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.path("agent.log")).unwrap_or_default());
        }
        self.remove_cgroups();
    }
}

impl Agent {
    fn remove_cgroups(&self) {
        let state = fs::read_to_string(self.path("dock.json")).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap_or_default();
        let Some(directory) = state["directory"].as_str() else { return };
        for mount in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
            let base = PathBuf::from(mount).join(format!("rollbook-dock-{directory}"));
            let deadline = Instant::now() + Duration::from_secs(2);
            while base.exists() && Instant::now() < deadline {
                for group in fs::read_dir(&base).into_iter().flatten().flatten() {
                    fs::remove_dir(group.path()).ok();
                }
                fs::remove_dir(&base).ok();
            }
        }
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).ok();
}

pub(crate) fn pids() -> Vec<u32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

pub(crate) fn has_variable(pid: u32, variable: &str) -> bool {
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
}

/// True while the process runs. A process that ended and was not waited for does not run.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

/// Waits until `check` gives a value.
pub(crate) fn wait_for<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    harness::wait_for(what, PATIENCE, check)
}

/// The number that a process wrote into a file.
pub(crate) fn pid_in(path: &std::path::Path) -> u32 {
    wait_for("a pid in a file", || fs::read_to_string(path).ok()?.trim().parse().ok())
}
