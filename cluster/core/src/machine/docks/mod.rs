//! Docks as the rules keep them: `state` in memory, `keys` of its rows, and one file for each kind of change.
//!
//! ```text
//! state        definitions, and builds without their bytes
//! definitions  definitions are set and removed
//! builds       builds arrive in chunks, are finished and removed
//! events       what happened to processes becomes events of the roll
//! query        where the bytes of builds are, for readers
//! ```
//!
//! The rules of each single definition, build and event are in [`crate::dock`]. This room loads their rows, applies those
//! rules, writes the rows and keeps the indexes.
//!
//! Invariants: a refused change writes nothing. Each build has a definition, and the bytes of each chunk a row.

mod builds;
#[cfg(test)]
mod check;
mod definitions;
mod events;
pub(in crate::machine) mod keys;
pub mod query;
pub mod state;

use super::Machine;
use super::effects::Effects;
use crate::command::{Done, Reply};
use crate::dock::change::{Change, DockChange};
use crate::error::Refusal;
use crate::rows::{Rows, RowsError};
use state::Docks;

impl Machine {
    /// Definitions and builds.
    #[must_use]
    pub const fn docks(&self) -> &Docks {
        &self.docks
    }

    /// Applies a change of the state of docks.
    pub(super) fn dock_change(
        &mut self,
        change: DockChange,
        rows: &impl Rows,
        effects: &mut Effects<'_>,
    ) -> Result<Reply, RowsError> {
        let DockChange { if_revision, change } = change;
        let Some(change) = change else { return Ok(Err(Refusal::Malformed("no change".into()))) };
        let writes = &mut *effects.writes;
        let done = match change {
            Change::DefinitionSet(set) => self.definition_set(set, if_revision, writes),
            Change::DefinitionRemove(id) => self.definition_remove(&id, if_revision, writes),
            Change::BuildBegin(begin) => self.build_begin(begin, if_revision, writes),
            Change::BuildChunk(chunk) => self.build_chunk(chunk, rows, writes)?,
            Change::BuildFinish(finish) => self.build_finish(finish, if_revision, writes),
            Change::BuildAbandon(id) => self.build_abandon(&id, writes),
            Change::Events(events) => self.process_events(&events.events, effects),
        };
        Ok(done.map(Done::Dock))
    }
}
