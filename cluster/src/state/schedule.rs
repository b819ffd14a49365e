//! The times at which retention must check each namespace, so that a round reads only namespaces that can be due.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rollbook_core::namespace::Head;

/// The namespaces whose retention is limited.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// The namespaces by number, each with its next check, so that a change of a head finds and replaces it.
    limited: HashMap<u32, Limited>,
    /// Time of the next check in milliseconds since 1970, turn among those of the same time, and number of the
    /// namespace.
    looks: BTreeSet<(u64, u64, u32)>,
    /// Counts the checks, so that among namespaces of the same time each has its turn.
    turns: u64,
}

#[derive(Debug)]
struct Limited {
    head: Arc<Head>,
    /// Time and turn of the next check: the key in `looks`.
    at: (u64, u64),
    /// The next check is due at once when `Head::bytes_end` reaches this value.
    bytes_end: u64,
}

/// When the next check of a namespace is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    /// Nothing is too old before this time, milliseconds since 1970.
    pub(crate) at: u64,
    /// The namespace does not have too many bytes before `Head::bytes_end` reaches this value.
    pub(crate) bytes_end: u64,
}

impl Next {
    /// The next check is due at once.
    pub(crate) const NOW: Self = Self { at: 0, bytes_end: 0 };
    /// The next check is due when the head changes.
    pub(crate) const CHANGED: Self = Self { at: u64::MAX, bytes_end: u64::MAX };
}

impl Schedule {
    /// A head has changed.
    pub(crate) fn changed(&mut self, head: Arc<Head>) {
        let id = head.id;
        if head.deleted || head.retention.is_unlimited() || head.events() == 0 {
            if let Some(limited) = self.limited.remove(&id) {
                self.looks.remove(&(limited.at.0, limited.at.1, id));
            }
            return;
        }
        let keep = head.retention;
        let too_many = keep.events_max > 0 && head.events() > keep.events_max;
        let known = self.limited.get(&id);
        let soon = known.is_none_or(|known| {
            let too_large = keep.bytes_max > 0 && head.bytes_end >= known.bytes_end;
            too_many || too_large || keep != known.head.retention || head.first != known.head.first
        });
        match known {
            // A namespace that waits for a look already keeps its turn.
            Some(known) if !soon || known.at.0 == 0 => {
                let (at, bytes_end) = (known.at, known.bytes_end);
                self.limited.insert(id, Limited { head, at, bytes_end });
            }
            _ => self.looked(head, Next::NOW),
        }
    }

    /// The next namespace to look at, whose time has come at `now`. The look must be followed by [`Schedule::looked`].
    pub(crate) fn take(&mut self, now: u64) -> Option<Arc<Head>> {
        let (at, turn, id) = self.looks.first().copied().filter(|(at, _, _)| *at <= now)?;
        self.looks.remove(&(at, turn, id));
        self.limited.get(&id).map(|limited| Arc::clone(&limited.head))
    }

    /// A look has shown when the next one is due. Those at once come one after the other, so that none waits for ever.
    pub(crate) fn looked(&mut self, head: Arc<Head>, next: Next) {
        self.turns = self.turns.saturating_add(1);
        let (id, at) = (head.id, (next.at, self.turns));
        if let Some(before) = self.limited.insert(id, Limited { head, at, bytes_end: next.bytes_end }) {
            self.looks.remove(&(before.at.0, before.at.1, id));
        }
        if next.at != u64::MAX {
            self.looks.insert((at.0, at.1, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::namespace::Retention;

    use super::*;

    fn head(first: u64, next: u64, bytes_end: u64, retention: Retention) -> Arc<Head> {
        Arc::new(Head { id: 1, first, next, bytes_end, retention, ..Head::default() })
    }

    #[test]
    fn a_namespace_is_looked_at_when_something_can_be_due_and_not_before() {
        let mut schedule = Schedule::default();
        let by_age = Retention { age_ms_max: 10, ..Retention::default() };
        schedule.changed(head(1, 2, 0, Retention::default()));
        assert!(schedule.take(u64::MAX).is_none(), "unlimited");
        schedule.changed(head(1, 2, 0, by_age));
        let look = schedule.take(5).unwrap();
        assert!(schedule.take(5).is_none());
        schedule.looked(look, Next { at: 100, bytes_end: u64::MAX });
        schedule.changed(head(1, 9, 0, by_age));
        assert!(schedule.take(99).is_none(), "new events are not too old");
        assert_eq!(schedule.take(100).unwrap().next, 9);
        schedule.looked(head(1, 9, 0, by_age), Next::CHANGED);
        assert!(schedule.take(u64::MAX - 1).is_none());
        schedule.changed(head(3, 9, 0, by_age));
        assert!(schedule.take(0).is_some(), "after a trim the oldest event is another one");
    }

    #[test]
    fn counts_and_bytes_are_due_when_the_head_has_grown_enough() {
        let mut schedule = Schedule::default();
        let bounded = Retention { events_max: 5, bytes_max: 100, ..Retention::default() };
        schedule.changed(head(1, 5, 50, bounded));
        let look = schedule.take(0).unwrap();
        schedule.looked(look, Next { at: u64::MAX, bytes_end: 130 });
        schedule.changed(head(1, 6, 129, bounded));
        assert!(schedule.take(0).is_none());
        schedule.changed(head(1, 6, 130, bounded));
        let look = schedule.take(0).unwrap();
        schedule.looked(look, Next { at: u64::MAX, bytes_end: 500 });
        schedule.changed(head(1, 7, 131, bounded));
        assert!(schedule.take(0).is_some(), "six events");
        schedule.changed(Arc::new(Head { deleted: true, ..(*head(7, 7, 131, bounded)).clone() }));
        assert!(schedule.take(u64::MAX - 1).is_none() && schedule.limited.is_empty() && schedule.looks.is_empty());
    }

    #[test]
    fn those_that_are_always_due_take_turns() {
        let mut schedule = Schedule::default();
        let by_count = Retention { events_max: 1, ..Retention::default() };
        let grown = |id, next| Arc::new(Head { id, first: 1, next, retention: by_count, ..Head::default() });
        (1..=3).for_each(|id| schedule.changed(grown(id, 5)));
        let mut order = Vec::new();
        for next in 6..12 {
            // Two looks at a time, and new events for all.
            let looks: Vec<_> = (0..2).map(|_| schedule.take(0).unwrap()).collect();
            order.extend(looks.iter().map(|head| head.id));
            looks.into_iter().for_each(|head| schedule.looked(head, Next::NOW));
            (1..=3).for_each(|id| schedule.changed(grown(id, next)));
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]);
    }
}
