//! Ticks: each is published once, or passes without an event.

use alloc::format;
use alloc::string::ToString as _;

use prost::Message as _;

use crate::command::{Done, Reply};
use crate::entry::Publish;
use crate::error::Refusal;
use crate::machine::effects::Appends;
use crate::machine::{FramePosition, Machine};
use crate::rows::{Rows, RowsError, Writes};
use crate::schedule::change::Tick;
use crate::schedule::limits::FAILURE_BYTES_MAX;
use crate::schedule::row::ScheduleRow;

impl Machine {
    /// The schedule of a tick, if it still waits for that tick.
    fn waiting(&self, tick: &Tick) -> Result<ScheduleRow, Refusal> {
        let name = &tick.schedule;
        let row = self.schedules.get(name).ok_or_else(|| Refusal::ScheduleNotFound(name.clone()))?;
        let changed = |what: &str| Err(Refusal::RevisionMismatch(format!("schedule {name} {what}")));
        if row.revision != tick.revision {
            return changed("has another revision");
        }
        if row.definition.paused {
            return changed("is paused");
        }
        if row.next != tick.from {
            return changed("waits for another tick");
        }
        if tick.tick < tick.from || tick.next <= tick.tick {
            return Err(Refusal::Malformed("tick: from, tick and next follow each other".into()));
        }
        // The time of the log may have been set back since the tick was proposed.
        if tick.tick > self.millis {
            return changed("waits for a later time");
        }
        Ok(ScheduleRow::clone(row))
    }

    /// Publishes the event of a tick, if the schedule waits for the tick. Either way the schedule then waits for a later
    /// one: a schedule whose event is refused must not try for ever.
    pub(in crate::machine) fn publish_tick(
        &mut self,
        position: FramePosition,
        (publish, condition): (&Publish<'_>, &[u8]),
        rows: &impl Rows,
        writes: &mut Writes,
        appends: &mut Appends,
    ) -> Result<Reply, RowsError> {
        let tick = Tick::decode(condition).map_err(|error| Refusal::Malformed(format!("tick: {error}")));
        let waiting = tick.and_then(|tick| Ok((self.waiting(&tick)?, tick)));
        let (mut row, tick) = match waiting {
            Ok(waiting) => waiting,
            Err(refusal) => {
                self.record_skipped(publish, position, appends);
                return Ok(Err(refusal));
            }
        };
        let reply = self.publish(position, publish, rows, writes, appends)?;
        match &reply {
            Ok(_) => row.fired = row.fired.saturating_add(1),
            Err(refusal) => {
                row.failed = row.failed.saturating_add(1);
                let text = refusal.to_string();
                row.failure = text.get(..text.floor_char_boundary(FAILURE_BYTES_MAX)).unwrap_or_default().into();
            }
        }
        row.last = tick.tick;
        self.pass(row, &tick, writes);
        Ok(reply)
    }

    /// Leaves missed ticks out.
    pub(super) fn skip_ticks(&mut self, tick: &Tick, writes: &mut Writes) -> Reply {
        let row = self.waiting(tick)?;
        self.pass(row, tick, writes);
        Ok(Done::Nothing)
    }

    fn pass(&mut self, mut row: ScheduleRow, tick: &Tick, writes: &mut Writes) {
        row.missed = row.missed.saturating_add(tick.missed);
        row.next = tick.next;
        self.schedules.save(row, writes);
    }
}
