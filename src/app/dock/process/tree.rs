//! A process and everything that it started, also what detached itself from the process.

use std::collections::HashSet;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};

use super::cgroup::Cgroup;
use super::proc_fs::{Stat, has_variable, pids, stat};

/// How often the end of the tree is looked for.
const POLL: Duration = Duration::from_millis(20);
/// How long SIGKILL may take. A process in an uninterruptible read is given up then.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How the members of one process tree are found.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    /// The first process, whose session most members share. 0 when the first process ended long ago: then another
    /// session may have its number.
    pub(crate) pid: i32,
    /// The start time of the first process.
    pub(crate) start_time: u64,
    /// `NAME=value` that only processes of this tree have in their environment.
    pub(crate) variable: String,
    /// The cgroup of the tree, where the kernel has one for us.
    pub(crate) cgroup: Option<Cgroup>,
}

impl Tree {
    /// The members that are alive.
    ///
    /// With a cgroup the kernel knows the members. Without, a member is a process with the tree's variable in its
    /// environment, a process of the session of the first process, and whatever such processes started.
    pub(crate) fn members(&self) -> Vec<Stat> {
        match &self.cgroup {
            Some(cgroup) if cgroup.exists() => {
                cgroup.pids().into_iter().filter_map(stat).filter(Stat::is_alive).collect()
            }
            _ => self.scan(),
        }
    }

    /// The first process of a tree of which only the variable is known: the leader of a session, because every service
    /// begins one.
    pub(crate) fn find_first(&self) -> Option<Stat> {
        let leaders = self.scan().into_iter().filter(|stat| stat.session == stat.pid);
        leaders.min_by_key(|stat| stat.start_time)
    }

    fn scan(&self) -> Vec<Stat> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let all: Vec<Stat> = pids().into_iter().filter(|pid| *pid != own).filter_map(stat).collect();
        // A session keeps its number as long as it has a member, so no later session can have the number meanwhile. But
        // when the session has ended, a later process with this number may have founded another one.
        let known = self.pid > 0 && !all.iter().any(|stat| stat.pid == self.pid && stat.start_time != self.start_time);
        let is_root = |stat: &Stat| {
            known && (stat.pid == self.pid || stat.session == self.pid)
                || stat.is_alive() && has_variable(stat.pid, &self.variable)
        };
        let mut members: HashSet<i32> = all.iter().filter(|stat| is_root(stat)).map(|stat| stat.pid).collect();
        loop {
            let found: Vec<i32> = all
                .iter()
                .filter(|stat| members.contains(&stat.parent) && !members.contains(&stat.pid))
                .map(|stat| stat.pid)
                .collect();
            if found.is_empty() {
                break;
            }
            members.extend(found);
        }
        all.into_iter().filter(|stat| members.contains(&stat.pid) && stat.is_alive()).collect()
    }

    /// Sends a signal to all members.
    fn signal(&self, signal: Signal) {
        for member in &self.members() {
            send(member, signal);
        }
    }

    /// Ends the whole tree: SIGTERM, and SIGKILL for what is left after `grace`. Returns when no member is left, or
    /// false when members outlived SIGKILL.
    pub(crate) async fn end(&self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        let mut told = HashSet::new();
        let mut wait = Duration::from_millis(2);
        while self.tell_to_end(&mut told) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.kill().await;
            }
            sleep(wait.min(left)).await;
            wait = (wait * 2).min(POLL);
        }
        self.remove_cgroup();
        true
    }

    /// Sends SIGTERM to the members that did not get the signal yet, and says whether there are members. A process that
    /// was being forked while the others got the signal is found by a later call.
    fn tell_to_end(&self, told: &mut HashSet<(i32, u64)>) -> bool {
        let members = self.members();
        for member in &members {
            if told.insert((member.pid, member.start_time)) {
                send(member, Signal::TERM);
            }
        }
        !members.is_empty()
    }

    /// Sends SIGKILL until no member is left. A tree that forks all the time is killed at once by its cgroup; without
    /// one all members are stopped first, so nobody forks while others are killed.
    async fn kill(&self) -> bool {
        let deadline = Instant::now() + KILL_TIMEOUT;
        while Instant::now() < deadline {
            match &self.cgroup {
                Some(cgroup) if cgroup.kill() => {}
                _ => {
                    self.signal(Signal::STOP);
                    self.signal(Signal::KILL);
                }
            }
            if self.members().is_empty() {
                self.remove_cgroup();
                return true;
            }
            sleep(POLL).await;
        }
        tracing::error!(process = self.variable, pid = self.pid, "processes outlived SIGKILL and are left alone");
        false
    }

    fn remove_cgroup(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
    }
}

/// Sends a signal to exactly the process that `member` was read from. A process that has ended meanwhile needs none.
pub(super) fn send(member: &Stat, signal: Signal) {
    let Some(pid) = Pid::from_raw(member.pid) else { return };
    let sent = pidfd_open(pid, PidfdFlags::empty()).and_then(|pidfd| {
        // From here on the pidfd stands for one process. Its start time shows that this process is the member.
        match stat(member.pid).is_some_and(|now| now.start_time == member.start_time) {
            true => pidfd_send_signal(&pidfd, signal),
            false => Ok(()),
        }
    });
    if let Err(error) = sent
        && error != Errno::SRCH
    {
        tracing::warn!(pid = member.pid, ?signal, %error, "could not signal a process");
    }
}
