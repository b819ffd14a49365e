//! Where the bytes of builds are, for readers.
//!
//! All rows are in [`Family::Ids`](crate::rows::Family::Ids). This file has their keys; the store is read by the caller.
//! How many chunks a build has is in memory: [`super::state::Docks::build`].

use alloc::vec::Vec;

use super::keys;
use crate::xbus::id::Id;

/// The key of a chunk of a build. The value is the bytes of the chunk.
#[must_use]
pub fn chunk_key(build: Id, ordinal: u32) -> Vec<u8> {
    keys::chunk(build, ordinal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_a_build_are_in_their_order_and_behind_each_namespace_and_before_xbus() {
        let key = |build: u8, ordinal| chunk_key(Id::new([build; 16]), ordinal);
        assert!(key(1, 1) < key(1, 2) && key(1, 255) < key(1, 256) && key(1, u32::MAX) < key(2, 0));
        assert_eq!(key(1, 2)[..4], (u32::MAX - 2).to_be_bytes());
        assert!(key(255, u32::MAX) < crate::machine::Machine::xbus_bounds().0);
    }
}
