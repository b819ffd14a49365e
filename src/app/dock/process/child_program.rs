//! The hidden subcommand that stands between the agent and a service: our own binary, started once more, sets limits,
//! groups and user of itself and then becomes the program of the service.
//!
//! Standard input is a pipe to the agent. The pipe closes when the program runs, and takes the text of an error before.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, setsid};
use rustix::stdio::{dup2_stdin, stdin};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Sets what `arguments` ask for, which [`Limits::arguments`] wrote, and becomes the program behind `--`. Returns only
/// when that failed, with the exit code.
pub(crate) fn run_child(arguments: impl Iterator<Item = OsString>) -> u8 {
    let report = match take_stdin() {
        Ok(report) => report,
        Err(_) => return 127,
    };
    let error = become_program(arguments);
    // The agent reads this text. When the agent is gone, nobody does, and the exit code is all that is left.
    File::from(report).write_all(error.as_bytes()).ok();
    127
}

/// Moves the pipe to the agent out of the way, and gives the program `/dev/null` to read.
fn take_stdin() -> io::Result<OwnedFd> {
    let report = rustix::io::fcntl_dupfd_cloexec(stdin(), 3)?;
    dup2_stdin(File::open("/dev/null")?)?;
    Ok(report)
}

fn become_program(mut arguments: impl Iterator<Item = OsString>) -> String {
    let mut limits = Limits::default();
    loop {
        let Some(key) = arguments.next() else { return "no program".into() };
        if key == "--" {
            break;
        }
        let value = arguments.next().unwrap_or_default();
        if limits.set(&key, &value).is_none() {
            return format!("unknown argument {}", key.display());
        }
    }
    if let Err(error) = limits.apply() {
        return error;
    }
    let Some(program) = arguments.next() else { return "no program".into() };
    let error = Command::new(&program).args(arguments).exec();
    format!("{}: {}", program.display(), describe(&error))
}

/// The text of an error without the number.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "No such file or directory".into(),
        io::ErrorKind::PermissionDenied => "Permission denied".into(),
        _ => error.to_string(),
    }
}

/// What is set before the program of a service runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The limit of open files.
    pub(crate) nofile: Option<u64>,
    /// The limit of address space in bytes.
    pub(crate) memory: Option<u64>,
    /// The `cgroup.procs` file to join.
    pub(crate) cgroup: Option<OsString>,
    /// The numbers of the groups.
    pub(crate) groups: Option<Vec<u32>>,
    /// The number of the group.
    pub(crate) gid: Option<u32>,
    /// The number of the user.
    pub(crate) uid: Option<u32>,
}

impl Limits {
    /// The arguments that [`run_child`] reads, up to the program.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |key: &str, value: Option<OsString>| {
            if let Some(value) = value {
                arguments.extend([key.into(), value]);
            }
        };
        add("--nofile", self.nofile.map(|number| number.to_string().into()));
        add("--memory", self.memory.map(|number| number.to_string().into()));
        add("--cgroup", self.cgroup.clone());
        let groups = self.groups.as_ref();
        add("--groups", groups.map(|ids| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",").into()));
        add("--gid", self.gid.map(|number| number.to_string().into()));
        add("--uid", self.uid.map(|number| number.to_string().into()));
        arguments.push("--".into());
        arguments
    }

    fn set(&mut self, key: &OsStr, value: &OsStr) -> Option<()> {
        let text = value.to_str();
        match key.to_str()? {
            "--nofile" => self.nofile = Some(text?.parse().ok()?),
            "--memory" => self.memory = Some(text?.parse().ok()?),
            "--cgroup" => self.cgroup = Some(value.to_owned()),
            "--groups" => self.groups = Some(text?.split(',').map(str::parse).collect::<Result<_, _>>().ok()?),
            "--gid" => self.gid = Some(text?.parse().ok()?),
            "--uid" => self.uid = Some(text?.parse().ok()?),
            _ => return None,
        }
        Some(())
    }

    /// A session of its own first, so that no signal of a terminal reaches the program; the user last, because the
    /// other steps may need the rights of the agent.
    fn apply(&self) -> Result<(), String> {
        setsid().map_err(|error| format!("could not start a session: {error}"))?;
        if let Some(file) = &self.cgroup {
            OpenOptions::new()
                .write(true)
                .open(file)
                .and_then(|mut file| file.write_all(b"0"))
                .map_err(|error| format!("could not join the cgroup: {error}"))?;
        }
        if let Some(nofile) = self.nofile {
            limit(Resource::Nofile, nofile).map_err(|error| format!("nofile {nofile}: {error}"))?;
        }
        if let Some(memory) = self.memory {
            limit(Resource::As, memory).map_err(|error| format!("memory {memory}: {error}"))?;
        }
        self.change_user().map_err(|error| format!("could not change the user: {error}"))
    }

    /// The ids of this thread are those of the program: `exec` ends all other threads.
    fn change_user(&self) -> io::Result<()> {
        if let Some(groups) = &self.groups {
            let groups: Vec<_> = groups.iter().map(|id| rustix::fs::Gid::from_raw(*id)).collect();
            set_thread_groups(&groups)?;
        }
        if let Some(gid) = self.gid.map(rustix::fs::Gid::from_raw) {
            set_thread_res_gid(gid, gid, gid)?;
        }
        if let Some(uid) = self.uid.map(rustix::fs::Uid::from_raw) {
            set_thread_res_uid(uid, uid, uid)?;
        }
        Ok(())
    }
}

/// Sets a limit for good. A limit above the hard one needs rights that the agent may not have.
fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let hard = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).map_err(|error| match hard {
        Some(hard) if value > hard => io::Error::other(format!("is above the hard limit {hard}")),
        _ => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_survive_the_way_through_arguments() {
        let limits = Limits {
            nofile: Some(64),
            memory: Some(1 << 30),
            cgroup: Some("/sys/fs/x/cgroup.procs".into()),
            groups: Some(vec![1, 2]),
            gid: Some(1),
            uid: Some(2),
        };
        let mut read = Limits::default();
        let arguments = limits.arguments();
        for pair in arguments.chunks(2) {
            if let [key, value] = pair {
                read.set(key, value).unwrap();
            }
        }
        assert_eq!(read, limits);
        assert_eq!(arguments.last().unwrap(), "--");
        assert!(read.set("--nofile".as_ref(), "many".as_ref()).is_none());
        assert!(read.set("--other".as_ref(), "1".as_ref()).is_none());
    }
}
