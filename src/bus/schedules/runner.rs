//! Proposes ticks at the leader.
//!
//! The leader sleeps until the next event leaves, and looks at least ten times a second whether a schedule was changed.
//! All schedules that are due are proposed together, a bounded number at a time. What is proposed twice, by two nodes of
//! which each takes itself for the leader or after an answer that was lost, is refused by the rules.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rollbook_core::command::Command;
use rollbook_core::error::Refusal;
use rollbook_core::level::FeatureLevel;
use rollbook_core::schedule::change::{Change, Tick};
use rollbook_core::schedule::row::ScheduleRow;
use tokio_util::sync::CancellationToken;

use super::event;
use super::plan::Plan;
use super::ticks::Ticks;
use crate::base::clock;
use crate::bus::access::Access;
use crate::bus::handle::Bus;

/// Longest time between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Most ticks that are proposed together.
const TICKS_MAX: usize = 256;
/// A schedule that cannot be read is tried again after this time.
const UNREADABLE: Duration = Duration::from_secs(60);

/// Proposes ticks while this node leads, until cancelled.
pub async fn run(access: Access, stop: CancellationToken) {
    let mut runner = Runner { access, unreadable: HashSet::new(), forgets: clock::now() };
    loop {
        let pause = runner.pause();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        while !stop.is_cancelled() && runner.step().await {}
    }
}

struct Runner {
    access: Access,
    /// Names and revisions of schedules whose expression or zone this node does not know: a later release, or a node with
    /// newer data of time zones, may have set them.
    unreadable: HashSet<(String, u64)>,
    /// When they are tried again.
    forgets: Instant,
}

impl Runner {
    fn bus(&self) -> &Bus {
        self.access.bus()
    }

    /// Whether this node proposes ticks now. Without room on the disk ticks wait, as publishes are refused.
    fn may_propose(&self) -> bool {
        self.bus().node().consensus().leads()
            && self.bus().level() >= FeatureLevel::TIMED
            && !self.bus().proposer().is_disk_low()
    }

    /// How long nothing is due.
    fn pause(&self) -> Duration {
        let state = self.bus().node().state();
        let Some(due) = state.with_machine(|machine| machine.schedules().next_due()) else { return LOOK };
        if !self.may_propose() {
            return LOOK;
        }
        match due.saturating_sub(state.log_time()) {
            // Those that are due now could not be proposed.
            0 => LOOK,
            millis => Duration::from_millis(millis).min(LOOK),
        }
    }

    /// Proposes ticks that are due. Whether there may be more.
    async fn step(&mut self) -> bool {
        if !self.may_propose() {
            return false;
        }
        if self.forgets.elapsed() >= UNREADABLE {
            self.unreadable.clear();
            self.forgets = clock::now();
        }
        let now = self.bus().node().state().log_time();
        let due: Vec<Arc<ScheduleRow>> = self.bus().node().state().with_machine(|machine| {
            let is_known = |row: &&Arc<ScheduleRow>| !self.unreadable.contains(&(row.name.clone(), row.revision));
            machine.schedules().due(now).filter(is_known).take(TICKS_MAX).cloned().collect()
        });
        let mut plans = Vec::with_capacity(due.len());
        for row in &due {
            match Ticks::of(&row.definition) {
                Ok(ticks) => plans.push((row, Plan::of(row, &ticks, now))),
                Err(fault) => {
                    tracing::error!(schedule = row.name, %fault, "a schedule cannot be read at this node");
                    self.unreadable.insert((row.name.clone(), row.revision));
                }
            }
        }
        let outcomes = join_all(plans.into_iter().map(|(row, plan)| self.propose(row, plan))).await;
        outcomes.contains(&true)
    }

    /// Proposes one tick. Whether the schedule went on.
    async fn propose(&self, row: &ScheduleRow, plan: Plan) -> bool {
        let (proposed, tick, outcome) = match plan {
            Plan::Fire(tick) => (self.publish(row, &tick).await, tick, "fired"),
            Plan::Skip(tick) => {
                let command = Command::schedule(None, Change::Skip(tick.clone()));
                (self.bus().proposer().command(command).await.map(drop), tick, "skipped")
            }
        };
        let count = |outcome: &'static str, ticks: u64| {
            self.bus().metrics().schedule_ticks.get_or_create(&[("outcome", outcome)]).inc_by(ticks);
        };
        let refusal = match proposed {
            Ok(()) => {
                if outcome == "fired" {
                    count("fired", 1);
                }
                count("missed", tick.missed);
                return true;
            }
            Err(refusal) => refusal,
        };
        match refusal {
            // The schedule was changed meanwhile, or somebody else was faster: this node will see that soon.
            Refusal::RevisionMismatch(_) | Refusal::ScheduleNotFound(_) => false,
            // The tick waits.
            Refusal::Unavailable(_)
            | Refusal::Overloaded(_)
            | Refusal::OutcomeUnknown(_)
            | Refusal::InsufficientStorage(_)
            | Refusal::Storage => {
                tracing::debug!(schedule = row.name, %refusal, "a tick was not proposed yet");
                false
            }
            refusal => {
                tracing::warn!(schedule = row.name, tick = tick.tick, %refusal, "the event of a tick was refused");
                count("failed", 1);
                // A refusal of the rules counts the tick as failed. Whatever else it is, it is not tried without a pause.
                false
            }
        }
    }

    async fn publish(&self, row: &ScheduleRow, tick: &Tick) -> Result<(), Refusal> {
        let namespace = row.definition.subject.split('.').next().unwrap_or_default();
        let frame = event::frame(&row.definition, tick, clock::timestamp(), self.access.may_create(namespace))?;
        self.bus().proposer().publish(frame.into()).await.map(drop)
    }
}
