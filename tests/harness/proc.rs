//! What the kernel says of a process.

/// The number behind a name in the status of a process, as `VmRSS`: of memory that is KiB.
pub(crate) fn status(pid: u32, name: &str) -> u64 {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    field(&status, name).unwrap_or_else(|| panic!("no {name} in {status}"))
}

/// The same in a status that was read.
pub(crate) fn field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}
