//! The namespaces that have changed since the last pass of settling, retention and the feed: a pass reads no others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rollbook_core::namespace::Head;

/// The newest applied heads of changed namespaces, by number of the namespace. Each reader has a map of its own
/// and removes the heads that it has finished with.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Namespaces with events that may have to move to the ledger.
    unsettled: BTreeMap<u32, Arc<Head>>,
    /// The first visible event of namespaces that may have blocks before it.
    trimmed: BTreeMap<u32, u64>,
    /// Namespaces that retention must check; only the leader reads this map.
    limited: HashMap<u32, Arc<Head>>,
    /// Namespaces with new events for the feed.
    followed: HashMap<u32, Arc<Head>>,
}

impl Changes {
    /// Notes a changed head, after the change was written to the state.
    pub(crate) fn note(&mut self, head: Head) {
        let head = Arc::new(head);
        if head.first > 1 {
            self.trimmed.insert(head.id, head.first);
        }
        self.unsettled.insert(head.id, Arc::clone(&head));
        self.limited.insert(head.id, Arc::clone(&head));
        self.followed.insert(head.id, head);
    }

    /// Some of the namespaces that may have something to settle, from number `from` on.
    pub(crate) fn unsettled(&self, from: u32, max: usize) -> Vec<Arc<Head>> {
        self.unsettled.range(from..).take(max).map(|(_, head)| Arc::clone(head)).collect()
    }

    /// All events of a namespace before `end` are settled or out of sight.
    pub(crate) fn settled(&mut self, namespace: u32, end: u64) {
        if self.unsettled.get(&namespace).is_some_and(|head| head.next <= end) {
            self.unsettled.remove(&namespace);
        }
    }

    /// The first visible event of each namespace that was trimmed.
    pub(crate) fn trimmed(&self) -> impl Iterator<Item = (u32, u64)> {
        self.trimmed.iter().map(|(namespace, first)| (*namespace, *first))
    }

    /// Whether any namespace has something that may go, as `check` knows of the first visible event of each. Those that
    /// have nothing are not asked about again before they change.
    pub(crate) fn any_forgettable(&mut self, check: impl Fn(u32, u64) -> bool) -> bool {
        let (unsettled, mut any) = (&self.unsettled, false);
        self.trimmed.retain(|namespace, first| {
            let forgettable = check(*namespace, *first);
            any |= forgettable;
            // Blocks that are out of sight may still be on their way into the ledger.
            forgettable || unsettled.contains_key(namespace)
        });
        any
    }

    /// Nothing is left of a namespace before `first`.
    pub(crate) fn forgotten(&mut self, namespace: u32, first: u64) {
        if self.trimmed.get(&namespace).is_some_and(|now| *now <= first) {
            self.trimmed.remove(&namespace);
        }
    }

    /// The heads that changed since the last call, for the feed of new events.
    pub(crate) fn take_followed(&mut self) -> HashMap<u32, Arc<Head>> {
        std::mem::take(&mut self.followed)
    }

    /// The heads that changed since the last call, for retention.
    pub(crate) fn take_limited(&mut self) -> HashMap<u32, Arc<Head>> {
        std::mem::take(&mut self.limited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(id: u32, first: u64, next: u64) -> Head {
        Head { id, first, next, ..Head::default() }
    }

    fn ids(changes: &Changes, from: u32) -> Vec<u32> {
        changes.unsettled(from, 9).iter().map(|head| head.id).collect()
    }

    #[test]
    fn a_namespace_that_changed_again_while_it_was_worked_on_is_not_done() {
        let mut changes = Changes::default();
        changes.note(head(1, 1, 5));
        changes.note(head(2, 3, 9));
        assert_eq!((ids(&changes, 0), ids(&changes, 2)), (vec![1, 2], vec![2]));
        changes.note(head(1, 1, 6));
        changes.settled(1, 5);
        assert_eq!(ids(&changes, 0), [1, 2]);
        changes.settled(1, 6);
        changes.settled(2, 9);
        assert!(ids(&changes, 0).is_empty());
        assert_eq!(changes.trimmed().collect::<Vec<_>>(), [(2, 3)]);
        changes.note(head(2, 4, 9));
        changes.forgotten(2, 3);
        assert_eq!(changes.trimmed().collect::<Vec<_>>(), [(2, 4)]);
        changes.forgotten(2, 4);
        assert_eq!(changes.trimmed().count(), 0);
        assert_eq!((changes.take_limited().len(), changes.take_limited().len()), (2, 0));
        assert_eq!((changes.take_followed().len(), changes.take_followed().len()), (2, 0));
    }

    #[test]
    fn what_has_nothing_to_forget_is_asked_once() {
        let mut changes = Changes::default();
        changes.note(head(1, 3, 9));
        changes.note(head(2, 3, 9));
        changes.settled(2, 9);
        assert!(changes.any_forgettable(|namespace, first| (namespace, first) == (2, 3)));
        assert_eq!(changes.trimmed().count(), 2, "of the first one, blocks may still be on their way");
        assert!(!changes.any_forgettable(|_, _| false));
        assert_eq!(changes.trimmed().collect::<Vec<_>>(), [(1, 3)]);
        changes.settled(1, 9);
        assert!(!changes.any_forgettable(|_, _| false));
        assert_eq!(changes.trimmed().count(), 0);
    }
}
