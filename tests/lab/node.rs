//! One node of the lab: a host, a disk, a process.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::disk::{self, Medium, Volume};
use crate::harness::ms;
use crate::hosts;

/// Bound of a start, recovery included.
pub(crate) const READY: Duration = Duration::from_secs(30);

/// How its process was started.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) binary: PathBuf,
    /// Number of the node.
    pub(crate) node: u64,
    /// The founders with their peer addresses, for a founder of a cluster of several.
    pub(crate) founders: Option<String>,
    /// It has a port for other nodes.
    pub(crate) peers: bool,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) host: u8,
    pub(crate) volume: Volume,
    /// Environment of the next start.
    pub(crate) environment: Vec<(String, String)>,
    /// Told to stand still.
    pub(crate) paused: bool,
    medium: Medium,
    namespace: String,
    child: Option<Child>,
    stdout: PathBuf,
    stderr: PathBuf,
    /// Where the output of the present process begins.
    began: u64,
}

impl Node {
    /// An empty node; its output goes to files in `evidence`.
    pub(crate) fn new(host: u8, namespace: String, dir: &Path, evidence: &Path, medium: Medium) -> Self {
        Self {
            host,
            volume: Volume::create(dir, &format!("disk-{host}"), medium),
            environment: Vec::new(),
            paused: false,
            medium,
            namespace,
            child: None,
            stdout: evidence.join(format!("host-{host}.out")),
            stderr: evidence.join(format!("host-{host}.log")),
            began: 0,
        }
    }

    /// Starts the process and does not wait.
    pub(crate) fn spawn(&mut self, start: &Start) {
        assert!(self.child.is_none(), "the node on host {} runs", self.host);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace)).arg(&start.binary).arg("serve");
        command.args(["--node", &start.node.to_string(), "--insecure", "--data"]).arg(self.volume.data());
        command.args(["--web", &hosts::web(self.host).to_string(), "--log", &hosts::log(self.host).to_string()]);
        if start.peers {
            command.args(["--peer", &hosts::peer(self.host).to_string()]);
        }
        if let Some(founders) = &start.founders {
            command.args(["--cluster", founders]);
        }
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROLLBOOK_")) {
            command.env_remove(name);
        }
        if self.medium == Medium::Disk {
            command.env("ROLLBOOK_BOOK__RESERVE_BYTES", disk::RESERVE.to_string());
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.began = fs::metadata(&self.stdout).map_or(0, |found| found.len());
        let open = |path: &Path| -> File {
            OpenOptions::new().create(true).append(true).open(path).expect("open the output of a node")
        };
        command.stdin(Stdio::null()).stdout(open(&self.stdout)).stderr(open(&self.stderr));
        self.child = Some(command.spawn().expect("start a node"));
        self.paused = false;
    }

    /// Whether the present process has said that it is ready.
    fn said_ready(&self) -> bool {
        let text = fs::read_to_string(&self.stdout).unwrap_or_default();
        let fresh = text.get(usize::try_from(self.began).unwrap_or(0)..).unwrap_or_default();
        fresh.lines().any(|line| line == "ready")
    }

    /// Waits until it is ready; how it ended, if it did.
    pub(crate) fn await_ready(&mut self) -> Result<(), Option<i32>> {
        let deadline = Instant::now() + READY;
        while !self.said_ready() {
            if let Some(code) = self.ended() {
                return Err(code);
            }
            assert!(
                Instant::now() < deadline,
                "host {} was not ready after {READY:?}: {}",
                self.host,
                self.last_words()
            );
            std::thread::sleep(ms(20));
        }
        Ok(())
    }

    /// The exit code (none after a signal) if there was a process that has ended.
    pub(crate) fn ended(&mut self) -> Option<Option<i32>> {
        let status = self.child.as_mut()?.try_wait().expect("wait for a node")?;
        self.child = None;
        Some(status.code())
    }

    /// Waits for its end.
    pub(crate) fn await_end(&mut self, bound: Duration) -> Option<i32> {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(code) = self.ended() {
                return code;
            }
            assert!(Instant::now() < deadline, "host {} still runs after {bound:?}: {}", self.host, self.last_words());
            std::thread::sleep(ms(10));
        }
    }

    /// There is a process, as far as anybody has looked.
    pub(crate) const fn runs(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        let Some(child) = &self.child else { panic!("no process on host {}", self.host) };
        kill_process(Pid::from_child(child), signal).expect("signal a node");
        self.paused = match signal {
            Signal::STOP => true,
            Signal::CONT => false,
            _ => self.paused,
        };
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).expect("kill a node");
        }
    }

    /// The end of its log, and where the rest is.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        format!("the end of {}:\n{tail}", self.stderr.display())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
