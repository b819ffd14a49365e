//! CPU time and memory of a process with its descendants.

use std::time::Instant;

use super::proc_fs::{Stat, children, stat};

/// Most processes that are measured for one service.
const PROCESSES_MAX: usize = 1000;

/// Measures one process tree again and again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    last: Option<(i32, Instant, u64)>,
    cpu: f64,
}

impl Usage {
    /// CPU in percent of one processor since the last call, and resident bytes. The first call gives no CPU.
    pub(crate) fn measure(&mut self, pid: i32) -> (f64, u64) {
        let (ticks, pages) = descendants(pid).iter().fold((0_u64, 0_u64), |(ticks, pages), stat| {
            (ticks.saturating_add(stat.cpu_ticks), pages.saturating_add(stat.resident_pages))
        });
        let now = Instant::now();
        match self.last {
            Some((last_pid, at, before)) if last_pid == pid => {
                let seconds = now.duration_since(at).as_secs_f64();
                // Two calls at the same time would divide by nothing: the last figure stands.
                if seconds >= 0.1 {
                    self.cpu = percent(ticks.saturating_sub(before), seconds);
                    self.last = Some((pid, now, ticks));
                }
            }
            _ => (self.last, self.cpu) = (Some((pid, now, ticks)), 0.0),
        }
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        (self.cpu, pages.saturating_mul(page))
    }
}

fn percent(ticks: u64, seconds: f64) -> f64 {
    let ticks = u32::try_from(ticks).map_or(f64::from(u32::MAX), f64::from);
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).map_or(100.0, f64::from);
    // One decimal is all that the clock gives.
    (ticks / per_second / seconds * 1000.0).round() / 10.0
}

/// Only living descendants are looked at: their cost is that of the tree, not of the machine.
fn descendants(pid: i32) -> Vec<Stat> {
    let mut found: Vec<Stat> = stat(pid).into_iter().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let room = PROCESSES_MAX.saturating_sub(found.len());
        found.extend(children(parent.pid).unwrap_or_default().into_iter().take(room).filter_map(stat));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_has_cpu_and_memory() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut usage = Usage::default();
        let (cpu, rss) = usage.measure(own);
        assert!(cpu == 0.0 && rss > 0);
        let until = Instant::now() + std::time::Duration::from_millis(150);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        assert!(usage.measure(own).0 > 10.0);
    }
}
