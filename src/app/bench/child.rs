//! Starts servers for the benchmark, with temporary data. Invariant: both end with the benchmark.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use reqwest::Url;
use tokio::task::spawn_blocking;

use super::units::nanos;

/// How long a server may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Lines of a failed server's log that are shown.
const LOG_LINES: usize = 12;

/// A temporary directory. It is removed when this value is dropped.
#[derive(Debug)]
pub(super) struct ScratchDir(PathBuf);

impl ScratchDir {
    /// A new directory inside `parent`.
    pub(super) fn new(parent: &Path) -> Result<Self> {
        let nonce = nanos(SystemTime::UNIX_EPOCH.elapsed()?);
        let path = parent.join(format!("rollbook-bench-{}-{nonce:x}", process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A running server. It is killed when this value is dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    /// The lines of the server before it was ready.
    lines: Vec<String>,
}

impl Server {
    /// Starts this program with `arguments` and more environment, writes its standard error to `log`, and waits for the
    /// line `ready`.
    pub(super) async fn start(
        arguments: Vec<String>,
        environment: &'static [(&'static str, &'static str)],
        log: PathBuf,
    ) -> Result<Self> {
        spawn_blocking(move || Self::start_blocking(&arguments, environment, &log)).await?
    }

    fn start_blocking(arguments: &[String], environment: &[(&str, &str)], log: &Path) -> Result<Self> {
        let program = env::current_exe().context("cannot find this program")?;
        let errors = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("cannot start the server")?;
        let output = child.stdout.take().context("the server has no standard output")?;
        let mut server = Self { child, lines: Vec::new() };
        let (sender, receiver) = sync_channel(64);
        thread::Builder::new().name("server-output".to_owned()).spawn(move || {
            // The receiver is gone after `ready`. Reading goes on, so that the server does not block on a full pipe.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                sender.try_send(line).ok();
            }
        })?;
        match server.wait_until_ready(&receiver) {
            Ok(()) => Ok(server),
            Err(error) => Err(error.context(format!("`{}`{}", arguments.join(" "), last_lines(log)))),
        }
    }

    fn wait_until_ready(&mut self, lines: &Receiver<String>) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) if line.trim() == "ready" => return Ok(()),
                Ok(line) => self.lines.push(line),
                Err(_) => bail!("the server did not become ready"),
            }
        }
    }

    /// The URL on the line that starts with `name`.
    pub(super) fn url(&self, name: &str) -> Result<Url> {
        let url = |line: &String| {
            let mut words = line.split_whitespace();
            (words.next() == Some(name)).then(|| words.next().map(str::to_owned))?
        };
        let printed = self.lines.iter().find_map(url).and_then(|url| Url::parse(&url).ok());
        printed.with_context(|| format!("the server printed no URL for `{name}`"))
    }

    /// Process id of the server.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let mut lines: Vec<&str> = text.lines().rev().take(LOG_LINES).collect();
    lines.reverse();
    if lines.is_empty() { String::new() } else { format!(" said:\n{}", lines.join("\n")) }
}

/// Bytes of the files below `path` on the disk. A file that vanishes meanwhile counts nothing.
pub(super) fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks().saturating_mul(512),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
