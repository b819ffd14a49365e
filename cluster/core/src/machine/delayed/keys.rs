//! The keys of the rows of waiting events. The value of a row is the record of the event.
//!
//! All rows are in [`FAMILY`] under a number that no namespace gets: a family of its own would keep releases before the
//! level from opening the store.

use alloc::vec::Vec;

use crate::machine::docks::keys::NAMESPACE as DOCKS;
use crate::rows::{self, Family};
use crate::timed::delayed::DelayedId;

/// The family of the rows.
pub const FAMILY: Family = Family::Ids;
/// Stands where other rows of [`FAMILY`] have the number of their namespace. The rows of docks follow behind.
pub(in crate::machine) const NAMESPACE: u32 = DOCKS - 1;

/// The key of the row of a waiting event.
#[must_use]
pub fn key(id: DelayedId) -> Vec<u8> {
    let (namespace, due, number) = (id.namespace.to_be_bytes(), id.due.to_be_bytes(), id.number.to_be_bytes());
    rows::key(NAMESPACE, &[&namespace, &due, &number])
}

/// The id of the waiting event whose row has this key; `None` for other keys.
#[must_use]
pub fn parse(key: &[u8]) -> Option<DelayedId> {
    let rest = key.strip_prefix(&NAMESPACE.to_be_bytes())?;
    let (namespace, rest) = rest.split_first_chunk()?;
    let (due, number) = rest.split_first_chunk()?;
    Some(DelayedId {
        namespace: u32::from_be_bytes(*namespace),
        due: u64::from_be_bytes(*due),
        number: u64::from_be_bytes(number.try_into().ok()?),
    })
}

/// The bounds `from .. to` of the keys of all events that wait for a namespace.
#[must_use]
pub fn bounds(namespace: u32) -> (Vec<u8>, Vec<u8>) {
    let key = |namespace: u32| rows::key(NAMESPACE, &[&namespace.to_be_bytes()]);
    (key(namespace), key(namespace.saturating_add(1)))
}

/// The end of the keys of all waiting events, of any namespace.
#[must_use]
pub fn end() -> Vec<u8> {
    rows::key(DOCKS, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_ids_behind_each_namespace_and_before_docks() {
        let id = |namespace, due, number| DelayedId { namespace, due, number };
        let ids = [id(1, 2, 3), id(1, 2, 256), id(1, 256, 1), id(2, 0, 0), id(255, 1, 1), id(256, 0, 0)];
        let found: Vec<Vec<u8>> = ids.into_iter().map(key).collect();
        assert!(found.is_sorted() && ids.is_sorted());
        assert!(ids.into_iter().eq(found.iter().filter_map(|key| parse(key))));
        let (from, to) = bounds(1);
        assert!(found.iter().all(|key| (*key >= from && *key < to) == (parse(key).unwrap().namespace == 1)));
        assert!(found.iter().all(|key| *key < end()) && end() <= crate::machine::Machine::xbus_bounds().0);
        assert!(rows::bounds(1_000_000).1 < found[0]);
        assert_eq!([parse(&found[0][1..]), parse(&found[0][..19]), parse(b"")], [None; 3]);
    }
}
