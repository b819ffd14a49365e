//! Sorted maps and sets whose clones share what neither of them changed.
//!
//! A clone costs one reference count. Whoever goes on changes copies only the way to the value that is changed, which
//! grows with the logarithm of what there is. So a clone of the whole machine is a snapshot that costs next to nothing:
//! readers look at one while the next entries are applied to another.

use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

/// A sorted map.
pub(crate) type Map<K, V> = RedBlackTreeMapSync<K, V>;
/// A sorted set.
pub(crate) type Set<T> = RedBlackTreeSetSync<T>;

/// Changes the value of a key; where there is none, a default one is put there first.
pub(crate) fn update<K, V, T>(map: &mut Map<K, V>, key: K, change: impl FnOnce(&mut V) -> T) -> T
where
    K: Ord + Clone,
    V: Clone + Default,
{
    if let Some(value) = map.get_mut(&key) {
        return change(value);
    }
    let mut value = V::default();
    let changed = change(&mut value);
    map.insert_mut(key, value);
    changed
}
