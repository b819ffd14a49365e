//! The command of a definition that builds an archive.
//!
//! As hms 0.4.4 does: `/bin/sh -c COMMAND FOLDER/build.sh ID` in the folder. Its environment is that of the definition, and
//! of the node only what every program needs: no secret of the node. Whatever the command has started is known by a mark in
//! the environment, and ends with it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::folders::BuildLimits;
use crate::base::clock;
use crate::bus::docks::definition::Definition;

/// Variables of the node that a build gets.
const PASSED: [&str; 7] = ["PATH", "HOME", "USER", "SHELL", "LANG", "LC_ALL", "TMPDIR"];
/// The variable with the mark.
const MARK: &str = "ROLLBOOK_BUILD";
/// How often the processes of a build are counted.
const LOOK: Duration = Duration::from_millis(250);
/// Largest piece of output.
const PIECE_BYTES: usize = 16 * 1024;
/// How long output may follow when the command has ended.
const LAST_OUTPUT: Duration = Duration::from_millis(500);
/// How often the rest of a build is killed before it counts as gone.
const KILLS_MAX: usize = 20;

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// The command was successful.
    Well,
    /// It was not, or took too much. The text says why.
    Badly(String),
}

/// Runs the command of a definition in a folder. What the command writes goes to `output`, in its order; nobody who does
/// not read it holds the build up for longer than it may take.
pub(super) async fn run(
    definition: &Definition,
    folder: &Path,
    limits: &BuildLimits,
    output: &mpsc::Sender<Bytes>,
) -> Ended {
    let Some(command) = definition.build() else { return Ended::Well };
    let mark = Uuid::new_v4().to_string();
    let mut child = match start(definition, command, folder, &mark) {
        Ok(child) => child,
        Err(error) => return Ended::Badly(format!("the build cannot be started: {error}")),
    };
    let group = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    let processes = BuildProcesses { group, mark, ended: false };
    let ended = follow(&mut child, &processes.mark, limits, output).await;
    processes.end().await;
    if let Err(error) = child.kill().await {
        tracing::debug!(%error, "the command of a build had ended");
    }
    ended
}

/// The processes of a build: those of the group of its command, and those with its mark. They end with this, also when
/// nobody waits for the build any more.
struct BuildProcesses {
    group: Option<Pid>,
    mark: String,
    ended: bool,
}

impl BuildProcesses {
    /// Kills them until there is none.
    async fn end(mut self) {
        for _ in 0..KILLS_MAX {
            self.kill_group();
            let left = marked(&self.mark).await;
            if left.is_empty() {
                self.ended = true;
                return;
            }
            kill(left);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tracing::warn!("processes of a build cannot be ended");
    }

    /// The command has not been waited for, or was a moment ago, so that its number is nobody else's.
    fn kill_group(&self) {
        if let Some(Err(error)) = self.group.map(|group| kill_process_group(group, Signal::KILL)) {
            tracing::debug!(%error, "the group of a build had ended");
        }
    }
}

impl Drop for BuildProcesses {
    fn drop(&mut self) {
        if !self.ended {
            self.kill_group();
            kill(find(&mark_of(&self.mark)));
        }
    }
}

fn start(definition: &Definition, command: &str, folder: &Path, mark: &str) -> std::io::Result<Child> {
    let mut build = Command::new("/bin/sh");
    build.arg("-c").arg(command).arg(folder.join("build.sh")).arg(definition.id()).current_dir(folder);
    build.env_clear().envs(PASSED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
    build.env("SERVICE_NAME", definition.id()).envs(definition.env().filter(|(name, value)| is_variable(name, value)));
    build.env(MARK, mark);
    build.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    build.process_group(0).kill_on_drop(true).spawn()
}

fn is_variable(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

async fn follow(child: &mut Child, mark: &str, limits: &BuildLimits, output: &mpsc::Sender<Bytes>) -> Ended {
    let (pieces, mut came) = mpsc::channel(4);
    let readers = [
        child.stdout.take().map(|pipe| tokio::spawn(read(pipe, pieces.clone()))),
        child.stderr.take().map(|pipe| tokio::spawn(read(pipe, pieces))),
    ];
    let (deadline, mut written) = (clock::now() + limits.time_max, 0_u64);
    let mut look = tokio::time::interval(LOOK);
    let ended = loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(deadline.into()) => {
                break Ended::Badly(format!("the build took longer than {} s", limits.time_max.as_secs()));
            }
            _ = look.tick() => {
                let count = marked(mark).await.len();
                if count > limits.processes_max {
                    break Ended::Badly(format!("the build had {count} processes, at most {}", limits.processes_max));
                }
            }
            Some(piece) = came.recv() => {
                written = written.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                if written > limits.output_bytes_max {
                    break Ended::Badly(format!("the build wrote more than {} bytes", limits.output_bytes_max));
                }
                let sent = tokio::time::timeout_at(deadline.into(), output.send(piece)).await;
                if matches!(sent, Ok(Err(_))) {
                    break Ended::Badly("whoever deployed has gone".to_owned());
                }
            }
            status = child.wait() => {
                let rest = async {
                    // A process that the command has left behind may hold the pipes open.
                    while let Ok(Some(piece)) = tokio::time::timeout(LAST_OUTPUT, came.recv()).await {
                        if output.send(piece).await.is_err() {
                            break;
                        }
                    }
                };
                tokio::time::timeout_at(deadline.into(), rest).await.ok();
                break match status {
                    Ok(status) if status.success() => Ended::Well,
                    Ok(status) => Ended::Badly(format!("the build ended with {status}")),
                    Err(error) => Ended::Badly(format!("the build cannot be waited for: {error}")),
                };
            }
            () = output.closed() => break Ended::Badly("whoever deployed has gone".to_owned()),
        }
    };
    readers.into_iter().flatten().for_each(|reader| reader.abort());
    ended
}

async fn read(mut pipe: impl AsyncRead + Unpin, pieces: mpsc::Sender<Bytes>) {
    loop {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        match pipe.read_buf(&mut piece).await {
            Ok(count) if count > 0 => {}
            _ => return,
        }
        if pieces.send(piece.freeze()).await.is_err() {
            return;
        }
    }
}

fn kill(pids: Vec<Pid>) {
    for pid in pids {
        if let Err(error) = kill_process(pid, Signal::KILL) {
            tracing::debug!(%error, ?pid, "a process of a build had ended");
        }
    }
}

fn mark_of(mark: &str) -> String {
    format!("{MARK}={mark}")
}

/// The processes with the mark in their environment.
async fn marked(mark: &str) -> Vec<Pid> {
    let line = mark_of(mark);
    tokio::task::spawn_blocking(move || find(&line)).await.unwrap_or_default()
}

fn find(line: &str) -> Vec<Pid> {
    let me = rustix::process::geteuid().as_raw();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = entries.filter(|entry| entry.metadata().is_ok_and(|of| me == 0 || of.uid() == me));
    own.filter_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        environment.split(|byte| *byte == 0).any(|variable| variable == line.as_bytes()).then_some(pid)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limits() -> BuildLimits {
        BuildLimits {
            folder: std::path::PathBuf::new(),
            archive_bytes_max: 1 << 20,
            files_bytes_max: 1 << 20,
            files_max: 100,
            builds: true,
            upload_timeout: Duration::from_secs(20),
            time_max: Duration::from_secs(20),
            output_bytes_max: 1 << 20,
            processes_max: 8,
            uploads_max: 1,
        }
    }

    async fn built(build: &str, limits: BuildLimits) -> (Ended, String) {
        let folder = tempfile::tempdir().unwrap();
        let mut definition = Definition::new("app");
        definition.merge(json!({"build": build, "env": {"A": "one"}}).as_object().unwrap().clone()).unwrap();
        let (output, mut came) = mpsc::channel::<Bytes>(4);
        let text = tokio::spawn(async move {
            let mut text = String::new();
            while let Some(piece) = came.recv().await {
                text.push_str(&String::from_utf8_lossy(&piece));
            }
            text
        });
        let ended = run(&definition, folder.path(), &limits, &output).await;
        drop(output);
        (ended, text.await.unwrap())
    }

    #[tokio::test]
    async fn a_build_has_the_environment_of_its_definition_and_its_output_is_followed() {
        let (ended, text) = built("echo $A $SERVICE_NAME $1; echo wrong >&2; basename $0", limits()).await;
        assert_eq!(ended, Ended::Well);
        for line in ["one app app", "wrong", "build.sh"] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[tokio::test]
    async fn a_build_that_fails_says_how() {
        let (ended, _) = built("exit 3", limits()).await;
        assert_eq!(ended, Ended::Badly("the build ended with exit status: 3".to_owned()));
    }

    #[tokio::test]
    async fn a_build_that_hangs_floods_or_forks_ends() {
        let hangs = BuildLimits { time_max: Duration::from_millis(300), ..limits() };
        let floods = BuildLimits { output_bytes_max: 100_000, ..limits() };
        for (build, limits, why) in [
            ("sleep 1000", hangs, "longer than"),
            ("yes", floods, "wrote more than 100000 bytes"),
            ("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done; wait", limits(), "processes, at most 8"),
        ] {
            let (ended, _) = built(build, limits).await;
            assert!(matches!(&ended, Ended::Badly(text) if text.contains(why)), "{build}: {ended:?}");
        }
    }

    fn is_alive(name: &str) -> bool {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .any(|entry| std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains(name)))
    }

    /// With a name of its own, so that the process is found without what it is killed by.
    fn sleeper(start: &str) -> (String, String) {
        let name = format!("left-{}", Uuid::new_v4());
        let command = format!("ln -s $(command -v sleep) {name}; {start} ./{name} 1000 & sleep 0.3");
        (name, command)
    }

    #[tokio::test]
    async fn nothing_that_a_build_has_started_outlives_it() {
        for start in ["setsid", "env -i", ""] {
            let (name, command) = sleeper(start);
            let (ended, _) = built(&command, limits()).await;
            assert_eq!(ended, Ended::Well);
            assert!(!is_alive(&name), "{start:?} {name} is still there");
        }
    }

    #[tokio::test]
    async fn a_build_for_which_nobody_waits_any_more_ends_with_all_that_it_has_started() {
        let (name, command) = sleeper("setsid");
        let until = async |alive: bool| {
            let became = async {
                while is_alive(&name) != alive {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), became).await.unwrap();
        };
        {
            let command = format!("{command}; sleep 1000");
            let mut building = std::pin::pin!(built(&command, limits()));
            tokio::select! {
                _ = &mut building => panic!("the build has ended"),
                () = until(true) => {}
            }
        }
        until(false).await;
    }
}
