//! Reads of the bytes of builds of docks.

use std::sync::Arc;

use rollbook_core::machine::docks::query;
use rollbook_core::rows::Family;
use rollbook_core::xbus::id::Id;

use crate::error::ReadError;
use crate::state::state::State;

/// Reads chunks of builds. All functions read from the disk, so they are not for async threads.
///
/// How many chunks a build has is in the machine. Rows are never older than the machine that was looked at before: a
/// chunk that is not there any more belongs to a build that was removed since.
#[derive(Clone)]
pub struct BuildReader {
    state: Arc<State>,
}

impl std::fmt::Debug for BuildReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildReader").finish_non_exhaustive()
    }
}

impl BuildReader {
    pub(crate) const fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// A chunk of a build, finished or open, by its ordinal from 0; `None` when the build has no such chunk, or is gone.
    ///
    /// # Errors
    /// The store failed.
    pub fn chunk(&self, build: &Id, ordinal: u32) -> Result<Option<Vec<u8>>, ReadError> {
        self.state.row(Family::Ids, &query::chunk_key(*build, ordinal))
    }
}
