//! The pace of an open loop: a thread releases permits on schedule, because the timer of the runtime counts only
//! milliseconds.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::app::bench::units::Clock;

/// Permits of shorter intervals are released together, to leave the CPU to the server.
const TICK: Duration = Duration::from_micros(100);
/// A long wait is split, so that the thread of a dropped pacer ends soon.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// When each request of a run is due.
#[derive(Debug, Clone, Copy)]
pub(in crate::app::bench) struct Schedule {
    /// Timestamp of the first request.
    pub(in crate::app::bench) start: u64,
    /// Nanoseconds between requests.
    pub(in crate::app::bench) interval: u64,
    /// How many requests there are.
    pub(in crate::app::bench) total: u64,
}

impl Schedule {
    /// When request number `ticket` is due.
    pub(in crate::app::bench) fn due(&self, ticket: u64) -> u64 {
        self.start.saturating_add(ticket.saturating_mul(self.interval))
    }

    fn due_by(&self, now: u64) -> u64 {
        match now.checked_sub(self.start) {
            Some(elapsed) => (elapsed / self.interval.max(1) + 1).min(self.total),
            None => 0,
        }
    }
}

/// Releases one permit for each due request. The thread stops when this value is dropped.
#[derive(Debug)]
pub(in crate::app::bench) struct Pacer {
    permits: Arc<Semaphore>,
    stop: Arc<AtomicBool>,
}

impl Pacer {
    /// Starts the schedule. After its end, `spare` more permits wake the waiting workers, which then see the end.
    pub(in crate::app::bench) fn start(clock: Clock, schedule: Schedule, spare: usize) -> anyhow::Result<Self> {
        let (permits, stop) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(false)));
        let (released_to, stopped) = (Arc::clone(&permits), Arc::clone(&stop));
        thread::Builder::new().name("pacer".to_owned()).spawn(move || {
            sharpen_sleep();
            release(clock, schedule, &released_to, &stopped);
            released_to.add_permits(spare);
        })?;
        Ok(Self { permits, stop })
    }

    /// Waits until the next request is due.
    pub(in crate::app::bench) async fn next(&self) {
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn release(clock: Clock, schedule: Schedule, permits: &Semaphore, stop: &AtomicBool) {
    let mut released = 0;
    while released < schedule.total && !stop.load(Ordering::Relaxed) {
        let due = schedule.due_by(clock.now());
        if let Ok(n) = usize::try_from(due.saturating_sub(released))
            && n > 0
        {
            permits.add_permits(n);
            released = due;
        }
        let wait = Duration::from_nanos(schedule.due(released).saturating_sub(clock.now()));
        thread::sleep(wait.clamp(if released == 0 { Duration::ZERO } else { TICK }, WAIT_MAX));
    }
}

/// Asks the kernel to wake this thread without the usual slack of 50 us. If the kernel refuses, the error of the
/// schedule adds to the measured latency.
fn sharpen_sleep() {
    let thread = fs::read_link("/proc/thread-self").ok();
    if let Some(id) = thread.as_deref().and_then(|path| path.file_name()).and_then(|name| name.to_str()) {
        fs::write(format!("/proc/{id}/timerslack_ns"), "1").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fall_due_on_schedule() {
        let schedule = Schedule { start: 1000, interval: 10, total: 3 };
        assert_eq!([0, 999, 1000, 1009, 1010, 5000].map(|now| schedule.due_by(now)), [0, 0, 1, 1, 2, 3]);
        assert_eq!(schedule.due(2), 1020);
    }
}
