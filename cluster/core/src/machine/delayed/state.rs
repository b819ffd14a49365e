//! How many events wait in the whole cluster, and which namespace has the first that is due.

use alloc::borrow::ToOwned as _;
use alloc::string::String;

use crate::namespace::Head;
use crate::persistent::Set;
use crate::rows::RowsError;

/// Row of [`crate::rows::Family::Meta`] that holds how many waiting events were dropped.
pub(in crate::machine) const META_DROPPED: &[u8] = b"delayed_dropped";

/// The waiting events of all namespaces. All but `dropped` follows from the rows of the namespaces.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Delayed {
    /// Namespaces with waiting events, sorted by the time of the first of them.
    pub(super) due: Set<(u64, String)>,
    /// How many events wait.
    pub(super) events: u64,
    /// Bytes of their records.
    pub(super) bytes: u64,
    /// How many waiting events were dropped with their namespaces, ever.
    pub(super) dropped: u64,
}

impl Delayed {
    /// When the first event is due, milliseconds since 1970; `None` while no event waits.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How many events wait.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Bytes of the records of the waiting events.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many waiting events were dropped because their namespace was deleted, since the cluster was founded.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Counts the waiting events of a namespace that the state is loaded with.
    pub(in crate::machine) fn load(&mut self, head: &Head) {
        let Some(of) = &head.delayed else { return };
        self.events = self.events.saturating_add(of.events);
        self.bytes = self.bytes.saturating_add(of.bytes);
        if let Some(at) = of.due() {
            self.due.insert_mut((at, head.name.clone()));
        }
    }

    /// Takes the number of dropped events from its row.
    pub(in crate::machine) fn load_dropped(&mut self, value: &[u8]) -> Result<(), RowsError> {
        let number = value.try_into().map_err(|_| RowsError::corrupt("meta"))?;
        self.dropped = u64::from_be_bytes(number);
        Ok(())
    }

    /// Counts the waiting events of a namespace anew. `before` is the namespace before the change.
    pub(super) fn changed(&mut self, before: &Head, after: &Head) {
        let of = |head: &Head| head.delayed.unwrap_or_default();
        let (before, after, name) = (of(before), of(after), after.name.as_str());
        self.events = self.events.saturating_sub(before.events).saturating_add(after.events);
        self.bytes = self.bytes.saturating_sub(before.bytes).saturating_add(after.bytes);
        if before.due() == after.due() {
            return;
        }
        if let Some(at) = before.due() {
            self.due.remove_mut(&(at, name.to_owned()));
        }
        if let Some(at) = after.due() {
            self.due.insert_mut((at, name.to_owned()));
        }
    }
}
