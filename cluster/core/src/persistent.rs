//! Persistent sorted maps and sets: a clone shares its nodes with the original.
//!
//! A clone costs one reference count. A change of either one copies only the path from the root to the changed value,
//! whose length is the logarithm of the size. So a clone of the whole machine is a cheap snapshot: readers use the
//! snapshot while the next entries are applied to the original.

use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

/// A sorted map with cheap clones.
pub(crate) type Map<K, V> = RedBlackTreeMapSync<K, V>;
/// A sorted set with cheap clones.
pub(crate) type Set<T> = RedBlackTreeSetSync<T>;

/// Changes the value of a key. A key without a value gets the changed default value.
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
