//! What the first fragments of an envelope cover.

use alloc::collections::BTreeMap;

use super::part::Part;
use crate::xbus::id::Id;

/// How far one event is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Covered {
    /// The number of the last fragment of the event.
    pub index: u64,
    /// Items of the event up to that fragment.
    pub items: u64,
}

/// What the first fragments of an envelope cover. A receiver of a big envelope shows its position and gets the next
/// fragment. The empty position is the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The events of which something is covered.
    pub events: BTreeMap<Id, Covered>,
}

impl Position {
    /// Moves behind a part.
    pub fn cover(&mut self, event: Id, part: &Part) {
        let covered = self.events.entry(event).or_default();
        covered.index = part.index.unwrap_or_else(|| covered.index.saturating_add(1));
        covered.items = covered.items.saturating_add(part.items);
    }

    /// Whether a stored part lies before this position. Parts have their numbers as they are stored.
    #[must_use]
    pub fn covers(&self, event: Id, index: u64) -> bool {
        self.events.get(&event).is_some_and(|covered| index <= covered.index)
    }
}
