//! Who wants which live subjects: the subscriptions of this node, and what other nodes want.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::atomic::AtomicUsize;

use rollbook_core::subjects::interest::Interest;

use super::filter::{LiveFilter, LiveSubject};
use super::route::{QueueGroup, Route, Target};

/// What a subscription wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::bus) struct Wanted {
    pub(in crate::bus) filter: LiveFilter,
    /// The name of the queue group; empty for a subscription without one.
    pub(in crate::bus) group: Box<str>,
    /// Whether the subscription gets subjects that begin with `_` although its filter begins with a wildcard. Never set
    /// for other filters.
    pub(in crate::bus) sees_reserved: bool,
}

impl Wanted {
    pub(in crate::bus) fn new(filter: LiveFilter, group: &str, sees_reserved: bool) -> Self {
        let sees_reserved = sees_reserved && filter.begins_with_wildcard();
        Self { filter, group: group.into(), sees_reserved }
    }

    /// About the bytes that a table keeps for this.
    pub(in crate::bus) fn weight(&self) -> usize {
        self.filter.weight(self.group.len())
    }
}

/// What happened to a filter and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) enum InterestChange {
    /// The first subscription of the node that wants it.
    Add,
    /// There is none any more.
    Remove,
}

/// Something that wants messages.
#[derive(Debug)]
pub(in crate::bus) enum Entry {
    /// A subscription of a client of this node.
    Local { wanted: Wanted, target: Target },
    /// Subscriptions of another node.
    Remote { wanted: Wanted, node: u64 },
}

impl Entry {
    pub(in crate::bus) const fn wanted(&self) -> &Wanted {
        match self {
            Self::Local { wanted, .. } | Self::Remote { wanted, .. } => wanted,
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub(in crate::bus) struct Table {
    /// The numbers of the entries by what they want.
    pub(in crate::bus) interest: Interest<u64>,
    /// The entries by number.
    pub(in crate::bus) entries: HashMap<u64, Entry>,
    /// The number of the next entry.
    next: u64,
    /// How many subscriptions of this node want the same: other nodes hear of the first and of the last.
    pub(in crate::bus) own: HashMap<Wanted, usize>,
    /// About the bytes of the subscriptions of this node.
    pub(in crate::bus) own_bytes: usize,
    /// How many filters of `own` begin with a token. A wildcard counts as `*`.
    pub(in crate::bus) own_first: HashMap<Box<str>, usize>,
    /// The entries of other nodes.
    pub(in crate::bus) remote: HashMap<u64, HashMap<Wanted, u64>>,
}

impl Table {
    /// Adds an entry and returns its number.
    pub(in crate::bus) fn add(&mut self, entry: Entry) -> u64 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        let filter = &entry.wanted().filter;
        self.interest.insert_segments(filter.trie_tokens(), filter.has_tail(), number);
        self.entries.insert(number, entry);
        number
    }

    /// Removes an entry.
    pub(in crate::bus) fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        let filter = &entry.wanted().filter;
        self.interest.remove_segments(&mut filter.trie_tokens(), filter.has_tail(), number);
        Some(entry)
    }

    /// Counts one more subscription of this node. Returns whether it is the first that wants this.
    pub(in crate::bus) fn count(&mut self, wanted: &Wanted) -> bool {
        let same = self.own.entry(wanted.clone()).or_default();
        *same = same.saturating_add(1);
        let first = *same == 1;
        if first {
            let begin = self.own_first.entry(wanted.filter.first_token().into()).or_default();
            *begin = begin.saturating_add(1);
        }
        first
    }

    /// Counts one less. Returns whether it was the last that wanted this.
    pub(in crate::bus) fn discount(&mut self, wanted: &Wanted) -> bool {
        let last = lower(&mut self.own, wanted.clone());
        if last {
            lower(&mut self.own_first, wanted.filter.first_token().into());
        }
        last
    }

    /// Where messages of a subject go. `group` and `generation`: as [`super::generations::Generations`] counts them now.
    pub(in crate::bus) fn route(&self, subject: &LiveSubject, (group, generation): (usize, u64)) -> Route {
        let mut route = Route { group, generation, ..Route::default() };
        let mut groups: HashMap<&str, QueueGroup> = HashMap::new();
        let reserved = subject.as_str().starts_with('_');
        self.interest.for_each(subject.as_str(), &mut |numbers| {
            for entry in numbers.iter().filter_map(|number| self.entries.get(number)) {
                let Wanted { filter, group, sees_reserved } = entry.wanted();
                if reserved && filter.begins_with_wildcard() && !sees_reserved {
                    continue;
                }
                match (entry, &**group) {
                    (Entry::Local { target, .. }, "") => route.plain.push(target.clone()),
                    (Entry::Local { target, .. }, name) => {
                        groups.entry(name).or_default().members.push(target.clone());
                    }
                    (Entry::Remote { node, .. }, "") => route.nodes.push(*node),
                    (Entry::Remote { node, .. }, name) => groups.entry(name).or_default().nodes.push(*node),
                }
            }
        });
        let sorted = |mut nodes: Vec<u64>| {
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        };
        route.nodes = sorted(route.nodes);
        // A new route begins with another member than the one before it: subscriptions that come and go must not give the
        // first member more.
        let turn = usize::try_from(generation).unwrap_or_default();
        let named = |(name, group): (&str, QueueGroup)| {
            let nodes = sorted(group.nodes);
            QueueGroup { name: name.into(), nodes, turn: AtomicUsize::new(turn), ..group }
        };
        route.groups = groups.into_iter().map(named).collect();
        route
    }
}

/// Counts one less of a key. Returns whether it was the last.
fn lower<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: K) -> bool {
    let MapEntry::Occupied(mut count) = counts.entry(key) else { return false };
    *count.get_mut() = count.get().saturating_sub(1);
    let last = *count.get() == 0;
    if last {
        count.remove();
    }
    last
}
