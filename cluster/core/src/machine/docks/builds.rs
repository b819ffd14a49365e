//! Builds arrive in chunks, are finished and removed.
//!
//! A build belongs to a definition from its begin on, and goes with the definition: a build that is finished late finds
//! neither. Chunks are rows of their own, so no change touches more than the bytes that it brings.

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;

use prost::Message as _;

use super::keys::{self, FAMILY};
use crate::dock::build::{BuildError, BuildRow, ChunkPlace};
use crate::dock::change::{BuildBegin, BuildChunk, BuildFinish};
use crate::dock::done::DockDone;
use crate::dock::limits::{BUILDS_BYTES_MAX, BUILDS_KEPT, BUILDS_OPEN_MAX};
use crate::error::Refusal;
use crate::machine::Machine;
use crate::rows::{Family, Rows, RowsError, Writes};
use crate::xbus::id::Id;

fn refused(error: &BuildError) -> Refusal {
    match error {
        BuildError::ChunkLength | BuildError::Sha256 => Refusal::Malformed(error.to_string()),
        _ => Refusal::Dock(error.to_string()),
    }
}

fn parse_id(id: &[u8]) -> Result<Id, Refusal> {
    Id::from_slice(id).map_err(|_| Refusal::Malformed("id of a build".into()))
}

impl Machine {
    fn known_build(&self, id: &[u8]) -> Result<BuildRow, Refusal> {
        let id = parse_id(id)?;
        self.docks.build(&id).cloned().ok_or_else(|| Refusal::DockNotFound(format!("build {id}")))
    }

    fn save_build(&mut self, row: BuildRow, writes: &mut Writes) {
        writes.put(Family::Meta, keys::build(row.id()), row.encode_to_vec());
        self.docks.put_build(row);
    }

    /// Deletes the rows of a build and of its chunks.
    pub(super) fn delete_build(&mut self, id: Id, writes: &mut Writes) {
        let Some(chunks) = self.docks.build(&id).map(|row| row.chunks) else { return };
        keys::delete_chunks(id, chunks, writes);
        writes.delete(Family::Meta, keys::build(id));
        self.docks.remove_build(id);
    }

    /// Abandons the open builds of which no chunk came for too long: at most as many as may be open.
    pub(in crate::machine) fn abandon_idle_builds(&mut self, writes: &mut Writes) {
        let idle = self.docks.idle(self.millis);
        idle.into_iter().for_each(|id| self.delete_build(id, writes));
    }

    /// Takes the time of the log back by `back` milliseconds for the open builds: they wait as long as they would have.
    pub(in crate::machine) fn set_builds_back(&mut self, back: u64, writes: &mut Writes) {
        let open: Vec<BuildRow> = self.docks.open.iter().filter_map(|(_, id)| self.docks.build(id)).cloned().collect();
        for mut row in open {
            row.touched_at = row.touched_at.saturating_sub(back);
            self.save_build(row, writes);
        }
    }

    pub(super) fn build_begin(
        &mut self,
        begin: BuildBegin,
        if_revision: Option<u64>,
        writes: &mut Writes,
    ) -> Result<DockDone, Refusal> {
        let id = parse_id(&begin.build)?;
        self.known_definition(&begin.definition, if_revision)?;
        if let Some(row) = self.docks.build(&id) {
            let repeated = row.is_open() && row.chunks == 0 && row.definition == begin.definition;
            return if repeated { Ok(DockDone::build(row)) } else { Err(Refusal::Dock("a build has that id".into())) };
        }
        let idle = self.docks.idle(self.millis).len();
        if self.docks.open.size().saturating_sub(idle) >= BUILDS_OPEN_MAX {
            return Err(Refusal::Overloaded(format!("at most {BUILDS_OPEN_MAX} builds arrive at a time")));
        }
        self.abandon_idle_builds(writes);
        let row = BuildRow::begin(id, begin.definition, self.millis);
        let done = DockDone::build(&row);
        self.save_build(row, writes);
        Ok(done)
    }

    pub(super) fn build_chunk(
        &mut self,
        chunk: BuildChunk,
        rows: &impl Rows,
        writes: &mut Writes,
    ) -> Result<Result<DockDone, Refusal>, RowsError> {
        let BuildChunk { build, ordinal, bytes } = chunk;
        let placed = self.known_build(&build).and_then(|row| {
            let place = row.place(ordinal, bytes.len()).map_err(|error| refused(&error))?;
            Ok((row, place))
        });
        let (mut row, place) = match placed {
            Ok(placed) => placed,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let key = keys::chunk(row.id(), ordinal);
        if place == ChunkPlace::Newest {
            let same = writes.get(rows, FAMILY, &key)?.is_some_and(|present| present == bytes);
            let other = || refused(&BuildError::OtherChunk(ordinal));
            return Ok(if same { Ok(DockDone::build(&row)) } else { Err(other()) });
        }
        row.append(bytes.len(), self.millis);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        // This bounds the finished builds as well: finishing a build brings no bytes.
        if self.docks.build_bytes.saturating_add(length) > BUILDS_BYTES_MAX {
            return Ok(Err(Refusal::Overloaded(format!("all builds have at most {BUILDS_BYTES_MAX} bytes"))));
        }
        let done = DockDone::build(&row);
        writes.put(FAMILY, key, bytes);
        self.save_build(row, writes);
        Ok(Ok(done))
    }

    pub(super) fn build_finish(
        &mut self,
        finish: BuildFinish,
        if_revision: Option<u64>,
        writes: &mut Writes,
    ) -> Result<DockDone, Refusal> {
        let mut build = self.known_build(&finish.build)?;
        if build.is_finished_with(finish.chunks, finish.bytes, &finish.sha256) {
            return Ok(DockDone::build(&build));
        }
        let whole = build.check_whole(finish.chunks, finish.bytes, &finish.sha256);
        whole.map_err(|error| refused(&error))?;
        let definition = self.known_definition(&build.definition, if_revision)?;
        let mut definition = self.with_document(definition, finish.document)?;
        definition.build.clone_from(&build.id);
        build.finish(finish.sha256, definition.revision, self.millis);
        let done = DockDone::build(&build);
        let finished = self.docks.builds_of(&definition.id).filter(|row| !row.is_open()).map(BuildRow::id);
        let finished: Vec<Id> = finished.collect();
        // The oldest come first, and the new one takes a place as well.
        let surplus = finished.len().saturating_add(1).saturating_sub(BUILDS_KEPT);
        finished.into_iter().take(surplus).for_each(|id| self.delete_build(id, writes));
        self.save_build(build, writes);
        self.save_definition(definition, writes);
        Ok(done)
    }

    pub(super) fn build_abandon(&mut self, id: &[u8], writes: &mut Writes) -> Result<DockDone, Refusal> {
        let row = self.known_build(id)?;
        if !row.is_open() {
            return Err(refused(&BuildError::Finished));
        }
        self.delete_build(row.id(), writes);
        Ok(DockDone::build(&row))
    }
}
