//! Schedules as the rules keep them: `state` in memory, `changes` of definitions, and `ticks`, each of which is published
//! once.
//!
//! The rules of each single schedule are in [`crate::schedule`]. A tick is a publish with a condition ([`Tick`](crate::schedule::change::Tick)): the
//! record of its event is in the entry as that of any publish is, so no reader has to know about ticks.
//!
//! Invariants: a refused change writes nothing. Each tick is stored at most once: the condition names the tick that the
//! row waits for, and the row then waits for a later one. A tick whose event is refused counts as failed, and the
//! schedule goes on.

mod changes;
#[cfg(test)]
mod check;
pub mod state;
mod ticks;

use super::Machine;
use crate::command::Reply;
use crate::error::Refusal;
use crate::rows::Writes;
use crate::schedule::change::{Change, ScheduleChange};
use state::Schedules;

impl Machine {
    /// All schedules.
    #[must_use]
    pub const fn schedules(&self) -> &Schedules {
        &self.schedules
    }

    /// Applies a change of schedules.
    pub(super) fn schedule_change(&mut self, change: ScheduleChange, writes: &mut Writes) -> Reply {
        let ScheduleChange { if_revision, change } = change;
        match change {
            Some(Change::Set(set)) => self.schedule_set(set, if_revision, writes),
            Some(Change::Delete(name)) => self.schedule_delete(&name, if_revision, writes),
            Some(Change::Skip(tick)) => self.skip_ticks(&tick, writes),
            None => Err(Refusal::Malformed("no change".into())),
        }
    }
}
