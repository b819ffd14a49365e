//! What `/proc` says about processes.

use std::fs;
use std::io::Read as _;

/// Most bytes that are read of the environment of one process.
const ENVIRON_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// One process, from `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    /// `R`, `S`, `D`, `Z` and so on.
    pub(crate) state: u8,
    pub(crate) parent: i32,
    pub(crate) session: i32,
    /// Clock ticks of the process and of the children that it waited for.
    pub(crate) cpu_ticks: u64,
    /// Clock ticks from the boot to the start. Tells a process from a later one with the same number.
    pub(crate) start_time: u64,
    /// Resident pages.
    pub(crate) resident_pages: u64,
}

impl Stat {
    /// True when the process still runs. A process that has ended and was not waited for does not run.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Reads one process. None when there is no such process.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(pid, &String::from_utf8_lossy(&bytes))
}

/// The name of the program stands in parentheses and may have parentheses and blanks of its own.
fn parse_stat(pid: i32, text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // Numbered as in proc(5): the state is field 3.
    let number = |field: usize| fields.get(field.checked_sub(3)?)?.parse::<u64>().ok();
    let id = |field: usize| fields.get(field.checked_sub(3)?)?.parse::<i32>().ok();
    let cpu_ticks = [14, 15, 16, 17].into_iter().filter_map(number).fold(0_u64, u64::saturating_add);
    Some(Stat {
        pid,
        state: fields.first()?.bytes().next()?,
        parent: id(4)?,
        session: id(6)?,
        cpu_ticks,
        start_time: number(22)?,
        resident_pages: number(24)?,
    })
}

/// The numbers of all processes.
pub(crate) fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The children of a process, of all its threads. None when the kernel does not list children.
pub(crate) fn children(pid: i32) -> Option<Vec<i32>> {
    let mut children = Vec::new();
    let mut listed = false;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let Ok(thread) = thread else { continue };
        if let Ok(text) = fs::read_to_string(thread.path().join("children")) {
            listed = true;
            children.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    listed.then_some(children)
}

/// True when the process was started with `variable`, which is `NAME=value`, in its environment.
pub(crate) fn has_variable(pid: i32, variable: &str) -> bool {
    let mut environ = Vec::new();
    let Ok(file) = fs::File::open(format!("/proc/{pid}/environ")) else { return false };
    if file.take(ENVIRON_BYTES_MAX).read_to_end(&mut environ).is_err() {
        return false;
    }
    environ.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_has_a_start_time() {
        let own = i32::try_from(std::process::id()).unwrap();
        let stat = stat(own).unwrap();
        assert!(stat.is_alive() && stat.start_time > 0 && stat.resident_pages > 0);
        assert!(pids().contains(&own));
        assert!(children(own).is_none_or(|children| children.iter().all(|pid| *pid != own)));
    }

    #[test]
    fn a_name_with_parentheses_and_blanks_is_no_obstacle() {
        let line = "7 (a) b (c) S 3 7 9 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 1234 5678 90 18446744073709551615";
        let stat = parse_stat(7, line).unwrap();
        assert_eq!((stat.parent, stat.session, stat.cpu_ticks, stat.start_time), (3, 9, 100, 1234));
        assert_eq!(stat.resident_pages, 90);
        assert_eq!(parse_stat(7, "7 (x"), None);
        assert_eq!(parse_stat(7, "7 (x) S 1"), None);
    }
}
