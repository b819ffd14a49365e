//! A trie of patterns that finds all subscriptions of a subject, segment by segment.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hash::Hash;

use hashbrown::HashMap;

use super::pattern::Pattern;

/// Patterns with the keys of their subscribers.
///
/// For each segment of the subject, a search follows one literal child and one `*` child. So the cost grows with the
/// number of patterns whose beginning matches, and not with the number of all patterns.
#[derive(Debug, Clone)]
pub struct Interest<K> {
    /// The node before the first segment.
    root: Node<K>,
    /// Number of pairs of pattern and key, so that `len` needs no walk through the trie.
    len: usize,
}

#[derive(Debug, Clone)]
struct Node<K> {
    /// Children by literal segment.
    literal: HashMap<Box<str>, Box<Node<K>>>,
    /// The child for `*`.
    any: Option<Box<Node<K>>>,
    /// Keys of the patterns that end at this node.
    exact: Keys<K>,
    /// Keys of the patterns that continue with `>` or `**` from this node.
    tail: Keys<K>,
}

impl<K: Copy + Eq + Hash> Interest<K> {
    /// A trie without patterns.
    #[must_use]
    pub fn new() -> Self {
        Self { root: Node::new(), len: 0 }
    }

    /// Number of pairs of pattern and key.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the trie has no pattern.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds `key` under `pattern`. Returns `false` when the pair exists already.
    pub fn insert(&mut self, pattern: &Pattern, key: K) -> bool {
        self.insert_segments(pattern.segments(), pattern.has_tail(), key)
    }

    /// Adds `key` under a pattern of these segments, whose first one may be a wildcard too.
    pub fn insert_segments<'s>(&mut self, segments: impl Iterator<Item = &'s str>, tail: bool, key: K) -> bool {
        let mut node = &mut self.root;
        for segment in segments {
            node = node.child_mut(segment);
        }
        let keys = if tail { &mut node.tail } else { &mut node.exact };
        let added = keys.insert(key);
        self.len += usize::from(added);
        added
    }

    /// Removes `key` from `pattern`. Returns whether the pair existed.
    pub fn remove(&mut self, pattern: &Pattern, key: K) -> bool {
        self.remove_segments(&mut pattern.segments(), pattern.has_tail(), key)
    }

    /// Removes `key` from a pattern of these segments. Returns whether the pair existed.
    pub fn remove_segments(&mut self, segments: &mut dyn Iterator<Item = &str>, tail: bool, key: K) -> bool {
        let removed = self.root.remove(segments, tail, key);
        self.len -= usize::from(removed);
        removed
    }

    /// Appends to `found` the key of each pair whose pattern matches `subject`. A key with several matching patterns is
    /// appended several times. The order depends only on the calls before. Allocates only when `found` must grow.
    pub fn find(&self, subject: &str, found: &mut Vec<K>) {
        self.for_each(subject, &mut |keys| found.extend_from_slice(keys));
    }

    /// Hands the keys of all patterns that match `subject` to `found`, those of a pattern at a time. Allocates nothing.
    pub fn for_each(&self, subject: &str, found: &mut impl FnMut(&[K])) {
        self.root.find(Some(subject), found);
    }
}

impl<K: Copy + Eq + Hash> Default for Interest<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Copy + Eq + Hash> Node<K> {
    fn new() -> Self {
        Self { literal: HashMap::new(), any: None, exact: Keys::new(), tail: Keys::new() }
    }

    fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.any.is_none() && self.exact.is_empty() && self.tail.is_empty()
    }

    /// The child for one segment of a pattern, created if it does not exist.
    fn child_mut(&mut self, segment: &str) -> &mut Self {
        if segment == "*" {
            return self.any.get_or_insert_with(|| Box::new(Self::new()));
        }
        self.literal.entry_ref(segment).or_insert_with(|| Box::new(Self::new()))
    }

    /// Removes the key at the end of the path, and empty nodes on the way back. The length of a pattern bounds the
    /// recursion.
    fn remove(&mut self, segments: &mut dyn Iterator<Item = &str>, tail: bool, key: K) -> bool {
        let Some(segment) = segments.next() else {
            return if tail { self.tail.remove(key) } else { self.exact.remove(key) };
        };
        let child = if segment == "*" { self.any.as_mut() } else { self.literal.get_mut(segment) };
        let Some(child) = child else {
            return false;
        };
        let removed = child.remove(segments, tail, key);
        if child.is_empty() {
            if segment == "*" {
                self.any = None;
            } else {
                self.literal.remove(segment);
            }
            shrink(&mut self.literal);
        }
        removed
    }

    /// Finds the keys of the matching patterns below this node. `rest` is the rest of the subject, `None` after its
    /// last segment. The depth of the trie bounds the recursion, not the length of the subject.
    fn find(&self, rest: Option<&str>, found: &mut impl FnMut(&[K])) {
        found(&self.tail.list);
        let Some(rest) = rest else { return found(&self.exact.list) };
        let (segment, rest) = match rest.split_once('.') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        if let Some(child) = self.literal.get(segment) {
            child.find(rest, found);
        }
        if let Some(child) = &self.any {
            child.find(rest, found);
        }
    }
}

/// A set of keys that is read as one slice, because every event reads the sets and only subscriptions change them.
#[derive(Debug, Clone)]
struct Keys<K> {
    /// The keys without order.
    list: Vec<K>,
    /// Index of each key in the list, so that a removal needs no search.
    index_of: HashMap<K, usize>,
}

impl<K: Copy + Eq + Hash> Keys<K> {
    fn new() -> Self {
        Self { list: Vec::new(), index_of: HashMap::new() }
    }

    fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn insert(&mut self, key: K) -> bool {
        if self.index_of.contains_key(&key) {
            return false;
        }
        self.index_of.insert(key, self.list.len());
        self.list.push(key);
        true
    }

    fn remove(&mut self, key: K) -> bool {
        let Some(at) = self.index_of.remove(&key) else {
            return false;
        };
        self.list.swap_remove(at);
        // The last key has moved into the gap, unless the removed key was the last one.
        if let Some(moved) = self.list.get(at) {
            self.index_of.insert(*moved, at);
        }
        if self.list.capacity() > 64 && self.list.len() < self.list.capacity() / 4 {
            self.list.shrink_to(self.list.len() * 2);
        }
        shrink(&mut self.index_of);
        true
    }
}

/// Gives memory back after many removals, so seldom that the cost per removal stays constant on average.
fn shrink<A: Eq + Hash, B>(map: &mut HashMap<A, B>) {
    if map.capacity() > 64 && map.len() < map.capacity() / 4 {
        map.shrink_to(map.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::subjects::pattern;
    use crate::subjects::pattern::tests::{any_pattern, any_subject};

    fn index(patterns: &[(&str, u32)]) -> Interest<u32> {
        let mut interest = Interest::new();
        for (text, key) in patterns {
            assert_eq!(Pattern::parse(text).map(|pattern| interest.insert(&pattern, *key)), Ok(true));
        }
        interest
    }

    fn found(interest: &Interest<u32>, subject: &str) -> Vec<u32> {
        let mut keys = Vec::new();
        interest.find(subject, &mut keys);
        keys.sort_unstable();
        keys
    }

    fn remove(interest: &mut Interest<u32>, text: &str, key: u32) -> bool {
        Pattern::parse(text).is_ok_and(|pattern| interest.remove(&pattern, key))
    }

    #[test]
    fn finds_who_asked_for_a_subject() {
        let interest = index(&[
            ("app.a", 1),
            ("app.*", 2),
            ("app.>", 3),
            ("app.a.**", 4),
            ("app.*.b", 5),
            ("app.a.b", 6),
            ("x.>", 7),
        ]);
        assert_eq!(interest.len(), 7);
        assert_eq!(found(&interest, "app.a"), [1, 2, 3, 4]);
        assert_eq!(found(&interest, "app.a.b"), [3, 4, 5, 6]);
        assert_eq!(found(&interest, "app.z"), [2, 3]);
        assert_eq!(found(&interest, "app"), [3]);
        assert_eq!(found(&interest, "x.y.z"), [7]);
        assert!(found(&interest, "y.z").is_empty());
        assert!(found(&interest, "").is_empty());
    }

    #[test]
    fn keeps_what_was_found_before() {
        let interest = index(&[("app.a", 1)]);
        let mut keys = vec![9];
        interest.find("app.a", &mut keys);
        assert_eq!(keys, [9, 1]);
    }

    #[test]
    fn a_key_counts_once_under_a_pattern_and_once_more_under_each_other_pattern() {
        let mut interest = index(&[("app.>", 1), ("app.a", 1)]);
        assert_eq!(Pattern::parse("app.**").map(|pattern| interest.insert(&pattern, 1)), Ok(false));
        assert_eq!(found(&interest, "app.a"), [1, 1]);
        assert_eq!(interest.len(), 2);
        assert!(remove(&mut interest, "app.**", 1));
        assert_eq!(found(&interest, "app.a"), [1]);
    }

    #[test]
    fn removes_only_what_is_there() {
        let mut interest = index(&[("app.a.b", 1), ("app.a.b", 2), ("app.*", 3)]);
        for (pattern, key) in
            [("app.a.b", 3), ("app.a", 1), ("app.a.b.c", 1), ("app.a.b.>", 1), ("app.>", 3), ("x.y", 1)]
        {
            assert!(!remove(&mut interest, pattern, key), "{pattern} {key}");
        }
        assert!(remove(&mut interest, "app.a.b", 1));
        assert!(!remove(&mut interest, "app.a.b", 1));
        assert_eq!(found(&interest, "app.a.b"), [2]);
        assert_eq!(interest.len(), 2);
    }

    #[test]
    fn nothing_is_left_when_all_have_left() {
        let patterns = ["app.a.b.c", "app.a.*.c", "app.*.>", "app.a", "y.**"];
        let mut interest = Interest::new();
        for key in 0..1000 {
            for pattern in patterns.iter().filter_map(|text| Pattern::parse(text).ok()) {
                interest.insert(&pattern, key);
            }
        }
        assert_eq!(interest.len(), 5000);
        for key in 0..1000 {
            assert!(patterns.iter().all(|pattern| remove(&mut interest, pattern, key)));
        }
        assert!(interest.is_empty());
        assert!(interest.root.is_empty(), "empty nodes are pruned");
    }

    #[test]
    fn memory_of_inboxes_that_came_and_went_is_given_back() {
        let mut interest = Interest::new();
        let inboxes = (0..10_000).filter_map(|n| Pattern::parse(&format!("_bus_.{n}")).ok()).collect::<Vec<_>>();
        for (key, inbox) in (0..).zip(&inboxes) {
            interest.insert(inbox, key);
        }
        for (key, inbox) in (1..).zip(inboxes.iter().skip(1)) {
            assert!(interest.remove(inbox, key));
        }
        assert_eq!(found(&interest, "_bus_.0"), [0]);
        assert_eq!(interest.root.literal.get("_bus_").map(|node| node.literal.capacity() <= 64), Some(true));
    }

    proptest! {
        #[test]
        fn finds_what_a_look_at_every_pattern_finds(
            steps in prop::collection::vec((any::<bool>(), any_pattern(), 0..4_u32), 1..60),
            subjects in prop::collection::vec(any_subject(), 1..10),
        ) {
            let mut interest = Interest::new();
            let mut all: Vec<(Pattern, u32)> = Vec::new();
            for (insert, pattern, key) in steps {
                let at = all.iter().position(|(p, k)| *p == pattern && *k == key);
                if insert {
                    prop_assert_eq!(interest.insert(&pattern, key), at.is_none());
                    if at.is_none() {
                        all.push((pattern, key));
                    }
                } else {
                    prop_assert_eq!(interest.remove(&pattern, key), at.is_some());
                    at.map(|at| all.swap_remove(at));
                }
                prop_assert_eq!(interest.len(), all.len());
                for subject in &subjects {
                    let matching = all.iter().filter(|(p, _)| pattern::matches(p.as_str(), subject));
                    let mut expected = matching.map(|(_, key)| *key).collect::<Vec<_>>();
                    expected.sort_unstable();
                    prop_assert_eq!(found(&interest, subject), expected);
                }
            }
            for (pattern, key) in all {
                prop_assert!(interest.remove(&pattern, key));
            }
            prop_assert!(interest.root.is_empty());
        }
    }
}
