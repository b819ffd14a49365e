//! Control groups, version 2: the kernel keeps the list of the processes of a service.
//!
//! The agent makes groups below its own one, which works when the agent runs as root or when systemd delegated the group
//! (`Delegate=yes`). The memory controller can be used only where no process is in the parent group itself: with
//! `DelegateSubgroup=agent` the agent's own group is `agent`, and services get groups beside that one.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Deepest nesting of groups that a service may make and that is still looked into.
const DEPTH_MAX: usize = 8;

/// The group under which the groups of all services are made.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    base: PathBuf,
    memory: bool,
}

/// The group of one process tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroups {
    /// Makes the group with `name`, if the kernel and the rights of this process allow one that can be killed as a whole.
    pub(crate) fn detect(name: &str) -> Option<Self> {
        let mount = mount_point(&fs::read_to_string("/proc/self/mountinfo").ok()?)?;
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own_group(&groups)?;
        let own = mount.join(own.trim_start_matches('/'));
        let parent = match own.parent() {
            Some(parent) if own.file_name().is_some_and(|name| name == "agent") && own != mount => parent.to_owned(),
            _ => own,
        };
        let base = parent.join(name);
        match fs::create_dir(&base) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return None,
            _ => {}
        }
        let writable = fs::OpenOptions::new().write(true).open(base.join("cgroup.kill")).is_ok()
            && fs::OpenOptions::new().write(true).open(base.join("cgroup.procs")).is_ok();
        if !writable {
            drop_group(&base);
            return None;
        }
        // Fails where the controller is missing or where the parent group has processes. Memory limits are then kept
        // by the limit of address space.
        let memory = write(&parent.join("cgroup.subtree_control"), "+memory").is_ok()
            && write(&base.join("cgroup.subtree_control"), "+memory").is_ok();
        Some(Self { base, memory })
    }

    /// True when memory limits work.
    pub(crate) fn limits_memory(&self) -> bool {
        self.memory
    }

    /// Makes a group for one process tree.
    ///
    /// # Errors
    ///
    /// The group cannot be made, or its limit cannot be set.
    pub(crate) fn create(&self, name: &str, memory: Option<u64>) -> io::Result<Cgroup> {
        let path = self.base.join(name);
        fs::create_dir(&path)?;
        if let Some(memory) = memory.filter(|_| self.memory) {
            write(&path.join("memory.max"), &memory.to_string()).inspect_err(|_| drop_group(&path))?;
            // Swap would make the limit soft. The file is missing where there is no swap.
            if let Err(error) = write(&path.join("memory.swap.max"), "0")
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(group = %path.display(), %error, "a limit of memory does not count swap");
            }
        }
        Ok(Cgroup { path })
    }

    /// Removes the groups that have no process, and the base when all are removed.
    pub(crate) fn remove_empty(&self) {
        for group in subgroups(&self.base) {
            Cgroup { path: group }.remove();
        }
        drop_group(&self.base);
    }
}

impl Cgroup {
    /// A group that an earlier start of the agent made.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The folder of the group.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// True until the group is removed.
    pub(crate) fn exists(&self) -> bool {
        self.path.join("cgroup.procs").exists()
    }

    /// The processes of the group and of the groups below.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        collect_pids(&self.path, DEPTH_MAX, &mut pids);
        pids
    }

    /// Sends SIGKILL to all processes of the group and below, in one step. False where the kernel cannot.
    pub(crate) fn kill(&self) -> bool {
        write(&self.path.join("cgroup.kill"), "1").is_ok()
    }

    /// Removes the group. Nothing happens while the group has a process.
    pub(crate) fn remove(&self) {
        remove_groups(&self.path, DEPTH_MAX);
    }
}

fn collect_pids(group: &Path, depth: usize, pids: &mut Vec<i32>) {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|pid| pid.parse::<i32>().ok()).filter(|pid| *pid > 0));
    if let Some(depth) = depth.checked_sub(1) {
        for below in subgroups(group) {
            collect_pids(&below, depth, pids);
        }
    }
}

fn remove_groups(group: &Path, depth: usize) {
    if let Some(depth) = depth.checked_sub(1) {
        for below in subgroups(group) {
            remove_groups(&below, depth);
        }
    }
    drop_group(group);
}

fn drop_group(group: &Path) {
    if let Err(error) = fs::remove_dir(group) {
        tracing::debug!(group = %group.display(), %error, "a cgroup stays");
    }
}

fn subgroups(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else { return Vec::new() };
    entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect()
}

/// One write: the kernel takes the text of a control file as a whole.
fn write(file: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
}

/// Finds where version 2 is mounted: `... - cgroup2 ...`, with the mount point as fifth field.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| fields.split(' ').nth(4))?.map(PathBuf::from)
    })
}

/// The group of this process: the line of version 2 begins with `0::`.
fn own_group(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_is_found_beside_version_1() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n31 30 0:27 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point("30 25 0:26 / /sys rw - sysfs sysfs rw"), None);
        assert_eq!(own_group("2:memory:/x\n0::/system.slice/dock.service\n"), Some("/system.slice/dock.service"));
    }
}
