//! The keys of the rows.
//!
//! Definitions and builds are in [`Family::Meta`](crate::rows::Family::Meta), which is read as a whole at the start. The
//! bytes of builds are in [`Family::Ids`] under [`NAMESPACE`], a number that no namespace gets: a family of its own would
//! keep releases before the level from opening the store.

use alloc::vec::Vec;

use crate::machine::xbus::keys::NAMESPACE as XBUS;
use crate::rows::{self, Family, Writes};
use crate::xbus::id::Id;

/// Stands where other rows of [`Family::Ids`] have the number of their namespace. The rows of Xbus follow behind.
pub(in crate::machine) const NAMESPACE: u32 = XBUS - 1;
/// The family of all rows under [`NAMESPACE`].
pub(super) const FAMILY: Family = Family::Ids;

/// Beginning of the keys in [`Family::Meta`].
pub(super) const DEFINITION: &[u8] = b"docks/definition/";
pub(super) const BUILD: &[u8] = b"docks/build/";

/// From so many chunks on they are deleted as a range. Few go one by one: a deleted range stays in the store, and later
/// reads have to pass by it.
const RANGE_MIN: u32 = 16;

/// The key of the row of a definition.
pub(super) fn definition(id: &str) -> Vec<u8> {
    [DEFINITION, id.as_bytes()].concat()
}

/// The key of the row of a build.
pub(super) fn build(id: Id) -> Vec<u8> {
    [BUILD, id.as_bytes()].concat()
}

/// The key of a chunk.
pub(super) fn chunk(build: Id, ordinal: u32) -> Vec<u8> {
    rows::key(NAMESPACE, &[build.as_bytes(), &ordinal.to_be_bytes()])
}

/// Deletes all `chunks` chunks of a build.
pub(super) fn delete_chunks(build: Id, chunks: u32, writes: &mut Writes) {
    if chunks < RANGE_MIN {
        (0..chunks).for_each(|ordinal| writes.delete(FAMILY, chunk(build, ordinal)));
    } else {
        // No build has so many chunks that one of them has the last ordinal.
        writes.delete_range(FAMILY, chunk(build, 0), chunk(build, u32::MAX));
    }
}
