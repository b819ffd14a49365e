//! Reads of the events that wait for their time.

use std::collections::BTreeMap;
use std::sync::Arc;

use rollbook_core::event::Event;
use rollbook_core::machine::delayed::keys;
use rollbook_core::namespace::Head;
use rollbook_core::rows::successor;
use rollbook_core::timed::delayed::DelayedId;

use crate::error::ReadError;
use crate::state::state::State;

/// Most rows that are read at a time. Their records may be large.
const PAGE_ROWS: usize = 32;

/// Reads waiting events. All functions read from the disk, so they are not for async threads.
#[derive(Clone)]
pub struct DelayedReader {
    state: Arc<State>,
}

impl std::fmt::Debug for DelayedReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DelayedReader").finish_non_exhaustive()
    }
}

/// A waiting event, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingEvent {
    /// The id under which the event waits.
    pub id: DelayedId,
    /// Name of the namespace.
    pub namespace: String,
    /// The subject.
    pub subject: String,
    /// Bytes of the record.
    pub bytes: u64,
}

impl DelayedReader {
    pub(crate) const fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// The waiting event of this id; `None` when no event waits under it.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn event(&self, id: DelayedId) -> Result<Option<WaitingEvent>, ReadError> {
        let Some(record) = self.state.row(keys::FAMILY, &keys::key(id))? else { return Ok(None) };
        let namespaces = self.namespaces(|head| head.id == id.namespace);
        namespaces.get(&id.namespace).map(|(name, _)| waiting(id, name, &record)).transpose()
    }

    /// The first waiting events, by namespace in the order of their numbers and by time, behind that of the id `after`:
    /// of one namespace, or of those that `wanted` chooses by name. At most `limit`.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn events(
        &self,
        wanted: impl Fn(&str) -> bool,
        after: Option<DelayedId>,
        limit: usize,
    ) -> Result<Vec<WaitingEvent>, ReadError> {
        let mut found = Vec::new();
        for (number, (name, first)) in self.namespaces(|head| wanted(&head.name)) {
            // Rows before the first one were removed, and to iterate over what was removed is slow.
            let mut from = keys::key(first);
            if let Some(after) = after {
                from = from.max(successor(&keys::key(after)));
            }
            let to = keys::bounds(number).1;
            while found.len() < limit && from < to {
                let rows = PAGE_ROWS.min(limit.saturating_sub(found.len()));
                let page = self.state.rows_between(keys::FAMILY, (&from, &to), rows, false)?;
                for (key, record) in &page {
                    let id = keys::parse(key).ok_or_else(|| ReadError("damaged key of a waiting event".to_owned()))?;
                    found.push(waiting(id, &name, record)?);
                }
                match page.last() {
                    Some((last, _)) if page.len() >= rows => from = successor(last),
                    _ => break,
                }
            }
        }
        Ok(found)
    }

    /// The namespaces with waiting events that `wanted` chooses, by their numbers, with the first of these events.
    fn namespaces(&self, wanted: impl Fn(&Head) -> bool) -> BTreeMap<u32, (String, DelayedId)> {
        let machine = self.state.machine();
        let first = |head: &Head| {
            let delayed = head.delayed.filter(|delayed| delayed.events > 0)?;
            let first = DelayedId { namespace: head.id, due: delayed.first_due, number: delayed.first_number };
            Some((head.id, (head.name.clone(), first)))
        };
        machine.heads().filter(|head| wanted(head)).filter_map(first).collect()
    }
}

fn waiting(id: DelayedId, namespace: &str, record: &[u8]) -> Result<WaitingEvent, ReadError> {
    let damaged = || ReadError(format!("damaged record of the waiting event {id}"));
    let (event, _) = Event::decode(record).ok_or_else(damaged)?;
    let (namespace, subject) = (namespace.to_owned(), event.subject.to_owned());
    Ok(WaitingEvent { id, namespace, subject, bytes: u64::try_from(record.len()).unwrap_or(u64::MAX) })
}
