//! Definitions are set and removed.

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;

use prost::Message as _;

use super::keys;
use crate::dock::change::DefinitionSet;
use crate::dock::definition::{DefinitionError, DefinitionRow};
use crate::dock::done::DockDone;
use crate::dock::limits::{DEFINITIONS_MAX, DOCUMENTS_BYTES_MAX};
use crate::error::{Refusal, check_revision};
use crate::machine::Machine;
use crate::rows::{Family, Writes};
use crate::xbus::id::Id;

fn refused(error: DefinitionError) -> Refusal {
    Refusal::Malformed(error.to_string())
}

impl Machine {
    /// A definition, for a change that needs one of this revision.
    pub(super) fn known_definition(&self, id: &str, if_revision: Option<u64>) -> Result<DefinitionRow, Refusal> {
        let row = self.docks.definition(id);
        check_revision(if_revision, row.map_or(0, |row| row.revision))?;
        row.cloned().ok_or_else(|| Refusal::DockNotFound(format!("definition {id}")))
    }

    /// The definition with another document, not saved yet.
    pub(super) fn with_document(&self, mut row: DefinitionRow, document: Vec<u8>) -> Result<DefinitionRow, Refusal> {
        let others = self.docks.document_bytes.saturating_sub(row.document.len());
        row.set(document).map_err(refused)?;
        if others.saturating_add(row.document.len()) > DOCUMENTS_BYTES_MAX {
            return Err(Refusal::Overloaded(format!("all definitions have at most {DOCUMENTS_BYTES_MAX} bytes")));
        }
        Ok(row)
    }

    /// Writes the row of a definition.
    pub(super) fn save_definition(&mut self, row: DefinitionRow, writes: &mut Writes) {
        writes.put(Family::Meta, keys::definition(&row.id), row.encode_to_vec());
        self.docks.put_definition(row);
    }

    pub(super) fn definition_set(
        &mut self,
        set: DefinitionSet,
        if_revision: Option<u64>,
        writes: &mut Writes,
    ) -> Result<DockDone, Refusal> {
        let present = self.docks.definition(&set.id).cloned();
        check_revision(if_revision, present.as_ref().map_or(0, |row| row.revision))?;
        let row = match present {
            Some(row) => row,
            None if self.docks.definitions.size() >= DEFINITIONS_MAX => {
                return Err(Refusal::Overloaded(format!("at most {DEFINITIONS_MAX} definitions")));
            }
            None => {
                let newest = self.docks.order.last().map_or(0, |(added, _)| *added);
                DefinitionRow::new(set.id, newest.saturating_add(1)).map_err(refused)?
            }
        };
        let row = self.with_document(row, set.document)?;
        let done = DockDone::definition(row.revision);
        self.save_definition(row, writes);
        Ok(done)
    }

    /// Removes a definition with all its builds: a few finished ones, and at most all that are open.
    pub(super) fn definition_remove(
        &mut self,
        id: &str,
        if_revision: Option<u64>,
        writes: &mut Writes,
    ) -> Result<DockDone, Refusal> {
        let row = self.known_definition(id, if_revision)?;
        let builds: Vec<Id> = self.docks.builds_of(id).map(|build| build.id()).collect();
        builds.into_iter().for_each(|build| self.delete_build(build, writes));
        writes.delete(Family::Meta, keys::definition(id));
        self.docks.remove_definition(id);
        Ok(DockDone::definition(row.revision))
    }
}
