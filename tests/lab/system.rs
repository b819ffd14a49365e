//! Programs of the system: run to their end, or start a guard that cleans up whatever happens.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What the lab needs, and the Debian package that has it.
const TOOLS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("iptables-restore", "iptables"),
    ("nsenter", "util-linux"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_io", "xfsprogs"),
    ("mount", "mount"),
];

/// Why no lab can be built here, if that is so.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces and mounts need root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    let missing = TOOLS.iter().find(|(tool, _)| !there(tool));
    missing.map(|(tool, package)| format!("there is no {tool}; install {package}"))
}

/// Runs a program with that standard input; its output, or what went wrong.
pub(crate) fn try_run(program: &str, args: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let told = |error: &dyn std::fmt::Display| format!("{program} {}: {error}", args.join(" "));
    let mut child = command.spawn().map_err(|error| told(&error))?;
    let stdin = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|error| told(&error))?;
    if !output.status.success() {
        return Err(told(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    stdin.transpose().map_err(|error| told(&error))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program that must succeed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    try_run(program, args, "").unwrap_or_else(|error| panic!("{error}"))
}

/// Removes the namespaces and mounts of one lab when it is dropped, and also when the test process is gone,
/// however it went: the end of its standard input is the sign.
#[derive(Debug)]
pub(crate) struct Guard {
    child: Child,
}

/// `$1`: what the names of the namespaces begin with. `$2`: the directory of the lab.
const CLEAN_UP: &str = r#"
cat >/dev/null
for host in $(ip netns list | cut -d' ' -f1); do
    case $host in "$1"-n*) for pid in $(ip netns pids "$host"); do kill -9 "$pid"; done ;; esac
done
sleep 0.1
cut -d' ' -f2 /proc/mounts | while read -r mount; do
    case $mount in "$2"/*) umount "$mount" || umount -l "$mount" ;; esac
done
for host in $(ip netns list | cut -d' ' -f1); do
    case $host in "$1"-*) ip netns del "$host" ;; esac
done
rm -rf "$2"
"#;

impl Guard {
    /// Guards the namespaces of `tag` and everything below `dir`.
    pub(crate) fn start(tag: &str, dir: &Path) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", CLEAN_UP, "lab-guard", tag]).arg(dir);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Not in the group of the terminal: Ctrl-C must not end it with the test.
        command.process_group(0);
        Self { child: command.spawn().expect("start the guard") }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("the guard of the lab: {error}");
        }
    }
}
