//! Definitions, and builds without their bytes, in memory.

use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;

use prost::Message as _;

use super::keys::{BUILD, DEFINITION};
use crate::dock::build::BuildRow;
use crate::dock::definition::DefinitionRow;
use crate::persistent::{Map, Set};
use crate::rows::RowsError;
use crate::xbus::id::Id;

/// The state of docks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Docks {
    pub(super) definitions: Map<String, Arc<DefinitionRow>>,
    /// Ids of definitions in the order of adding.
    pub(super) order: Map<u64, String>,
    /// Bytes of the documents of all definitions.
    pub(super) document_bytes: usize,
    pub(super) builds: Map<Id, Arc<BuildRow>>,
    /// Definition, revision and build: of a definition first the open builds, then the finished ones, oldest first.
    pub(super) of: Set<(String, u64, Id)>,
    /// Open builds, those without a chunk for the longest time first.
    pub(super) open: Set<(u64, Id)>,
    /// Bytes of all builds.
    pub(super) build_bytes: u64,
}

impl Docks {
    /// A definition.
    #[must_use]
    pub fn definition(&self, id: &str) -> Option<&DefinitionRow> {
        self.definitions.get(id).map(|row| &**row)
    }

    /// All definitions, in the order of adding.
    pub fn definitions(&self) -> impl Iterator<Item = &DefinitionRow> {
        self.order.values().filter_map(|id| self.definition(id))
    }

    /// How many definitions there are.
    #[must_use]
    pub fn definitions_count(&self) -> usize {
        self.definitions.size()
    }

    /// A build, finished or open.
    #[must_use]
    pub fn build(&self, id: &Id) -> Option<&BuildRow> {
        self.builds.get(id).map(|row| &**row)
    }

    /// All builds, by id.
    pub fn builds(&self) -> impl Iterator<Item = &BuildRow> {
        self.builds.values().map(|row| &**row)
    }

    /// The builds of a definition: first the open ones, then the finished ones, oldest first.
    pub fn builds_of(&self, definition: &str) -> impl Iterator<Item = &BuildRow> {
        let is_of = move |(of, ..): &&(String, u64, Id)| of == definition;
        let of = self.of.range((definition.to_string(), 0, Id::default())..).take_while(is_of);
        of.filter_map(|(.., id)| self.build(id))
    }

    /// How many builds are open.
    #[must_use]
    pub fn open_builds_count(&self) -> usize {
        self.open.size()
    }

    /// Bytes of all builds, finished and open.
    #[must_use]
    pub const fn build_bytes(&self) -> u64 {
        self.build_bytes
    }

    /// When the next open build is abandoned if no chunk of it comes; milliseconds since 1970.
    #[must_use]
    pub fn next_abandoned(&self) -> Option<u64> {
        let (_, id) = self.open.first()?;
        self.build(id)?.abandoned_at()
    }

    /// The open builds that have waited for too long for a chunk.
    pub(super) fn idle(&self, now: u64) -> Vec<Id> {
        let is_idle = |id: &Id| self.build(id).and_then(BuildRow::abandoned_at).is_some_and(|at| at <= now);
        self.open.iter().map(|(_, id)| *id).take_while(is_idle).collect()
    }

    /// Takes a row of [`crate::rows::Family::Meta`]. Whether it was one of docks.
    pub(in crate::machine) fn load_meta(&mut self, key: &[u8], value: &[u8]) -> Result<bool, RowsError> {
        let corrupt = |_| RowsError::corrupt("docks");
        if key.starts_with(DEFINITION) {
            self.put_definition(DefinitionRow::decode(value).map_err(corrupt)?);
        } else if key.starts_with(BUILD) {
            self.put_build(BuildRow::decode(value).map_err(corrupt)?);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    pub(super) fn put_definition(&mut self, row: DefinitionRow) {
        self.remove_definition(&row.id);
        self.document_bytes = self.document_bytes.saturating_add(row.document.len());
        self.order.insert_mut(row.added, row.id.clone());
        self.definitions.insert_mut(row.id.clone(), Arc::new(row));
    }

    pub(super) fn remove_definition(&mut self, id: &str) {
        let Some(was) = self.definitions.get(id).cloned() else { return };
        self.document_bytes = self.document_bytes.saturating_sub(was.document.len());
        self.order.remove_mut(&was.added);
        self.definitions.remove_mut(id);
    }

    pub(super) fn put_build(&mut self, row: BuildRow) {
        let id = row.id();
        self.remove_build(id);
        self.build_bytes = self.build_bytes.saturating_add(row.bytes);
        self.of.insert_mut((row.definition.clone(), row.revision, id));
        if row.is_open() {
            self.open.insert_mut((row.touched_at, id));
        }
        self.builds.insert_mut(id, Arc::new(row));
    }

    pub(super) fn remove_build(&mut self, id: Id) {
        let Some(was) = self.builds.get(&id).cloned() else { return };
        self.build_bytes = self.build_bytes.saturating_sub(was.bytes);
        self.of.remove_mut(&(was.definition.clone(), was.revision, id));
        self.open.remove_mut(&(was.touched_at, id));
        self.builds.remove_mut(&id);
    }
}
