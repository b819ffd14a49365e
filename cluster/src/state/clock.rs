//! The clock that gives the entries of the log their time.
//!
//! A wall clock may be wrong: a resumed virtual machine or a bad time server sets it months ahead for seconds, or
//! hours back. Retention by age and the grace of services follow the time of the log, so one wrong second could cost
//! events for ever. The clock of the log therefore runs at the pace of the monotonic clock. A step of the wall clock is
//! believed when the step has stood for a while; with three or more nodes the clocks of all of them are compared, and
//! the median counts. While a step is in doubt, retention removes nothing because of its age.
//!
//! A step back that is believed leaves the log ahead: the leader then proposes to set the time of the log back.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::lab_faults::Bug;
use crate::lock::lock;

/// The time of the wall clock, milliseconds since 1970.
pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Clocks of nodes may differ by this much, milliseconds.
const TOLERANCE_MS: u64 = 5_000;
/// A step that only one clock shows is believed after it has stood for this long.
const HOLD_MS: u64 = 600_000;
/// The same for a step that the median of three or more clocks confirms.
const HOLD_TOGETHER_MS: u64 = 30_000;
/// A report of another node about its clock counts for this long.
const HEARD_MS: u64 = 60_000;
/// A start this long after the newest entry may be a start with a wrong clock.
const DOWNTIME_MS: u64 = 3_600_000;

/// The source of times, in milliseconds.
pub(crate) trait Source: Send + Sync {
    /// The time of the wall clock since 1970.
    fn wall(&self) -> u64;
    /// Grows at the pace of time, also while the machine sleeps; from any origin.
    fn elapsed(&self) -> u64;
}

/// The clocks of this machine.
struct System;

impl Source for System {
    fn wall(&self) -> u64 {
        now_millis()
    }

    fn elapsed(&self) -> u64 {
        elapsed()
    }
}

#[cfg(target_os = "linux")]
fn elapsed() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1000).saturating_add(nanos.unwrap_or(0) / 1_000_000)
}

#[cfg(not(target_os = "linux"))]
fn elapsed() -> u64 {
    static BEGAN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Gives entries their time. Shared by the proposers and by the state machine.
pub(crate) struct LogClock {
    source: Box<dyn Source>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Difference of the clock of the log to the monotonic clock; `None` before the first time.
    offset: Option<i64>,
    /// The offset is that of the newest entry of an earlier process: the node may have been off since.
    restored: bool,
    /// The cluster has no other node.
    alone: bool,
    /// Time of the newest applied entry.
    log: u64,
    /// A difference between the clocks of the nodes and that of the log.
    step: Option<Step>,
    /// Offsets of the wall clocks of other nodes, and when they were heard.
    others: BTreeMap<u64, (i64, u64)>,
    /// Until then, on the monotonic clock, a start in doubt stays in doubt.
    doubt_until: u64,
    /// Entries may have been given times that are too early by this much: by the largest step ahead that was believed
    /// only after a while.
    early: u64,
}

/// See [`Inner::step`].
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Since when, on the monotonic clock.
    since: u64,
    /// The offset that the clocks say.
    offset: i64,
}

fn offset(time: u64, elapsed: u64) -> i64 {
    i64::try_from(i128::from(time) - i128::from(elapsed)).unwrap_or(i64::MAX)
}

fn at(offset: i64, elapsed: u64) -> u64 {
    elapsed.saturating_add_signed(offset)
}

impl LogClock {
    /// A clock on that of this machine. `log` is the time of the newest entry of the stored state, 0 for none.
    pub(crate) fn new(log: u64) -> Self {
        Self::with(Box::new(System), log)
    }

    fn with(source: Box<dyn Source>, log: u64) -> Self {
        let elapsed = source.elapsed();
        let known = (log > 0).then(|| offset(log, elapsed));
        let inner = Inner { offset: known, restored: known.is_some(), log, ..Inner::default() };
        Self { source, inner: Mutex::new(inner) }
    }

    /// The time for an entry that is proposed now.
    pub(crate) fn stamp(&self) -> u64 {
        let (wall, elapsed) = (self.source.wall(), self.source.elapsed());
        if Bug::WallClockBelieved.is_on() {
            return wall;
        }
        lock(&self.inner).stamp(wall, elapsed)
    }

    /// An entry was applied, and the time of the log is this now.
    pub(crate) fn observe(&self, log: u64) {
        let mut inner = lock(&self.inner);
        if log == inner.log {
            return;
        }
        let said = offset(log, self.source.elapsed());
        // The newest entry that came at once is the nearest to its leader's clock: others were waiting somewhere.
        if log < inner.log || inner.offset.is_none_or(|present| said > present) {
            inner.offset = Some(said);
        }
        inner.log = log;
    }

    /// Whether this node is the only member.
    pub(crate) fn set_alone(&self, alone: bool) {
        lock(&self.inner).alone = alone;
    }

    /// Takes a report of another node about its wall clock.
    pub(crate) fn hear(&self, node: u64, wall: u64) {
        let elapsed = self.source.elapsed();
        lock(&self.inner).others.insert(node, (offset(wall, elapsed), elapsed));
    }

    /// The time of the wall clock of this node, for reports to other nodes.
    pub(crate) fn wall(&self) -> u64 {
        self.source.wall()
    }

    /// The time by which retention judges how old entries are: never too late a time, so that nothing goes too early,
    /// and 0 while the clocks are in doubt.
    pub(crate) fn retention_now(&self) -> u64 {
        let (wall, elapsed) = (self.source.wall(), self.source.elapsed());
        if Bug::WallClockBelieved.is_on() {
            return wall;
        }
        let mut inner = lock(&self.inner);
        let now = inner.stamp(wall, elapsed);
        let doubt = inner.step.is_some() || elapsed < inner.doubt_until;
        if doubt { 0 } else { now.saturating_sub(inner.early) }
    }

    /// The time that the log shall be set back to, when the log is ahead of a clock that is believed.
    pub(crate) fn correction(&self) -> Option<u64> {
        let (wall, elapsed) = (self.source.wall(), self.source.elapsed());
        let mut inner = lock(&self.inner);
        let now = inner.stamp(wall, elapsed);
        let ahead = inner.log > now.saturating_add(TOLERANCE_MS);
        (ahead && inner.step.is_none()).then_some(now)
    }

    /// By how much the clocks of the nodes are ahead of that of the log, in milliseconds, while that is in doubt or
    /// the log stands until they are there; 0 when all is well.
    pub(crate) fn skew(&self) -> i64 {
        let elapsed = self.source.elapsed();
        let inner = lock(&self.inner);
        let present = offset(inner.log, elapsed);
        match (inner.step, inner.offset) {
            (Some(step), Some(log)) => step.offset.saturating_sub(log),
            (None, Some(now)) if present > now.saturating_add_unsigned(TOLERANCE_MS) => now.saturating_sub(present),
            _ => 0,
        }
    }
}

impl Inner {
    /// The offset that the clocks of the nodes say, and how many they are: the median, and of the two in the middle
    /// the one that is nearer to the clock of the log.
    fn said(&self, wall: u64, elapsed: u64) -> (i64, usize) {
        let heard = self.others.values().filter(|(_, heard)| elapsed.saturating_sub(*heard) <= HEARD_MS);
        let mut all: Vec<i64> = heard.map(|(offset, _)| *offset).collect();
        let own = offset(wall, elapsed);
        all.push(own);
        all.sort_unstable();
        let (low, high) = (all.len().saturating_sub(1) / 2, all.len() / 2);
        let middle = all.get(low..=high).unwrap_or_default().iter().copied();
        let log = self.offset.unwrap_or(own);
        (middle.min_by_key(|one| one.abs_diff(log)).unwrap_or(own), all.len())
    }

    fn stamp(&mut self, wall: u64, elapsed: u64) -> u64 {
        let (said, clocks) = self.said(wall, elapsed);
        let Some(present) = self.offset else {
            self.offset = Some(said);
            return at(said, elapsed);
        };
        if said.abs_diff(present) <= TOLERANCE_MS {
            if let Some(step) = self.step.take() {
                let away = step.offset.saturating_sub(present);
                tracing::warn!(milliseconds = away, "the clock is back where the log expects it");
            }
            (self.offset, self.restored) = (Some(said), false);
            return at(said, elapsed);
        }
        let ahead = said > present;
        if self.restored && self.alone && ahead {
            self.start_late(present, said, elapsed);
            return at(said, elapsed);
        }
        let step = match self.step {
            Some(step) if step.offset.abs_diff(said) <= TOLERANCE_MS => step,
            _ => self.begin_step(present, said, elapsed),
        };
        let hold = if clocks >= 3 { HOLD_TOGETHER_MS } else { HOLD_MS };
        if elapsed.saturating_sub(step.since) < hold {
            return at(present, elapsed);
        }
        self.believe(said);
        at(said, elapsed)
    }

    /// A node that is alone has been off, or has started with a wrong clock; the node cannot know which.
    fn start_late(&mut self, present: i64, said: i64, elapsed: u64) {
        if said.abs_diff(present) > DOWNTIME_MS {
            self.doubt_until = elapsed.saturating_add(HOLD_MS);
            let milliseconds = said.saturating_sub(present);
            tracing::warn!(milliseconds, "the clock is far ahead of the newest entry; retention by age waits a while");
        }
        (self.offset, self.restored, self.step) = (Some(said), false, None);
    }

    fn begin_step(&mut self, present: i64, said: i64, elapsed: u64) -> Step {
        let milliseconds = said.saturating_sub(present);
        tracing::warn!(
            milliseconds,
            "the clock has jumped against that of the log; times go on without the jump, and retention by age waits"
        );
        let step = Step { since: elapsed, offset: said };
        self.step = Some(step);
        step
    }

    /// The step has stood for so long that the clock was set, and is right now.
    fn believe(&mut self, said: i64) {
        let milliseconds = self.offset.map_or(0, |present| said.saturating_sub(present));
        tracing::warn!(milliseconds, "the jump of the clock has stood; the log follows the clock");
        // Entries that were written meanwhile have too early a time, and must not be removed too early for that.
        self.early = self.early.max(u64::try_from(milliseconds).unwrap_or(0));
        (self.offset, self.restored, self.step) = (Some(said), false, None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;
    const START: u64 = 1_700_000_000_000;

    /// Clocks that the test sets.
    #[derive(Default)]
    struct Fake {
        wall: AtomicU64,
        elapsed: AtomicU64,
    }

    impl Source for Arc<Fake> {
        fn wall(&self) -> u64 {
            self.wall.load(Ordering::Relaxed)
        }

        fn elapsed(&self) -> u64 {
            self.elapsed.load(Ordering::Relaxed)
        }
    }

    impl Fake {
        fn pass(&self, millis: u64) {
            self.wall.fetch_add(millis, Ordering::Relaxed);
            self.elapsed.fetch_add(millis, Ordering::Relaxed);
        }

        fn step(&self, millis: i64) {
            let wall = self.wall.load(Ordering::Relaxed).saturating_add_signed(millis);
            self.wall.store(wall, Ordering::Relaxed);
        }
    }

    /// The leader of a cluster, whose log follows the rules: times never go back, unless they are set back.
    struct Leader {
        fake: Arc<Fake>,
        clock: LogClock,
        log: u64,
        /// What the true time is ahead of the monotonic clock.
        truth: u64,
    }

    impl Leader {
        fn start(log: u64, truth: u64, wrong_by: i64) -> Self {
            let fake = Arc::new(Fake::default());
            fake.elapsed.store(777, Ordering::Relaxed);
            fake.wall.store(truth.saturating_add_signed(wrong_by), Ordering::Relaxed);
            let clock = LogClock::with(Box::new(Arc::clone(&fake)), log);
            clock.set_alone(true);
            Self { fake, clock, log, truth: truth - 777 }
        }

        fn now(&self) -> u64 {
            self.truth + self.fake.elapsed()
        }

        /// An entry each second, as long as this; and what the due loop does.
        fn run(&mut self, millis: u64) {
            for _ in 0..millis / 1000 {
                self.fake.pass(1000);
                self.log = self.log.max(self.clock.stamp());
                self.clock.observe(self.log);
                if let Some(right) = self.clock.correction() {
                    self.log = right;
                    self.clock.observe(right);
                }
            }
        }

        fn off_by(&self) -> u64 {
            self.log.abs_diff(self.now())
        }
    }

    #[test]
    fn a_clock_that_is_a_month_ahead_for_seconds_changes_nothing() {
        let mut leader = Leader::start(0, START, 0);
        leader.run(HOUR);
        leader.fake.step(30 * DAY.cast_signed());
        leader.run(2000);
        assert!(leader.off_by() < TOLERANCE_MS);
        assert_eq!(leader.clock.retention_now(), 0, "nothing goes because of its age meanwhile");
        assert_eq!(leader.clock.skew(), 30 * DAY.cast_signed());
        leader.fake.step(-30 * DAY.cast_signed());
        leader.run(1000);
        assert!(leader.off_by() < TOLERANCE_MS && leader.clock.skew() == 0);
        assert_eq!(leader.clock.retention_now(), leader.now());
    }

    #[test]
    fn times_go_on_while_the_clock_is_hours_behind_and_when_it_is_right_again() {
        let mut leader = Leader::start(0, START, 0);
        leader.run(HOUR);
        leader.fake.step(-3 * HOUR.cast_signed());
        let before = leader.log;
        leader.run(300_000);
        assert_eq!(leader.log, before + 300_000);
        leader.fake.step(3 * HOUR.cast_signed());
        leader.run(1000);
        assert!(leader.off_by() < TOLERANCE_MS && leader.clock.skew() == 0);
    }

    #[test]
    fn a_step_that_stands_is_believed_and_what_was_written_meanwhile_is_not_taken_for_older_than_it_is() {
        let mut leader = Leader::start(0, START, 0);
        leader.run(HOUR);
        // The machine was paused for nine hours, and no clock has counted them.
        leader.truth += 9 * HOUR;
        leader.fake.step(9 * HOUR.cast_signed());
        leader.run(60_000);
        let (written, said) = (leader.now(), leader.log);
        assert!(written - said > 8 * HOUR, "the log does not believe it yet");
        leader.run(HOLD_MS);
        assert!(leader.off_by() < TOLERANCE_MS, "now it does");
        while leader.now() < written + 2 * HOUR {
            leader.run(600_000);
            let gone = said + 2 * HOUR < leader.clock.retention_now();
            assert!(!gone || leader.now() > written + 2 * HOUR, "{} too early", written + 2 * HOUR - leader.now());
        }
        leader.run(HOUR);
        assert!(said + 2 * HOUR < leader.clock.retention_now(), "it goes when its time has come");
    }

    #[test]
    fn a_start_with_a_wrong_clock_costs_nothing_and_the_log_finds_back() {
        for wrong in [30 * DAY.cast_signed(), -3 * HOUR.cast_signed()] {
            let mut leader = Leader::start(START, START + 60_000, wrong);
            let mut cut = 0;
            for _ in 0..120 {
                leader.run(1000);
                cut = cut.max(leader.clock.retention_now());
            }
            assert!(cut <= leader.now(), "wrong by {wrong}: {cut}");
            // The time server is heard.
            leader.fake.step(-wrong);
            for _ in 0..HOLD_MS / 1000 + 60 {
                leader.run(1000);
                cut = cut.max(leader.clock.retention_now());
            }
            assert!(leader.off_by() < TOLERANCE_MS, "wrong by {wrong}: the log is off by {}", leader.off_by());
            assert!(cut <= leader.now() && leader.clock.skew() == 0, "wrong by {wrong}: {cut}");
        }
    }

    #[test]
    fn a_node_that_was_off_goes_on_with_the_right_time_at_once() {
        let mut leader = Leader::start(START, START + 3 * DAY, 0);
        leader.run(1000);
        assert!(leader.off_by() < TOLERANCE_MS);
        assert_eq!(leader.clock.retention_now(), 0, "its clock may be wrong: nothing goes yet");
        leader.run(HOLD_MS);
        assert_eq!(leader.clock.retention_now(), leader.now());
    }

    #[test]
    fn the_clocks_of_three_nodes_outvote_a_wrong_one() {
        let follower = Leader::start(0, START, 30 * DAY.cast_signed());
        let Leader { fake, clock, .. } = &follower;
        clock.set_alone(false);
        clock.observe(START);
        let mut worst = 0;
        for second in 1..=3600_u64 {
            fake.pass(1000);
            if second % 10 == 0 {
                let now = follower.now();
                clock.hear(2, now + 40);
                clock.hear(3, now - 30);
            }
            worst = worst.max(clock.stamp().abs_diff(follower.now()));
        }
        assert!(worst < TOLERANCE_MS, "off by {worst}");
        assert_eq!(clock.retention_now(), clock.stamp());
        // Without the others it goes on as before, and is in doubt.
        fake.pass(HEARD_MS + 1);
        assert!(clock.stamp().abs_diff(follower.now()) < TOLERANCE_MS);
        assert_eq!(clock.retention_now(), 0);
    }
}
