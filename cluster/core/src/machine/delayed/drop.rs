//! Drops the events that wait for a namespace that is deleted.

use super::keys;
#[cfg(test)]
use super::state::Delayed;
use super::state::META_DROPPED;
use crate::machine::Machine;
use crate::rows::{self, Family, Writes};

impl Machine {
    /// Drops all events that wait for a namespace that is being deleted, and counts them. The caller saves the row of the namespace.
    pub(in crate::machine) fn drop_delayed(&mut self, name: &str, writes: &mut Writes) {
        if self.heads.get(name).is_none_or(|head| head.delayed.is_none()) {
            return;
        }
        let Some(head) = self.heads.get_mut(name) else { return };
        let before = head.clone();
        let Some(of) = &mut head.delayed else { return };
        let events = of.events;
        (of.events, of.bytes, of.first_due, of.first_number) = (0, 0, 0, 0);
        self.delayed.changed(&before, head);
        let (from, to) = keys::bounds(head.id);
        writes.delete_range(keys::FAMILY, from, to);
        // Records of events that were released. No other namespace that can be deleted has such rows.
        let (from, to) = rows::bounds(head.id);
        writes.delete_range(Family::Made, from, to);
        if events > 0 {
            self.delayed.dropped = self.delayed.dropped.saturating_add(events);
            writes.put(Family::Meta, META_DROPPED.into(), self.delayed.dropped.to_be_bytes().into());
        }
    }

    /// Checks that the counters agree with those of the namespaces; for tests.
    ///
    /// # Panics
    /// When they do not.
    #[cfg(test)]
    pub(in crate::machine) fn check_delayed(&self) {
        let mut counted = Delayed { dropped: self.delayed.dropped, ..Delayed::default() };
        for head in self.heads.values() {
            counted.load(head);
            assert!(!head.deleted || head.delayed.unwrap_or_default().events == 0, "{head:?}");
        }
        assert_eq!(self.delayed, counted);
    }
}
