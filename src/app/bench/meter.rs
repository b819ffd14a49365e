//! Measures CPU time and memory of the server under test and of the load generator.

use std::fs;

use super::client::http::{Connection, Target};

/// Ticks per second of the CPU times in /proc; fixed by the Linux user-space interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// The source of the server's CPU time and memory.
#[derive(Debug, Clone)]
pub(super) enum Meter {
    /// A process of this machine.
    Process(u32),
    /// The /metrics of the server.
    Metrics(Target),
    /// No source, so these figures are left out.
    Unknown,
}

impl Meter {
    /// Finds the best source: the given process, else a web listener that answers.
    pub(super) async fn find(pid: Option<u32>, web: Option<&Target>) -> Self {
        if let Some(pid) = pid {
            return Self::Process(pid);
        }
        let Some(target) = web else {
            return Self::Unknown;
        };
        let meter = Self::Metrics(target.clone());
        if meter.cpu_seconds().await.is_some() { meter } else { Self::Unknown }
    }

    /// CPU seconds the server has used so far.
    pub(super) async fn cpu_seconds(&self) -> Option<f64> {
        match self {
            Self::Process(pid) => process_cpu_seconds(&pid.to_string()),
            Self::Metrics(target) => metric(target, "process_cpu_seconds_total").await,
            Self::Unknown => None,
        }
    }

    /// Resident memory of the server in bytes.
    pub(super) async fn resident_bytes(&self) -> Option<f64> {
        match self {
            Self::Process(pid) => {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
                let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
                let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
                Some(kib * 1024.0)
            }
            Self::Metrics(target) => metric(target, "process_resident_memory_bytes").await,
            Self::Unknown => None,
        }
    }
}

/// CPU seconds of this process so far.
pub(super) fn own_cpu_seconds() -> Option<f64> {
    process_cpu_seconds("self")
}

fn process_cpu_seconds(pid: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the command may hold spaces, and ends at the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

async fn metric(target: &Target, name: &str) -> Option<f64> {
    let mut connection = Connection::open(target).await.ok()?;
    let reply = connection.ask(&target.get("/metrics", "text/plain")).await.ok()?;
    if reply.status != 200 {
        return None;
    }
    find_metric(&String::from_utf8_lossy(&reply.body), name)
}

fn find_metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = if rest.starts_with('{') { rest.rsplit_once('}')?.1 } else { rest.strip_prefix(' ')? };
        value.split_whitespace().next()?.parse().ok()
    })
}

/// The soft limit on open files of this process.
pub(super) fn open_files_max() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_with_and_without_labels() {
        let text = "# HELP a b\nprocess_cpu_seconds_total 1.5\nx_total{a=\"} b\"} 7 1234\nxy 3\n";
        assert_eq!(find_metric(text, "process_cpu_seconds_total"), Some(1.5));
        assert_eq!(find_metric(text, "x_total"), Some(7.0));
        assert_eq!(find_metric(text, "x"), None);
    }

    #[test]
    fn own_cpu_time_and_limit_are_readable() {
        assert!(own_cpu_seconds().is_some());
        assert!(open_files_max().is_some_and(|n| n > 0));
    }
}
